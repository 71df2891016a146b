package oracle

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Kind is what an event must become.
type Kind int

// The kinds of events.
const (
	Row              Kind = iota // a row of the table
	DeadLetter                   // a dead letter
	RowAndDeadLetter             // both: an array of events
	Filtered                     // neither, and committed past: a tombstone
	Open                         // nothing yet: its transaction is open
	Committing                   // a row, perhaps not yet: the commit of its transaction was requested
	Aborted                      // nothing: its transaction was aborted
)

// Event is where Kafka acknowledged an event, and the number it was produced with.
type Event struct {
	Number    uint32
	Partition int32
	Offset    int64
}

// DeliveredRow is a row of the table and what it holds about its event.
type DeliveredRow struct {
	Event
	Process    string // that wrote it
	Edition    int    // of the blueprint it was mapped by
	Difference string // from the event; empty if there is none
}

// Config describes the events of a run and how often they may arrive.
type Config struct {
	// Kind returns what an event must become, apart from its transaction.
	Kind func(number uint32) Kind
	// Transaction returns the transaction that an event was produced in; nil
	// means that there are none.
	Transaction func(number uint32) (id uint32, ok bool)
	MaxRows     int // of one write
	// Uncommitted is how long rows may be durable and not committed.
	Uncommitted time.Duration
	// AckMayBeLost reports whether an acknowledgement to a process may have been
	// lost since then, Frozen whether the process was frozen since then. Nil
	// means never.
	AckMayBeLost, Frozen func(process string, since time.Time) bool
}

// Ledger records every event that Kafka acknowledged, and its outcome. It needs
// five bytes for an event. It is safe for concurrent use.
type Ledger struct {
	cfg Config
	v   *Violations

	mu           sync.Mutex // guards the fields below
	logs         map[int32]*eventLog
	sum          Totals
	columns      int // changes of the table's columns so far
	blueprints   map[string]*blueprints
	transactions []*transaction   // by id
	loggedLost   map[string]int64 // offsets that each process logged as lost
}

// blueprints are those of one process.
type blueprints struct {
	replaced int       // times
	edition  int       // of the row written last
	at       time.Time // when that was
}

// Totals are counts over all partitions.
type Totals struct {
	Acknowledged        int64 `json:"acknowledged"` // events that Kafka acknowledged
	Rows                int64 `json:"rows"`
	DistinctRows        int64 `json:"distinct_rows"` // events of these
	DeadLetters         int64 `json:"dead_letters"`
	DistinctDeadLetters int64 `json:"distinct_dead_letters"`
	Filtered            int64 `json:"filtered"`
	Aborted             int64 `json:"aborted"` // events of aborted transactions
	Deleted             int64 `json:"deleted"` // events deleted in Kafka before they were delivered, and reported as lost
	Lost                int64 `json:"lost"`
	Writes              int64 `json:"writes"`      // requests and messages that were kept
	Assignments         int64 `json:"assignments"` // times a process began with a partition, by what it wrote
	LongestStepBack     int64 `json:"longest_step_back"`

	AgainByAssignment int64 `json:"again_by_assignment"` // rows
	AgainByLostAck    int64 `json:"again_by_lost_ack"`
	AgainByRemapping  int64 `json:"again_by_remapping"`
	AgainDeadLetters  int64 `json:"again_dead_letters"`
	Overlaps          int64 `json:"first_after_later_by_assignment"` // rows
	RepeatedWrites    int64 `json:"writes_again_by_lost_ack"`
	Reloads           int64 `json:"blueprints_in_use"` // counted by partition
	CommitChecks      int64 `json:"commit_checks"`     // commits checked, times partitions
}

// Unresolved counts the acknowledged events that have no outcome.
func (t Totals) Unresolved() int64 {
	return t.Acknowledged - t.Filtered - t.DistinctRows - t.DistinctDeadLetters - t.Deleted
}

