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

	"github.com/datafly/bridge/internal/oracle"
)

// producer writes numbered events at a steady rate, with acks=all, and adds to the
// ledger where each was acknowledged. Its buffer is bounded: while brokers are away
// it waits.
type producer struct {
	src    *source
	v      *oracle.Violations
	cl     *kgo.Client
	next   atomic.Uint32 // number of the next event
	arrays atomic.Uint32 // arrays so far
	wg     sync.WaitGroup
	cancel context.CancelFunc
}

func newProducer(r *run, src *source) (*producer, error) {
	cl, err := r.rig.client(kgo.DefaultProduceTopic(src.gen.topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(10_000),
		kgo.ProduceRequestTimeout(10*time.Second), byNumber(src.gen))
	if err != nil {
		return nil, fmt.Errorf("making the producer: %w", err)
	}
	return &producer{src: src, v: r.v, cl: cl, cancel: func() {}}, nil
}

// byNumber spreads events by their number, so that no partition is idle; a partition
// that is added gets its share when the client has its metadata.
func byNumber(g generator) kgo.Opt {
	return kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(rec *kgo.Record, n int) int {
			number, _ := strconv.ParseUint(header(rec, numberHeader), 10, 32) // written by the generator
			return int(g.random(uint32(number)) >> 20 % uint64(n))
		}
	}))
}

// start produces until stop, rate events a second.
func (p *producer) start(ctx context.Context, rate int) {
	ctx, p.cancel = context.WithCancel(ctx)
	p.wg.Go(func() {
		last, due := time.Now(), 0.0
		for sleep(ctx, 20*time.Millisecond) {
			now := time.Now()
			due = min(due+now.Sub(last).Seconds()*float64(rate), float64(rate))
			last = now
			for ; due >= 1; due-- {
				p.produce(ctx, p.next.Add(1)-1)
			}
		}
	})
}

// produce sends an event; it waits while the buffer is full.
func (p *producer) produce(ctx context.Context, number uint32) {
	// Not ctx: what was accepted is brought to its end.
	p.cl.Produce(context.WithoutCancel(ctx), p.src.gen.record(number), func(rec *kgo.Record, err error) {
		switch {
		case err == nil:
			p.src.ledger.Acknowledged(oracle.Event{Number: number, Partition: rec.Partition, Offset: rec.Offset})
		case errors.Is(err, kgo.ErrClientClosed):
		default:
			p.v.Add(oracle.RuleKafka, "event %d of topic %s could not be produced: %v", number, p.src.gen.topic, err)
		}
	})
}

// produceArrays sends arrays of events until ctx ends.
func (p *producer) produceArrays(ctx context.Context) {
	for sleep(ctx, 50*time.Millisecond) {
		p.produce(ctx, arrayNumbers+p.arrays.Add(1)-1)
	}
}

// produced reports whether an event of a number was produced.
func (p *producer) produced(number uint32) bool {
	if number >= arrayNumbers {
		return number-arrayNumbers < p.arrays.Load()
	}
	return number < p.next.Load()
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
	p.cancel()
	p.cl.Close() // ends a wait for the buffer
	p.wg.Wait()
}

// reader reads a dead-letter topic into the ledger.
type reader struct {
	r   *run
	src *source
	cl  *kgo.Client
	wg  sync.WaitGroup

	mu   sync.Mutex      // guards next
	next map[int32]int64 // offset it reads next, by partition
}

func newReader(r *run, src *source) (*reader, error) {
	rd := &reader{r: r, src: src}
	return rd, rd.open()
}

// open begins at the start of the topic that exists now.
func (rd *reader) open() error {
	cl, err := rd.r.rig.client(kgo.ConsumeTopics(rd.src.deadLetters), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return fmt.Errorf("making the reader of dead letters: %w", err)
	}
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.cl, rd.next = cl, map[int32]int64{}
	return nil
}

// start reads until ctx ends; close waits.
func (rd *reader) start(ctx context.Context) {
	rd.wg.Go(func() {
		for ctx.Err() == nil {
			fetches := rd.cl.PollFetches(ctx)
			fetches.EachRecord(rd.read)
			if fetches.IsClientClosed() || fetches.Err() != nil && !sleep(ctx, 100*time.Millisecond) {
				return
			}
		}
	})
}

func (rd *reader) read(rec *kgo.Record) {
	number, err := strconv.ParseUint(header(rec, numberHeader), 10, 32)
	p, perr := strconv.ParseInt(header(rec, "bridge-source-partition"), 10, 32)
	o, oerr := strconv.ParseInt(header(rec, "bridge-source-offset"), 10, 64)
	if err != nil || perr != nil || oerr != nil || o < 0 || header(rec, "bridge-source-topic") != rd.src.gen.topic {
		rd.r.v.Add(oracle.RuleUnexpected, "the dead letter at %d/%d is of no event: number %q, from %s %s/%s", rec.Partition, rec.Offset,
			header(rec, numberHeader), header(rec, "bridge-source-topic"), header(rec, "bridge-source-partition"), header(rec, "bridge-source-offset"))
	} else {
		event := oracle.Event{Number: uint32(number), Partition: int32(p), Offset: o}
		rd.src.ledger.DeadLettered(event, rd.src.gen.difference(event.Number, rec, header(rec, "bridge-error-code")))
	}
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.next[rec.Partition] = rec.Offset + 1
}

// passed reports whether everything below the given ends has been read.
func (rd *reader) passed(ends map[int32]int64) bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	for p, end := range ends {
		if rd.next[p] < end {
			return false
		}
	}
	return true
}

func (rd *reader) close() {
	rd.cl.Close()
	rd.wg.Wait()
}
