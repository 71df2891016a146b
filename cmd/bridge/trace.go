package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/zerobus"
)

// traceSettings are what the environment and the configuration say of traces.
func traceSettings(cfg *config.Config) (tracing.Settings, error) {
	s, err := tracing.FromEnvironment(cfg.Tracing.Enabled, cfg.Tracing.MaxPerSecond, os.Getenv)
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
	return tracing.Start(ctx, tracing.Config{Settings: b.tracing, Version: version(), Log: b.log})
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
	if t == nil {
		return page
	}
	tracer := t.Tap(b.cfg.Kafka.Group, b.client.Table().String())
	if page == nil {
		return tracer
	}
	return taps{page, tracer}
}
