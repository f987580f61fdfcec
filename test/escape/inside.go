package escape

import (
	"testing"
)

const (
	groupOthers = "Other sandboxes"
	groupAgent  = "The agent and the server"
)

// haunted is what a victim's processes have, which others must not find.
var haunted = map[string]any{
	"file": "caesarion-victim", "abstract": "\x00caesarion-victim", "port": 45454, "key": 0x0CAE5A, "process": "caesarion-victim-process",
}

// haunt has a sandbox keep files, sockets, shared memory and a process that the
// others look for. What it gives checks that they live.
func haunt(t *testing.T, b Box) (live func(testing.TB)) {
	t.Helper()
	alive, _ := begin(t, b, `
import ctypes, mmap, os, socket, time
name, key = "caesarion-victim", 0x0CAE5A
for folder in ("/workspace", "/tmp", "/dev/shm", "/uploaded_files"):
    try:
        open(folder + "/" + name, "w").write("victim")
    except OSError:
        pass
libc = ctypes.CDLL(None)
libc.shmget(key, 4096, 0o1666)
libc.semget(key, 1, 0o1666)
libc.msgget(key, 0o1666)
sockets = []
for family, address in ((socket.AF_UNIX, "\0" + name), (socket.AF_UNIX, "/tmp/" + name + ".sock"), (socket.AF_INET, ("127.0.0.1", 45454))):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind(address)
    s.listen(100)
    sockets.append(s)
memory = mmap.mmap(-1, 16 << 20)
memory.write(b"caesarion-victim-memory-" * 600000)
libc.prctl(15, b"caesarion-victim-process"[:15], 0, 0, 0)
print("ready", flush=True)
while True:
    time.sleep(3600)
`)
	return func(t testing.TB) {
		t.Helper()
		if !alive() {
			t.Error("a process of another sandbox has ended")
		}
		usable(t, b)
	}
}

