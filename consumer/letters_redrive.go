package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// RedriveOptions say which letters are redriven, and how.
type RedriveOptions struct {
	Match    func(*DeadLetter) bool // asked of every letter; settled ones are left out whatever it says
	Limit    int                    // at most so many matching letters; 0: all
	Mapper   Mapper
	Sink     Sink                 // nil: a dry run, in which every row lands
	By       string               // who, for the markers
	OnResult func(*RedriveResult) // hears what became of each letter, in order
}

// Outcomes of a letter.
const (
	RedriveLanded   = "landed"   // every event that failed is durable now
	RedriveRejected = "rejected" // one of them can still never be a row
	RedriveFiltered = "filtered" // one of them is dropped by rule now, so it did not land
	RedriveFailed   = "failed"   // see Err; whether it landed may be unknown
)

// RedriveResult is what became of one letter. What did not land stays a letter; where
// some events landed and others did not, those are not written again.
type RedriveResult struct {
	DeadLetter *DeadLetter // good until OnResult returns
	Outcome    string
	Rows       int      // landed, as far as is known
	Rejects    []Reject // of the events that failed again
	Err        error    // why it failed, or landed without a marker: it would be written again
}

// errNoMarker is behind the Err of letters that landed without a marker.
var errNoMarker = errors.New("the rows landed, but that could not be noted")

// Redrive maps the letters anew and writes their rows, a Write's worth at a
// time. When rows are acknowledged a marker settles their letters: it is added
// to the letters' partition, acknowledged by all in-sync replicas, before
// anything else is written. A crash in between has the rows written again by
// the next redrive, under the same message_id.
//
// When ctx ends, a Write in flight may go on for Config.Drain; what landed is
// marked, and the error is ctx's. Other errors mean that Kafka or the sink
// failed; letters not told of were not touched.
func (l *DeadLetterReader) Redrive(ctx context.Context, o RedriveOptions) error {
	r := &redrive{l: l, o: o, batch: new(Batch)}
	if o.Sink != nil {
		m, err := l.c.newMarkers()
		if err != nil {
			return err
		}
		defer m.Close()
		r.markers = m
	}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	matched := 0
	for _, p := range l.parts {
		r.part = p
		err := l.each(ctx, p, func(letter *DeadLetter) error {
			if !o.Match(letter) || letter.Settled {
				return nil
			}
			if matched++; o.Limit > 0 && matched > o.Limit {
				return errEnough
			}
			return r.take(ctx, letter)
		})
		enough := errors.Is(err, errEnough)
		if enough {
			err = nil
		}
		if err == nil {
			err = r.flush(ctx)
		}
		if err != nil || enough {
			return err
		}
	}
	return nil
}

// redrive is one Redrive. It holds one batch at a time.
type redrive struct {
	l       *DeadLetterReader
	o       RedriveOptions
	part    *letterPartition
	markers *kgo.Client // nil in a dry run

	batch   *Batch
	letters []*redriven // by record of the batch
	held    int64       // bytes of their records

	ctx     context.Context // of the Writes; outlives the caller's by the drain
	durable []bool          // by row of the batch
	settled []bool          // durable or refused
}

// redriven is a letter in the batch.
type redriven struct {
	RedriveResult
	events  Events // those to land
	landed  Events // those that did, earlier ones included
	rows    Events // those whose rows are durable now
	whole   bool   // the record is read as other events than then: all of them count, or none
	pending bool   // a row of it has not been written
}

