package zerobus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// stream is one confirmed EphemeralStream. Its write goroutine sends messages, its read
// goroutine resolves them; both end with the stream.
type stream struct {
	t        *grpcTransport
	conn     *conn
	encoding *encoding
	token    string
	slot     *slot // that it belongs to; nil: a probe stream

	ctx    context.Context // of the call; its cause is why the client ended it
	cancel context.CancelCauseFunc
	rpc    grpc.ClientStream
	id     string

	queue     chan *message // from callers
	draining  chan struct{} // closed when no message is taken any more
	halfClose chan struct{} // closed when the client's side is to be closed
	over      chan struct{} // closed when the stream has ended

	mu         sync.Mutex  // guards the fields below
	next       int64       // offset of the next message
	acked      int64       // everything up to here is durable; -1: nothing
	claimed    int64       // the highest offset in an ack; beyond acked only while its message is being sent
	inFlight   []*message  // sent and not resolved, by offset
	planned    string      // why draining is closed: a reason of StreamEnded; empty: it is not
	halfClosed bool        // halfClose is closed
	finished   bool        // nothing will be resolved any more
	broken     bool        // an answer was not the service's; no ack counts any more
	room       *time.Timer // nil: the connection has taken the stream
	watchdog   *time.Timer
	since      time.Time   // when the watchdog was last reset
	halfAt     *time.Timer // closes halfClose; nil: not needed
	deadline   time.Time   // of halfAt
	graceEnd   *time.Timer // ends the stream after that
}

// Reasons for which the client cancels a stream.
var (
	errUnconfirmed = fmt.Errorf("the stream was not confirmed within %v", openTimeout)
	errNoRoom      = errors.New("the service allows no more streams on the connection")
	errSilent      = fmt.Errorf("no ack came within %v", ackTimeout)
	errGraceOver   = errors.New("the stream was left with messages unacknowledged") // after an announced end
)

// protocolError is an answer that the service's protocol does not know.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return e.text }

