package httpapitest

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// limiter is what the fleet of a test asks.
type limiter struct{ *limits.Service }

// Hold implements fleet.Limits.
func (l limiter) Hold(owner identity.Owner, more fleet.Holding, held fleet.Held) error {
	return l.Service.Hold(owner, limits.Holding(more), limits.Held{User: limits.Holding(held.User), Organisation: limits.Holding(held.Organisation)})
}

// Limits tests what users may use, and what they are told when that is over.
func Limits(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts, opts.MaxSandboxes = true, 8
	opts.Limits = &limits.Rules{
		Default: limits.Set{
			Most:        map[limits.Name]int64{limits.Sandboxes: 2, limits.Executions: 5, limits.UploadSize: 1 << 20, limits.Memory: 8 << 30},
			UploadTypes: []string{".csv"},
		},
		Organisations: map[string]limits.Set{limits.Any: {Most: map[limits.Name]int64{limits.Sandboxes: 3}}},
	}
	s := Start(t, newDriver(t), opts)
	org := s.organisation(t, "Acme")
	ann := s.person(t, "ann", org, identity.RoleMember, nil)
	bob := s.person(t, "bob", org, identity.RoleAdmin, nil)
	create := func(who person) answer { return s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{}, who.header) }
	own := into[v1.Sandbox](t, create(ann), 201)
	into[v1.Sandbox](t, create(ann), 201)
	t.Cleanup(func() {
		for _, sb := range s.Fleet.List() {
			s.delete(t, string(sb.ID()))
		}
	})
	base := "/v1/sandboxes/" + own.ID

	t.Run("sandboxes at once, of a user and of an organisation", func(t *testing.T) {
		a := create(ann)
		p := wantProblem(t, a, 429, "limit-sandboxes")
		if want := (v1.LimitReached{Limit: "sandboxes", Scope: "user", Used: 2, Most: 2, Unit: "number"}); p.Limit == nil || *p.Limit != want {
			t.Errorf("limit = %+v, want %+v", p.Limit, want)
		}
		if a.Header.Get("Retry-After") == "" || p.Hint == "" {
			t.Errorf("it does not say what to do: %s", a.Body)
		}
		into[v1.Sandbox](t, create(bob), 201)
		if p := wantProblem(t, create(bob), 429, "limit-sandboxes"); p.Limit.Scope != "organisation" || p.Limit.Used != 3 {
			t.Errorf("limit = %+v", p.Limit)
		}
	})
	t.Run("executions in a minute, and commands", func(t *testing.T) {
		run := func(who person, id string) answer {
			return s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", v1.Execute{Code: "1"}, who.header)
		}
		into[v1.Process](t, s.send(t, "POST", base+"/processes", v1.RunProcess{Command: "true"}, ann.header), 200)
		a, tries := answer{}, 0
		for a.Status != 429 && tries < 20 { // a new minute may begin
			a = run(ann, own.ID)
			tries++
		}
		p := wantProblem(t, a, 429, "limit-executions")
		wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if err != nil || wait < 1 || wait > 60 || p.Limit == nil || p.Limit.Used != 5 || p.Limit.Most != 5 || p.Limit.FreesAt == nil || time.Until(*p.Limit.FreesAt) > time.Minute {
			t.Errorf("Retry-After %d, limit %+v", wait, p.Limit)
		}
		if tries < 5 {
			t.Errorf("refused at the %d. of 5, of which one was a command", tries)
		}
		for _, sb := range s.Fleet.List() {
			if sb.Owner().User == bob.User {
				into[v1.Execution](t, run(bob, string(sb.ID())), 200)
			}
		}
	})
	t.Run("uploads", func(t *testing.T) { s.testUploadLimits(t, ann, base) })
	t.Run("what one uses, and what everybody does", func(t *testing.T) {
		mine := into[v1.Allowance](t, s.do(t, "GET", "/v1/usage", nil, ann.header), 200)
		if f := figureOf(t, mine.User, "sandboxes"); f.Used != 2 || f.Most == nil || *f.Most != 2 || f.Unit != "number" {
			t.Errorf("sandboxes = %+v", f)
		}
		if f := figureOf(t, mine.User, "memory"); f.Used != 4<<30 || *f.Most != 8<<30 || f.Unit != "bytes" {
			t.Errorf("memory = %+v", f)
		}
		if f := figureOf(t, mine.User, "egress_per_day"); f.Most != nil || f.FreesAt == nil {
			t.Errorf("egress = %+v", f)
		}
		if mine.User.UserID != ann.User || mine.Organisation == nil || mine.Organisation.OrganisationID != org || mine.User.UploadBytes == nil {
			t.Errorf("whose: %+v", mine)
		}
		if f := figureOf(t, *mine.Organisation, "sandboxes"); f.Used != 3 || *f.Most != 3 {
			t.Errorf("sandboxes of the organisation = %+v", f)
		}
		wantProblem(t, s.do(t, "GET", "/v1/usage/all", nil, ann.header), 403, "role-forbidden")
		all := into[v1.UsageList](t, s.do(t, "GET", "/v1/usage/all", nil, bob.header), 200)
		if len(all.Usage) != 3 {
			t.Errorf("%d have used something, want two users and their organisation: %+v", len(all.Usage), all.Usage)
		}
		other := s.person(t, "eve", s.organisation(t, "Other"), identity.RoleOwner, nil)
		if list := into[v1.UsageList](t, s.do(t, "GET", "/v1/usage/all", nil, other.header), 200); len(list.Usage) != 0 {
			t.Errorf("another organisation sees %+v", list.Usage)
		}
		wantProblem(t, s.do(t, "GET", "/v1/usage/all?organisation="+org, nil, other.header), 404, "organisation-not-found")
	})
}

