package egress

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	xhtml "golang.org/x/net/html"
	"golang.org/x/sync/singleflight"
)

const (
	typeJSON = "application/vnd.pypi.simple.v1+json"
	typeHTML = "application/vnd.pypi.simple.v1+html"

	pageFor    = 5 * time.Minute // a page is good for
	missingFor = time.Minute     // that a project does not exist is good for
	staleFor   = 24 * time.Hour  // a page is better than none for
	maxPage    = 64 << 20        // the largest pages of the public index have some 30 MB
	maxPages   = 64 << 20        // of pages kept in memory
	pageFetch  = 60 * time.Second
	fetches    = 8 // pages fetched at once; read, which takes several times their size, one by one
)

// page is one project's page, its links leading to the mirror.
type page struct {
	json []byte // nil if the index speaks HTML only
	html []byte // nil until somebody wants it
	tag  string

	etag, modified string // of the index
	missing        bool
	at             time.Time
}

func (p *page) size() int { return len(p.json) + len(p.html) + 512 }

// pages keeps pages in memory, those used last.
type pages struct {
	m     *mirror
	once  singleflight.Group
	slots chan struct{}
	read  sync.Mutex // held while a page is read or written

	mu    sync.Mutex // guards what follows
	byKey map[string]*list.Element
	order *list.List // of *kept, the last used in front
	size  int
}

type kept struct {
	name string
	page *page
}

func newPages(m *mirror) *pages {
	return &pages{m: m, slots: make(chan struct{}, fetches), byKey: make(map[string]*list.Element), order: list.New()}
}

func (ps *pages) get(name string) *page {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	e := ps.byKey[name]
	if e == nil {
		return nil
	}
	ps.order.MoveToFront(e)
	return e.Value.(*kept).page //nolint:errcheck,revive // the list holds nothing else
}

func (ps *pages) put(name string, p *page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if e := ps.byKey[name]; e != nil {
		ps.dropLocked(e)
	}
	ps.byKey[name] = ps.order.PushFront(&kept{name, p})
	ps.size += p.size()
	for ps.size > maxPages && ps.order.Len() > 1 {
		ps.dropLocked(ps.order.Back())
	}
}

func (ps *pages) dropLocked(e *list.Element) {
	k := ps.order.Remove(e).(*kept) //nolint:errcheck,revive // the list holds nothing else
	delete(ps.byKey, k.name)
	ps.size -= k.page.size()
}

func (p *page) fresh() bool {
	if p.missing {
		return time.Since(p.at) < missingFor
	}
	return time.Since(p.at) < pageFor
}

