package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// schemaFault says that the sink refuses rows at large, not a row.
type schemaFault struct{ err error }

func (s *schemaFault) Error() string {
	return "the table refuses at least half of the last rows: " + tellable(s.err)
}

// tellable returns the words of a refusal that logs and status pages may hold.
// A sink whose error has a method Reason keeps there what cannot quote a row; the
// whole of it belongs into the dead letter.
func tellable(err error) string {
	var plain interface{ Reason() string }
	if errors.As(err, &plain) {
		return plain.Reason()
	}
	return err.Error()
}

const schemaRemedy = "compare the blueprint's columns with the table's (bridge check shows both) and mend either; delivery resumes by itself"

// mappingFault says that the mapper rejects events at large for one column and
// one reason: the blueprint or the table's columns are at fault, not an event.
type mappingFault struct {
	cause
	told string // of one of the events
}

func (m *mappingFault) Error() string {
	return fmt.Sprintf("at least half of the last events are rejected for column %s (%s): %s", m.column, m.code, m.told)
}

func (m *mappingFault) remedy() string {
	return fmt.Sprintf("compare the mapping of column %s in the blueprint with the events and the table (bridge check, bridge map) and change one of them, or filter out the events that are to be left out; delivery resumes automatically", m.column)
}

// write makes the rows of the batch durable, finds those that can never be and
// adds them to the batch's rejects. While rejects and refusals look like a
// schema fault nothing is rejected: the partition is blocked until it is fixed.
func (p *partition) write() error {
	err := p.open()
	if err == nil {
		err = p.writeOpen()
	}
	for {
		var table *schemaFault
		var mapping *mappingFault
		switch {
		case errors.As(err, &mapping):
			err = p.waitMapping(mapping)
		case errors.As(err, &table):
			err = p.waitMended(table)
		case err != nil:
			return err
		default:
			if b := p.batch; len(p.lone) > 0 {
				b.rejected = append(b.rejected, p.lone...)
				b.sortRejects()
			}
			return nil
		}
		if err == nil {
			err = p.writeOpen()
		}
	}
}

// open begins the batch: no row is settled. It returns a *mappingFault where
// what the mapper made of it, with the batches before, looks like one; that is
// before any of its rows is written.
func (p *partition) open() error {
	p.unsettle()
	b := p.batch
	if b.version != p.mappedBy { // what other rules have rejected says nothing of these
		p.mapped, p.mappedBy = window{}, b.version
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
			p.mapped = window{}
			return &mappingFault{r.cause(), r.LogReason}
		}
	}
	return nil
}

func (p *partition) unsettle() {
	n := len(p.batch.rows)
	p.settled = slices.Grow(p.settled[:0], n)[:n]
	clear(p.settled)
	p.lone = p.lone[:0]
}

// waitMapping holds the partition until nothing prevails in the batch any more:
// the mapping has changed, or better events have come behind the bad ones. What
// has gathered meanwhile is part of the batch then.
func (p *partition) waitMapping(fault *mappingFault) error {
	for {
		p.enter(StateBlocked, fault.Error(), fault.remedy())
		p.log.Error("partition blocked: nothing is committed or dead-lettered until the mapping fits the events", zap.Error(fault), zap.String("remedy", fault.remedy()))
		for next := fault; next != nil && next.cause == fault.cause; next = p.batch.prevailing() {
			select {
			case <-time.After(p.g.probe):
			case <-p.quit:
				return errStopped
			case <-p.ctx.Done():
				return p.ctx.Err()
			}
			p.refill()
		}
		if fault = p.batch.prevailing(); fault == nil {
			break
		}
	}
	p.log.Info("partition resumed: events become rows again")
	p.enter(StateWriting, "", "")
	p.mapped, p.mappedBy = window{}, p.batch.version
	p.unsettle()
	return nil
}

// writeOpen writes the rows that are not settled yet, in order and in Writes of
// at most MaxRows and MaxBytes: one record can hold more events than that.
func (p *partition) writeOpen() error {
	for lo := 0; lo < len(p.settled); {
		if p.settled[lo] {
			lo++
			continue
		}
		hi := reach(p.batch.rows, p.settled, lo, p.g.cfg.MaxRows, int64(p.g.cfg.MaxBytes))
		if err := writeHalving(p, lo, hi, false); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// sendRows, alone and split make a partition a halver.

func (p *partition) sendRows(lo, hi int, probe bool) error {
	err := p.send(lo, hi, probe)
	if err == nil {
		p.recent.accept(hi - lo)
	}
	return err
}

func (p *partition) alone(row int, no refused, err error) error {
	code, column := no.Refused()
	p.lone = append(p.lone, Reject{Code: code, Column: column, Reason: err.Error(), LogReason: tellable(err), event: p.batch.from[row]})
	p.settled[row] = true
	if p.recent.refuse(cause{}) {
		return &schemaFault{err: err}
	}
	return nil
}

func (p *partition) split() { p.g.obs.BatchSplit(p.topic) }

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
		p.settled[lo+i] = true
	}
	p.delivered.Add(int64(len(rows)))
	p.g.obs.RowsDelivered(p.topic, p.id, len(rows), size, ack)
	return nil
}