func figureOf(t testing.TB, u v1.SubjectUsage, name string) v1.LimitFigure {
	t.Helper()
	for _, f := range u.Limits {
		if f.Limit == name {
			return f
		}
	}
	t.Fatalf("there is no figure of %s: %+v", name, u)
	return v1.LimitFigure{}
}

// testUploadLimits uploads by every door there is.
func (s *Server) testUploadLimits(t *testing.T, who person, base string) {
	large := bytes.Repeat([]byte("x"), 1<<20+1)
	ses := into[v1.Session](t, s.send(t, "POST", "/v1/sessions", map[string]string{}, who.header), 201)
	for name, door := range map[string]string{"sandbox": base + "/files/content?path=", "session": "/v1/sessions/" + ses.ID + "/files/content?path="} {
		put := func(file string, body io.Reader) answer { return s.do(t, "PUT", door+file, body, who.header) }
		if a := put("a.csv", bytes.NewReader(large[1:])); a.Status >= 300 {
			t.Errorf("%s: a file of the size that is allowed: %d %s", name, a.Status, a.Body)
		}
		p := wantProblem(t, put("b.csv", bytes.NewReader(large)), 413, "limit-upload-size")
		if p.Limit == nil || p.Limit.Used != 1<<20+1 || p.Limit.Most != 1<<20 {
			t.Errorf("%s: limit = %+v", name, p.Limit)
		}
		wantProblem(t, put("c.csv", io.MultiReader(bytes.NewReader(large))), 413, "limit-upload-size") // nobody says how long it is
		wantProblem(t, put("d.exe", strings.NewReader("x")), 415, "limit-upload-type")
		if a := s.do(t, "GET", door+"c.csv", nil, who.header); a.Status != http.StatusNotFound {
			t.Errorf("%s: what was refused half-way is there: %d", name, a.Status)
		}
	}
	sb, err := s.Fleet.Get(sandbox.ID(strings.TrimPrefix(base, "/v1/sandboxes/")))
	if err != nil {
		t.Fatal(err)
	}
	form := func(name string, content []byte) answer {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, _ := w.CreateFormFile("file", name) // into memory
		_, _ = part.Write(content)
		_ = w.Close()
		return s.do(t, "POST", "/sandboxes/"+sb.View().SeedID+"/upload", &body, who.header, header{"Content-Type", w.FormDataContentType()})
	}
	for _, tt := range []struct {
		name   string
		size   int
		status int
	}{{"a.csv", 10, 200}, {"a.exe", 10, 415}, {"b.csv", len(large), 413}} {
		if a := form(tt.name, large[:tt.size]); a.Status != tt.status {
			t.Errorf("original's door, %s with %d bytes: %d %s, want %d", tt.name, tt.size, a.Status, a.Body, tt.status)
		}
	}
}
