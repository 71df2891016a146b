package zerobus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// stream is one confirmed EphemeralStream. Its write goroutine sends messages,
// its read goroutine settles them; both end with the stream.
type stream struct {
	w     *wire
	conn  *conn
	enc   *encoding
	token string
	slot  *slot // whose stream it is; nil: a side stream

	ctx    context.Context // of the call; its cause says why we ended it
	cancel context.CancelCauseFunc
	rpc    grpc.ClientStream
	id     string

	queue chan *message // what callers hand over
	gone  chan struct{} // closed when no message is taken any more
	half  chan struct{} // closed when our side is to be closed
	over  chan struct{} // closed when the stream has ended

	mu       sync.Mutex // guards the fields below
	next     int64      // offset of the next message
	acked    int64      // everything up to here is durable; -1: nothing
	claimed  int64      // the highest offset an ack named; more than acked only while its message is being sent
	flying   []*message // sent and not settled, by offset
	leaving  bool       // gone is closed
	halved   bool       // half is closed
	planned  string     // why we leave: one of the reasons of StreamEnded; empty: we do not
	finished bool       // nothing will be settled any more
	broken   bool       // an answer was not the service's; none resolves anything any more
	watchdog *time.Timer
	since    time.Time   // when the watchdog was last put off
	halfAt   *time.Timer // closes half; nil: it is closed, or nobody leaves
	deadline time.Time   // of halfAt
	boundAt  *time.Timer // ends the stream after that
}

func newStream(w *wire, conn *conn, enc *encoding, token string) *stream {
	s := &stream{w: w, conn: conn, enc: enc, token: token, acked: -1, claimed: -1,
		queue: make(chan *message), gone: make(chan struct{}), half: make(chan struct{}), over: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(w.life)
	return s
}

// open reports whether the stream takes messages.
func (s *stream) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.leaving && !s.finished
}

// deliver sends m and waits for its ack. When it returns early because ctx
// ended, m stays in flight; its rows are copies.
func (s *stream) deliver(ctx context.Context, m *message) error {
	select {
	case s.queue <- m:
	case <-s.gone:
		m.drop()
		return &moved{progress: s.worked()}
	case <-s.over:
		m.drop()
		return &moved{progress: s.worked()}
	case <-ctx.Done():
		m.drop()
		return context.Cause(ctx)
	}
	select {
	case err := <-m.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// worked reports whether the stream acknowledged anything.
func (s *stream) worked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked >= 0
}

// write sends what callers hand over until the stream ends or is to be closed.
// Sending blocks while the service's window is full: that is the backpressure.
// The watchdog and the announced end break it off.
func (s *stream) write() {
	for {
		select {
		case m := <-s.queue:
			if s.take(m) && s.rpc.SendMsg(m) == nil { // read gets to know why it failed
				s.sent(m)
			}
		case <-s.half:
			_ = s.rpc.CloseSend() // never fails
			return
		case <-s.over:
			return
		}
	}
}

// take gives m its offset and counts it as in flight.
func (s *stream) take(m *message) bool {
	s.mu.Lock()
	if s.leaving || s.finished {
		progress := s.acked >= 0
		s.mu.Unlock()
		m.drop()
		m.done <- &moved{progress}
		return false
	}
	defer s.mu.Unlock()
	m.offset = s.next
	s.next++
	s.flying = append(s.flying, m)
	if len(s.flying) == 1 {
		s.watch()
	}
	return true
}

// watch gives the service another ackTimeout. Called with mu held.
func (s *stream) watch() {
	s.since = time.Now()
	if s.watchdog != nil {
		s.watchdog.Reset(ackTimeout)
		return
	}
	s.watchdog = time.AfterFunc(ackTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.flying) > 0 && time.Since(s.since) >= ackTimeout { // else an ack came just now
			s.cancel(errSilent)
		}
	})
}

// read settles messages until the stream ends.
func (s *stream) read() {
	for {
		var answer zerobuspb.EphemeralStreamResponse
		err := s.rpc.RecvMsg(&answer)
		if err != nil {
			s.finish(err)
			return
		}
		switch payload := answer.GetPayload().(type) {
		case *zerobuspb.EphemeralStreamResponse_IngestRecordResponse:
			s.ack(payload.IngestRecordResponse.DurabilityAckUpToOffset)
		case *zerobuspb.EphemeralStreamResponse_CloseStreamSignal:
			s.leaveWithin(window(payload.CloseStreamSignal.GetDuration()), StreamAnnounced)
		}
		// Anything else is of a later release, and not for us.
	}
}

