package main

import (
	"slices"
	"sync"
	"time"
)

// limits are what redelivery may cost; ledger holds rows against them.
type limits struct {
	maxRows int // of one write
	// uncommitted is how long rows may be durable and not committed: a commit
	// interval, and as long as brokers can be away.
	uncommitted time.Duration
}

// ledger is the book of a run: every event that was acknowledged by Kafka, and
// what became of it. It holds five bytes an event. It is safe for concurrent
// use.
type ledger struct {
	maker maker
	v     *violations
	lim   limits
	// excused reports whether an acknowledgement to this member may have been
	// lost since then.
	excused func(member string, since time.Time) bool
	// stopped reports whether the member stood still since then.
	stopped func(member string, since time.Time) bool

	mu    sync.Mutex // guards the fields below
	books map[int32]*book
	sum   totals
	drift int // changes of the table's columns so far
	plans map[string]*plans
	txns  []*transaction // by number
	// reportedLost is how many lost offsets each process logged.
	reportedLost map[string]int64
}

// plans is what the ledger knows of the blueprints of one process.
type plans struct {
	put     int       // times another one was put in place
	edition int       // of the row written last
	at      time.Time // when that was
}

// totals are counts over all partitions.
type totals struct {
	Acked       int64 `json:"acknowledged"`  // events that Kafka acknowledged
	Rows        int64 `json:"rows"`          // in the table
	Distinct    int64 `json:"distinct_rows"` // events of these
	Letters     int64 `json:"dead_letters"`
	DistinctDLQ int64 `json:"distinct_dead_letters"`
	Filtered    int64 `json:"filtered"`
	Aborted     int64 `json:"aborted"` // events of transactions that were aborted
	Deleted     int64 `json:"deleted"` // events deleted in Kafka before they were delivered, and reported as lost
	Lost        int64 `json:"lost"`
	Writes      int64 `json:"writes"`  // requests and messages that were kept
	Takeovers   int64 `json:"tenures"` // times a member began with a partition, by what it wrote
	LongestBack int64 `json:"longest_step_back"`

	AgainTakeover int64 `json:"again_by_member_change"` // rows
	AgainAck      int64 `json:"again_by_lost_ack"`
	AgainRefused  int64 `json:"again_by_changed_columns"`
	AgainLetters  int64 `json:"again_dead_letters"`
	Overlaps      int64 `json:"first_after_later_by_member_change"` // rows
	RepeatWrites  int64 `json:"writes_again_by_lost_ack"`
	Reloads       int64 `json:"blueprints_taken_up"` // counted by partition
	Checks        int64 `json:"commit_checks"`       // commits held against the book, times partitions
}

// book is one partition of the source topic.
type book struct {
	number    []uint32 // by offset: the event's number + 1, 0 until Kafka acknowledged it
	state     []uint8  // by offset: copies in the table, and in the dead letters above them; see below
	checked   int64    // everything below was looked at in commits
	undone    []int64  // offsets below checked that had not come to their end when last looked at
	start     int64    // records below may be deleted
	cuts      []cut
	lost      []lostRange
	passed    time.Time // since when deleted records are committed past that nobody reported; zero if there are none
	committed int64     // as last seen
	at        time.Time
	high      int64  // highest offset of the table, -1 before the first
	latest    uint32 // highest number of an event in the table
	highBy    string
	past      []level // high as it was each second
	writers   map[string]*tenure
	claims    map[int64]uint32 // events that arrived before their acknowledgement did
}

type level struct {
	at   time.Time
	high int64
}

// Of a state byte the low half counts rows, the high half dead letters; both
// stay at their highest.
func rowsOf(s uint8) uint8    { return s & 15 }
func lettersOf(s uint8) uint8 { return s >> 4 }

func (b *book) grow(offset int64) {
	for int64(len(b.number)) <= offset {
		b.number = append(b.number, 0)
		b.state = append(b.state, 0)
	}
}

func newLedger(m maker, v *violations, lim limits) *ledger {
	never := func(string, time.Time) bool { return false }
	return &ledger{maker: m, v: v, lim: lim, excused: never, stopped: never, books: map[int32]*book{}, plans: map[string]*plans{}, reportedLost: map[string]int64{}}
}

