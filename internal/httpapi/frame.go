package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

// framePolicy is what the document of a frame may do: run what was written into
// it and draw it, from what it brings along. It may load nothing, from nowhere,
// and tell nobody anything. The sandbox directive makes its origin nobody's
// also where it is opened without the page's iframe around it.
//
// docs/adr/0007-outputs-in-a-frame.md says why each part is there.
const framePolicy = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; " +
	"img-src data: blob:; media-src data: blob:; font-src data:; connect-src 'none'; worker-src 'none'; frame-src 'none'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'self'"

// frameConnections names the servers that a frame may connect to, by whatever
// means: none. The policy above does not know WebRTC, which would carry an
// output's data past it; browsers that know this header hold it back also in
// documents that an output makes inside of its own.
const frameConnections = "()"

// frameFeatures are those of the browser that a frame could use without asking.
const frameFeatures = "accelerometer=(), autoplay=(), camera=(), clipboard-read=(), clipboard-write=(), " +
	"display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), geolocation=(), gyroscope=(), hid=(), " +
	"idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), " +
	"publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), usb=(), xr-spatial-tracking=()"

// frameFiles serves what the frames of outputs are made of, from the folder
// frame/ of the built page. Nothing of it is secret, so it needs no token.
func frameFiles(page *pageFiles) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/frame/")
		document := name == ""
		if document {
			name = "index.html"
		}
		if !document && (path.Ext(name) != ".js" || strings.Contains(name, "/")) {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Referrer-Policy", "no-referrer")
		if document {
			h.Set("Content-Security-Policy", framePolicy)
			h.Set("Connection-Allowlist", frameConnections)
			h.Set("Permissions-Policy", frameFeatures)
			h.Set("X-DNS-Prefetch-Control", "off")
		} else {
			// A library is text that the page fetches; a frame can't.
			h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
		}
		if !page.serve(w, r, path.Join("frame", name)) {
			http.NotFound(w, r)
		}
	}
}

// framed tells whether an output sent its frame here. The page's own frames
// come from this origin; a sandboxed document belongs to none. It would come
// without the cookie anyway, and its reader could do nothing with the answer:
// this is one wall more, for where no cookie is needed.
func framed(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "iframe", "frame", "embed", "object", "fencedframe":
		site := r.Header.Get("Sec-Fetch-Site")
		return site != "same-origin" && site != "none"
	}
	return false
}

func etagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
