package kernel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/kernel"
)

func isProtocol(err error) bool {
	var typed *kernel.ProtocolError
	return errors.Is(err, kernel.ErrProtocol) && errors.As(err, &typed) && typed.Reason != ""
}

// stream is a connection whose incoming bytes are given.
type stream struct {
	io.Reader
	io.Writer
}

func (stream) Close() error { return nil }

func frame(text string, buffers ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(buffers)))
	b = append(b, text...)
	for _, buf := range buffers {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(buf))), buf...)
	}
	return b
}

func TestFramesThatBreakTheRules(t *testing.T) {
	good := `{"channel":"iopub","header":{"msg_type":"status"},"parent_header":{},"metadata":{},"content":{}}`
	for name, data := range map[string][]byte{
		"cut head":              {0, 0, 0},
		"cut JSON":              frame(good)[:40],
		"cut buffer":            frame(good, "abc")[:len(frame(good, "abc"))-1],
		"cut buffer length":     frame(good, "abc")[:len(frame(good))+2],
		"JSON over the limit":   {0, 1, 0, 0, 0, 0, 0, 0},
		"buffers over the sum":  frame(good, strings.Repeat("x", 1000), strings.Repeat("y", 2000)),
		"too many buffers":      frame(good, make([]string, 9)...),
		"no JSON":               frame("garbage"),
		"no object":             frame("[]"),
		"trailing JSON":         frame(good + "{}"),
		"unknown channel":       frame(strings.Replace(good, "iopub", "shellx", 1)),
		"no type":               frame(strings.Replace(good, "status", "", 1)),
		"content no object":     frame(strings.Replace(good, `"content":{}`, `"content":[]`, 1)),
		"content null":          frame(strings.Replace(good, `"content":{}`, `"content":null`, 1)),
		"parent no object":      frame(strings.Replace(good, `"parent_header":{}`, `"parent_header":1`, 1)),
		"parent id no string":   frame(strings.Replace(good, `"parent_header":{}`, `"parent_header":{"msg_id":1}`, 1)),
		"not UTF-8":             frame(strings.Replace(good, `"content":{}`, "\"content\":{\"a\":\"\xff\"}", 1)),
		"all ones":              bytes.Repeat([]byte{0xff}, 100),
		"announced, never sent": {0, 0, 0x10, 0, 0, 0, 0, 0},
	} {
		c := kernel.NewConn(stream{Reader: bytes.NewReader(data)}, kernel.Limits{JSON: 1 << 14, Total: 2500, Buffers: 8})
		_, err := c.Receive()
		if !isProtocol(err) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
	c := kernel.NewConn(stream{Reader: bytes.NewReader(nil)}, kernel.Limits{})
	if _, err := c.Receive(); !errors.Is(err, io.EOF) || isProtocol(err) {
		t.Errorf("end between frames: got %v, want EOF", err)
	}
}

func TestFramesComeBackAsSent(t *testing.T) {
	a, b := net.Pipe()
	left, right := kernel.NewConn(a, kernel.Limits{}), kernel.NewConn(b, kernel.Limits{})
	defer left.Close()
	defer right.Close()
	want := []*kernel.Message{
		{
			Channel: kernel.Shell, Header: kernel.Header{MsgID: "1", MsgType: "execute_request", Session: "s", Username: "ü\"", Date: "d", Version: kernel.ProtocolVersion},
			ParentHeader: json.RawMessage(`{"msg_id":"p","other":[1.50,1e400]}`), ParentID: "p", Metadata: json.RawMessage(`{"a":1}`), Content: json.RawMessage(`{"code":"<&>"}`),
		},
		{Channel: kernel.IOPub, Header: kernel.Header{MsgType: "comm_msg"}, Buffers: [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 3<<20)}},
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for _, m := range want {
			if err := left.Send(m); err != nil {
				t.Error(err)
			}
		}
	})
	for _, w := range want {
		got, err := right.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range []*json.RawMessage{&w.ParentHeader, &w.Metadata, &w.Content} {
			if *raw == nil {
				*raw = json.RawMessage("{}")
			}
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("(-sent +received)\n%s", diff)
		}
	}
	sending.Wait()
}

func TestSendRefusesWhatIsNoJSON(t *testing.T) {
	var out bytes.Buffer
	c := kernel.NewConn(stream{Writer: &out}, kernel.Limits{JSON: 1000})
	for _, m := range []*kernel.Message{
		{Channel: kernel.Shell, Content: json.RawMessage(`{"a":`)},
		{Channel: kernel.Shell, Content: json.RawMessage(`{"a":"` + strings.Repeat("x", 1000) + `"}`)},
	} {
		if err := c.Send(m); err == nil {
			t.Errorf("sent %.40s", m.Content)
		}
	}
	if out.Len() != 0 {
		t.Errorf("%d bytes were written", out.Len())
	}
}

func FuzzReceive(f *testing.F) {
	good := `{"channel":"iopub","header":{"msg_type":"status"},"parent_header":{"msg_id":"x"},"metadata":{},"content":{}}`
	f.Add(frame(good))
	f.Add(frame(good, "abc", ""))
	f.Add(append(frame(good), frame("{}")...))
	f.Add([]byte{0, 0, 0, 2, 0, 0, 0, 1, '{', '}', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := kernel.NewConn(stream{Reader: bytes.NewReader(data)}, kernel.Limits{JSON: 1 << 20, Total: 1 << 21, Buffers: 16})
		for {
			m, err := c.Receive()
			if err != nil {
				if !errors.Is(err, io.EOF) && !isProtocol(err) {
					t.Fatalf("untyped error: %v", err)
				}
				return
			}
			// Whatever is accepted can be sent on.
			var out bytes.Buffer
			if err := kernel.NewConn(stream{Writer: &out}, kernel.Limits{}).Send(m); err != nil {
				t.Fatal(err)
			}
			again, err := kernel.NewConn(stream{Reader: &out}, kernel.Limits{}).Receive()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(again) != fmt.Sprint(m) {
				t.Fatalf("got %v, want %v", again, m)
			}
		}
	})
}
