package httpapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
)

//go:embed docs.css
var docsCSS string

//go:embed docs.html
var docsHTML string

func reflectType(v any) reflect.Type { return reflect.TypeOf(v) }

// page is what docs.html shows.
type page struct {
	Title, Version string
	CSS            template.CSS
	Groups         []pageGroup
	Schemas        []pageSchema
}

type pageGroup struct {
	ID, Name string
	Text     template.HTML
	Ops      []pageOp
}

type pageOp struct {
	ID, Method, Path, Summary string
	Text                      template.HTML
	Params                    []pageField
	Body, Answers             []pageBody
	Curl                      string
	Public                    bool
}

type pageBody struct {
	Label  string
	Media  string
	Schema string // name of a schema, to link to
	Text   string
}

type pageSchema struct {
	Name   string
	Fields []pageField
}

type pageField struct {
	Name, In, Type, Schema string
	Required               bool
	Text                   template.HTML
}

// renderPage makes the page of the spec, and the policy under which nothing
// but its own style is loaded and nothing runs.
func renderPage(doc *huma.OpenAPI) (body []byte, policy string) {
	p := page{Title: doc.Info.Title, Version: doc.Info.Version, CSS: template.CSS(docsCSS)} //nolint:gosec // our own file
	for _, t := range doc.Tags {
		g := pageGroup{ID: slug(t.Name), Name: t.Name, Text: prose(t.Description)}
		for _, op := range operations(doc) {
			if len(op.Tags) > 0 && op.Tags[0] == t.Name {
				g.Ops = append(g.Ops, viewOp(op))
			}
		}
		p.Groups = append(p.Groups, g)
	}
	schemas := doc.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		p.Schemas = append(p.Schemas, viewSchema(name, schemas[name]))
	}
	var buf bytes.Buffer
	if err := template.Must(template.New("docs").Parse(docsHTML)).Execute(&buf, p); err != nil {
		panic(err) // a mistake in docs.html, there at every start
	}
	sum := sha256.Sum256([]byte(docsCSS))
	return buf.Bytes(), "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

var methodOrder = map[string]int{http.MethodPost: 1, http.MethodGet: 2, http.MethodHead: 3, http.MethodPut: 4, http.MethodDelete: 5}

// operations gives all operations, those of one path together.
func operations(doc *huma.OpenAPI) []*huma.Operation {
	var ops []*huma.Operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		it := doc.Paths[path]
		for _, op := range []*huma.Operation{it.Get, it.Head, it.Post, it.Put, it.Delete} {
			if op != nil {
				ops = append(ops, op)
			}
		}
	}
	slices.SortStableFunc(ops, func(a, b *huma.Operation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(methodOrder[a.Method], methodOrder[b.Method]))
	})
	return ops
}

func viewOp(op *huma.Operation) pageOp {
	v := pageOp{
		ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Text: prose(op.Description),
		Curl: curl(op), Public: op.Security != nil && len(op.Security) == 0,
	}
	for _, p := range op.Parameters {
		v.Params = append(v.Params, pageField{
			Name: p.Name, In: p.In, Type: typeName(p.Schema), Required: p.Required,
			Text: prose(cmp.Or(p.Description, p.Schema.Description)),
		})
	}
	if op.RequestBody != nil {
		for _, media := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			v.Body = append(v.Body, pageBody{"Body", media, refName(op.RequestBody.Content[media].Schema), ""})
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if len(r.Content) == 0 {
			v.Answers = append(v.Answers, pageBody{Label: status, Text: r.Description})
		}
		for _, media := range slices.Sorted(maps.Keys(r.Content)) {
			v.Answers = append(v.Answers, pageBody{status, media, refName(r.Content[media].Schema), r.Description})
		}
	}
	return v
}

func viewSchema(name string, s *huma.Schema) pageSchema {
	v := pageSchema{Name: name}
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[field]
		text := f.Description
		if len(f.Enum) > 0 {
			text = strings.TrimSuffix(fmt.Sprintf("One of %v. %s", f.Enum, text), " ")
		}
		v.Fields = append(v.Fields, pageField{
			Name: field, Type: typeName(f), Schema: innerRef(f), Required: slices.Contains(s.Required, field), Text: prose(text),
		})
	}
	return v
}

func refName(s *huma.Schema) string {
	if s == nil {
		return ""
	}
	_, name, _ := strings.Cut(s.Ref, "#/components/schemas/")
	return name
}

