package consumer

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Batch collects what a run of records became. Its buffers are reused from
// batch to batch, so the steady state allocates nothing. It belongs to one
// partition's goroutine at a time.
type Batch struct {
	recs     []*kgo.Record // the records mapped so far, in offset order
	sizes    []int         // events of record i
	buf      []byte        // rows back to back
	ends     []int         // end of row i in buf
	from     []event       // the event behind row i
	rejected []Reject
	passed   int            // of rejected: no dead letter is written for them
	filtered map[string]int // by reason
	dropped  []dropped      // the filtered events one by one; only with a BatchObserver
	observed bool           // there is a BatchObserver
	began    time.Time      // when mapping began; only with a BatchObserver
	polled   []polled       // in order; only with a BatchObserver
	events   int
	version  int64 // of the schema that the rows are encoded for; set by the mapper
	topicID  [16]byte

	capacity int // of buf when the batch was taken from the pool

	rows  [][]byte // views into buf, made by seal
	index int      // index of the next event within the current record
}

// event identifies an event of the batch.
type event struct {
	rec   int // index into Batch.recs
	index int // position among the events of that record
}

// Reject is one event that can never be a row.
type Reject struct {
	Code      string // why, from a closed set; a metric label
	Column    string // the column at fault, or empty
	Reason    string // for the dead letter; holds no secret, and of the event what the sink may quote
	LogReason string // Reason as logs may hold it: no more of the event than a number or keyword
	passed    bool   // without a dead letter, as it is one that came back too often
	event
}

// batches hands out empty batches. The partitions share them: only those that
// write at the moment hold buffers, however many are assigned, and what is not
// used goes with the second garbage collection.
type batches struct {
	pool sync.Pool
	// keep is the largest row buffer that is kept, in bytes: one 9 MiB event
	// must not leave every buffer that size for ever.
	keep int
	// spare is how much larger than their rows the buffers in use may be, all
	// together: partitions that wait with a few rows each must not hold the
	// buffers of those that wrote full batches before.
	spare func() int64
	used  atomic.Int64 // capacity of the buffers in use, as they were taken
}

func newBatches(maxBytes int64, spare func() int64) *batches {
	return &batches{pool: sync.Pool{New: func() any { return new(Batch) }}, keep: int(2 * maxBytes), spare: spare}
}

func (bs *batches) take() *Batch {
	b := bs.pool.Get().(*Batch)
	b.capacity = cap(b.buf)
	bs.used.Add(int64(b.capacity))
	return b
}

// give takes a batch back whose rows nobody uses any more.
func (bs *batches) give(b *Batch) {
	oversized := cap(b.buf) > 4*len(b.buf) && bs.used.Load() > bs.spare()
	bs.used.Add(-int64(b.capacity))
	b.reset()
	if cap(b.buf) > bs.keep || oversized {
		b.buf = nil
	}
	bs.pool.Put(b)
}

// forget is give for a batch whose rows somebody may still use.
func (bs *batches) forget(b *Batch) { bs.used.Add(-int64(b.capacity)) }

// Reset empties the batch for records of the topic with that id.
func (b *Batch) Reset(topicID [16]byte) {
	b.reset()
	b.topicID = topicID
}

// View returns what is in the batch; it is valid until something is added.
func (b *Batch) View() *BatchView { return &BatchView{Records: b.recs, RowBytes: len(b.buf), batch: b} }

func (b *Batch) reset() {
	clear(b.recs)
	clear(b.rows)
	clear(b.rejected)
	clear(b.filtered)
	clear(b.dropped)
	b.recs, b.buf, b.ends, b.from = b.recs[:0], b.buf[:0], b.ends[:0], b.from[:0]
	b.rows, b.rejected, b.dropped, b.sizes = b.rows[:0], b.rejected[:0], b.dropped[:0], b.sizes[:0]
	b.polled = b.polled[:0]
	b.events, b.passed, b.version, b.observed, b.topicID = 0, 0, 0, false, [16]byte{}
}

// Add maps one more record into the batch.
func (b *Batch) Add(rec *kgo.Record, m Mapper) {
	b.recs = append(b.recs, rec)
	b.index = 0
	m(rec, b)
	b.events += b.index
	b.sizes = append(b.sizes, b.index)
}

