package llmtest

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// forecast plays the weather service beside the model, so that a demonstration
// of the weather needs no network: seven days of mild weather from today on,
// in the shape of Open-Meteo's /v1/forecast.
func forecast(w http.ResponseWriter, r *http.Request) {
	const minute = "2006-01-02T15:04"
	q := r.URL.Query()
	lat, err1 := strconv.ParseFloat(q.Get("latitude"), 64)
	lon, err2 := strconv.ParseFloat(q.Get("longitude"), 64)
	if err1 != nil || err2 != nil || math.Abs(lat) > 90 || math.Abs(lon) > 180 {
		answer(w, http.StatusBadRequest, map[string]any{"error": true, "reason": "Latitude must be in range of -90 to 90°, longitude of -180 to 180°."})
		return
	}
	now := time.Now().UTC()
	today := now.Truncate(24 * time.Hour)
	at := func(t time.Time) float64 {
		hours := t.Sub(today).Hours()
		return math.Round(10*(9+5*math.Sin((hours-9)*math.Pi/12)+1.5*math.Sin(hours*math.Pi/60))) / 10
	}
	hours, temperatures := []string{}, []float64{}
	for h := range 7 * 24 {
		t := today.Add(time.Duration(h) * time.Hour)
		hours, temperatures = append(hours, t.Format(minute)), append(temperatures, at(t))
	}
	days, rises, sets := []string{}, []string{}, []string{}
	for d := range 7 {
		t := today.AddDate(0, 0, d)
		days = append(days, t.Format(time.DateOnly))
		rises = append(rises, t.Add(7*time.Hour+38*time.Minute).Format(minute))
		sets = append(sets, t.Add(16*time.Hour+2*time.Minute).Format(minute))
	}
	current := now.Truncate(15 * time.Minute)
	answer(w, http.StatusOK, map[string]any{
		"latitude": lat, "longitude": lon, "generationtime_ms": 0.05, "utc_offset_seconds": 0, "timezone": "GMT", "timezone_abbreviation": "GMT", "elevation": 38.0,
		"current_units": map[string]any{"time": "iso8601", "interval": "seconds", "temperature_2m": "°C"},
		"current":       map[string]any{"time": current.Format(minute), "interval": 900, "temperature_2m": at(current)},
		"hourly_units":  map[string]any{"time": "iso8601", "temperature_2m": "°C"},
		"hourly":        map[string]any{"time": hours, "temperature_2m": temperatures},
		"daily_units":   map[string]any{"time": "iso8601", "sunrise": "iso8601", "sunset": "iso8601"},
		"daily":         map[string]any{"time": days, "sunrise": rises, "sunset": sets},
	})
}