func innerRef(s *huma.Schema) string {
	if s.Items != nil {
		return refName(s.Items)
	}
	return refName(s)
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return refName(s)
	case s.Items != nil:
		return "list of " + typeName(s.Items)
	case s.Type == "":
		return "any JSON"
	}
	return s.Type
}

// curl gives a command that can be pasted once TOKEN and SANDBOX are set.
func curl(op *huma.Operation) string {
	path := strings.NewReplacer("{sandbox_id}", "$SANDBOX", "{kernel_id}", "default", "{execution_id}", "$EXECUTION",
		"{process_id}", "$PROCESS", "{session_id}", "my-session", "{snapshot}", "prepared").Replace(op.Path)
	var query []string
	for _, p := range op.Parameters {
		if p.In == "query" && p.Required {
			value := "my-session"
			if p.Name == "path" {
				value = "/workspace/data.csv"
				if strings.HasSuffix(op.Path, "/archive") {
					value = "/workspace"
				}
			}
			query = append(query, p.Name+"="+value)
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	var b strings.Builder
	b.WriteString("curl ")
	switch op.Method {
	case http.MethodGet:
	case http.MethodHead:
		b.WriteString("-I ")
	case http.MethodPut:
		b.WriteString("-T data.csv ")
	default:
		if op.RequestBody == nil || op.Method != http.MethodPost {
			b.WriteString("-X " + op.Method + " ")
		}
	}
	if op.OperationID == "get-execution-events" {
		b.WriteString("-N ")
	}
	fmt.Fprintf(&b, "\"$CAESARION_URL%s\"", path)
	if op.Security == nil {
		b.WriteString(" \\\n  -H \"Authorization: Bearer $TOKEN\"")
	}
	if strings.HasSuffix(op.Path, "/archive") {
		b.WriteString(" \\\n  -o folder.zip")
	}
	if op.RequestBody != nil && op.Method == http.MethodPost {
		if op.RequestBody.Content["multipart/form-data"] != nil {
			b.WriteString(" \\\n  -F file=@data.csv")
		} else {
			fmt.Fprintf(&b, " \\\n  -H \"Content-Type: application/json\" \\\n  -d '%s'", bodyExample(op))
		}
	}
	return b.String()
}

// Examples of bodies that do something; a body not named here may be empty.
var bodyExamples = map[string]any{
	"create-sandbox":   v1.CreateSandbox{Labels: map[string]string{"project": "demo"}},
	"fork-sandbox":     v1.ForkSandbox{Count: 3},
	"snapshot-sandbox": v1.SnapshotSandbox{Name: "prepared"},
	"extend-sandbox":   v1.ExtendSandbox{LifetimeMS: 3_600_000},
	"execute":          map[string]string{"code": "print(1 + 1)"},
	"answer-input":     v1.Input{Value: "42"},
	"complete":         v1.Complete{Code: "impor"},
	"inspect":          v1.Inspect{Code: "print"},
	"is-complete":      v1.IsComplete{Code: "for i in range(3):"},
	"send-comm":        v1.Comm{Type: "comm_close", Content: json.RawMessage(`{"comm_id":"…","data":{}}`)},
	"make-folder":      v1.MakeFolder{Path: "/workspace/plots"},
	"move-file":        v1.MoveFile{From: "a.csv", To: "b.csv"},
	"run-process":      v1.RunProcess{Command: "ls -la"},
	"create-kernel":    v1.CreateKernel{Dir: "/workspace"},
	"seed-execute":     map[string]string{"code": "print(1 + 1)"},
	"restart-kernel":   nil,
	"seed-api-create":  nil,
}

func bodyExample(op *huma.Operation) string {
	if v := bodyExamples[op.OperationID]; v != nil {
		text, _ := json.Marshal(v) // plain values
		return strings.ReplaceAll(string(text), "'", `'\''`)
	}
	if m := op.RequestBody.Content[v1.MediaJSON]; m != nil {
		if raw, ok := m.Example.(json.RawMessage); ok {
			return string(raw)
		}
	}
	return "{}"
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// prose turns a description into HTML: paragraphs and code spans.
func prose(s string) template.HTML {
	if s == "" {
		return ""
	}
	text := codeSpan.ReplaceAllString(html.EscapeString(s), "<code>$1</code>")
	return template.HTML("<p>" + strings.ReplaceAll(text, "\n\n", "</p><p>") + "</p>") //nolint:gosec // escaped above
}

func slug(s string) string {
	return strings.ToLower(strings.NewReplacer(" ", "-", "'", "").Replace(s))
}
