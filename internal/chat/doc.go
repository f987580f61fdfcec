// Package chat answers messages: it asks a language model, runs the tools the
// model calls for in the session's sandbox, gives it what came out, and asks
// again until it has said what there is to say.
//
//	message ─▶ Service.Send ─▶ turn ─▶ round 1: ask ─▶ text, calls ─▶ run calls
//	                                   round 2: ask ─▶ text              │
//	                                     ▲                               │
//	                                     └──────── results, compact ◀────┘
//
// The session owns everything a person sees: what the model writes goes into
// its items as it comes, code into a cell, and the cell's run is the session's.
// This package owns what the model sees: the prompt, the tools, the history as
// messages, cut to the model's window. Both are made anew for each request
// from the session's items, so there is no second copy of a conversation that
// could disagree with the first.
//
// One goroutine per turn. It ends by itself, by Stop, or by Close, which waits
// for all of them. A turn that is stopped leaves calls without results; the
// next request answers them with "aborted".
package chat
