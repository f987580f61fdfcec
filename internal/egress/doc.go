// Package egress is the server's side of the one door through which programs in
// sandboxes reach anything outside.
//
//	program ─▶ agent's proxy ══ HTTP/2 on one connection ══▶ Gateway.Serve
//	                                                            │ Policy: may this sandbox ask for this name and port?
//	                                                            │ look-up (here, never in the sandbox)
//	                                                            │ guard: may anybody reach this address?
//	                                                            ▼
//	              tunnel, forward, intercept ─▶ outside      mirror ─▶ package index
//
// The server opened the connection and is the HTTP/2 server on it; the agent is
// the client. A stream is CONNECT host:port, which becomes a tunnel, or an
// ordinary request with an absolute authority, which is forwarded as plain HTTP.
// The agent is hostile: what it sends asks, and nothing it sends decides.
//
// An address is judged when it is dialled, on every dial, so a name that answers
// differently the second time gains nothing. Whatever is unclear is refused.
//
// A host that has a Secret is the only one whose TLS is opened: the value is put
// in place of the placeholder on its way out and masked on its way back.
//
// Everything may be used concurrently. Serve returns after all that it started
// has ended.
package egress
