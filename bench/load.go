package main

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
)

// codecs by the names of the command line.
var codecs = map[string]kgo.CompressionCodec{"lz4": kgo.Lz4Compression(), "none": kgo.NoCompression()}

// load produces generated events, all of them well formed.
type load struct {
	cl     *kgo.Client
	gen    *traffic.Generator
	event  traffic.Event
	bytes  int64
	sent   int64
	acked  atomic.Int64
	failed atomic.Pointer[error]
}

// newLoad prepares a producer. A longer linger makes larger batches.
func newLoad(brokers []string, topic, codec string, linger time.Duration) (*load, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codecs[codec]),
		// About a hundred events: what busy collectors make.
		kgo.ProducerBatchMaxBytes(128<<10),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(time.Minute),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the producer: %w", err)
	}
	return &load{cl: cl, gen: traffic.New(traffic.Config{Seed: 1})}, nil
}

// next sends one generated event.
func (l *load) next(ctx context.Context) {
	l.gen.Next(&l.event)
	l.send(ctx, bytes.Clone(l.event.Key), bytes.Clone(l.event.Value))
}

func (l *load) send(ctx context.Context, key, value []byte) {
	l.sent++
	l.bytes += int64(len(value))
	l.cl.Produce(ctx, &kgo.Record{Key: key, Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			l.failed.CompareAndSwap(nil, &err)
			return
		}
		l.acked.Add(1)
	})
}

// finish waits until the broker has everything.
func (l *load) finish(ctx context.Context) error {
	defer l.cl.Close()
	err := l.cl.Flush(ctx)
	if failed := l.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	return nil
}

// fill puts events into a topic and returns their size.
func fill(ctx context.Context, brokers []string, topic, codec string, events int) (size int64, err error) {
	l, err := newLoad(brokers, topic, codec, 100*time.Millisecond)
	if err != nil {
		return 0, err
	}
	for range events {
		if ctx.Err() != nil || l.failed.Load() != nil {
			break
		}
		l.next(ctx)
	}
	return l.bytes, l.finish(ctx)
}

// steady sends events at a rate until ctx ends, in bursts of a few
// milliseconds, and every 20 ms a probe. That ctx ends is no error. It returns
// how many were sent.
func (l *load) steady(ctx context.Context, rate int) int64 {
	sending := context.WithoutCancel(ctx)
	const beat = 2 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	began, probed := time.Now(), time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return l.sent
		}
		now := time.Now()
		for due := int64(now.Sub(began).Seconds() * float64(rate)); l.sent < due && ctx.Err() == nil; {
			l.next(sending)
		}
		if now.Sub(probed) >= 20*time.Millisecond {
			probed = now
			id := time.Now().UnixNano()
			l.send(sending, fmt.Appendf(nil, "%d", id), fmt.Appendf(nil, `{"type":"track","event":"Probe","message_id":"%s%d"}`, probeID, id))
		}
	}
}
