package egress

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// BenchmarkDownload has a sandbox get 256 MiB by several programs and, to
// compare, gives a file of that size out of it by the API.
func BenchmarkDownload(b *testing.B) {
	const size = 256 << 20
	o := NewOutside(b, Loopback)
	s := start(b, o, servertest.DataDir(b))
	sb := Create(b, s, v1.CreateSandbox{Template: "listed"})
	sb.Want("a file", fmt.Sprintf("print(open('/workspace/zeros', 'wb').truncate(%d))", size), fmt.Sprint(size))
	zeros := fmt.Sprintf("%s/zeros/%d", o.Plain.URL, size)
	for name, code := range map[string]string{
		"curl":        fmt.Sprintf("!curl -sS -o /dev/null -w '%%{size_download}' %s", zeros),
		"curl tunnel": fmt.Sprintf("!curl -sS -p -o /dev/null -w '%%{size_download}' %s", zeros),
		"curl TLS":    fmt.Sprintf("!curl -sS -o /dev/null -w '%%{size_download}' %s/zeros/%d", o.TLS.URL, size),
		"requests":    fmt.Sprintf("import requests; print(sum(map(len, requests.get(%q, stream=True).iter_content(1 << 20))))", zeros),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				sb.Want(name, code, fmt.Sprint(size))
			}
		})
	}
	b.Run("file by the API", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			resp, err := s.Open(b.Context(), http.MethodGet, "/v1/sandboxes/"+sb.ID+"/files/content?path="+url.QueryEscape("/workspace/zeros"), nil)
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			if resp.Body.Close(); err != nil || n != size {
				b.Fatalf("%d bytes, %v", n, err)
			}
		}
	})
	// The same with nothing between two programs of the sandbox.
	b.Run("a socket within", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			sb.Want("within", strings.ReplaceAll(`
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def give():
    c, _ = server.accept()
    for _ in range(SIZE // 65536): c.sendall(bytes(65536))
    c.close()
threading.Thread(target=give).start()
c, n = socket.create_connection(server.getsockname()), 0
while got := len(c.recv(131072)): n += got
print(n)`, "SIZE", fmt.Sprint(size)), fmt.Sprint(size))
		}
	})
}
