// Package accounts keeps users, organisations, API keys and sign-ins, and the
// record of who did what.
//
//	httpapi ──Verify(key), Resume(cookie)──▶ Service ──cache, some seconds──▶ store
//	        ──SignIn(email, password)──▶ throttle ─▶ hasher (argon2id, few at once) ─┘
//	        ──Record(entry)──▶ queue ──one transaction a moment──▶ store
//
// Nothing secret is kept as it is: of keys, cookies and links there is a SHA-256
// (they are random, 256 bits), of passwords an argon2id.
//
// A key that was verified is believed for some seconds. Whatever changes rights
// empties that cache here at once, and with Postgres on the other servers as
// soon as they hear of it, which takes milliseconds; one that can't hear
// forgets by itself.
//
// All methods may be called concurrently. Goroutines: one that writes what can
// wait and clears up, one that listens to other servers, one that ends
// streams whose reader lost the right to them; Close ends and awaits them.
package accounts
