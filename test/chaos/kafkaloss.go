package main

import (
	"slices"
	"time"
)

// transaction is one that the oracle makes in the source topic.
type transaction struct {
	state  int // open, ending, fine once committed, or aborted
	places []place
}

// begin enters a transaction that is about to be made and returns its number.
func (l *ledger) begin() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txns = append(l.txns, &transaction{state: open})
	return uint32(len(l.txns) - 1)
}

// transactions counts those that were begun.
func (l *ledger) transactions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.txns)
}

// committing notes that a transaction's commit is about to be asked for: its
// events may be rows from now on, and before the producer knows that they may.
func (l *ledger) committing(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txns[id].state = ending
}

// ended enters how a transaction ended.
func (l *ledger) ended(id uint32, committed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.txns[id]
	if committed {
		t.state = fine
		l.sum.Acked += int64(len(t.places))
		return
	}
	was := t.state
	t.state = aborted
	l.sum.Aborted += int64(len(t.places))
	for _, p := range t.places {
		// Those that arrived while it was open have broken the rule already.
		if b := l.book(p.partition); was == ending && b.state[p.offset] != 0 {
			l.tooEarly(b.number[p.offset]-1, p.partition, p.offset, "the table")
		}
	}
}

// known reports whether a transaction was begun.
func (l *ledger) known(id uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return id < uint32(len(l.txns))
}

// kind is what an event is, by what it holds and how its transaction stands.
func (l *ledger) kind(number uint32) int {
	if id, ok := transactionOf(number); ok && id < uint32(len(l.txns)) {
		return l.txns[id].state
	}
	return l.maker.kind(number)
}

// tooEarly breaks the rule of transactions.
func (l *ledger) tooEarly(number uint32, partition int32, offset int64, where string) {
	what := "that has not been committed"
	if l.kind(number) == aborted {
		what = "that was aborted"
	}
	id, _ := transactionOf(number)
	l.v.add(ruleAborted, "event %d at %d/%d is in %s, and belongs to transaction %d %s", number, partition, offset, where, id, what)
}

// cut is a deletion of records: those from the committed offset of then up to
// an end may be reported as lost.
type cut struct{ committed, end int64 }

// lostRange is what one log line of a member reports as lost.
type lostRange struct {
	member   string
	from, to int64 // to is the offset behind the last
	excused  bool  // the member stood still: it may not know how far others were
}

// deleting notes that the records of a partition below end are about to be
// deleted.
func (l *ledger) deleting(partition int32, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(partition)
	b.start = max(b.start, end)
	b.cuts = append(b.cuts, cut{b.committed, end})
}

// lossReported enters that a member logged offsets as lost.
func (l *ledger) lossReported(member string, partition int32, from, to int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(partition)
	b.lost = append(b.lost, lostRange{member, from, to, l.stopped(member, now.Add(-l.lim.uncommitted))})
	l.reportedLost[member] += to - from
}

// loggedAsLost returns how many offsets a process logged as lost.
func (l *ledger) loggedAsLost(member string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reportedLost[member]
}

// reports reports whether a member logged an offset as lost.
func (b *book) reports(offset int64) bool {
	for _, r := range b.lost {
		if r.from <= offset && offset < r.to {
			return true
		}
	}
	return false
}

// reportedWithin bounds how long a log line may be on its way that reports what
// is committed past.
const reportedWithin = 10 * time.Second

// unreported holds deleted records that are committed past against the reports.
// Without it only the end would show what is missing.
func (l *ledger) unreported(partition int32, b *book, now time.Time) {
	silent := func(o int64) bool {
		_, known := l.done(b, o)
		return o < b.start && known
	}
	switch i := slices.IndexFunc(b.undone, silent); {
	case i < 0:
		b.passed = time.Time{}
	case b.passed.IsZero():
		b.passed = now
	case now.Sub(b.passed) > reportedWithin:
		o := b.undone[i]
		l.v.add(ruleLossReport, "partition %d: offset %d is committed, and event %d at offset %d was deleted before it was delivered; no member has reported it as lost within %s", partition, b.committed, b.number[o]-1, o, reportedWithin)
		b.undone = slices.DeleteFunc(b.undone, silent)
	}
}

// reportsAwaited reports whether records were deleted before they were delivered
// that no member has reported yet.
func (l *ledger) reportsAwaited() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.books {
		for o := range min(b.start, int64(len(b.number))) {
			if done, known := l.done(b, o); known && !done && !b.reports(o) {
				return true
			}
		}
	}
	return false
}

// falseReports holds what members reported as lost against what was deleted: a
// report may name only what was deleted and not committed before.
func (l *ledger) falseReports(partition int32, b *book) {
	for _, r := range b.lost {
		from := r.from
		for again := true; again && from < r.to; { // cuts may follow each other
			again = false
			for _, c := range b.cuts {
				if (c.committed <= from || r.excused) && from < c.end {
					from, again = c.end, true
				}
			}
		}
		if from < r.to {
			l.v.add(ruleLossReport, "partition %d: %s reported offsets %d to %d as lost; offset %d was not deleted, or was committed before it was", partition, r.member, r.from, r.to-1, from)
		}
	}
}

// highest returns the offset behind the last row of a partition, and the
// committed one.
func (l *ledger) highest(partition int32) (high, committed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(partition)
	return b.high + 1, b.committed
}

// complete reports whether every event of an incarnation of the recreated topic
// is a row.
func (l *ledger) complete(incarnation uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, b := range l.books {
		if partition < recreatedBooks || uint32(partition-recreatedBooks)/10 != incarnation {
			continue
		}
		for o, number := range b.number {
			if number != 0 && b.state[o] == 0 {
				return false
			}
		}
	}
	return true
}
