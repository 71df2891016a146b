package consumer

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Tap is shown every batch on its way, for people who look. Its methods are
// called from the goroutines of the partitions, several at a time. They must not
// block and must not keep the Passage or what it points to. For one partition
// each Taken is followed by one Settled.
type Tap interface {
	// Taken: the batch is mapped and is about to be written.
	Taken(*Passage)
	// Settled: each of its events is durable, rejected or filtered; or, where
	// Err is set, the batch was given up unmarked and will be read again.
	Settled(*Passage)
}

// Passage is one batch on its way. After the table or the mapping has changed it
// may hold more records at Settled than at Taken, or fewer, where rows have become
// larger: those left out come with the next batch. The first ones are the same.
type Passage struct {
	Topic     string
	Partition int32
	Records   []*kgo.Record // in offset order
	RowBytes  int           // encoded, all rows together
	Began     time.Time     // when its mapping began
	Taken     time.Time     // when it was mapped
	Took      time.Duration // from Taken to Settled; 0 at Taken
	Err       error         // why it was given up; nil at Taken
	// Writes are the calls of the sink in order, of a long search for bad rows
	// the first 64; Written counts them all. Both are empty at Taken.
	Writes  []Written
	Written int

	batch *Batch
}

// maxWrites bounds Passage.Writes.
const maxWrites = 64

// Written is one Write or Probe of a Passage.
type Written struct {
	Began    time.Time
	Took     time.Duration
	Rows     int
	Bytes    int  // encoded
	Attempts int  // as far as the sink calls [Attempted]
	Probe    bool // the rows were part of a refused batch
	Err      error
}

// Event says which event of a Passage: one record can hold several.
type Event struct {
	Record int // index into Passage.Records
	Index  int // position among the events of that record, from 0
}

// Polled returns when the i-th record was polled.
func (p *Passage) Polled(i int) time.Time {
	at, found := slices.BinarySearchFunc(p.batch.polled, i, func(m polled, i int) int { return cmp.Compare(m.first, i) })
	if !found {
		at--
	}
	return p.batch.polled[at].at
}

// TopicID returns the id of the topic the records come from, zero where the
// broker gives none.
func (p *Passage) TopicID() [16]byte { return p.batch.topicID }

// Rows returns how many events became rows.
func (p *Passage) Rows() int { return len(p.batch.from) }

// Row returns the event behind the i-th row. At Settled it may be among the
// rejects as well: the sink refused the row.
func (p *Passage) Row(i int) Event { return p.batch.from[i].public() }

// Rejects returns how many events can never be rows, as far as is known.
func (p *Passage) Rejects() int { return len(p.batch.rejected) }

// Reject returns the i-th of them, in event order.
func (p *Passage) Reject(i int) (Event, Reject) {
	r := p.batch.rejected[i]
	return r.event.public(), r
}

// Filtered returns how many events were dropped by rule.
func (p *Passage) Filtered() int { return len(p.batch.dropped) }

// Drop returns the i-th of them, in event order, with the reason.
func (p *Passage) Drop(i int) (at Event, reason string) {
	d := p.batch.dropped[i]
	return d.event.public(), d.reason
}

func (e event) public() Event { return Event{Record: e.rec, Index: e.index} }

// dropped is one event dropped by rule, kept only while there is a Tap.
type dropped struct {
	reason string
	event
}

// polled says when the records from first on, up to the next one's, were polled.
type polled struct {
	first int // index into Batch.recs
	at    time.Time
}

// showTaken, showWritten and showSettled cost one comparison where there is no
// Tap.
func (p *partition) showTaken() {
	if p.g.cfg.Tap == nil {
		return
	}
	p.passage = Passage{Topic: p.topic, Partition: p.id, Began: p.batch.began, Taken: time.Now(), Writes: p.passage.Writes[:0]}
	p.view()
	p.g.cfg.Tap.Taken(&p.passage)
}

func (p *partition) showSettled(err error) {
	if p.g.cfg.Tap == nil {
		return
	}
	p.view()
	p.passage.Took, p.passage.Err = time.Since(p.passage.Taken), err
	p.g.cfg.Tap.Settled(&p.passage)
	clear(p.passage.Writes)
	p.passage = Passage{Writes: p.passage.Writes[:0]} // it must not keep the records
}

// showWritten notes one call of the sink that has ended.
func (p *partition) showWritten(rows [][]byte, began time.Time, probe bool, err error) {
	if p.g.cfg.Tap == nil {
		return
	}
	p.passage.Written++
	if len(p.passage.Writes) == maxWrites {
		return
	}
	w := Written{Began: began, Took: time.Since(began), Rows: len(rows), Attempts: int(p.attempts.Load()), Probe: probe, Err: err}
	for _, row := range rows {
		w.Bytes += len(row)
	}
	p.passage.Writes = append(p.passage.Writes, w)
}

// attemptsKey is where the context of a Write has its partition's counter.
type attemptsKey struct{}

// Attempted may be called by a sink once for each try inside a Write or Probe,
// with the context it was given or one made from it: a Tap is told how many
// tries it took.
func Attempted(ctx context.Context) {
	if n, ok := ctx.Value(attemptsKey{}).(*atomic.Int32); ok {
		n.Add(1)
	}
}

func (p *partition) view() {
	p.passage.batch, p.passage.Records, p.passage.RowBytes = p.batch, p.batch.recs, len(p.batch.buf)
}
