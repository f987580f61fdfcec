// Command cluster starts a real Kubernetes of one node for tests, on this
// machine and without changing it.
//
//	cluster run [--tier=node|fake] -- COMMAND…   a fresh cluster, COMMAND in it, nothing afterwards
//	cluster up [--tier=node|fake]                the same in the background, until down
//	cluster exec -- COMMAND…                     a command in the cluster that is up
//	cluster down                                 ends it
//	cluster image ls [--json]                    the images pods may use, by digest
//	cluster build                                builds what a cluster is made of, if it changed
//
// What is real: etcd, API server, controller manager, scheduler, kubelet and
// kube-proxy (one binary, see kube/), containerd and runc of the distribution
// with a CNI bridge, gVisor by a RuntimeClass (shim/; runsc is the product's own
// binary), CoreDNS (kube/dns). NetworkPolicy is enforced by kube/netpol. The tier
// "fake" has no node: kwok (kwok/) pretends to run the pods, thousands of them.
//
//	cluster run ── pid 1 of new pid, mount and network namespaces (init)
//	   │              └─ node: mounts, addresses, keys; starts the components, then COMMAND
//	   └─ sweep: outlives all of them, removes cgroups and files, then gives the lock back
//
// The runner's death, also by SIGKILL, ends pid 1 and with it all processes,
// mounts and networks of the cluster. COMMAND runs as a process of the node would:
// pod and service addresses are reachable only there. Its TMPDIR goes with the cluster.
//
// Everything is kept in .cache/cluster of the repository: built binaries, and
// containerd's folder with unpacked images, which every cluster finds as it was
// before the first pod. All else is new each time. One cluster runs at a time,
// others wait for the lock; a machine with room says in .cache/cluster/slots, or in
// CAESARION_CLUSTER_SLOTS, how many it has room for. A disk with less room than a
// cluster may need is refused before anything is started.
package main
