package agent

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// maxBody bounds a JSON request. Code may be large; files do not come this way.
const maxBody = 64 << 20

// handler answers one request; its error becomes a problem.
type handler func(a *Agent, w http.ResponseWriter, r *http.Request) error

// routes are the calls of agentapi that need a token, in its order.
var routes = map[string]handler{
	"GET /usage":                      getUsage,
	"POST /trim":                      postTrim,
	"GET /kernels":                    getKernels,
	"POST /kernels":                   postKernel,
	"GET /kernels/{id}":               getKernel,
	"DELETE /kernels/{id}":            deleteKernel,
	"POST /kernels/{id}/check":        checkKernel,
	"POST /kernels/{id}/interrupt":    interruptKernel,
	"POST /kernels/{id}/restart":      restartKernel,
	"POST /kernels/{id}/request":      postRequest,
	"POST /kernels/{id}/comm":         postComm,
	"POST /kernels/{id}/executions":   postExecution,
	"GET /executions":                 getExecutions,
	"GET /executions/{id}/events":     getEvents,
	"POST /executions/{id}/interrupt": interruptExecution,
	"POST /executions/{id}/input":     postInput,
	"GET /files":                      getFile,
	"DELETE /files":                   deleteFile,
	"GET /files/content":              getContent,
	"PUT /files/content":              putContent,
	"GET /files/archive":              getArchive,
	"GET /files/tree":                 getTree,
	"POST /files/pack":                postPack,
	"PUT /files/unpack":               putUnpack,
	"POST /files/table":               postTable,
	"POST /files/mkdir":               postMkdir,
	"POST /files/move":                postMove,
	"POST /processes":                 postProcess,
	"DELETE /processes/{id}":          deleteProcess,
	"POST /egress":                    postEgress,
}

func (a *Agent) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(a, w, r); err != nil {
				writeProblem(w, r, err)
			}
		})
	}
	for pattern, h := range routes {
		handle(pattern, func(a *Agent, w http.ResponseWriter, r *http.Request) error {
			if err := a.authorize(bearer(r)); err != nil {
				return err
			}
			markTrusted(r)
			return h(a, w, r)
		})
	}
	handle("GET /health", func(a *Agent, w http.ResponseWriter, _ *http.Request) error {
		writeJSON(w, http.StatusOK, a.health())
		return nil
	})
	handle("GET /ready", func(a *Agent, w http.ResponseWriter, _ *http.Request) error {
		if !a.ready.Load() {
			return errdefs.New(errdefs.ErrUnavailable, "starting", "the agent is still starting")
		}
		writeJSON(w, http.StatusOK, a.health())
		return nil
	})
	handle("POST /configure", postConfigure)
	handle("/", func(*Agent, http.ResponseWriter, *http.Request) error {
		return errdefs.New(errdefs.ErrNotFound, "not-found", "the agent has no such call")
	})
	return mux
}

// ServeHTTP makes an Agent a http.Handler.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

var statusOfKind = []struct {
	kind   error
	status int
}{
	{errdefs.ErrUnauthenticated, http.StatusUnauthorized},
	{errdefs.ErrForbidden, http.StatusForbidden},
	{errdefs.ErrInvalid, http.StatusBadRequest},
	{errdefs.ErrNotFound, http.StatusNotFound},
	{errdefs.ErrConflict, http.StatusConflict},
	{errdefs.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{errdefs.ErrExhausted, http.StatusTooManyRequests},
	{errdefs.ErrUnsupported, http.StatusNotImplemented},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
}

// writeProblem answers with err as RFC 9457 has it.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads it
	}
	p := agentapi.Problem{Status: http.StatusInternalServerError, Code: "agent-error", Detail: "the agent failed: " + err.Error()}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		p.Code, p.Detail, p.Hint = e.Code, e.Msg, e.Hint
		for _, k := range statusOfKind {
			if errors.Is(e.Kind, k.kind) {
				p.Status = k.status
				break
			}
		}
		if e.Code == "disk-full" {
			p.Status = http.StatusInsufficientStorage
		}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	// The rest of an upload that was refused is not worth reading.
	if r.ContentLength != 0 && r.Method == http.MethodPut {
		w.Header().Set("Connection", "close")
	}
	writeJSON(w, p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(data) // the reader may be gone
}

// readJSON decodes a request's body.
func readJSON[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	err := dec.Decode(&v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return v, errdefs.New(errdefs.ErrTooLarge, "body-too-large", "the request has more than %d bytes", tooLarge.Limit)
		}
		return v, errdefs.New(errdefs.ErrInvalid, "invalid-body", "the request is not the JSON it should be: %v", err)
	}
	return v, nil
}