// open opens a stream for the present encoding and waits until the service has confirmed
// it. in is the slot it is for; nil: it is a probe stream. ownConn opens it on a connection
// of its own.
func (t *grpcTransport) open(ctx context.Context, in *slot, ownConn bool) (*stream, error) {
	if t.isClosed() {
		return nil, t.c.rem.network(opInsert, errClosed)
	}
	token, err := t.c.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	s, err := t.openOnce(ctx, in, ownConn, token)
	if err != nil && errors.Is(context.Cause(s.ctx), errNoRoom) {
		s, err = t.openOnce(ctx, in, ownConn, token)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openOnce is open on one connection. It returns the stream also if that did not open.
func (t *grpcTransport) openOnce(ctx context.Context, in *slot, ownConn bool, token string) (*stream, error) {
	s := &stream{t: t, encoding: t.encoding.Load(), token: token, slot: in, acked: -1, claimed: -1,
		queue: make(chan *message), draining: make(chan struct{}), halfClose: make(chan struct{}), over: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(t.ctx)
	var err error
	if s.conn, err = t.conns.get(ownConn); err != nil {
		s.cancel(err)
		return s, t.c.rem.network(opInsert, err)
	}
	open := false
	defer func() {
		if !open { // also after a panic
			s.cancel(err)
			s.conn.put(s.rpc != nil)
		}
	}()
	if err = s.create(ctx); err != nil {
		return s, err
	}
	if err = t.register(s); err != nil {
		err = t.c.rem.network(opInsert, err)
		return s, err
	}
	open = true
	return s, nil
}

// create does the handshake. ctx and openTimeout bound it, but not the stream itself.
func (s *stream) create(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	defer stop()
	timer := time.AfterFunc(openTimeout, func() { s.cancel(errUnconfirmed) })
	defer timer.Stop()

	table := s.t.c.set.table.String()
	call := metadata.AppendToOutgoingContext(s.ctx, "authorization", "Bearer "+s.token, tableHeader, table)
	var err error
	s.awaitRoom()
	s.rpc, err = s.conn.NewStream(call, &zerobuspb.Zerobus_ServiceDesc.Streams[0], zerobuspb.Zerobus_EphemeralStream_FullMethodName)
	s.taken()
	if err != nil {
		return s.refusedToOpen(ctx, err)
	}
	s.conn.admit()
	create := &zerobuspb.CreateIngestStreamRequest{TableName: proto.String(table), RecordType: zerobuspb.RecordType_JSON.Enum()}
	if s.encoding.format == FormatProtobuf {
		create.RecordType, create.DescriptorProto = zerobuspb.RecordType_PROTO.Enum(), s.encoding.descriptor
	}
	// If sending fails, the answer holds the reason.
	_ = s.rpc.SendMsg(&zerobuspb.EphemeralStreamRequest{Payload: &zerobuspb.EphemeralStreamRequest_CreateStream{CreateStream: create}})
	var answer zerobuspb.EphemeralStreamResponse
	if err := s.rpc.RecvMsg(&answer); err != nil {
		return s.refusedToOpen(ctx, err)
	}
	if s.id = databricks.Clean(answer.GetCreateStreamResponse().GetStreamId(), 100, s.t.c.tokens.secrets(s.token)...); s.id == "" {
		return s.t.c.rem.misread(opInsert, 0, &protocolError{"the first answer on the stream names no stream"})
	}
	if !stop() || !timer.Stop() {
		return s.refusedToOpen(ctx, context.Cause(s.ctx)) // it was cancelled at the last moment
	}
	return nil
}

// awaitRoom cancels the stream if the connection has been established for roomTimeout and
// does not take it: the service allows no more streams on it, and gRPC waits until one of
// them ends.
func (s *stream) awaitRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	established := false
	s.room = time.AfterFunc(roomTimeout/10, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.room == nil: // it was taken just now
		case s.conn.GetState() != connectivity.Ready:
			established = false
			s.room.Reset(roomTimeout / 10)
		case !established:
			established = true
			s.room.Reset(roomTimeout)
		default:
			s.conn.full()
			s.cancel(errNoRoom)
		}
	})
}

// taken ends awaitRoom.
func (s *stream) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Stop()
	s.room = nil
}

// refusedToOpen explains a stream that did not open.
func (s *stream) refusedToOpen(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	cause := context.Cause(s.ctx)
	switch {
	case errors.Is(cause, errUnconfirmed):
		s.t.conns.retire(s.conn)
		return s.t.c.rem.silent(cause)
	case cause != nil:
		return s.t.c.rem.network(opInsert, cause)
	}
	if fault := s.conn.creds.last(); fault != nil && !s.end(nil).answered {
		return s.t.c.rem.network(opInsert, fault)
	}
	return s.ended(err)
}

// end gathers what came with the end of the stream. Called only once it is over, or did not
// open.
func (s *stream) end(err error) streamEnd {
	var header, trailer metadata.MD
	if s.rpc != nil {
		header, _ = s.rpc.Header()
		trailer = s.rpc.Trailer()
	}
	return newStreamEnd(err, s.id, s.id != "", header, trailer)
}

// ended explains how the service ended the stream.
func (s *stream) ended(err error) *Error {
	e := s.t.c.rem.ended(s.end(err), s.t.c.tokens.secrets(s.token))
	if e.kind == unauthorized {
		s.t.c.tokens.drop(s.token)
	}
	return e
}

// accepts reports whether the stream takes messages.
func (s *stream) accepts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.planned == "" && !s.finished
}

