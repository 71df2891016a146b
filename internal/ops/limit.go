package ops

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops/access"
)

// Bounds on connections. A scraper, the probes and a person with a browser need
// ten. A connection costs up to 30 KiB, so all of them 9 MiB.
const (
	maxConns        = 256
	maxConnsPerPeer = 32
	// maxReserve are connections beyond those that must be closed to make room and
	// cannot, because each of them is being answered. They are for probes.
	maxReserve     = 32
	reserveTimeout = 2 * time.Second // for the header of the one request

	// Who keeps connections busy does so for long; one log line in this time.
	crowdedEvery = 10 * time.Minute
)

// limited is a listener that takes every connection and keeps their number within
// the bounds by closing others: the one that has been idle longest, of the address
// that is above its bound or, when all together are, of the address that has most
// of them. A connection is idle until the header of a request is complete. So
// whoever holds connections loses them to whoever uses theirs.
type limited struct {
	net.Listener
	log *zap.Logger

	mu       sync.Mutex // guards the fields below, and busy and idleSince of each connection
	conns    map[*limitedConn]struct{}
	reported time.Time // when it was last logged that connections are closed
}

// limitedConn is one connection.
type limitedConn struct {
	net.Conn
	of       *limited
	peer     string
	opened   time.Time
	reserved bool // of the reserve: one request, for a probe

	busy      bool
	idleSince time.Time
}

func newLimited(l net.Listener, log *zap.Logger) *limited {
	return &limited{Listener: l, log: log, conns: make(map[*limitedConn]struct{})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	admitted, closing := l.admit(conn)
	if closing != nil {
		_ = closing.Conn.Close() // its peer sees it
	}
	return admitted, nil
}

// admit counts a new connection and returns the one that makes room for it, if
// one has to.
func (l *limited) admit(conn net.Conn) (admitted, closing *limitedConn) {
	now := time.Now()
	c := &limitedConn{Conn: conn, of: l, peer: access.Peer(conn.RemoteAddr().String()), opened: now, idleSince: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	all, ofPeer, reserved := l.count(c.peer)
	switch {
	case ofPeer >= maxConnsPerPeer:
		closing = l.leastUseful(func(o *limitedConn) bool { return o.peer == c.peer && !o.reserved && !o.busy })
	case all >= maxConns:
		closing = l.leastUseful(func(o *limitedConn) bool { return !o.reserved && !o.busy })
	default:
		l.conns[c] = struct{}{}
		return c, nil
	}
	if closing == nil {
		if c.reserved = true; reserved >= maxReserve {
			closing = l.leastUseful(func(o *limitedConn) bool { return o.reserved })
		}
	}
	delete(l.conns, closing)
	l.conns[c] = struct{}{}
	if now.Sub(l.reported) >= crowdedEvery {
		l.reported = now
		l.log.Warn("ops connections closed: too many at once; see who connects so often, or let fewer reach ops.address",
			zap.String("peer", c.peer), zap.Int("of_peer", ofPeer), zap.Int("connections", all+reserved))
	}
	return c, closing
}

func (l *limited) count(peer string) (all, ofPeer, reserved int) {
	for c := range l.conns {
		switch {
		case c.reserved:
			reserved++
			continue
		case c.peer == peer:
			ofPeer++
		}
		all++
	}
	return all, ofPeer, reserved
}

// leastUseful returns, of the connections that may be closed, the one that has
// been idle longest of the peer that has most of them. In the reserve that is the one
// that was opened first: one that is being answered has had its time, and one that
// has just been opened has not. It is nil if there are none.
func (l *limited) leastUseful(may func(*limitedConn) bool) *limitedConn {
	held := map[string]int{}
	for c := range l.conns {
		if may(c) {
			held[c.peer]++
		}
	}
	var found *limitedConn
	for c := range l.conns {
		if may(c) && (found == nil ||
			cmp.Or(cmp.Compare(held[found.peer], held[c.peer]), c.idleSince.Compare(found.idleSince)) < 0) {
			found = c
		}
	}
	return found
}

// observe is the server's report that a connection is being answered, or is no
// more.
func (l *limited) observe(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateActive:
		c.busy = true
	case http.StateIdle:
		c.busy, c.idleSince = false, time.Now()
	default: // New is how it begins, and Close counts the end
	}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// SetReadDeadline implements net.Conn. A connection of the reserve gets less time
// than the server grants.
func (c *limitedConn) SetReadDeadline(t time.Time) error {
	if end := c.opened.Add(reserveTimeout); c.reserved && (t.IsZero() || t.After(end)) {
		t = end
	}
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite lets the server end an answer before it hangs up on what is still
// being sent, or the answer would be lost on the way.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type connKey struct{}

// withConn puts the connection of a request into its context.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// ofReserve says whether a request came on a connection of the reserve.
func ofReserve(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(*limitedConn)
	return ok && c.reserved
}
