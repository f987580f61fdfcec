package egress

import (
	"fmt"
	"io"
	"net"
	"testing"
)

// gigabyte is what the figures are taken with.
const gigabyte = 1 << 30

// BenchmarkTunnel carries a gigabyte through CONNECT, from the outside to the
// program (down) and back (up).
func BenchmarkTunnel(b *testing.B) {
	for _, way := range []string{"down", "up"} {
		b.Run(way, func(b *testing.B) {
			port := listenWith(b, func(c net.Conn) {
				if way == "down" {
					_, _ = io.CopyN(c, struct{ io.Reader }{zeros{}}, gigabyte)
					return
				}
				n, _ := io.Copy(struct{ io.Writer }{io.Discard}, c)
				fmt.Fprint(c, n)
			})
			_, o := hosts(port)
			o.MaxBytes = -1
			a := open(b, newGateway(b, o), allowing(b, "allowed.test:*"))
			b.SetBytes(gigabyte)
			b.ReportAllocs()
			for b.Loop() {
				c := a.tunnel(at("allowed.test", port))
				if way == "down" {
					if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10)); n != gigabyte || err != nil {
						b.Fatal(n, err)
					}
					continue
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{c}, io.LimitReader(zeros{}, gigabyte), make([]byte, 64<<10)); err != nil {
					b.Fatal(err)
				}
				c.CloseWrite()
				if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprint(gigabyte) {
					b.Fatal(string(got), err)
				}
			}
		})
	}
}

// BenchmarkConnect opens a tunnel, passes one byte both ways and closes it.
func BenchmarkConnect(b *testing.B) {
	port := listenEcho(b)
	_, o := hosts(port)
	g := newGateway(b, o)
	a := open(b, g, allowing(b, "allowed.test:*"))
	u := joined(g, "sbx_test")
	defer g.part(u)
	u.streams.SetLimit(1 << 30)
	one := make([]byte, 1)
	for b.Loop() {
		c := a.tunnel(at("allowed.test", port))
		c.Write(one)
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
