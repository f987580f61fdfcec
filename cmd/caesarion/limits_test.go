package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/limits"
)

func TestLimitsOfSettings(t *testing.T) {
	count, size, hours := config.CountLimit(5), config.SizeLimit(1<<30), config.TimeLimit(8*time.Hour)
	noCount, noSize, noTime := config.CountLimit(config.Unlimited), config.SizeLimit(config.Unlimited), config.TimeLimit(config.Unlimited)
	rules := rulesOf(config.Limits{
		Default: config.LimitSet{
			Sandboxes: &count, Memory: &size, Disk: &size, CreatesPerMinute: &count, ExecutionsPerMinute: &count, CPUPerDay: &hours,
			EgressPerDay: &size, ModelTokensPerDay: &count, UploadSize: &size, UploadTypes: []string{"CSV", ".tar.gz"},
		},
		Users: map[string]config.LimitSet{"local": {Sandboxes: &noCount, EgressPerDay: &noSize, CPUPerDay: &noTime, UploadTypes: []string{"*"}}},
	})
	want := limits.Rules{
		Default: limits.Set{
			Most: map[limits.Name]int64{
				limits.Sandboxes: 5, limits.Memory: 1 << 30, limits.Disk: 1 << 30, limits.Creates: 5, limits.Executions: 5, limits.CPU: 8 * 3600 * 1000,
				limits.Egress: 1 << 30, limits.Tokens: 5, limits.UploadSize: 1 << 30,
			},
			UploadTypes: []string{".csv", ".tar.gz"},
		},
		Roles: map[string]limits.Set{}, Organisations: map[string]limits.Set{},
		Users: map[string]limits.Set{limits.Local: {
			Most:        map[limits.Name]int64{limits.Sandboxes: limits.Unlimited, limits.Egress: limits.Unlimited, limits.CPU: limits.Unlimited},
			UploadTypes: []string{},
		}},
	}
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
