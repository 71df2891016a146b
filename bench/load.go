package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
)

// codecs by the names of the command line.
var codecs = map[string]kgo.CompressionCodec{"lz4": kgo.Lz4Compression(), "none": kgo.NoCompression()}

// load produces events, all of them well formed.
type load struct {
	cl         *kgo.Client
	gen        *traffic.Generator
	event      traffic.Event
	partitions int // for nextInTurn
	bytes      int64
	sent       int64
	probed     time.Time
	acked      atomic.Int64
	failed     atomic.Pointer[error]
}

// newLoad makes a producer. A longer linger makes larger batches. With partitions,
// each event names its own.
func newLoad(brokers []string, topic, codec string, linger time.Duration, partitions int) (*load, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codecs[codec]),
		// About a hundred events: what busy collectors make.
		kgo.ProducerBatchMaxBytes(128 << 10),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(time.Minute),
	}
	if partitions > 0 {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("preparing the producer: %w", err)
	}
	return &load{cl: cl, gen: traffic.New(traffic.Config{Seed: 1}), partitions: partitions}, nil
}

// next sends one generated event.
func (l *load) next(ctx context.Context) {
	l.gen.Next(&l.event)
	l.send(ctx, &kgo.Record{Key: bytes.Clone(l.event.Key), Value: bytes.Clone(l.event.Value)})
}

// nextProbed is next, and every 20 ms a probe.
func (l *load) nextProbed(ctx context.Context) {
	l.next(ctx)
	if now := time.Now(); now.Sub(l.probed) >= 20*time.Millisecond {
		l.probed = now
		id := now.UnixNano()
		l.send(ctx, &kgo.Record{Key: fmt.Appendf(nil, "%d", id), Value: fmt.Appendf(nil, `{"type":"track","event":"Probe","message_id":"%s%d"}`, probeID, id)})
	}
}

var padding = strings.Repeat("x", 200)

// nextInTurn sends a small event to each partition in turn, with the partition in its
// message id.
func (l *load) nextInTurn(ctx context.Context) {
	partition := int(l.sent) % l.partitions
	l.send(ctx, &kgo.Record{Partition: int32(partition), Value: fmt.Appendf(nil,
		`{"type":"track","event":"Order Completed","message_id":"%s%d-%d","properties":{"note":"%s"}}`, spreadID, partition, l.sent, padding)})
}

func (l *load) send(ctx context.Context, rec *kgo.Record) {
	l.sent++
	l.bytes += int64(len(rec.Value))
	l.cl.Produce(ctx, rec, func(_ *kgo.Record, err error) {
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
	err := l.cl.Flush(context.WithoutCancel(ctx))
	if failed := l.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	return nil
}

// fill writes events to a topic and returns their size.
func fill(ctx context.Context, brokers []string, topic, codec string, events int) (size int64, err error) {
	l, err := newLoad(brokers, topic, codec, 100*time.Millisecond, 0)
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

// steady sends events at a rate, in bursts of a few milliseconds, until ctx ends or
// one fails.
func (l *load) steady(ctx context.Context, rate int, next func(context.Context)) {
	sending := context.WithoutCancel(ctx)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for l.failed.Load() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for due := int64(time.Since(began).Seconds() * float64(rate)); l.sent < due && ctx.Err() == nil; {
			next(sending)
		}
	}
}
