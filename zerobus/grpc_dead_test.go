package zerobus_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

// recordingDialer dials bufconns whose traffic can be swallowed, as by a firewall that
// forgot the connection.
type recordingDialer struct {
	dial func(context.Context) (net.Conn, error)

	mu    sync.Mutex // guards conns
	conns []*recordedConn
}

type recordedConn struct {
	net.Conn
	mu     sync.Mutex // guards the fields below
	silent bool
	closed bool
}

func (w *recordingDialer) Dial(ctx context.Context, _ string) (net.Conn, error) {
	c, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	one := &recordedConn{Conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, one)
	return one, nil
}

func (w *recordingDialer) dialed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

// open returns how many connections the client has not closed.
func (w *recordingDialer) open() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.mu.Lock()
		if !c.closed {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// swallow makes the connections there are dead without a sign of it.
func (w *recordingDialer) swallow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.mu.Lock()
		c.silent = true
		c.mu.Unlock()
	}
}

func (c *recordedConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *recordedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	silent := c.silent
	c.mu.Unlock()
	if silent {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestAConnectionThatSwallowsEverythingIsReplaced(t *testing.T) {
	for name, inFlight := range map[string]bool{"with rows in flight": true, "while idle": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{}
				if inFlight {
					svc.handle = once(func(s *served) error { return errors.Join(s.confirm(), s.take(1), s.hang()) })
				}
				b, tap := tappedStream(t, svc)
				write(t, b.bench, rows(1))
				var early <-chan error
				if inFlight {
					early = inBackground(t.Context(), b.bench, rows(1))
					synctest.Wait()
				}
				tap.swallow()
				start := time.Now()
				write(t, b.bench, rows(1))
				if got := time.Since(start); got > 62*time.Second {
					t.Errorf("rows were taken %v after the connection died, want soon after the 60 s without an ack", got)
				}
				if early != nil {
					if err := <-early; err != nil {
						t.Errorf("Write: %v", err)
					}
				}
				if got := tap.dialed(); got != 2 {
					t.Errorf("%d connections, want 2", got)
				}
				if got := b.obs.count(b.obs.retries, zerobus.RetryTimeout); got == 0 {
					t.Errorf("retries are %v, want some for a timeout", b.obs.retries)
				}
			})
		})
	}
}

func TestAStreamIsNotConfirmedOnADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tap := tappedStream(t, &service{handle: once(func(s *served) error {
			return errors.Join(s.confirm(), s.take(1))
		})})
		write(t, b.bench, rows(1)) // the stream ends, the connection stays
		synctest.Wait()
		tap.swallow()
		start := time.Now()
		write(t, b.bench, rows(1))
		if got := time.Since(start); got > 17*time.Second || tap.dialed() != 2 {
			t.Errorf("rows were taken after %v over %d connections, want soon after the 15 s a stream has to open, over 2", got, tap.dialed())
		}
	})
}
