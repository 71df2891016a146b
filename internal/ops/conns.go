package ops

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/datafly/bridge/internal/ops/access"
)

// Bounds on connections. A scraper, the probes and a person with a browser need
// ten. A connection costs up to 30 KiB, so all of them 9 MiB.
const (
	maxConns        = 256
	maxConnsPerPeer = 32
	// maxReserve are connections for probes, beyond maxConns, for the time when all
	// others are busy.
	maxReserve     = 32
	reserveTimeout = 2 * time.Second // for the header of the one request

	// maxSpareFiles descriptors are kept for connections when the process has run
	// out of them; a listener without one tries again every spareRetry.
	maxSpareFiles = 4
	spareRetry    = 100 * time.Millisecond

	// reportEvery is the least time between two log lines about the same problem.
	reportEvery = 10 * time.Minute
)

// listener accepts every connection and keeps their number within the bounds by
// closing others: the longest idle one of the peer that exceeds its bound or, if all
// together do, of the peer with most connections. A connection is idle until the
// header of a request is complete.
//
// It also keeps file descriptors in reserve. A connection that finds none free
// gets one of those, which is replaced when a connection is closed.
type listener struct {
	net.Listener
	key    string // of the configuration, with the address
	log    *zap.Logger
	closed chan struct{} // closed by Close
	once   sync.Once

	crowded, exhausted rate.Sometimes // bound their log lines

	mu    sync.Mutex // guards the fields below, and busy and idleSince of each connection
	conns map[*conn]struct{}
	spare []*os.File
}

func newListener(l net.Listener, key string, log *zap.Logger) *listener {
	out := &listener{Listener: l, key: key, log: log, closed: make(chan struct{}), conns: make(map[*conn]struct{}),
		crowded: rate.Sometimes{Interval: reportEvery}, exhausted: rate.Sometimes{Interval: reportEvery}}
	out.refill()
	return out
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		switch {
		case err == nil:
			l.refill()
			admitted, evicted := l.admit(accepted)
			if evicted != nil {
				_ = evicted.Conn.Close() // the server reads the end and calls Close
			}
			return admitted, nil
		case !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE):
			return nil, err
		}
		l.exhausted.Do(func() {
			l.log.Warn("no file descriptor is left for connections; raise the limit: ulimit -n, LimitNOFILE= in the systemd unit, --ulimit nofile= of docker", zap.Error(err))
		})
		// Without a free descriptor accept fails even if no connection is pending. A
		// spare one is released only for a pending connection: otherwise the rest of
		// the process would take it.
		if acceptable(l.Listener) && l.release() {
			continue
		}
		select {
		case <-time.After(spareRetry):
		case <-l.closed:
		}
	}
}

// admit registers a connection and returns the one to close for it, if any.
func (l *listener) admit(accepted net.Conn) (admitted, evicted *conn) {
	now := time.Now()
	c := &conn{Conn: accepted, l: l, peer: access.Peer(accepted.RemoteAddr().String()), opened: now, idleSince: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	all, ofPeer, reserved := 0, 0, 0
	for o := range l.conns {
		switch {
		case o.reserved:
			reserved++
		case o.peer == c.peer:
			ofPeer++
			all++
		default:
			all++
		}
	}
	switch {
	case ofPeer >= maxConnsPerPeer:
		evicted = l.leastUseful(func(o *conn) bool { return o.peer == c.peer && !o.reserved && !o.busy })
	case all >= maxConns:
		evicted = l.leastUseful(func(o *conn) bool { return !o.reserved && !o.busy })
	default:
		l.conns[c] = struct{}{}
		return c, nil
	}
	if evicted == nil {
		if c.reserved = true; reserved >= maxReserve {
			evicted = l.leastUseful(func(o *conn) bool { return o.reserved })
		}
	}
	delete(l.conns, evicted)
	l.conns[c] = struct{}{}
	l.crowded.Do(func() {
		l.log.Warn("connections closed: too many at once; find out who connects so often, or restrict access to "+l.key,
			zap.String("peer", c.peer), zap.Int("of_peer", ofPeer), zap.Int("connections", all+reserved))
	})
	return c, evicted
}

// leastUseful returns the longest idle connection of the peer that has most of
// those that match; nil if none does. In the reserve it is the one opened first.
func (l *listener) leastUseful(match func(*conn) bool) *conn {
	held := map[string]int{}
	for c := range l.conns {
		if match(c) {
			held[c.peer]++
		}
	}
	var found *conn
	for c := range l.conns {
		if match(c) && (found == nil ||
			cmp.Or(cmp.Compare(held[found.peer], held[c.peer]), c.idleSince.Compare(found.idleSince)) < 0) {
			found = c
		}
	}
	return found
}

// refill opens spare descriptors, as many as the system has, until Close.
func (l *listener) refill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.spare) < maxSpareFiles && !isClosed(l.closed) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		l.spare = append(l.spare, f)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// release closes one spare descriptor and reports whether there was one.
func (l *listener) release() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.spare) - 1
	if last < 0 {
		return false
	}
	_ = l.spare[last].Close()
	l.spare = l.spare[:last]
	return true
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		for l.release() {
			continue
		}
	})
	return l.Listener.Close()
}