func postConfigure(a *Agent, w http.ResponseWriter, r *http.Request) error {
	if err := a.mayConfigure(bearer(r)); err != nil {
		return err
	}
	conf, err := readJSON[agentapi.Configure](w, r)
	if err != nil {
		return err
	}
	a.configureMu.Lock()
	defer a.configureMu.Unlock()
	if err := a.mayConfigure(bearer(r)); err != nil { // another was first
		return err
	}
	if err := a.configure(r.Context(), conf); err != nil {
		return err
	}
	markTrusted(r)
	writeJSON(w, http.StatusOK, a.health())
	return nil
}

func getUsage(a *Agent, w http.ResponseWriter, _ *http.Request) error {
	u, err := a.usage()
	if err == nil {
		writeJSON(w, http.StatusOK, u)
	}
	return err
}

func postTrim(a *Agent, w http.ResponseWriter, r *http.Request) error {
	a.trim(r.Context())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func getKernels(a *Agent, w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, a.kernelList())
	return nil
}

func postKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.StartKernel](w, r)
	if err != nil {
		return err
	}
	k, err := a.startKernel(r.Context(), req)
	if err == nil {
		writeJSON(w, http.StatusCreated, k.info())
	}
	return err
}

// withKernel finds the kernel a request names.
func withKernel(a *Agent, r *http.Request, do func(*keeper) error) error {
	k, err := a.kernel(r.PathValue("id"))
	if err != nil {
		return err
	}
	return do(k)
}

func getKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		writeJSON(w, http.StatusOK, k.info())
		return nil
	})
}

func deleteKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		a.removeKernel(k)
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func checkKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		if err := k.check(r.Context()); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func interruptKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		k.mu.Lock()
		e := k.current
		k.mu.Unlock()
		if e != nil {
			k.interrupt(e)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func restartKernel(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		if err := k.restart(r.Context()); err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, k.info())
		return nil
	})
}

func postRequest(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		req, err := readJSON[agentapi.Request](w, r)
		if err != nil {
			return err
		}
		reply, err := k.request(r.Context(), req)
		if err == nil {
			writeJSON(w, http.StatusOK, reply)
		}
		return err
	})
}

func postComm(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withKernel(a, r, func(k *keeper) error {
		msg, err := readJSON[agentapi.Comm](w, r)
		if err != nil {
			return err
		}
		if err := k.comm(r.Context(), msg); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func postExecution(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.Execute](w, r)
	if err != nil {
		return err
	}
	e, err := a.execute(r.PathValue("id"), req)
	if err != nil {
		return err
	}
	return streamLog(w, r, e.log, 0, event.ExecutionFinished, nil)
}

func getExecutions(a *Agent, w http.ResponseWriter, _ *http.Request) error {
	a.mu.Lock()
	list := make([]agentapi.Execution, 0, len(a.order))
	for _, e := range a.order {
		list = append(list, agentapi.Execution{ID: e.id, KernelID: e.keeper.id(), LastSeq: e.log.Last(), Finished: e.finishedSeq.Load() > 0})
	}
	a.mu.Unlock()
	writeJSON(w, http.StatusOK, list)
	return nil
}

// withExecution finds the execution a request names.
func withExecution(a *Agent, r *http.Request, do func(*execution) error) error {
	e := a.execution(r.PathValue("id"))
	if e == nil {
		return errdefs.New(errdefs.ErrNotFound, "execution-not-found", "the agent knows no execution %.80q", r.PathValue("id")).
			WithHint("finished executions are forgotten after a while")
	}
	return do(e)
}

func getEvents(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withExecution(a, r, func(e *execution) error {
		var after int64
		if text := r.FormValue("after"); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return errdefs.New(errdefs.ErrInvalid, "invalid-after", "after must be the number of an event")
			}
			after = n
		}
		if r.FormValue("follow") == "true" {
			return streamLog(w, r, e.log, after, "", nil)
		}
		// Late output that is there already comes along.
		return streamLog(w, r, e.log, after, event.ExecutionFinished, func() bool { return e.finishedSeq.Load() > 0 })
	})
}

func interruptExecution(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withExecution(a, r, func(e *execution) error {
		e.keeper.interrupt(e)
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func postInput(a *Agent, w http.ResponseWriter, r *http.Request) error {
	return withExecution(a, r, func(e *execution) error {
		in, err := readJSON[agentapi.Input](w, r)
		if err != nil {
			return err
		}
		if err := e.keeper.input(r.Context(), e, in.Value); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}
