package client

import (
	"context"
	"encoding/json"
	"net/http"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// CreateSandbox makes a sandbox and returns once it runs.
func (c *Client) CreateSandbox(ctx context.Context, in v1.CreateSandbox) (v1.Sandbox, error) {
	var sb v1.Sandbox
	return sb, c.call(ctx, http.MethodPost, segments("sandboxes"), nil, in, &sb)
}

// Sandboxes lists all sandboxes, newest first.
func (c *Client) Sandboxes(ctx context.Context) ([]v1.Sandbox, error) {
	var list v1.SandboxList
	return list.Sandboxes, c.call(ctx, http.MethodGet, segments("sandboxes"), nil, nil, &list)
}

// Sandbox gives one sandbox.
func (c *Client) Sandbox(ctx context.Context, id string) (v1.Sandbox, error) {
	var sb v1.Sandbox
	return sb, c.call(ctx, http.MethodGet, segments("sandboxes", id), nil, nil, &sb)
}

// DeleteSandbox deletes a sandbox with all it holds.
func (c *Client) DeleteSandbox(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, segments("sandboxes", id), nil, nil, nil)
}

// Pause puts a sandbox to sleep: its memory is saved and freed.
func (c *Client) Pause(ctx context.Context, id string) (v1.Sandbox, error) {
	var sb v1.Sandbox
	return sb, c.call(ctx, http.MethodPost, segments("sandboxes", id, "pause"), nil, nil, &sb)
}

// Resume wakes a sandbox, as every call that needs it does.
func (c *Client) Resume(ctx context.Context, id string) (v1.Sandbox, error) {
	var sb v1.Sandbox
	return sb, c.call(ctx, http.MethodPost, segments("sandboxes", id, "resume"), nil, nil, &sb)
}

// Fork makes copies of a sandbox with its memory and files.
func (c *Client) Fork(ctx context.Context, id string, in v1.ForkSandbox) ([]v1.Sandbox, error) {
	var list v1.SandboxList
	return list.Sandboxes, c.call(ctx, http.MethodPost, segments("sandboxes", id, "fork"), nil, in, &list)
}

// Snapshot saves the state of a sandbox, which goes on.
func (c *Client) Snapshot(ctx context.Context, id string, in v1.SnapshotSandbox) (v1.Snapshot, error) {
	var snap v1.Snapshot
	return snap, c.call(ctx, http.MethodPost, segments("sandboxes", id, "snapshot"), nil, in, &snap)
}

// Snapshots lists what is saved, newest first.
func (c *Client) Snapshots(ctx context.Context) ([]v1.Snapshot, error) {
	var list v1.SnapshotList
	return list.Snapshots, c.call(ctx, http.MethodGet, segments("snapshots"), nil, nil, &list)
}

// GetSnapshot gives one snapshot by its id or name.
func (c *Client) GetSnapshot(ctx context.Context, idOrName string) (v1.Snapshot, error) {
	var snap v1.Snapshot
	return snap, c.call(ctx, http.MethodGet, segments("snapshots", idOrName), nil, nil, &snap)
}

// DeleteSnapshot deletes a snapshot. Sandboxes made from it stay.
func (c *Client) DeleteSnapshot(ctx context.Context, idOrName string) error {
	return c.call(ctx, http.MethodDelete, segments("snapshots", idOrName), nil, nil, nil)
}

// Kernels lists the kernels of a sandbox.
func (c *Client) Kernels(ctx context.Context, sandbox string) ([]v1.Kernel, error) {
	var list v1.KernelList
	return list.Kernels, c.call(ctx, http.MethodGet, segments("sandboxes", sandbox, "kernels"), nil, nil, &list)
}

// RestartKernel gives a kernel a fresh process; its variables are gone.
func (c *Client) RestartKernel(ctx context.Context, sandbox, kernel string) (v1.Kernel, error) {
	var k v1.Kernel
	return k, c.call(ctx, http.MethodPost, segments("sandboxes", sandbox, "kernels", kernel, "restart"), nil, nil, &k)
}

// Completions is the part of Jupyter's complete_reply that a line editor uses.
type Completions struct {
	Matches     []string `json:"matches"`
	CursorStart int      `json:"cursor_start"` // in Unicode characters
	CursorEnd   int      `json:"cursor_end"`
}

// Complete asks what could be written at pos, counted in Unicode characters.
func (c *Client) Complete(ctx context.Context, sandbox, kernel, code string, pos int) (Completions, error) {
	var out Completions
	in := v1.Complete{Code: code, CursorPos: &pos}
	return out, c.call(ctx, http.MethodPost, segments("sandboxes", sandbox, "kernels", kernel, "complete"), nil, in, &out)
}

// Completeness is Jupyter's is_complete_reply.
type Completeness struct {
	Status string `json:"status"` // complete, incomplete, invalid or unknown
	Indent string `json:"indent"` // for the next line of incomplete code
}

// IsComplete asks whether code is ready to run as it stands.
func (c *Client) IsComplete(ctx context.Context, sandbox, kernel, code string) (Completeness, error) {
	var out Completeness
	return out, c.call(ctx, http.MethodPost, segments("sandboxes", sandbox, "kernels", kernel, "is_complete"), nil, v1.IsComplete{Code: code}, &out)
}

// Inspection is Jupyter's inspect_reply.
type Inspection struct {
	Found bool                       `json:"found"`
	Data  map[string]json.RawMessage `json:"data"` // mime type → value
}

// Inspect asks for the documentation of what stands at pos, counted in Unicode characters.
func (c *Client) Inspect(ctx context.Context, sandbox, kernel, code string, pos, detail int) (Inspection, error) {
	var out Inspection
	in := v1.Inspect{Code: code, CursorPos: &pos, DetailLevel: detail}
	return out, c.call(ctx, http.MethodPost, segments("sandboxes", sandbox, "kernels", kernel, "inspect"), nil, in, &out)
}
