// Package kubebench measures the product on a real Kubernetes (test/cluster),
// and tests what it costs the API server.
//
//	make bench-kube        the tables of docs/performance.md
//	make test-kube         how many writes a lease takes
//
// Servers are processes of the node, not pods: so they stand beside the server
// with the one-machine driver that they are compared with, without a limit of
// their own to measure. They are built and configured as the chart's, with an
// account of their own that has only the chart's rights, and their Postgres syncs
// each commit. etcd does not: the cluster of the tests runs it with
// --unsafe-no-fsync, and a write there lacks the disk's time.
//
// What is measured is done by `caesarion bench --server`, from outside.
package kubebench
