package group

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network in memory, with servers at addresses, and a Kafka. It lives in a
// synctest bubble, so time passes only while everything waits.
type world struct {
	t         *testing.T
	mu        sync.Mutex // guards the fields below
	listeners map[string]pipes
	asked     map[string]int // connections by address
	looks     int            // look-ups in Kafka
	kafka     func(ctx context.Context) error
}

// pipes is a listener.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9400} }

func newWorld(t *testing.T) *world {
	return &world{t: t, listeners: make(map[string]pipes), asked: make(map[string]int)}
}

func (w *world) serve(address string, h http.HandlerFunc) {
	listener := make(pipes)
	server := &http.Server{Handler: h}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) }) // it ends with the listener
	w.mu.Lock()
	w.listeners[address] = listener
	w.mu.Unlock()
	w.t.Cleanup(func() {
		close(listener)
		_ = server.Close()
		done.Wait()
	})
}

// bridge serves the status of a process. It is asked for nothing else: that would have
// it ask others.
func (w *world) bridge(address string, s ops.Status, token string) {
	authorization := ""
	if token != "" {
		authorization = "Bearer " + token
	}
	w.serve(address, func(rw http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/status?history=true&scope=process" || r.Header.Get("Authorization") != authorization || r.Host != address {
			w.t.Errorf("%s was asked for %s of host %s with authorization %q", address, r.RequestURI, r.Host, r.Header.Get("Authorization"))
		}
		_ = json.NewEncoder(rw).Encode(s)
	})
}

func (w *world) dial(ctx context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	listener, open := w.listeners[address]
	w.asked[address]++
	w.mu.Unlock()
	if !open {
		return nil, syscall.ECONNREFUSED
	}
	here, there := net.Pipe()
	select {
	case listener <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *world) connections(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[address]
}

// Groups implements Kafka.
func (w *world) Groups(ctx context.Context, queries []kafka.GroupQuery) ([]kafka.GroupState, error) {
	w.mu.Lock()
	w.looks++
	do := w.kafka
	w.mu.Unlock()
	if do != nil {
		if err := do(ctx); err != nil {
			return nil, err
		}
	}
	return make([]kafka.GroupState, len(queries)), nil
}

func (w *world) setKafka(do func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kafka = do
}

func (w *world) lookUps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks
}

// view is that of process i1 at 10.0.0.1:9400.
func (w *world) view(cfg Config) *View {
	cfg.Self = func() ops.Status {
		s := running("i1", "m1", 0)
		s.Time = time.Now()
		return s
	}
	cfg.Address = func() string { return "[::]:9400" }
	cfg.Integrations = func() []Integration { return []Integration{{Name: "orders", Group: "d-orders", Topics: []string{"t"}}} }
	cfg.Kafka = w
	v := New(cfg)
	v.transport.DialContext = w.dial
	w.t.Cleanup(v.Close)
	return v
}

func find(t *testing.T, s ops.GroupStatus, address string) ops.Peer {
	t.Helper()
	for _, p := range s.Peers {
		if p.Address == address {
			return p
		}
	}
	t.Fatalf("no peer %s in %+v", address, s.Peers)
	return ops.Peer{}
}

