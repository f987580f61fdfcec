package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"gopkg.in/yaml.v3"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// The groups of routes, in the order of the page.
const (
	tagSandboxes  = "Sandboxes"
	tagSnapshots  = "Snapshots"
	tagExecutions = "Executions"
	tagKernels    = "Kernels"
	tagFiles      = "Files"
	tagProcesses  = "Processes"
	tagServer     = "Server"
	tagOriginal   = "The original's API"
)

var tagTexts = []*huma.Tag{
	{Name: tagSessions, Description: "What people come back to: messages and cells in one list, a sandbox when it is needed, and files that stay."},
	{Name: tagSandboxes, Description: "Isolated machine-like environments with their own file system."},
	{Name: tagSnapshots, Description: "Saved states of sandboxes, memory and files, that others are created from. POST /v1/sandboxes/{sandbox_id}/snapshot makes one."},
	{Name: tagExecutions, Description: "Runs of code. State survives from one to the next on the same kernel."},
	{Name: tagKernels, Description: "Python processes that run code and keep its variables. `default` stands for the default kernel."},
	{Name: tagFiles, Description: "Files and folders of a sandbox. Paths are absolute, or relative to /workspace."},
	{Name: tagProcesses, Description: "Commands beside the kernels."},
	{Name: tagAccounts, Description: "Who one is: signing in, API keys. Only where the server has accounts."},
	{Name: tagAdmin, Description: "Users, organisations and the audit, for admins and operators. Only where the server has accounts."},
	{Name: tagServer, Description: "The installation itself."},
	{Name: tagOriginal, Description: "What clients of the original Caesarion use. Errors have FastAPI's shape. See docs/compatibility.md."},
}

// spec is the OpenAPI as it is served.
type spec struct {
	json, yaml, page []byte
	pagePolicy       string
}

func jsonResponse[T any](a *API, text string) map[string]*huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(typeFor[T](), true, "")
	return map[string]*huma.Response{"200": {Description: text, Content: map[string]*huma.MediaType{v1.MediaJSON: {Schema: schema}}}}
}

func schemaRef(name string) *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/" + name} }

func streams(content map[string]*huma.MediaType) map[string]*huma.MediaType {
	content[v1.MediaSSE] = &huma.MediaType{
		Schema:  &huma.Schema{Type: "string"},
		Example: "id: 2\nevent: output.stream\ndata: {\"seq\":2,\"time\":\"2026-11-23T12:00:00.000001Z\",\"type\":\"output.stream\",\"data\":{\"name\":\"stdout\",\"text\":\"2\\n\"}}\n\n",
	}
	content[v1.MediaNDJSON] = &huma.MediaType{Schema: schemaRef("Event")}
	return content
}

func idHeader(name, what string) map[string]*huma.Header {
	return map[string]*huma.Header{
		name:       {Description: "Identifier of the " + what, Schema: &huma.Schema{Type: "string"}},
		"Location": {Description: "Where the " + what + " is", Schema: &huma.Schema{Type: "string"}},
	}
}

func problemResponse() *huma.Response {
	return &huma.Response{Description: "A failure", Content: map[string]*huma.MediaType{v1.MediaProblem: {Schema: schemaRef("Problem")}}}
}

func executeResponses() map[string]*huma.Response {
	headers := idHeader(v1.HeaderExecutionID, "execution")
	return map[string]*huma.Response{
		"200": {
			Description: "The execution with its outputs, or its events", Headers: headers,
			Content: streams(map[string]*huma.MediaType{v1.MediaJSON: {Schema: schemaRef("Execution")}}),
		},
		"202": {
			Description: "Prefer: respond-async was sent; it runs", Headers: headers,
			Content: map[string]*huma.MediaType{v1.MediaJSON: {Schema: schemaRef("Execution")}},
		},
		"default": problemResponse(),
	}
}

func processResponses() map[string]*huma.Response {
	return map[string]*huma.Response{
		"200": {
			Description: "The process with its output, or its events", Headers: idHeader(v1.HeaderProcessID, "process"),
			Content: streams(map[string]*huma.MediaType{v1.MediaJSON: {Schema: schemaRef("Process")}}),
		},
		"default": problemResponse(),
	}
}

func eventResponses(text string, withEnd bool) map[string]*huma.Response {
	r := map[string]*huma.Response{
		"200":     {Description: text, Content: streams(map[string]*huma.MediaType{})},
		"default": problemResponse(),
	}
	if withEnd {
		r["204"] = &huma.Response{Description: "It has ended, and there is nothing after that number"}
	}
	return r
}

func bytesResponses(text, media string) map[string]*huma.Response {
	return map[string]*huma.Response{
		"200":     {Description: text, Content: map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
		"default": problemResponse(),
	}
}

// specRoutes serves the spec; it comes last, when all other routes are there.
func (a *API) specRoutes() {
	doc := a.huma.OpenAPI()
	doc.Tags = tagTexts
	for _, t := range []struct {
		typ  any
		name string
	}{{v1.Execution{}, "Execution"}, {v1.Process{}, "Process"}, {v1.Problem{}, "Problem"}, {event.Event{}, "Event"}} {
		doc.Components.Schemas.Schema(reflectType(t.typ), true, t.name)
	}
	for _, r := range []struct{ id, path, media, summary string }{
		{"openapi-json", "/openapi.json", "application/vnd.oai.openapi+json", "This API as OpenAPI 3.1, JSON"},
		{"openapi-yaml", "/openapi.yaml", "application/vnd.oai.openapi", "This API as OpenAPI 3.1, YAML"},
		{"docs", "/docs", "text/html; charset=utf-8", "This API as a page"},
	} {
		a.plain(huma.Operation{
			OperationID: r.id, Method: http.MethodGet, Path: r.path, Tags: []string{tagServer}, Summary: r.summary,
			Responses: map[string]*huma.Response{"200": {Description: "The document", Content: map[string]*huma.MediaType{r.media: {Schema: &huma.Schema{Type: "string"}}}}},
		}, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", r.media)
			body := a.spec.json
			switch r.path {
			case "/openapi.yaml":
				body = a.spec.yaml
			case "/docs":
				body = a.spec.page
				h.Set("Content-Security-Policy", a.spec.pagePolicy)
				h.Set("Referrer-Policy", "no-referrer") // the address may have a token
			}
			_, _ = w.Write(body) // the client may have left
		})
	}
	a.spec = buildSpec(doc)
}

// buildSpec renders the spec. It can only fail by a mistake in the routes,
// which is there at every start.
func buildSpec(doc *huma.OpenAPI) spec {
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	var s spec
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		panic(err)
	}
	s.json = pretty.Bytes()
	// JSON is YAML: read as nodes it keeps its order, and block style is what
	// people read and diffs show well.
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		panic(err)
	}
	blockStyle(&node)
	var y bytes.Buffer
	enc := yaml.NewEncoder(&y)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		panic(err)
	}
	s.yaml = y.Bytes()
	s.page, s.pagePolicy = renderPage(doc)
	return s
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// OpenAPI gives the API's description as YAML, as in api/openapi.yaml.
func (a *API) OpenAPI() []byte { return a.spec.yaml }