func (l *ledger) book(partition int32) *book {
	b := l.books[partition]
	if b == nil {
		b = &book{high: -1, writers: map[string]*tenure{}, claims: map[int64]uint32{}}
		l.books[partition] = b
	}
	return b
}

// acked enters an event that Kafka acknowledged.
func (l *ledger) acked(number uint32, partition int32, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(partition)
	b.grow(offset)
	if was := b.number[offset]; was != 0 && was != number+1 {
		l.v.add(rulePromise, "events %d and %d were both acknowledged at %d/%d", was-1, number, partition, offset)
	}
	b.number[offset] = number + 1
	if id, ok := transactionOf(number); ok {
		t := l.txns[id]
		t.places = append(t.places, place{partition, offset}) // counted when the transaction ends
	} else {
		l.sum.Acked++
	}
	if l.maker.kind(number) == tombstone {
		l.sum.Filtered++
	}
	if claimed, ok := b.claims[offset]; ok {
		delete(b.claims, offset)
		l.same(claimed, number, partition, offset)
	}
}

// claim holds the number that something arrived with against the produced one.
func (l *ledger) claim(b *book, number uint32, partition int32, offset int64) {
	b.grow(offset)
	if b.number[offset] == 0 {
		b.claims[offset] = number
		return
	}
	l.same(number, b.number[offset]-1, partition, offset)
}

func (l *ledger) same(got, want uint32, partition int32, offset int64) {
	if got != want {
		l.v.add(ruleInvented, "what arrived from %d/%d says it is event %d; event %d was produced there", partition, offset, got, want)
	}
}

// letter enters a dead letter. differs is how it differs from its event.
func (l *ledger) letter(number uint32, partition int32, offset int64, differs string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(partition)
	l.claim(b, number, partition, offset)
	if differs != "" {
		l.v.add(ruleValue, "dead letter of event %d at %d/%d: %s", number, partition, offset, differs)
	}
	switch l.kind(number) {
	case malformed, unfit, mixed:
	case open, aborted:
		l.tooEarly(number, partition, offset, "the dead letters")
	default:
		l.v.add(ruleMisplaced, "event %d at %d/%d is a dead letter, and nothing is wrong with it", number, partition, offset)
	}
	l.sum.Letters++
	if lettersOf(b.state[offset]) == 0 {
		if l.kind(number) != mixed { // its row counts
			l.sum.DistinctDLQ++
		}
	} else {
		l.sum.AgainLetters++
	}
	if lettersOf(b.state[offset]) < 15 {
		b.state[offset] += 16
	}
}

// done reports whether the event at an offset has come to its end, and whether
// that is known.
func (l *ledger) done(b *book, offset int64) (done, known bool) {
	if offset >= int64(len(b.number)) {
		return false, false
	}
	if b.number[offset] != 0 && l.kind(b.number[offset]-1) == mixed {
		return rowsOf(b.state[offset]) > 0 && lettersOf(b.state[offset]) > 0, true
	}
	if b.state[offset] != 0 {
		return true, true
	}
	if b.number[offset] == 0 {
		return false, false
	}
	switch l.kind(b.number[offset] - 1) {
	case tombstone, aborted:
		return true, true
	case open, ending:
		return false, false
	}
	return false, true
}

// place is where an event stands in the source topic.
type place struct {
	partition int32
	offset    int64
}

