package kube

import (
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

func TestNightIsByTheClockOnTheWall(t *testing.T) {
	for _, c := range []struct {
		from, to, zone string
		at             string
		want           bool
	}{
		{"22:00", "06:30", "", "2026-11-23T21:59:59Z", false},
		{"22:00", "06:30", "", "2026-11-23T22:00:00Z", true},
		{"22:00", "06:30", "", "2026-11-24T00:00:00Z", true},
		{"22:00", "06:30", "", "2026-11-24T06:29:59Z", true},
		{"22:00", "06:30", "", "2026-11-24T06:30:00Z", false},
		{"01:00", "05:00", "", "2026-11-24T00:59:00Z", false},
		{"01:00", "05:00", "", "2026-11-24T01:00:00Z", true},
		{"01:00", "05:00", "", "2026-11-24T05:00:00Z", false},
		// Winter: one hour before UTC's; summer: two.
		{"22:00", "06:00", "Europe/Berlin", "2026-11-23T20:59:00Z", false},
		{"22:00", "06:00", "Europe/Berlin", "2026-11-23T21:00:00Z", true},
		{"22:00", "06:00", "Europe/Berlin", "2026-07-23T20:00:00Z", true},
		{"22:00", "06:00", "Europe/Berlin", "2026-07-23T19:59:00Z", false},
		// The night in which clocks go back has two hours from two to three.
		{"02:30", "03:00", "Europe/Berlin", "2026-10-25T00:30:00Z", true},
		{"02:30", "03:00", "Europe/Berlin", "2026-10-25T01:00:00Z", false},
		{"02:30", "03:00", "Europe/Berlin", "2026-10-25T01:30:00Z", true},
		{"", "", "", "2026-11-23T03:00:00Z", false},
	} {
		n, err := ParseNight(c.from, c.to, c.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.covers(at); got != c.want {
			t.Errorf("%s to %s %s at %s: %v", c.from, c.to, c.zone, c.at, got)
		}
	}
}

func TestWhatIsNoNightIsRefused(t *testing.T) {
	for _, c := range [][3]string{
		{"22:00", "", ""},
		{"", "06:00", ""},
		{"25:00", "06:00", ""},
		{"22:00", "6 am", ""},
		{"22:00", "22:00", ""},
		{"22:00", "06:00", "Europe/Nowhere"},
	} {
		if _, err := ParseNight(c[0], c[1], c[2]); errdefs.CodeOf(err) != "invalid-night" {
			t.Errorf("%q: %v", c, err)
		}
	}
}
