package limits

import (
	"strconv"
	"strings"
	"time"
)

// unit writes a figure for people.
type unit func(int64) string

func count(n int64) string { return strconv.FormatInt(n, 10) }

func bytes(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

func millis(n int64) string {
	d := time.Duration(n) * time.Millisecond
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return span(d)
}

// wait writes how long somebody waits, never less than he does.
func wait(d time.Duration) string {
	return span(max(time.Second, (d + time.Second - 1).Truncate(time.Second)))
}

// span writes a time without units that are zero.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
