package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// producer writes numbered events at a steady rate, with acks=all, and enters
// in the ledger where each was acknowledged. What it holds is bounded: while
// brokers are away it waits.
type producer struct {
	cl     *kgo.Client
	ledger *ledger
	v      *violations
	next   atomic.Uint32 // number of the next event
	arrays atomic.Uint32 // arrays so far
	wg     sync.WaitGroup
	cancel context.CancelFunc
}

func newProducer(r *rig, l *ledger, v *violations) (*producer, error) {
	cl, err := r.client(
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.MaxBufferedRecords(10_000),
		kgo.ProduceRequestTimeout(10*time.Second),
		byNumber(l.maker),
	)
	if err != nil {
		return nil, fmt.Errorf("making the producer: %w", err)
	}
	return &producer{cl: cl, ledger: l, v: v}, nil
}

// byNumber spreads events by their number, so that no partition is idle; a
// partition that is added gets its share when the client has heard of it.
func byNumber(m maker) kgo.Opt {
	return kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(rec *kgo.Record, n int) int {
			number, _ := strconv.ParseUint(string(rec.Headers[0].Value), 10, 32) // written by maker
			return int(m.dice(uint32(number)) >> 20 % uint64(n))
		}
	}))
}

// start produces until stop, rate events a second.
func (p *producer) start(ctx context.Context, rate int) {
	ctx, p.cancel = context.WithCancel(ctx)
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		last, due := time.Now(), 0.0
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now := time.Now()
			due = min(due+now.Sub(last).Seconds()*float64(rate), float64(rate))
			last = now
			for ; due >= 1; due-- {
				p.one(ctx)
			}
		}
	}()
}

// one produces the next event; it waits while too many are on the way.
func (p *producer) one(ctx context.Context) uint32 {
	number := p.next.Add(1) - 1
	p.produce(ctx, number)
	return number
}

// array produces the next array of many events.
func (p *producer) array(ctx context.Context) { p.produce(ctx, arrayNumbers+p.arrays.Add(1)-1) }

func (p *producer) produce(ctx context.Context, number uint32) {
	// Not ctx: what has been taken up is brought to its end.
	p.cl.Produce(context.WithoutCancel(ctx), p.ledger.maker.record(number), func(rec *kgo.Record, err error) {
		switch {
		case err == nil:
			p.ledger.acked(number, rec.Partition, rec.Offset)
		case errors.Is(err, kgo.ErrClientClosed):
		default:
			p.v.add(rulePromise, "event %d could not be produced: %v", number, err)
		}
	})
}

// stop ends the producing and waits until everything is acknowledged.
func (p *producer) stop(ctx context.Context) error {
	p.cancel()
	p.wg.Wait()
	if err := p.cl.Flush(ctx); err != nil {
		return fmt.Errorf("waiting for the last events to be acknowledged: %w", err)
	}
	return nil
}

func (p *producer) close() {
	if p.cancel != nil {
		p.cancel()
	}
	p.cl.Close() // ends a wait for room
	p.wg.Wait()
}
