package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// spread sends small events to all partitions of a topic in turns, each with
// its partition in its message id.
type spread struct {
	cl         *kgo.Client
	partitions int
	next       int
	acked      atomic.Int64
	failed     atomic.Pointer[error]
}

func newSpread(brokers []string, topic string, partitions int) (*spread, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.RecordDeliveryTimeout(time.Minute),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the producer: %w", err)
	}
	return &spread{cl: cl, partitions: partitions}, nil
}

// sent is how many events the broker has, once steady has returned.
func (s *spread) sent() int { return int(s.acked.Load()) }

var padding = strings.Repeat("x", 200)

// steady sends events at a rate until ctx ends, which is no error, and returns
// when the broker has them all.
func (s *spread) steady(ctx context.Context, rate int) error {
	sending := context.WithoutCancel(ctx)
	defer s.cl.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for ctx.Err() == nil && s.failed.Load() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		for due := int(time.Since(began).Seconds() * float64(rate)); s.next < due && ctx.Err() == nil; s.next++ {
			partition := s.next % s.partitions
			s.cl.Produce(sending, &kgo.Record{Partition: int32(partition), Value: fmt.Appendf(nil,
				`{"type":"track","event":"Order Completed","message_id":"%s%d-%d","properties":{"note":"%s"}}`, spreadID, partition, s.next, padding)},
				func(_ *kgo.Record, err error) {
					if err != nil {
						s.failed.CompareAndSwap(nil, &err)
						return
					}
					s.acked.Add(1)
				})
		}
	}
	err := s.cl.Flush(sending)
	if failed := s.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	return nil
}
