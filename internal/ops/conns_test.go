package ops_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/ops"
)

// network connects one server to peers with any address. A write blocks until it is
// read, so every peer that does not read is slow.
type network struct {
	t      *testing.T
	server *ops.Server
	logs   *observer.ObservedLogs
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// newNetwork serves until the test ends, within a synctest bubble.
func newNetwork(t *testing.T, cfg ops.Config, source ops.Source) *network {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	n := &network{t: t, server: ops.New(cfg, registry(source), source, zap.New(core)), logs: logs,
		conns: make(chan net.Conn), closed: make(chan struct{})}
	n.server.Serve(t.Context(), n)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = n.server.Close(ctx) // cuts off open connections
	})
	return n
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		return conn, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { n.once.Do(func() { close(n.closed) }); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9400} }

// from is a connection with a given remote address.
type from struct {
	net.Conn
	peer net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.peer }

// dial opens a connection from an address.
func (n *network) dial(peer string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n.conns <- from{server, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(peer), 5000))}:
		return client, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) mustDial(peer string) net.Conn {
	n.t.Helper()
	conn, err := n.dial(peer)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	synctest.Wait() // until the server has accepted it
	return conn
}

// request sends a request and returns the response after reading it in full.
func request(conn net.Conn, path string) (*http.Response, error) {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// probe sends one request on a new connection, as kubelet does.
func probe(dial func(string) (net.Conn, error), peer, path string, within time.Duration) error {
	conn, err := dial(peer)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	resp, err := request(conn, path)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

// open reports whether the server has left an idle connection open.
func open(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Microsecond)); err != nil {
		return false
	}
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A peer above its bound loses its longest idle connection; other peers lose none.
func TestIdleConnectionsAreEvicted(t *testing.T) {
	for _, tt := range []struct {
		name        string
		peer, other func(i int) string // the addresses of two peers
	}{
		{"IPv4", func(int) string { return "10.0.0.7" }, func(int) string { return "10.0.0.8" }},
		{"IPv4 and the same as IPv6", func(i int) string { return []string{"10.0.0.7", "::ffff:10.0.0.7"}[i%2] }, func(int) string { return "::ffff:10.0.0.8" }},
		{"IPv6 by network", func(i int) string { return fmt.Sprintf("2001:db8:0:1::%x", i+1) }, func(i int) string { return fmt.Sprintf("2001:db8:0:2::%x", i+1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, ops.Config{}, fixed(healthy()))
				other := n.mustDial(tt.other(0))
				held := make([]net.Conn, ops.MaxConnsPerPeer)
				for i := range held {
					held[i] = n.mustDial(tt.peer(i))
					<-time.After(time.Millisecond)
				}
				if _, err := request(held[0], "/livez"); err != nil { // now the second is the longest idle one
					t.Fatal(err)
				}
				synctest.Wait()
				newest := n.mustDial(tt.peer(99))
				for i, conn := range held {
					if got := open(t, conn); got != (i != 1) {
						t.Errorf("connection %d: open is %v", i, got)
					}
				}
				if !open(t, other) || n.server.Open() != ops.MaxConnsPerPeer+1 {
					t.Errorf("another peer's connection was closed, or got %d connections, want %d", n.server.Open(), ops.MaxConnsPerPeer+1)
				}
				if _, err := request(newest, "/livez"); err != nil {
					t.Errorf("the newest connection: %v", err)
				}
				for i := range 3 * ops.MaxConnsPerPeer {
					n.mustDial(tt.peer(i))
				}
				if got := n.logs.FilterMessageSnippet("too many at once").Len(); got != 1 {
					t.Errorf("got %d lines of closed connections, want 1", got)
				}
			})
		})
	}
}

// With all connections in use, the peer with most of them loses one.
func TestThePeerWithMostConnectionsLosesOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{}, fixed(healthy()))
		scraper := n.mustDial("10.1.0.1") // idle longest of all
		var held []net.Conn
		for i := 0; n.server.Open() < ops.MaxConns; i++ {
			held = append(held, n.mustDial(fmt.Sprintf("10.0.0.%d", i/ops.MaxConnsPerPeer)))
		}
		for i := range 20 {
			if err := probe(n.dial, fmt.Sprintf("10.2.0.%d", i), "/status", time.Second); err != nil {
				t.Errorf("a request of a new peer: %v", err)
			}
		}
		if !open(t, scraper) {
			t.Error("the connection of a peer that has one was closed")
		}
		closed := 0
		for _, conn := range held {
			if !open(t, conn) {
				closed++
			}
		}
		if n.server.Open() > ops.MaxConns || closed == 0 {
			t.Errorf("got %d connections, %d of them closed", n.server.Open(), closed)
		}
	})
}

// holding is a page that responds when the test ends.
type holding struct{ stopped chan struct{} }

func (h holding) ServeHTTP(http.ResponseWriter, *http.Request) { <-h.stopped }
func (h holding) Stop()                                        { close(h.stopped) }