// conn is one connection of a listener.
type conn struct {
	net.Conn
	l        *listener
	peer     string
	opened   time.Time
	reserved bool // for one request, of a probe

	busy      bool
	idleSince time.Time
}

// setState records whether the connection serves a request.
func (c *conn) setState(state http.ConnState) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	switch state {
	case http.StateActive:
		c.busy = true
	case http.StateIdle:
		c.busy, c.idleSince = false, time.Now()
	default: // a new one is idle, and Close removes it
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	err := c.Conn.Close()
	c.l.refill()
	return err
}

// SetReadDeadline implements net.Conn. A connection of the reserve has less time
// than the server grants.
func (c *conn) SetReadDeadline(t time.Time) error {
	if end := c.opened.Add(reserveTimeout); c.reserved && (t.IsZero() || t.After(end)) {
		t = end
	}
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite lets the server complete a response before it closes a connection on
// which a request is still being sent.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type connKey struct{}

// withConn puts the connection of a request into its context.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// onReserve reports whether a request came on a connection of the reserve.
func onReserve(r *http.Request) bool {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	of := connOf(c)
	return of != nil && of.reserved
}

// connOf returns the connection of the listener, which may be below TLS; nil without.
func connOf(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	of, _ := c.(*conn)
	return of
}

// refuseReserve allows only probes on the reserve of connections.
func refuseReserve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if onReserve(r) {
			w.Header().Set("Connection", "close")
			if !slices.Contains(probes, r.URL.Path) {
				w.Header().Set("Retry-After", "1")
				writeText(w, http.StatusServiceUnavailable, "all connections are in use except those for probes; try again in a second\n")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

const (
	// maxResponses large responses are written at a time, per path;
	// maxResponsesPerPeer is how many of one peer are written or waiting.
	maxResponses        = 4
	maxResponsesPerPeer = 3
	// responseTime is how long a response may take to send while another waits.
	responseTime = time.Second
)

// responseLimit bounds how many large responses are built and sent at a time. If
// one waits, the one that has been sending longest is cut off: slow readers give
// way.
type responseLimit struct {
	slots chan struct{}

	mu      sync.Mutex // guards the fields below
	peers   map[string]int
	sending map[*response]time.Time // since the first byte
}

// limitResponses calls next for as many requests at a time as the bounds allow.
func limitResponses(next http.Handler) http.Handler {
	l := &responseLimit{slots: make(chan struct{}, maxResponses), peers: make(map[string]int), sending: make(map[*response]time.Time)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := access.Peer(r.RemoteAddr)
		if !l.countPeer(peer) {
			w.Header().Set("Retry-After", "1")
			writeText(w, http.StatusServiceUnavailable, "too many requests from this address at once; try again in a second\n")
			return
		}
		defer l.releasePeer(peer)
		if !l.wait(r.Context()) {
			return
		}
		defer func() { <-l.slots }()
		out := &response{ResponseWriter: w, l: l}
		defer out.end()
		next.ServeHTTP(out, r)
	})
}

func (l *responseLimit) countPeer(peer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[peer] >= maxResponsesPerPeer {
		return false
	}
	l.peers[peer]++
	return true
}

func (l *responseLimit) releasePeer(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers[peer]--; l.peers[peer] == 0 {
		delete(l.peers, peer)
	}
}

// wait returns true with a slot, or false when ctx has ended.
func (l *responseLimit) wait(ctx context.Context) bool {
	for {
		select {
		case l.slots <- struct{}{}:
			return true
		case <-time.After(l.cutLongest()):
		case <-ctx.Done():
			return false
		}
	}
}

// cutLongest cuts off the response that has been sending longest if that exceeds
// responseTime and no slot is free. It returns when to try again.
func (l *responseLimit) cutLongest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest *response
	for r, since := range l.sending {
		if longest == nil || since.Before(l.sending[longest]) {
			longest = r
		}
	}
	if longest == nil || len(l.slots) < cap(l.slots) {
		return responseTime
	}
	if left := responseTime - time.Since(l.sending[longest]); left > 0 {
		return left
	}
	delete(l.sending, longest)
	// The blocked write fails and the handler returns. A test's writer may have no
	// deadlines.
	_ = http.NewResponseController(longest.ResponseWriter).SetWriteDeadline(time.Now())
	return responseTime
}

// response is a response with a slot. It counts as sending from its first byte.
type response struct {
	http.ResponseWriter
	l    *responseLimit
	once sync.Once
}

// Write implements http.ResponseWriter.
func (r *response) Write(p []byte) (int, error) {
	r.once.Do(func() {
		r.l.mu.Lock()
		defer r.l.mu.Unlock()
		r.l.sending[r] = time.Now()
	})
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *response) end() {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	delete(r.l.sending, r)
}
