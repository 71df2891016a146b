package oracle

import (
	"fmt"
	"time"
)

// writer is what one process wrote of one partition.
type writer struct {
	lo, hi   int64 // the offsets of its last write
	at       time.Time
	begun    int    // times it began with the partition, by what it wrote
	assigned int    // times the partition was assigned to it, by its log
	last     string // where it last began
	changes  int    // of the columns and of its blueprint that its batches were mapped again for
	edition  int    // of the blueprint of its last write
}

func (log *eventLog) writer(process string) *writer {
	w := log.writers[process]
	if w == nil {
		w = &writer{lo: -1, hi: -1}
		log.writers[process] = w
	}
	return w
}

// Assigned adds that partitions were assigned to a process.
func (l *Ledger) Assigned(process string, partitions []int32) {
	defer l.lock()()
	for _, p := range partitions {
		l.log(p).writer(process).assigned++
	}
}

// ColumnsChanged notes a change of the table: batches may be mapped again.
func (l *Ledger) ColumnsChanged() {
	defer l.lock()()
	l.columns++
}

// BlueprintReplaced notes that the blueprint of a process is about to be replaced:
// it may map its batches again.
func (l *Ledger) BlueprintReplaced(process string) {
	defer l.lock()()
	l.blueprintsOf(process).replaced++
}

// Edition returns that of the last row of a process, and when it was written.
func (l *Ledger) Edition(process string) (edition int, at time.Time) {
	defer l.lock()()
	b := l.blueprintsOf(process)
	return b.edition, b.at
}

func (l *Ledger) blueprintsOf(process string) *blueprints {
	b := l.blueprints[process]
	if b == nil {
		b = &blueprints{}
		l.blueprints[process] = b
	}
	return b
}

// changes counts what may have a process map batches again.
func (l *Ledger) changes(process string) int { return l.columns + l.blueprintsOf(process).replaced }

// How a write relates to the one before it of the same process.
type relation int

const (
	next     relation = iota // after it
	repeated                 // the same rows, or some of them, again
	remapped                 // from the beginning of the batch, for other columns or by another blueprint
	begun                    // elsewhere: the partition was assigned again
)

// Written adds the rows of one request that the service has kept, in the order of
// the table.
func (l *Ledger) Written(rows []DeliveredRow, now time.Time) {
	if len(rows) == 0 {
		return
	}
	defer l.lock()()
	l.sum.Writes++
	first := rows[0]
	for i, r := range rows {
		if r.Difference != "" {
			l.v.Add(RuleValue, "row of event %d at %d/%d, written by %s: %s", r.Number, r.Partition, r.Offset, r.Process, r.Difference)
		}
		if i > 0 && (r.Partition != first.Partition || r.Offset <= rows[i-1].Offset || r.Process != first.Process) {
			l.v.Add(RuleOrder, "in one request of %s, %d/%d is after %d/%d", r.Process, r.Partition, r.Offset, rows[i-1].Partition, rows[i-1].Offset)
			return
		}
	}
	log := l.log(first.Partition)
	w := log.writer(first.Process)
	l.checkEditions(w, rows, now)
	how := l.relation(log, w, first, now)
	w.lo, w.hi, w.at = first.Offset, rows[len(rows)-1].Offset, now
	for _, r := range rows {
		l.row(log, r, how)
	}
}

// relation classifies a write and checks where an assignment begins.
func (l *Ledger) relation(log *eventLog, w *writer, first DeliveredRow, now time.Time) relation {
	switch {
	case w.begun > 0 && first.Offset > w.hi:
		return next
	case w.begun > 0 && first.Offset >= w.lo && l.cfg.AckMayBeLost(first.Process, w.at):
		l.sum.RepeatedWrites++
		return repeated
	case w.begun > 0 && w.begun >= w.assigned && w.changes < l.changes(first.Process) && first.Offset > w.hi-int64(2*l.cfg.MaxRows):
		// A slow process may learn of the first of two changes when both are made. Those
		// before it had no batch mapped again.
		w.changes = max(w.changes+1, l.changes(first.Process)-1)
		return remapped
	}
	// Without a cause, Close shows that the partition was not assigned so often:
	// the log of an assignment may be read later than its rows.
	w.begun++
	w.last = fmt.Sprintf("offset %d at %s", first.Offset, Clock(now))
	w.changes = l.changes(first.Process)
	l.sum.Assignments++
	if back := log.high + 1 - first.Offset; back > 0 {
		l.sum.LongestStepBack = max(l.sum.LongestStepBack, back)
		if most := l.uncommitted(log, now) + int64(2*l.cfg.MaxRows); back > most {
			l.v.Add(RuleBound, "partition %d: %s began %d rows before the end of the table; one write and what became durable in the last %s are %d",
				first.Partition, first.Process, back, l.cfg.Uncommitted, most)
		}
	}
	if c := log.committedBefore(now.Add(-underWay)); first.Offset < c.offset && !l.cfg.Frozen(first.Process, now.Add(-l.cfg.Uncommitted)) {
		l.v.Add(RuleTakeover, "partition %d: %s began at offset %d, and %d was committed at %s",
			first.Partition, first.Process, first.Offset, c.offset, Clock(c.at))
	}
	return begun
}