// While every connection is busy, probes are still answered.
func TestReserveIsForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{Live: holding{make(chan struct{})}}, fixed(healthy()))
		for i := range ops.MaxConns {
			conn := n.mustDial(fmt.Sprintf("10.0.0.%d", i/ops.MaxConnsPerPeer))
			if _, err := io.WriteString(conn, "GET /live/ HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, peer := range []string{"10.0.0.1", "10.9.0.1", "2001:db8::1"} {
			for _, path := range []string{"/livez", "/healthz", "/health", "/readyz"} {
				conn := n.mustDial(peer)
				resp, err := request(conn, path)
				if err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
					t.Errorf("%s from %s: got %v and %v, want 200 on a connection that is closed", path, peer, resp, err)
				}
			}
			for _, path := range []string{"/", "/metrics", "/status", "/live/", "/livez/x"} {
				resp, err := request(n.mustDial(peer), path)
				if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("%s from %s: got %v and %v, want 503", path, peer, resp, err)
				}
			}
		}
		<-time.After(time.Second)
		// A silent connection of the reserve is evicted by a later one ...
		silent := make([]net.Conn, ops.MaxReserve+1)
		for i := range silent {
			silent[i] = n.mustDial("10.0.0.1")
			<-time.After(time.Millisecond)
		}
		if open(t, silent[0]) || !open(t, silent[1]) || n.server.Open() != ops.MaxConns+ops.MaxReserve {
			t.Errorf("got %d connections, want %d, the longest idle one closed", n.server.Open(), ops.MaxConns+ops.MaxReserve)
		}
		if err := probe(n.dial, "10.9.0.1", "/livez", time.Second); err != nil {
			t.Errorf("a probe with a full reserve: %v", err)
		}
		// ... and times out soon, with or without part of a request.
		_, _ = io.WriteString(silent[ops.MaxReserve], "GET /livez HT")
		<-time.After(ops.ReserveTimeout)
		synctest.Wait()
		for i, conn := range silent {
			if open(t, conn) {
				t.Errorf("connection %d of the reserve is open after %v", i, ops.ReserveTimeout)
			}
		}
	})
}

// A probe that has just connected is not evicted by the next one, while the other
// connections of the reserve do not read their responses.
func TestProbesDoNotEvictEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{Live: holding{make(chan struct{})}}, fixed(healthy()))
		for i := range ops.MaxConns + ops.MaxReserve {
			path := "/live/"
			if i >= ops.MaxConns {
				path = "/livez"
			}
			conn := n.mustDial(fmt.Sprintf("10.0.0.%d", i/ops.MaxConnsPerPeer))
			if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Millisecond)
		}
		for _, peer := range []string{"10.9.0.1", "10.0.0.8"} { // another peer, and the one that fills the reserve
			live, ready := n.mustDial(peer), n.mustDial(peer)
			for path, conn := range map[string]net.Conn{"/livez": live, "/readyz": ready} {
				if resp, err := request(conn, path); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s from %s: got %v and %v, want 200", path, peer, resp, err)
				}
			}
		}
	})
}

// Idle connections time out, except the scraper's.
func TestIdleConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{}, fixed(healthy()))
		silent, slow, scraper := n.mustDial("10.0.0.1"), n.mustDial("10.0.0.2"), n.mustDial("10.0.0.3")
		go func() {
			for line := "GET /livez HTTP/1.1\r\nHost: x\r\n"; ; line = "X: y\r\n" {
				if _, err := io.WriteString(slow, line); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}()
		if _, err := request(scraper, "/metrics"); err != nil {
			t.Fatal(err)
		}
		<-time.After(ops.HeaderTimeout + time.Second)
		if n.server.Open() != 1 || open(t, silent) {
			t.Errorf("got %d connections %v after the header timeout, want the scraper's", n.server.Open(), ops.HeaderTimeout)
		}
		<-time.After(ops.ScrapeInterval - ops.HeaderTimeout)
		if _, err := request(scraper, "/metrics"); err != nil {
			t.Errorf("a scrape after %v on the same connection: %v", ops.ScrapeInterval, err)
		}
		<-time.After(ops.IdleTimeout + time.Second)
		if n.server.Open() != 0 {
			t.Errorf("got %d connections after %v, want none", n.server.Open(), ops.IdleTimeout)
		}
	})
}

// Responses to slow readers are cut off for those who read.
func TestSlowReadersAreCutOff(t *testing.T) {
	for _, path := range []string{"/metrics", "/status"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, ops.Config{}, fixed(large(20)))
				for i := range 40 {
					conn := n.mustDial(fmt.Sprintf("10.0.0.%d", i/5))
					if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				for _, other := range []string{"/metrics", "/status"} {
					// The usual timeout of a scrape.
					if err := probe(n.dial, "10.1.0.1", other, 10*time.Second); err != nil {
						t.Errorf("%s during slow reads of %s: %v", other, path, err)
					}
				}
				if got := n.logs.Len(); got != 0 {
					t.Errorf("got %d lines about peers that do not read: %v", got, n.logs.All())
				}
			})
		})
	}
}

