package main

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

func TestWarmPoolsAreToldInOneLine(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stats pool.Stats
		want  string
		done  bool
	}{
		{"it is being made", pool.Stats{Size: 2, Snapshot: "making"}, "", false},
		{"it is being filled", pool.Stats{Size: 2, Ready: 1, Snapshot: "ready"}, "", false},
		{"all is there", pool.Stats{Size: 2, Ready: 2, Snapshot: "ready"}, "snapshot ready in 2.1 s, 2 sandboxes warm", true},
		{"one", pool.Stats{Size: 1, Ready: 1, Snapshot: "ready"}, "snapshot ready in 2.1 s, 1 sandbox warm", true},
		{"no pool", pool.Stats{Snapshot: "ready"}, "snapshot ready in 2.1 s", true},
		{"fewer than asked for", pool.Stats{Size: 9, Ready: 3, Snapshot: "ready", Message: "memory is short"}, "snapshot ready in 2.1 s, 3 sandboxes warm, memory is short", true},
		{"it failed", pool.Stats{Snapshot: "failed", Message: "no module named x"}, "no snapshot, sandboxes start cold, no module named x", true},
		{"nothing is wanted", pool.Stats{Snapshot: "none"}, "", true},
	} {
		if got, done := warmText(tt.stats, 2100*time.Millisecond); got != tt.want || done != tt.done {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, done, tt.want, tt.done)
		}
	}
}

func TestListsShowWhatSleepsSinceWhenAndHowLarge(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	since := now.Add(-3 * time.Hour)
	var out strings.Builder
	err := printSandboxes(&out, []v1.Sandbox{{ID: "sbx_a", Template: "python", State: "paused", PausedAt: &since, SavedBytes: 85 << 20, CreatedAt: since, LastUsedAt: since, ExpiresAt: now}}, now)
	if err != nil || !strings.Contains(out.String(), "paused 3h, 85MiB") {
		t.Errorf("got %q, %v", out.String(), err)
	}
	out.Reset()
	err = printSnapshots(&out, []v1.Snapshot{
		{ID: "snp_a", Name: "prepared\x1b[31m", Template: "python", SandboxID: "sbx_a", Memory: true, MemoryBytes: 64 << 20, FilesBytes: 1 << 20, CreatedAt: since},
		{ID: "snp_b", Template: "python", FilesBytes: 512},
	}, now)
	for _, want := range []string{"memory and files", "65MiB", "3h", "files", "512B"} {
		if err != nil || !strings.Contains(out.String(), want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q does not say %q, %v", out.String(), want, err)
		}
	}
}
