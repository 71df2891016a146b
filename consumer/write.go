package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// schemaFault is a sink that refuses most rows, not a single one.
type schemaFault struct{ err error }

func (s *schemaFault) Error() string {
	return "the table refuses at least half of the last rows: " + logReason(s.err)
}

// logReason returns the text of a refusal for logs and status pages. The Reason of
// a sink's error, where it has that method, cannot quote a row; the whole error is
// for the dead letter.
func logReason(err error) string {
	var plain interface{ Reason() string }
	if errors.As(err, &plain) {
		return plain.Reason()
	}
	return err.Error()
}

const schemaRemedy = "compare the blueprint's columns with the table's (bridge check shows both) and fix either; delivery resumes automatically"

// mappingFault is a mapper that rejects most events for one column and one reason:
// the blueprint or the table's columns are at fault, not an event.
type mappingFault struct {
	cause
	reason string // of one of the events
}

func (m *mappingFault) Error() string {
	return fmt.Sprintf("at least half of the last events are rejected for column %s (%s): %s", m.column, m.code, m.reason)
}

func (m *mappingFault) remedy() string {
	return fmt.Sprintf("compare the mapping of column %s in the blueprint with the events and the table (bridge check, bridge map) and change one of them, or filter out the events that are to be left out; delivery resumes automatically", m.column)
}

// refusalRate remembers the outcomes of a partition's last events, to distinguish a
// schema fault from single bad events: a column that was dropped makes every row refused,
// and dead-lettering all of them would only move the topic elsewhere. It holds a
// few numbers until something is refused.
type refusalRate struct {
	outcome []*tally // ring of rateSize; nil: accepted. Nil before the first refusal
	next    int
	filled  int
	tallies map[cause]*tally // of what is in the ring
}

// cause is what refusals have in common. All of the sink's have the zero value:
// the column is not always known.
type cause struct{ column, code string }

// tally counts the refusals of one cause in the ring.
type tally struct {
	cause
	n int
}

const (
	rateSize = 200
	// It takes schemaFaultMin refusals, and half of the outcomes, to make a schema
	// fault.
	schemaFaultMin = 50
)

func (w *refusalRate) add(t *tally) {
	if old := w.outcome[w.next]; old != nil {
		if old.n--; old.n == 0 {
			delete(w.tallies, old.cause)
		}
	}
	w.filled = min(w.filled+1, rateSize)
	w.outcome[w.next] = t
	w.next = (w.next + 1) % rateSize
}

func (w *refusalRate) accept(n int) {
	if len(w.tallies) == 0 {
		w.filled = min(w.filled+n, rateSize)
		return
	}
	for range min(n, rateSize) {
		w.add(nil)
	}
}

// refuse notes one refusal and reports whether this is a schema fault.
func (w *refusalRate) refuse(c cause) bool {
	if w.outcome == nil {
		w.outcome, w.tallies = make([]*tally, rateSize), make(map[cause]*tally)
	}
	t := w.tallies[c]
	if t == nil {
		t = &tally{cause: c}
		w.tallies[c] = t
	}
	t.n++ // before add, which may count down the same tally
	w.add(t)
	return t.n >= schemaFaultMin && t.n*2 >= w.filled
}

// count returns how many refusals of a cause the ring holds.
func (w *refusalRate) count(c cause) int {
	if t := w.tallies[c]; t != nil {
		return t.n
	}
	return 0
}

// write makes the rows of the batch durable, finds those that can never be and adds
// them to the batch's rejects. While rejects and refusals look like a schema fault
// nothing is rejected: the partition is blocked until it is fixed.
func (p *partition) write() error {
	err := p.checkMapping()
	if err == nil {
		err = p.sendAll()
	}
	for {
		var table *schemaFault
		var mapping *mappingFault
		switch {
		case errors.As(err, &mapping):
			err = p.waitForMapping(mapping)
		case errors.As(err, &table):
			err = p.waitForTable(table)
		case err != nil:
			return err
		default:
			if b := p.batch; len(p.refusedRows) > 0 {
				b.rejected = append(b.rejected, p.refusedRows...)
				b.sortRejects()
			}
			return nil
		}
		if err == nil {
			err = p.sendAll()
		}
	}
}

