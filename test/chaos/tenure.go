package main

import (
	"fmt"
	"time"
)

// tenure is what one process wrote of one partition.
type tenure struct {
	lo, hi   int64 // the offsets of its last write
	at       time.Time
	begun    int    // times it began with the partition, by what it wrote
	assigned int    // times it was given the partition, by its log
	last     string // where it last began
	drift    int    // changes of the columns and of its blueprint when it last began a batch anew
	edition  int    // of the blueprint its last write was made by
}

// assigned enters that a process was given partitions.
func (l *ledger) assigned(member string, partitions []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range partitions {
		l.book(p).tenure(member).assigned++
	}
}

func (b *book) tenure(member string) *tenure {
	t := b.writers[member]
	if t == nil {
		t = &tenure{lo: -1, hi: -1}
		b.writers[member] = t
	}
	return t
}

// How a write stands to the one before it of the same process.
const (
	onward   = iota // behind it
	repeated        // the same rows, or some of them, again
	remade          // from the beginning of the batch, which was made anew for other columns or by another blueprint
	begun           // elsewhere: the process was given the partition anew
)

// written enters the rows of one request that the service has kept. It is
// called in the order of the table.
func (l *ledger) written(rows []row, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Writes++
	first := rows[0]
	last := rows[len(rows)-1]
	for i, r := range rows {
		if r.wrong != "" {
			l.v.add(ruleValue, "row of event %d at %d/%d, written by %s: %s", r.number, r.partition, r.offset, r.member, r.wrong)
		}
		if i > 0 && (r.partition != first.partition || r.offset <= rows[i-1].offset || r.member != first.member) {
			l.v.add(ruleOrder, "in one request of %s, %d/%d stands behind %d/%d", r.member, r.partition, r.offset, rows[i-1].partition, rows[i-1].offset)
			return
		}
	}
	b := l.book(first.partition)
	t := b.tenure(first.member)
	l.planned(t, rows, now)
	how := l.how(b, t, first, now)
	t.lo, t.hi, t.at = first.offset, last.offset, now
	for _, r := range rows {
		l.row(b, t, r, how)
	}
}

// how tells what a write is, and holds it against the rules.
func (l *ledger) how(b *book, t *tenure, first row, now time.Time) int {
	switch {
	case t.begun > 0 && first.offset > t.hi:
		return onward
	case t.begun > 0 && first.offset >= t.lo && l.excused(first.member, t.at):
		l.sum.RepeatWrites++
		return repeated
	case t.begun > 0 && t.begun >= t.assigned && t.drift < l.changes(first.member) && first.offset > t.hi-int64(2*l.lim.maxRows):
		t.drift = l.changes(first.member)
		return remade
	}
	// If nothing explains it, the end will show that the partition was not given
	// so often: the log that says so may be heard later than the rows.
	t.begun++
	t.last = fmt.Sprintf("offset %d at %s", first.offset, clock(now))
	t.drift = l.changes(first.member)
	l.sum.Takeovers++
	if back := b.high + 1 - first.offset; back > 0 {
		l.sum.LongestBack = max(l.sum.LongestBack, back)
		if long := l.uncommitted(b, now) + int64(2*l.lim.maxRows); back > long {
			l.v.add(ruleBound, "partition %d: %s began %d rows behind the end of the table; one write and what became durable in the last %s are %d", first.partition, first.member, back, l.lim.uncommitted, long)
		}
	}
	if first.offset < b.committed && !l.stopped(first.member, now.Add(-l.lim.uncommitted)) {
		l.v.add(ruleTakeover, "partition %d: %s began at offset %d, and %d was committed at %s", first.partition, first.member, first.offset, b.committed, clock(b.at))
	}
	return begun
}

// changes counts what may have a process make batches anew.
func (l *ledger) changes(member string) int { return l.drift + l.plansOf(member).put }

// planned holds the editions of the blueprints that rows were made by against
// the promise of a reload: it takes effect between two writes, and for good.
func (l *ledger) planned(t *tenure, rows []row, now time.Time) {
	first := rows[0]
	for _, r := range rows[1:] {
		if r.edition != first.edition {
			l.v.add(ruleReload, "in one request of %s, %d/%d is made by edition %d of its blueprint and %d/%d by edition %d", r.member, first.partition, first.offset, first.edition, r.partition, r.offset, r.edition)
			break
		}
	}
	if first.edition < t.edition {
		l.v.add(ruleReload, "%s wrote %d/%d by edition %d of its blueprint, after edition %d", first.member, first.partition, first.offset, first.edition, t.edition)
	}
	if first.edition > t.edition && t.edition > 0 {
		l.sum.Reloads++
	}
	t.edition = max(t.edition, first.edition)
	p := l.plansOf(first.member)
	p.edition, p.at = max(p.edition, first.edition), now
}

// uncommitted is how many rows became durable in the time that a commit may
// take, at the most.
func (l *ledger) uncommitted(b *book, now time.Time) int64 {
	from := int64(-1)
	for _, was := range b.past {
		if now.Sub(was.at) <= l.lim.uncommitted {
			break
		}
		from = was.high
	}
	return b.high - from
}

// row enters one row.
func (l *ledger) row(b *book, t *tenure, r row, how int) {
	l.claim(b, r.number, r.partition, r.offset)
	switch l.kind(r.number) {
	case fine, ending, mixed:
	case open, aborted:
		l.tooEarly(r.number, r.partition, r.offset, "the table")
	default:
		l.v.add(ruleMisplaced, "event %d at %d/%d is in the table, and cannot be a row", r.number, r.partition, r.offset)
	}
	l.sum.Rows++
	again := rowsOf(b.state[r.offset]) > 0
	if rowsOf(b.state[r.offset]) < 15 {
		b.state[r.offset]++
	}
	if !again {
		l.sum.Distinct++
		if r.offset < b.high {
			// Two members overlap for as long as one does not know that it
			// has lost the partition.
			if b.highBy == r.member {
				l.v.add(ruleOrder, "partition %d: %s wrote offset %d for the first time after offset %d", r.partition, r.member, r.offset, b.high)
			}
			l.sum.Overlaps++
		}
	} else {
		switch how {
		case repeated:
			l.sum.AgainAck++
		case remade:
			l.sum.AgainRefused++
		default:
			l.sum.AgainTakeover++
		}
	}
	if r.number < arrayNumbers || r.number >= recreatedNumbers && r.number < transactionNumbers {
		b.latest = max(b.latest, r.number)
	}
	if r.offset > b.high {
		b.high, b.highBy = r.offset, r.member
	}
}

// tenures holds what members wrote against what they were given. Of members in
// unheard there is no log.
func (l *ledger) tenures(unheard func(member string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, b := range l.books {
		if partition >= recreatedBooks {
			continue // a log does not say which incarnation was assigned
		}
		for member, t := range b.writers {
			if t.begun > t.assigned && !unheard(member) {
				l.v.add(ruleDuplicate, "%s began with partition %d %d times by what it wrote, and was given it %d times: it wrote rows again, the last time from %s, without having lost the partition or an acknowledgement", member, partition, t.begun, t.assigned, t.last)
			}
		}
	}
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
