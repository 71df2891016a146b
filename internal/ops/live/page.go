// Package live serves the page of live events. It shows the health, a sample of the
// events with their outcomes, and the newest dead letters.
//
// Each integration has an [EventLog]; an ops.Source has the state. A viewer polls one
// integration in the goroutine of its own request. A slow viewer misses events and
// delays nobody. Without viewers nothing runs.
package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
)

// Modes of the page.
const (
	ModeMetadata = "metadata" // names, ids and states; no values of fields
	ModeFull     = "full"     // also events and their rows
)

const base = ops.LivePath

// Config of a Page.
type Config struct {
	Mode string // ModeMetadata or ModeFull
	// Access authenticates viewers. Use that of the server, so that wrong tokens are
	// counted together. Default nil: everyone, under any name.
	Access *access.Control
	// Group returns the state of all members. Default nil: the page does not show it.
	Group ops.GroupSource
	// DeadLetters returns what reads the dead letters of an integration; nil if it has no
	// dead-letter topic.
	DeadLetters func(integration string) DeadLetters
}

// Page serves everything under ops.LivePath. It is safe for concurrent use.
type Page struct {
	cfg       Config
	source    ops.Source
	log       *zap.Logger
	own       http.Handler // with the page, for Config.Access
	state     stateCache
	summaries summaryCache
	forgot    atomic.Int64 // when Forget was called last, Unix nanoseconds: state is read again after that
	viewers   atomic.Int32 // of all integrations

	mu    sync.Mutex       // guards views
	views map[string]*view // by integration

	stopped context.Context // ends with Stop
	stop    context.CancelFunc
	reading chan struct{} // held by the one request that reads dead letters
	opening chan struct{} // held by the one request that builds the content of an event
}

// view is what the page shows of one integration.
type view struct {
	name   string
	events *EventLog
	epoch  string // identifies events in event ids
	state  viewCache
}

// New returns a page. It does no I/O and starts no goroutine.
func New(cfg Config, source ops.Source, log *zap.Logger) *Page {
	if cfg.Access == nil {
		cfg.Access = access.New(nil, false)
	}
	p := &Page{cfg: cfg, source: source, log: log, views: make(map[string]*view), reading: make(chan struct{}, 1), opening: make(chan struct{}, 1)}
	// Not a request's context: it ends all streams at once when the server closes.
	p.stopped, p.stop = context.WithCancel(context.Background()) //nolint:forbidigo // bounded by Stop
	mux := p.data(cfg.Access)
	mux.HandleFunc("GET "+base+"assets/{name}", serveAsset)
	mux.HandleFunc("GET "+base+"login", p.serveLogin)
	mux.HandleFunc("POST "+base+"login", p.login)
	mux.HandleFunc("POST "+base+"logout", p.logout)
	mux.HandleFunc("GET "+base+"{$}", authenticated(cfg.Access, func(w http.ResponseWriter, r *http.Request) { writeAsset(w, r, "page.html") }))
	p.own = guarded(cfg.Access, mux)
	return p
}

// Handler serves the data under ops.LivePath to those whom who admits, without the
// page. Several listeners may serve it, each with its own access control.
func (p *Page) Handler(who *access.Control) http.Handler { return guarded(who, p.data(who)) }

// data returns the routes of the data.
func (p *Page) data(who *access.Control) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base+"status", authenticated(who, p.serveStatus))
	mux.HandleFunc("GET "+base+"summary", authenticated(who, p.serveSummary))
	mux.HandleFunc("GET "+base+"members", authenticated(who, p.serveMembers))
	for pattern, handler := range map[string]func(*view, http.ResponseWriter, *http.Request){
		"GET " + base + "stream":                      p.serveStream(who),
		"GET " + base + "events":                      p.serveEvents,
		"GET " + base + "events/{id}":                 p.serveEvent,
		"GET " + base + "events/{partition}/{offset}": p.serveEventAt,
		"GET " + base + "config":                      p.serveConfig,
		"GET " + base + "group":                       p.serveGroup,
		"GET " + base + "history":                     p.serveHistory,
		"GET " + base + "partitions":                  p.servePartitions,
		"GET " + base + "dead-letters":                p.serveDeadLetters,
		"POST " + base + "dead-letters/dry-run":       p.serveDryRun,
	} {
		mux.HandleFunc(pattern, authenticated(who, p.viewing(handler)))
	}
	return mux
}

// Events returns the event log of an integration, made on first use. All logs together
// keep a bounded number of events and bytes of content.
func (p *Page) Events(integration string) *EventLog { return p.view(integration).events }

// Forget drops the event log of an integration that was removed.
func (p *Page) Forget(integration string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.views, integration)
	p.share()
	p.forgot.Store(time.Now().UnixNano()) // a state of before would bring the view back
}