// eventLog is one partition of the source topic.
type eventLog struct {
	number     []uint32 // by offset: the event's number + 1, 0 until Kafka acknowledged it
	state      []uint8  // by offset: rows in the lower half, dead letters in the upper; both stay at their highest
	checked    int64    // everything below was looked at in commits
	unresolved []int64  // offsets below checked without an outcome when last looked at
	start      int64    // records below may be deleted
	deletions  []deletion
	lost       []lostRange
	passed     time.Time // since when unreported deleted records are committed past; zero if there are none
	committed  int64     // as last seen
	commits    []commit  // as seen, the last one last; of those older than underWay only one
	high       int64     // highest offset of the table, -1 before the first
	highBy     string
	past       []level // high as it was each second
	writers    map[string]*writer
	early      map[int64]uint32 // numbers that arrived before their acknowledgement
}

// commit is a committed offset, and when it was first seen.
type commit struct {
	offset int64
	at     time.Time
}

type level struct {
	at   time.Time
	high int64
}

func rowsOf(state uint8) uint8        { return state & 15 }
func deadLettersOf(state uint8) uint8 { return state >> 4 }

// NewLedger returns an empty ledger that adds what is broken to v.
func NewLedger(cfg Config, v *Violations) *Ledger {
	never := func(string, time.Time) bool { return false }
	if cfg.AckMayBeLost == nil {
		cfg.AckMayBeLost = never
	}
	if cfg.Frozen == nil {
		cfg.Frozen = never
	}
	if cfg.Transaction == nil {
		cfg.Transaction = func(uint32) (uint32, bool) { return 0, false }
	}
	return &Ledger{cfg: cfg, v: v, logs: map[int32]*eventLog{}, blueprints: map[string]*blueprints{}, loggedLost: map[string]int64{}}
}

// lock locks the ledger until the function it returns is called.
func (l *Ledger) lock() (unlock func()) {
	l.mu.Lock()
	return l.mu.Unlock
}

func (l *Ledger) log(partition int32) *eventLog {
	log := l.logs[partition]
	if log == nil {
		log = &eventLog{high: -1, writers: map[string]*writer{}, early: map[int64]uint32{}}
		l.logs[partition] = log
	}
	return log
}

func (log *eventLog) grow(offset int64) {
	for int64(len(log.number)) <= offset {
		log.number = append(log.number, 0)
		log.state = append(log.state, 0)
	}
}

// kind is what an event must become, given how its transaction stands.
func (l *Ledger) kind(number uint32) Kind {
	if id, ok := l.cfg.Transaction(number); ok && id < uint32(len(l.transactions)) {
		return l.transactions[id].state
	}
	return l.cfg.Kind(number)
}

// Acknowledged adds an event that Kafka acknowledged.
func (l *Ledger) Acknowledged(e Event) {
	defer l.lock()()
	log := l.log(e.Partition)
	log.grow(e.Offset)
	if was := log.number[e.Offset]; was != 0 && was != e.Number+1 {
		l.v.Add(RuleKafka, "events %d and %d were both acknowledged at %d/%d", was-1, e.Number, e.Partition, e.Offset)
	}
	log.number[e.Offset] = e.Number + 1
	if id, ok := l.cfg.Transaction(e.Number); ok {
		t := l.transactions[id]
		t.events = append(t.events, e) // counted when the transaction ends
	} else {
		l.sum.Acknowledged++
	}
	if l.cfg.Kind(e.Number) == Filtered {
		l.sum.Filtered++
	}
	if number, ok := log.early[e.Offset]; ok {
		delete(log.early, e.Offset)
		l.compare(number, e)
	}
}

// arrived compares the number that something arrived with with the produced one.
func (l *Ledger) arrived(log *eventLog, e Event) {
	log.grow(e.Offset)
	if log.number[e.Offset] == 0 {
		log.early[e.Offset] = e.Number
		return
	}
	l.compare(e.Number, Event{log.number[e.Offset] - 1, e.Partition, e.Offset})
}

func (l *Ledger) compare(got uint32, want Event) {
	if got != want.Number {
		l.v.Add(RuleUnexpected, "what arrived from %d/%d names event %d; event %d was produced there", want.Partition, want.Offset, got, want.Number)
	}
}

