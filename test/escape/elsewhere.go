package escape

const (
	groupNetwork = "The network"
	groupWire    = "A hostile agent against the server"
	groupPage    = "Outputs against the page, and users against each other"
)

// elsewhere are attacks that other tests make.
var elsewhere = []Attack{
	{Group: groupFloods, Name: "forks", Does: "a fork bomb, also one that hides from its parents", Want: []string{"ended as `process_limit`"}, Test: "test/hostile: a fork bomb; internal/agent/agenttest: a fork bomb that hides"},
	{Group: groupFloods, Name: "threads", Does: "threads without number", Want: []string{"an error, or ended as `process_limit`"}, Test: "test/hostile: threads that never end, without number"},
	{Group: groupFloods, Name: "memory", Does: "memory bombs of its own pages, of shared ones, and in a child", Want: []string{"`MemoryError`, or ended as `out_of_memory`"}, Test: "test/hostile: a memory bomb of shared pages; internal/agent/agenttest: a memory bomb in a child"},
	{Group: groupFloods, Name: "disk", Does: "a file until the disk is full", Want: []string{"`disk_full`"}, Test: "test/hostile: a disk that is filled"},
	{Group: groupFloods, Name: "output", Does: "100 MB of text, lines and pictures of 50 MB, an exception of 50 MB", Want: []string{"cut, and counted; the server's memory stays"}, Test: "test/hostile: a hundred megabytes of stdout; test/hostile: an exception of fifty megabytes"},
	{Group: groupFloods, Name: "events", Does: "100,000 displays, a million prints", Want: []string{"cut, and counted; the server's memory stays"}, Test: "test/hostile: a hundred thousand displays; test/hostile: a million tiny prints"},
	{Group: groupFloods, Name: "lines in the server's log", Does: "connections without number through the proxy, each of which has a line", Want: []string{"20 a second, the rest counted"}, Test: "internal/egress: lines_left_out"},
	{Group: groupFloods, Name: "connections to the agent", Does: "a crowd that holds the agent's port", Want: []string{"the server is let in"}, Test: "internal/agent/agenttest: a crowd at the agent's port; internal/agent: TestStrangersCannotFillTheAgent"},
	{Group: groupAgent, Name: "the agent is killed", Does: "every signal to process 1", Want: []string{"the sandbox is lost, and said to be so"}, Test: "test/hostile: the agent is killed; internal/agent/agenttest: every signal to the agent"},
	{Group: groupAgent, Name: "the kernel's own connection", Does: "garbage, a gigabyte announced, or the end on the socket between kernel and agent", Want: []string{"a new kernel, `kernel_protocol`"}, Test: "test/hostile: a gigabyte announced on the kernel's own socket; internal/kernel: FuzzReceive"},
	{Group: groupAgent, Name: "the model's key", Does: "looks for the operator's key of a language model in the sandbox, in answers, logs and events", Want: []string{"nothing found"}, Test: "test/hostile: TestTheModelsKeyIsNowhereElse"},
	{Group: groupHost, Name: "the process around the sandbox", Does: "what a breakout would find: user, capabilities, seccomp, namespaces of the sentry", Want: []string{"nobody, without capabilities"}, Test: "internal/sandbox/gvisor: TestTheSentryIsConfinedOnTheHost"},
	{Group: groupHost, Name: "what runs in a sandbox", Does: "user, capabilities, the image's files, set-uid programs", Want: []string{"nobody, with nothing"}, Test: "internal/sandbox/gvisor: TestWhatRunsInASandboxIsNobodyWithNothing"},
	{Group: groupOthers, Name: "the numbers of a copy", Does: "two copies of one snapshot draw the same random numbers", Want: []string{"others"}, Test: "internal/agent: TestACopyDrawsOtherNumbers"},
	{Group: groupNetwork, Name: "every way out but the proxy", Does: "TCP, UDP, IPv6, multicast, names, ICMP, raw IP, packets, metadata, the host", Want: []string{"fails"}, Test: "test/egress: TestNothingElseLeaves"},
	{Group: groupNetwork, Name: "the network of pods", Does: "the same from a pod under the installation's NetworkPolicy, also to other pods and to the API server", Want: []string{"fails"}, Test: "test/chart/install: MetadataIP"},
	{Group: groupNetwork, Name: "names that lead inwards", Does: "private, loopback and metadata addresses as literals, names, redirects, rebinding, in all forms", Want: []string{"refused"}, Test: "internal/egress: TestTheGuardKnowsEveryFormOfAnAddress; internal/egress: TestANameThatChangesBetweenLookUpAndDialIsNotDialled; test/egress: a redirect inwards"},
	{Group: groupNetwork, Name: "a tunnel of names", Does: "random names below a wildcard", Want: []string{"refused after 100"}, Test: "internal/egress: TestRandomNamesBelowAWildcardAreNotAWayOut"},
	{Group: groupNetwork, Name: "an allowed host as a front", Does: "TLS for another name in a tunnel to an allowed one", Want: []string{"reset"}, Test: "internal/egress: TestAnAllowedHostIsNoFrontForAnother"},
	{Group: groupNetwork, Name: "before the policy", Does: "the first instruction of new, restored, pooled, copied and woken sandboxes", Want: []string{"the policy holds"}, Test: "test/egress: TestThePolicyHoldsForAll"},
	{Group: groupNetwork, Name: "values of secrets", Does: "has them sent to another host, echoed, or looks for them in the sandbox", Want: []string{"never seen"}, Test: "internal/egress: TestOtherHostsAndOtherNamesNeverGetTheValue; test/egress: TestSecrets"},
	{Group: groupWire, Name: "answers that are none", Does: "random bytes, wrong lengths, types, encodings and depths as the answer to each call", Want: []string{"`sandbox-bad-answer` or `sandbox-unreachable`"}, Test: "internal/agentapi: FuzzAnswer; internal/agentapi: TestAnswersThatCannotBeRight"},
	{Group: groupWire, Name: "answers without end", Does: "headers, bodies, lines and lists without end; 64 MiB of `{},`", Want: []string{"refused at the bound, in bounded memory"}, Test: "internal/agentapi: TestAnswersWithoutEnd"},
	{Group: groupWire, Name: "a drip", Does: "one byte a second, for ever", Want: []string{"`sandbox-timeout`"}, Test: "internal/agentapi: TestADripIsGivenUp"},
	{Group: groupWire, Name: "events that are none", Does: "random lines, gaps, repetitions, unknown types, 16 MiB of nothing", Want: []string{"refused"}, Test: "internal/agentapi: FuzzEvents; internal/agentapi: TestStreamsThatCannotBeRight; internal/event: FuzzLog"},
	{Group: groupWire, Name: "frames of the connection", Does: "random frames, acknowledgements of what was never sent", Want: []string{"the connection ends"}, Test: "internal/agentapi: FuzzWindow"},
	{Group: groupWire, Name: "the door", Does: "random bytes, HTTP/1, frames of 16 MB, endless headers, header bombs, rapid resets, endless pings, answers never read", Want: []string{"the door ends, at most 32 MB"}, Test: "internal/egress: TestAHostileAgentCostsLittleMemory; internal/agentapi: FuzzDoor"},
	{Group: groupWire, Name: "files that can't be", Does: "listings and archives of the sandbox's files that contradict themselves", Want: []string{"refused, or restored as far as it can"}, Test: "internal/workspace: TestAListingThatCannotBeTrueIsRestoredAsFarAsItCan"},
	{Group: groupWire, Name: "images", Does: "layers with `..`, links, devices, bombs", Want: []string{"refused, or made harmless"}, Test: "internal/image: TestImportRefuses; internal/image: FuzzImport; internal/image: TestImportDefangs"},
	{Group: groupPage, Name: "scripts in outputs", Does: "see [the page](../security-page.md)", Want: []string{"held in the frame"}, Test: "web/e2e/attacks: attack"},
	{Group: groupPage, Name: "other origins", Does: "requests of foreign pages, foreign names for this server, frames", Want: []string{"403, 421"}, Test: "internal/httpapi/httpapitest: Sec-Fetch-Site"},
	{Group: groupPage, Name: "requests that are none", Does: "random bytes, headers without end, slow bodies, readers that don't read", Want: []string{"a problem with a code, or cut"}, Test: "internal/httpapi: FuzzRequest; internal/httpapi: TestSlowClients"},
}
