package chat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

func TestPlainText(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ntext\n": "plain\ntext\n",
		"\x1b[31mred\x1b[0m \x1b[38;5;28;01mx\x1b[m": "red x",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07":     "link",
		"\x1b[":                                      "",
		"\x1b(Bx\x1b=y":                              "xy",
		" 10%|#   \r 50%|##  \r100%|####\ndone\n":    "100%|####\ndone\n",
		"a\r\nb\r\n":                                 "a\nb\n",
		"working\r       \r":                         "working",
		"ab\bc":                                      "ac",
		"bell\a\x00":                                 "bell",
		"é\x1b[1m€😀":                                 "é€😀",
	} {
		if got := plainText(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestHeadTail(t *testing.T) {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "line %d é\n", i)
	}
	got := headTail(b.String(), 1000, 500)
	if len(got) > 1700 || !strings.HasPrefix(got, "line 0 é\nline 1") || !strings.HasSuffix(got, "line 9999 é\n") || !strings.Contains(got, "\n[… 98") {
		t.Errorf("got %d bytes: %.80q … %q", len(got), got, got[len(got)-600:])
	}
	one := headTail(strings.Repeat("é", 5000), 1001, 501)
	if !strings.Contains(one, "characters left out") || strings.ToValidUTF8(one, "") != one {
		t.Errorf("a line that never ends gives %q", one)
	}
	if s := strings.Repeat("x", 1590); headTail(s, 1000, 500) != s {
		t.Error("a text that is hardly too long is cut")
	}
}

func data(t *testing.T, kv ...string) map[string]json.RawMessage {
	t.Helper()
	m := map[string]json.RawMessage{}
	for i := 0; i < len(kv); i += 2 {
		raw := json.RawMessage(kv[i+1])
		if !strings.HasPrefix(kv[i+1], "{") {
			raw, _ = json.Marshal(kv[i+1])
		}
		m[kv[i]] = raw
	}
	return m
}

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