// DeadLettered adds a dead letter. difference is how it differs from its event.
func (l *Ledger) DeadLettered(e Event, difference string) {
	defer l.lock()()
	log := l.log(e.Partition)
	l.arrived(log, e)
	if difference != "" {
		l.v.Add(RuleValue, "dead letter of event %d at %d/%d: %s", e.Number, e.Partition, e.Offset, difference)
	}
	switch kind := l.kind(e.Number); kind {
	case DeadLetter, RowAndDeadLetter:
	case Open, Aborted:
		l.tooEarly(e, "the dead letters")
	default:
		l.v.Add(RuleMisplaced, "event %d at %d/%d is a dead letter, and nothing is wrong with it", e.Number, e.Partition, e.Offset)
	}
	l.sum.DeadLetters++
	switch deadLettersOf(log.state[e.Offset]) {
	case 0:
		if l.kind(e.Number) != RowAndDeadLetter { // its row counts
			l.sum.DistinctDeadLetters++
		}
	default:
		l.sum.AgainDeadLetters++
	}
	if deadLettersOf(log.state[e.Offset]) < 15 {
		log.state[e.Offset] += 16
	}
}

// resolved reports whether the event at an offset has its outcome, and whether
// that is known.
func (l *Ledger) resolved(log *eventLog, offset int64) (resolved, known bool) {
	if offset >= int64(len(log.number)) {
		return false, false
	}
	state := log.state[offset]
	if log.number[offset] == 0 {
		return state != 0, state != 0
	}
	switch kind := l.kind(log.number[offset] - 1); {
	case kind == RowAndDeadLetter:
		return rowsOf(state) > 0 && deadLettersOf(state) > 0, true
	case state != 0, kind == Filtered, kind == Aborted:
		return true, true
	case kind == Open, kind == Committing:
		return false, false
	}
	return false, true
}

// Committed checks committed offsets: below them every event must have its
// outcome. Rows are added before they are acknowledged, so a missing row breaks
// the rule at once. A dead letter is added when it has been read: the missing ones
// are returned, for the caller to look again later.
func (l *Ledger) Committed(offsets map[int32]int64, now time.Time) (missing []Event) {
	defer l.lock()()
	for partition, offset := range offsets {
		log := l.log(partition)
		l.sum.CommitChecks++
		if offset > log.committed {
			log.committed = offset
			log.commits = append(log.commits, commit{offset, now})
		}
		for len(log.commits) > 1 && now.Sub(log.commits[1].at) > underWay {
			log.commits = log.commits[1:]
		}
		if n := len(log.past); n == 0 || now.Sub(log.past[n-1].at) >= time.Second {
			log.past = append(log.past, level{now, log.high})
			if now.Sub(log.past[0].at) > l.cfg.Uncommitted+10*time.Second {
				log.past = log.past[1:]
			}
		}
		for ; log.checked < offset; log.checked++ {
			log.unresolved = append(log.unresolved, log.checked)
		}
		log.unresolved = slices.DeleteFunc(log.unresolved, func(o int64) bool {
			resolved, known := l.resolved(log, o)
			switch {
			case resolved || o < log.start && log.reported(o):
				return true
			case o < log.start || !known:
				return false
			}
			number := log.number[o] - 1
			if l.cfg.Kind(number) != Row {
				missing = append(missing, Event{number, partition, o})
				return false
			}
			l.v.Add(RuleCommit, "partition %d: offset %d is committed, and event %d at offset %d is not in the table", partition, offset, number, o)
			return true
		})
		l.checkReported(partition, log, now)
	}
	return missing
}

// Overdue returns which of the events have no outcome still.
func (l *Ledger) Overdue(events []Event) (missing []Event) {
	defer l.lock()()
	for _, e := range events {
		if resolved, _ := l.resolved(l.log(e.Partition), e.Offset); !resolved {
			missing = append(missing, e)
		}
	}
	return missing
}

// Missing adds a violation for events whose dead letters had their time.
func (l *Ledger) Missing(events []Event) {
	defer l.lock()()
	for _, e := range events {
		log := l.log(e.Partition)
		if i := slices.Index(log.unresolved, e.Offset); i >= 0 {
			log.unresolved = slices.Delete(log.unresolved, i, i+1)
			l.v.Add(RuleCommit, "partition %d: offset %d is committed past, and its event is not in the dead-letter topic", e.Partition, e.Offset)
		}
	}
}

