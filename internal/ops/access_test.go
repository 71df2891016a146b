package ops_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
)

const token = "a-token-of-some-length"

// Which names and tokens open what. Probes ask for neither.
func TestWhoMayReadWhat(t *testing.T) {
	known1 := func() (string, error) { return token, nil }
	unreadable := func() (string, error) { return "", errors.New("no such file: /secret/place") }
	right, other := "Bearer "+token, "Bearer another-token-of-some-length"
	for _, tt := range []struct {
		name                   string
		token                  func() (string, error)
		loopback               bool
		host, given            string
		metrics, status, probe int
	}{
		{"by address", nil, true, "127.0.0.1:9400", "", 200, 200, 200},
		{"by address, IPv6", nil, true, "[::1]:9400", "", 200, 200, 200},
		{"as localhost", nil, true, "localhost:9400", "", 200, 200, 200},
		{"by a forwarded address", nil, true, "10.0.0.7:9400", "", 200, 200, 200},
		{"by a name that was pointed here", nil, true, "evil.example:9400", "", 421, 421, 200},
		{"without a name", nil, true, "", "", 421, 421, 200},
		{"by name, reachable from elsewhere", nil, false, "bridge.monitoring.svc:9400", "", 200, 200, 200},
		{"as compose does", nil, false, "bridge:9400", "", 200, 200, 200},
		{"by pod address", nil, false, "10.244.0.17:9400", "", 200, 200, 200},

		{"without the token", known1, false, "bridge:9400", "", 200, 401, 200},
		{"with the token", known1, false, "bridge:9400", right, 200, 200, 200},
		{"with another token", known1, false, "bridge:9400", other, 200, 401, 200},
		{"with the token as password", known1, false, "bridge:9400", "Basic " + token, 200, 401, 200},
		{"without the token, by address", known1, true, "127.0.0.1:9400", "", 200, 401, 200},
		{"with the token, by address", known1, true, "127.0.0.1:9400", right, 200, 200, 200},
		{"with the token, by name", known1, true, "bridge.example", right, 421, 200, 200},
		{"without the token, by a name that was pointed here", known1, true, "evil.example:9400", "", 421, 401, 200},
		{"with a token that cannot be read", unreadable, false, "bridge:9400", right, 200, 503, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := ops.New(ops.Config{Access: access.New(tt.token, tt.loopback)}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t)).Handler()
			for path, want := range map[string]int{
				"/metrics": tt.metrics, "/status": tt.status, "/livez": tt.probe, "/healthz": tt.probe, "/health": tt.probe, "/readyz": tt.probe,
			} {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.Host = tt.host
				if tt.given != "" {
					r.Header.Set("Authorization", tt.given)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != want {
					t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, want)
				}
				if want == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
					t.Errorf("%s: 401 names no way to authenticate", path)
				}
				if strings.Contains(w.Body.String(), token) || want != 200 && strings.Contains(w.Body.String(), "/secret/") {
					t.Errorf("%s: the answer holds a secret: %s", path, w.Body)
				}
			}
		})
	}
}

// What a refusal advises works: there is a form only where there is a console.
func TestRefusalOfStatusAdvisesWhatWorks(t *testing.T) {
	for _, page := range []http.Handler{nil, http.NotFoundHandler()} {
		h := ops.New(ops.Config{Access: access.New(func() (string, error) { return token, nil }, false), Console: page},
			registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t)).Handler()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status", nil))
		said := w.Body.String()
		if w.Code != http.StatusUnauthorized || !strings.Contains(said, "bearer") ||
			strings.Contains(said, "/login") != (page != nil) {
			t.Errorf("with a page %v: got %d %q", page != nil, w.Code, said)
		}
	}
}

// The same limit holds on guesses at /status as on the page.
func TestGuessesAtTheStatusAreSlowedDown(t *testing.T) {
	h := ops.New(ops.Config{Access: access.New(func() (string, error) { return token, nil }, false)},
		registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t)).Handler()
	try := func(peer, given string) int {
		r := httptest.NewRequest(http.MethodGet, "/status", nil)
		r.RemoteAddr = peer
		r.Header.Set("Authorization", "Bearer "+given)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for range 10 {
		if got := try("10.0.0.7:5000", "guess"); got != http.StatusUnauthorized {
			t.Fatalf("a guess: got %d, want 401", got)
		}
	}
	if got := try("10.0.0.7:5001", token); got != http.StatusTooManyRequests {
		t.Errorf("after ten guesses: got %d, want 429", got)
	}
	if got := try("10.0.0.8:5000", token); got != http.StatusOK {
		t.Errorf("another peer: got %d, want 200", got)
	}
}
