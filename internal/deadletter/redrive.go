package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
)

// RedriveOptions select the dead letters to redrive.
type RedriveOptions struct {
	Match    func(*Record) bool // called for every dead letter of the integration; redriven ones are left out whatever it returns
	Limit    int                // at most so many matching dead letters; 0: all
	Mapper   consumer.Mapper
	Sink     consumer.Sink        // nil: a dry run, in which every row is delivered
	By       string               // who, for the markers
	OnResult func(*RedriveResult) // called with the result of each dead letter, in order
}

// Outcomes of a dead letter.
const (
	Delivered = "delivered" // every event that failed is durable now
	Rejected  = "rejected"  // one of them can still never be a row
	Filtered  = "filtered"  // one of them is dropped by rule now, so it was not delivered
	Failed    = "failed"    // see Err; whether it was delivered may be unknown
)

// RedriveResult is the result of one dead letter. What was not delivered stays a dead
// letter; where some events were delivered and others were not, those are not written
// again.
type RedriveResult struct {
	Record  *Record // valid until OnResult returns
	Outcome string
	Rows    int               // delivered, as far as is known
	Rejects []consumer.Reject // of the events that failed again
	Err     error             // why it failed, or was delivered without a marker: it would be written again
}

// errNoMarker is behind the Err of dead letters that were delivered without a marker.
var errNoMarker = errors.New("the rows were delivered, but the marker could not be written")

// Redrive maps the dead letters of the reader's integration again and writes their rows
// to its sink, a Write's worth at a time. Nothing goes to the source topic, so that no
// other integration that reads it gets the events again. When rows are acknowledged a marker is added to the dead letters' partition,
// acknowledged by all in-sync replicas, before anything else is written. After a crash
// in between, the next redrive writes the rows again, under the same message_id.
//
// When ctx ends, a Write in flight may continue for Config.Drain; what was delivered is
// marked, and the error is ctx's. Other errors mean that Kafka or the sink failed;
// dead letters without a result were not touched.
func (l *Reader) Redrive(ctx context.Context, o RedriveOptions) error {
	r := &redrive{l: l, o: o}
	if o.Sink != nil {
		markers, err := kafka.NewPartitionWriter(l.cl.Connection, l.cl.Log)
		if err != nil {
			return err
		}
		defer markers.Close()
		r.markers = markers
	}
	if err := l.prepare(ctx, l.parts...); err != nil {
		return err
	}
	matched := 0
	for _, p := range l.parts {
		r.part = p
		err := l.each(ctx, p, func(rec *Record) error {
			if !o.Match(rec) || rec.Resolved {
				return nil
			}
			if matched++; o.Limit > 0 && matched > o.Limit {
				return errEnough
			}
			return r.add(ctx, rec)
		})
		enough := errors.Is(err, errEnough)
		if enough || err == nil {
			err = r.flush(ctx)
		}
		if err != nil || enough {
			return err
		}
	}
	return nil
}

// redrive is one Redrive. It holds one Write's worth of rows at a time.
type redrive struct {
	l       *Reader
	o       RedriveOptions
	part    *partition
	markers *kafka.Client // nil in a dry run

	batch   consumer.Batch // of one dead letter
	pending []*attempt
	events  int   // mapped of them
	held    int64 // bytes of their records
	size    int64 // bytes of rows
	version int64 // of the schema that the rows are encoded for

	rows     [][]byte
	from     []rowOrigin     // the event behind row i
	durable  []bool          // by row
	resolved []bool          // durable or refused
	ctx      context.Context // of the Writes; outlives the caller's by the drain
}

type rowOrigin struct {
	*attempt
	event int
}

// attempt is a dead letter whose rows are to be written.
type attempt struct {
	RedriveResult
	events   consumer.Events // those to deliver
	redriven consumer.Events // those that were, earlier ones included
	durable  consumer.Events // those whose rows are durable now
	whole    bool            // the record holds another number of events than then: all of them count, or none
	unknown  bool            // a row of it has not been written
}

