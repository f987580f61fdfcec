package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// DefaultWeatherURL is the base address of the weather service.
//
// Source: open-meteo.com, the Forecast API.
const DefaultWeatherURL = "https://api.open-meteo.com"

const (
	weatherTimeout = 20 * time.Second // it answers in one; a person waits for it
	weatherBytes   = 512 << 10        // an answer has some 10 kB; the body goes into the session as it is
)

// weather asks for the forecast of a place. The body is passed on unchanged:
// the page draws its card from it.
func (s *Service) weather(ctx context.Context, args map[string]any) (json.RawMessage, error) {
	lat, err := coordinate(args, "latitude", 90)
	if err != nil {
		return nil, err
	}
	lon, err := coordinate(args, "longitude", 180)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, weatherTimeout)
	defer cancel()
	address := fmt.Sprintf("%s/v1/forecast?latitude=%s&longitude=%s&current=temperature_2m&hourly=temperature_2m&daily=sunrise,sunset&timezone=auto",
		strings.TrimSuffix(s.opts.WeatherURL, "/"), url.QueryEscape(lat), url.QueryEscape(lon))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("chat: weather: %w", err)
	}
	resp, err := s.opts.HTTPClient.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, badArguments("The weather service did not answer in time.")
		}
		return nil, badArguments("The weather service can't be reached from this server.")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, weatherBytes+1))
	switch {
	case err != nil:
		return nil, badArguments("The weather service's answer broke off.")
	case len(body) > weatherBytes:
		return nil, badArguments("The weather service's answer is too large.")
	case resp.StatusCode != http.StatusOK:
		var why struct {
			Reason string `json:"reason"`
		}
		_ = json.Unmarshal(body, &why) // not there: the status says enough
		return nil, badArguments("%s", strings.TrimSpace(fmt.Sprintf("The weather service answered %d. %s", resp.StatusCode, short(why.Reason, 200))))
	case !json.Valid(body):
		return nil, badArguments("The weather service's answer is no JSON.")
	}
	return body, nil
}

// coordinate reads a number, which some models write as text.
func coordinate(args map[string]any, name string, most float64) (string, error) {
	var n float64
	switch v := args[name].(type) {
	case float64:
		n = v
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil {
			return "", badArguments("The argument %q must be a number, in degrees.", name)
		}
		n = f
	default:
		return "", badArguments("The argument %q is missing: a number, in degrees.", name)
	}
	if math.IsNaN(n) || math.Abs(n) > most {
		return "", badArguments("The argument %q must be between -%g and %g.", name, most, most)
	}
	return strconv.FormatFloat(n, 'f', -1, 64), nil
}
