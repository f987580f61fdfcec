package main

import (
	"reflect"
	"strings"
	"testing"

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