// page answers with a project's page.
func (m *mirror) page(w http.ResponseWriter, r *http.Request, d *door, s *stream, name string) {
	p := m.pages.get(name)
	if p != nil && p.fresh() {
		m.noted("page", "hit")
	} else {
		if !wait(r.Context(), d.u.pages) {
			ref := limited(codeLookups, "this sandbox asks for packages too fast")
			s.refused(ref)
			ref.write(w)
			return
		}
		var err error
		if p, err = m.fetch(r.Context(), name, p); err != nil {
			m.noted("page", "failed")
			m.failed(w, s, "page", err)
			return
		}
	}
	if p.missing {
		http.Error(w, "the package index has no project "+name, http.StatusNotFound)
		return
	}
	body, ctype := p.html, "text/html; charset=utf-8" // with JSON, only if somebody wanted it before
	if p.json != nil {
		if accept := r.Header.Get("Accept"); strings.Contains(accept, "vnd.pypi.simple.v1+json") || strings.Contains(accept, "vnd.pypi.simple.latest+json") {
			body, ctype = p.json, typeJSON
		} else {
			var err error
			if body, err = m.pages.inHTML(name, p); err != nil {
				m.failed(w, s, "page", err)
				return
			}
		}
	}
	h := w.Header()
	h.Set("Content-Type", ctype)
	h.Set("Vary", "Accept")
	h.Set("ETag", `"`+p.tag+"-"+ctype[len(ctype)-4:]+`"`)
	h.Set("Cache-Control", "max-age=300")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// inHTML writes a page for those who do not take JSON, once.
func (ps *pages) inHTML(name string, p *page) ([]byte, error) {
	ps.read.Lock()
	defer ps.read.Unlock()
	if now := ps.get(name); now != nil && now.tag == p.tag {
		p = now
	}
	if p.html != nil {
		return p.html, nil
	}
	links, err := ownLinks(p.json)
	if err != nil {
		return nil, err
	}
	both := *p
	both.html = renderHTML(name, links)
	ps.put(name, &both)
	return both.html, nil
}

// fetch asks the index, once for all who want the page at that time.
func (m *mirror) fetch(ctx context.Context, name string, old *page) (*page, error) {
	ch := m.pages.once.DoChan(name, func() (any, error) {
		m.wg.Add(1)
		defer m.wg.Done()
		if p := m.pages.get(name); p != nil && p.fresh() {
			m.noted("page", "joined")
			return p, nil
		}
		ctx, cancel := context.WithTimeout(m.ctx, pageFetch)
		defer cancel()
		select {
		case m.pages.slots <- struct{}{}:
			defer func() { <-m.pages.slots }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p, err := m.ask(ctx, name, old)
		if err != nil {
			if old != nil && !old.missing && time.Since(old.at) < staleFor {
				m.noted("page", "stale")
				m.g.log.Warn("package index does not answer; an old page is used", "host", m.index.String(), "err", printable(err.Error(), 300))
				return old, nil
			}
			return nil, err
		}
		m.noted("page", "miss")
		m.pages.put(name, p)
		return p, nil
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*page), nil //nolint:errcheck,revive // the group makes nothing else
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *mirror) ask(ctx context.Context, name string, old *page) (*page, error) {
	header := http.Header{"Accept": {typeJSON + ", " + typeHTML + ";q=0.2, text/html;q=0.1"}}
	if old != nil && !old.missing {
		if old.etag != "" {
			header.Set("If-None-Match", old.etag)
		} else if old.modified != "" {
			header.Set("If-Modified-Since", old.modified)
		}
	}
	header.Set("Accept-Encoding", "identity")
	resp, err := m.get(ctx, http.MethodGet, m.base.JoinPath(name+"/"), header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		if old == nil {
			return nil, errors.New("not modified since never")
		}
		p := *old
		p.at = time.Now()
		return &p, nil
	case http.StatusNotFound, http.StatusGone:
		return &page{missing: true, at: time.Now()}, nil
	default:
		return nil, errors.New("status " + resp.Status)
	}
	b, err := readPage(resp)
	if err != nil {
		return nil, err
	}
	m.pages.read.Lock()
	defer m.pages.read.Unlock()
	p := &page{etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified"), at: time.Now()}
	ctype, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("content type: %w", err)
	}
	switch ctype {
	case typeJSON:
		if p.json, err = m.rewriteJSON(b, resp.Request.URL); err != nil {
			return nil, err
		}
	case typeHTML, "text/html":
		links, err := m.readHTML(b, resp.Request.URL)
		if err != nil {
			return nil, err
		}
		p.html = renderHTML(name, links)
	default:
		return nil, fmt.Errorf("content type %q", printable(ctype, 60))
	}
	body := p.json
	if body == nil {
		body = p.html
	}
	sum := sha256.Sum256(body)
	p.tag = hexOf(sum[:16])
	return p, nil
}

// readPage reads a body under the cap, without growing step by step.
func readPage(resp *http.Response) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, min(max(resp.ContentLength, 0), maxPage)+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(resp.Body, maxPage+1)); err != nil {
		return nil, err
	}
	if b.Len() > maxPage {
		return nil, fmt.Errorf("a page of more than %d bytes", maxPage)
	}
	return b.Bytes(), nil
}

// link is a file as pages name it.
type link struct {
	name, url string
	hash      string // "sha256=…"
	requires  string
	yanked    *string
	meta      string // "true" or "sha256=…"; "" if there is no metadata file
}

var (
	hashForm = regexp.MustCompile(`^[a-z0-9]{2,16}=[0-9a-f]{8,128}$`)
	fileForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+!-]{0,250}$`)
)

func sumOf(hash string) []byte {
	h, ok := strings.CutPrefix(hash, "sha256=")
	if !ok {
		return nil
	}
	b, err := hex.DecodeString(h)
	if err != nil || len(b) != sumSize {
		return nil
	}
	return b
}

// own makes a file's link lead to the mirror; "" if it is none to follow.
func (m *mirror) own(page *url.URL, raw string, sum, metaSum []byte) (name, to string, err error) {
	u, err := page.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(raw) > maxFileURL {
		return "", "", nil //nolint:nilerr // one bad link is left out
	}
	u.Fragment, u.RawFragment, u.User = "", "", nil
	name = path.Base(u.Path)
	if !fileForm.MatchString(name) || len(u.String()) > maxFileURL {
		return "", "", nil
	}
	token, err := m.token(u.String(), sum, metaSum)
	if err != nil {
		return "", "", err
	}
	return name, "../../files/" + token + "/" + url.PathEscape(name), nil
}

// rewriteJSON keeps all that the index says of files, but where they are.
func (m *mirror) rewriteJSON(b []byte, at *url.URL) ([]byte, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, err
	}
	var in []map[string]json.RawMessage
	if err := json.Unmarshal(top["files"], &in); err != nil {
		return nil, err
	}
	out := in[:0]
	for _, f := range in {
		var raw string
		var hashes map[string]string
		if json.Unmarshal(f["url"], &raw) != nil {
			continue
		}
		if len(f["hashes"]) > 0 && json.Unmarshal(f["hashes"], &hashes) != nil {
			continue
		}
		var metaSum []byte
		for _, k := range []string{"core-metadata", "dist-info-metadata", "data-dist-info-metadata"} {
			var sums map[string]string
			if json.Unmarshal(f[k], &sums) == nil && metaSum == nil {
				metaSum = sumOf("sha256=" + sums["sha256"])
			}
		}
		_, to, err := m.own(at, raw, sumOf("sha256="+hashes["sha256"]), metaSum)
		if err != nil {
			return nil, err
		}
		if to == "" {
			continue
		}
		if f["url"], err = json.Marshal(to); err != nil {
			return nil, err
		}
		delete(f, "gpg-sig")
		delete(f, "provenance")
		out = append(out, f)
	}
	var err error
	if top["files"], err = json.Marshal(out); err != nil {
		return nil, err
	}
	return json.Marshal(top)
}

// ownLinks reads a page that rewriteJSON made.
func ownLinks(b []byte) ([]link, error) {
	var p struct {
		Files []struct {
			Filename string
			URL      string
			Hashes   map[string]string
			Requires string          `json:"requires-python"`
			Yanked   json.RawMessage `json:"yanked"`
			Core     json.RawMessage `json:"core-metadata"`
			Dist     json.RawMessage `json:"data-dist-info-metadata"`
		}
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	links := make([]link, 0, len(p.Files))
	for _, f := range p.Files {
		l := link{name: f.Filename, url: f.URL, requires: f.Requires}
		if s := "sha256=" + f.Hashes["sha256"]; sumOf(s) != nil {
			l.hash = s
		}
		var why string
		var is bool
		if json.Unmarshal(f.Yanked, &why) == nil {
			l.yanked = &why
		} else if json.Unmarshal(f.Yanked, &is) == nil && is {
			l.yanked = new(string)
		}
		for _, raw := range []json.RawMessage{f.Core, f.Dist} {
			var sums map[string]string
			if json.Unmarshal(raw, &sums) == nil && sumOf("sha256="+sums["sha256"]) != nil {
				l.meta = "sha256=" + sums["sha256"]
			} else if json.Unmarshal(raw, &is) == nil && is && l.meta == "" {
				l.meta = "true"
			}
		}
		links = append(links, l)
	}
	return links, nil
}

// readHTML takes the links of a page, and nothing else.
func (m *mirror) readHTML(b []byte, at *url.URL) ([]link, error) {
	var links []link
	z := xhtml.NewTokenizer(bytes.NewReader(b))
	z.SetMaxBuf(1 << 20)
	for {
		switch z.Next() {
		case xhtml.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, err
			}
			return links, nil
		case xhtml.StartTagToken, xhtml.SelfClosingTagToken:
			tok := z.Token()
			attrs := make(map[string]string, len(tok.Attr))
			for _, a := range tok.Attr {
				attrs[a.Key] = a.Val
			}
			if tok.Data == "base" && attrs["href"] != "" {
				if u, err := at.Parse(attrs["href"]); err == nil {
					at = u
				}
			}
			if tok.Data != "a" || attrs["href"] == "" {
				continue
			}
			var l link
			_, fragment, _ := strings.Cut(attrs["href"], "#")
			if hashForm.MatchString(fragment) {
				l.hash = fragment
			}
			for _, k := range []string{"data-core-metadata", "data-dist-info-metadata"} {
				if v, ok := attrs[k]; ok && l.meta == "" && (v == "true" || hashForm.MatchString(v)) {
					l.meta = v
				}
			}
			l.requires = attrs["data-requires-python"]
			if why, ok := attrs["data-yanked"]; ok {
				l.yanked = &why
			}
			var err error
			if l.name, l.url, err = m.own(at, attrs["href"], sumOf(l.hash), sumOf(l.meta)); err != nil {
				return nil, err
			}
			if l.url != "" {
				links = append(links, l)
			}
		}
	}
}

// renderHTML is a page by PEP 503, with the attributes of PEP 592 and 714.
func renderHTML(project string, links []link) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.1\"><title>Links for %[1]s</title></head><body><h1>Links for %[1]s</h1>\n", html.EscapeString(project))
	attr := func(name, v string) {
		fmt.Fprintf(&b, " %s=\"%s\"", name, html.EscapeString(v))
	}
	for _, l := range links {
		to := l.url
		if l.hash != "" {
			to += "#" + l.hash
		}
		b.WriteString("<a")
		attr("href", to)
		if l.requires != "" {
			attr("data-requires-python", l.requires)
		}
		if l.yanked != nil {
			attr("data-yanked", *l.yanked)
		}
		if l.meta != "" {
			attr("data-dist-info-metadata", l.meta)
			attr("data-core-metadata", l.meta)
		}
		fmt.Fprintf(&b, ">%s</a><br>\n", html.EscapeString(l.name))
	}
	b.WriteString("</body></html>\n")
	return b.Bytes()
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
