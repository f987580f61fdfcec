package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

type table struct {
	Columns []struct {
		Name string `json:"name"`
		Type string `json:"dtype"`
	} `json:"columns"`
	Index  []any   `json:"index"`
	Rows   [][]any `json:"rows"`
	Offset int64   `json:"offset"`
	Total  int64   `json:"total_rows"`
	Sheets []string
}

func (t table) String() string {
	var b strings.Builder
	for _, c := range t.Columns {
		fmt.Fprintf(&b, "%s:%s ", c.Name, c.Type)
	}
	fmt.Fprintf(&b, "%v index %v total %d", t.Rows, t.Index, t.Total)
	return b.String()
}

func TestFilesArePagedAsTables(t *testing.T) {
	t.Parallel()
	client, root := configured(t, agentapi.Configure{}, withPython(t))
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, "workspace", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("plain.csv", "city,n,code,ok\nUlm,3,007,true\n\"R\"\"om\na\",1.5,010,false\nBonn,,001,\n")
	write("semi.csv", "a;b\n1,5;2\n2,5;3\n")
	write("none.csv", "1,2\n3,4\n")
	write("latin.csv", "name\nM\xfcller\n")
	write("bom.tsv", "\ufeffa\tb\nx\ty\n")
	write("ragged.csv", "a,b\n1\n1,2,3\n")
	write("empty.csv", "")
	write("lines.jsonl", "{\"a\":1,\"b\":\"x\"}\n\n{\"a\":2.5,\"c\":[1]}\n7\n")
	write("bad.jsonl", "{\"a\":1}\nno\n")
	write("bytes.csv", "a,b\n\x00\x01")
	write("not.parquet", "no")
	write("what.bin", "a,b\n")
	write("many.csv", "i,j\n"+func() string {
		var b strings.Builder
		for i := range 25_000 {
			fmt.Fprintf(&b, "%d,\"line\n%d\"\n", i, 25_000-i)
		}
		return b.String()
	}())
	cmd := exec.Command(kerneltest.Python(t), "-c", `import polars; polars.DataFrame({"a": [3, None, 1], "t": ["x", "y", "z"]}).write_parquet("p.parquet")`) //nolint:noctx // a test's helper
	cmd.Dir = filepath.Join(root, "workspace")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	get := func(req agentapi.TableRequest) (table, error) {
		raw, err := client.Table(t.Context(), req)
		if err != nil {
			return table{}, err
		}
		var page table
		if err := json.Unmarshal(raw, &page); err != nil {
			t.Errorf("%+v: %v: %s", req, err, raw)
		}
		return page, nil
	}
	for _, tt := range []struct {
		req  agentapi.TableRequest
		want string
	}{
		{agentapi.TableRequest{Path: "plain.csv"}, `city:str n:float64 code:str ok:bool [[Ulm 3 007 true] [R"om` + "\n" + `a 1.5 010 false] [Bonn <nil> 001 <nil>]] index [] total 3`},
		{agentapi.TableRequest{Path: "plain.csv", Sort: "n"}, `city:str n:float64 code:str ok:bool [[R"om` + "\n" + `a 1.5 010 false] [Ulm 3 007 true] [Bonn <nil> 001 <nil>]] index [1 0 2] total 3`},
		{agentapi.TableRequest{Path: "plain.csv", Sort: "n", Descending: true, Limit: 1}, `city:str n:float64 code:str ok:bool [[Ulm 3 007 true]] index [0] total 3`},
		{agentapi.TableRequest{Path: "semi.csv"}, `a:str b:int64 [[1,5 2] [2,5 3]] index [] total 2`},
		{agentapi.TableRequest{Path: "none.csv"}, `column_1:int64 column_2:int64 [[1 2] [3 4]] index [] total 2`},
		{agentapi.TableRequest{Path: "latin.csv"}, `name:str [[Müller]] index [] total 1`},
		{agentapi.TableRequest{Path: "bom.tsv"}, `a:str b:str [[x y]] index [] total 1`},
		{agentapi.TableRequest{Path: "ragged.csv"}, `a:int64 b:int64 column_3:int64 [[1 <nil> <nil>] [1 2 3]] index [] total 2`},
		{agentapi.TableRequest{Path: "empty.csv"}, `[] index [] total 0`},
		{agentapi.TableRequest{Path: "lines.jsonl"}, `a:float64 b:str c:object value:int64 [[1 x <nil> <nil>] [2.5 <nil> [1] <nil>] [<nil> <nil> <nil> 7]] index [] total 3`},
		{agentapi.TableRequest{Path: "many.csv", Offset: 24_998}, "i:int64 j:str [[24998 line\n2] [24999 line\n1]] index [] total 25000"},
		{agentapi.TableRequest{Path: "many.csv", Offset: 12_345, Limit: 1}, "i:int64 j:str [[12345 line\n12655]] index [] total 25000"},
		{agentapi.TableRequest{Path: "many.csv", Offset: 30_000, Limit: 1}, "i:int64 j:str [] index [] total 25000"},
		{agentapi.TableRequest{Path: "many.csv", Offset: 1, Limit: 1, Sort: "i", Descending: true}, "i:int64 j:str [[24998 line\n2]] index [24998] total 25000"},
		{agentapi.TableRequest{Path: "p.parquet", Sort: "a"}, `a:Int64 t:String [[1 z] [3 x] [<nil> y]] index [] total 3`},
		{agentapi.TableRequest{Path: "p.parquet", Offset: 1, Limit: 1}, `a:Int64 t:String [[<nil> y]] index [] total 3`},
	} {
		got, err := get(tt.req)
		if err != nil {
			t.Errorf("%+v: %v", tt.req, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got.String()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.req, diff)
		}
	}
	for path, want := range map[string]string{
		"what.bin": "not-a-table", "bad.jsonl": "not-a-table", "bytes.csv": "encoding-unknown", "not.parquet": "not-a-table",
		"missing.csv": "file-not-found", "/etc/passwd": "path-escapes", ".": "is-a-directory",
	} {
		_, err := get(agentapi.TableRequest{Path: path})
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != want {
			t.Errorf("%s: %v, want code %s", path, err, want)
		}
	}
	// The page after the file has changed is of the new one.
	write("plain.csv", "a\nnew\n")
	if got, err := get(agentapi.TableRequest{Path: "plain.csv"}); err != nil || got.String() != "a:str [[new]] index [] total 1" {
		t.Errorf("after a change: %v, %v", got, err)
	}
	if _, err := get(agentapi.TableRequest{Path: "plain.csv", Sort: "zzz"}); err == nil || !strings.Contains(err.Error(), "no column") {
		t.Errorf("a column that is not there: %v", err)
	}
}

// A program that was killed is started again, and a page is told of as failed
// only if a fresh one fails.
func TestAKilledReaderOfTablesIsStartedAgain(t *testing.T) {
	t.Parallel()
	client, root := configured(t, agentapi.Configure{}, withPython(t))
	if err := os.WriteFile(filepath.Join(root, "workspace", "a.csv"), []byte("a\n1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := client.Table(t.Context(), agentapi.TableRequest{Path: "a.csv"}); err != nil {
			t.Fatal(err)
		}
		found := false
		procs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, p := range procs {
			env, err := os.ReadFile(p)
			if err == nil && strings.Contains(string(env), "HOME="+root) && strings.Contains(string(env), "POLARS_MAX_THREADS") {
				found = true
				kill := exec.CommandContext(context.Background(), "kill", "-9", filepath.Base(filepath.Dir(p)))
				if err := kill.Run(); err != nil {
					t.Error(err)
				}
			}
		}
		if !found {
			t.Fatal("no reader of tables runs")
		}
	}
}
