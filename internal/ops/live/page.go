// Package live serves the data of the console: the health of all integrations, a sample
// of the events with their outcomes, partitions, and the newest dead letters.
//
// Each integration has an [EventLog]; an ops.Source has the state. A viewer polls one
// integration in the goroutine of its own request. A slow viewer misses events and
// delays nobody. Without viewers nothing runs.
package live

import (
	"context"
	"net/http"
	"net/url"
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
	ModeOff      = "off"      // no events; the state of integrations and partitions only
	ModeMetadata = "metadata" // names, ids and states; no values of fields
	ModeFull     = "full"     // also events and their rows
)

const base = ops.LivePath

// Config of a Page.
type Config struct {
	Mode string // one of the modes
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
	p := &Page{cfg: cfg, source: source, log: log, views: make(map[string]*view), reading: make(chan struct{}, 1), opening: make(chan struct{}, 1)}
	// Not a request's context: it ends all streams at once when the server closes.
	p.stopped, p.stop = context.WithCancel(context.Background()) //nolint:forbidigo // bounded by Stop
	return p
}

// handler serves the data on one listener.
type handler struct {
	http.Handler
	*Page
}

// Handler serves the data under ops.LivePath to those whom who admits. Several listeners
// may serve it, each with its own access control; when one stops, all streams end.
func (p *Page) Handler(who *access.Control) ops.Live { return handler{guarded(who, p.data(who)), p} }

// data returns the routes of the data.
func (p *Page) data(who *access.Control) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base+"{$}", redirect)
	mux.HandleFunc("GET "+base+"status", authenticated(who, p.serveStatus))
	mux.HandleFunc("GET "+base+"summary", authenticated(who, p.serveSummary))
	mux.HandleFunc("GET "+base+"members", authenticated(who, p.serveMembers))
	for pattern, handler := range map[string]func(*view, http.ResponseWriter, *http.Request){
		"GET " + base + "stream":                      p.serveStream(who),
		"GET " + base + "events":                      p.serveEvents,
		"GET " + base + "events/{id}":                 p.serveEvent,
		"GET " + base + "events/{partition}/{offset}": p.serveEventAt,
		"GET " + base + "config":                      p.serveConfig,
		"GET " + base + "history":                     p.serveHistory,
		"GET " + base + "partitions":                  p.servePartitions,
		"GET " + base + "dead-letters":                p.serveDeadLetters,
		"POST " + base + "dead-letters/dry-run":       p.serveDryRun,
	} {
		if p.cfg.Mode == ModeOff && (strings.Contains(pattern, "events") || strings.Contains(pattern, "stream") || strings.Contains(pattern, "dead-letters")) {
			handler = func(_ *view, w http.ResponseWriter, _ *http.Request) {
				fail(w, http.StatusNotFound, "events are not shown, because ops.live_events is off; set it to metadata or full")
			}
		}
		mux.HandleFunc(pattern, authenticated(who, p.viewing(handler)))
	}
	return mux
}

// redirect leads old addresses of the page to the console.
func redirect(w http.ResponseWriter, r *http.Request) {
	to := "/"
	if name := r.URL.Query().Get("integration"); name != "" {
		to = "/integrations/" + url.PathEscape(name)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// Events returns the event log of an integration, made on first use; nil in ModeOff. All
// logs together keep a bounded number of events and bytes of content.
func (p *Page) Events(integration string) *EventLog {
	if p.cfg.Mode == ModeOff {
		return nil
	}
	return p.view(integration).events
}

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

// guarded sets the headers of all responses and refuses requests that pages of other
// sites cause.
func guarded(who *access.Control, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if !who.Enabled() && !who.AllowsHost(r) {
			fail(w, http.StatusMisdirectedRequest, "this answers to localhost or an address only; set ops.token to reach it by name")
			return
		}
		if !sameSite(r) {
			fail(w, http.StatusForbidden, "the request comes from a page of another site; a proxy in between must pass on the Host header")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authenticated serves requests with the token.
func authenticated(who *access.Control, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := who.Authenticate(r)
		if v == access.Granted {
			next(w, r)
			return
		}
		status, why := v.Refusal(w.Header())
		if status == http.StatusUnauthorized {
			why += ", or sign in at /login"
		}
		fail(w, status, why)
	}
}

// sameSite reports whether a request comes from a page of this server or from no page. A
// page of another site could read no response, but cause work.
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
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.URL.Path == base
}
