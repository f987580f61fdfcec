package escape

const groupKernel = "The kernel"

// kernelCalls are doors of the kernel that code in a sandbox has no business at.
var kernelCalls = []Attack{
	{
		Group: groupKernel, Name: "kernel modules",
		Does: "`init_module`, `finit_module`, `delete_module`",
		Code: `
image = ctypes.create_string_buffer(b"\x7fELF" + bytes(60))
fd = os.open("/workspace/m.ko", os.O_RDWR | os.O_CREAT)
return all_of([call("init_module", image, 64, b""), call("finit_module", fd, b"", 0), call("delete_module", b"loop", 0)])`,
		Want: []string{"EPERM", "ENOSYS", "ENOSYS, EPERM"},
	},
	{
		Group: groupKernel, Name: "another kernel",
		Does: "`kexec_load`, `kexec_file_load`, `reboot`, `swapon`, `acct`, `quotactl`",
		Code: `
fd = os.open("/workspace/kernel", os.O_RDWR | os.O_CREAT)
magic = (ctypes.c_long(0xfee1dead), 672274793)
return all_of([call("kexec_load", 0, 0, None, 0), call("kexec_file_load", fd, fd, 0, b"", 0), call("reboot", *magic, 0), call("swapon", b"/workspace/kernel", 0),
    call("acct", b"/workspace/kernel"), call("quotactl", 0x80000200, b"/dev/sda1", 0, None)])`,
		Want: []string{"EPERM", "ENOSYS", "ENOSYS, EPERM", "ENODEV, ENOSYS, EPERM", "ENOENT, ENOSYS, EPERM", "ENOENT, EPERM", "ENODEV, EPERM", "EBADF, ENOSYS, EPERM"},
	},
	{
		Group: groupKernel, Name: "bpf",
		Does: "`bpf`: a map and a program",
		Code: `
attr = ctypes.create_string_buffer(struct.pack("=IIII", 1, 4, 4, 1) + bytes(112))
program = ctypes.create_string_buffer(struct.pack("=BBhi", 0xb7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b"GPL")
load = ctypes.create_string_buffer(struct.pack("=IIQQ", 1, 2, ctypes.addressof(program), ctypes.addressof(license)) + bytes(104))
return all_of([call("bpf", 0, attr, 128), call("bpf", 5, load, 128)])`,
		Want: []string{"EPERM", "ENOSYS"},
	},
	{
		Group: groupKernel, Name: "io_uring",
		Does: "`io_uring_setup`",
		Code: `
return call("io_uring_setup", 8, ctypes.create_string_buffer(120))`,
		Want: []string{"ENOSYS", "EPERM"},
	},
	{
		Group: groupKernel, Name: "perf",
		Does: "`perf_event_open` of a hardware counter, a software counter and a tracepoint",
		Code: `
answers = []
for kind in (0, 1, 2):
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", kind, 112, 0) + bytes(96))
    answers += [call("perf_event_open", attr, 0, -1, -1, 0), call("perf_event_open", attr, -1, 0, -1, 0)]
return all_of(answers)`,
		Want: []string{"EPERM", "ENOSYS", "EACCES", "ENODEV", "EACCES, EPERM", "EACCES, ENOENT"},
	},
	{
		Group: groupKernel, Name: "keys",
		Does: "`add_key`, `request_key`, `keyctl`",
		Code: `
text = ctypes.create_string_buffer(4096)
answers = [("add", call("add_key", b"user", b"k", b"v", 1, -3)), ("request", call("request_key", b"user", b"k", None, -3))]
for ring in (-1, -2, -3, -4, -5, 1, 2, 3):
    answers += [("read", call("keyctl", 11, ring, text, 4096)), ("search", call("keyctl", 10, ring, b"user", b"k", 0)), ("link", call("keyctl", 8, ring, -3))]
return all_of(name + " WORKED" if "WORKED" in a else "refused" for name, a in answers)`,
		Want: []string{"refused"},
	},
	{
		Group: groupKernel, Name: "page faults by hand",
		Does: "`userfaultfd`",
		Code: `
return call("userfaultfd", 0)`,
		Want: []string{"ENOSYS", "EPERM"},
	},
	{
		Group: groupKernel, Name: "the kernel's log",
		Does: "`syslog`: read all, clear, console level",
		Code: `
text = ctypes.create_string_buffer(1 << 16)
answers = []
for what in (3, 4, 5, 8):
    r = sys_call("syslog", what, text, 1 << 16)
    if isinstance(r, int) and r > 0 and b"gVisor" not in text.raw and what != 8 and b"syslogd" not in text.raw:
        answers.append("READ")
    answers.append(r if isinstance(r, str) else "gVisor's own")
return all_of(answers)`,
		Want: []string{"EPERM", "ENOSYS", "ENOSYS, gVisor's own", "EPERM, gVisor's own", "gVisor's own"},
	},
	{
		Group: groupKernel, Name: "the host's clock and name",
		Does: "`settimeofday`, `clock_settime`, `adjtimex`, `sethostname`",
		Code: `
zero = ctypes.create_string_buffer(16)
timex = ctypes.create_string_buffer(struct.pack("=I", 1) + bytes(300))
return all_of([call("settimeofday", zero, None), call("clock_settime", 0, zero), call("adjtimex", timex), call("sethostname", b"owned", 5)])`,
		Want: []string{"EPERM", "ENOSYS", "ENOSYS, EPERM"},
	},
	{
		Group: groupKernel, Name: "the processor's ports and segments",
		Does: "`iopl`, `ioperm`, `modify_ldt`",
		Code: `
entry = ctypes.create_string_buffer(struct.pack("=IIII", 0, 0, 0xfffff, 0x51))
return all_of([call("iopl", 3), call("ioperm", 0, 8, 1), call("modify_ldt", 1, entry, 16)])`,
		Want: []string{"ENOSYS", "EPERM", "ENOSYS, EPERM"},
	},
	{
		Group: groupKernel, Name: "a look at all files",
		Does: "`fanotify_init`, `lookup_dcookie`",
		Code: `
return all_of([call("fanotify_init", 0, 0), call("lookup_dcookie", 1, ctypes.create_string_buffer(64), 64)])`,
		Want: []string{"ENOSYS", "EPERM", "ENOSYS, EPERM"},
	},
	{
		Group: groupKernel, Name: "namespaces of the first process",
		Does: "`setns` to every namespace of process 1",
		Code: `
answers = []
for ns in glob.glob("/proc/1/ns/*") + glob.glob("/proc/self/ns/*"):
    try:
        fd = os.open(ns, os.O_RDONLY)
    except OSError as e:
        answers.append(errno.errorcode[e.errno])
        continue
    answers.append(call("setns", fd, 0))
    os.close(fd)
return all_of(answers or ["ENOENT"])`,
		Want: []string{"EPERM", "ENOSYS", "EACCES", "EINVAL", "EACCES, EPERM", "EINVAL, EPERM", "ENOENT", "EACCES, EINVAL", "EACCES, EINVAL, EPERM", "EACCES, EINVAL, ENOSYS", "ENXIO", "EINVAL, ENXIO"},
	},
	{
		Group: groupKernel, Name: "namespaces of its own",
		Does: "`unshare` of mounts, processes, network, names, IPC, cgroups and time without a user namespace (gVisor has none of time, and ignores the flag)",
		Code: `
flags = {"mounts": 0x20000, "processes": 0x20000000, "network": 0x40000000, "names": 0x4000000, "IPC": 0x8000000, "cgroups": 0x2000000, "time": 0x80}
return all_of(name if "WORKED" in call("unshare", flag) else "refused" for name, flag in flags.items())`,
		Want: []string{"refused", "refused, time"},
	},
	{
		Group: groupKernel, Name: "more rights in a user namespace of its own",
		Does: "becomes root of a user namespace with network, IPC and process namespaces, then tries modules, bpf, raw packets, the clock and other users' ids",
		Code: `
r = sys_call("unshare", 0x10000000)
if isinstance(r, str):
    return "no namespace: " + r
for path, text in (("/proc/self/setgroups", "deny"), ("/proc/self/uid_map", "0 1000 1"), ("/proc/self/gid_map", "0 1000 1")):
    err(lambda: os.write(os.open(path, os.O_WRONLY), text.encode()))
for flag in (0x40000000, 0x8000000, 0x4000000):
    sys_call("unshare", flag)
image = ctypes.create_string_buffer(b"\x7fELF" + bytes(60))
zero = ctypes.create_string_buffer(16)
worked = []
for name, args in (("init_module", (image, 64, b"")), ("kexec_load", (0, 0, None, 0)), ("reboot", (ctypes.c_long(0xfee1dead), 672274793, 0)), ("settimeofday", (zero, None)),
        ("bpf", (0, ctypes.create_string_buffer(struct.pack("=IIII", 1, 4, 4, 1) + bytes(112)), 128)), ("swapon", (b"/workspace/x", 0)), ("acct", (b"/workspace/x",))):
    if not isinstance(sys_call(name, *args), str):
        worked.append(name)
if err(lambda: os.write(os.open("/proc/self/uid_map", os.O_WRONLY), b"0 0 4294967295")) == "WORKED":
    worked.append("uid_map")
if err(lambda: open("/etc/shadow", "a").write("x")) == "WORKED":
    worked.append("/etc/shadow")
if err(lambda: os.kill(1, 0)) == "WORKED" and os.getuid() != 0 and err(lambda: open("/proc/1/mem", "rb").read(1)) == "WORKED":
    worked.append("/proc/1/mem")
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(2)
    for a in FACTS["server"]:
        host, port = a.rsplit(":", 1)
        if s.connect_ex((host, int(port))) == 0:
            worked.append(a)
except OSError:
    pass
return "nothing gained" if not worked else "GAINED " + ", ".join(worked)`,
		Want: []string{"nothing gained", "no namespace: EPERM"},
	},
	{
		Group: groupKernel, Name: "another user",
		Does: "`setuid(0)`, `setresuid`, `setgroups`, `capset`, a set-uid copy of a shell, capabilities of a file",
		Code: `
answers = [call("setuid", 0), call("setresuid", 0, 0, 0), call("setgroups", 1, ctypes.create_string_buffer(4))]
header, data = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0)), ctypes.create_string_buffer(struct.pack("=IIIIII", 0xffffffff, 0xffffffff, 0, 0, 0, 0))
answers.append(call("capset", header, data))
import shutil
shutil.copy("/bin/sh", "/tmp/sh")
os.chmod("/tmp/sh", 0o6755)
if subprocess.run(["/tmp/sh", "-c", "id -u; id -g"], capture_output=True, text=True).stdout.split()[:1] == ["0"]:
    answers.append("ROOT by set-uid")
caps = struct.pack("=IIIII", 0x02000001, 0xffffffff, 0, 0xffffffff, 0)
os.chmod("/tmp/sh", 0o755)
err(lambda: os.setxattr("/tmp/sh", "security.capability", caps))
status = subprocess.run(["/tmp/sh", "-c", "while read line; do echo $line; done < /proc/self/status"], capture_output=True, text=True).stdout
if re.search(r"Cap(Eff|Prm): 0*[1-9a-f]", status) or "CapEff" not in status:
    answers.append("CAPABILITIES of a file")
return all_of(answers)`,
		Want: []string{"EPERM"},
	},
	{
		Group: groupKernel, Name: "larger limits",
		Does: "raises its hard limits of processes, memory and files; real-time scheduling",
		Code: `
answers = []
for limit in ("RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK"):
    name, limit = limit, getattr(resource, limit)
    soft, hard = resource.getrlimit(limit)
    if hard == resource.RLIM_INFINITY:
        continue
    try:
        resource.setrlimit(limit, (hard + 1, hard + 1))
        answers.append("RAISED " + name)
    except (OSError, ValueError):
        answers.append("refused")
if hasattr(os, "sched_setscheduler"):
    answers.append("refused" if err(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))) != "WORKED" else "RAISED to real time")
return all_of(answers)`,
		Want: []string{"refused"},
	},
	{
		Group: groupKernel, Name: "families of sockets",
		Does: "opens a socket of each of the kernel's 46 families: packets, kernel crypto, virtual machines, Bluetooth, TIPC, XDP, …",
		Code: `
names = {int(v): k for k, v in vars(socket).items() if k.startswith("AF_") and k != "AF_ROUTE"}
opened = []
for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        opened.append(names.get(family, str(family)))
        break
return ", ".join(sorted(n.replace("AF_", "") for n in opened))`,
		Want: []string{"INET, INET6, NETLINK, UNIX", "INET, INET6, UNIX", "INET, NETLINK, UNIX", "INET, UNIX"},
	},
	{
		Group: groupKernel, Name: "interfaces and routes",
		Does: "makes network interfaces, addresses and routes by netlink",
		Code: `
def ask(kind, body):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.settimeout(5)
    s.send(struct.pack("=IHHII", 16 + len(body), kind, 0x605, 1, 0) + body)
    answer = s.recv(65536)
    kind, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    return errno.errorcode.get(-code, str(code)) if kind == 2 and code else "DONE"
answers = []
link = struct.pack("=BxHiII", 0, 0, 0, 1, 1) + struct.pack("=HH8s", 12, 3, b"evil0\0\0\0")
route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 253, 1, 0) + struct.pack("=HHI", 8, 4, 1)
address = struct.pack("=BBBBI", socket.AF_INET, 8, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([10, 9, 8, 7]))
for name, kind, body in (("link", 16, link), ("route", 24, route), ("address", 20, address)):
    try:
        answer = ask(kind, body)
        answers.append(name + " DONE" if answer == "DONE" else answer)
    except OSError as e:
        answers.append(errno.errorcode.get(e.errno, "no answer"))
return all_of("refused" if a in ("EPERM", "EOPNOTSUPP", "EACCES", "EPROTONOSUPPORT", "EAFNOSUPPORT", "EINVAL", "ENODEV") else a for a in answers)`,
		Want: []string{"refused"},
	},
	{
		Group: groupKernel, Name: "system calls that there are not",
		Does: "every number from 0 to 1023 with arguments that mean nothing, in a process of its own",
		Code: `
survived = 0
for n in range(0, 1024):
    pid = os.fork()
    if pid == 0:
        devnull = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(devnull, fd)
        os.closerange(3, 64)
        signal.alarm(1) # some wait
        libc.syscall(ctypes.c_long(n), *[ctypes.c_long(-1)] * 6)
        os._exit(0)
    os.waitpid(pid, 0)
    survived += 1
return "%d tried, the sandbox lives" % survived`,
		Want: []string{"1024 tried, the sandbox lives"},
	},
}
