package emulator

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// requests counts the requests under way, for Close to wait on.
type requests struct {
	stop chan struct{} // closed when Close begins: waits end
	idle chan struct{} // closed when Close has begun and none is under way

	mu     sync.Mutex
	count  int
	closed bool
}

func (r *requests) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.count++
	return true
}

func (r *requests) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count--
	if r.closed && r.count == 0 {
		close(r.idle)
	}
}

func (r *requests) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	close(r.stop)
	if r.count == 0 {
		close(r.idle)
	}
}

func (r *requests) underWay() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// guard keeps count of the requests of h.
func (r *requests) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.enter() {
			panic(http.ErrAbortHandler)
		}
		defer r.leave()
		h.ServeHTTP(w, req)
	})
}

// wait sleeps for d. It reports false when the client left; Close ends it
// early.
func (r *requests) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.stop:
		return true
	case <-ctx.Done():
		return false
	}
}

// connSet holds the connections that have not sent a request yet. Shutdown
// would wait up to five seconds for each of them.
type connSet struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *connSet) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.conns, c)
		return
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[c] = struct{}{}
}

func (s *connSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // nothing was asked on it
	}
}
