package fake_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDriverKeepsTheContract(t *testing.T) {
	sandboxtest.Run(t, func(t testing.TB) sandboxtest.Harness {
		h := faketest.NewWithoutPython(t)
		return sandboxtest.Harness{
			Open: func(testing.TB) sandbox.Driver { return h.Driver() },
			Spec: sandbox.Spec{Template: "python"},
			Kill: func(t testing.TB, _ sandbox.Driver, id sandbox.ID) {
				if err := h.Kill(id, "out_of_memory"); err != nil {
					t.Error(err)
				}
			},
		}
	})
}

func TestScriptedFailureLeavesNothing(t *testing.T) {
	h := faketest.NewWithoutPython(t)
	d := h.Driver()
	why := errors.New("scripted")
	h.SetScript(fake.Script{BeforeCreate: func(context.Context, sandbox.Spec) error { return why }})
	if _, err := d.Create(t.Context(), sandbox.Spec{}); !errors.Is(err, why) {
		t.Errorf("got %v, want the script's error", err)
	}
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