// share divides the bounds among the logs. The caller holds p.mu.
func (p *Page) share() {
	for _, v := range p.views {
		v.events.share(len(p.views))
	}
}

func (p *Page) view(integration string) *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.views[integration]
	if v == nil {
		v = &view{name: integration, events: NewEventLog(p.cfg.Mode), epoch: strconv.FormatInt(time.Now().UnixNano(), 36)}
		p.views[integration] = v
		p.share()
	}
	return v
}

// viewing serves requests with the integration that the parameter of this name has,
// by default the first in /status.
func (p *Page) viewing(next func(*view, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		all, name := p.status().Integrations, r.URL.Query().Get("integration")
		if name == "" && len(all) > 0 {
			name = all[0].Integration
		}
		if !slices.ContainsFunc(all, func(i ops.IntegrationStatus) bool { return i.Integration == name }) {
			fail(w, http.StatusNotFound, "there is no integration of this name; "+strings.TrimSuffix(base, "/")+"/status lists them")
			return
		}
		next(p.view(name), w, r)
	}
}

// Stop ends all streams and prevents new ones.
func (p *Page) Stop() { p.stop() }

// ServeHTTP implements http.Handler: the page and its data, for Config.Access.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.own.ServeHTTP(w, r) }

// guarded sets the headers of all responses and refuses requests that pages of other
// sites cause.
func guarded(who *access.Control, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin") // with less, the login form would come from the origin "null"
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if !who.Enabled() && !who.AllowsHost(r) {
			fail(w, http.StatusMisdirectedRequest, "this page answers to localhost or an address only; set ops.token to reach it by name")
			return
		}
		if !sameSite(r) {
			fail(w, http.StatusForbidden, "the request comes from a page of another site; a proxy in between must pass on the Host header")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authenticated serves requests with the token. It redirects a browser that asks
// for the page to the login form.
func authenticated(who *access.Control, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := who.Authenticate(r)
		switch {
		case v == access.Granted:
			next(w, r)
		case v == access.NoToken && r.URL.Path == base:
			http.Redirect(w, r, base+"login", http.StatusSeeOther)
		default:
			status, why := v.Refusal(w.Header())
			if status == http.StatusUnauthorized {
				why += ", or log in at " + base + "login"
			}
			fail(w, status, why)
		}
	}
}

func (p *Page) serveLogin(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Access.Authenticate(r) == access.Granted {
		http.Redirect(w, r, base, http.StatusSeeOther)
		return
	}
	writeAsset(w, r, "login.html")
}

func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimSpace(r.PostFormValue("token"))
	_, v := p.cfg.Access.Login(r, token)
	if v == access.Granted {
		p.cfg.Access.StartSession(w, r, base, token)
		http.Redirect(w, r, base, http.StatusSeeOther)
		return
	}
	why := map[access.Verdict]string{access.WrongToken: "wrong", access.TooMany: "wait", access.Unreadable: "broken"}[v]
	http.Redirect(w, r, base+"login?"+why, http.StatusSeeOther)
}

func (p *Page) logout(w http.ResponseWriter, r *http.Request) {
	p.cfg.Access.EndSession(w, r, base)
	http.Redirect(w, r, base+"login", http.StatusSeeOther)
}

// sameSite reports whether a request comes from this page or from no page. A page of
// another site may only link here: it could read no response, but cause work.
// Browsers send Sec-Fetch-Site over TLS and to localhost; elsewhere they send Origin
// with everything but a plain GET.
func sameSite(r *http.Request) bool {
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

//go:embed assets
var assets embed.FS

// assetTag is the ETag of all assets.
var assetTag = func() string {
	sum := sha256.New()
	_ = fs.WalkDir(assets, ".", func(name string, d fs.DirEntry, _ error) error { // embedded files can be read
		if !d.IsDir() {
			content, _ := assets.ReadFile(name)
			_, _ = sum.Write(content)
		}
		return nil
	})
	return `"` + hex.EncodeToString(sum.Sum(nil)[:8]) + `"`
}()

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// serveAsset needs no token: the files contain nothing of this bridge.
func serveAsset(w http.ResponseWriter, r *http.Request) { writeAsset(w, r, r.PathValue("name")) }

// writeAsset serves a file. Browsers keep it and ask each time whether it changed.
func writeAsset(w http.ResponseWriter, r *http.Request, name string) {
	content, err := assets.ReadFile("assets/" + name)
	if err != nil {
		fail(w, http.StatusNotFound, "there is no such file")
		return
	}
	w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
	if path.Ext(name) != ".html" {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", assetTag)
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
