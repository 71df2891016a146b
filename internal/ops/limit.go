package ops

import (
	"net"
	"sync"

	"go.uber.org/zap"
)

// Bounds on connections. A scraper, the probes and a person with a browser need
// ten; a peer that takes all it may get leaves most for the others. A connection
// costs up to 30 KiB, so all of them 8 MiB.
const (
	maxConns        = 256
	maxConnsPerPeer = 32
)

// limited is a listener that closes what comes above its bounds at once: a
// queue would only make the probes wait behind whoever filled it.
type limited struct {
	net.Listener
	log *zap.Logger

	mu    sync.Mutex // guards the fields below
	conns int
	peers map[string]int // connections by the peer's address
	said  bool           // that some were refused
}

func newLimited(l net.Listener, log *zap.Logger) *limited {
	return &limited{Listener: l, log: log, peers: make(map[string]int)}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(conn.RemoteAddr().String())
		if l.take(peer) {
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { l.give(peer) })}, nil
		}
		_ = conn.Close() // nobody to tell
	}
}

func (l *limited) take(peer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= maxConns || l.peers[peer] >= maxConnsPerPeer {
		if !l.said {
			l.said = true // once: a peer that does this does it often
			l.log.Warn("ops connections are refused: too many at once; see who connects so often, or let fewer reach ops.address",
				zap.String("peer", peer), zap.Int("of_peer", l.peers[peer]), zap.Int("connections", l.conns))
		}
		return false
	}
	l.conns++
	l.peers[peer]++
	return true
}

func (l *limited) give(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns--
	if l.peers[peer]--; l.peers[peer] == 0 {
		delete(l.peers, peer)
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// CloseWrite lets the server end an answer before it hangs up on what is still
// being sent, or the answer would be lost on the way.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// peerOf drops the port of an address.
func peerOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
