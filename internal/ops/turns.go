package ops

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/ops/access"
)

const (
	// maxTurns large answers are made and sent at a time, of one path; maxTurnsPerPeer
	// is how many of one address are, or wait to be.
	maxTurns        = 4
	maxTurnsPerPeer = 3
	// turnTime is how long an answer may take to send while another waits.
	turnTime = time.Second
)

// turns bounds how many answers that are large are made and sent at a time. When
// all turns are taken, the answer that has been on its way longest is cut off: a
// peer that reads slowly gives way to one that does not.
type turns struct {
	slots chan struct{}

	mu      sync.Mutex // guards the fields below
	peers   map[string]int
	sending map[*turn]struct{}
}

func newTurns() *turns {
	return &turns{slots: make(chan struct{}, maxTurns), peers: make(map[string]int), sending: make(map[*turn]struct{})}
}

// turn is an answer that has its turn, and is entered with its first byte.
type turn struct {
	http.ResponseWriter
	of    *turns
	once  sync.Once
	since time.Time // of the first byte
}

// take hands next one turn for each request.
func (t *turns) take(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := access.Peer(r.RemoteAddr)
		if !t.enter(peer) {
			w.Header().Set("Retry-After", "1")
			writeText(w, http.StatusServiceUnavailable, "too many requests of this address at once; try again in a second\n")
			return
		}
		defer t.leave(peer)
		if !t.wait(r.Context()) {
			return
		}
		defer func() { <-t.slots }()
		answer := &turn{ResponseWriter: w, of: t}
		defer answer.end()
		next.ServeHTTP(answer, r)
	})
}

func (t *turns) enter(peer string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[peer] >= maxTurnsPerPeer {
		return false
	}
	t.peers[peer]++
	return true
}

func (t *turns) leave(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers[peer]--; t.peers[peer] == 0 {
		delete(t.peers, peer)
	}
}

// wait returns with a slot, or without when ctx has ended.
func (t *turns) wait(ctx context.Context) bool {
	for {
		next := time.NewTimer(t.cutLongest())
		select {
		case t.slots <- struct{}{}:
			next.Stop()
			return true
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return false
		}
	}
}

// cutLongest cuts off the answer that has been sent longest if that is too long
// and no turn is free, and returns when to look again.
func (t *turns) cutLongest() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var longest *turn
	for a := range t.sending {
		if longest == nil || a.since.Before(longest.since) {
			longest = a
		}
	}
	if longest == nil || len(t.slots) < cap(t.slots) {
		return turnTime
	}
	if left := turnTime - time.Since(longest.since); left > 0 {
		return left
	}
	delete(t.sending, longest)
	// The write that waits fails, and the handler returns. A writer without
	// deadlines, of a test, is left alone.
	_ = http.NewResponseController(longest.ResponseWriter).SetWriteDeadline(time.Now())
	return turnTime
}

// Write implements http.ResponseWriter.
func (a *turn) Write(p []byte) (int, error) {
	a.once.Do(func() {
		a.of.mu.Lock()
		defer a.of.mu.Unlock()
		a.since = time.Now()
		a.of.sending[a] = struct{}{}
	})
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *turn) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *turn) end() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	delete(a.of.sending, a)
}
