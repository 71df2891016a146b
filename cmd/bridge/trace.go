package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/tracing"
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

// batchObservers calls several observers, one after the other.
type batchObservers []consumer.BatchObserver

// BatchMapped implements consumer.BatchObserver.
func (all batchObservers) BatchMapped(v *consumer.BatchView) {
	for _, o := range all {
		o.BatchMapped(v)
	}
}

// BatchDone implements consumer.BatchObserver.
func (all batchObservers) BatchDone(v *consumer.BatchView) {
	for _, o := range all {
		o.BatchDone(v)
	}
}

// batchObserver observes the batches for the page, the tracer or both; nil for
// neither.
func (b *bridge) batchObserver(t *tracing.Tracer) consumer.BatchObserver {
	page := b.pageObserver()
	if t == nil {
		return page
	}
	tracer := t.BatchObserver(b.cfg.Kafka.Group, b.client.Table().String())
	if page == nil {
		return tracer
	}
	return batchObservers{page, tracer}
}
