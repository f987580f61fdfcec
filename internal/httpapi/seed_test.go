package httpapi

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/caesarion/caesarion/internal/event"
)

func TestPythonJSON(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"separators":      {`{"a":[1,2.50,-3e5],"b":{"c":null}}`, `{"a": [1, 2.50, -3e5], "b": {"c": null}}`},
		"white space":     {" {\n\t\"a\" : true }", `{"a": true}`},
		"beyond ASCII":    {`"é€😀"`, `"\u00e9\u20ac\ud83d\ude00"`},
		"escapes":         {`"\/\"\\\n\t\b\f\r\u0001\u007f\u00E9"`, `"/\"\\\n\t\b\f\r\u0001\u007f\u00e9"`},
		"signs in string": {`{"a,b:c":"{\"x\":[1,2]}"}`, `{"a,b:c": "{\"x\":[1,2]}"}`},
		"empty":           {`{"a":{},"b":[],"c":""}`, `{"a": {}, "b": [], "c": ""}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(appendPython(nil, json.RawMessage(tt.in))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// Whatever a kernel shows, the record is JSON of the same value, in ASCII.
func TestPythonJSONKeepsTheValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		in, err := json.Marshal(map[string]any{s: []any{s, 1.5, nil, map[string]string{"k": s}}})
		if err != nil {
			t.Skip(err)
		}
		out := appendPython(nil, in)
		for _, c := range out {
			if c < ' ' || c > '~' {
				t.Fatalf("byte %#x in %q", c, out)
			}
		}
		var a, b any
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(out, &b) != nil {
			t.Fatalf("%q is no JSON", out)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if string(x) != string(y) {
			t.Fatalf("%s became %s", x, y)
		}
	})
}

func TestSeedRecordsOfEndsWithoutAnException(t *testing.T) {
	for name, tt := range map[string]struct {
		data, want string
	}{
		"ok":      {`{"status":"ok"}`, ""},
		"error":   {`{"status":"error"}`, ""},
		"killed":  {`{"status":"killed","reason":"out_of_memory","message":"Too much memory."}`, `{"output_type": "error", "ename": "ExecutionError", "evalue": "Too much memory.", "traceback": ["ExecutionError: Too much memory."]}` + "\n"},
		"timeout": {`{"status":"timeout","duration_ms":300000}`, `{"output_type": "error", "ename": "TimeoutError", "evalue": "Execution timed out after 5m0s", "traceback": ["TimeoutError: Execution timed out after 5m0s"]}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := event.Record{Seq: 1, Type: event.ExecutionFinished, Line: []byte(`{"seq":1,"time":"2026-01-01T00:00:00Z","type":"execution.finished","data":` + tt.data + `}`)}
			got, end := appendSeed(nil, rec)
			if string(got) != tt.want || !end {
				t.Errorf("got  %s end %v\nwant %s", got, end, tt.want)
			}
		})
	}
}

func TestAcceptedForm(t *testing.T) {
	for header, want := range map[string]string{
		"": "J", "text/event-stream": "text/event-stream", "application/json;q=0": "J", "text/html": "J",
		"text/event-stream; q=0.2 , application/x-ndjson;q=0.9": "application/x-ndjson", "TEXT/EVENT-STREAM, */*": "text/event-stream",
		"application/x-ndjson; charset=utf-8": "application/x-ndjson", ",;q=,": "J",
	} {
		if got := accepted(header, "J"); got != want {
			t.Errorf("Accept %q gives %s, want %s", header, got, want)
		}
	}
}
