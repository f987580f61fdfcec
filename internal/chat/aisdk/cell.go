package aisdk

import (
	"encoding/json"
	"slices"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Execution is the result of python_interpreter. The first three keys are the
// original's.
type Execution struct {
	Code           string          `json:"code"`
	Outputs        []v1.Output     `json:"outputs"` // nbformat
	Success        bool            `json:"success"` // it ran; the code may have raised
	Status         string          `json:"status,omitempty"`
	Reason         string          `json:"reason,omitempty"`
	Message        string          `json:"message,omitempty"`
	ExecutionCount int             `json:"executionCount,omitempty"`
	DurationMS     float64         `json:"durationMs,omitempty"`
	Truncated      bool            `json:"truncated,omitempty"`
	OutputFile     string          `json:"outputFile,omitempty"`
	Files          []v1.FileChange `json:"files,omitempty"`
}

// cellOutput makes the result of a cell, as far as it is.
func cellOutput(it v1.Item) Execution {
	e := Execution{
		Code: it.Code, Outputs: it.Outputs, Status: it.Status, Reason: it.Reason, Message: it.Message,
		ExecutionCount: it.ExecutionCount, DurationMS: it.DurationMS, Truncated: it.DroppedBytes > 0, OutputFile: it.OutputFile, Files: it.Changes,
	}
	if e.Outputs == nil {
		e.Outputs = []v1.Output{}
	}
	name := ""
	switch it.Status {
	case "ok", "running", "queued":
		e.Success = true
	case "error":
		// Code that raised ran; arguments that could not be read did not.
		for _, o := range it.Outputs {
			e.Success = e.Success || o.Type == "error"
		}
		if !e.Success {
			name = "ExecutionError"
		}
	case "timeout":
		name = "TimeoutError"
	case "interrupted":
		e.Success = true // the KeyboardInterrupt is among the outputs
	default:
		name = "ExecutionError"
	}
	if name != "" {
		msg := it.Message
		if it.Tool != nil && it.Tool.Error != "" {
			msg = it.Tool.Error
		}
		if msg == "" {
			msg = strings.TrimSpace("The execution was stopped: " + it.Status + " " + it.Reason)
		}
		e.Outputs = append(slices.Clip(e.Outputs), v1.Output{
			Type: "error", ErrorName: name, ErrorValue: msg, Traceback: []string{name + ": " + msg},
		})
	}
	return e
}

// jsonInside gives text as it stands inside a JSON string.
func jsonInside(text string) string {
	b := jsonOf(text)
	return string(b[1 : len(b)-1])
}

// jsonOf gives compact JSON on one line; what is not JSON becomes null.
func jsonOf(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return []byte("null")
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}
