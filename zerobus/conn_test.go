package zerobus_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/zerobus"
)

// unasked is a server that confirms the first three batches twice: the second
// answer is one that no request asked for. It comes with the first, or where
// idle is set when the test calls push. A request that comes on that connection
// all the same is not served.
type unasked struct {
	net.Listener
	idle bool

	ended chan struct{} // takes one for each connection that was pushed to and has ended

	mu        sync.Mutex // guards the fields below
	last      net.Conn
	spoiled   map[net.Conn]bool
	confirmed int
}

const oneConfirmed = `{"records_ingested":1}`

// push sends an answer on the idle connection and waits until the client has
// closed it.
func (u *unasked) push() {
	u.mu.Lock()
	last, push := u.last, u.idle && u.confirmed <= 3
	u.spoiled[last] = u.spoiled[last] || push
	u.mu.Unlock()
	if push {
		answer(last, oneConfirmed)
		<-u.ended
	}
}

func (u *unasked) serve(token string) {
	for {
		conn, err := u.Accept()
		if err != nil {
			return
		}
		go u.talk(conn, token)
	}
}

func (u *unasked) talk(conn net.Conn, token string) {
	defer func() {
		conn.Close()
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.idle && u.spoiled[conn] {
			u.ended <- struct{}{}
		}
	}()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if strings.HasSuffix(r.URL.Path, "/token") {
			answer(conn, token)
			continue
		}
		u.mu.Lock()
		serve := !u.spoiled[conn]
		if serve {
			u.confirmed++
			u.last = conn
		}
		twice := !u.idle && u.confirmed <= 3
		u.spoiled[conn] = u.spoiled[conn] || twice
		u.mu.Unlock()
		switch {
		case !serve:
			answer(conn, `{"error_code":"TEMPORARILY_UNAVAILABLE"}`)
		case twice:
			answer(conn, oneConfirmed, oneConfirmed)
		default:
			answer(conn, oneConfirmed)
		}
	}
}

func answer(w io.Writer, bodies ...string) {
	var text strings.Builder
	for _, body := range bodies {
		fmt.Fprintf(&text, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	_, _ = io.WriteString(w, text.String()) // the client may be gone
}

// An answer that came while no request was outstanding confirms nothing: the
// connection is closed, and the rows that come next are sent on another. Whether
// the bytes were read by then or wait in the kernel makes no difference.
func TestAnAnswerThatNothingAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name string
		idle bool
	}{{"with the answer before", false}, {"on an idle connection", true}} {
		t.Run(tt.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			u := &unasked{Listener: listener, idle: tt.idle, spoiled: map[net.Conn]bool{}, ended: make(chan struct{}, 3)}
			var serving sync.WaitGroup
			serving.Go(func() { u.serve(`{"access_token":"token-of-test","expires_in":3600}`) })
			defer serving.Wait()
			defer listener.Close()
			c, err := zerobus.New(config("http://"+listener.Addr().String()), zap.NewNop(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 5 {
				if err := c.WriteLatest(t.Context(), rows(1)); err != nil {
					t.Errorf("Write: %v", err)
				}
				u.push()
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			if u.confirmed < 5 {
				t.Errorf("the service confirmed %d of 5 batches: an answer that nothing asked for confirmed another", u.confirmed)
			}
		})
	}
}

// pipe is a connection in memory, for the rules of trackedConn.
type pipe struct {
	net.Conn
	text io.Reader
}

func (p pipe) Read(b []byte) (int, error)  { return p.text.Read(b) }
func (p pipe) Write(b []byte) (int, error) { return len(b), nil }

func TestTrackedConnDetectsEarlierBytes(t *testing.T) {
	g := zerobus.NewTracked(pipe{text: strings.NewReader("early late")})
	buf := make([]byte, 6)
	read := func() {
		if _, err := g.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	g.Begin()
	read()
	if _, err := g.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	if g.Answered() {
		t.Errorf("what was read before the request passes for its answer")
	}
	read()
	if !g.Answered() {
		t.Errorf("what was read after the request passes for none")
	}
}

// Bytes that wait in the kernel when a request is about to be written keep it
// from being written.
func TestTrackedConnDetectsBytesInTheKernel(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	g := zerobus.NewTracked(near)
	g.Begin()
	if _, err := g.Write([]byte("first")); err != nil {
		t.Fatalf("Write on a quiet connection: %v", err)
	}
	if _, err := io.WriteString(far, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for { // until the bytes are there
		g.Begin()
		n, err := g.Write([]byte("x"))
		if err != nil {
			if n != 0 {
				t.Errorf("%d bytes were written, want none", n)
			}
			return
		}
	}
}

// The connection is found below TLS, and a row alone that is refused is tried
// again on another one.
func TestARefusalIsRepeatedOnAnotherConnection(t *testing.T) {
	space := newWorkspace()
	var mu sync.Mutex
	from := map[string]int{}
	var at []time.Time
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ingest") {
			mu.Lock()
			from[r.RemoteAddr]++
			at = append(at, time.Now())
			mu.Unlock()
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				fail(w, 400, "INVALID_PARAMETER_VALUE", "no")
			}
			return
		}
		space.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	cfg := config(server.URL)
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := zerobus.New(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var no *zerobus.RefusedError
	if err := c.WriteLatest(context.Background(), rows(1)); !errors.As(err, &no) {
		t.Fatalf("Write: %v, want a refusal", err)
	}
	if len(at) != 2 || len(from) != 2 {
		t.Fatalf("%d requests over %d connections, want 2 over 2", len(at), len(from))
	}
	if got := at[1].Sub(at[0]); got < time.Second {
		t.Errorf("the second refusal came %v after the first, want at least a second", got)
	}
}

// After an answer that is not the service's the connection is closed: the next
// thing on it may be the answer that was missing.
func TestAnAnswerThatIsNotTheServicesClosesItsConnection(t *testing.T) {
	space := newWorkspace()
	var mu sync.Mutex
	var from []string
	b := onSockets(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/ingest") {
			space.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		from = append(from, r.RemoteAddr)
		_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
		if len(from) == 2 {
			_, _ = io.WriteString(w, "<html>")
			return
		}
		_, _ = io.WriteString(w, oneConfirmed)
	}), nil)
	for range 2 {
		write(t, b, rows(1))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 3 || from[0] != from[1] || from[1] == from[2] {
		t.Errorf("requests came from %q, want the third from another connection than the first two", from)
	}
}
