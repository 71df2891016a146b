package ops

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/plaintext"
)

// endpoints answers the requests. It keeps no state of its own.
type endpoints struct {
	metrics *Metrics
	source  Source
	index   string
	live    bool
}

func newHandler(cfg Config, metrics *Metrics, source Source, log *zap.Logger) http.Handler {
	e := &endpoints{metrics: metrics, source: source, index: indexText}
	mux := http.NewServeMux()
	if cfg.Live != nil {
		e.index, e.live = e.index+indexLive, true
		mux.Handle(LivePath, cfg.Live)
		mux.Handle("GET "+strings.TrimSuffix(LivePath, "/"), http.RedirectHandler(LivePath, http.StatusSeeOther))
	}
	mux.HandleFunc("GET /{$}", e.serveIndex)
	mux.Handle("GET /metrics", metricsHandler(metrics, source, log))
	for _, path := range []string{"/livez", "/healthz", "/health"} {
		mux.HandleFunc("GET "+path, e.serveLive)
	}
	mux.HandleFunc("GET /readyz", e.serveReady)
	mux.HandleFunc("GET /status", atOnce(4, e.serveStatus))
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

// guard sets what holds for every answer.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'") // pprof's index has inline style
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// metricsHandler gathers the counters and, from one snapshot, the gauges.
func metricsHandler(metrics *Metrics, source Source, log *zap.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer(metrics, source), promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{log},
		ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
		MaxRequestsInFlight: 4,
	})
}

func gatherer(metrics *Metrics, source Source) prometheus.Gatherer {
	gauges := prometheus.NewRegistry()
	gauges.MustRegister(newSnapshotCollector(source))
	return prometheus.Gatherers{metrics.registry, gauges}
}

// scrapeLog logs what promhttp reports: a scrape that could not be gathered or
// sent in full.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
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
		s.Partitions = []PartitionStatus{} // [] in JSON
	}
	s.Totals = e.metrics.Totals()
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
			s.NotReady = []Reason{}
		}
		writeJSON(w, status, readyAnswer{Ready: s.Ready, State: s.State, Reasons: s.NotReady})
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

type readyAnswer struct {
	Ready   bool     `json:"ready"`
	State   string   `json:"state"`
	Reasons []Reason `json:"reasons"`
}

func (e *endpoints) serveStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, e.snapshot())
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
