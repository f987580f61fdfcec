// Package aisdk tells clients of the Vercel AI SDK what happens in a turn, in
// the two protocols that they speak:
//
//	session events ─▶ Stream ─▶ part ─▶ UI message stream (SSE; ai 5, 6, 7)
//	                                 └▶ data stream (lines with a code; ai 4, and the original)
//
// It also reads the requests of both (request.go). Only chunk types that ai 5
// knows are sent, since all of them throw on a type they don't know.
//
// A Stream begins with the turn's items as they stand, so that one that is
// resumed replays everything from the start, compact, and then follows the
// log. It belongs to one goroutine.
//
// Source: npm ai 5.0.277, 6.0.324, 7.0.173 (src/ui-message-stream,
// src/ui/process-ui-message-stream.ts), @ai-sdk/ui-utils 1.2.8.
package aisdk