// waitMended holds the partition until a row is taken. Rows that were about to
// be rejected are open again. Each probe tries the next open row, those that
// were refused first: a row that is bad by itself must not hide that the table
// was mended.
func (p *partition) waitMended(fault *schemaFault) error {
	for _, r := range p.lone {
		for i, from := range p.batch.from {
			if from == r.event {
				p.settled[i] = false
			}
		}
	}
	p.lone = p.lone[:0]
	p.recent = window{}
	row := -1
	p.enter(StateBlocked, fault.Error(), schemaRemedy)
	p.log.Error("partition blocked: nothing is committed or dead-lettered until this is mended", zap.Error(fault), zap.String("remedy", schemaRemedy))
	for {
		select {
		case <-time.After(p.g.probe):
		case <-p.quit:
			return errStopped
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
		if !slices.Contains(p.settled, true) {
			// Perhaps what was mended is the mapping.
			p.refill()
			p.mapped = window{} // these events are in it already
			if err := p.open(); err != nil {
				return err
			}
			if len(p.settled) == 0 {
				break
			}
			row %= len(p.settled)
		}
		row = p.nextOpen(row)
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

// nextOpen returns the row after the given one, going round, that is not
// settled. There is one.
func (p *partition) nextOpen(row int) int {
	for {
		row = (row + 1) % len(p.settled)
		if !p.settled[row] {
			return row
		}
	}
}

// reject applies the policy to the batch's rejects. Under dead_letter it
// returns nil only once every dead letter is acknowledged.
func (p *partition) reject() error {
	b := p.batch
	if len(b.rejected) == 0 {
		return nil
	}
	switch p.g.cfg.Rejects.Policy {
	case PolicyStop:
		r := b.rejected[0]
		rec := b.recs[r.rec]
		return fmt.Errorf("offset %d event %d is rejected (%s): %s; mend the event or the blueprint, or set rejects.policy to dead_letter", rec.Offset, r.index, r.Code, r.Reason)
	case PolicyDeadLetter:
		b.passLoops()
		if letters := p.g.cluster.deadLetters(b, time.Now()); len(letters) > 0 {
			p.enter(StateRejecting, "", "")
			if err := p.deadLetter(letters); err != nil {
				return err
			}
			p.g.obs.DeadLettered(p.topic, len(letters))
		}
	}
	for _, r := range b.rejected {
		p.g.obs.EventRejected(p.topic, r.Code)
	}
	p.logRejects()
	return nil
}

// deadLetter writes until it is done or the partition must go. What was
// acknowledged is not written again, or a topic that refuses one dead letter
// would fill with the others.
func (p *partition) deadLetter(letters []*kgo.Record) error {
	for pause, first := time.Second, true; ; pause = min(2*pause, p.g.probe) {
		var err error
		letters, err = p.g.cluster.writeDeadLetters(p.ctx, p.topic, letters)
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
		var failure *KafkaError
		if errors.As(err, &failure) {
			reason, remedy = fmt.Sprintf("%s: %v", failure.Doing, failure.Err), failure.Remedy
		}
		p.enter(StateBlocked, reason, remedy)
		select {
		case <-time.After(pause):
		case <-p.quit:
			return errStopped
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
}

// rejectLogEvery is how often one partition may log rejects: a topic full of
// poison must not fill the log as well.
const rejectLogEvery = 10 * time.Second

// logRejects writes a line with the number of events since the last one and
// this batch's first as the example; at the end also what was held back.
func (p *partition) logRejects() {
	p.unlogged += len(p.batch.rejected)
	p.unloggedLoops += p.batch.passed
	if time.Since(p.logged) < rejectLogEvery {
		return
	}
	r := p.batch.rejected[0]
	p.log.Warn("events rejected", append(p.rejectCounts(),
		zap.Int64("offset", p.batch.recs[r.rec].Offset), zap.Int("event", r.index), zap.String("code", r.Code), zap.String("column", r.Column), zap.String("reason", r.LogReason))...)
	p.unlogged, p.unloggedLoops, p.logged = 0, 0, time.Now()
}

func (p *partition) logHeldBack() {
	if p.unlogged > 0 {
		p.log.Warn("events rejected", p.rejectCounts()...)
	}
}

func (p *partition) rejectCounts() []zap.Field {
	fields := []zap.Field{zap.Int("events", p.unlogged), zap.String("policy", p.g.cfg.Rejects.Policy)}
	if p.unloggedLoops > 0 {
		fields = append(fields, zap.Int(CodeDeadLetterLoop, p.unloggedLoops), zap.String("remedy", loopRemedy))
	}
	return fields
}