// Rows returns the rows so far. They are views into the batch, good until
// something is added.
func (b *Batch) Rows() [][]byte {
	b.rows = b.rows[:0]
	start := 0
	for _, end := range b.ends {
		b.rows = append(b.rows, b.buf[start:end:end])
		start = end
	}
	return b.rows
}

// Empty reports whether the record being mapped is the batch's first.
func (b *Batch) Empty() bool { return len(b.recs) <= 1 && b.index == 0 }

// SetSchemaVersion sets the version of the schema that the rows of the batch are
// encoded for. The sink gets it with the rows.
func (b *Batch) SetSchemaVersion(version int64) { b.version = version }

// SchemaVersion returns what SetSchemaVersion set.
func (b *Batch) SchemaVersion() int64 { return b.version }

// TopicID returns the id of the topic whose records are mapped, zero where the
// broker gives none.
func (b *Batch) TopicID() [16]byte { return b.topicID }

// Buf returns the slice to append one encoded row to.
func (b *Batch) Buf() []byte { return b.buf }

// Row takes back the slice from [Batch.Buf]: what was appended is one row.
func (b *Batch) Row(extended []byte) {
	b.buf = extended
	b.ends = append(b.ends, len(extended))
	b.from = append(b.from, b.next())
}

// Reject rejects the event: it can never be a row. code is from a closed set,
// reason is for people; see [Reject].
func (b *Batch) Reject(code, column, reason string) {
	b.rejected = append(b.rejected, Reject{Code: code, Column: column, Reason: reason, LogReason: reason, event: b.next()})
}

// Filter drops the event by rule. reason is from a closed set.
func (b *Batch) Filter(reason string) {
	if b.filtered == nil {
		b.filtered = make(map[string]int)
	}
	b.filtered[reason]++
	e := b.next()
	if b.observed {
		b.dropped = append(b.dropped, dropped{reason, e})
	}
}

func (b *Batch) next() event {
	e := event{rec: len(b.recs) - 1, index: b.index}
	b.index++
	return e
}

// sortRejects puts rejects of the mapper and of the sink in one order.
func (b *Batch) sortRejects() {
	slices.SortFunc(b.rejected, func(x, y Reject) int {
		return cmp.Or(cmp.Compare(x.rec, y.rec), cmp.Compare(x.index, y.index))
	})
}

// before orders the events of a batch.
func (e event) before(f event) bool { return e.rec < f.rec || e.rec == f.rec && e.index < f.index }

func (r *Reject) cause() cause { return cause{r.Column, r.Code} }

// outcomes are what the mapper made of the events that say something of the
// mapping, in their order: nil for a row, else the reject. A reject that names
// no column (no JSON, bad UTF-8) is about the event alone, and what is rejected
// of a dead letter is no news.
func (b *Batch) outcomes(yield func(*Reject) bool) {
	row := 0
	for i := range b.rejected {
		r := &b.rejected[i]
		for ; row < len(b.from) && b.from[row].before(r.event); row++ {
			if !yield(nil) {
				return
			}
		}
		if r.Column != "" && givenUp(b.recs[r.rec]) == 0 && !yield(r) {
			return
		}
	}
	for ; row < len(b.from) && yield(nil); row++ {
	}
}

// prevailing returns the column and code for which at least half of the batch's
// outcomes, or half of the last of them, are rejects; nil where there is none.
func (b *Batch) prevailing() *mappingFault {
	var last refusalRate
	counted, total := map[cause]int{}, 0
	for r := range b.outcomes {
		total++
		if r == nil {
			last.accept(1)
			continue
		}
		counted[r.cause()]++
		last.refuse(r.cause())
	}
	for i := range b.rejected {
		r := &b.rejected[i]
		n := counted[r.cause()]
		if n > 0 && (2*n >= total || 2*last.count(r.cause()) >= last.filled) {
			return &mappingFault{r.cause(), r.LogReason}
		}
	}
	return nil
}

// passLoops finds the rejects of dead letters that were given up twice before.
// A third dead letter is not written: two bridges that are each other's
// dead-letter topic would never stop. The record stays where it was read.
func (b *Batch) passLoops() {
	b.passed = 0
	for i := range b.rejected {
		r := &b.rejected[i]
		if attempts := givenUp(b.recs[r.rec]); attempts+1 >= loopAttempts {
			r.Code, r.passed = CodeDeadLetterLoop, true
			b.passed++
		}
	}
}
