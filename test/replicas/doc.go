// Package replicas tests several complete servers of one installation: one
// Postgres, one machine with sandboxes (real agents with real Python, without
// isolation), and a server each with its own store, registry, fleet, sessions
// and HTTP side. Servers die, lose their database, and come back.
package replicas
