package egress

import (
	"net/http"
)

type mirror struct{}

func newMirror(*Gateway, Options) (*mirror, error) { return &mirror{}, nil }
func (m *mirror) is(t target) bool                 { return t.name == MirrorHost }
func (m *mirror) close() error                     { return nil }

// MirrorHost is the name.
const MirrorHost = "packages.caesarion.internal"

func (d *door) packages(*stream, http.ResponseWriter, *http.Request, target, Policy) *Refusal {
	return denied(codeMirrorOff, "not yet")
}
