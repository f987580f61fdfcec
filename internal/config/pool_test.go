package config_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
)

func TestPoolSizesFitTheMachine(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		name      string
		text      string
		cores     int
		memory    int64
		want      map[string]int
		snapshots bool
	}{
		{"two cores", "", 2, 8 * gib, map[string]int{"python": 2}, true},
		{"many cores", "", 64, 512 * gib, map[string]int{"python": 8}, true},
		{"little memory", "", 8, 4 * gib, map[string]int{"python": 2}, true},
		{"hardly any memory", "", 8, gib, map[string]int{"python": 1}, true},
		{"unknown memory", "", 2, 0, map[string]int{"python": 2}, true},
		{"without snapshots", "snapshots: false", 2, 8 * gib, map[string]int{"python": 0}, false},
		{"a number is a number", "snapshots: false\ntemplates: {python: {pool_size: 3}, b: {pool_size: auto}, c: {pool_size: 0}}", 2, gib, map[string]int{"python": 3, "b": 0, "c": 0}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, err := config.Load(config.Base{Config: write(t, tt.text)})
			if err != nil {
				t.Fatal(err)
			}
			if srv.Snapshots != tt.snapshots {
				t.Errorf("snapshots: %v", srv.Snapshots)
			}
			if diff := cmp.Diff(tt.want, srv.PoolSizes(tt.cores, tt.memory)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNothingIsPreloadedThatNobodyAskedFor(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                       config.DefaultPreload(),
		"templates: {python: {memory: 1GiB}}":    config.DefaultPreload(),
		"templates: {python: {preload: []}}":     {},
		"templates: {python: {preload: [json]}}": {"json"},
		"templates: {python: {image: mine}}":     nil,
		"templates: {python: {image: mine, preload: [numpy]}}": {"numpy"},
	} {
		srv, err := config.Load(config.Base{Config: write(t, text)})
		if err != nil {
			t.Fatal(err)
		}
		if got := srv.Templates["python"].Preload; !slices.Equal(got, want) {
			t.Errorf("%s: preload %v, want %v", text, got, want)
		}
	}
}
