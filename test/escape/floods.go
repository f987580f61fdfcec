package escape

const groupFloods = "All there is"

// floods take all there is. Each has a sandbox of its own, which may be lost:
// what counts is that the other goes on, and that the host has what it had.
var floods = []Attack{
	{
		Group: groupFloods, Name: "inodes", Flood: true,
		Does: "makes empty files and folders in 100 folders for 20 seconds",
		Code: `
made, end, last = 0, time.monotonic() + 20, "no error"
os.makedirs("/workspace/many", exist_ok=True)
try:
    while time.monotonic() < end:
        folder = "/workspace/many/%d" % (made % 100)
        os.makedirs(folder, exist_ok=True)
        for _ in range(1000):
            os.close(os.open("%s/%d" % (folder, made), os.O_CREAT | os.O_WRONLY))
            made += 1
except OSError as e:
    last = errno.errorcode[e.errno]
return "the sandbox's own" if made > 1000 else "only %d, %s" % (made, last)`,
		Want: []string{"the sandbox's own"},
	},
	{
		Group: groupFloods, Name: "file descriptors", Flood: true,
		Does: "opens files, pipes and sockets in 20 processes until nothing opens",
		Code: `
def take(r):
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
            held += os.pipe()
            held.append(socket.socket(socket.AF_UNIX))
    except OSError as e:
        os.write(r, errno.errorcode[e.errno].encode() + b"\n")
    time.sleep(600)
r, w = os.pipe()
pids = []
for _ in range(20):
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        try:
            take(w)
        finally:
            os._exit(1)
    pids.append(pid)
os.close(w)
got = b""
while got.count(b"\n") < len(pids):
    part = os.read(r, 4096)
    if not part:
        break
    got += part
for pid in pids:
    os.kill(pid, 9)
return all_of(got.decode().split())`,
		Want: []string{"EMFILE", "ENFILE", "EMFILE, ENOMEM", "ENOMEM", "EMFILE, ENFILE"},
	},
	{
		Group: groupFloods, Name: "memory of the kernel", Flood: true,
		Does: "fills pipes and socket buffers, which count for no process, until nothing is taken or the sandbox ends",
		Code: `
held, total = [], 0
try:
    while total < 3 << 30:
        r, w = os.pipe()
        os.set_blocking(w, False)
        try:
            fcntl.fcntl(w, 1031, 1 << 20)
        except OSError:
            pass
        a, b = socket.socketpair()
        a.setblocking(False)
        held += [r, w, a, b]
        for fd in (w, a.fileno()):
            try:
                while True:
                    total += os.write(fd, b"x" * 65536)
            except BlockingIOError:
                pass
except (OSError, MemoryError):
    pass
return "refused below 3 GiB" if total < 3 << 30 else "TOOK 3 GiB"`,
		Want: []string{"refused below 3 GiB", ""}, // "": the sandbox ended with it
	},
}
