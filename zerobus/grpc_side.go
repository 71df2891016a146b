package zerobus

import (
	"context"
	"sync"
	"time"
)

// sides are streams with one message in flight each: what ends one of them was
// that message. They are opened when needed and closed when idle.
type sides struct {
	w     *wire
	turns chan struct{} // holds one element per stream there may be

	mu   sync.Mutex // guards idle
	idle []*side    // the one used last is last
}

// side is a side stream nobody uses, and when it goes for that.
type side struct {
	*stream
	expiry *time.Timer
}

const (
	sideStreams = 8                // searches at once; each holds one batch
	sideIdle    = 10 * time.Second // after which a side stream is closed
)

func newSides(w *wire) *sides {
	s := &sides{w: w, turns: make(chan struct{}, sideStreams)}
	for range sideStreams {
		s.turns <- struct{}{}
	}
	return s
}

// deliver sends the batch over a side stream and waits for the ack.
func (s *sides) deliver(ctx context.Context, b *batch) error {
	select {
	case <-s.turns:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	alone := b.alone
	var st *stream
	if !alone {
		st = s.take()
	}
	if st == nil {
		var err error
		if st, err = s.w.open(ctx, nil, alone); err != nil {
			s.turns <- struct{}{}
			return err
		}
	}
	if old := st.enc != b.form; old || len(b.rows) == 0 {
		s.put(st)
		s.turns <- struct{}{}
		if old {
			return errOldForm
		}
		return nil
	}
	m := newMessage(b.rows, st.enc.format == FormatJSON)
	m.settle = func() { // the caller may be gone by then
		if alone {
			st.leaveWithin(0, StreamLeft)
		} else {
			s.put(st)
		}
		s.turns <- struct{}{}
	}
	return st.deliver(ctx, m)
}

// take returns an idle stream of the present form of rows; nil: there is none.
func (s *sides) take() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		last := s.idle[n-1]
		s.idle = s.idle[:n-1]
		last.expiry.Stop()
		if last.enc == s.w.enc.Load() && last.open() {
			return last.stream
		}
		last.leaveWithin(0, StreamLeft)
	}
	return nil
}

// put keeps a stream that is still open for the next search.
func (s *sides) put(st *stream) {
	if !st.open() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, &side{stream: st, expiry: time.AfterFunc(sideIdle, func() { st.leaveWithin(0, StreamLeft) })})
}
