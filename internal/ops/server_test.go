package ops_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/ops"
)

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	s := ops.New(ops.Config{Settings: ops.Settings{Address: address}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	err = s.Start(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("Start: got %v, want address in use", err)
	}
	for _, want := range []string{address, "ops.address", "free port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close after a failed Start: %v", err)
	}
}

func TestAddressesNobodyCanListenOn(t *testing.T) {
	for _, address := range []string{"9400", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:http:1", "192.0.2.1:9400"} {
		s := ops.New(ops.Config{Settings: ops.Settings{Address: address}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
		err := s.Start(t.Context())
		if err == nil {
			_ = s.Close(t.Context())
			t.Errorf("%s: Start succeeded", address)
			continue
		}
		if !strings.Contains(err.Error(), "ops.address") || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: error %q names not both the key and the address", address, err)
		}
	}
}

func TestServerOutlivesTheContextOfStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := ops.New(ops.Config{Settings: ops.Settings{Address: "127.0.0.1:0", Pprof: true}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	cancel() // as SIGTERM does; the bridge drains from here on
	began := time.Now()
	if got := ask(t, http.MethodGet, "http://"+s.Addr()+"/debug/pprof/trace?seconds=0.05"); got.status != http.StatusOK {
		t.Errorf("a trace while draining: got %d, want 200", got.status)
	}
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("a trace of 50ms while draining ended after %v", took)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Errorf("%s still listens after Close", s.Addr())
	}
}

func TestAddrBeforeStartIsTheConfiguredOne(t *testing.T) {
	for configured, want := range map[string]string{"": "127.0.0.1:9400", ":9400": ":9400"} {
		s := ops.New(ops.Config{Settings: ops.Settings{Address: configured}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
		if got := s.Addr(); got != want {
			t.Errorf("Address %q: got %q, want %q", configured, got, want)
		}
	}
}

func TestCloseLetsARequestFinish(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := ops.New(ops.Config{Settings: ops.Settings{Address: "127.0.0.1:0"}}, ops.NewMetrics("", nil, true), func() ops.Status {
		close(entered)
		<-release
		return healthy()
	}, zaptest.NewLogger(t))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan answer, 1)
	go func() { answered <- ask(t, http.MethodGet, "http://"+s.Addr()+"/status") }()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	close(release)
	if got := <-answered; got.status != http.StatusOK {
		t.Errorf("request in flight: got %d, want 200", got.status)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestCloseCutsOffWhatTakesTooLong(t *testing.T) {
	s := ops.New(ops.Config{Settings: ops.Settings{Address: "127.0.0.1:0", Pprof: true}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// While a body is outstanding net/http does not notice that a connection
	// has gone, so it is the server that has to end this request.
	const request = "GET /debug/pprof/goroutine?seconds=600 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	for !handlerRuns(t) {
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = s.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), s.Addr()) {
		t.Errorf("Close: got %v, want the deadline's error naming %s", err, s.Addr())
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if handlerRuns(t) {
		t.Error("the handler is still running after Close")
	}
}

// handlerRuns reports whether a goroutine is inside the handler that waits for a
// delta profile.
func handlerRuns(t *testing.T) bool {
	t.Helper()
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(stacks.String(), "serveDeltaProfile")
}

func TestPprofIsBehindItsSwitch(t *testing.T) {
	m := registry(fixed(healthy()))
	off := start(t, ops.Config{}, m, fixed(healthy()), zaptest.NewLogger(t))
	on := start(t, ops.Config{Settings: ops.Settings{Pprof: true}}, m, fixed(healthy()), zaptest.NewLogger(t))
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=1", "/debug/pprof/symbol"} {
		if got := ask(t, http.MethodGet, off+path); got.status != http.StatusNotFound {
			t.Errorf("%s without the switch: got %d, want 404", path, got.status)
		}
		if got := ask(t, http.MethodGet, on+path); got.status != http.StatusOK {
			t.Errorf("%s with the switch: got %d, want 200", path, got.status)
		}
	}
	for _, path := range []string{"/debug/pprof/cmdline", "/debug/vars"} {
		if got := ask(t, http.MethodGet, on+path); got.status != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, got.status)
		}
	}
	if got := ask(t, http.MethodGet, off+"/").body; strings.Contains(got, "pprof") {
		t.Errorf("the index names pprof while it is off:\n%s", got)
	}
	if got := ask(t, http.MethodGet, on+"/").body; !strings.Contains(got, "/debug/pprof/") {
		t.Errorf("the index does not name pprof while it is on:\n%s", got)
	}
}

func TestMethodsHeadersAndUnknownPaths(t *testing.T) {
	url := start(t, ops.Config{}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	paths := []string{"/", "/metrics", "/livez", "/healthz", "/health", "/readyz", "/status"}
	for _, path := range paths {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, "BREW"} {
			got := ask(t, method, url+path)
			if got.status != http.StatusMethodNotAllowed || !strings.Contains(got.header.Get("Allow"), "GET") {
				t.Errorf("%s %s: got %d, Allow %q; want 405, GET", method, path, got.status, got.header.Get("Allow"))
			}
		}
		if got := ask(t, http.MethodHead, url+path); got.status != http.StatusOK || got.body != "" {
			t.Errorf("HEAD %s: got %d with %d bytes, want 200 with none", path, got.status, len(got.body))
		}
	}
	for _, path := range append(paths, "/nowhere") {
		h := ask(t, http.MethodGet, url+path).header
		if got := h.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options: got %q, want nosniff", path, got)
		}
		if got := h.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control: got %q, want no-store", path, got)
		}
	}
	for _, path := range []string{"/nowhere", "/status/", "/metrics/x", "/index.html"} {
		if got := ask(t, http.MethodGet, url+path); got.status != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, got.status)
		}
	}
	index := ask(t, http.MethodGet, url+"/").body
	for _, path := range paths[1:] {
		if !strings.Contains(index, path) {
			t.Errorf("the index does not name %s", path)
		}
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	url := start(t, ops.Config{}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	got := ask(t, http.MethodGet, url+"/livez", "X-Filler", strings.Repeat("x", 32<<10))
	if got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("32 KiB of headers: got %d, want 431", got.status)
	}
}