// add maps one dead letter and adds its rows.
func (r *redrive) add(ctx context.Context, rec *Record) error {
	d := &attempt{RedriveResult: RedriveResult{Record: rec}}
	if rec.Fault != "" {
		d.Outcome, d.Err = Failed, fmt.Errorf("the dead letter cannot be mapped as it was: %s", rec.Fault)
		if err := r.flush(ctx); err != nil { // results come in order
			return err
		}
		r.o.OnResult(&d.RedriveResult)
		return nil
	}
	r.batch.Reset(rec.TopicID)
	r.batch.Add(rec.Original, r.o.Mapper)
	cfg, size := r.l.cfg, consumer.Cost(rec.Original)
	// Events that are no rows count, too: many rejects take memory.
	full := len(r.rows) >= cfg.MaxRows || max(len(r.pending), r.events) >= 2*cfg.MaxRows || max(r.held, r.size)+size > int64(cfg.MaxBytes)
	if len(r.pending) > 0 && (full || r.batch.SchemaVersion() != r.version) {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.version = r.batch.SchemaVersion()
	view := r.batch.View()
	d.events, d.redriven = rec.Events, rec.Delivered
	if now := view.Events(); rec.EventCount > 0 && rec.EventCount != now && now > 0 {
		// An index means nothing any more. Some of these events may have been delivered
		// then; that is a duplicate, to leave one out would be a loss.
		d.whole, d.redriven, d.events = true, nil, consumer.Events{{First: 0, Last: now - 1}}
	} else if last := rec.Events[len(rec.Events)-1].Last; last >= now {
		d.Outcome, d.Err = Failed, fmt.Errorf("event %d of the record failed, and it is read as %d events now; compare mapping.input with what it was then", last, now)
		d.events = nil
	}
	wanted := func(at consumer.Event) bool {
		return d.whole || d.events.Has(at.Index) && !rec.Delivered.Has(at.Index)
	}
	for i, row := range r.batch.Rows() {
		if at := view.Row(i); wanted(at) {
			r.rows, r.from = append(r.rows, slices.Clone(row)), append(r.from, rowOrigin{d, at.Index})
			r.size += int64(len(row))
		}
	}
	for i := range view.Rejects() {
		if at, reject := view.Reject(i); wanted(at) {
			d.Rejects = append(d.Rejects, reject)
		}
	}
	r.pending = append(r.pending, d)
	r.events += view.Events()
	r.held += size
	return nil
}

// flush writes the rows, marks what was delivered and reports the results.
func (r *redrive) flush(ctx context.Context) error {
	if len(r.pending) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	n := len(r.rows)
	r.durable, r.resolved = make([]bool, n), make([]bool, n)
	err := r.write(ctx)
	for i, from := range r.from {
		switch {
		case r.durable[i]:
			from.durable.Add(from.event)
			from.Rows++
		case !r.resolved[i]:
			from.unknown = true
		}
	}
	for _, d := range r.pending {
		d.setOutcome(err)
	}
	merr := r.mark(ctx)
	for _, d := range r.pending {
		if merr != nil && d.Rows > 0 {
			d.Err = fmt.Errorf("%w: %w", errNoMarker, merr)
		}
		r.o.OnResult(&d.RedriveResult)
	}
	clear(r.pending)
	clear(r.rows)
	clear(r.from)
	r.pending, r.rows, r.from, r.events, r.held, r.size = r.pending[:0], r.rows[:0], r.from[:0], 0, 0, 0
	if err == nil {
		err = merr
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// setOutcome sets the outcome of the dead letter. failed is why not all rows were
// written.
func (d *attempt) setOutcome(failed error) {
	d.redriven = d.redriven.And(d.durable)
	switch {
	case d.Outcome != "":
	case d.unknown:
		d.Outcome, d.Err = Failed, failed
	case len(d.Rejects) > 0:
		d.Outcome = Rejected
	case len(d.events.Without(d.redriven)) > 0:
		d.Outcome = Filtered
	default:
		d.Outcome = Delivered
	}
}

// write resolves every row. In a dry run all are delivered.
func (r *redrive) write(ctx context.Context) error {
	if r.o.Sink == nil {
		for i := range r.durable {
			r.durable[i], r.resolved[i] = true, true
		}
		return nil
	}
	cfg := r.l.cfg
	var cancel context.CancelCauseFunc
	r.ctx, cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { time.AfterFunc(cfg.Drain, func() { cancel(errDrained) }) })()
	if err := consumer.SendAll(r, r.rows, r.resolved, cfg.MaxRows, int64(cfg.MaxBytes)); err != nil {
		return fmt.Errorf("writing the rows of %d dead letters from %s/%d offset %d on: %w", len(r.pending), r.part.topic, r.part.id, r.pending[0].Record.Offset, err)
	}
	return nil
}

var errDrained = errors.New("the drain time was over")

// SendRows implements [consumer.RowSender].
func (r *redrive) SendRows(lo, hi int, probe bool) error {
	write := r.o.Sink.Write
	if probe {
		write = r.o.Sink.Probe
	}
	if _, err := write(r.ctx, r.version, r.rows[lo:hi]); err != nil {
		return err
	}
	for i := lo; i < hi; i++ {
		r.durable[i], r.resolved[i] = true, true
	}
	return nil
}

// RefuseRow implements [consumer.RowSender]. However many rows are refused, this is
// no schema fault to stop for: the dead letters stay what they are.
func (r *redrive) RefuseRow(row int, code, column string, err error) error {
	d := r.from[row]
	d.Rejects = append(d.Rejects, consumer.Reject{Code: code, Column: column, Reason: err.Error()})
	r.resolved[row] = true
	return nil
}

// maxMarker bounds the list of one marker, in bytes. Where the topic takes less, lists
// are split down to leastMarker.
const maxMarker, leastMarker = 16 << 10, 128

// mark writes markers for the dead letters that were delivered, and returns nil once
// they are acknowledged.
func (r *redrive) mark(ctx context.Context) error {
	if r.markers == nil {
		return nil
	}
	lists := r.lists(maxMarker)
	if len(lists) == 0 {
		return nil
	}
	// It continues when the redrive is stopped: what was delivered is to be noted.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), kafka.PartitionWriteTimeout)
	defer cancel()
	err := r.writeMarkers(writing, lists)
	// Larger ones that were written contain the same.
	for most := maxMarker / 2; consumer.TooLarge(err) && most >= leastMarker; most /= 2 {
		lists = r.lists(most)
		err = r.writeMarkers(writing, lists)
	}
	if err != nil {
		e := r.l.cl.Explain(fmt.Sprintf("writing %d markers to %s/%d", len(lists), r.part.topic, r.part.id), err, kafka.Request{})
		e.Remedy = fmt.Sprintf("check that topic %s may be written to; until then a redrive writes the same rows again, under the same message_id", r.part.topic)
		return e
	}
	for _, list := range lists {
		parseRedriven(string(list), func(at offsetRun, events consumer.Events) bool { r.part.redriven.note(at, events); return true })
	}
	return nil
}

// writeMarkers writes one marker for each list, one by one: together they would be
// one batch, which is what a topic limits.
func (r *redrive) writeMarkers(ctx context.Context, lists [][]byte) error {
	now := time.Now().UTC().Format(consumer.HeaderTime)
	for _, list := range lists {
		rec := &kgo.Record{Topic: r.part.topic, Partition: r.part.id, Headers: []kgo.RecordHeader{
			{Key: HeaderRedriven, Value: list},
			{Key: HeaderRedrivenIn, Value: []byte(r.l.markerHome(r.part))},
			{Key: HeaderRedrivenAt, Value: []byte(now)},
			{Key: HeaderRedrivenBy, Value: []byte(r.o.By)},
			{Key: consumer.HeaderVersion, Value: []byte(r.l.cl.Version)},
		}}
		if err := r.markers.ProduceSync(ctx, rec).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// lists returns the lists of the markers, each within so many bytes.
func (r *redrive) lists(most int) [][]byte {
	var lists [][]byte
	var list []byte
	add := func(at offsetRun, events consumer.Events) {
		item := appendRedriven(nil, at, events)
		if len(list) > 0 && len(list)+1+len(item) > most {
			lists, list = append(lists, list), nil
		}
		list = appendRedriven(list, at, events)
	}
	whole := offsetRun{first: -1, last: -1}
	flush := func() {
		if whole.first >= 0 {
			add(whole, nil)
		}
		whole = offsetRun{first: -1, last: -1}
	}
	for _, d := range r.pending { // in the order of their offsets
		offset := d.Record.Offset
		switch {
		case d.Outcome == Delivered && whole.first >= 0 && offset == whole.last+1:
			whole.last = offset
		case d.Outcome == Delivered:
			flush()
			whole = offsetRun{offset, offset}
		case d.Rows > 0 && !d.whole && !slices.Equal(d.redriven, d.Record.Delivered):
			flush()
			// A list names a dead letter once.
			for some := range slices.Chunk(d.redriven, max(most/16, 1)) {
				add(offsetRun{offset, offset}, some)
				lists, list = append(lists, list), nil
			}
		}
	}
	flush()
	if len(list) > 0 {
		lists = append(lists, list)
	}
	return lists
}
