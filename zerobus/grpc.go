package zerobus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/datafly/bridge/internal/panics"
)

// grpcTransport writes over databricks.zerobus.Zerobus/EphemeralStream.
//
// Callers share a few streams, the slots. A batch is one message with one offset; an ack
// names the offset up to which everything is durable. A row that can never be ingested ends its
// stream, and the status does not say which row. So every batch in flight is sent again,
// alone, on a probe stream.
//
// Names, numbers and rules are those of Databricks' published zerobus_service.proto and its
// clients: https://github.com/databricks/zerobus-sdk
type grpcTransport struct {
	c        *route
	conns    *lease
	slots    []*slot
	probes   *probeStreams
	encoding atomic.Pointer[encoding] // of rows; streams of another are replaced
	fields   fieldNumbers

	ctx    context.Context // of every stream; ends with close
	cancel context.CancelFunc

	running sync.WaitGroup // the goroutines of streams

	mu     sync.Mutex // guards the fields below
	live   []*stream  // in order of opening
	closed bool
	opened bool // a stream was opened once
}

const (
	openTimeout  = 15 * time.Second       // for a stream to be confirmed
	roomTimeout  = time.Second            // for an established connection to take a stream
	ackTimeout   = 60 * time.Second       // for the next ack, while something is in flight
	closeGrace   = 500 * time.Millisecond // for the last acks after the client closed its side
	idleRotation = 2                      // resends in a row over streams that ended as announced without an ack
)

// errClosed ends a batch after Close.
var errClosed = errors.New("the client is closed")

// errOldEncoding ends a batch whose rows were encoded before the streams changed to another
// encoding. Such rows are never sent: their fields would be misread or lost.
var errOldEncoding = errors.New("streams have another encoding by now")

func newGRPCTransport(c *route) *grpcTransport {
	t := &grpcTransport{c: c, conns: &lease{all: c.set.Connections, set: c.set}}
	//nolint:forbidigo // ends with Close; streams outlive the Write that opened them
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for range t.c.set.Streams {
		t.slots = append(t.slots, &slot{t: t, window: semaphore.NewWeighted(int64(t.c.set.MaxInFlight))})
	}
	t.probes = &probeStreams{t: t, turns: make(chan struct{}, probeStreamsMax)}
	t.encoding.Store(&encoding{format: FormatJSON})
	return t
}

func (t *grpcTransport) size(rows [][]byte) int64 { return int64(headMax + bodySize(rows)) }

// send writes the batch over a shared stream, and over further ones after announced ends.
func (t *grpcTransport) send(ctx context.Context, b *batch) error {
	if b.ownConn {
		return t.probe(ctx, b)
	}
	err := t.repeatRotated(func() error { return t.leastLoaded().deliver(ctx, b) })
	if is[*ambiguousRefusal](err) {
		return t.probe(ctx, b)
	}
	return err
}

// probe writes the batch over a stream of its own, and over a connection of its own if the
// batch asks for that.
func (t *grpcTransport) probe(ctx context.Context, b *batch) error {
	return t.repeatRotated(func() error { return t.probes.deliver(ctx, b) })
}

// repeatRotated repeats an attempt while the ends of streams were announced: that is no failure,
// so it is neither delayed nor reported.
func (t *grpcTransport) repeatRotated(attempt func() error) error {
	for idle := 0; ; {
		err := attempt()
		rotated, ok := errors.AsType[*streamRotated](err)
		if !ok {
			return err
		}
		if idle++; rotated.progress {
			idle = 0
		}
		if idle > idleRotation {
			err := fmt.Errorf("%d streams in a row were closed before they took anything", idle)
			return t.c.rem.byCause(&Error{Op: opInsert, Err: err, kind: transient, reason: RetryUnavailable}, causeBusy)
		}
	}
}

// leastLoaded returns the slot with the fewest bytes in flight.
func (t *grpcTransport) leastLoaded() *slot {
	return slices.MinFunc(t.slots, func(a, b *slot) int { return int(a.load.Load() - b.load.Load()) })
}

// streamIDs returns the service's ids of the open streams, oldest first.
func (t *grpcTransport) streamIDs() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []string
	for _, s := range t.live {
		ids = append(ids, s.id)
	}
	return ids
}

func (t *grpcTransport) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// register records a confirmed stream and starts its goroutines.
func (t *grpcTransport) register(s *stream) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errClosed
	}
	level := zap.DebugLevel
	if !t.opened {
		t.opened, level = true, zap.InfoLevel
	}
	t.c.log.Log(level, "stream opened", zap.String("stream_id", s.id), zap.String("rows", s.encoding.format), zap.Bool("shared", s.slot != nil))
	t.c.obs.StreamOpened()
	t.live = append(t.live, s)
	for _, run := range []func(){s.read, s.write} {
		t.running.Go(func() {
			defer panics.Catch(s.panicked)
			run()
		})
	}
	return nil
}

func (t *grpcTransport) unregister(s *stream, why string) {
	t.mu.Lock()
	t.live = slices.DeleteFunc(t.live, func(other *stream) bool { return other == s })
	t.mu.Unlock()
	t.c.log.Debug("stream ended", zap.String("stream_id", s.id), zap.String("why", why))
	t.c.obs.StreamEnded(why)
}

// close half-closes every stream, waits closeGrace at most for the last acks, and returns
// when no goroutine of a stream is left.
func (t *grpcTransport) close() {
	t.mu.Lock()
	t.closed = true
	live := slices.Clone(t.live)
	t.mu.Unlock()
	for _, s := range live {
		s.drain(0, StreamLeft)
	}
	t.running.Wait()
	t.cancel()
	t.conns.close()
}

