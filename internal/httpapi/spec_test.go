package httpapi_test

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/httpapi"
)

var update = flag.Bool("update", false, "rewrite api/openapi.yaml")

const golden = "../../api/openapi.yaml"

// The checked-in description is what clients are generated from: a route or a
// type that changes must show in its diff.
func TestOpenAPIIsTheCheckedInOne(t *testing.T) {
	got := httpapi.New(nil, httpapi.Options{Version: "0"}).OpenAPI()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("api/openapi.yaml is not up to date, run go test ./internal/httpapi -update (-want +got):\n%s", diff)
	}
}