// A peer that does not read the responses to its probes is cut off soon.
func TestUnreadProbesAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{}, fixed(healthy()))
		if _, err := io.WriteString(n.mustDial("10.0.0.1"), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-time.After(ops.ProbeTimeout + time.Second)
		if n.server.Open() != 0 {
			t.Errorf("got %d connections after %v, want none", n.server.Open(), ops.ProbeTimeout)
		}
	})
}

// large is a bridge with many partitions, whose responses exceed a socket buffer.
func large(partitions int) ops.Status {
	s := integration()
	first := s.Partitions[0]
	s.Partitions = nil
	for i := range partitions {
		first.Partition = int32(i)
		s.Partitions = append(s.Partitions, first)
	}
	return process(s)
}

// flood holds connections until ctx ends: of each address a number of idle ones,
// without a request, with half of one or after one, and one that does not read a
// large response. Closed ones are opened again two seconds later.
func flood(ctx context.Context, dial func(string) (net.Conn, error), addresses []string, idle int) (wait func()) {
	var all sync.WaitGroup
	for _, peer := range addresses {
		for i := range idle + 1 {
			begin := []string{"", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "GET /livez HT"}[i%3]
			if i == idle {
				begin = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
			}
			all.Go(func() {
				for ctx.Err() == nil {
					if conn, err := dial(peer); err == nil {
						hold(ctx, conn, begin, i < idle)
					}
					select {
					case <-time.After(2 * time.Second):
					case <-ctx.Done():
					}
				}
			})
		}
	}
	return all.Wait
}

// hold keeps a connection open until the server closes it or ctx ends. One that
// does not read is closed after half a minute.
func hold(ctx context.Context, conn net.Conn, begin string, reads bool) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, _ = io.WriteString(conn, begin)
	if reads {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	select {
	case <-time.After(30 * time.Second):
	case <-ctx.Done():
	}
}

const idlePerAddress = 64

// eight returns eight addresses; the tests probe from the first one, too.
func eight() []string {
	var all []string
	for i := range 8 {
		all = append(all, fmt.Sprintf("127.0.0.%d", i+2))
	}
	return all
}

// A probe each second for two minutes during a flood, in virtual time.
func TestProbesDuringAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, ops.Config{}, fixed(large(20)))
		ctx, cancel := context.WithCancel(t.Context())
		defer flood(ctx, n.dial, eight(), idlePerAddress)()
		defer cancel()
		for second := range 120 {
			<-time.After(time.Second)
			for _, peer := range []string{"127.0.0.1", "127.0.0.2"} {
				for _, path := range []string{"/livez", "/readyz"} {
					if err := probe(n.dial, peer, path, time.Second); err != nil {
						t.Errorf("%s from %s: %v", path, peer, err)
					}
				}
			}
			if second%15 == 0 {
				if err := probe(n.dial, "127.0.0.1", "/metrics", 10*time.Second); err != nil {
					t.Errorf("a scrape: %v", err)
				}
			}
			if got := n.server.Open(); got > ops.MaxConns+ops.MaxReserve {
				t.Fatalf("got %d connections, want at most %d", got, ops.MaxConns+ops.MaxReserve)
			}
		}
	})
}

// The same over sockets and in real time. The machine may be busy: probes have more
// time than kubelet gives them, and those from a flooded address three attempts, as
// many as kubelet makes. Newer connections of that address may evict one before the
// server reads its request.
func TestProbesDuringAFloodOnSockets(t *testing.T) {
	t.Parallel()
	length := 20 * time.Second
	if testing.Short() {
		length = 5 * time.Second
	}
	address := strings.TrimPrefix(start(t, ops.Config{}, registry(fixed(large(2000))), fixed(large(2000)), zap.NewNop()), "http://")
	dial := func(peer string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(peer)}, Timeout: 20 * time.Second}
		return d.DialContext(t.Context(), "tcp", address)
	}
	addresses := eight()
	if conn, err := dial(addresses[7]); err == nil {
		conn.Close()
	} else {
		addresses = []string{"127.0.0.1"} // elsewhere than on Linux the loopback is this one
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	wait := flood(ctx, dial, addresses, idlePerAddress)
	defer wait()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	probes := 0
	for {
		select {
		case <-second.C:
		case <-ctx.Done():
			if probes < 2 {
				t.Errorf("got %d probes in %v", probes, length)
			}
			return
		}
		for _, path := range []string{"/livez", "/readyz"} {
			for peer, attempts := range map[string]int{addresses[0]: 3, "127.0.0.1": 1} {
				var err error
				for range attempts {
					if err = probe(dial, peer, path, 20*time.Second); err == nil {
						break
					}
				}
				if err != nil {
					t.Errorf("%s from %s, probe %d: %v", path, peer, probes, err)
				}
			}
		}
		probes++
	}
}
