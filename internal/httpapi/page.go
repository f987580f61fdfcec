package httpapi

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pagePolicy is what the page may do: run and load what came with it, and talk
// to this server. No inline scripts or styles: what an output or a message
// smuggles into the page stays text. Images, sound and film of outputs come as
// data: or blob:.
const pagePolicy = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
	"media-src 'self' data: blob:; font-src 'self'; frame-src 'self'; connect-src 'self'; worker-src 'self'; object-src 'none'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageFeatures are those of the browser that the page has no use for.
const pageFeatures = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), " +
	"magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), xr-spatial-tracking=()"

// pageFiles serves the built page. Its names are stable, so browsers ask each
// time and mostly learn that nothing changed.
type pageFiles struct {
	files fs.FS
	live  bool     // files change: read them each time
	cache sync.Map // name → *pageFile
}

// pageFile is one file, ready to be sent.
type pageFile struct {
	body, gzip []byte // gzip is nil where it saves nothing
	etag       string // without quotes
	mediaType  string
}

// has tells whether there is a page at all.
func (p *pageFiles) has() bool { return p.files != nil }

func (p *pageFiles) load(name string) (*pageFile, error) {
	if f, ok := p.cache.Load(name); ok && !p.live {
		return f.(*pageFile), nil //nolint:forcetypeassert // nothing else is stored
	}
	body, err := fs.ReadFile(p.files, name)
	if err != nil {
		return nil, err
	}
	f := &pageFile{body: body, etag: strings.Trim(etagOf(body), `"`), mediaType: mediaTypeOf(name)}
	if compressible(f.mediaType) {
		var buf bytes.Buffer
		zw, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level exists
		_, _ = zw.Write(body)                                    // a buffer takes all
		_ = zw.Close()
		if buf.Len() < len(body)*9/10 {
			f.gzip = buf.Bytes()
		}
	}
	if !p.live {
		p.cache.Store(name, f)
	}
	return f, nil
}

// mediaTypeOf has the types of what the page is built of, so that no file of
// the host's (/etc/mime.types) decides them.
func mediaTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json", ".ipynb":
		return "application/json"
	case ".csv":
		return "text/csv; charset=utf-8"
	case ".woff2":
		return "font/woff2"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func compressible(mediaType string) bool {
	return strings.HasPrefix(mediaType, "text/") || mediaType == "image/svg+xml" || mediaType == "application/json"
}

func (p *pageFiles) serve(w http.ResponseWriter, r *http.Request, name string) bool {
	f, err := p.load(name)
	if err != nil {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	body, etag := f.body, f.etag
	if f.gzip != nil && acceptsGzip(r) && r.Header.Get("Range") == "" {
		body, etag = f.gzip, f.etag+"-gz"
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	h.Set("Etag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	return true
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(name, "gzip") || name == "*" {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(quality), "q="), 64)
			return err != nil || q > 0
		}
	}
	return false
}

// pageRoutes serves the page. None of it is secret: it asks for the token when
// the API refuses it.
func (a *API) pageRoutes() {
	a.page = &pageFiles{files: a.opts.Page, live: a.opts.PageLive}
	if !a.page.has() {
		return
	}
	a.mux.HandleFunc("GET /s/{session}", a.index)
	a.mux.HandleFunc("GET /assets/{name...}", func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; sandbox") // opened by itself, a file is no page
		if !a.page.serve(w, r, path.Join("assets", path.Clean("/"+r.PathValue("name")))) {
			http.NotFound(w, r)
		}
	})
	a.mux.HandleFunc("GET /frame/", frameFiles(a.page))
}

// isPage tells what needs no token: the page, and what it is built of.
func (a *API) isPage(r *http.Request) bool {
	p := r.URL.Path
	return a.page.has() && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		(p == "/" || strings.HasPrefix(p, "/s/") || strings.HasPrefix(p, "/assets/") || strings.HasPrefix(p, "/frame/"))
}

// wantsPage tells whether a browser asks for /, where programs get the
// original's answer.
func (a *API) wantsPage(r *http.Request) bool {
	return a.page.has() && r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		strings.Contains(r.Header.Get("Accept"), "text/html")
}

// index answers with the page. With a token in the address, as the server
// prints it, the token becomes a cookie and leaves the address.
func (a *API) index(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Permissions-Policy", pageFeatures)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	query := r.URL.Query()
	if query.Has("token") {
		token := query.Get("token")
		query.Del("token")
		to := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
		if a.opts.Accounts == nil && (a.opts.AuthNone || a.tokenGood(token)) {
			a.setCookie(w, r)
		} else {
			to.Fragment = "token-refused" // the page says so
		}
		// A path that begins with two slashes would name another server.
		to.Path = "/" + strings.TrimLeft(to.Path, "/")
		http.Redirect(w, r, to.String(), http.StatusSeeOther)
		return
	}
	if !a.page.serve(w, r, "index.html") {
		http.Error(w, "The page is not built: run make web.", http.StatusNotFound)
	}
}
