package main

import (
	"reflect"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/bench"
	"github.com/caesarion/caesarion/internal/config"
)

func TestBenchHelpNamesEveryScenarioAndPeer(t *testing.T) {
	of := func(name string) string {
		f, ok := reflect.TypeFor[benchCmd]().FieldByName(name)
		if !ok {
			t.Fatalf("no field %s", name)
		}
		return f.Tag.Get("help")
	}
	for field, names := range map[string][]string{"Scenario": bench.Scenarios(), "Compare": benchPeers} {
		if want := strings.Join(names, ", "); !strings.Contains(of(field), want) {
			t.Errorf("the help of %s does not list %s", field, want)
		}
	}
}

func TestBenchSettingsStartSandboxesAsAScenarioNeeds(t *testing.T) {
	for setting, want := range map[bench.Setting]struct {
		snapshots bool
		pool      config.PoolSize
	}{
		bench.Default:     {true, config.AutoPoolSize},
		bench.NoPool:      {true, 0},
		bench.NoSnapshots: {false, 0},
	} {
		t.Run(string(setting), func(t *testing.T) {
			cfg := config.Server{Snapshots: true, Templates: map[string]config.Template{config.DefaultTemplate: config.DefaultLimits()}}
			applySetting(&cfg, setting)
			if got := cfg.Templates[config.DefaultTemplate].PoolSize; cfg.Snapshots != want.snapshots || got != want.pool {
				t.Errorf("snapshots %v, pool %v; want %v", cfg.Snapshots, got, want)
			}
		})
	}
}

func TestBenchMeasuresAGivenServerAsItStartsSandboxes(t *testing.T) {
	of := func(pool *v1.Pool) v1.Info {
		return v1.Info{Templates: []v1.Template{{Name: "other", Pool: &v1.Pool{Size: 9}}, {Name: "python", Default: true, Pool: pool}}}
	}
	for name, test := range map[string]struct {
		info v1.Info
		want bench.Setting
	}{
		"a pool":                    {of(&v1.Pool{Size: 1, Snapshot: "none"}), bench.Default},
		"a snapshot and no pool":    {of(&v1.Pool{Snapshot: "ready"}), bench.NoPool},
		"nothing":                   {of(&v1.Pool{Snapshot: "none"}), bench.NoSnapshots},
		"not even a word of a pool": {of(nil), bench.NoSnapshots},
		"no template":               {v1.Info{}, bench.Default},
	} {
		t.Run(name, func(t *testing.T) {
			if got := settingOf(test.info); got != test.want {
				t.Errorf("it runs %s, want %s", got, test.want)
			}
		})
	}
}
