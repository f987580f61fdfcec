package config_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
)

const someLimits = `auth: accounts
limits:
  default:
    sandboxes: 5
    memory: 8GiB
    disk: 1234567B
    creates_per_minute: 30
    executions_per_minute: 600
    cpu_per_day: 8h
    egress_per_day: 10GiB
    model_tokens_per_day: 2_000_000
    upload_size: 100MiB
    upload_types: [csv, .tar.gz]
  roles:
    viewer: {sandboxes: 0}
    admin: {sandboxes: none, cpu_per_day: none, egress_per_day: none}
  users:
    ann@example.org: {upload_types: ["*"]}
    local: {sandboxes: none}
  organisations:
    Acme: {sandboxes: 40}
    "*": {sandboxes: 20}
`

func TestLimitsAreRead(t *testing.T) {
	srv, err := config.Load(config.Base{Config: write(t, someLimits)})
	if err != nil {
		t.Fatal(err)
	}
	d := srv.Limits.Default
	if *d.Sandboxes != 5 || *d.Memory != 8<<30 || *d.Disk != 1234567 || *d.CPUPerDay != config.TimeLimit(8*time.Hour) || *d.ModelTokensPerDay != 2_000_000 || len(d.UploadTypes) != 2 {
		t.Errorf("default = %+v", d)
	}
	admin := srv.Limits.Roles["admin"]
	if *admin.Sandboxes != config.Unlimited || *admin.CPUPerDay != config.Unlimited || *admin.EgressPerDay != config.Unlimited || admin.Memory != nil {
		t.Errorf("admin = %+v", admin)
	}
	var out bytes.Buffer
	if err := config.Print(&out, config.Base{}, srv); err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(config.Base{Config: write(t, out.String())})
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if diff := cmp.Diff(srv.Limits, again.Limits); diff != "" {
		t.Errorf("printed and read back, -want +got:\n%s", diff)
	}
	if srv.Limits.IsZero() || !new(config.Server).Limits.IsZero() {
		t.Error("nobody knows whether there are limits")
	}
}

func TestMistakesInLimits(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"an unknown part":             {"limits: {everybody: {}}", `"everybody"`},
		"an unknown limit":            {"limits: {default: {sandbox: 3}}", `"sandbox"`},
		"an unknown limit of a role":  {"auth: accounts\nlimits: {roles: {viewer: {cpus: 3}}}", `"cpus"`},
		"a number below nothing":      {"limits: {default: {sandboxes: -1}}", "or none"},
		"a word":                      {"limits: {default: {sandboxes: many}}", `"many"`},
		"a size that is none":         {"limits: {default: {memory: lots}}", `"lots"`},
		"a time without unit":         {"limits: {default: {cpu_per_day: 300}}", `"300"`},
		"a time below nothing":        {"limits: {default: {cpu_per_day: -3h}}", "8h, or none"},
		"an unknown role":             {"auth: accounts\nlimits: {roles: {boss: {}}}", "viewer, member"},
		"roles of one user":           {"limits: {roles: {viewer: {}}}", "users.local"},
		"a user who is nobody":        {"auth: accounts\nlimits: {users: {ann: {}}}", "address"},
		"uploads of an organisation":  {"auth: accounts\nlimits: {organisations: {acme: {upload_size: 1MiB}}}", "are of users"},
		"a type that is none":         {"limits: {default: {upload_types: ['../x']}}", "tar.gz"},
		"all types and another":       {"limits: {default: {upload_types: ['*', csv]}}", "alone"},
		"a list where a set is meant": {"limits: {default: [sandboxes]}", "limits"},
		"one word where sets are":     {"limits: {users: all}", "limits"},
	} {
		_, err := config.Load(config.Base{Config: write(t, tt.text)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "config.Limit") {
			t.Errorf("%s: %v, want one that says %q", name, err, tt.want)
		}
	}
}
