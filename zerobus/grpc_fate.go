package zerobus

import (
	"context"
	"errors"
)

// moved says that a batch was not acknowledged by a stream that ended as
// announced. It is no failure; the batch goes to the next stream at once.
type moved struct{ progress bool }

func (m *moved) Error() string { return "the stream ended as announced" }

// suspicion says that a stream ended for a row it could not take while several
// batches were in flight on it.
type suspicion struct{ err *Error }

func (s *suspicion) Error() string { return s.err.Error() }

// fate says what the end of the stream means: *moved or *Error.
func (s *stream) fate(err error, planned, worked bool) error {
	cause := context.Cause(s.ctx)
	var broken *protocolError
	switch {
	case errors.Is(cause, errSilent):
		s.w.conns.retire(s.conn)
		return s.w.advice.late(cause)
	case errors.Is(cause, errWindow):
		return &moved{worked}
	case errors.As(cause, &broken):
		return s.w.advice.misread(opInsert, 0, broken)
	case cause != nil:
		return s.w.advice.network(opInsert, errClosed)
	}
	end := s.ending(err)
	e := s.w.advice.ended(end, append(s.w.tokens.hidden(), s.token))
	switch {
	case e.kind == transient && (planned || end.number() == numberAge):
		return &moved{worked}
	case e.kind == unauthorized:
		s.w.tokens.drop(s.token)
	}
	return e
}

// halvable is the size from which a batch is taken in halves when the service
// says RESOURCE_EXHAUSTED without more: that is also how a server answers a
// message over its own bound, and 4 MiB is the least bound it ever had.
// OUT_OF_RANGE is about nothing else. A single row is retried, unless the words
// are those of a codec: see aboutSize.
const halvable = 4<<20 - 64<<10

// verdict is the outcome of one message that was in flight, with others, when
// the stream ended.
func verdict(why error, m *message, inFlight int) error {
	var e *Error
	switch {
	case !errors.As(why, &e):
		return why
	case (e.kind == refused || e.kind == tooLarge) && inFlight > 1:
		return &suspicion{e}
	case m.rows > 1 && (e.Status == 429 && m.size > halvable || e.RPC == "OUT_OF_RANGE"):
		own := *e
		own.kind, own.Meaning, own.Remedy = tooLarge, tooBig, lowerBatch
		return &own
	}
	own := *e // each caller completes its own
	return &own
}

// streamEnd is the metric label of a stream's end.
func streamEnd(why error, planned string) string {
	var e *Error
	switch {
	case !errors.As(why, &e):
		return or(planned, StreamAnnounced) // an end at the greatest age may come without a signal
	case e.kind == refused, e.kind == tooLarge:
		return StreamRefused
	case e.kind == transient:
		return StreamFailed
	}
	return StreamBlocked
}