func TestWhatTheModelGets(t *testing.T) {
	long := strings.Repeat("row of text\n", 100_000)
	rows := make([]string, 200)
	for i := range rows {
		rows[i] = fmt.Sprintf(`[%d,"name %d",null]`, i, i)
	}
	frame := func(total int, rows []string) string {
		return fmt.Sprintf(`{"columns":[{"name":"a","dtype":"int64","nulls":0},{"name":"b","dtype":"object","nulls":null},{"name":"c","dtype":"float64","nulls":3}],"index":null,"rows":[%s],"total_rows":%d,"total_columns":3}`, strings.Join(rows, ","), total)
	}
	plain := "       a          b   c\n0      0     name 0 NaN\n...  ...        ...  ..\n9998  9998  name 9998 NaN\n9999  9999  name 9999 NaN\n\n[10000 rows x 3 columns]"
	for name, tt := range map[string]struct {
		item   v1.Item
		vision bool
		want   []string
		not    []string
		most   int
	}{
		"nothing": {item: v1.Item{Status: "ok"}, want: []string{"[no output]"}},
		"text": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "stream", Name: "stdout", Text: "hi\n"}, {Type: "stream", Name: "stderr", Text: "\x1b[31mwarn\x1b[0m\n"}}},
			want: []string{"hi\n[stderr]\nwarn"}, not: []string{"\x1b"},
		},
		"very long text": {item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "stream", Name: "stdout", Text: long}}}, want: []string{"lines left out"}, most: 10_000},
		"many outputs": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "stream", Name: "stdout", Text: long}, {Type: "stream", Name: "stderr", Text: long}, {Type: "stream", Name: "stdout", Text: long}}},
			most: resultHead + resultTail + 300,
		},
		"a frame with all its rows": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "execute_result", Data: data(t, tableMIME, frame(3, rows[:3]), "text/html", "<table>", "text/plain", "   a")}}},
			want: []string{"DataFrame, 3 rows × 3 columns\ncolumns: a (int64), b (object), c (float64, 3 missing)\nindex | a | b | c\n0 | 0 | name 0 | —\n1 | 1 | name 1 | —\n2 | 2 | name 2 | —"},
			not:  []string{"<table>"},
		},
		"a frame of 200 rows": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "execute_result", Data: data(t, tableMIME, frame(200, rows))}}},
			want: []string{"\n4 | 4 | name 4 | —\n…\n195 | 195 |", "199 | 199 |"}, not: []string{"100 | 100"},
		},
		"a large frame": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "execute_result", Data: data(t, tableMIME, frame(10000, rows), "text/plain", plain)}}},
			want: []string{"10000 rows", "4 | 4 | name 4", "…\n9998 9998 name 9998 NaN\n9999 9999 name 9999 NaN"}, not: []string{"5 | 5"},
		},
		"markup": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "display_data", Data: data(t, "text/html", "<b>secret markup</b>", "text/plain", "<IPython.core.display.HTML object>")}}},
			want: []string{"[HTML shown to the user]"}, not: []string{"secret", "IPython"},
		},
		"a plot": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "display_data", Data: data(t, "image/png", png, "text/plain", "<Figure size 640x480>")}}},
			want: []string{"[image shown to the user]"}, not: []string{"iVBO", "Figure"},
		},
		"a plot for one who sees": {
			vision: true,
			item:   v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "display_data", Data: data(t, "image/png", png+"\n")}}},
			want:   []string{"[image 1, shown to the user and to you]"}, not: []string{"iVBO"},
		},
		"a chart": {
			item: v1.Item{Status: "ok", Outputs: []v1.Output{{Type: "display_data", Data: data(t, "application/vnd.plotly.v1+json", `{"data":[]}`, "text/html", "<div>")}}},
			want: []string{"[interactive chart shown to the user]"},
		},
		"out of memory": {
			item: v1.Item{Status: "killed", Reason: "out_of_memory", Message: "It used more than 2 GiB."},
			want: []string{"The kernel was killed (out_of_memory). It used more than 2 GiB. Variables are gone"},
		},
		"out of time": {item: v1.Item{Status: "timeout", DurationMS: 300_000}, want: []string{"[Stopped after 300 s: out of time.]"}},
		"interrupted": {
			item: v1.Item{Status: "interrupted", Outputs: []v1.Output{{Type: "stream", Name: "stdout", Text: "1\n"}}},
			want: []string{"1\n[The user interrupted this cell.]"},
		},
		"files": {
			item: v1.Item{Status: "ok", Changes: []v1.FileChange{{Path: "/workspace/a.png", Change: "created", SizeBytes: 12_345}, {Path: "/workspace/b", Change: "deleted"}}},
			want: []string{"[Files: created /workspace/a.png (12.3 kB), deleted /workspace/b]"},
		},
		"output that was dropped": {item: v1.Item{Status: "ok", DroppedBytes: 5e6, OutputFile: "/tmp/out.txt"}, want: []string{"[5.0 MB of output were left out; all of it is in /tmp/out.txt]"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := cellResult(tt.item, tt.vision)
			for _, w := range tt.want {
				if !strings.Contains(r.text, w) {
					t.Errorf("got  %q\nwant %q in it", r.text, w)
				}
			}
			for _, w := range tt.not {
				if strings.Contains(r.text, w) {
					t.Errorf("%q is in %q", w, r.text)
				}
			}
			if tt.most > 0 && len(r.text) > tt.most {
				t.Errorf("%d characters, want at most %d", len(r.text), tt.most)
			}
			if tt.vision && len(r.images) != 1 {
				t.Errorf("%d images, want 1", len(r.images))
			}
		})
	}
}

func TestTracebackKeepsTheUsersFrames(t *testing.T) {
	o := v1.Output{Type: "error", ErrorName: "KeyError", ErrorValue: "'x'", Traceback: []string{
		"\x1b[31m---------------------------------------------------------------------------\x1b[39m",
		"\x1b[31mKeyError\x1b[39m                                  Traceback (most recent call last)",
		"Cell \x1b[32mIn[3], line 2\x1b[39m\n\x1b[32m      1\x1b[39m import pandas\n\x1b[32m----> 2\x1b[39m df['x']\n",
		"File \x1b[32m/usr/lib/python3/dist-packages/pandas/core/frame.py:4102\x1b[39m, in DataFrame.__getitem__\n   4101 x\n-> 4102 indexer = self.columns.get_loc(key)\n",
		"File \x1b[32m/usr/lib/python3/dist-packages/pandas/core/indexes/base.py:3812\x1b[39m, in Index.get_loc\n   raise KeyError(key) from err\n",
		"File /workspace/own.py:7, in helper(x)\n----> 7     return x\n",
		"\x1b[31mKeyError\x1b[39m: 'x'",
	}}
	got := traceback(o)
	want := "Cell In[3], line 2\n      1 import pandas\n----> 2 df['x']\n[… 1 frames of libraries …]\n" +
		"File /usr/lib/python3/dist-packages/pandas/core/indexes/base.py:3812, in Index.get_loc\nFile /workspace/own.py:7, in helper(x)\n----> 7     return x\nKeyError: 'x'"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := traceback(v1.Output{Type: "error", ErrorName: "E", ErrorValue: strings.Repeat("x", 1e6), Traceback: []string{}}); len(got) > traceLimit+300 {
		t.Errorf("an endless message gives %d characters", len(got))
	}
}
