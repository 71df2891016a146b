package ops

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// spareDescriptors are held for connections to the ops endpoints, so that a
	// process that has run out of descriptors can still say so.
	spareDescriptors = 4
	// spareEvery is how often a listener without a descriptor tries again.
	spareEvery = 100 * time.Millisecond
	// spareReport is the least time between two log lines about a shortage.
	spareReport = 10 * time.Minute
)

// spared is a listener that keeps file descriptors back. A connection that finds
// none free gets one of them, and gives it back when it is closed.
type spared struct {
	net.Listener
	log    *zap.Logger
	closed chan struct{} // by Close
	once   sync.Once

	mu     sync.Mutex // guards the fields below
	spares []*os.File
	said   time.Time // when a shortage was last reported
}

func newSpared(l net.Listener, log *zap.Logger) *spared {
	s := &spared{Listener: l, log: log, closed: make(chan struct{})}
	s.refill()
	return s
}

// Accept implements net.Listener. Where net/http would log each try, it logs a
// shortage now and then.
func (s *spared) Accept() (net.Conn, error) {
	for {
		conn, err := s.Listener.Accept()
		switch {
		case err == nil:
			s.refill()
			return &sparedConn{Conn: conn, l: s}, nil
		case !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE):
			return nil, err
		}
		s.report(err)
		// The system refuses even to wait for a connection without a descriptor
		// for it. One is given up when there is a connection: others would take
		// it meanwhile.
		if s.pending() && s.give() {
			continue
		}
		timer := time.NewTimer(spareEvery)
		select {
		case <-timer.C:
		case <-s.closed:
		}
		timer.Stop()
	}
}

func (s *spared) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.said) >= spareReport {
		s.said = now
		s.log.Warn("no file descriptor is left for connections; raise the limit: ulimit -n, LimitNOFILE= in the systemd unit, --ulimit nofile= of docker", zap.Error(err))
	}
}

// give closes one spare descriptor and reports whether there was one.
func (s *spared) give() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.spares) - 1
	if last < 0 {
		return false
	}
	s.spares[last].Close()
	s.spares = s.spares[:last]
	return true
}

// refill takes spare descriptors as far as there are any.
func (s *spared) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.spares) < spareDescriptors {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		s.spares = append(s.spares, f)
	}
}

// Close implements net.Listener.
func (s *spared) Close() error {
	s.once.Do(func() {
		close(s.closed)
		for s.give() {
			continue
		}
	})
	return s.Listener.Close()
}

type sparedConn struct {
	net.Conn
	l *spared
}

// Close implements net.Conn.
func (c *sparedConn) Close() error {
	err := c.Conn.Close()
	select {
	case <-c.l.closed:
	default:
		c.l.refill()
	}
	return err
}

// CloseWrite is net.TCPConn's.
func (c *sparedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
