package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
)

// codecs by the names of the command line.
var codecs = map[string]kgo.CompressionCodec{
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(), "snappy": kgo.SnappyCompression(), "gzip": kgo.GzipCompression(), "none": kgo.NoCompression(),
}

// load produces events, all of them well formed unless shape asks for others.
type load struct {
	shape
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
func newLoad(brokers []string, topic, codec string, linger time.Duration, partitions int, more ...kgo.Opt) (*load, error) {
	opts := append(more,
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codecs[codec]),
		// About a hundred events: what busy collectors make.
		kgo.ProducerBatchMaxBytes(128<<10),
		kgo.ProducerLinger(linger),
		kgo.RecordDeliveryTimeout(time.Minute),
	)
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
	l.send(ctx, &kgo.Record{Key: bytes.Clone(l.event.Key), Value: l.sized(&l.event)})
}

// shape is what events look like; the zero value is what the generator makes.
type shape struct {
	size           int // bytes; below 1,000 the event is small, above, it has a list of items; 0 as generated
	malformedEvery int // as in traffic.Config
}

// malformed returns how many of the first n events are.
func (s shape) malformed(n int) int {
	if s.malformedEvery == 0 {
		return 0
	}
	return n / s.malformedEvery
}

// sized returns a copy of the event with about the size of the shape.
func (s shape) sized(e *traffic.Event) []byte {
	switch {
	case s.size == 0:
		return bytes.Clone(e.Value)
	case s.size < 1000:
		head := fmt.Appendf(nil, `{"type":"track","event":"Button Clicked","message_id":"%s","anonymous_id":"%s","source_id":"src_7Qm2","properties":{"note":"`, e.MessageID, e.Key)
		return append(append(head, padding[:min(max(s.size-len(head)-3, 0), len(padding))]...), `"}}`...)
	}
	dst := append(make([]byte, 0, s.size), `{"items":[`...)
	number := crc32.ChecksumIEEE(e.Key)
	for n := s.size - len(e.Value) - len(`"items":[],`); n > 0; number = number*1664525 + 1013904223 { // an LCG, Numerical Recipes
		before := len(dst)
		dst = fmt.Appendf(dst, `{"sku":"TEA-%d","name":"%s","price":%d.%02d,"quantity":%d},`, number>>8&0xfff, itemNames[number>>20&7], number>>16&63, number>>24&63, number>>28)
		n -= len(dst) - before
	}
	return append(append(dst[:len(dst)-1], `],`...), e.Value[1:]...)
}

var itemNames = [8]string{"Oolong 250 g", "Darjeeling First Flush", "Sencha, organic", "Mug, white", "Teapot, cast iron", "Paper filters", "Gift set for two", "Matcha whisk"}

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
func (r *rig) fill(ctx context.Context, topic, codec string, events int, s shape) (size int64, err error) {
	l, err := newLoad(r.brokers, topic, codec, 100*time.Millisecond, 0, r.security.ClientOpts()...)
	if err != nil {
		return 0, err
	}
	l.shape, l.gen = s, traffic.New(traffic.Config{Seed: 1, MalformedEvery: s.malformedEvery})
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
	began, before := time.Now(), l.sent
	for l.failed.Load() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for due := int64(time.Since(began).Seconds() * float64(rate)); l.sent-before < due && ctx.Err() == nil; {
			next(sending)
		}
	}
}