// deliver sends m and waits for its ack. If ctx ends first, m stays in flight; its rows are
// copies.
func (s *stream) deliver(ctx context.Context, m *message) error {
	select {
	case s.queue <- m:
	case <-s.draining:
		return s.rotated(m)
	case <-s.over:
		return s.rotated(m)
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

// rotated drops a message that the stream does not take.
func (s *stream) rotated(m *message) error {
	m.drop()
	s.mu.Lock()
	defer s.mu.Unlock()
	return &streamRotated{progress: s.acked >= 0}
}

// write sends messages until the stream ends or is to be closed. Sending blocks while the
// service's window is full: that is the backpressure. The watchdog and an announced end
// interrupt it.
func (s *stream) write() {
	for {
		select {
		case m := <-s.queue:
			if !s.accept(m) {
				m.done <- s.rotated(m)
			} else if s.rpc.SendMsg(m) == nil { // else read learns why it failed
				s.sent(m)
			}
		case <-s.halfClose:
			_ = s.rpc.CloseSend() // never fails
			return
		case <-s.over:
			return
		}
	}
}

// accept gives m its offset and counts it as in flight.
func (s *stream) accept(m *message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.planned != "" || s.finished {
		return false
	}
	m.offset = s.next
	s.next++
	s.inFlight = append(s.inFlight, m)
	if len(s.inFlight) == 1 {
		s.resetWatchdog()
	}
	return true
}

// resetWatchdog gives the service another ackTimeout. Called with mu held.
func (s *stream) resetWatchdog() {
	s.since = time.Now()
	if s.watchdog != nil {
		s.watchdog.Reset(ackTimeout)
		return
	}
	s.watchdog = time.AfterFunc(ackTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.inFlight) > 0 && time.Since(s.since) >= ackTimeout { // else an ack came just now
			s.cancel(errSilent)
		}
	})
}

// read resolves messages until the stream ends.
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
			s.drain(max(payload.CloseStreamSignal.GetDuration().AsDuration(), 0), StreamAnnounced)
		}
		// Anything else is of a later release, and not for this client.
	}
}

// ack takes an ack: everything up to an offset is durable. Acks may skip offsets, repeat,
// and follow a higher one. One without an offset, or for what was never sent, is not the
// service's: it ends the stream, and no ack from then on counts.
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

// sent records that gRPC took m, whole. An ack for it counts from now on.
func (s *stream) sent(m *message) {
	s.mu.Lock()
	m.sent = true
	early := m.offset <= s.claimed
	s.mu.Unlock()
	if early {
		s.resolve()
	}
}

// resolve ends the messages that were sent and acknowledged.
func (s *stream) resolve() {
	s.mu.Lock()
	n := 0
	for !s.broken && n < len(s.inFlight) && s.inFlight[n].sent && s.inFlight[n].offset <= s.claimed {
		n++
	}
	durable := slices.Clone(s.inFlight[:n])
	clear(s.inFlight[:n])
	s.inFlight = s.inFlight[n:]
	if n > 0 {
		s.acked = durable[n-1].offset
		if len(s.inFlight) > 0 {
			s.resetWatchdog()
		} else {
			s.watchdog.Stop()
			s.inFlight = nil
			if s.planned != "" {
				s.closeHalf()
			}
		}
	}
	s.mu.Unlock()
	for _, m := range durable {
		m.release()
		m.done <- nil
	}
}

// drain ends the stream in order: it takes no more messages, waits at most d for acks, then
// closes the client's side, and cancels after closeGrace. Another call only shortens that.
func (s *stream) drain(d time.Duration, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return
	}
	d = min(d, ackTimeout) // the watchdog ends it then
	at := time.Now().Add(d)
	switch {
	case s.planned == "":
		s.planned = why
		close(s.draining)
	case s.halfClosed || !at.Before(s.deadline):
		return
	}
	s.deadline = at
	switch {
	case len(s.inFlight) == 0 || d == 0:
		s.closeHalf()
	case s.halfAt != nil:
		s.halfAt.Reset(d)
	default:
		s.halfAt = time.AfterFunc(d, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.closeHalf()
		})
	}
}

// closeHalf closes the client's side now, and cancels the stream after closeGrace. Called
// with mu held.
func (s *stream) closeHalf() {
	if s.halfClosed {
		return
	}
	s.halfClosed = true
	close(s.halfClose)
	s.graceEnd = time.AfterFunc(closeGrace, func() { s.cancel(errGraceOver) })
}

