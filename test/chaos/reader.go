package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// reader reads the dead-letter topic and enters what it finds in the ledger.
type reader struct {
	rig    *rig
	cl     *kgo.Client
	ledger *ledger
	v      *violations
	wg     sync.WaitGroup

	mu   sync.Mutex      // guards what follows
	next map[int32]int64 // offset it reads next, by partition
}

func newReader(r *rig, l *ledger, v *violations) (*reader, error) {
	rd := &reader{rig: r, ledger: l, v: v}
	return rd, rd.open()
}

// open begins at the start of the topic that there is now.
func (r *reader) open() error {
	cl, err := r.rig.client(kgo.ConsumeTopics(letters), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return fmt.Errorf("making the reader of dead letters: %w", err)
	}
	r.cl = cl
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = map[int32]int64{}
	return nil
}

// reopen reads the topic that was created in place of the one before.
func (r *reader) reopen(ctx context.Context) error {
	r.close()
	if err := r.open(); err != nil {
		return err
	}
	r.start(ctx)
	return nil
}

// start reads until ctx ends; close waits.
func (r *reader) start(ctx context.Context) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		for ctx.Err() == nil {
			fetches := r.cl.PollFetches(ctx)
			fetches.EachRecord(r.read)
			if fetches.IsClientClosed() {
				return
			}
			if fetches.Err() != nil && !hold(ctx, 100*time.Millisecond) {
				return
			}
		}
	}()
}

func (r *reader) read(rec *kgo.Record) {
	said := func(key string) string {
		for i := len(rec.Headers) - 1; i >= 0; i-- {
			if rec.Headers[i].Key == key {
				return string(rec.Headers[i].Value)
			}
		}
		return ""
	}
	number, err := strconv.ParseUint(said(numberHeader), 10, 32)
	p, perr := strconv.ParseInt(said("bridge-source-partition"), 10, 32)
	o, oerr := strconv.ParseInt(said("bridge-source-offset"), 10, 64)
	if err != nil || perr != nil || oerr != nil || o < 0 || said("bridge-source-topic") != topic {
		r.v.add(ruleInvented, "the dead letter at %d/%d is of no event: number %q, from %s %s/%s", rec.Partition, rec.Offset,
			said(numberHeader), said("bridge-source-topic"), said("bridge-source-partition"), said("bridge-source-offset"))
	} else {
		r.ledger.letter(uint32(number), int32(p), o, r.ledger.maker.differs(uint32(number), rec, said("bridge-error-code")))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[rec.Partition] = rec.Offset + 1
}

// passed reports whether everything below the given ends has been read.
func (r *reader) passed(ends map[int32]int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, end := range ends {
		if r.next[p] < end {
			return false
		}
	}
	return true
}

func (r *reader) close() {
	r.cl.Close()
	r.wg.Wait()
}