func TestHugeBodiesAreNotRead(t *testing.T) {
	url := start(t, ops.Config{Settings: ops.Settings{Pprof: true}}, registry(fixed(healthy())), fixed(healthy()), zaptest.NewLogger(t))
	const offered, most = 256 << 20, 64 << 20 // the sockets of both ends buffer some
	body := &endless{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/pprof/symbol", io.LimitReader(body, offered))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	if resp, err := transport.RoundTrip(req); err == nil { // else the server has cut the connection
		resp.Body.Close()
	}
	transport.CloseIdleConnections()
	if taken := body.read.Load(); taken > most {
		t.Errorf("the server took %d MiB of a body, want it to stop after 64 KiB", taken>>20)
	}
}

// endless is a body that a careless handler would read for ever.
type endless struct {
	read atomic.Int64 // bytes; the transport may continue to read after it has returned
}

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	for i := range p {
		p[i] = '+'
	}
	return len(p), nil
}

func TestAScrapeSurvivesOneBadSeries(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	i := integration()
	i.Partitions = append(i.Partitions, i.Partitions[0]) // the same labels twice
	s := process(i)
	url := start(t, ops.Config{}, registry(fixed(s)), fixed(s), zap.New(core))
	_, text := scrape(t, url)
	hasLine(t, text, `bridge_ready{integration="default"} 1`)
	if got := logs.FilterMessage("metrics scrape is incomplete").Len(); got != 1 {
		t.Errorf("log lines about the scrape: got %d, want 1", got)
	}
}
