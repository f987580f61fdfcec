// Package faketest gives tests a machine with sandboxes of package fake, which
// goes with the test. The TestMain of a package that wants Python is
// kerneltest.Main.
package faketest

import (
	"testing"

	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

// New makes a machine with Python.
func New(tb testing.TB) *fake.Host {
	tb.Helper()
	return start(tb, fake.Options{Python: kerneltest.Python(tb), ProgramDir: kerneltest.Program(tb)})
}

// NewWithoutPython makes a machine whose sandboxes have files and processes
// only: for what runs no code, which starts at once.
func NewWithoutPython(tb testing.TB) *fake.Host {
	tb.Helper()
	return start(tb, fake.Options{})
}

func start(tb testing.TB, opts fake.Options) *fake.Host {
	tb.Helper()
	h, err := fake.NewHost(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	return h
}