func TestPeersThatFail(t *testing.T) {
	const token = "0123456789abcdef"
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, tc := range map[string]struct {
		serve http.HandlerFunc // nil: nothing listens
		want  string
	}{
		"refuses":       {nil, "connection refused; see whether the process runs"},
		"never answers": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer within 1s"},
		"never ends its answer": {func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "no answer within 1s"},
		"answers garbage":         {text(200, "<html>"), "not answer with the status of a bridge"},
		"answers other JSON":      {text(200, `{"state": 7}`), "not answer with the status of a bridge"},
		"answers no status":       {text(200, `{}`), "not answer with the status of a bridge"},
		"refuses the token":       {text(401, "no"), "HTTP 401: it refuses the token"},
		"has too many requests":   {text(429, "no"), "too many wrong tokens"},
		"answers to its loopback": {text(421, "no"), "set its ops.address"},
		"is something else":       {text(404, "no"), "HTTP 404: that is not the status of a bridge"},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://10.9.9.9:80/", http.StatusFound)
		}, "HTTP 302"},
		"answers too much": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"state":"`+strings.Repeat("x", 2*maxBody))
			<-r.Context().Done()
		}, "larger than"},
		"has another deployment":   {text(200, `{"state":"running","deployment":"other"}`), "belongs to deployment other"},
		"closes before the answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "see whether the process runs"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if tc.serve != nil {
					w.serve("10.0.0.3:9400", tc.serve)
				}
				w.bridge("10.0.0.2:9400", running("i2", "m2", 1), token)
				v := w.view(Config{Peers: []string{"10.0.0.3", "10.0.0.2"}, Token: func() (string, error) { return token, nil }})
				began := time.Now()
				got := v.Status(t.Context())
				if took := time.Since(began); took > peersTimeout {
					t.Errorf("got an answer after %v, want one within %v", took, peersTimeout)
				}
				if bad := find(t, got, "10.0.0.3:9400"); bad.OK || !strings.Contains(bad.Error, tc.want) || strings.Contains(bad.Error, token) {
					t.Errorf("got %+v, want %q in the error", bad, tc.want)
				}
				if good := find(t, got, "10.0.0.2:9400"); !good.OK || good.Instance != "i2" || good.Self {
					t.Errorf("got %+v, want the other peer beside it", good)
				}
				if self := find(t, got, "[::]:9400"); !self.OK || !self.Self || self.Instance != "i1" {
					t.Errorf("got %+v, want this process", self)
				}
				if got.Ready || got.Problems[0].Code != "peer_not_answering" {
					t.Errorf("got ready %v, %+v, want the problem", got.Ready, got.Problems)
				}
				if n := w.connections("10.9.9.9:80"); n != 0 {
					t.Error("the redirect was followed")
				}
				<-time.After(2 * refresh)
				first, again := find(t, got, "10.0.0.3:9400").Since, find(t, v.Status(t.Context()), "10.0.0.3:9400").Since
				if !again.Equal(first) || first.IsZero() && name != "has another deployment" {
					t.Errorf("not answering since %v, and later since %v, want one time", first, again)
				}
			})
		})
	}
}

// A process that is in its own list asks itself once, and then never again.
func TestThisProcessIsAmongItsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bridge("10.0.0.1:9400", running("i1", "m1", 0), "")
		w.bridge("10.0.0.2:9400", running("i2", "m2", 1), "")
		w.bridge("[fd00::2]:9400", running("i2", "m2", 1), "") // the same, by another address
		names := map[string]string{"bridge-peers": "10.0.0.1 10.0.0.2", "other": "fd00::2"}
		v := w.view(Config{Peers: []string{"bridge-peers", "other:9400"}, Resolve: func(_ context.Context, host string) (ips []netip.Addr, err error) {
			for _, ip := range strings.Fields(names[host]) {
				ips = append(ips, netip.MustParseAddr(ip))
			}
			return ips, nil
		}})
		for range 3 {
			got := v.Status(t.Context())
			if len(got.Peers) != 2 || !find(t, got, "10.0.0.1:9400").Self || find(t, got, "10.0.0.2:9400").Self {
				t.Errorf("got %+v, want this process and the other, each once", got.Peers)
			}
			if got.Integrations[0].Answering != 2 || !got.PeersConfigured {
				t.Errorf("got %+v, want both members", got.Integrations)
			}
			<-time.After(refresh)
		}
		if own, other := w.connections("10.0.0.1:9400"), w.connections("10.0.0.2:9400"); own != 1 || other != 3 {
			t.Errorf("asked this process %d times and the other %d times, want 1 and 3", own, other)
		}
	})
}

func TestNamesOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var many []netip.Addr
		for i := range 300 {
			many = append(many, netip.AddrFrom4([4]byte{10, 1, byte(i / 100), byte(i % 100)}))
		}
		v := w.view(Config{Peers: []string{"many", "unknown", "none"}, Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "many":
				return many, nil
			case "unknown":
				return nil, errors.New("no such host")
			}
			return nil, nil
		}})
		got := v.Status(t.Context())
		if len(got.Peers) != ops.MaxPeers+2 { // this process, and what was left out
			t.Errorf("got %d peers, want %d", len(got.Peers), ops.MaxPeers+2)
		}
		last := got.Peers[len(got.Peers)-1]
		if !strings.Contains(last.Error, "nor are 45 more") {
			t.Errorf("got %+v, want the number of those left out", last)
		}
		v = w.view(Config{Peers: []string{"unknown", "none"}, Resolve: v.cfg.Resolve})
		got = v.Status(t.Context())
		for name, want := range map[string]string{"unknown": "no such host", "none": "no address"} {
			if p := find(t, got, name); p.OK || !strings.Contains(p.Error, want) {
				t.Errorf("got %+v, want %q in the error", p, want)
			}
		}
	})
}

func TestTheTokenCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bridge("10.0.0.2:9400", running("i2", "m2", 1), "")
		v := w.view(Config{Peers: []string{"10.0.0.2"}, Token: func() (string, error) { return "", errors.New("no such file") }})
		if p := find(t, v.Status(t.Context()), "10.0.0.2:9400"); p.OK || !strings.Contains(p.Error, "ops.token_file: no such file") {
			t.Errorf("got %+v, want the cause", p)
		}
	})
}

// A Kafka that does not answer delays a request by a second, and requests that come
// meanwhile cause no further look-up.
func TestLookUpsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		v := w.view(Config{})
		begin := time.Now()
		many := func() (last ops.GroupStatus) {
			t.Helper()
			var all sync.WaitGroup
			results := make([]ops.GroupStatus, 50)
			began := time.Now()
			for i := range results {
				all.Go(func() { results[i] = v.Status(t.Context()) })
			}
			all.Wait()
			if took := time.Since(began); took > kafkaPatience {
				t.Errorf("got the last answer after %v, want it within %v", took, kafkaPatience)
			}
			return results[0]
		}
		expect := func(what string, s ops.GroupStatus, ok bool, cause string, since time.Duration, looks int) {
			t.Helper()
			if s.Kafka.OK != ok || !strings.Contains(s.Kafka.Error, cause) || w.lookUps() != looks {
				t.Errorf("%s: got %+v after %d look-ups, want ok %v, error %q after %d", what, s.Kafka, w.lookUps(), ok, cause, looks)
			}
			if !ok && !s.Kafka.Since.Equal(begin.Add(since)) {
				t.Errorf("%s: failing since %v, want %v", what, s.Kafka.Since.Sub(begin), since)
			}
		}
		expect("at first", many(), true, "", 0, 1)
		<-time.After(refresh - time.Nanosecond)
		expect("within two seconds", many(), true, "", 0, 1)
		<-time.After(time.Nanosecond)
		w.setKafka(func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("no broker answers: %w", ctx.Err()) })
		s := many() // at 2 s, answered at 3 s
		expect("while it hangs", s, false, "no answer within 1s", 2*time.Second, 2)
		if !s.Kafka.At.Equal(begin) || s.Integrations[0].Error != "" {
			t.Errorf("got %+v, want the facts of the last look-up", s.Kafka)
		}
		expect("while it hangs", many(), false, "no answer within 1s", 2*time.Second, 2)
		<-time.After(4 * time.Second) // to 8 s; the look-up has ended at 7 s
		expect("the next one", many(), false, "no broker answers", 2*time.Second, 3)
		<-time.After(5 * time.Second) // to 14 s; the look-up has ended at 13 s
		w.setKafka(func(context.Context) error { return errors.New("refused") })
		s = many()
		expect("facts that are too old", s, false, "refused", 2*time.Second, 4)
		if !s.Kafka.At.IsZero() || s.Ready || s.Problems[0].Code != "kafka_unknown" {
			t.Errorf("got %+v, %+v, want no facts and the problem", s.Kafka, s.Problems)
		}
		<-time.After(refresh)
		w.setKafka(nil)
		expect("again", many(), true, "", 0, 5)
	})
}

func TestCloseEndsALookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.setKafka(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		v := w.view(Config{})
		v.Status(t.Context())
		began := time.Now()
		v.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("Close took %v, want none: the look-up was not ended", took)
		}
	})
}