// Close checks the outcome of every event, and what processes wrote against their
// assignments. Assignments of which there is no log are not checked.
func (l *Ledger) Close(unlogged func(process string, partition int32) bool) {
	defer l.lock()()
	for partition, log := range l.logs {
		for o := range log.number {
			if log.number[o] != 0 {
				l.closeEvent(log, Event{log.number[o] - 1, partition, int64(o)})
			}
		}
		for offset, number := range log.early {
			l.v.Add(RuleUnexpected, "what arrived from %d/%d names event %d; nothing was acknowledged there", partition, offset, number)
		}
		l.checkReports(partition, log)
		for process, w := range log.writers {
			if w.begun > w.assigned && !unlogged(process, partition) {
				l.v.Add(RuleDuplicate, "%s began with partition %d %d times by what it wrote, and was assigned it %d times: it wrote rows again, "+
					"the last time from %s, without having lost the partition or an acknowledgement", process, partition, w.begun, w.assigned, w.last)
			}
		}
	}
}

func (l *Ledger) closeEvent(log *eventLog, e Event) {
	kind, state := l.kind(e.Number), log.state[e.Offset]
	missing := (kind == Row || kind == RowAndDeadLetter) && rowsOf(state) == 0 ||
		(kind == DeadLetter || kind == RowAndDeadLetter) && deadLettersOf(state) == 0
	switch {
	case !missing && (kind != Filtered || e.Offset >= log.start):
	case e.Offset >= log.start:
		l.sum.Lost++
		l.v.Add(RuleLost, "event %d at %d/%d was acknowledged by Kafka and is neither in the table nor in the dead letters", e.Number, e.Partition, e.Offset)
	case log.reported(e.Offset):
		l.sum.Deleted++
		if kind == Filtered {
			l.sum.Filtered--
		}
	case missing: // a tombstone may have been read, which leaves no trace
		l.sum.Lost++
		l.v.Add(RuleLossReport, "event %d at %d/%d was deleted before it was delivered, and no member reported it as lost", e.Number, e.Partition, e.Offset)
	}
}

// Totals returns the counts so far.
func (l *Ledger) Totals() Totals {
	defer l.lock()()
	return l.sum
}

// Partitions lists those that something was added for.
func (l *Ledger) Partitions() []int32 {
	defer l.lock()()
	return slices.Collect(maps.Keys(l.logs))
}

// Position returns the offset after the last row of a partition, and the committed
// one.
func (l *Ledger) Position(partition int32) (next, committed int64) {
	defer l.lock()()
	log := l.log(partition)
	return log.high + 1, log.committed
}

// Delivered reports whether every event of a partition has arrived.
func (l *Ledger) Delivered(partition int32) bool {
	defer l.lock()()
	log := l.log(partition)
	for o, number := range log.number {
		if number != 0 && log.state[o] == 0 {
			return false
		}
	}
	return true
}

// transaction is one of the source topic.
type transaction struct {
	state  Kind // Open, Committing, Row once committed, or Aborted
	events []Event
}

// Begin adds a transaction that is about to begin and returns its id.
func (l *Ledger) Begin() uint32 {
	defer l.lock()()
	l.transactions = append(l.transactions, &transaction{state: Open})
	return uint32(len(l.transactions) - 1)
}

// Transactions returns how many were begun.
func (l *Ledger) Transactions() int {
	defer l.lock()()
	return len(l.transactions)
}

// Commit notes that the commit of a transaction is about to be requested: its
// events may be rows before the producer knows that it succeeded.
func (l *Ledger) Commit(id uint32) {
	defer l.lock()()
	l.transactions[id].state = Committing
}

// Ended adds how a transaction ended.
func (l *Ledger) Ended(id uint32, committed bool) {
	defer l.lock()()
	t := l.transactions[id]
	if committed {
		t.state = Row
		l.sum.Acknowledged += int64(len(t.events))
		return
	}
	was := t.state
	t.state = Aborted
	l.sum.Aborted += int64(len(t.events))
	for _, e := range t.events {
		// Those that arrived while it was open have broken the rule already.
		if was == Committing && l.log(e.Partition).state[e.Offset] != 0 {
			l.tooEarly(e, "the table")
		}
	}
}

