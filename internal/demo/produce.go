package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/traffic"
)

// Produce only writes events to Options.Topic on Options.Kafka, and returns how
// many the broker has acknowledged. That ctx ended is no error.
func Produce(ctx context.Context, o Options) (produced int64, err error) {
	p, err := newProducer(o.Kafka, o)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := createTopic(ctx, p.cl, o.Topic, o.Partitions, 0); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return 0, err
	}
	o.Message("producing to %s on %s", o.Topic, o.Kafka)
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	err = p.run(ctx, nil)
	return p.written.Load(), err
}

// producer writes generated events to the topic.
type producer struct {
	o   Options
	cl  *kgo.Client
	gen *traffic.Generator

	written atomic.Int64 // acknowledged by the broker
	failed  atomic.Pointer[error]
}

func newProducer(brokers string, o Options) (*producer, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic(o.Topic),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		// A busy broker takes a while to know a topic that it has just created.
		kgo.UnknownTopicRetries(-1),
		// Of records that may have been written, too; otherwise they wait for an answer.
		kgo.RecordDeliveryTimeout(30*time.Second), kgo.AllowIdempotentProduceCancellation(),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the producer: %w; give --kafka as host:port", err)
	}
	gen := traffic.New(traffic.Config{Seed: o.Seed, MalformedEvery: o.MalformedEvery, TombstoneEvery: o.TombstoneEvery})
	return &producer{o: o, cl: cl, gen: gen}, nil
}

func (p *producer) close() { p.cl.Close() }

// run produces until ctx ends or Options.Events are sent, and returns when the
// broker has acknowledged them all. While done is more than maxLag events behind, it
// waits; nil: it never does.
func (p *producer) run(ctx context.Context, done func() int64) error {
	began := time.Now()
	var e traffic.Event
	for n := 0; (p.o.Events == 0 || n < p.o.Events) && p.failed.Load() == nil && p.waitTurn(ctx, began, n); n++ {
		for done != nil && n%1024 == 0 && int64(n)-done() > maxLag && ctx.Err() == nil && p.failed.Load() == nil {
			pause(ctx, 5*time.Millisecond)
		}
		p.gen.Next(&e)
		// The generator reuses its buffers and the client keeps the record until it is
		// acknowledged. Produce waits while much is outstanding.
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
		return fmt.Errorf("producing to %s: %w; check that the broker is up, that the topic exists and that it takes writes", p.o.Topic, err)
	}
	return nil
}

// waitTurn waits until event n is due. It returns false when ctx has ended.
func (p *producer) waitTurn(ctx context.Context, began time.Time, n int) bool {
	if p.o.Rate == 0 {
		return ctx.Err() == nil
	}
	due := began.Add(time.Duration(float64(n) / p.o.Rate * float64(time.Second)))
	// Short waits are not worth a timer: events come in small bursts.
	if ahead := time.Until(due); ahead > 2*time.Millisecond {
		pause(ctx, ahead)
	}
	return ctx.Err() == nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