// underWay is how long before its first row a new owner may have asked for the committed
// offset, and how long a commit may be under way: one that was sent before the partition was
// lost may be applied after the new owner, often the same member, has asked.
const underWay = 5 * time.Second

// committedBefore returns the last commit that was seen by then, the zero value if there was
// none.
func (log *eventLog) committedBefore(then time.Time) commit {
	for i := len(log.commits) - 1; i >= 0; i-- {
		if !log.commits[i].at.After(then) {
			return log.commits[i]
		}
	}
	return commit{}
}

// checkEditions checks the promise of a reload: a blueprint takes effect between
// two writes, and for good.
func (l *Ledger) checkEditions(w *writer, rows []DeliveredRow, now time.Time) {
	first := rows[0]
	for _, r := range rows[1:] {
		if r.Edition != first.Edition {
			l.v.Add(RuleReload, "in one request of %s, %d/%d is mapped by edition %d of its blueprint and %d/%d by edition %d",
				r.Process, first.Partition, first.Offset, first.Edition, r.Partition, r.Offset, r.Edition)
			break
		}
	}
	if first.Edition < w.edition {
		l.v.Add(RuleReload, "%s wrote %d/%d by edition %d of its blueprint, after edition %d",
			first.Process, first.Partition, first.Offset, first.Edition, w.edition)
	}
	if first.Edition > w.edition && w.edition > 0 {
		l.sum.Reloads++
	}
	w.edition = max(w.edition, first.Edition)
	b := l.blueprintsOf(first.Process)
	b.edition, b.at = max(b.edition, first.Edition), now
}

// uncommitted is at most how many rows became durable in the time that a commit
// may take.
func (l *Ledger) uncommitted(log *eventLog, now time.Time) int64 {
	from := int64(-1)
	for _, was := range log.past {
		if now.Sub(was.at) <= l.cfg.Uncommitted {
			break
		}
		from = was.high
	}
	return log.high - from
}

func (l *Ledger) row(log *eventLog, r DeliveredRow, how relation) {
	l.arrived(log, r.Event)
	switch l.kind(r.Number) {
	case Row, Committing, RowAndDeadLetter:
	case Open, Aborted:
		l.tooEarly(r.Event, "the table")
	default:
		l.v.Add(RuleMisplaced, "event %d at %d/%d is in the table, and cannot be a row", r.Number, r.Partition, r.Offset)
	}
	l.sum.Rows++
	again := rowsOf(log.state[r.Offset]) > 0
	if rowsOf(log.state[r.Offset]) < 15 {
		log.state[r.Offset]++
	}
	switch {
	case !again:
		l.sum.DistinctRows++
		if r.Offset < log.high {
			// Two members overlap for as long as one does not know that it has
			// lost the partition.
			if log.highBy == r.Process {
				l.v.Add(RuleOrder, "partition %d: %s wrote offset %d for the first time after offset %d", r.Partition, r.Process, r.Offset, log.high)
			}
			l.sum.Overlaps++
		}
	case how == repeated:
		l.sum.AgainByLostAck++
	case how == remapped:
		l.sum.AgainByRemapping++
	default:
		l.sum.AgainByAssignment++
	}
	if r.Offset > log.high {
		log.high, log.highBy = r.Offset, r.Process
	}
}

// Clock prints a time of day.
func Clock(t time.Time) string { return t.Format("15:04:05.000") }
