package ops_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
)

// Profiles are shown over the loopback under a name of the loopback, whatever
// the server listens on.
func TestProfilesAreForThisMachine(t *testing.T) {
	h := ops.New(ops.Config{Settings: ops.Settings{Pprof: true}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t)).Handler()
	for _, tt := range []struct {
		peer, host string
		want       int
	}{
		{"127.0.0.1:5000", "127.0.0.1:9400", http.StatusOK},
		{"127.0.0.1:5000", "localhost:9400", http.StatusOK},
		{"[::1]:5000", "[::1]:9400", http.StatusOK},
		{"[::1]:5000", "[::1]", http.StatusOK},
		{"10.0.0.7:5000", "127.0.0.1:9400", http.StatusForbidden},
		{"10.0.0.7:5000", "bridge:9400", http.StatusForbidden},
		{"[2001:db8::1]:5000", "localhost:9400", http.StatusForbidden},
		{"127.0.0.1:5000", "rebound.example:9400", http.StatusForbidden},
		{"127.0.0.1:5000", "", http.StatusForbidden},
		{"", "localhost", http.StatusForbidden},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=1", "/debug/pprof/symbol"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = tt.peer, tt.host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%s of %q from %q: got %d, want %d", path, tt.host, tt.peer, w.Code, tt.want)
			}
		}
		r := httptest.NewRequest(http.MethodGet, "/status", nil)
		r.RemoteAddr, r.Host = tt.peer, tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("/status of %q from %q: got %d, want 200", tt.host, tt.peer, w.Code)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		r := httptest.NewRequest(method, "/debug/pprof/symbol", nil)
		r.RemoteAddr, r.Host = "127.0.0.1:5000", "localhost:9400"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d, want 405", method, w.Code)
		}
	}
}

// Browsers get the console at / and on all paths that are not of the server; scripts get
// text.
func TestConsole(t *testing.T) {
	console := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "console "+r.URL.Path) })
	h := ops.New(ops.Config{Console: console}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t)).Handler()
	for _, tc := range []struct{ path, accept, want string }{
		{"/", "text/html,*/*", "console /"},
		{"/", "*/*", "the console, for a browser"},
		{"/members", "*/*", "console /members"},
		{"/console/app.js", "", "console /console/app.js"},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost"+tc.path, nil)
		r.Header.Set("Accept", tc.accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s with Accept %q: got %d %q, want %q", tc.path, tc.accept, w.Code, w.Body, tc.want)
		}
	}
}