// checkMapping begins the batch: no row is resolved. It returns a *mappingFault,
// before any row is written, where the mapper's outcomes of this batch and of those
// before look like one.
func (p *partition) checkMapping() error {
	p.resetRows()
	b := p.batch
	if b.version != p.mappedVersion { // rejects of another version do not count
		p.mapped, p.mappedVersion = refusalRate{}, b.version
	}
	switch {
	case len(b.rejected) == 0:
		p.mapped.accept(len(b.from))
		return nil
	case p.g.cfg.Rejects.Policy == PolicyStop:
		return nil // the first reject ends the run
	}
	for r := range b.outcomes {
		if r == nil {
			p.mapped.accept(1)
		} else if p.mapped.refuse(r.cause()) {
			p.mapped = refusalRate{}
			return &mappingFault{r.cause(), r.LogReason}
		}
	}
	return nil
}

func (p *partition) resetRows() {
	n := len(p.batch.rows)
	p.resolved = slices.Grow(p.resolved[:0], n)[:n]
	clear(p.resolved)
	p.refusedRows = p.refusedRows[:0]
}

// pause waits before the next attempt of a blocked partition. It returns an error
// when the partition has to stop.
func (p *partition) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-p.quit:
		return errStopped
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// waitForMapping blocks the partition until no fault prevails in the batch: the
// mapping has changed, or better events have come after the bad ones. What has
// gathered meanwhile is part of the batch then.
func (p *partition) waitForMapping(fault *mappingFault) error {
	for {
		p.enter(StateBlocked, fault.Error(), fault.remedy())
		p.log.Error("partition blocked: nothing is committed or dead-lettered until the mapping fits the events", zap.Error(fault), zap.String("remedy", fault.remedy()))
		for next := fault; next != nil && next.cause == fault.cause; next = p.batch.prevailing() {
			if err := p.pause(p.g.probe); err != nil {
				return err
			}
			p.refill()
		}
		if fault = p.batch.prevailing(); fault == nil {
			break
		}
	}
	p.log.Info("partition resumed: events become rows again")
	p.enter(StateWriting, "", "")
	p.mapped, p.mappedVersion = refusalRate{}, p.batch.version
	p.resetRows()
	return nil
}

// waitForTable blocks the partition until the table takes a row. Rows that were
// about to be rejected are unresolved again. Each probe tries the next such row,
// the refused ones first: one bad row must not hide that the table is fixed.
func (p *partition) waitForTable(fault *schemaFault) error {
	for _, r := range p.refusedRows {
		for i, from := range p.batch.from {
			if from == r.event {
				p.resolved[i] = false
			}
		}
	}
	p.refusedRows = p.refusedRows[:0]
	p.sent = refusalRate{}
	row := -1
	p.enter(StateBlocked, fault.Error(), schemaRemedy)
	p.log.Error("partition blocked: nothing is committed or dead-lettered until this is fixed", zap.Error(fault), zap.String("remedy", schemaRemedy))
	for {
		if err := p.pause(p.g.probe); err != nil {
			return err
		}
		if !slices.Contains(p.resolved, true) {
			// The fix may be a changed mapping.
			p.refill()
			p.mapped = refusalRate{} // these events are in it already
			if err := p.checkMapping(); err != nil {
				return err
			}
			if len(p.resolved) == 0 {
				break
			}
			row %= len(p.resolved)
		}
		for row = (row + 1) % len(p.resolved); p.resolved[row]; row = (row + 1) % len(p.resolved) {
		}
		err := p.send(row, row+1, true)
		var no refused
		if err == nil {
			break
		}
		if !errors.As(err, &no) {
			return err
		}
	}
	p.log.Info("partition resumed: the table takes rows again")
	p.enter(StateWriting, "", "")
	return nil
}

func (p *partition) sendAll() error {
	return SendAll(p, p.batch.rows, p.resolved, p.g.cfg.MaxRows, int64(p.g.cfg.MaxBytes))
}

// SendRows implements [RowSender].
func (p *partition) SendRows(lo, hi int, probe bool) error {
	err := p.send(lo, hi, probe)
	var no refused
	switch {
	case err == nil:
		p.sent.accept(hi - lo)
	case hi-lo > 1 && errors.As(err, &no):
		p.g.obs.BatchSplit(p.topic)
	}
	return err
}

// RefuseRow implements [RowSender].
func (p *partition) RefuseRow(row int, code, column string, err error) error {
	p.refusedRows = append(p.refusedRows, Reject{Code: code, Column: column, Reason: err.Error(), LogReason: logReason(err), event: p.batch.from[row]})
	p.resolved[row] = true
	if p.sent.refuse(cause{}) {
		return &schemaFault{err: err}
	}
	return nil
}

