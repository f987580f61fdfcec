package nbformat_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/httpapi/nbformat"
)

func TestFolder(t *testing.T) {
	type ev struct {
		typ  event.Type
		data string
	}
	for name, tt := range map[string]struct {
		events []ev
		want   string
	}{
		"nothing": {nil, `[]`},
		"text of one stream is joined": {[]ev{
			{event.OutputStream, `{"name":"stdout","text":"a"}`},
			{event.OutputStream, `{"name":"stdout","text":"b"}`},
			{event.OutputStream, `{"name":"stderr","text":"c"}`},
			{event.OutputStream, `{"name":"stdout","text":"d"}`},
		}, `[{"output_type":"stream","name":"stdout","text":"ab"},{"output_type":"stream","name":"stderr","text":"c"},{"output_type":"stream","name":"stdout","text":"d"}]`},
		"an update changes all displays with its id and adds none": {[]ev{
			{event.OutputDisplay, `{"data":{"text/plain":"1"},"metadata":{},"transient":{"display_id":"x"}}`},
			{event.OutputDisplay, `{"data":{"text/plain":"1"},"metadata":{},"transient":{"display_id":"x"}}`},
			{event.OutputDisplay, `{"data":{"text/plain":"other"},"metadata":{},"transient":{}}`},
			{event.OutputUpdate, `{"data":{"text/plain":"2"},"metadata":{"m":1},"transient":{"display_id":"x"}}`},
			{event.OutputUpdate, `{"data":{"text/plain":"3"},"metadata":{},"transient":{"display_id":"unknown"}}`},
		}, `[{"output_type":"display_data","data":{"text/plain":"2"},"metadata":{"m":1}},{"output_type":"display_data","data":{"text/plain":"2"},"metadata":{"m":1}},{"output_type":"display_data","data":{"text/plain":"other"},"metadata":{}}]`},
		"clear_output at once": {[]ev{
			{event.OutputStream, `{"name":"stdout","text":"a"}`}, {event.OutputClear, `{"wait":false}`},
		}, `[]`},
		"clear_output(wait=True) waits for the next output": {[]ev{
			{event.OutputStream, `{"name":"stdout","text":"a"}`}, {event.OutputClear, `{"wait":true}`}, {event.OutputStream, `{"name":"stdout","text":"b"}`},
		}, `[{"output_type":"stream","name":"stdout","text":"b"}]`},
		"clear_output(wait=True) at the end clears nothing": {[]ev{
			{event.OutputStream, `{"name":"stdout","text":"a"}`}, {event.OutputClear, `{"wait":true}`}, {event.ExecutionFinished, `{"status":"ok"}`},
		}, `[{"output_type":"stream","name":"stdout","text":"a"}]`},
		"results and errors": {[]ev{
			{event.OutputResult, `{"data":{"text/plain":"1"},"metadata":{},"execution_count":3}`},
			{event.OutputError, `{"ename":"E","evalue":"v","traceback":null}`},
		}, `[{"output_type":"execute_result","execution_count":3,"data":{"text/plain":"1"},"metadata":{}},{"output_type":"error","ename":"E","evalue":"v","traceback":[]}]`},
	} {
		t.Run(name, func(t *testing.T) {
			var f nbformat.Folder
			for _, e := range tt.events {
				f.Add(event.Record{Type: e.typ, Line: []byte(`{"seq":1,"time":"2026-01-01T00:00:00Z","type":"` + string(e.typ) + `","data":` + e.data + `}`)})
			}
			got, err := json.Marshal(f.Outputs())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
