package ops

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/plaintext"
)

// probes are the paths that Kubernetes, Docker and load balancers request. They need
// no token, allow any Host, and may use the reserve of connections.
var probes = []string{"/livez", "/healthz", "/health", "/readyz"}

// endpoints serves the requests. It has no state.
type endpoints struct {
	source  Source
	group   GroupSource // may be nil
	index   string
	console http.Handler // may be nil
}

func newHandler(cfg Config, metrics *Metrics, source Source, log *zap.Logger) http.Handler {
	e := &endpoints{source: source, group: cfg.Group, index: indexText, console: cfg.Console}
	mux := http.NewServeMux()
	if cfg.Live != nil {
		e.index += indexLive
		mux.Handle(LivePath, cfg.Live)
		mux.Handle("GET "+strings.TrimSuffix(LivePath, "/"), http.RedirectHandler(LivePath, http.StatusSeeOther))
	}
	if cfg.Console != nil {
		e.index += indexConsole
		mux.Handle("/", cfg.Console)
	}
	mux.HandleFunc("GET /{$}", e.serveIndex)
	mux.Handle("GET /metrics", allowedHost(cfg.Access, limitResponses(metricsHandler(metrics, log))))
	for _, path := range []string{"/livez", "/healthz", "/health"} {
		mux.HandleFunc("GET "+path, e.serveLive)
	}
	mux.HandleFunc("GET /readyz", e.serveReady)
	mux.Handle("GET /status", e.authenticated(cfg.Access, limitResponses(http.HandlerFunc(e.serveStatus))))
	if cfg.Pprof {
		e.index += indexPprof
		// Not /debug/pprof/cmdline, which would show a secret given as a flag.
		mux.HandleFunc("GET /debug/pprof/", localOnly(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", localOnly(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/trace", localOnly(pprof.Trace))
		mux.HandleFunc("GET /debug/pprof/symbol", localOnly(pprof.Symbol))
	}
	return guard(mux)
}

// guard sets the headers of all responses.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // pprof's index has inline style
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		probe := slices.Contains(probes, r.URL.Path)
		if probe {
			// A test's writer may have no deadlines.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(probeTimeout))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// allowedHost refuses requests with a Host that does not name this server.
func allowedHost(who *access.Control, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !who.AllowsHost(r) {
			writeText(w, http.StatusMisdirectedRequest, "this answers to localhost or an address only, because ops.address is on the loopback; ask 127.0.0.1, or have the proxy send it as Host\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authenticated serves requests with the token or, if none is configured, with an
// allowed Host, like the page of live events.
func (e *endpoints) authenticated(who *access.Control, next http.Handler) http.Handler {
	if !who.Enabled() {
		return allowedHost(who, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := who.Authenticate(r); v != access.Granted {
			status, why := v.Refusal(w.Header())
			if e.console != nil && status == http.StatusUnauthorized {
				why += ", or sign in at /login"
			}
			writeText(w, status, why+"\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func metricsHandler(metrics *Metrics, log *zap.Logger) http.Handler {
	return promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{
		ErrorLog:      scrapeLog{log},
		ErrorHandling: promhttp.ContinueOnError, // one bad series must not hide the others
	})
}

// scrapeLog logs scrapes that could not be gathered or sent in full.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger. Disconnected and slow peers cause no warning:
// they could cause one with each request.
func (l scrapeLog) Println(v ...any) {
	for _, part := range v {
		var broken net.Error
		if err, ok := part.(error); ok && errors.As(err, &broken) {
			l.log.Debug("metrics scrape was interrupted", zap.Error(broken))
			return
		}
	}
	l.log.Warn("metrics scrape is incomplete", zap.String("cause", strings.TrimSpace(fmt.Sprintln(v...))))
}

const indexText = `bridge: Signal events from Kafka to Databricks Zerobus

/metrics   Prometheus metrics
/livez     200 while the poll loop is alive, else 503 (also /healthz, /health)
/readyz    200 while events are being delivered, else 503 with the reasons
/status    the whole state as JSON; bridge status prints it. ?scope=group is that
           of all members of the deployment
`

const indexConsole = "/          the console, for a browser\n"

const indexLive = "/live/     the data of the console\n"

const indexPprof = "/debug/pprof/   Go profiles, for this machine only\n"

func (e *endpoints) serveIndex(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if e.console != nil && strings.Contains(r.Header.Get("Accept"), "text/html") {
		e.console.ServeHTTP(w, r)
		return
	}
	writeText(w, http.StatusOK, e.index)
}

func (e *endpoints) serveLive(w http.ResponseWriter, r *http.Request) {
	s := e.source()
	text := "alive\n"
	if !s.Live {
		text = fmt.Sprintf("not alive: %s\n", s.LiveReason)
	}
	polled := s.oldestPoll()
	if !polled.IsZero() {
		text += fmt.Sprintf("last poll %v ago\n", s.Time.Sub(polled).Round(time.Millisecond))
	}
	writeProbe(w, r, s.Live, text, liveness{Live: s.Live, Reason: s.LiveReason, LastPoll: polled})
}

// liveness is the JSON of /livez.
type liveness struct {
	Live     bool      `json:"live"`
	Reason   string    `json:"reason,omitempty"`
	LastPoll time.Time `json:"last_poll,omitzero"` // of the integration whose last poll is the longest ago
}

func (e *endpoints) serveReady(w http.ResponseWriter, r *http.Request) {
	s := e.source()
	text := "ready\n"
	if !s.Ready {
		text = fmt.Sprintf("not ready (%s)\n", s.State)
	}
	answer := s.bounded().readiness()
	answer.Enabled = s.readiness().Enabled
	for _, reason := range answer.Reasons {
		text += fmt.Sprintf("%s: %s\n", answer.label(reason), reason.Text)
		if reason.Remedy != "" {
			text += fmt.Sprintf("  remedy: %s\n", reason.Remedy)
		}
	}
	writeProbe(w, r, s.Ready, text, answer)
}

// Readiness is the JSON of /readyz.
type Readiness struct {
	Ready   bool                `json:"ready"`
	State   string              `json:"state"`
	Enabled int                 `json:"enabled"` // integrations
	Reasons []consumer.NotReady `json:"reasons"`
}

func (s Status) readiness() Readiness {
	r := Readiness{Ready: s.Ready, State: s.State, Reasons: append([]consumer.NotReady{}, s.NotReady...)} // [] in JSON
	for _, i := range s.Integrations {
		if i.State != StateDisabled {
			r.Enabled++
		}
	}
	return r
}

// label returns the code of a reason and, unless there is only the default
// integration, the integration that it is about.
func (r Readiness) label(reason consumer.NotReady) string {
	if reason.Integration == "" || r.Enabled <= 1 && reason.Integration == defaultIntegration {
		return reason.Code
	}
	return reason.Integration + ": " + reason.Code
}

// serveStatus serves the state of this process or, with scope=group, of the group; with
// integration, of that one alone.
func (e *endpoints) serveStatus(w http.ResponseWriter, r *http.Request) {
	var answer any
	ok := true
	integration := r.URL.Query().Get("integration")
	switch scope := r.URL.Query().Get("scope"); {
	case scope == "" || scope == ScopeProcess:
		s := e.source()
		if integration != "" {
			s, ok = s.Only(integration)
		}
		s = s.bounded()
		s.Integrations = withHistory(s.Integrations, r.URL.Query().Get("history") == "true")
		answer = s
	case scope == ScopeGroup && e.group != nil:
		s := e.group(r.Context())
		if integration != "" {
			s, ok = s.Only(integration)
		}
		answer = s
	default:
		writeText(w, http.StatusBadRequest, "scope must be process or group\n")
		return
	}
	if !ok {
		writeText(w, http.StatusNotFound, "there is no integration of this name; /status lists them\n")
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// PeerHistory is the factor of the steps of the histories in /status, which members
// show each other.
const PeerHistory = 3

// withHistory returns the integrations with their histories, in steps of 15 seconds, or
// without.
func withHistory(all []IntegrationStatus, shown bool) []IntegrationStatus {
	all = slices.Clone(all)
	for n := range all {
		if h := all[n].History; h != nil {
			if all[n].History = nil; shown {
				all[n].History = h.Coarse(PeerHistory)
			}
		}
	}
	return all
}

// localOnly serves requests of this machine alone: they come over the loopback and
// name it. Requests through `kubectl port-forward` and ssh tunnels do; those of a
// page in a browser that resolves its own name to 127.0.0.1 do not.
func localOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) || !loopback(r.Host) {
			writeText(w, http.StatusForbidden, "profiles are for this machine only; ask 127.0.0.1, through kubectl port-forward or an ssh tunnel\n")
			return
		}
		next(w, r)
	}
}

func loopback(address string) bool {
	host := access.HostOf(address)
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// writeProbe responds to a probe with 200 or 503: in JSON if the Accept header names
// it, otherwise with text.
func writeProbe(w http.ResponseWriter, r *http.Request, ok bool, text string, v any) {
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
	}
	if strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "application/json") {
		writeJSON(w, status, v)
		return
	}
	writeText(w, status, text)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // fails if the peer has disconnected
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		// Only Config can fail. The error may quote a value, so it is not shown.
		writeText(w, http.StatusInternalServerError, "the state could not be encoded as JSON\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(plaintext.AppendVisible(nil, body), '\n')) // curl shows it on a terminal
}
