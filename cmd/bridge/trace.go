package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/zerobus"
)

// traceSettings are what the environment and the configuration say of traces.
func traceSettings(cfg *config.Config) (tracing.Settings, error) {
	s, err := tracing.FromEnvironment(cfg.Tracing.Enabled, os.Getenv)
	if err != nil {
		return s, &usageError{fmt.Errorf("tracing: %w", err)}
	}
	return s, nil
}

// startTracing returns nil when traces are off.
func (b *bridge) startTracing(ctx context.Context) (*tracing.Tracer, error) {
	if !b.tracing.On {
		return nil, nil
	}
	return tracing.Start(ctx, tracing.Config{Settings: b.tracing, Version: version(), Client: b.spans, Log: b.log})
}

const (
	// flushMost and flushLeast bound the time for the last spans. What the
	// group has left of delivery.drain lies between.
	flushMost, flushLeast = 5 * time.Second, 500 * time.Millisecond
)

// stopTracing exports the last spans. told is when the process was told to
// stop; nil if it was not.
func (b *bridge) stopTracing(t *tracing.Tracer, told *time.Time) {
	left := flushMost
	if told != nil {
		left = max(min(left, b.cfg.Delivery.Drain-time.Since(*told)), flushLeast)
	}
	ctx, cancel := context.WithTimeout(context.Background(), left) //nolint:forbidigo // the caller's has ended
	defer cancel()
	t.Stop(ctx)
}

// observed is what the client tells: metrics, and the delivery how often it
// tried.
type observed struct{ *ops.Metrics }

// Attempted implements zerobus.AttemptObserver.
func (observed) Attempted(ctx context.Context) { consumer.Attempted(ctx) }

var (
	_ zerobus.AttemptObserver = observed{}
	_ zerobus.StreamObserver  = observed{}
)

// taps shows several what passes, one after the other.
type taps []consumer.Tap

// Taken implements consumer.Tap.
func (ts taps) Taken(p *consumer.Passage) {
	for _, t := range ts {
		t.Taken(p)
	}
}

// Settled implements consumer.Tap.
func (ts taps) Settled(p *consumer.Passage) {
	for _, t := range ts {
		t.Settled(p)
	}
}

// tapped is what the delivery shows its batches to: the page, the tracer, both
// or, nil, nobody.
func (b *bridge) tapped(t *tracing.Tracer) consumer.Tap {
	page := b.tap()
	switch {
	case t == nil:
		return page
	case page == nil:
		return b.traceTap(t)
	}
	return taps{page, b.traceTap(t)}
}

// traceTap makes spans of the sampled events of batches that have come to
// their end. It keeps nothing.
type traceTap struct {
	tracer       *tracing.Tracer
	group, table string
}

func (b *bridge) traceTap(t *tracing.Tracer) *traceTap {
	return &traceTap{tracer: t, group: b.cfg.Kafka.Group, table: b.client.Table().String()}
}

// Taken implements consumer.Tap.
func (t *traceTap) Taken(*consumer.Passage) {}

// Settled implements consumer.Tap.
func (t *traceTap) Settled(p *consumer.Passage) {
	var spans *tracing.Trace // made for the first sampled event
	sampling := t.tracer.Sampling()
	for i, rec := range p.Records {
		if len(rec.Headers) == 0 && sampling.Skip() {
			continue
		}
		from, sampled := sampling.Sample(header(rec, tracing.ParentHeader))
		if !sampled {
			continue
		}
		if spans == nil {
			spans = t.tracer.Trace(t.batch(p))
		}
		if !spans.Full() {
			spans.Event(tracedEvent(p, i, from))
		}
	}
	if spans != nil {
		spans.End()
	}
}

// header returns the value of a record's first header of that name; nil if it
// has none.
func header(rec *kgo.Record, key string) []byte {
	for i := range rec.Headers {
		if rec.Headers[i].Key == key {
			return rec.Headers[i].Value
		}
	}
	return nil
}

func (t *traceTap) batch(p *consumer.Passage) *tracing.Batch {
	b := &tracing.Batch{
		Topic: p.Topic, Partition: p.Partition, Group: t.group, Table: t.table, Events: len(p.Records), Rows: p.Rows(), RowBytes: p.RowBytes,
		Began: p.Began, Mapped: p.Taken, Ended: p.Taken.Add(p.Took), Outcome: tracing.OutcomeDelivered, Written: p.Written,
	}
	if p.Err != nil {
		b.Outcome = tracing.OutcomeAbandoned
	}
	for _, w := range p.Writes {
		out := tracing.Write{Began: w.Began, Took: w.Took, Rows: w.Rows, Bytes: w.Bytes, Attempts: w.Attempts, Probe: w.Probe}
		out.Outcome, out.Code = writeOutcome(w.Err)
		b.Writes = append(b.Writes, out)
	}
	return b
}

// writeOutcome sorts a write's error as the sink's contract does.
func writeOutcome(err error) (outcome, code string) {
	var no interface{ Refused() (code, column string) }
	var old interface{ Stale() bool }
	switch {
	case err == nil:
		return tracing.OutcomeDelivered, ""
	case errors.As(err, &no):
		code, _ = no.Refused()
		return tracing.OutcomeRefused, code
	case errors.As(err, &old) && old.Stale():
		return tracing.OutcomeStale, ""
	}
	return tracing.OutcomeAbandoned, ""
}

// tracedEvent tells how the i-th record of a settled batch ended. Of one that
// holds several events the first that did not become a row speaks for all.
func tracedEvent(p *consumer.Passage, i int, from tracing.Origin) tracing.Event {
	rec := p.Records[i]
	e := tracing.Event{
		Origin: from, State: string(header(rec, tracing.StateHeader)), Offset: rec.Offset, Polled: p.Polled(i),
		ID: messageID(rec.Value), Outcome: tracing.OutcomeDelivered,
	}
	if p.Err != nil {
		e.Outcome = tracing.OutcomeAbandoned
		return e
	}
	if at := firstOf(p.Rejects(), i, func(at int) consumer.Event { e, _ := p.Reject(at); return e }); at >= 0 {
		_, r := p.Reject(at)
		e.Outcome, e.Code, e.Column = tracing.OutcomeRejected, r.Code, r.Column
	} else if at := firstOf(p.Filtered(), i, func(at int) consumer.Event { e, _ := p.Drop(at); return e }); at >= 0 {
		_, e.Code = p.Drop(at)
		e.Outcome = tracing.OutcomeFiltered
	}
	return e
}

// firstOf finds the first event of a record among n that are in order; -1 if
// there is none.
func firstOf(n, record int, get func(int) consumer.Event) int {
	lo, hi := 0, n
	for lo < hi {
		if mid := (lo + hi) / 2; get(mid).Record < record {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < n && get(lo).Record == record {
		return lo
	}
	return -1
}
