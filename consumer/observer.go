package consumer

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Observer counts what happens. Its methods are called from several goroutines
// and must not block.
type Observer interface {
	// EventsRead: records polled from a partition, and their key, value and
	// header bytes.
	EventsRead(topic string, partition int32, events int, bytes int)
	// OffsetsPassed: polling passed offsets without an event; lost of them
	// Kafka had removed before the group came there. Both are 0 when a
	// partition is assigned.
	OffsetsPassed(topic string, partition int32, lost, skipped int64)
	// RowsDelivered: one Write was acknowledged after ack.
	RowsDelivered(topic string, partition int32, rows int, bytes int, ack time.Duration)
	// EventRejected: one event can never be a row; code is from a closed set.
	EventRejected(topic, code string)
	// EventFiltered: n events were dropped by rule; reason is from a closed set.
	EventFiltered(topic, reason string, n int)
	// DeadLettered: n dead letters were acknowledged.
	DeadLettered(topic string, n int)
	// BatchSplit: a refused batch was split in two.
	BatchSplit(topic string)
	// Committed: an offset commit ended, err nil if it was accepted.
	Committed(err error)
	// Rebalanced: partitions were assigned, revoked or lost.
	Rebalanced(kind string, partitions int)
	// Forget: the partition is no longer assigned; drop what is kept for it.
	Forget(topic string, partition int32)
}

// BatchObserver sees every batch of a group. Its methods are called from the
// goroutines of the partitions, several at a time. They must not block and must
// not keep the BatchView or what it points to. For one partition each BatchMapped
// is followed by one BatchDone.
type BatchObserver interface {
	// BatchMapped: the batch is mapped and is about to be written.
	BatchMapped(*BatchView)
	// BatchDone: each event of the batch is durable, rejected or filtered. Where
	// Err is set, the batch was abandoned unmarked and is redelivered.
	BatchDone(*BatchView)
}

// BatchView is one batch as a [BatchObserver] sees it. After the table or the
// mapping has changed it may hold more records at BatchDone than at BatchMapped,
// or fewer, where rows have become larger: the rest comes with the next batch. The
// first records are the same.
type BatchView struct {
	Topic     string
	Partition int32
	Records   []*kgo.Record // in offset order
	RowBytes  int           // encoded, all rows together
	Began     time.Time     // when its mapping began
	Mapped    time.Time     // when its mapping ended
	Duration  time.Duration // from Mapped to BatchDone; 0 at BatchMapped
	Err       error         // why it was abandoned; nil at BatchMapped
	// Writes are the first 64 calls of the sink in order; WriteCount counts them
	// all. Both are empty at BatchMapped.
	Writes     []SinkWrite
	WriteCount int

	batch *Batch
}

// maxWrites bounds BatchView.Writes.
const maxWrites = 64

// SinkWrite is one Write or Probe of a batch.
type SinkWrite struct {
	Began    time.Time
	Duration time.Duration
	Rows     int
	Bytes    int  // encoded
	Attempts int  // requests, as the sink counts them
	Probe    bool // the rows were part of a refused batch
	Err      error
}

// Event identifies an event of a BatchView: one record can hold several.
type Event struct {
	Record int // index into BatchView.Records
	Index  int // position among the events of that record, from 0
}

// Polled returns when the i-th record was polled.
func (v *BatchView) Polled(i int) time.Time {
	at, found := slices.BinarySearchFunc(v.batch.polled, i, func(m polled, i int) int { return cmp.Compare(m.first, i) })
	if !found {
		at--
	}
	return v.batch.polled[at].at
}

// TopicID returns the id of the topic the records come from, zero where the
// broker gives none.
func (v *BatchView) TopicID() [16]byte { return v.batch.topicID }

// Events returns how many events the records hold.
func (v *BatchView) Events() int { return v.batch.events }

// Rows returns how many events became rows.
func (v *BatchView) Rows() int { return len(v.batch.from) }

// Row returns the event behind the i-th row. At BatchDone it may be among the
// rejects as well: the sink refused the row.
func (v *BatchView) Row(i int) Event { return v.batch.from[i].public() }

// Rejects returns how many events are known to be rejected.
func (v *BatchView) Rejects() int { return len(v.batch.rejected) }

// Reject returns the i-th of them, in event order.
func (v *BatchView) Reject(i int) (Event, Reject) {
	r := v.batch.rejected[i]
	return r.event.public(), r
}

// Filtered returns how many events were dropped by rule.
func (v *BatchView) Filtered() int { return len(v.batch.dropped) }

// FilteredEvent returns the i-th of them, in event order, with the reason.
func (v *BatchView) FilteredEvent(i int) (at Event, reason string) {
	d := v.batch.dropped[i]
	return d.event.public(), d.reason
}

func (e event) public() Event { return Event{Record: e.rec, Index: e.index} }

// dropped is one event dropped by rule, kept only for a BatchObserver.
type dropped struct {
	reason string
	event
}

// polled is when the records from first on, up to the next one's, were polled.
type polled struct {
	first int // index into Batch.recs
	at    time.Time
}
