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
)

// wire is the gRPC transport: databricks.zerobus.Zerobus/EphemeralStream.
//
// Callers share a few streams, the slots. A batch is one message with one
// offset; the service's answers say up to which offset everything is durable. A
// row that can never be ingested ends its stream with no word on which it was,
// so whatever was in flight is a suspect and is sent again on a side stream,
// alone.
//
// Names, numbers and rules are those of Databricks' published
// zerobus_service.proto and the clients it comes with:
// https://github.com/databricks/zerobus-sdk
type wire struct {
	set    settings
	tokens *tokens
	advice adviser
	log    *zap.Logger
	obs    StreamObserver // nil: nobody listens
	jitter func(time.Duration) time.Duration
	conns  *conns
	slots  []*slot
	sides  *sides
	enc    atomic.Pointer[encoding] // what rows are; streams of another are replaced

	numbers fieldNumbers

	life context.Context // ends with close; every stream lives in it
	end  context.CancelFunc

	running sync.WaitGroup // the goroutines of streams

	mu     sync.Mutex // guards the fields below
	live   []*stream  // in order of opening
	closed bool
	opened bool // a stream was opened once
}

const (
	openTimeout = 15 * time.Second       // for a stream to be confirmed
	ackTimeout  = 60 * time.Second       // for the next ack, while something is in flight
	closeGrace  = 500 * time.Millisecond // for the last acks after we closed our side
	idleMoves   = 2                      // resends in a row over streams that ended as announced and acknowledged nothing
)

// errClosed is what a batch meets after Close.
var errClosed = errors.New("the client is closed")

// errOldForm is what rows meet that were made before streams changed their form.
// They are never sent: fields of the old form would be misread or lost.
var errOldForm = errors.New("streams have another form by now")

func newWire(set settings, tokens *tokens, advice adviser, log *zap.Logger, dial dialer, jitter func(time.Duration) time.Duration) *wire {
	w := &wire{set: set, tokens: tokens, advice: advice, log: log, jitter: jitter, conns: &conns{set: set, dial: dial}}
	//nolint:forbidigo // ends with Close; streams outlive the Write that opened them
	w.life, w.end = context.WithCancel(context.Background())
	for range set.Streams {
		w.slots = append(w.slots, newSlot(w))
	}
	w.sides = newSides(w)
	w.enc.Store(&encoding{format: FormatJSON})
	return w
}

func (w *wire) size(rows [][]byte) int64 { return int64(headMax + bodySize(rows)) }

// send writes the batch over a shared stream, and over as many as it takes
// while they end as announced.
func (w *wire) send(ctx context.Context, b *batch) error {
	if b.alone {
		return w.probe(ctx, b)
	}
	err := w.carry(ctx, b, func(ctx context.Context) error { return w.pick().deliver(ctx, b) })
	var among *suspicion
	if errors.As(err, &among) {
		return w.probe(ctx, b)
	}
	return err
}

// probe writes the batch over a stream of its own, and over a connection of its
// own if it asks for that.
func (w *wire) probe(ctx context.Context, b *batch) error {
	return w.carry(ctx, b, func(ctx context.Context) error { return w.sides.deliver(ctx, b) })
}

// carry repeats once for as long as streams end as announced: that is no
// failure, and nobody waits or hears of it.
func (w *wire) carry(ctx context.Context, b *batch, once func(context.Context) error) error {
	for idle := 0; ; {
		err := once(ctx)
		var on *moved
		if !errors.As(err, &on) {
			return err
		}
		if idle++; on.progress {
			idle = 0
		}
		if idle > idleMoves {
			return &Error{Op: opInsert, Err: fmt.Errorf("%d streams in a row were closed before they took anything", idle),
				kind: transient, reason: RetryUnavailable, Meaning: busy, Remedy: waitOut}
		}
	}
}

// pick returns the slot with the fewest bytes in flight.
func (w *wire) pick() *slot {
	best := w.slots[0]
	for _, s := range w.slots[1:] {
		if s.load.Load() < best.load.Load() {
			best = s
		}
	}
	return best
}

// streamIDs returns the service's names of the open streams, oldest first.
func (w *wire) streamIDs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, s := range w.live {
		ids = append(ids, s.id)
	}
	return ids
}

// isClosed reports whether Close was called.
func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// enlist counts a confirmed stream in and starts its goroutines.
func (w *wire) enlist(s *stream) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	say := w.log.Debug
	if !w.opened {
		w.opened, say = true, w.log.Info
	}
	say("stream opened", zap.String("stream_id", s.id), zap.String("rows", s.enc.format), zap.Bool("shared", s.slot != nil))
	if w.obs != nil {
		w.obs.StreamOpened()
	}
	w.live = append(w.live, s)
	w.running.Go(s.read)
	w.running.Go(s.write)
	return nil
}

func (w *wire) discharge(s *stream, why string) {
	w.log.Debug("stream ended", zap.String("stream_id", s.id), zap.String("why", why))
	if w.obs != nil {
		w.obs.StreamEnded(why)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = slices.DeleteFunc(w.live, func(other *stream) bool { return other == s })
}

// close half-closes every stream, waits closeGrace at most for what is still
// to come, and returns when no goroutine of a stream is left.
func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	live := slices.Clone(w.live)
	w.mu.Unlock()
	for _, s := range live {
		s.leaveWithin(0, StreamLeft)
	}
	w.running.Wait()
	w.end()
	w.conns.close()
}
