package notebook_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

// checkFiles has Python look at files: notebooks must be valid for nbformat
// and .py must compile. One process for all, since starting it takes longest.
func checkFiles(t testing.TB, dir string) {
	t.Helper()
	const program = `
import pathlib, sys, warnings
import nbformat
warnings.simplefilter("error")
bad = False
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        if path.suffix == ".ipynb":
            text = path.read_text(encoding="utf-8")
            nbformat.validate(nbformat.reads(text, as_version=nbformat.NO_CONVERT))
            nb = nbformat.reads(text, as_version=4)
            nbformat.writes(nb)
        elif path.suffix == ".py":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                compile(path.read_bytes(), str(path), "exec")
    except Exception as e:
        bad = True
        print(f"{path.name}: {type(e).__name__}: {e}\n{path.read_text(encoding='utf-8')[:2000]}")
sys.exit(bad)
`
	cmd := exec.CommandContext(t.Context(), kerneltest.Python(t), "-c", program, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func raw(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// rich is a session with one of everything.
func rich() (v1.Session, []v1.Item) {
	items := []v1.Item{
		{ID: "itm_1", Kind: "user", Status: "idle", Text: "Plot **co2.csv**\n\n> quoted\n\n1. one\n", Files: []string{"/uploaded_files/co2.csv"}},
		{ID: "itm_2", Kind: "assistant", Status: "ok", TurnID: "trn_1", Model: "gpt-4.1", Text: "I plot it: $x^2$ & <b>", Reasoning: "First\nload."},
		{
			ID: "itm_3", Kind: "cell", Status: "ok", TurnID: "trn_1", Code: "import pandas as pd\ndf = pd.read_csv('x')\ndf", ExecutionCount: 3, DurationMS: 12.5,
			Tool: &v1.ToolCall{ID: "call_1", Name: "python_interpreter", Arguments: raw(map[string]any{"code": "df"})},
			Outputs: []v1.Output{
				{Type: "stream", Name: "stdout", Text: "10%\r100%\nüñí 🎉\n\x1b[31mred\x1b[0m"},
				{Type: "stream", Name: "stderr", Text: "warning\n"},
				{Type: "display_data", Metadata: raw(map[string]any{"image/png": map[string]any{"width": 10}}), Data: map[string]json.RawMessage{"image/png": raw("iVBORw0KGgo="), "text/plain": raw("<Figure>\n")}},
				{Type: "execute_result", ExecutionCount: new(3), Metadata: raw(map[string]any{}), Data: map[string]json.RawMessage{
					"text/plain": raw("   a\n0  1"), "text/html": raw("<table>\n<tr></tr>\n</table>"), "application/json": raw(map[string]any{"a": []any{1, nil, "x"}}),
					"application/vnd.caesarion.table+json": raw(v1.Table{
						Columns: []v1.TableColumn{{Name: "na|me", Type: "object"}, {Name: "n", Type: "int64"}}, Index: []json.RawMessage{raw("r1"), raw("r2")},
						Rows: [][]json.RawMessage{{raw("a|b"), raw(1)}, {raw(nil), raw(2.5)}}, TotalRows: 1500, TotalColumns: 2,
					}),
				}},
			},
		},
		{ID: "itm_4", Kind: "tool", Status: "ok", TurnID: "trn_1", Tool: &v1.ToolCall{ID: "call_2", Name: "get_current_weather", Arguments: raw(map[string]any{"latitude": 52.52}), Result: raw(map[string]any{"t": 11.5})}},
		{ID: "itm_5", Kind: "tool", Status: "error", Tool: &v1.ToolCall{ID: "call_3", Name: "list_files", Error: "no `sandbox`"}},
		{ID: "itm_6", Kind: "note", Status: "idle", Text: "# My heading\n\nA note with ``` a fence ```"},
		{
			ID: "itm_7", Kind: "cell", Status: "error", Code: "1/0", ExecutionCount: 4, CodeHidden: true, OutputsHidden: true,
			Outputs: []v1.Output{{Type: "error", ErrorName: "ZeroDivisionError", ErrorValue: "division by zero", Traceback: []string{"\x1b[31mZeroDivisionError\x1b[39m: division by zero"}}},
		},
		{ID: "itm_8", Kind: "cell", Status: "killed", Reason: "out_of_memory", Message: "The kernel ran out of memory.", Code: "x = 'a' * 10**12"},
		{ID: "itm_9", Kind: "cell", Status: "idle"},
		{ID: "not a valid id!", Kind: "cell", Status: "idle", Code: "!pip install x\n%matplotlib inline\nif True:\n    !ls\ns = '''\n!not shell\n'''\nfiles = !ls\ndf.head?\n"},
		{ID: "itm_9", Kind: "cell", Status: "idle", Code: "%%bash\necho 'hi\nls"},
		{ID: "", Kind: "cell", Status: "idle", Code: "%%time\nx = 1\n"},
	}
	return v1.Session{ID: "ses_1", Title: "Plot of: co2/\"x\"", CreatedAt: time.Now()}, items
}

func writeTo(t testing.TB, dir, name string, body []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "_")), body, 0o600); err != nil {
		t.Fatal(err)
	}
}