// take maps one letter into the batch.
func (r *redrive) take(ctx context.Context, letter *DeadLetter) error {
	d := &redriven{RedriveResult: RedriveResult{DeadLetter: letter}}
	if letter.Fault != "" {
		d.Outcome, d.Err = RedriveFailed, fmt.Errorf("the letter cannot be mapped as it was: %s", letter.Fault)
		if err := r.flush(ctx); err != nil { // what is told comes in order
			return err
		}
		r.o.OnResult(&d.RedriveResult)
		return nil
	}
	cfg := &r.l.c.cfg
	size := cost(letter.Original)
	// Events that are no rows count, too: many rejects take memory.
	if b := r.batch; len(b.recs) > 0 && (len(b.ends) >= cfg.MaxRows || max(len(b.recs), b.events) >= 2*cfg.MaxRows || max(r.held, int64(len(b.buf)))+size > int64(cfg.MaxBytes)) {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	b := r.batch
	rows, rejects := len(b.ends), len(b.rejected)
	b.topicID = letter.TopicID
	b.Add(letter.Original, r.o.Mapper)
	d.events, d.landed = letter.Events, letter.Landed
	if now := b.index; letter.EventCount > 0 && letter.EventCount != now && now > 0 {
		// An index says nothing any more. Some of these events may have been
		// delivered then; that is a duplicate, to leave one out would be a loss.
		d.whole, d.landed, d.events = true, nil, Events{{0, now - 1}}
	} else if last := letter.Events[len(letter.Events)-1].Last; last >= now {
		d.Outcome, d.Err = RedriveFailed, fmt.Errorf("event %d of the record failed, and it is read as %d events now; compare mapping.input with what it was then", last, now)
		d.events = nil
	}
	b.keep(rows, rejects, func(event int) bool {
		return d.events.Has(event) && !letter.Landed.Has(event) || d.whole
	})
	r.letters = append(r.letters, d)
	r.held += size
	return nil
}

// keep drops what the last record became, from the given row and reject on,
// but for the events that are wanted.
func (b *Batch) keep(row, reject int, wanted func(event int) bool) {
	start := 0
	if row > 0 {
		start = b.ends[row-1]
	}
	at, next := start, row
	for i := row; i < len(b.ends); i++ {
		end := b.ends[i]
		if wanted(b.from[i].index) {
			at += copy(b.buf[at:], b.buf[start:end])
			b.ends[next], b.from[next] = at, b.from[i]
			next++
		}
		start = end
	}
	b.buf, b.ends, b.from = b.buf[:at], b.ends[:next], b.from[:next]
	kept := b.rejected[:reject]
	for _, x := range b.rejected[reject:] {
		if wanted(x.index) {
			kept = append(kept, x)
		}
	}
	b.rejected = kept
}

// flush writes the batch, marks what landed and tells what became of it.
func (r *redrive) flush(ctx context.Context) error {
	if len(r.letters) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	b := r.batch
	n := len(b.Rows())
	r.durable, r.settled = make([]bool, n), make([]bool, n)
	err := r.write(ctx)
	for i, from := range b.from {
		d := r.letters[from.rec]
		switch {
		case r.durable[i]:
			d.rows.add(from.index)
			d.Rows++
		case !r.settled[i]:
			d.pending = true
		}
	}
	for _, x := range b.rejected {
		r.letters[x.rec].Rejects = append(r.letters[x.rec].Rejects, x)
	}
	for _, d := range r.letters {
		d.judge(err)
	}
	merr := r.mark(ctx)
	for _, d := range r.letters {
		if merr != nil && d.Rows > 0 {
			d.Err = fmt.Errorf("%w: %w", errNoMarker, merr)
		}
		r.o.OnResult(&d.RedriveResult)
	}
	b.reset()
	clear(r.letters)
	r.letters, r.held = r.letters[:0], 0
	if err == nil {
		err = merr
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// judge says what became of the letter. failed is why the batch was not
// written to its end.
func (d *redriven) judge(failed error) {
	d.landed = d.landed.And(d.rows)
	left := len(d.events.Without(d.landed)) > 0
	switch {
	case d.Outcome != "":
	case d.pending:
		d.Outcome, d.Err = RedriveFailed, failed
	case len(d.Rejects) > 0:
		d.Outcome = RedriveRejected
	case left:
		d.Outcome = RedriveFiltered
	default:
		d.Outcome = RedriveLanded
	}
}

// write brings every row to its end. In a dry run that is none.
func (r *redrive) write(ctx context.Context) error {
	if r.o.Sink == nil {
		for i := range r.durable {
			r.durable[i], r.settled[i] = true, true
		}
		return nil
	}
	var cancel context.CancelFunc
	r.ctx, cancel = outlive(ctx, r.l.c.cfg.Drain)
	defer cancel()
	cfg := &r.l.c.cfg
	for lo := 0; lo < len(r.settled); {
		hi := reach(r.batch.rows, r.settled, lo, cfg.MaxRows, int64(cfg.MaxBytes))
		if err := writeHalving(r, lo, hi, false); err != nil {
			return fmt.Errorf("writing the rows of %d letters from %s/%d offset %d on: %w", len(r.letters), r.part.topic, r.part.id, r.letters[0].DeadLetter.Offset, err)
		}
		lo = hi
	}
	return nil
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() { time.AfterFunc(d, func() { cancel(errDrained) }) })
	return longer, func() {
		forget()
		cancel(nil)
	}
}

// sendRows, alone and split make a redrive a halver.

func (r *redrive) sendRows(lo, hi int, probe bool) error {
	by := r.o.Sink.Write
	if probe {
		by = r.o.Sink.Probe
	}
	if _, err := by(r.ctx, r.batch.version, r.batch.rows[lo:hi]); err != nil {
		return err
	}
	for i := lo; i < hi; i++ {
		r.durable[i], r.settled[i] = true, true
	}
	return nil
}

// However many rows are refused, this is no schema fault to stop for: nothing is
// given up here, their letters stay what they are.
func (r *redrive) alone(row int, no refused, err error) error {
	code, column := no.Refused()
	r.batch.rejected = append(r.batch.rejected, Reject{Code: code, Column: column, Reason: err.Error(), event: r.batch.from[row]})
	r.settled[row] = true
	return nil
}

func (r *redrive) split() {}
