package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caesarion/caesarion/internal/config"
)

func TestParseBytes(t *testing.T) {
	tests := []struct {
		text string
		want config.Bytes
		bad  bool
	}{
		{"0", 0, false},
		{"1024", 1024, false},
		{"2GiB", 2 << 30, false},
		{"2 GiB", 2 << 30, false},
		{"512m", 512 << 20, false},
		{"1.5GB", 1_500_000_000, false},
		{"10kB", 10_000, false},
		{"7B", 7, false},
		{"", 0, true},
		{"GiB", 0, true},
		{"-1", 0, true},
		{"nan", 0, true},
		{"inf", 0, true},
		{"1e300GiB", 0, true},
		{"2GiBs", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := config.ParseBytes(tt.text)
			if (err != nil) != tt.bad || got != tt.want {
				t.Errorf("got %d, %v; want %d, error %v", got, err, tt.want, tt.bad)
			}
		})
	}
}

func TestDurationsReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := config.Duration(rapid.Int64().Draw(t, "ns"))
		var got config.Duration
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("%s reads as %s, %v", want, got, err)
		}
	})
	for d, want := range map[config.Duration]string{
		config.Seconds(300): "5m", config.Seconds(3600): "1h", config.Seconds(90): "1m30s", config.Seconds(10): "10s", 0: "0s",
	} {
		if d.String() != want {
			t.Errorf("got %q, want %q", d, want)
		}
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	s := struct{ Token config.Secret }{"hunter2"}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("started", "token", s.Token, "all", s)
	all := string(text) + log.String() + fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s.Token, s.Token)
	if strings.Contains(all, "hunter2") {
		t.Errorf("the secret shows in %s", all)
	}
	if s.Token.Reveal() != "hunter2" {
		t.Error("Reveal does not give the secret")
	}
}
