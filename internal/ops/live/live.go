// Package live is the page of live events that the ops server shows: health at
// a glance, a sample of the events that pass, with what became of each, and
// the newest dead letters.
//
// Like package ops it knows nothing of Kafka, blueprints or Zerobus. Events come
// through a [Feed], the state through an ops.Source.
//
// Nothing here runs while nobody looks: a viewer's request is the only goroutine
// that works for it, and it reads the feed when it comes round. A viewer that is
// slow misses events; it holds up nobody.
package live

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
)

// What the page may show.
const (
	ModeMetadata = "metadata" // names, ids and states; no value of a field
	ModeFull     = "full"     // the events and their rows as well
)

const base = ops.LivePath

// Config of a Page.
type Config struct {
	Mode string // ModeMetadata or ModeFull
	// Access says who may look; the server's own, so that wrong tokens are counted
	// together. Default nil: everyone, under any name.
	Access *access.Control
	// Letters reads dead letters; nil where there are none to read.
	Letters Letters
}

// Page serves everything under ops.LivePath. It is safe for concurrent use.
type Page struct {
	cfg    Config
	feed   *Feed
	source ops.Source
	counts *ops.IntegrationMetrics
	log    *zap.Logger
	access *access.Control
	mux    *http.ServeMux
	board  board

	stopped context.Context // ends with Stop
	stop    context.CancelFunc
	reading chan struct{} // admits one reader of dead letters at a time
	opening chan struct{} // admits one at a time to the content of an event
	epoch   string        // tells this process from the one before, in event ids
}

// New makes a page. It does no I/O and starts no goroutine.
func New(cfg Config, feed *Feed, source ops.Source, counts *ops.IntegrationMetrics, log *zap.Logger) *Page {
	if cfg.Access == nil {
		cfg.Access = access.New(nil, false)
	}
	p := &Page{cfg: cfg, feed: feed, source: source, counts: counts, log: log, access: cfg.Access,
		reading: make(chan struct{}, 1), opening: make(chan struct{}, 1), epoch: strconv.FormatInt(time.Now().UnixNano(), 36)}
	// Not a request's context: it ends all streams at once when the server closes.
	p.stopped, p.stop = context.WithCancel(context.Background()) //nolint:forbidigo // bounded by Stop
	p.mux = http.NewServeMux()
	p.mux.HandleFunc("GET "+base+"{$}", p.private(p.servePage))
	p.mux.HandleFunc("GET "+base+"assets/{name}", p.serveAsset)
	p.mux.HandleFunc("GET "+base+"login", p.serveLogin)
	p.mux.HandleFunc("POST "+base+"login", p.takeLogin)
	p.mux.HandleFunc("POST "+base+"logout", p.takeLogout)
	p.mux.HandleFunc("GET "+base+"stream", p.private(p.serveStream))
	p.mux.HandleFunc("GET "+base+"events", p.private(p.serveEvents))
	p.mux.HandleFunc("GET "+base+"events/{id}", p.private(p.serveEvent))
	p.mux.HandleFunc("GET "+base+"status", p.private(p.serveStatus))
	p.mux.HandleFunc("GET "+base+"config", p.private(p.serveConfig))
	p.mux.HandleFunc("GET "+base+"letters", p.private(p.serveLetters))
	p.mux.HandleFunc("POST "+base+"letters/trial", p.private(p.serveTrial))
	return p
}

// Stop ends all streams and lets no new one begin.
func (p *Page) Stop() { p.stop() }

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin") // with less, the login form would come from the origin "null"
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if !p.access.Enabled() && !p.access.AllowsHost(r) {
		fail(w, http.StatusMisdirectedRequest, "this page answers to localhost or an address only; set ops.token to reach it by name")
		return
	}
	if !ownSite(r) {
		fail(w, http.StatusForbidden, "the request comes from a page of another site; a proxy in between has to hand on the Host header")
		return
	}
	p.mux.ServeHTTP(w, r)
}

// private lets in who knows the token. A browser that asks for the page is sent
// to the login form.
func (p *Page) private(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch v := p.access.Authenticate(r); {
		case v == access.Granted:
			next(w, r)
		case v == access.NoToken && r.URL.Path == base:
			http.Redirect(w, r, base+"login", http.StatusSeeOther)
		default:
			refuse(w, v)
		}
	}
}

// refuse answers a request that is not let in.
func refuse(w http.ResponseWriter, v access.Verdict) {
	status, why := v.Refusal(w.Header())
	if status == http.StatusUnauthorized {
		why += ", or log in at " + base + "login"
	}
	fail(w, status, why)
}

func (p *Page) serveLogin(w http.ResponseWriter, r *http.Request) {
	if p.access.Authenticate(r) == access.Granted {
		http.Redirect(w, r, base, http.StatusSeeOther)
		return
	}
	writeAsset(w, r, "login.html")
}

func (p *Page) takeLogin(w http.ResponseWriter, r *http.Request) {
	v := p.access.Login(r, strings.TrimSpace(r.PostFormValue("token")))
	if v == access.Granted {
		p.access.StartSession(w, r, base)
		http.Redirect(w, r, base, http.StatusSeeOther)
		return
	}
	// A form without script has no other way to hear it than the next page.
	why := map[access.Verdict]string{access.WrongToken: "wrong", access.TooMany: "wait", access.Unreadable: "broken"}[v]
	http.Redirect(w, r, base+"login?"+why, http.StatusSeeOther)
}

func (p *Page) takeLogout(w http.ResponseWriter, r *http.Request) {
	p.access.EndSession(w, r, base)
	http.Redirect(w, r, base+"login", http.StatusSeeOther)
}

// ownSite tells requests of this page, and of what is no page, from those that
// a page of another site makes: it could read none of the answers, but make the
// bridge work. All it may do is link here. Browsers say Sec-Fetch-Site over TLS
// and to localhost, and elsewhere an Origin with what is not a plain GET.
func ownSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		origin := r.Header.Get("Origin")
		from, err := url.Parse(origin)
		return origin == "" || err == nil && from.Host != "" && (from.Host == r.Host || from.Host == r.Header.Get("X-Forwarded-Host"))
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && (r.URL.Path == base || r.URL.Path == base+"login")
}
