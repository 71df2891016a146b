package zerobus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// slot is the place of one shared stream: it has one at a time, opens it when
// somebody needs it, and replaces it when it is gone or is about to go. An old
// stream may still be waiting for its last acks when the next is in its place.
type slot struct {
	w    *wire
	room *semaphore.Weighted // of bytes in flight
	load atomic.Int64        // bytes in flight, or waiting for room

	mu       sync.Mutex // guards the fields below
	cur      *stream    // nil: none yet
	opening  *opening   // nil: nobody is opening one
	failures int        // streams in a row that did not open, or failed before they acknowledged anything
	retryAt  time.Time  // no opening before
}

// opening is an attempt to open a stream; its results may be read once done is
// closed.
type opening struct {
	done      chan struct{}
	stream    *stream
	err       error
	abandoned bool // the opening caller's context ended: the outcome says nothing
}

// reopenMax bounds the pause between streams that come to nothing. Each waiting
// batch has its own, longer pauses; this one keeps hundreds of them from
// opening streams by turns.
const reopenMax = 5 * time.Second

func newSlot(w *wire) *slot { return &slot{w: w, room: semaphore.NewWeighted(w.set.MaxInFlight)} }

// deliver sends the batch over the slot's stream and waits for the ack. Without rows
// it makes sure that there is a stream.
func (s *slot) deliver(ctx context.Context, b *batch) error {
	if len(b.rows) == 0 {
		_, err := s.stream(ctx)
		return err
	}
	bytes := min(int64(bodySize(b.rows)), s.w.set.MaxInFlight)
	s.load.Add(bytes)
	if err := s.room.Acquire(ctx, bytes); err != nil {
		s.load.Add(-bytes)
		return context.Cause(ctx)
	}
	leave := func() {
		s.room.Release(bytes)
		s.load.Add(-bytes)
	}
	st, err := s.stream(ctx)
	if err == nil && st.enc != b.form {
		err = errOldForm
	}
	if err != nil {
		leave()
		return err
	}
	m := newMessage(b.rows, st.enc.format == FormatJSON)
	m.settle = leave
	return st.deliver(ctx, m)
}

// stream returns the stream to send on, opening one if need be. It waits for
// somebody else's opening no longer than ctx lives.
func (s *slot) stream(ctx context.Context) (*stream, error) {
	for {
		s.mu.Lock()
		if s.cur != nil && s.cur.open() {
			if s.cur.enc == s.w.enc.Load() {
				defer s.mu.Unlock()
				return s.cur, nil
			}
			s.cur.leaveWithin(ackTimeout, StreamLeft) // rows have another form now; what it holds it may finish
		}
		o, mine := s.opening, false
		if o == nil {
			o, mine = &opening{done: make(chan struct{})}, true
			s.opening = o
		}
		wait := time.Until(s.retryAt)
		s.mu.Unlock()
		if mine {
			s.fill(ctx, o, wait)
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !o.abandoned || mine {
			return o.stream, o.err
		}
	}
}

// fill opens a stream and publishes the outcome in o.
func (s *slot) fill(ctx context.Context, o *opening, wait time.Duration) {
	if wait > 0 {
		sleep(ctx, wait)
	}
	st, err := s.w.open(ctx, s, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(o.done)
	s.opening = nil
	o.stream, o.err = st, err
	o.abandoned = err != nil && ctx.Err() != nil
	switch {
	case err == nil:
		s.cur = st
	case !o.abandoned && kindOf(err) == transient:
		s.failed()
	}
}

// ended hears of the end of a stream of this slot: whether it acknowledged
// anything, and whether the end was a failure of the service.
func (s *slot) ended(worked, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case worked:
		s.failures, s.retryAt = 0, time.Time{}
	case failed:
		s.failed()
	}
}

// failed puts the next opening off. Called with mu held.
func (s *slot) failed() {
	s.retryAt = time.Now().Add(s.w.jitter(min(reopenMax, backoffBase<<min(s.failures, 10))))
	s.failures++
}
