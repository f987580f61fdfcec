package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
)

// scripted is a subject whose sessions answer as a test says.
type scripted struct {
	name   string
	create func() error
	run    func(code string) (Sample, error)
	closed int
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Create(context.Context) (Session, error) {
	if s.create != nil {
		if err := s.create(); err != nil {
			return nil, err
		}
	}
	return scriptedSession{s}, nil
}

type scriptedSession struct{ s *scripted }

func (s scriptedSession) Run(_ context.Context, code string) (Sample, error) { return s.s.run(code) }

func (s scriptedSession) Close(context.Context) error {
	s.s.closed++
	return nil
}

func TestAQuantileIsASampleOfNearestRank(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	tests := []struct {
		name    string
		samples []float64
		q, want float64
	}{
		{"nothing", nil, 0.5, 0},
		{"one sample is every quantile", []float64{7}, 0.99, 7},
		{"the median of two is the lower", []float64{2, 1}, 0.5, 1},
		{"the median of three", []float64{3, 1, 2}, 0.5, 2},
		{"p90 of ten is the ninth", []float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0.9, 9},
		{"p99 of ten is the last", []float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0.99, 10},
		{"p99 of a hundred", hundred, 0.99, 99},
		{"p50 of a hundred", hundred, 0.5, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.samples)
			if got := quantile(tt.samples, tt.q); got != tt.want {
				t.Errorf("quantile(%v) = %v, want %v", tt.q, got, tt.want)
			}
			if diff := cmp.Diff(before, tt.samples); diff != "" {
				t.Errorf("the samples changed: %s", diff)
			}
		})
	}
}

func TestARatioComparesWhatWasMeasuredInTheSameRound(t *testing.T) {
	// The machine gets ten times slower half-way: each round still says 3.
	ours, theirs := &series{}, &series{}
	for _, speed := range []float64{1, 1, 10} {
		ours.round()
		theirs.round()
		for range 5 {
			ours.addValue(2 * speed)
			theirs.addValue(6 * speed)
		}
	}
	if got := theirs.against(ours); got != 3 {
		t.Errorf("ratio %v, want 3", got)
	}
	if got := ours.ahead(theirs); got != 4 { // of 4, 4 and 40
		t.Errorf("ahead by %v, want 4", got)
	}
	if got := theirs.ahead(ours); got != -4 && got != -40 {
		t.Errorf("ahead by %v, want it behind", got)
	}
	if got := theirs.against(&series{}); got != 0 {
		t.Errorf("ratio to nothing %v, want none", got)
	}
}

func TestAWrongAnswerIsAFailureAndHasNoTime(t *testing.T) {
	answers := []Sample{{Text: "1\n", First: time.Millisecond}, {Text: "2\n", First: time.Millisecond}, {Text: "1\n"}}
	at := 0
	s := &scripted{name: "s", run: func(string) (Sample, error) {
		at++
		return answers[at-1], nil
	}}
	var got []Result
	r := &run{scenario: "create-hit", report: func(r Result) { got = append(got, r) }}
	r.defaults()
	if err := creates(t.Context(), r, []Subject{s}, len(answers), ""); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].N != 3 || got[0].Failures != 2 || got[0].P50 <= 0 {
		t.Errorf("got %+v, want one of three to be right", got)
	}
	if s.closed != 3 {
		t.Errorf("%d of 3 sessions were closed", s.closed)
	}
}

