// Package pgtest gives tests a real Postgres: Debian's, on 127.0.0.1, with a
// database for each test.
//
// New shares one server among the tests of a binary. It has a password, keeps
// its files in a temporary folder, and ends with the process, however that
// ends: a shell waits for the other end of a pipe. There is no goroutine of
// ours, so that tests may look for leaked ones.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const password = "se:cr@t/%"

// startTimeout bounds the start of a server. A loaded machine may be slow.
const startTimeout = 60 * time.Second

// Server is a Postgres server.
type Server struct {
	dir  string // of its files
	bin  string
	port int
	cred *syscall.Credential // of another user, if we are root: Postgres refuses to be
	args []string

	mu   sync.Mutex
	hold *os.File // the server ends when this is closed
	cmd  *exec.Cmd
}

var shared = sync.OnceValues(func() (*Server, error) { return start() })

var databases atomic.Int64

// New gives the URL of a fresh database, which goes with the test.
func New(tb testing.TB) string {
	tb.Helper()
	s, err := shared()
	if err != nil {
		tb.Fatal(err)
	}
	return s.Database(tb)
}

// Start starts a server of the test's own. Settings are such as "fsync=on".
func Start(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := start(settings...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Database makes a database and gives its URL. It goes with the test.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", databases.Add(1))
	if err := s.exec(context.WithoutCancel(tb.Context()), "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.exec(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil && s.running() {
			tb.Error(err)
		}
	})
	return s.URL(name)
}

// URL gives the URL of a database, for its owner.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password), Host: s.Address(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Address gives host and port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Password gives what must never be printed, as a person would know it.
func Password() string { return password }

func (s *Server) exec(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, query)
	return errors.Join(err, conn.Close(ctx))
}

func start(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	// What is written survives the process, which is all that tests kill.
	for _, setting := range append([]string{"fsync=off", "max_connections=200", "shared_buffers=32MB"}, settings...) {
		s.args = append(s.args, "-c", setting)
	}
	if os.Geteuid() == 0 {
		if s.cred, err = other(); err != nil {
			return nil, err
		}
	}
	if s.dir, err = os.MkdirTemp("", "pgtest-*"); err != nil {
		return nil, err
	}
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return nil, err
		}
	}
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o644); err != nil {
		return nil, err
	}
	initdb := s.command("initdb", "--pgdata="+s.data(), "--username=postgres", "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		_ = os.RemoveAll(s.dir) // a temporary folder
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	for range 5 { // somebody else may take the port first
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = s.Run(); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(s.dir)
	return nil, err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	return cmd
}

// watch runs a server until its standard input ends, and then removes its
// folder unless it is asked to leave it.
const watch = `
"$@" >>log 2>&1 </dev/null &
server=$!
echo $server
read -r how
kill -QUIT $server 2>/dev/null
wait $server
[ "$how" = leave ] || rm -rf "$PWD"
`

// Run starts the server again after Kill, and returns once it answers.
func (s *Server) Run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := append([]string{
		"-c", watch, "sh", filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + s.dir,
	}, s.args...)
	cmd := exec.CommandContext(context.Background(), "/bin/sh", args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	in, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	said, say, err := os.Pipe()
	if err != nil {
		return errors.Join(err, hold.Close())
	}
	defer said.Close()
	cmd.Stdin, cmd.Stdout = in, say
	err = cmd.Start()
	_ = say.Close()
	if err != nil {
		return errors.Join(err, hold.Close())
	}
	line := make([]byte, 32)
	n, err := said.Read(line)
	if err != nil {
		return errors.Join(err, hold.Close(), cmd.Wait())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		return errors.Join(err, hold.Close(), cmd.Wait())
	}
	s.hold, s.cmd = hold, cmd
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := s.exec(context.Background(), "SELECT 1")
		if err == nil {
			return nil
		}
		if !alive(pid) || time.Now().After(end) {
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			_, _ = hold.WriteString("leave\n")
			_ = hold.Close()
			_ = cmd.Wait()
			s.cmd = nil
			return fmt.Errorf("postgres does not start: %w: %.4000s", err, text)
		}
	}
}

// Pid gives the process of the server.
func (s *Server) Pid() int {
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// Kill kills the server and all its processes, as a crash of its machine would
// end them, and returns once they are gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	pids := append(children(s.Pid()), s.Pid())
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone already
	}
	for _, pid := range pids {
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
	}
	_, _ = s.hold.WriteString("leave\n")
	_ = s.hold.Close()
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

// children gives the processes of a process.
func children(parent int) []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		if _, p := status(pid); p == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether a process runs; one that waits to be collected does not.
func alive(pid int) bool {
	state, _ := status(pid)
	return state != "" && state != "Z"
}

// status gives the state and the parent of a process; "" if there is none.
//
// Source: proc_pid_stat(5).
func status(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	// pid (name) state parent; a name may have spaces and brackets
	rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(rest) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(rest[1])
	return rest[0], parent
}

func (s *Server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil
}

// Close ends the server for good.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.hold.Close()
		_ = s.cmd.Wait() // it is told to quit at once
		s.cmd = nil
	}
	_ = os.RemoveAll(s.dir) // a temporary folder
}

// binaries finds the folder of the newest Postgres there is.
func binaries() (string, error) {
	best, version := "", -1
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	for _, path := range found {
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))); err == nil && v > version {
			best, version = filepath.Dir(path), v
		}
	}
	if best != "" {
		return best, nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("there is no PostgreSQL: install Debian's package postgresql (scripts/deps.sh test)")
	}
	path, err = filepath.EvalSymlinks(path)
	return filepath.Dir(path), err
}

// other gives a user that is not root.
func other() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close() //nolint:forcetypeassert // it is TCP
}
