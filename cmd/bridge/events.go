package main

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
)

const (
	// maxKept is how much of a record is kept for the page, in bytes. Of a
	// longer one the beginning is shown, and no row can be told.
	maxKept = 64 << 10
	// maxKeptHeaders and maxKeptKey bound the rest of it.
	maxKeptHeaders, maxKeptKey = 32, 1 << 10
)

// pageObserver shows the page a sample of what passes. What it costs is bounded by
// the feed, which says how much is wanted.
type pageObserver struct {
	feed    *live.Feed
	explain func(rec *kgo.Record, topicID [16]byte, index int) live.Content

	mu   sync.Mutex // guards open
	open map[partitionID][]picked
}

type partitionID struct {
	topic string
	id    int32
}

// picked is an event of the batch that a partition writes at the moment.
type picked struct {
	consumer.Event
	id uint64
}

// pageObserver observes the batches for the page of live events; nil when it is off.
func (b *bridge) pageObserver() consumer.BatchObserver {
	if b.feed == nil {
		return nil
	}
	return &pageObserver{feed: b.feed, explain: b.content, open: make(map[partitionID][]picked)}
}

// access says who may read what the ops server shows. The token is that of the
// settings in force, read for each request.
func (b *bridge) access() *access.Control {
	var token func() (string, error)
	if _, given := b.cfg.Ops.TokenSource(); given {
		token = func() (string, error) {
			token, _ := b.settings.Load().Ops.TokenSource()
			return token.Read()
		}
	}
	return access.New(token, b.cfg.Ops.Loopback())
}

// livePage is the page of live events; nil when it is off.
func (b *bridge) livePage(who *access.Control) *live.Page {
	if b.feed == nil {
		return nil
	}
	c := live.Config{Mode: b.cfg.Ops.LiveEvents, Access: who}
	if b.cfg.Rejects.Policy == consumer.PolicyDeadLetter {
		c.Letters = letters{b}
	}
	return live.New(c, b.feed, b.snapshot, b.counts, b.log)
}

// BatchMapped implements consumer.BatchObserver: some of the rows are shown in flight.
func (t *pageObserver) BatchMapped(p *consumer.BatchView) {
	t.feed.Passed(p.Rows() + p.Rejects() + p.Filtered())
	n := t.feed.Admit(p.Rows())
	if n == 0 {
		return
	}
	var sample []picked
	for i := range n {
		at := p.Row(i * p.Rows() / n) // spread over the batch
		sample = append(sample, picked{at, t.add(p, at, live.Outcome{Status: live.InFlight})})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[partitionID{p.Topic, p.Partition}] = sample
}

// BatchDone implements consumer.BatchObserver: what was shown gets its end, and some of the
// rejects and of what was filtered are shown that were not.
func (t *pageObserver) BatchDone(p *consumer.BatchView) {
	key := partitionID{p.Topic, p.Partition}
	t.mu.Lock()
	sample := t.open[key]
	delete(t.open, key)
	t.mu.Unlock()
	for _, s := range sample {
		t.feed.Settle(s.id, ended(p, s.Event))
	}
	if p.Err != nil {
		return // it comes again
	}
	for i := range t.feed.Admit(p.Rejects()) {
		at, r := p.Reject(i)
		if !slices.ContainsFunc(sample, func(s picked) bool { return s.Event == at }) {
			t.add(p, at, rejected(p, r))
		}
	}
	for i := range t.feed.Admit(min(p.Filtered(), 2)) {
		at, reason := p.FilteredEvent(i)
		t.add(p, at, filtered(p, reason))
	}
}

// ended tells how one event of a settled batch ended.
func ended(p *consumer.BatchView, at consumer.Event) live.Outcome {
	if p.Err != nil {
		return outcome(p, live.Abandoned)
	}
	if at.Record >= len(p.Records) {
		return live.Outcome{Status: live.Abandoned, Meaning: "the rows of its batch were made anew and became larger; it comes with the next batch"}
	}
	if i, ok := search(p.Rejects(), at, func(i int) consumer.Event { e, _ := p.Reject(i); return e }); ok {
		_, r := p.Reject(i)
		return rejected(p, r)
	}
	if i, ok := search(p.Filtered(), at, func(i int) consumer.Event { e, _ := p.FilteredEvent(i); return e }); ok {
		_, reason := p.FilteredEvent(i)
		return filtered(p, reason)
	}
	return outcome(p, live.Delivered)
}

// search finds an event among n that are in order.
func search(n int, at consumer.Event, get func(int) consumer.Event) (int, bool) {
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		e := get(mid)
		switch c := cmp.Or(cmp.Compare(e.Record, at.Record), cmp.Compare(e.Index, at.Index)); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

func outcome(p *consumer.BatchView, status string) live.Outcome {
	return live.Outcome{Status: status, Ack: p.Duration, Batch: live.Batch{
		Records: len(p.Records), Rows: p.Rows(), RowBytes: p.RowBytes,
		FirstOffset: p.Records[0].Offset, LastOffset: p.Records[len(p.Records)-1].Offset,
	}}
}

func rejected(p *consumer.BatchView, r consumer.Reject) live.Outcome {
	o := outcome(p, live.Rejected)
	o.Code, o.Column, o.Reason, o.Meaning = r.Code, r.Column, pageLine(r.Reason, maxPagedHeader), meanings[r.Code]
	return o
}

func filtered(p *consumer.BatchView, reason string) live.Outcome {
	o := outcome(p, live.Filtered)
	o.Code, o.Meaning = reason, meanings[reason]
	return o
}

// add takes one event up. What is kept of it is a copy.
func (t *pageObserver) add(p *consumer.BatchView, at consumer.Event, o live.Outcome) uint64 {
	rec := p.Records[at.Record]
	if o.Batch.Records == 0 {
		o = outcome(p, o.Status)
	}
	who := sketchOf(rec.Value, at.Index)
	e := live.Event{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Index: at.Index, Produced: rec.Timestamp, Taken: time.Now(), Size: len(rec.Value),
		Type: who.kind, Name: who.name, MessageID: who.id,
		Status: o.Status, Code: o.Code, Column: o.Column, Meaning: o.Meaning, Reason: o.Reason, Batch: o.Batch, Ack: o.Ack.Seconds(),
	}
	if !t.feed.Full() {
		return t.feed.Add(e, 0, nil)
	}
	kept, size := copyRecord(rec)
	id := p.TopicID()
	return t.feed.Add(e, size, func() live.Content { return t.explain(kept, id, at.Index) })
}

// copyRecord keeps what the page may show of a record, and how many bytes that is.
func copyRecord(rec *kgo.Record) (kept *kgo.Record, size int) {
	kept = &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp, Key: bytes.Clone(rec.Key[:min(len(rec.Key), maxKeptKey)])}
	if rec.Value != nil {
		kept.Value = bytes.Clone(rec.Value[:min(len(rec.Value), maxKept+1)]) // one more says that it was longer
	}
	size = len(kept.Key) + len(kept.Value)
	for _, h := range rec.Headers[:min(len(rec.Headers), maxKeptHeaders)] {
		h = kgo.RecordHeader{Key: strings.Clone(h.Key[:min(len(h.Key), maxKeptKey)]), Value: bytes.Clone(h.Value[:min(len(h.Value), maxKeptKey)])}
		kept.Headers = append(kept.Headers, h)
		size += len(h.Key) + len(h.Value)
	}
	return kept, size
}