func (l *Ledger) tooEarly(e Event, where string) {
	what := "that has not been committed"
	if l.kind(e.Number) == Aborted {
		what = "that was aborted"
	}
	id, _ := l.cfg.Transaction(e.Number)
	l.v.Add(RuleAborted, "event %d at %d/%d is in %s, and belongs to transaction %d %s", e.Number, e.Partition, e.Offset, where, id, what)
}

// deletion is one of records: those from the committed offset of then up to an end
// may be reported as lost.
type deletion struct{ committed, end int64 }

// lostRange is what one log line of a process reports as lost.
type lostRange struct {
	process  string
	from, to int64 // to is the offset after the last
	frozen   bool  // the process was: it may not know how far others were
}

// Deleting notes that the records of a partition below end are about to be deleted.
func (l *Ledger) Deleting(partition int32, end int64) {
	defer l.lock()()
	log := l.log(partition)
	log.start = max(log.start, end)
	log.deletions = append(log.deletions, deletion{log.committed, end})
}

// ReportedLost adds that a process logged the offsets below to as lost.
func (l *Ledger) ReportedLost(process string, partition int32, from, to int64, now time.Time) {
	defer l.lock()()
	log := l.log(partition)
	log.lost = append(log.lost, lostRange{process, from, to, l.cfg.Frozen(process, now.Add(-l.cfg.Uncommitted))})
	l.loggedLost[process] += to - from
}

// LoggedLost returns how many offsets a process logged as lost.
func (l *Ledger) LoggedLost(process string) int64 {
	defer l.lock()()
	return l.loggedLost[process]
}

// reported reports whether a process logged an offset as lost.
func (log *eventLog) reported(offset int64) bool {
	return slices.ContainsFunc(log.lost, func(r lostRange) bool { return r.from <= offset && offset < r.to })
}

// ReportedWithin bounds how long the log line may take that reports what is
// committed past.
const ReportedWithin = 10 * time.Second

// checkReported compares deleted records that are committed past with the reports.
// Without it only the end would show what is missing.
func (l *Ledger) checkReported(partition int32, log *eventLog, now time.Time) {
	silent := func(o int64) bool {
		_, known := l.resolved(log, o)
		return o < log.start && known
	}
	switch i := slices.IndexFunc(log.unresolved, silent); {
	case i < 0:
		log.passed = time.Time{}
	case log.passed.IsZero():
		log.passed = now
	case now.Sub(log.passed) > ReportedWithin:
		o := log.unresolved[i]
		l.v.Add(RuleLossReport, "partition %d: offset %d is committed, and event %d at offset %d was deleted before it was delivered; "+
			"no member has reported it as lost within %s", partition, log.committed, log.number[o]-1, o, ReportedWithin)
		log.unresolved = slices.DeleteFunc(log.unresolved, silent)
	}
}

// AwaitsReports reports whether records were deleted before they were delivered
// that no process has reported yet.
func (l *Ledger) AwaitsReports() bool {
	defer l.lock()()
	for _, log := range l.logs {
		for o := range min(log.start, int64(len(log.number))) {
			if resolved, known := l.resolved(log, o); known && !resolved && !log.reported(o) {
				return true
			}
		}
	}
	return false
}

// checkReports compares what was reported as lost with what was deleted: a report
// may name only what was deleted and not committed before.
func (l *Ledger) checkReports(partition int32, log *eventLog) {
	for _, r := range log.lost {
		from := r.from
		for again := true; again && from < r.to; { // deletions may follow each other
			again = false
			for _, d := range log.deletions {
				if (d.committed <= from || r.frozen) && from < d.end {
					from, again = d.end, true
				}
			}
		}
		if from < r.to {
			l.v.Add(RuleLossReport, "partition %d: %s reported offsets %d to %d as lost; offset %d was not deleted, or was committed before it was",
				partition, r.process, r.from, r.to-1, from)
		}
	}
}
