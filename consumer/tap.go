package consumer

import (
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

// Passage is one batch on its way. After the table has changed it may hold more
// records at Settled than at Taken; those it held then come first.
type Passage struct {
	Topic     string
	Partition int32
	Records   []*kgo.Record // in offset order
	RowBytes  int           // encoded, all rows together
	Took      time.Duration // from Taken to Settled; 0 at Taken
	Err       error         // why it was given up; nil at Taken

	batch *Batch
	began time.Time
}

// Event says which event of a Passage: one record can hold several.
type Event struct {
	Record int // index into Passage.Records
	Index  int // position among the events of that record, from 0
}

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

// showTaken and showSettled cost one comparison where there is no Tap.
func (p *partition) showTaken() {
	if p.g.cfg.Tap == nil {
		return
	}
	p.passage = Passage{Topic: p.topic, Partition: p.id, began: time.Now()}
	p.view()
	p.g.cfg.Tap.Taken(&p.passage)
}

func (p *partition) showSettled(err error) {
	if p.g.cfg.Tap == nil {
		return
	}
	p.view()
	p.passage.Took, p.passage.Err = time.Since(p.passage.began), err
	p.g.cfg.Tap.Settled(&p.passage)
	p.passage = Passage{} // it must not keep the records
}

func (p *partition) view() {
	p.passage.batch, p.passage.Records, p.passage.RowBytes = p.batch, p.batch.recs, len(p.batch.buf)
}
