package pipeline

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops/live"
)

const (
	// maxKept bounds the value of a record that is kept for the page, in bytes. A
	// longer one is cut, and its row is not known.
	maxKept = 64 << 10
	// maxKeptHeaders and maxKeptKey bound the rest of it.
	maxKeptHeaders, maxKeptKey = 32, 1 << 10
)

// batchObserver observes the batches for the live page, the tracer or both; nil for
// neither.
func (p *Pipeline) batchObserver() consumer.BatchObserver {
	var all batchObservers
	if p.deps.Events != nil {
		all = append(all, &pageObserver{events: p.deps.Events, content: p.content, open: make(map[partitionID][]sampled)})
	}
	if p.deps.Tracer != nil {
		all = append(all, p.deps.Tracer.BatchObserver(p.kafka.Group, p.Table()))
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return all
}

type batchObservers []consumer.BatchObserver

// BatchMapped implements consumer.BatchObserver.
func (all batchObservers) BatchMapped(b *consumer.BatchView) {
	for _, t := range all {
		t.BatchMapped(b)
	}
}

// BatchDone implements consumer.BatchObserver.
func (all batchObservers) BatchDone(b *consumer.BatchView) {
	for _, t := range all {
		t.BatchDone(b)
	}
}

// pageObserver adds a sample of the events to the live page. Its cost is bounded by
// the event log, which admits so many.
type pageObserver struct {
	events  *live.EventLog
	content func(rec *kgo.Record, topicID [16]byte, index int) live.Content

	mu   sync.Mutex // guards open
	open map[partitionID][]sampled
}

type partitionID struct {
	topic string
	id    int32
}

// sampled is an event of the batch that a partition writes at the moment.
type sampled struct {
	consumer.Event
	id uint64
}

// BatchMapped implements consumer.BatchObserver: some of the rows are added as in flight.
func (t *pageObserver) BatchMapped(p *consumer.BatchView) {
	t.events.Passed(p.Rows() + p.Rejects() + p.Filtered())
	n := t.events.Admit(p.Rows())
	if n == 0 {
		return
	}
	var sample []sampled
	for i := range n {
		at := p.Row(i * p.Rows() / n) // spread over the batch
		sample = append(sample, sampled{at, t.add(p, at, live.Outcome{Status: live.InFlight})})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[partitionID{p.Topic, p.Partition}] = sample
}

// BatchDone implements consumer.BatchObserver: what was added gets its outcome, and some of
// the rejected and filtered events are added that were not.
func (t *pageObserver) BatchDone(p *consumer.BatchView) {
	key := partitionID{p.Topic, p.Partition}
	t.mu.Lock()
	sample := t.open[key]
	delete(t.open, key)
	t.mu.Unlock()
	for _, s := range sample {
		t.events.SetOutcome(s.id, outcomeOf(p, s.Event))
	}
	if p.Err != nil {
		return // it comes again
	}
	for i := range t.events.Admit(p.Rejects()) {
		at, r := p.Reject(i)
		if !slices.ContainsFunc(sample, func(s sampled) bool { return s.Event == at }) {
			t.add(p, at, rejected(p, r))
		}
	}
	for i := range t.events.Admit(min(p.Filtered(), 2)) {
		at, reason := p.FilteredEvent(i)
		t.add(p, at, filtered(p, reason))
	}
}

// outcomeOf returns the outcome of one event of a batch that is done.
func outcomeOf(p *consumer.BatchView, at consumer.Event) live.Outcome {
	if p.Err != nil {
		return outcome(p, live.Abandoned)
	}
	if at.Record >= len(p.Records) {
		return live.Outcome{Status: live.Abandoned, Meaning: "the rows of its batch were mapped again and became larger; it comes with the next batch"}
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
	return sort.Find(n, func(i int) int {
		e := get(i)
		return cmp.Or(cmp.Compare(at.Record, e.Record), cmp.Compare(at.Index, e.Index))
	})
}

func outcome(p *consumer.BatchView, status string) live.Outcome {
	return live.Outcome{Status: status, Ack: consumer.Seconds(p.Duration), Batch: live.Batch{
		Records: len(p.Records), Rows: p.Rows(), RowBytes: p.RowBytes,
		FirstOffset: p.Records[0].Offset, LastOffset: p.Records[len(p.Records)-1].Offset,
	}}
}

func rejected(p *consumer.BatchView, r consumer.Reject) live.Outcome {
	o := outcome(p, live.Rejected)
	o.Code, o.Column, o.Reason, o.Meaning = r.Code, r.Column, headerText(r.Reason), codeMeanings[r.Code]
	return o
}

func filtered(p *consumer.BatchView, reason string) live.Outcome {
	o := outcome(p, live.Filtered)
	o.Code, o.Meaning = reason, codeMeanings[reason]
	return o
}

// add adds one event to the event log, which keeps a copy.
func (t *pageObserver) add(p *consumer.BatchView, at consumer.Event, o live.Outcome) uint64 {
	rec := p.Records[at.Record]
	if o.Batch.Records == 0 {
		o = outcome(p, o.Status)
	}
	about := summaryOf(rec.Value, at.Index)
	e := live.Event{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Index: at.Index, Produced: rec.Timestamp, Mapped: time.Now(), Size: len(rec.Value),
		Type: about.Kind, Name: about.Name, MessageID: about.ID,
		Outcome: o,
	}
	if !t.events.Full() {
		return t.events.Add(e, 0, nil)
	}
	kept, size := copyRecord(rec)
	id := p.TopicID()
	return t.events.Add(e, size, func() live.Content { return t.content(kept, id, at.Index) })
}

// copyRecord keeps what the page may show of a record, and how many bytes that is.
func copyRecord(rec *kgo.Record) (kept *kgo.Record, size int) {
	kept = &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp, Key: bytes.Clone(rec.Key[:min(len(rec.Key), maxKeptKey)])}
	if rec.Value != nil {
		kept.Value = bytes.Clone(rec.Value[:min(len(rec.Value), maxKept+1)]) // one byte more marks a longer one
	}
	size = len(kept.Key) + len(kept.Value)
	for _, h := range rec.Headers[:min(len(rec.Headers), maxKeptHeaders)] {
		h = kgo.RecordHeader{Key: strings.Clone(h.Key[:min(len(h.Key), maxKeptKey)]), Value: bytes.Clone(h.Value[:min(len(h.Value), maxKeptKey)])}
		kept.Headers = append(kept.Headers, h)
		size += len(h.Key) + len(h.Value)
	}
	return kept, size
}