func TestACreateThatFailsIsCounted(t *testing.T) {
	at := 0
	s := &scripted{
		name: caesarionName,
		create: func() error {
			if at++; at%2 == 0 {
				return errors.New("full")
			}
			return nil
		},
		run: func(string) (Sample, error) { return Sample{Text: "1\n", First: time.Microsecond}, nil },
	}
	var got []Result
	r := &run{scenario: "burst", subjects: []Subject{s}, report: func(r Result) { got = append(got, r) }}
	r.defaults()
	mu := make(chan struct{}, 1)
	create := s.create
	s.create = func() error {
		mu <- struct{}{}
		defer func() { <-mu }()
		return create()
	}
	if err := burst(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Scenario != "burst-20" || got[1].Scenario != "burst" || got[1].N != 100 || got[1].Failures != 50 {
		t.Errorf("got %+v, want half of 20 and of 100 to fail", got)
	}
	got[1].Judge()
	if len(got[1].Goals) != 2 || got[1].Goals[0].Met || !got[1].Goals[1].Met {
		t.Errorf("goals %+v: failures miss one, times meet the other", got[1].Goals)
	}
}

func TestGoals(t *testing.T) {
	tests := []struct {
		name string
		in   Result
		want []Outcome
	}{
		{"met to the last digit", Result{Scenario: "create-hit", Subject: caesarionName, N: 9, P50: 5, P99: 25}, []Outcome{{"p50 ≤ 5 ms", true}, {"p99 ≤ 25 ms", true}}},
		{"one missed", Result{Scenario: "live", Subject: caesarionName, N: 9, P50: 1.3, P99: 4}, []Outcome{{"p50 ≤ 1.2 ms", false}, {"p99 ≤ 5 ms", true}}},
		{"a rate", Result{Scenario: "sustained", Subject: caesarionName, N: 9, Value: 9.9, Unit: "cycles/s"}, []Outcome{{"≥ 10 cycles/s", false}}},
		{"a peer's figures are no goal", Result{Scenario: "create-hit", Subject: "gateway", N: 9, P50: 50}, nil},
		{"the peer's ratio is", Result{Scenario: "live", Subject: "jupyter", N: 9, Ratio: 6}, []Outcome{{"ratio ≥ 5 times", true}}},
		{"what was not measured is not met", Result{Scenario: "resume", Subject: caesarionName, N: 2, Failures: 2}, []Outcome{{"p50 ≤ 300 ms", false}}},
		{"pods have goals of their own", Result{Scenario: "create-hit", Subject: caesarionName, Driver: driverPods, Under: driverPods, N: 9, P50: 50, P99: 300}, []Outcome{{"p50 ≤ 50 ms", true}}},
		{"and none where they have none", Result{Scenario: "sustained", Subject: caesarionName, Driver: driverPods, Under: driverPods, N: 9, Value: 1, Unit: "cycles/s"}, nil},
		{"one machine is ahead by little", Result{Scenario: "live", Subject: "http://other", Driver: driverHere, Under: driverPods, N: 9, P50: 1, Ahead: 1}, []Outcome{{"faster by ≤ 1 ms", true}}},
		{"one machine is ahead by more", Result{Scenario: "live", Subject: "http://other", Driver: driverHere, Under: driverPods, N: 9, P50: 1, Ahead: 1.01}, []Outcome{{"faster by ≤ 1 ms", false}}},
		{"another cluster is no goal", Result{Scenario: "live", Subject: "http://other", Driver: driverPods, Under: driverPods, N: 9, P50: 1, Ahead: 2}, nil},
		{"what was skipped has no outcome", Result{Scenario: "resume", Subject: caesarionName, Skipped: "no"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Judge()
			if diff := cmp.Diff(tt.want, tt.in.Goals); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestJSONHasTheNumbersAlsoWhenTheyAreZero(t *testing.T) {
	b, err := json.Marshal(Result{Scenario: "fork", Subject: caesarionName})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"scenario": "fork", "subject": "caesarion", "n": 0.0, "failures": 0.0, "p50_ms": 0.0, "p90_ms": 0.0, "p99_ms": 0.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTables(t *testing.T) {
	results := []Result{
		{Scenario: "live", Subject: caesarionName, N: 500, P50: 1.234, P90: 2, P99: 12.4, Goals: []Outcome{{"p50 ≤ 1.2 ms", false}}},
		{Scenario: "live", Subject: "jupyter", N: 499, Failures: 1, P50: 44, P90: 45, P99: 48, Ratio: 35.6},
		{Scenario: "live", Subject: "pyodide", N: 500, P50: 0.5, P90: 1, P99: 1, Ratio: 0.25},
		{Scenario: "live", Subject: "one-machine", Driver: driverHere, Under: driverPods, N: 500, P50: 1, P90: 1, P99: 1, Ratio: 0.8, Ahead: 0.234},
		{Scenario: "output", Subject: caesarionName, N: 5, Value: 531898.4, Unit: "lines/s", Note: "200,000 lines"},
		{Scenario: "create-miss", Subject: caesarionName, Skipped: "another setting"},
	}
	var table, markdown bytes.Buffer
	if err := errors.Join(Table(&table, results), Markdown(&markdown, results)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.23 ms", "12 ms", "p50 ≤ 1.2 ms: MISSED", "35.6 times slower", "4.0 times FASTER", "1.2 times FASTER, -0.23 ms", "531,898 lines/s (200,000 lines)", "skipped: another setting"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &table)
		}
		if !strings.Contains(markdown.String(), want) {
			t.Errorf("the Markdown lacks %q:\n%s", want, &markdown)
		}
	}
	for line := range strings.Lines(markdown.String()) {
		if strings.Count(line, "|") != len(header)+1 {
			t.Errorf("%q has not %d columns", line, len(header))
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.05: "0.05", 1.2: "1.2", 80.04: "80.0", 999.94: "999.9", 1234.6: "1,235", 200000: "200,000", -1234: "-1,234"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestAFileThatComesBackChangedIsNoticed(t *testing.T) {
	const size = 3_000_000
	content, err := io.ReadAll(io.LimitReader(&noise{}, size))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&checker{}, iotest.HalfReader(bytes.NewReader(content))); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
	changed := slices.Clone(content)
	changed[2_345_678] ^= 1
	if _, err := io.Copy(&checker{}, bytes.NewReader(changed)); err == nil {
		t.Error("a flipped bit was not noticed")
	}
	if _, err := io.Copy(&checker{}, bytes.NewReader(slices.Delete(content, 70_000, 70_000+4096))); err == nil {
		t.Error("a page that was left out was not noticed")
	}
}

func TestSubjectsThatAreWrappedKeepWhatTheyCan(t *testing.T) {
	j := &Jupyter{name: "jupyter"}
	if _, ok := capable[interface{ interrupts() }](&Prespawned{Subject: j}); !ok {
		t.Error("a prespawned kernel can be interrupted as any other")
	}
	if _, ok := capable[weigher](&scripted{}); ok {
		t.Error("a subject without memory was taken for one that has it")
	}
	r := &run{subjects: []Subject{&scripted{}, &Prespawned{Subject: j}, &Prespawned{Subject: j.QuickAck()}}}
	if got := r.once(); len(got) != 2 || got[1].Name() != "jupyter" {
		t.Errorf("once gives %d subjects, want the quickack client left out", len(got))
	}
}

func TestPrespawnedSessionsAreTakenAndEnded(t *testing.T) {
	made := 0
	s := &scripted{name: "s", create: func() error { made++; return nil }, run: func(string) (Sample, error) { return Sample{}, nil }}
	p := &Prespawned{Subject: s, Size: 2}
	if err := p.Ready(t.Context()); err != nil || made != 2 {
		t.Fatalf("%d are ready, %v; want 2", made, err)
	}
	for range 3 { // the third is made when it is asked for
		if _, err := p.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if made != 3 {
		t.Errorf("%d were made for 3", made)
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil || s.closed != 2 {
		t.Errorf("%d that nobody took were ended, %v; want 2", s.closed, err)
	}
}

func TestAPlanSkipsWhatTheServerCantBeAndRefusesUnknownNames(t *testing.T) {
	var got []Result
	plan := Plan{
		Target:    func(context.Context, Setting) (*Caesarion, error) { return nil, &ErrNoTarget{"one setting only"} },
		Scenarios: []string{"create-miss", "create-cold"},
	}
	if err := plan.Run(t.Context(), func(r Result) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	want := []Result{
		{Scenario: "create-miss", Subject: caesarionName, Skipped: "one setting only"},
		{Scenario: "create-cold", Subject: caesarionName, Skipped: "one setting only"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	plan.Scenarios = []string{"fast"}
	if err := plan.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "create-hit") {
		t.Errorf("an unknown scenario gave %v, want the names there are", err)
	}
}

func TestAResultNamesTheDriverThatTheServerTells(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", v1.MediaJSON)
		_, _ = io.WriteString(w, `{"driver":"`+driverPods+`"}`)
	}))
	defer s.Close()
	cl, err := client.New(s.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []Result
	plan := Plan{
		Target:    func(context.Context, Setting) (*Caesarion, error) { return &Caesarion{Client: cl}, nil },
		Scenarios: []string{"forwarded"},
	}
	if err := plan.Run(t.Context(), func(r Result) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	want := []Result{{
		Scenario: "forwarded", Subject: caesarionName, Driver: driverPods, Under: driverPods,
		Skipped: "needs another replica of the same installation: name it with --replica",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
