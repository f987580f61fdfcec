package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/session"
)

type sessionTableInput struct {
	SessionPath
	Raw
	Frame      string `query:"frame" maxLength:"100" doc:"id of a table that a cell showed"`
	Variable   string `query:"variable" maxLength:"1000" doc:"Or the name of a variable"`
	Path       string `query:"path" maxLength:"16384" doc:"Or a file: CSV, TSV, JSON lines, Parquet, XLSX"`
	Sheet      string `query:"sheet" maxLength:"300" doc:"Of a workbook; default: the first"`
	Offset     int64  `query:"offset" minimum:"0"`
	Limit      int64  `query:"limit" minimum:"1" maximum:"1000" default:"200"`
	Sort       string `query:"sort" maxLength:"1000" doc:"Name of a column; rows without a value come last"`
	Descending bool   `query:"descending"`
}

func (a *API) sessionTableRoutes() {
	register(a, huma.Operation{
		OperationID: "get-session-table", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/table", Tags: []string{tagSessions},
		Summary: "Read a page of a data frame, a variable or a file with rows and columns",
		Description: "The first 100 columns. A file is read beside the kernel, so also while that is busy, and total_rows is -1 until its end was seen; if the session has no sandbox, one is made.\n\n" +
			"Failures: 400 `not-a-table`, `column-not-found`, `encoding-unknown`; 404 `frame-gone` (run the cell again), `variable-not-found`, `sheet-not-found`; 409 `kernel-busy`; 413 `sort-too-large`, `table-too-large`; 504 `table-timeout`, `preview-timeout`.",
		Responses: jsonResponse[v1.Table](a, "The page"),
	}, func(ctx context.Context, in *sessionTableInput) (*huma.StreamResponse, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		t, err := a.sessionTable(ctx, s, in)
		if err != nil {
			return nil, err
		}
		return stream(func() { writeJSON(in.w, http.StatusOK, t) }), nil
	})
}

func (a *API) sessionTable(ctx context.Context, s *session.Session, in *sessionTableInput) (v1.Table, error) {
	named := 0
	for _, name := range []string{in.Frame, in.Variable, in.Path} {
		if name != "" {
			named++
		}
	}
	if named != 1 {
		return v1.Table{}, errdefs.New(errdefs.ErrInvalid, "invalid-table", "One of frame, variable and path must say which table is meant.").
			WithHint("Name a variable as GET …/variables lists it, or the path of a file.")
	}
	if in.Path != "" {
		sb, err := s.Sandbox(ctx)
		if err != nil {
			return v1.Table{}, err
		}
		defer sb.Use()()
		raw, err := sb.Agent().Table(ctx, agentapi.TableRequest{
			Path: in.Path, Sheet: in.Sheet, Offset: in.Offset, Limit: in.Limit, Sort: in.Sort, Descending: in.Descending,
		})
		if err != nil {
			return v1.Table{}, sb.Explain(err)
		}
		return readTable(raw)
	}
	sb := liveSandbox(s)
	if sb == nil || sb.View().KernelID == "" {
		if in.Frame != "" {
			return v1.Table{}, errdefs.New(errdefs.ErrNotFound, "frame-gone", "The kernel that held this table has ended.").WithHint("Run the cell again to page it.")
		}
		return v1.Table{}, errdefs.New(errdefs.ErrNotFound, "variable-not-found", "The session has no kernel now, so it has no variables.").WithHint("Run the cells that define it.")
	}
	content, err := askIdle(ctx, sb, "table_request", map[string]any{
		"frame": in.Frame, "variable": in.Variable, "offset": in.Offset, "limit": in.Limit, "sort": in.Sort, "descending": in.Descending,
	}, tableTimeout)
	if err != nil {
		return v1.Table{}, err
	}
	var reply struct {
		Table json.RawMessage `json:"table"`
	}
	if err := json.Unmarshal(content, &reply); err != nil {
		return v1.Table{}, errBadKernel(err)
	}
	return readTable(reply.Table)
}

// readTable reads a table that comes from a sandbox, and checks that it is one.
func readTable(raw json.RawMessage) (v1.Table, error) {
	var t v1.Table
	if err := json.Unmarshal(raw, &t); err != nil {
		return t, errBadKernel(err)
	}
	if t.Columns == nil || t.Rows == nil {
		return t, errBadKernel(nil)
	}
	if t.Index != nil && len(t.Index) != len(t.Rows) {
		return t, errBadKernel(fmt.Errorf("%d labels for %d rows", len(t.Index), len(t.Rows)))
	}
	for _, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return t, errBadKernel(fmt.Errorf("%d cells in %d columns", len(row), len(t.Columns)))
		}
		if !scalars(row) {
			return t, errBadKernel(nil)
		}
	}
	if !scalars(t.Index) {
		return t, errBadKernel(nil)
	}
	return t, nil
}

func scalars(cells []json.RawMessage) bool {
	for _, c := range cells {
		if len(c) > 0 && (c[0] == '{' || c[0] == '[') {
			return false
		}
	}
	return true
}
