// Package identity says who asks, what he may do and what is his.
//
//	httpapi: token, key, cookie ──▶ accounts ──▶ Principal ──With──▶ ctx ──From──▶ session, fleet
//	                                                │ May(action), Allow(scope), Owns(owner)
//	                                                ▼
//	                                         403 with a code, or a plain 404
//
// A Principal is made once for a request, by the door that took it, and goes
// with its context; to another replica it goes under the proof of the forwarded
// request. Objects carry an Owner. Who may not see an object is told what he is
// told of one that does not exist.
//
// With one user (token, none) the Principal is Local: it owns everything, and
// objects have no owner. They are the operators' when accounts come later.
//
// The package has values only. Users, keys and sign-ins are kept by accounts;
// oidc speaks with providers; identitytest is a provider for tests.
package identity
