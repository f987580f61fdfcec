package machine_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/machine"
)

func TestMemoryIsPlausible(t *testing.T) {
	total, available := machine.Memory()
	if total < 256<<20 || available <= 0 || available > total {
		t.Errorf("total %d, available %d", total, available)
	}
}
