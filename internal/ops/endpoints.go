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

// probes are the paths that Kubernetes, Docker and load balancers ask. They are
// answered whoever holds the connections, under any name and without a token.
var probes = []string{"/livez", "/healthz", "/health", "/readyz"}

// endpoints answers the requests. It keeps no state of its own.
type endpoints struct {
	source Source
	index  string
	live   bool
}

func newHandler(cfg Config, metrics *Metrics, source Source, log *zap.Logger) http.Handler {
	e := &endpoints{source: source, index: indexText}
	mux := http.NewServeMux()
	if cfg.Live != nil {
		e.index, e.live = e.index+indexLive, true
		mux.Handle(LivePath, cfg.Live)
		mux.Handle("GET "+strings.TrimSuffix(LivePath, "/"), http.RedirectHandler(LivePath, http.StatusSeeOther))
	}
	mux.HandleFunc("GET /{$}", e.serveIndex)
	mux.Handle("GET /metrics", ownHost(cfg.Access, limitResponses(metricsHandler(metrics, log))))
	for _, path := range []string{"/livez", "/healthz", "/health"} {
		mux.HandleFunc("GET "+path, e.serveLive)
	}
	mux.HandleFunc("GET /readyz", e.serveReady)
	mux.Handle("GET /status", e.private(cfg.Access, limitResponses(http.HandlerFunc(e.serveStatus))))
	if cfg.Pprof {
		e.index += indexPprof
		// /debug/pprof/cmdline is left out on purpose: a secret given as a
		// flag would be in it.
		mux.HandleFunc("GET /debug/pprof/", localOnly(pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", localOnly(pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/trace", localOnly(pprof.Trace))
		mux.HandleFunc("GET /debug/pprof/symbol", localOnly(pprof.Symbol))
	}
	return guard(mux)
}

// guard sets what holds for every answer, and keeps the reserve of connections
// for probes.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // pprof's index has inline style
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		probe := slices.Contains(probes, r.URL.Path)
		if onReserve(r) {
			h.Set("Connection", "close")
			if !probe {
				h.Set("Retry-After", "1")
				writeText(w, http.StatusServiceUnavailable, "all connections are in use, and what is left is for probes; try again in a second\n")
				return
			}
		}
		if probe {
			// A writer without deadlines, of a test, needs none.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(probeTimeout))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// ownHost refuses requests under a name that anybody can have resolve to this
// machine. No token guards these answers, so one makes no difference.
func ownHost(who *access.Control, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !who.AllowsHost(r) {
			writeText(w, http.StatusMisdirectedRequest, "this answers to localhost or an address only, because ops.address is on the loopback; ask 127.0.0.1, or have the proxy send it as Host\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// private lets in who knows the token, and, where there is none, does what ownHost
// does: as the page of live events.
func (e *endpoints) private(who *access.Control, next http.Handler) http.Handler {
	if !who.Enabled() {
		return ownHost(who, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := who.Authenticate(r); v != access.Granted {
			status, why := v.Refusal(w.Header())
			if e.live && status == http.StatusUnauthorized { // a session is of the page alone
				why += "; a browser that logs in at " + LivePath + "login has it as " + LivePath + "status"
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

// scrapeLog logs what promhttp reports: a scrape that could not be gathered or
// sent in full.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger. A peer that has gone, or was too slow, is not
// worth a warning: it could have one written each time.
func (l scrapeLog) Println(v ...any) {
	for _, part := range v {
		var broken net.Error
		if err, ok := part.(error); ok && errors.As(err, &broken) {
			l.log.Debug("metrics scrape was cut off", zap.Error(broken))
			return
		}
	}
	l.log.Warn("metrics scrape is incomplete", zap.String("cause", strings.TrimSpace(fmt.Sprintln(v...))))
}

const indexText = `bridge: Signal events from Kafka to Databricks Zerobus

/metrics   Prometheus metrics
/livez     200 while the poll loop is alive, else 503 (also /healthz, /health)
/readyz    200 while events are being delivered, else 503 with the reasons
/status    everything at a glance, as JSON; bridge status prints it
`

const indexLive = "/live/     live events, for a browser\n"

const indexPprof = "/debug/pprof/   Go profiles, for this machine only\n"

func (e *endpoints) serveIndex(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if e.live && strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, LivePath, http.StatusSeeOther)
		return
	}
	writeText(w, http.StatusOK, e.index)
}

func (e *endpoints) snapshot() Snapshot {
	s := e.source()
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	if s.Partitions == nil {
		s.Partitions = []consumer.PartitionStatus{} // [] in JSON
	}
	return s
}

func (e *endpoints) serveLive(w http.ResponseWriter, r *http.Request) {
	s := e.snapshot()
	status := http.StatusOK
	if !s.Live {
		status = http.StatusServiceUnavailable
	}
	if wantsJSON(r) {
		writeJSON(w, status, liveAnswer{Live: s.Live, Reason: s.LiveReason, LastPoll: s.LastPoll})
		return
	}
	var b strings.Builder
	if s.Live {
		b.WriteString("alive\n")
	} else {
		fmt.Fprintf(&b, "not alive: %s\n", s.LiveReason)
	}
	if !s.LastPoll.IsZero() {
		fmt.Fprintf(&b, "last poll %v ago\n", s.Time.Sub(s.LastPoll).Round(time.Millisecond))
	}
	writeText(w, status, b.String())
}

type liveAnswer struct {
	Live     bool      `json:"live"`
	Reason   string    `json:"reason,omitempty"`
	LastPoll time.Time `json:"last_poll,omitzero"`
}

func (e *endpoints) serveReady(w http.ResponseWriter, r *http.Request) {
	s := e.snapshot()
	status := http.StatusOK
	if !s.Ready {
		status = http.StatusServiceUnavailable
	}
	if wantsJSON(r) {
		if s.NotReady == nil {
			s.NotReady = []consumer.NotReady{}
		}
		writeJSON(w, status, Readiness{Ready: s.Ready, State: s.State, Reasons: s.NotReady})
		return
	}
	var b strings.Builder
	if s.Ready {
		b.WriteString("ready\n")
	} else {
		fmt.Fprintf(&b, "not ready (%s)\n", s.State)
		for _, reason := range s.NotReady {
			fmt.Fprintf(&b, "%s: %s\n", reason.Code, reason.Text)
			if reason.Remedy != "" {
				fmt.Fprintf(&b, "  remedy: %s\n", reason.Remedy)
			}
		}
	}
	writeText(w, status, b.String())
}

// Readiness is the JSON of /readyz.
type Readiness struct {
	Ready   bool                `json:"ready"`
	State   string              `json:"state"`
	Reasons []consumer.NotReady `json:"reasons"`
}

func (e *endpoints) serveStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, e.snapshot())
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

// wantsJSON says whether the Accept header names JSON. Probes send */* or
// nothing and get text.
func wantsJSON(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "application/json")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // a peer that has gone cannot be told
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		// Only Config is not ours; its error is not shown, it may quote a value.
		writeText(w, http.StatusInternalServerError, "the state could not be written as JSON\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(plaintext.AppendVisible(nil, body), '\n')) // curl shows it on a terminal
}