// finish ends what is in flight when the stream has ended with err.
func (s *stream) finish(err error) {
	s.mu.Lock()
	left, planned, acked := s.inFlight, s.planned, s.acked >= 0
	s.inFlight, s.finished = nil, true
	for _, t := range []*time.Timer{s.watchdog, s.halfAt, s.graceEnd} {
		if t != nil {
			t.Stop()
		}
	}
	s.mu.Unlock()
	close(s.over)
	why := s.classifyEnd(err, planned != "", acked)
	defer func() { // also where the observer panics
		if s.slot != nil {
			s.slot.ended(acked, is[*Error](why) && kindOf(why) == transient) // an end for a row is no failure
		}
		for _, m := range left {
			m.release()
			m.done <- outcomeOf(why, m, len(left))
		}
		if acked && !errors.Is(context.Cause(s.ctx), errSilent) {
			s.t.conns.works()
		}
		s.cancel(err)
		s.conn.put(true)
	}()
	s.t.unregister(s, endLabel(why, planned))
}

// panicked ends the stream after a panic in one of its goroutines. What is in flight is
// sent again on another, if it is not acknowledged.
func (s *stream) panicked(err error) {
	s.t.c.panicked(fmt.Errorf("stream %s of %s: %w", s.id, s.t.c.set.table, err))
	s.cancel(err) // ends read, where it still runs
}

// streamRotated reports that a batch was not acknowledged by a stream that ended as announced.
// It is no failure; the batch goes to the next stream at once.
type streamRotated struct{ progress bool }

func (*streamRotated) Error() string { return "the stream ended as announced" }

// ambiguousRefusal reports that a stream ended for a row it could not take while several
// batches were in flight on it.
type ambiguousRefusal struct{ err *Error }

func (r *ambiguousRefusal) Error() string { return r.err.Error() }

// classifyEnd returns what the end of the stream means: *streamRotated or *Error.
func (s *stream) classifyEnd(err error, planned, acked bool) error {
	cause := context.Cause(s.ctx)
	broken, isBroken := errors.AsType[*protocolError](cause)
	switch {
	case errors.Is(cause, errSilent):
		s.t.conns.retire(s.conn)
		return s.t.c.rem.silent(cause)
	case errors.Is(cause, errGraceOver):
		return &streamRotated{acked}
	case isBroken:
		return s.t.c.rem.misread(opInsert, 0, broken)
	case cause != nil:
		return s.t.c.rem.network(opInsert, errClosed)
	}
	e := s.ended(err)
	if e.kind == transient && (planned || s.end(err).number() == numberAge) {
		return &streamRotated{acked}
	}
	return e
}

// splittable is the size from which a batch is split on a RESOURCE_EXHAUSTED: servers also
// answer so to a message over their own bound, which was never below 4 MiB. OUT_OF_RANGE is
// about nothing else. A single row is retried, except on the texts of aboutSize.
const splittable = 4<<20 - 64<<10

// outcomeOf returns the outcome of one message that was in flight when the stream ended.
func outcomeOf(why error, m *message, inFlight int) error {
	e, ok := errors.AsType[*Error](why)
	if !ok {
		return why
	}
	if (e.kind == refused || e.kind == tooLarge) && inFlight > 1 {
		return &ambiguousRefusal{e}
	}
	own := *e // each caller completes its own
	if m.rows > 1 && (e.Status == 429 && m.size > splittable || e.RPC == "OUT_OF_RANGE") {
		own.kind, own.Meaning, own.Remedy = tooLarge, causeTooLarge.meaning, causeTooLarge.remedy
	}
	return &own
}

// endLabel is the metric label of a stream's end.
func endLabel(why error, planned string) string {
	e, ok := errors.AsType[*Error](why)
	switch {
	case !ok:
		return cmp.Or(planned, StreamAnnounced) // the end at the maximum age may come without a signal
	case e.kind == refused, e.kind == tooLarge:
		return StreamRefused
	case e.kind == transient:
		return StreamFailed
	}
	return StreamBlocked
}