// commits holds committed offsets against the book: below them everything must
// have come to its end. Rows are entered before they are acknowledged, so a row
// that is missing breaks the rule at once. A dead letter is entered when it has
// been read: those missing are returned, for the caller to look again later.
func (l *ledger) commits(committed map[int32]int64, now time.Time) (missing []place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, offset := range committed {
		b := l.book(partition)
		l.sum.Checks++
		if offset > b.committed {
			b.committed, b.at = offset, now
		}
		if n := len(b.past); n == 0 || now.Sub(b.past[n-1].at) >= time.Second {
			b.past = append(b.past, level{now, b.high})
			if now.Sub(b.past[0].at) > l.lim.uncommitted+10*time.Second {
				b.past = b.past[1:]
			}
		}
		for ; b.checked < offset; b.checked++ {
			b.undone = append(b.undone, b.checked)
		}
		b.undone = slices.DeleteFunc(b.undone, func(o int64) bool {
			done, known := l.done(b, o)
			switch {
			case done || o < b.start && b.reports(o):
				return true
			case o < b.start || !known:
				return false
			}
			number := b.number[o] - 1
			if l.maker.kind(number) != fine {
				missing = append(missing, place{partition, o})
				return false
			}
			l.v.add(ruleCommit, "partition %d: offset %d is committed, and event %d at offset %d is not in the table", partition, offset, number, o)
			return true
		})
		l.unreported(partition, b, now)
	}
	return missing
}

// overdue returns which of the places have no dead letter still.
func (l *ledger) overdue(places []place) (missing []place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range places {
		if done, _ := l.done(l.book(p.partition), p.offset); !done {
			missing = append(missing, p)
		}
	}
	return missing
}

// unlettered breaks the rule of commits for places that had their time.
func (l *ledger) unlettered(places []place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range places {
		b := l.book(p.partition)
		if i := slices.Index(b.undone, p.offset); i >= 0 {
			b.undone = slices.Delete(b.undone, i, i+1)
			l.v.add(ruleCommit, "partition %d: offset %d is committed past, and its event is not in the dead-letter topic", p.partition, p.offset)
		}
	}
}

// columnsChanged notes a change of the table: batches may be made anew.
func (l *ledger) columnsChanged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drift++
}

// planPut notes that a process is about to get another blueprint: it may make
// the batches in its hands anew.
func (l *ledger) planPut(member string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plansOf(member).put++
}

// edition returns that of the last row of a process, and when it was written.
func (l *ledger) edition(member string) (edition int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.plansOf(member)
	return p.edition, p.at
}

func (l *ledger) plansOf(member string) *plans {
	p := l.plans[member]
	if p == nil {
		p = &plans{}
		l.plans[member] = p
	}
	return p
}

// close enters what is nowhere, once everything had its time.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, b := range l.books {
		for o := range b.number {
			offset := int64(o)
			if b.number[o] == 0 {
				continue
			}
			number := b.number[o] - 1
			kind := l.kind(number)
			missing := (kind == fine || kind == mixed) && rowsOf(b.state[o]) == 0 || (kind == malformed || kind == unfit || kind == mixed) && lettersOf(b.state[o]) == 0
			switch {
			case !missing && (kind != tombstone || offset >= b.start):
			case offset >= b.start:
				l.sum.Lost++
				l.v.add(ruleLost, "event %d at %d/%d was acknowledged by Kafka and is neither in the table nor in the dead letters", number, partition, offset)
			case b.reports(offset):
				l.sum.Deleted++
				if kind == tombstone {
					l.sum.Filtered--
				}
			case missing: // a tombstone may have been read, which leaves no trace
				l.sum.Lost++
				l.v.add(ruleLossReport, "event %d at %d/%d was deleted before it was delivered, and no member reported it as lost", number, partition, offset)
			}
		}
		for offset, number := range b.claims {
			l.v.add(ruleInvented, "what arrived from %d/%d says it is event %d; nothing was acknowledged there", partition, offset, number)
		}
		l.falseReports(partition, b)
	}
}

func (l *ledger) totals() totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// arrived reports whether every partition has a row of an event that was
// produced after the given one, and those of the recreated topic, as it is now,
// one after the other.
func (l *ledger) arrived(number, again uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, b := range l.books {
		after := number
		if partition >= recreatedBooks {
			after = again
			if incarnation, _ := incarnationOf(again); uint32(partition-recreatedBooks)/10 != incarnation {
				continue
			}
		}
		if b.latest <= after {
			return false
		}
	}
	return len(l.books) > 0
}

// remaining counts the acknowledged events that have not come to their end.
func (l *ledger) remaining() (n int64) {
	t := l.totals()
	return t.Acked - t.Filtered - t.Distinct - t.DistinctDLQ - t.Deleted
}
