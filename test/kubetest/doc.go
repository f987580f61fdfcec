// Package kubetest gives tests a real Kubernetes of one node, or one that only
// pretends to run its pods (see test/cluster).
//
//	func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
//
//	func TestPod(t *testing.T) {
//		config := kubetest.Config(t)           // *rest.Config, administrator, no client-side throttle
//		namespace := kubetest.Namespace(t)     // fresh, Pod Security "restricted", deleted at the end
//		image := kubetest.Image(t, "probe")    // by digest; "server", "python", "probe"
//		out := kubetest.Kubectl(t, "get", "pods", "-n", namespace)
//		api := kubetest.Component(t, "kube-apiserver") // to stop, kill, start, freeze and thaw
//	}
//
// Main starts the test binary again inside a cluster of its own: as a process of
// the node, with the machine's files but another network. From there the tests
// reach pods and services by their addresses, and the API server at
// 127.0.0.1:6443; kubectl is in PATH and KUBECONFIG is set. Pods reach a server
// that listens on all addresses at NodeIP. There is no way out to the world;
// MetadataIP and OutsideIP answer HTTP on port 80 in place of a cloud's metadata
// server and of a host outside. The RuntimeClass is "gvisor"; runc is the default.
//
// The cluster is gone when the tests end or are killed, and their temporary files
// with it. One runs at a time on a checkout: Main waits for its turn, and go test's
// -timeout counts that. A machine with room for two says so: make test-kube does by
// CAESARION_CLUSTER_SLOTS, echo 2 > .cache/cluster/slots for all. In a cluster that is
// kept up the tests start at once:
//
//	go run ./test/cluster up
//	CAESARION_CLUSTER=up go test ./internal/sandbox/kube -run Name
//	go run ./test/cluster exec -- kubectl get pods -A
//	go run ./test/cluster down
//
// A kept cluster has the images of its start: after a change of the agent start it anew.
//
// Main(m, kubetest.Fake) is for thousands of pods: there kwok says that pods are
// ready, and nothing runs. With -short no cluster is started and tests that need one are
// skipped. Without root or the packages of `scripts/deps.sh kube` they are skipped,
// too; with CI=true that is a failure.
package kubetest
