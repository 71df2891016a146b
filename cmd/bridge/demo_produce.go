package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
)

// producer writes generated events to the demo's topic and counts what the
// broker acknowledged.
type producer struct {
	o   demoOptions
	cl  *kgo.Client
	gen *traffic.Generator

	written atomic.Int64
	failed  atomic.Pointer[error]
}

func newProducer(brokers string, o demoOptions) (*producer, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic(o.topic),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		// A busy broker is slow to know a topic it has just made.
		kgo.UnknownTopicRetries(-1),
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the producer: %w; give --kafka as host:port", err)
	}
	gen := traffic.New(traffic.Config{Seed: o.seed, MalformedEvery: o.malformedEvery, TombstoneEvery: o.tombstoneEvery})
	return &producer{o: o, cl: cl, gen: gen}, nil
}

func (p *producer) close() { p.cl.Close() }

// acked is how many events the broker has acknowledged.
func (p *producer) acked() int64 { return p.written.Load() }

// run produces until ctx ends or the events are used up, and returns when the
// broker has acknowledged them all. That ctx ended is not an error.
func (p *producer) run(ctx context.Context) error {
	began := time.Now()
	var e traffic.Event
	for n := 0; (p.o.events == 0 || n < p.o.events) && ctx.Err() == nil && p.failed.Load() == nil; n++ {
		if !p.pace(ctx, began, n) {
			break
		}
		p.gen.Next(&e)
		// The generator reuses its buffers and the client keeps the record
		// until it is acknowledged. Produce waits while much is outstanding.
		p.cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)}, func(_ *kgo.Record, err error) {
			if err != nil {
				p.failed.CompareAndSwap(nil, &err)
				return
			}
			p.written.Add(1)
		})
	}
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := p.cl.Flush(flushing)
	if failed := p.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil {
		return fmt.Errorf("producing to %s: %w; check that the broker is up, that the topic exists and that it takes writes", p.o.topic, err)
	}
	return nil
}

// pace waits until event n is due; false means that ctx ended first.
func (p *producer) pace(ctx context.Context, began time.Time, n int) bool {
	if p.o.rate == 0 {
		return true
	}
	due := began.Add(time.Duration(float64(n) / p.o.rate * float64(time.Second)))
	// Short waits are not worth a timer: events come in small bursts.
	if ahead := time.Until(due); ahead > 2*time.Millisecond {
		select {
		case <-time.After(ahead):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// produceOnly is `bridge demo --produce-only`.
func produceOnly(ctx context.Context, o demoOptions, stdout io.Writer, screen *liveLine) error {
	p, err := newProducer(o.kafka, o)
	if err != nil {
		return err
	}
	defer p.close()
	err = createTopic(ctx, p.cl, o.topic, o.partitions, false)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	screen.say("producing to %s on %s", o.topic, o.kafka)
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	if err := p.run(ctx); err != nil {
		return err
	}
	if o.output.json() {
		return json.NewEncoder(stdout).Encode(map[string]int64{"produced": p.acked()})
	}
	_, err = fmt.Fprintf(stdout, "produced %d events to %s\n", p.acked(), o.topic)
	return err
}
