package v1

import (
	"encoding/json"
	"testing"
)

func TestAnOutputHasWhatNbformatRequires(t *testing.T) {
	one := 1
	for _, tt := range []struct {
		out  Output
		want string
	}{
		{Output{Type: "error", ErrorName: "ValueError"}, `{"output_type":"error","ename":"ValueError","evalue":"","traceback":[]}`},
		{Output{Type: "stream", Name: "stdout"}, `{"output_type":"stream","name":"stdout","text":""}`},
		{Output{Type: "stream", Name: "stdout", Text: "a", Refs: map[string]OutputRef{"text": {Bytes: 9}}}, `{"output_type":"stream","name":"stdout","text":"a","refs":{"text":{"bytes":9}}}`},
		{Output{Type: "display_data"}, `{"output_type":"display_data","data":{},"metadata":{}}`},
		{
			Output{Type: "execute_result", ExecutionCount: &one, Data: map[string]json.RawMessage{"text/plain": json.RawMessage(`"1"`)}, Metadata: json.RawMessage(`{"a":1}`), DisplayID: "d"},
			`{"output_type":"execute_result","execution_count":1,"data":{"text/plain":"1"},"metadata":{"a":1},"display_id":"d"}`,
		},
	} {
		got, err := json.Marshal([]Output{tt.out})
		if err != nil || string(got) != "["+tt.want+"]" {
			t.Errorf("got %s, %v\nwant [%s]", got, err, tt.want)
		}
		var back Output
		if err := json.Unmarshal(got[1:len(got)-1], &back); err != nil || back.ErrorName != tt.out.ErrorName || back.Text != tt.out.Text {
			t.Errorf("read back: %+v, %v", back, err)
		}
	}
}
