package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func TestBillsAreValidAndAlwaysTheSame(t *testing.T) {
	schemas, err := schemaDir(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	list := []Component{
		{Kind: "go", Name: "example.org/x", Version: "v1.0.0", Declared: "MIT"},
		{Kind: "npm", Name: "@scope/x", Version: "1.0.0", Declared: "MIT OR Apache-2.0", Hashes: map[string]string{"SHA-512": string(bytes.Repeat([]byte("0"), 128))}},
		{Kind: "wheel", Name: "x", Version: "1.0"},
		{Kind: "debian", Name: "libstdc++6", Version: "1:14.2.0-19+b1~deb13"},
	}
	subject := cdx.Component{Type: cdx.ComponentTypeApplication, Name: "x", Version: "1"}
	raw, err := encodeSBOM(subject, testPolicy, list)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(schemas, raw); err != nil {
		t.Errorf("%v\n%s", err, raw)
	}
	again, err := encodeSBOM(subject, testPolicy, list)
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("the same components give another bill (%v)", err)
	}
	other, err := encodeSBOM(subject, testPolicy, list[:3])
	if err != nil || serial(t, raw) == serial(t, other) {
		t.Errorf("other components give the same serial number (%v)", err)
	}
	for _, broken := range []struct{ from, to string }{
		{`"type": "application"`, `"type": "program"`},
		{`"licenses"`, `"licences"`},
		{`urn:uuid:`, `uuid:`},
	} {
		if !bytes.Contains(raw, []byte(broken.from)) {
			t.Errorf("the bill has no %s", broken.from)
		}
		if validate(schemas, bytes.Replace(raw, []byte(broken.from), []byte(broken.to), 1)) == nil {
			t.Errorf("a bill with %s is valid", broken.to)
		}
	}
}

func serial(t *testing.T, raw []byte) string {
	t.Helper()
	var bom cdx.BOM
	if err := json.Unmarshal(raw, &bom); err != nil {
		t.Fatal(err)
	}
	return bom.SerialNumber
}

func TestPackageURLs(t *testing.T) {
	var got []string
	for _, c := range []Component{
		{Kind: "go", Name: "example.org/x/v2", Version: "v2.0.0"},
		{Kind: "npm", Name: "@scope/x", Version: "1"},
		{Kind: "wheel", Name: "a-b", Version: "1"},
		{Kind: "debian", Name: "libstdc++6", Version: "1:2+b1"},
	} {
		got = append(got, c.purl())
	}
	want := []string{"pkg:golang/example.org/x/v2@v2.0.0", "pkg:npm/%40scope/x@1", "pkg:pypi/a-b@1", "pkg:deb/debian/libstdc%2B%2B6@1%3A2%2Bb1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