// send is one Write or Probe.
func (p *partition) send(lo, hi int, probe bool) error {
	write := p.g.sink.Write
	if probe {
		write = p.g.sink.Probe
	}
	rows := p.batch.rows[lo:hi]
	began := time.Now()
	attempts, err := write(p.ctx, p.batch.version, rows)
	p.observeWrite(SinkWrite{Began: began, Rows: len(rows), Attempts: attempts, Probe: probe, Err: err}, rows)
	if err != nil {
		return err
	}
	ack := time.Since(began)
	size := 0
	for i, row := range rows {
		size += len(row)
		p.resolved[lo+i] = true
	}
	p.delivered.Add(int64(len(rows)))
	p.g.obs.RowsDelivered(p.topic, p.id, len(rows), size, ack)
	return nil
}

// reject applies the policy to the batch's rejects. Under dead_letter it returns
// nil only once every dead letter is acknowledged.
func (p *partition) reject() error {
	b := p.batch
	if len(b.rejected) == 0 {
		return nil
	}
	switch p.g.cfg.Rejects.Policy {
	case PolicyStop:
		r := b.rejected[0]
		rec := b.recs[r.rec]
		return fmt.Errorf("offset %d event %d is rejected (%s): %s; fix the event or the blueprint, or set rejects.policy to dead_letter", rec.Offset, r.index, r.Code, r.Reason)
	case PolicyDeadLetter:
		b.passLoops()
		if records := b.DeadLetters(&p.g.cfg, time.Now()); len(records) > 0 {
			p.enter(StateRejecting, "", "")
			if err := p.writeDeadLetters(records); err != nil {
				return err
			}
			p.g.obs.DeadLettered(p.topic, len(records))
		}
	}
	for _, r := range b.rejected {
		p.g.obs.EventRejected(p.topic, r.Code)
	}
	p.logRejects()
	return nil
}

// writeDeadLetters retries until all are written or the partition must stop. What
// was acknowledged is not written again, or a topic that refuses one dead letter
// would fill with the others.
func (p *partition) writeDeadLetters(records []*kgo.Record) error {
	for wait, first := time.Second, true; ; wait = min(2*wait, p.g.probe) {
		var err error
		records, err = p.g.cluster.writeDeadLetters(p.ctx, p.topic, records)
		if err == nil {
			if !first {
				p.log.Info("partition resumed: dead letters are written again")
			}
			return nil
		}
		if p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		if first {
			p.log.Error("partition blocked: its dead letters cannot be written, so nothing is committed", zap.Error(err))
			first = false
		}
		reason, remedy := err.Error(), ""
		var failure *kafka.Error
		if errors.As(err, &failure) {
			reason, remedy = fmt.Sprintf("%s: %v", failure.Op, failure.Err), failure.Remedy
		}
		p.enter(StateBlocked, reason, remedy)
		if err := p.pause(wait); err != nil {
			return err
		}
	}
}

// rejectLogEvery is how often one partition may log rejects: a topic full of bad
// events must not fill the log as well.
const rejectLogEvery = 10 * time.Second

// logRejects writes a line with the number of events since the last one and this
// batch's first as the example.
func (p *partition) logRejects() {
	p.unlogged += len(p.batch.rejected)
	p.unloggedLoops += p.batch.passed
	if time.Since(p.logged) < rejectLogEvery {
		return
	}
	r := p.batch.rejected[0]
	p.logRejectCounts(zap.Int64("offset", p.batch.recs[r.rec].Offset), zap.Int("event", r.index),
		zap.String("code", r.Code), zap.String("column", r.Column), zap.String("reason", r.LogReason))
	p.unlogged, p.unloggedLoops, p.logged = 0, 0, time.Now()
}

func (p *partition) logRejectCounts(example ...zap.Field) {
	if p.unlogged == 0 {
		return
	}
	fields := []zap.Field{zap.Int("events", p.unlogged), zap.String("policy", p.g.cfg.Rejects.Policy)}
	if p.unloggedLoops > 0 {
		fields = append(fields, zap.Int(CodeDeadLetterLoop, p.unloggedLoops), zap.String("remedy", loopRemedy))
	}
	p.log.Warn("events rejected", append(fields, example...)...)
}
