package ops_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/ops"
)

// dial opens a connection and asks for /livez on it, leaving it open. It
// reports whether that was answered.
func dial(t *testing.T, address string) (net.Conn, bool) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return conn, false // closed already
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return conn, false
	}
	resp.Body.Close()
	return conn, resp.StatusCode == http.StatusOK
}

// A peer that takes all the connections it can leaves room for the probes of
// another, and gets its own room back when it lets go.
func TestConnectionsOfOnePeerAreBounded(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	address := strings.TrimPrefix(start(t, ops.Config{}, ops.NewMetrics(known), fixed(healthy()), zap.New(core)), "http://")
	var held []net.Conn
	for i := range ops.MaxConnsPerPeer {
		conn, answered := dial(t, address)
		if !answered {
			t.Fatalf("connection %d of %d was refused", i+1, ops.MaxConnsPerPeer)
		}
		held = append(held, conn)
	}
	for range 3 {
		if _, answered := dial(t, address); answered {
			t.Errorf("a connection above %d of one peer was served", ops.MaxConnsPerPeer)
		}
	}
	if got := logs.FilterMessageSnippet("too many at once").Len(); got != 1 {
		t.Errorf("got %d lines of refused connections, want 1", got)
	}
	// 127.0.0.2 is another peer where the whole of 127/8 is the loopback.
	other := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if conn, err := other.DialContext(t.Context(), "tcp", address); err == nil {
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Errorf("another peer got %v, want its probe answered", err)
		} else {
			resp.Body.Close()
		}
	}
	for _, conn := range held {
		conn.Close()
	}
	served := func() bool { _, answered := dial(t, address); return answered }
	for deadline := time.Now().Add(30 * time.Second); !served(); {
		if time.Now().After(deadline) {
			t.Fatal("no connection is served after the peer let go of all of its own")
		}
	}
}

// Profiles are shown over the loopback under a name of the loopback, whatever
// the server listens on.
func TestProfilesAreForThisMachine(t *testing.T) {
	h := ops.New(ops.Config{Pprof: true}, ops.NewMetrics(known), fixed(healthy()), zaptest.NewLogger(t)).Handler()
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
