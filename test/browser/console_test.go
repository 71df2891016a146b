package browser_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/ops/access"
)

// fixture serves the console with answers of a test instead of a bridge.
type fixture struct {
	*httptest.Server
	mu      sync.Mutex // guards the rest
	answers map[string]any
	asked   []string // method and path of the requests for data

	cut     atomic.Bool // no request is answered
	version atomic.Value
}

// newFixture starts a server. answers are JSON values by path, or by method and path, or
// handlers.
func newFixture(t *testing.T, who access.Identity, admin bool, answers map[string]any) (*fixture, *page) {
	t.Helper()
	f := serveFixture(t, access.NewControl(nil, who, true), admin, answers)
	return f, &page{t: t, ctx: chromium(t), s: &stage{t: t, address: f.address()}}
}

func (f *fixture) address() string { return strings.TrimPrefix(f.URL, "http://") }

// serveFixture starts a server without a browser.
func serveFixture(t *testing.T, who *access.Control, admin bool, answers map[string]any) *fixture {
	t.Helper()
	f := &fixture{answers: answers}
	f.version.Store("v1.4.0")
	pages := console.New(console.Config{Access: who, Admin: admin,
		Facts: func() console.Facts {
			return console.Facts{Deployment: "prod-eu", Version: f.version.Load().(string), Mode: "metadata"}
		}})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		if !strings.HasPrefix(r.URL.Path, "/live/") && !strings.HasPrefix(r.URL.Path, "/v1/") {
			pages.ServeHTTP(w, r)
			return
		}
		f.mu.Lock()
		f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
		answer, ok := f.answers[r.Method+" "+r.URL.Path]
		if !ok {
			answer, ok = f.answers[r.URL.Path]
		}
		f.mu.Unlock()
		if h, is := answer.(func(http.ResponseWriter, *http.Request)); is {
			h(w, r)
			return
		}
		if !ok {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]any{"error": map[string]any{"code": "NOT_FOUND", "message": "the test has no answer for " + r.URL.Path}}
		}
		writeJSON(w, answer)
	}))
	t.Cleanup(f.Close)
	return f
}

func writeJSON(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // fails if the page has gone
}

// set changes an answer.
func (f *fixture) set(path string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = answer
}

// watch has every document note what goes wrong in it: exceptions, violations of the
// policy, files that could not be read, and console.error.
const watch = `(() => {
  const all = window.complaints = [];
  addEventListener("securitypolicyviolation", (e) => all.push("policy: " + e.violatedDirective + " " + e.blockedURI + " " + e.sourceFile + ":" + e.lineNumber));
  addEventListener("error", (e) => all.push("error: " + (e.message || (e.target && (e.target.src || e.target.href)))), true);
  addEventListener("unhandledrejection", (e) => all.push("rejection: " + (e.reason && e.reason.stack || e.reason)));
  const error = console.error;
  console.error = (...args) => { all.push("console: " + args.map((a) => a && a.stack || a).join(" ")); error(...args); };
})()`

// watched watches all documents that the page opens from now on.
func (p *page) watched() {
	p.t.Helper()
	p.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
		return err
	}))
}

// quiet fails if something went wrong in the document.
func (p *page) quiet(where string) {
	p.t.Helper()
	for _, complaint := range js[[]string](p, "window.complaints") {
		p.t.Errorf("%s: %s", where, complaint)
	}
}

// row of the summary of an integration.
func summaryRow(slug, state, level, text string, lag int64) map[string]any {
	var rows, lags []float64
	for i := range 90 {
		rows = append(rows, float64(300+(i*37)%120))
		lags = append(lags, float64(lag)*float64(i)/90)
	}
	return map[string]any{
		"integration": slug, "name": slug, "table": "datafly.events." + strings.ReplaceAll(slug, "-", "_"), "state": state,
		"verdict": map[string]any{"level": level, "text": text, "remedy": "GRANT MODIFY ON TABLE datafly.events.orders TO `00000000-0000-0000-0000-000000000000`", "since": "2026-03-01T11:55:50Z"},
		"lag":     lag, "lag_change": 3, "seconds_behind": 0.1, "rows_per_second": 377.4, "ack_p99_seconds": 0.254, "reject_share": 0.016, "dead_letters": 106,
		"history": map[string]any{"step_seconds": 10, "rows_per_second": rows, "lag": lags},
	}
}

func summary(rows ...map[string]any) map[string]any {
	return map[string]any{"deployment": "prod-eu", "members": 3, "time": "2026-03-01T12:00:00Z", "integrations": rows}
}

func several() map[string]any {
	return summary(
		summaryRow("web", "delivering", "ok", "keeping up", 48),
		summaryRow("mobile", "catching_up", "ok", "catching up", 1_200_000),
		summaryRow("orders-eu", "blocked", "error", "is missing MODIFY on datafly.events.orders", 18_204),
		summaryRow("crm", "falling_behind", "warning", "the lag grows for 2 min", 9_204),
		summaryRow("old", "disabled", "off", "", -1),
	)
}

func admin() access.Identity { return access.Identity{Name: "ann", Role: access.Admin} }

func TestConsoleHome(t *testing.T) {
	_, p := newFixture(t, admin(), true, map[string]any{"/live/summary": several()})
	p.watched()
	p.inspect("/", "document.querySelectorAll('main tr[data-row]').length === 5", func(look string) {
		p.click(".banner button")
		p.text(".banner", "GRANT MODIFY")
		p.picture("console-home-" + look)
	})
	p.look(1440, 520, "light")
	p.visit("/")
	p.text("main", "orders-eu")
	p.picture("console-home")
	p.look(390, 900, "dark")

	// The search must find what it is for.
	p.do(`document.querySelector("main").append(Object.assign(document.createElement("button"), { innerText: "" }), Object.assign(document.createElement("p"), { innerText: "wide".repeat(200) }))`)
	p.do(`document.querySelector("main h1").setAttribute("class", "muted"), document.querySelector("main h1").style.color = "#555"`)
	if got := strings.Join(append(p.violations(), js[[]string](p, cutOff)...), "\n"); !strings.Contains(got, "button-name") || !strings.Contains(got, "color-contrast") || !strings.Contains(got, "wider than the window") {
		t.Errorf("got %s of a page with faults, want a nameless button, a dim heading and a text that sticks out", got)
	}
}
