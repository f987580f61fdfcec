package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size: "512MiB", "2GiB", "1.5GB" or a plain number of bytes.
type Bytes int64

// The units, longest first, so that "MiB" is not taken for "B".
var byteUnits = []struct {
	suffix string
	size   float64
}{
	{"kib", 1 << 10},
	{"mib", 1 << 20},
	{"gib", 1 << 30},
	{"tib", 1 << 40},
	{"kb", 1e3},
	{"mb", 1e6},
	{"gb", 1e9},
	{"tb", 1e12},
	{"k", 1 << 10},
	{"m", 1 << 20},
	{"g", 1 << 30},
	{"t", 1 << 40},
	{"b", 1},
}

// ParseBytes reads a size.
func ParseBytes(text string) (Bytes, error) {
	number, factor := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.size
			break
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || value < 0 || math.IsNaN(value) || value*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size: write a number with B, KiB, MiB, GiB, kB, MB or GB, such as 2GiB", text)
	}
	return Bytes(value * factor), nil
}

// UnmarshalText implements encoding.TextUnmarshaler, for kong and YAML.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, err := ParseBytes(string(text))
	if err != nil {
		return err
	}
	*b = v
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String gives the size in the largest unit that keeps it short: "2GiB".
func (b Bytes) String() string {
	for _, u := range []struct {
		name string
		size Bytes
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b >= u.size {
			text := strconv.FormatFloat(float64(b)/float64(u.size), 'f', 1, 64)
			return strings.TrimSuffix(text, ".0") + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// Duration is a time.Duration written with its unit: "300s", "1h30m", "7d". A plain
// number other than 0 is refused, because its unit would be a guess.
type Duration time.Duration

// Seconds makes a Duration of n seconds.
func Seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

// UnmarshalText implements encoding.TextUnmarshaler, for kong and YAML.
func (d *Duration) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	if days, ok := strings.CutSuffix(word, "d"); ok {
		// Hours of a long time are nothing anybody reads.
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n <= maxDays {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(word)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number with its unit, such as 300s, 15m, 24h or 7d", text)
	}
	*d = Duration(v)
	return nil
}

// maxDays is a century, and far from what an int64 of nanoseconds holds.
const maxDays = 36_500

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String gives the duration without units that are zero: "5m", not "5m0s".
func (d Duration) String() string {
	if day := Duration(24 * time.Hour); d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// PoolSize is how many sandboxes of a template are kept ready: a number, or
// AutoPoolSize.
type PoolSize int

// AutoPoolSize stands for a number that fits the machine, see Server.PoolSizes.
const AutoPoolSize PoolSize = -1

const autoWord = "auto"

// UnmarshalText implements encoding.TextUnmarshaler, for YAML.
func (p *PoolSize) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	if word == autoWord {
		*p = AutoPoolSize
		return nil
	}
	n, err := strconv.ParseUint(word, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is not a pool's size: write a number, or auto", text)
	}
	*p = PoolSize(n)
	return nil
}

// MarshalYAML implements yaml.Marshaler: a number is one in YAML too.
func (p PoolSize) MarshalYAML() (any, error) {
	if p == AutoPoolSize {
		return autoWord, nil
	}
	return int(p), nil
}

// String gives it as it is written.
func (p PoolSize) String() string {
	if p == AutoPoolSize {
		return autoWord
	}
	return strconv.Itoa(int(p))
}

// Secret is a text that is never printed: not by fmt, not by log/slog, not in
// JSON or YAML. Reveal gives it to the one place that needs it.
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal gives the secret itself.
func (s Secret) Reveal() string { return string(s) }