// slot holds one shared stream: it opens the stream on demand, and replaces it when it has
// ended or is about to. The old stream may still wait for its last acks.
type slot struct {
	t      *grpcTransport
	window *semaphore.Weighted // of bytes in flight
	load   atomic.Int64        // bytes in flight, or waiting for the window

	mu       sync.Mutex     // guards the fields below
	cur      *stream        // nil: none yet
	opening  *call[*stream] // nil: none is being opened
	failures int            // streams in a row that did not open, or failed before an ack
	retryAt  time.Time      // no opening before
}

// reopenMax bounds the pause between failing streams. Each waiting batch has its own, longer
// pauses; this one keeps hundreds of them from opening streams in turn.
const reopenMax = 5 * time.Second

// deliver sends the batch over the slot's stream and waits for the ack. Without rows it
// makes sure that there is a stream.
func (s *slot) deliver(ctx context.Context, b *batch) error {
	if len(b.rows) == 0 {
		_, err := s.stream(ctx)
		return err
	}
	bytes := min(int64(bodySize(b.rows)), int64(s.t.c.set.MaxInFlight))
	s.load.Add(bytes)
	if err := s.window.Acquire(ctx, bytes); err != nil {
		s.load.Add(-bytes)
		return context.Cause(ctx)
	}
	release := func() {
		s.window.Release(bytes)
		s.load.Add(-bytes)
	}
	st, err := s.stream(ctx)
	if err == nil && st.encoding != b.encoding {
		err = errOldEncoding
	}
	if err != nil {
		release()
		return err
	}
	return st.deliver(ctx, newMessage(b.rows, st.encoding.format == FormatJSON, release))
}

// stream returns the stream to send on, opening one if need be. It waits for an opening by
// another caller until ctx ends.
func (s *slot) stream(ctx context.Context) (*stream, error) {
	for {
		s.mu.Lock()
		if s.cur != nil && s.cur.accepts() {
			if s.cur.encoding == s.t.encoding.Load() {
				defer s.mu.Unlock()
				return s.cur, nil
			}
			s.cur.drain(ackTimeout, StreamLeft) // rows have another encoding now; it may finish what it holds
		}
		c, mine := join(&s.opening)
		pause := time.Until(s.retryAt)
		s.mu.Unlock()
		if mine {
			s.open(ctx, c, pause)
		}
		if st, again, err := c.wait(ctx, mine); !again {
			return st, err
		}
	}
}

// open opens a stream and publishes the result in c.
func (s *slot) open(ctx context.Context, c *call[*stream], pause time.Duration) {
	if pause > 0 {
		sleep(ctx, pause)
	}
	var st *stream
	err := errInterrupted
	defer func() { s.opened(ctx, c, st, err) }()
	st, err = s.t.open(ctx, s, false)
}

// opened ends an opening for all that wait for it.
func (s *slot) opened(ctx context.Context, c *call[*stream], st *stream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(c.done)
	s.opening = nil
	c.value, c.err = st, err
	c.abandoned = err != nil && ctx.Err() != nil
	switch {
	case err == nil:
		s.cur = st
	case !c.abandoned && kindOf(err) == transient:
		s.failed()
	}
}

// ended records the end of a stream of this slot: whether it acknowledged anything, and
// whether the service failed.
func (s *slot) ended(acked, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case acked:
		s.failures, s.retryAt = 0, time.Time{}
	case failed:
		s.failed()
	}
}

// failed delays the next opening. Called with mu held.
func (s *slot) failed() {
	s.retryAt = time.Now().Add(s.t.c.jitter(min(reopenMax, backoffBase<<min(s.failures, 10))))
	s.failures++
}

// probeStreams are streams with one message in flight each: if one ends, that message was
// the reason. They are opened on demand and closed when idle.
type probeStreams struct {
	t     *grpcTransport
	turns chan struct{} // holds one element per stream in use

	mu   sync.Mutex    // guards idle
	idle []*idleStream // the one used last is last
}

// idleStream is an unused probe stream and the timer that closes it.
type idleStream struct {
	*stream
	expiry *time.Timer
}

const (
	probeStreamsMax = 8                // in use; each holds one batch
	probeIdle       = 10 * time.Second // after which an unused one is closed
)

// deliver sends the batch over a probe stream and waits for the ack.
func (p *probeStreams) deliver(ctx context.Context, b *batch) error {
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ownConn := b.ownConn
	var st *stream
	if !ownConn {
		st = p.take()
	}
	if st == nil {
		var err error
		if st, err = p.t.open(ctx, nil, ownConn); err != nil {
			<-p.turns
			return err
		}
	}
	if old := st.encoding != b.encoding; old || len(b.rows) == 0 {
		p.put(st)
		<-p.turns
		if old {
			return errOldEncoding
		}
		return nil
	}
	return st.deliver(ctx, newMessage(b.rows, st.encoding.format == FormatJSON, func() { // the caller may have returned
		if ownConn {
			st.drain(0, StreamLeft)
		} else {
			p.put(st)
		}
		<-p.turns
	}))
}

// take returns an idle stream of the present encoding; nil: there is none.
func (p *probeStreams) take() *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := len(p.idle); n > 0; n = len(p.idle) {
		last := p.idle[n-1]
		p.idle = p.idle[:n-1]
		last.expiry.Stop()
		if last.encoding == p.t.encoding.Load() && last.accepts() {
			return last.stream
		}
		last.drain(0, StreamLeft)
	}
	return nil
}

// put keeps a stream that is still open.
func (p *probeStreams) put(st *stream) {
	if !st.accepts() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, &idleStream{stream: st, expiry: time.AfterFunc(probeIdle, func() { st.drain(0, StreamLeft) })})
}