// window reads the duration of a close signal; absent or negative is 0.
func window(d *durationpb.Duration) time.Duration { return max(d.AsDuration(), 0) }

// ack takes an ack: everything up to an offset is durable. Acks may skip offsets,
// repeat, and come behind a later one, which they take nothing from. One without
// an offset, or for what was never sent, is not the service's: it ends the
// stream, and neither it nor what comes behind it resolves anything.
func (s *stream) ack(upTo *int64) {
	s.mu.Lock()
	var wrong string
	switch {
	case upTo == nil:
		wrong = "an ack names no offset"
	case *upTo >= s.next:
		wrong = "an ack is for an offset that was not sent"
	default:
		s.claimed = max(s.claimed, *upTo)
	}
	s.broken = s.broken || wrong != ""
	s.mu.Unlock()
	if wrong != "" {
		s.cancel(&protocolError{wrong})
		return
	}
	s.resolve()
}

// sent notes that gRPC took m, whole. An ack for it counts from now on.
func (s *stream) sent(m *message) {
	s.mu.Lock()
	m.sent = true
	early := m.offset <= s.claimed
	s.mu.Unlock()
	if early {
		s.resolve()
	}
}

// resolve settles the messages that were sent and acknowledged.
func (s *stream) resolve() {
	s.mu.Lock()
	n := 0
	for !s.broken && n < len(s.flying) && s.flying[n].sent && s.flying[n].offset <= s.claimed {
		n++
	}
	durable := slices.Clone(s.flying[:n])
	clear(s.flying[:n])
	s.flying = s.flying[n:]
	if n > 0 {
		s.acked = durable[n-1].offset
		if len(s.flying) > 0 {
			s.watch()
		} else {
			s.watchdog.Stop()
			s.flying = nil
			if s.leaving {
				s.closeHalf()
			}
		}
	}
	s.mu.Unlock()
	for _, m := range durable {
		m.settle()
		m.done <- nil
	}
}

// leaveWithin ends the stream in order: nothing is sent on it from now on, acks
// are awaited for as long as d, then our side is closed, and after closeGrace
// the stream is gone. Called again it only ever shortens that.
func (s *stream) leaveWithin(d time.Duration, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return
	}
	d = min(d, ackTimeout) // no later than the watchdog ends it
	at := time.Now().Add(d)
	switch {
	case !s.leaving:
		s.leaving, s.planned = true, why
		close(s.gone)
	case s.halved || !at.Before(s.deadline):
		return
	}
	s.deadline = at
	if len(s.flying) == 0 || d == 0 {
		s.closeHalf()
		return
	}
	if s.halfAt != nil {
		s.halfAt.Reset(d)
		return
	}
	s.halfAt = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closeHalf()
	})
}

// closeHalf has our side closed, now, and the stream ended a little later.
// Called with mu held.
func (s *stream) closeHalf() {
	if s.halved {
		return
	}
	s.halved = true
	close(s.half)
	s.boundAt = time.AfterFunc(closeGrace, func() { s.cancel(errWindow) })
}

// finish settles what is left when the stream has ended with err.
func (s *stream) finish(err error) {
	s.mu.Lock()
	left, planned, worked := s.flying, s.planned, s.acked >= 0
	s.flying, s.finished = nil, true
	for _, t := range []*time.Timer{s.watchdog, s.halfAt, s.boundAt} {
		if t != nil {
			t.Stop()
		}
	}
	s.mu.Unlock()
	close(s.over)
	why := s.fate(err, planned != "", worked)
	s.w.discharge(s, streamEnd(why, planned))
	if s.slot != nil {
		// An announced end is no failure, nor is one for a row.
		var e *Error
		s.slot.ended(worked, errors.As(why, &e) && e.kind == transient)
	}
	for _, m := range left {
		m.settle()
		m.done <- verdict(why, m, len(left))
	}
	s.cancel(err)
	s.w.conns.put(s.conn)
}