// neighbours look for another sandbox on the same host.
var neighbours = []Attack{
	{
		Group: groupOthers, Name: "another sandbox's files",
		Does: "looks in every folder for a file that another sandbox has in `/workspace`, `/tmp`, `/dev/shm`",
		Code: `
found = []
for folder, folders, files in os.walk("/"):
    if folder.startswith("/proc") or folder.startswith("/sys"):
        folders[:] = []
        continue
    found += [os.path.join(folder, f) for f in files if f.startswith(FACTS["ours"]["file"])]
for root in glob.glob("/proc/*/root") + glob.glob("/proc/*/cwd"):
    found += glob.glob(root + "/" + FACTS["ours"]["file"] + "*") + glob.glob(root + "/workspace/" + FACTS["ours"]["file"] + "*")
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupOthers, Name: "another sandbox's sockets",
		Does: "connects to another sandbox's abstract and named Unix sockets and to its port on loopback",
		Code: `
found = []
for family, address in ((socket.AF_UNIX, FACTS["ours"]["abstract"]), (socket.AF_UNIX, "/tmp/caesarion-victim.sock"), (socket.AF_INET, ("127.0.0.1", FACTS["ours"]["port"])), (socket.AF_INET6, ("::1", FACTS["ours"]["port"]))):
    try:
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(5)
        if s.connect_ex(address) == 0:
            found.append(str(address))
    except OSError:
        pass
if FACTS["ours"]["file"] in open("/proc/net/unix").read():
    found.append("/proc/net/unix")
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupOthers, Name: "another sandbox's shared memory, semaphores and queues",
		Does: "opens System V objects by their key, and lists those there are",
		Code: `
found = [name for name, make in (("shared memory", lambda: libc.shmget(FACTS["ours"]["key"], 0, 0)), ("semaphores", lambda: libc.semget(FACTS["ours"]["key"], 0, 0)), ("queue", lambda: libc.msgget(FACTS["ours"]["key"], 0))) if make() != -1]
for path in glob.glob("/proc/sysvipc/*"):
    if str(FACTS["ours"]["key"]) in open(path).read():
        found.append(path)
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupOthers, Name: "another sandbox's processes",
		Does: "looks for its processes in `/proc`, and sends a signal to each id from 1 to 65,536 that `/proc` does not list",
		Code: `
found, own = [], set()
for comm in glob.glob("/proc/[0-9]*/comm"):
    own.add(int(comm.split("/")[2]))
    if FACTS["ours"]["process"][:15] in open(comm).read():
        found.append(comm)
for task in glob.glob("/proc/[0-9]*/task/[0-9]*"):
    own.add(int(task.split("/")[-1]))
for pid in range(1, 65536):
    if pid not in own and err(lambda: os.kill(pid, 0)) in ("WORKED", "EPERM") and not os.path.exists("/proc/%d" % pid):
        found.append("process %d" % pid)
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupOthers, Name: "memory that others had",
		Does: "takes 256 MiB of new memory and 64 MiB of a new file's hole and looks for what is not zero",
		Code: `
found = []
for _ in range(4):
    m = mmap.mmap(-1, 64 << 20)
    zero = bytes(1 << 20)
    for at in range(0, len(m), 1 << 20):
        if m[at:at + (1 << 20)] != zero:
            found.append("memory")
    m.close()
with open("/workspace/hole", "w+b") as f:
    f.truncate(64 << 20)
    while True:
        part = f.read(1 << 20)
        if not part:
            break
        if part.strip(b"\0"):
            found.append("file")
os.unlink("/workspace/hole")
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
}

// agentAndServer go for what runs the sandbox.
var agentAndServer = []Attack{
	{
		Group: groupAgent, Name: "the agent's token",
		Does: "looks for it in arguments, environments and memory of all processes, and in every file that can be read, by its digest",
		Code: `
def look(data):
    return any(hashlib.sha256(m).hexdigest() == FACTS["token"] for m in set(re.findall(rb"[A-Za-z0-9_=+/.-]{16,128}", data)))
found = []
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    if look(read(path, 1 << 20)):
        found.append(path)
for top in ("/tmp", "/run", "/var", "/opt/caesarion", "/workspace", "/uploaded_files", "/etc", "/home", "/dev/shm"):
    for folder, folders, files in os.walk(top):
        for f in files:
            path = os.path.join(folder, f)
            if look(read(path, 1 << 20)):
                found.append(path)
for maps in glob.glob("/proc/[0-9]*/maps"):
    pid = maps.split("/")[2]
    if int(pid) == os.getpid():
        continue
    try:
        mem = open("/proc/%s/mem" % pid, "rb", buffering=0)
        for line in open(maps):
            low, high = (int(n, 16) for n in line.split()[0].split("-"))
            if "rw" not in line.split()[1] or high - low > 64 << 20:
                continue
            mem.seek(low)
            if look(mem.read(high - low) or b""):
                found.append(maps)
    except (OSError, ValueError, OverflowError):
        continue
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupAgent, Name: "the agent's memory and descriptors",
		Does: "`ptrace`, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd`, `kcmp` and `/proc/1/mem` of the agent",
		Code: `
iov = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(ctypes.create_string_buffer(8)), 8))
answers = {"ptrace": call("ptrace", 16, 1, 0, 0), "seize": call("ptrace", 0x4206, 1, 0, 0), "readv": call("process_vm_readv", 1, iov, 1, iov, 1, 0), "writev": call("process_vm_writev", 1, iov, 1, iov, 1, 0), "kcmp": call("kcmp", 1, os.getpid(), 0, 0, 0)}
fd = sys_call("pidfd_open", 1, 0)
if isinstance(fd, int):
    answers.update({"getfd %d" % n: call("pidfd_getfd", fd, n, 0) for n in range(8)})
answers.update({"mem": err(lambda: open("/proc/1/mem", "rb", buffering=0).read(1)), "open": err(lambda: os.open("/proc/1/fd/0", os.O_RDONLY)), "environ": "EACCES" if not read("/proc/1/environ") else "WORKED"})
return all_of("refused" if a in ("EPERM", "EACCES", "ENOSYS", "ESRCH", "EIO") else name + " " + a for name, a in answers.items())`,
		Want: []string{"refused"},
	},
	{
		Group: groupAgent, Name: "the agent's port without its token",
		Does: "every call of the agent's API on every port that listens, without a token and with guessed ones",
		Code: `
import http.client
ports = set()
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).readlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            ports.add(int(local.split(":")[1], 16))
ports.add(FACTS["agent_port"])
answers = []
calls = [("GET", "/usage"), ("GET", "/kernels"), ("POST", "/kernels"), ("GET", "/executions"), ("GET", "/files?path=/"), ("GET", "/files/content?path=/etc/passwd"), ("PUT", "/files/content?path=/workspace/owned"),
    ("PUT", "/files/unpack"), ("POST", "/files/pack"), ("POST", "/processes"), ("POST", "/configure"), ("POST", "/egress"), ("POST", "/trim"), ("GET", "//usage"), ("GET", "/health/../usage"), ("GET", "/%75sage")]
for token in (None, "", "null", "x" * 43, "Bearer", "\xff" * 8):
    for method, path in calls:
        try:
            c = http.client.HTTPConnection("127.0.0.1", FACTS["agent_port"], timeout=20)
            c.request(method, path, body=b"{}", headers={} if token is None else {"Authorization": "Bearer " + token})
            answers.append(c.getresponse().status)
            c.close()
        except Exception as e:
            answers.append(type(e).__name__)
return "refused" if ports and all(a in (301, 307, 400, 401, 404, "ConnectionResetError", "RemoteDisconnected") for a in answers) and 401 in answers else all_of(str(a) for a in answers)`,
		Want: []string{"refused"},
	},
	{
		Group: groupAgent, Name: "the agent's port is taken",
		Does: "listens on the agent's and the proxy's ports too, with `SO_REUSEPORT`, on every address, and waits for who asks them",
		Code: `
answers = []
for port in (FACTS["agent_port"], FACTS["agent_port"] + 1):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"), (socket.AF_INET6, "::ffff:127.0.0.1")):
        s = socket.socket(family, socket.SOCK_STREAM)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            s.setsockopt(socket.SOL_SOCKET, option, 1)
        def take():
            s.bind((host, port))
            s.listen(1)
        if err(take) == "WORKED":
            answers.append("%s:%d" % (host, port))
            s.settimeout(1)
            time.sleep(0.1)
            for _ in range(50): # who asks for loopback must not be heard here
                c = socket.socket()
                c.settimeout(5)
                c.connect(("127.0.0.1", port))
                c.close()
            try:
                s.accept()
                answers[-1] += " HEARS"
            except OSError:
                answers.pop()
return all_of(answers) or "nobody is heard"`,
		Want: []string{"nobody is heard"},
	},
	{
		Group: groupAgent, Name: "the agent's output",
		Does: "writes lines to the agent's standard output and error, which the host reads",
		Code: `
return nothing_or(writable(["/proc/1/fd/1", "/proc/1/fd/2", "/proc/1/task/1/fd/1", "/dev/console"]))`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupAgent, Name: "the server's API from inside",
		Does: "connects to addresses of the host at which the server answers, to all ports of its own addresses, and to every Unix socket it can see",
		Code: `
found = []
for address in FACTS["server"]:
    host, port = address.rsplit(":", 1)
    try:
        s = socket.create_connection((host.strip("[]"), int(port)), 5)
        found.append(address)
    except OSError:
        pass
own = {FACTS["agent_port"], FACTS["agent_port"] + 1}
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    own |= {int(line.split()[1].split(":")[1], 16) for line in open(table).readlines()[1:]}
for host in ("127.0.0.1", "::1"):
    for port in list(range(1, 10000)) + list(range(44000, 46000)):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        s.settimeout(2)
        try:
            if s.connect_ex((host, port)) == 0 and port not in own:
                found.append("%s:%d" % (host, port))
        except OSError:
            pass
        finally:
            s.close()
for folder, folders, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        folders[:] = []
        continue
    for f in files:
        path = os.path.join(folder, f)
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                found.append(path)
        except OSError:
            pass
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupAgent, Name: "secrets of the server",
		Does: "looks in environments and arguments of all processes for a value of the server's environment",
		Code: `
return nothing_or([p for p in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/task/*/environ") if canary_in(read(p, 1 << 20))])`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupAgent, Name: "the cluster from a pod",
		Does: "connects past the proxy to the API server, the kubelet, cluster DNS, metadata, the server's pods and service, the database and other sandboxes, sends a name to DNS, and resolves names, while the door is open",
		Want: []string{"nothing answers"}, Test: "test/kube/egress: testNothingElse; test/chart/install: testNetwork",
	},
	{
		Group: groupAgent, Name: "the cluster through the door",
		Does: "asks the proxy for the API server, cluster DNS, metadata and names that lead there, though a list names them",
		Want: []string{"403"}, Test: "test/kube/egress: testList",
	},
	{
		Group: groupAgent, Name: "a door before there is an owner",
		Does: "asks the proxy of a ready pod that is nobody's yet",
		Want: []string{"403, `off`"}, Test: "test/kube/egress: testPackages",
	},
}
