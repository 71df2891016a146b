package oracle

import (
	"testing"
	"time"
)

// The numbers of events that are something else than a row, and of transactions.
const (
	deadLetterNumber  = 1000
	filteredNumber    = 1001
	mixedNumber       = 1002
	transactionNumber = 1 << 20 // from here: the id of the transaction
)

func testKind(number uint32) Kind {
	return map[uint32]Kind{deadLetterNumber: DeadLetter, filteredNumber: Filtered, mixedNumber: RowAndDeadLetter}[number]
}

// scenario is a ledger with one partition, on which events 0 to n-1 were acknowledged
// at the offsets of the same number. All of them are rows.
type scenario struct {
	*Ledger
	now time.Time
}

func newScenario(n int) *scenario {
	p := &scenario{NewLedger(Config{
		Kind: testKind, MaxRows: 10, Uncommitted: time.Minute,
		Transaction: func(number uint32) (uint32, bool) { return number - transactionNumber, number >= transactionNumber },
	}, NewViolations()), time.Unix(1e9, 0)}
	for i := range n {
		p.ack(uint32(i), int64(i))
	}
	p.Assigned("a", []int32{0})
	return p
}

func (p *scenario) ack(number uint32, offset int64) {
	p.Acknowledged(Event{Number: number, Offset: offset})
}

func (p *scenario) deadLetter(number uint32, offset int64, difference string) {
	p.DeadLettered(Event{Number: number, Offset: offset}, difference)
}

// write adds rows from..to-1 as written by a process, by its first blueprint.
func (p *scenario) write(process string, from, to int) { p.writeBy(1, process, from, to) }

// writeBy is write, by any blueprint.
func (p *scenario) writeBy(edition int, process string, from, to int) {
	var rows []DeliveredRow
	for i := from; i < to; i++ {
		rows = append(rows, rowOf(uint32(i), int64(i), process, edition))
	}
	p.now = p.now.Add(time.Second)
	p.Written(rows, p.now)
}

// one writes a row of an event of another number than its offset.
func (p *scenario) one(number uint32, offset int64) {
	p.Written([]DeliveredRow{rowOf(number, offset, "a", 1)}, p.now)
}

func rowOf(number uint32, offset int64, process string, edition int) DeliveredRow {
	return DeliveredRow{Event: Event{Number: number, Offset: offset}, Process: process, Edition: edition}
}

func (p *scenario) commit(offset int64) []Event {
	p.now = p.now.Add(time.Second)
	return p.Committed(map[int32]int64{0: offset}, p.now)
}

// transact begins a transaction with one event at offset 100, which a process writes
// if it is named, and returns the event's number.
func (p *scenario) transact(process string) uint32 {
	number := transactionNumber + p.Begin()
	p.ack(number, 100)
	if process != "" {
		p.Written([]DeliveredRow{rowOf(number, 100, process, 1)}, p.now)
	}
	return number
}

func (p *scenario) end() { p.Close(func(string, int32) bool { return false }) }

func TestEveryRuleFires(t *testing.T) {
	for _, tc := range []struct {
		name string
		rule string // "": all is well
		do   func(p *scenario)
	}{
		{"all in order", "", func(p *scenario) { p.write("a", 0, 50); p.write("a", 50, 100); p.commit(100) }},
		{"a row is missing", RuleLost, func(p *scenario) { p.write("a", 0, 50); p.write("a", 51, 100) }},
		{"a dead letter is missing", RuleLost, func(p *scenario) { p.ack(uint32(deadLetterNumber), 100); p.write("a", 0, 100) }},
		{"an array needs its row", RuleLost, func(p *scenario) {
			n := uint32(mixedNumber)
			p.ack(n, 100)
			p.deadLetter(n, 100, "")
			p.write("a", 0, 100)
		}},
		{"an array needs its dead letter", RuleLost, func(p *scenario) {
			n := uint32(mixedNumber)
			p.ack(n, 100)
			p.write("a", 0, 100)
			p.one(n, 100)
		}},
		{"an array that has both", "", func(p *scenario) {
			n := uint32(mixedNumber)
			p.ack(n, 100)
			p.write("a", 0, 100)
			p.one(n, 100)
			p.deadLetter(n, 100, "")
			p.commit(101)
			if left := p.Totals().Unresolved(); left != 0 {
				p.v.Add(RuleFlow, "%d events remain", left)
			}
		}},
		{"a tombstone needs nothing", "", func(p *scenario) { p.ack(filteredNumber, 100); p.write("a", 0, 100); p.commit(101) }},
		{"a row of nowhere", RuleUnexpected, func(p *scenario) { p.write("a", 0, 101) }},
		{"a row of another event", RuleUnexpected, func(p *scenario) {
			p.write("a", 0, 99)
			p.one(98, 99)
		}},
		{"a row that came before its acknowledgement", "", func(p *scenario) { p.write("a", 0, 101); p.ack(100, 100) }},
		{"a row of another event that came before its acknowledgement", RuleUnexpected, func(p *scenario) { p.write("a", 0, 101); p.ack(150, 100) }},
		{"a column differs", RuleValue, func(p *scenario) {
			p.Written([]DeliveredRow{{Process: "a", Difference: "column x"}}, p.now)
			p.write("a", 1, 100)
		}},
		{"a dead letter differs", RuleValue, func(p *scenario) {
			n := uint32(deadLetterNumber)
			p.ack(n, 100)
			p.write("a", 0, 100)
			p.deadLetter(n, 100, "key")
		}},
		{"a good event is a dead letter", RuleMisplaced, func(p *scenario) { p.write("a", 0, 100); p.deadLetter(5, 5, "") }},
		{"a bad event is a row", RuleMisplaced, func(p *scenario) {
			n := uint32(deadLetterNumber)
			p.ack(n, 100)
			p.deadLetter(n, 100, "")
			p.write("a", 0, 100)
			p.one(n, 100)
		}},
		{"the dead letter of a refused row", "", func(p *scenario) {
			n := uint32(deadLetterNumber)
			p.ack(n, 100)
			p.write("a", 0, 100)
			p.deadLetter(n, 100, "")
			p.commit(101)
		}},
		{"a gap is filled later", RuleOrder, func(p *scenario) {
			p.write("a", 0, 50)
			p.write("a", 60, 100)
			p.Assigned("a", []int32{0})
			p.write("a", 50, 60)
		}},
		{"two members overlap", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.write("a", 60, 100)
			p.Assigned("b", []int32{0})
			p.write("b", 50, 100)
		}},
		{"rows of a request are out of order", RuleOrder, func(p *scenario) {
			p.Written([]DeliveredRow{rowOf(1, 1, "a", 0), rowOf(0, 0, "a", 0)}, p.now)
			p.write("a", 0, 100)
		}},
		{"the last write again, with no reason", RuleDuplicate, func(p *scenario) { p.write("a", 0, 50); p.write("a", 50, 100); p.write("a", 50, 100) }},
		{"the last write again, its acknowledgement lost", "", func(p *scenario) {
			p.cfg.AckMayBeLost = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.write("a", 50, 100)
		}},
		{"an earlier write again", RuleDuplicate, func(p *scenario) {
			p.cfg.AckMayBeLost = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.write("a", 0, 50)
		}},
		{"an earlier write again, assigned again", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.Assigned("a", []int32{0})
			p.write("a", 90, 100)
		}},
		{"the batch mapped again for other columns", "", func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.ColumnsChanged()
			p.write("a", 75, 100)
		}},
		{"the batch mapped again for each of two changes, and first when both are made", "", func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.ColumnsChanged()
			p.ColumnsChanged()
			p.write("a", 75, 85)
			p.write("a", 85, 90)
			p.write("a", 75, 100)
		}},
		{"the batch mapped again twice for one change", RuleDuplicate, func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.ColumnsChanged()
			p.write("a", 75, 85)
			p.write("a", 85, 90)
			p.write("a", 75, 100)
		}},
		{"the batch mapped again three times for three changes that were made before", RuleDuplicate, func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.ColumnsChanged()
			p.ColumnsChanged()
			p.ColumnsChanged()
			p.write("a", 75, 85)
			p.write("a", 75, 90)
			p.write("a", 75, 100)
		}},
		{"a member that was never assigned the partition", RuleDuplicate, func(p *scenario) { p.write("a", 0, 50); p.write("b", 50, 100) }},
		{"a new member goes back further than it may", RuleBound, func(p *scenario) {
			for i := range 100 {
				p.write("a", i, i+1)
				p.commit(0)
			}
			p.now = p.now.Add(2 * time.Minute)
			p.commit(0)
			p.commit(0)
			p.Assigned("b", []int32{0})
			p.now = p.now.Add(2 * time.Minute)
			p.write("b", 0, 100)
		}},
		{"a commit ahead of the rows", RuleCommit, func(p *scenario) { p.write("a", 0, 50); p.commit(51); p.write("a", 50, 100) }},
		{"a commit ahead of a dead letter", RuleCommit, func(p *scenario) {
			n := uint32(deadLetterNumber)
			p.ack(n, 100)
			p.write("a", 0, 100)
			missing := p.commit(101)
			if len(p.Overdue(missing)) != 1 {
				panic("the dead letter is not missed")
			}
			p.Missing(missing)
			p.deadLetter(n, 100, "")
		}},
		{"a new member begins below the commit", RuleTakeover, func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(50)
			p.now = p.now.Add(underWay)
			p.Assigned("b", []int32{0})
			p.write("b", 45, 100)
		}},
		{"a new member begins below a commit that was under way when it asked", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(45)
			p.now = p.now.Add(underWay)
			p.commit(50)
			p.Assigned("b", []int32{0})
			p.write("b", 45, 100)
		}},
		{"a new member begins below the commit before the one under way", RuleTakeover, func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(45)
			p.now = p.now.Add(underWay)
			p.commit(50)
			p.Assigned("b", []int32{0})
			p.write("b", 44, 100)
		}},
		{"a new member begins below the commit, having been frozen", "", func(p *scenario) {
			p.cfg.Frozen = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.commit(50)
			p.now = p.now.Add(underWay)
			p.Assigned("b", []int32{0})
			p.write("b", 45, 100)
		}},
		{"another blueprint between two writes", "", func(p *scenario) { p.write("a", 0, 50); p.writeBy(2, "a", 50, 100) }},
		{"two blueprints in one request", RuleReload, func(p *scenario) {
			p.Written([]DeliveredRow{rowOf(0, 0, "a", 1), rowOf(1, 1, "a", 2)}, p.now)
			p.writeBy(2, "a", 2, 100)
		}},
		{"a blueprint that was replaced", RuleReload, func(p *scenario) { p.writeBy(2, "a", 0, 50); p.write("a", 50, 100) }},
		{"the batch mapped again by another blueprint", "", func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.BlueprintReplaced("a")
			p.writeBy(2, "a", 75, 100)
		}},
		{"the batch mapped again by a blueprint of another member", RuleDuplicate, func(p *scenario) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.BlueprintReplaced("b")
			p.writeBy(2, "a", 75, 100)
		}},
		{"a transaction is open", RuleAborted, func(p *scenario) { p.write("a", 0, 100); p.transact("a") }},
		{"a transaction was aborted", RuleAborted, func(p *scenario) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.Ended(0, false)
			p.one(number, 100)
		}},
		{"a transaction was aborted, and its row came while it was being committed", RuleAborted, func(p *scenario) {
			p.write("a", 0, 100)
			p.Commit(p.Begin())
			p.ack(transactionNumber, 100)
			p.one(transactionNumber, 100)
			p.Ended(0, false)
		}},
		{"an aborted event is a dead letter", RuleAborted, func(p *scenario) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.Ended(0, false)
			p.deadLetter(number, 100, "")
		}},
		{"a transaction was aborted, and is passed", "", func(p *scenario) {
			p.write("a", 0, 100)
			p.transact("")
			p.commit(100)
			p.Ended(0, false)
			p.ack(150, 102) // 101 is the marker
			p.one(150, 102)
			p.commit(103)
		}},
		{"a transaction was committed", "", func(p *scenario) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.Commit(0)
			p.one(number, 100)
			p.Ended(0, true)
			p.commit(102)
		}},
		{"a transaction was committed, and its event is missing", RuleLost, func(p *scenario) {
			p.write("a", 0, 100)
			p.transact("")
			p.Ended(0, true)
		}},
		{"an open transaction is committed past, and then committed", RuleCommit, func(p *scenario) {
			p.write("a", 0, 100)
			p.transact("")
			p.commit(101)
			p.Ended(0, true)
			p.commit(101)
		}},
		{"records were deleted, and reported", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(40)
			p.Deleting(0, 60)
			p.ReportedLost("a", 0, 50, 60, p.now)
			p.commit(60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported twice, by members that follow each other", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(40)
			p.Deleting(0, 60)
			p.ReportedLost("a", 0, 50, 60, p.now)
			p.Assigned("b", []int32{0})
			p.ReportedLost("b", 0, 40, 60, p.now)
			p.write("b", 60, 100)
		}},
		{"records were deleted twice, and reported at once", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.commit(50)
			p.Deleting(0, 60)
			p.Deleting(0, 70)
			p.ReportedLost("a", 0, 50, 70, p.now)
			p.write("a", 70, 100)
		}},
		{"records were deleted, and not reported", RuleLossReport, func(p *scenario) {
			p.write("a", 0, 50)
			p.Deleting(0, 60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported too late", RuleLossReport, func(p *scenario) {
			p.write("a", 0, 50)
			p.Deleting(0, 60)
			p.commit(60)
			p.now = p.now.Add(ReportedWithin)
			p.commit(60)
			p.ReportedLost("a", 0, 50, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported after they were committed past", "", func(p *scenario) {
			p.write("a", 0, 50)
			p.Deleting(0, 60)
			p.commit(60)
			p.ReportedLost("a", 0, 50, 60, p.now)
			p.now = p.now.Add(ReportedWithin)
			p.commit(60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and half of them reported", RuleLossReport, func(p *scenario) {
			p.write("a", 0, 50)
			p.Deleting(0, 60)
			p.ReportedLost("a", 0, 50, 55, p.now)
			p.write("a", 60, 100)
		}},
		{"records that are there are reported as lost", RuleLossReport, func(p *scenario) {
			p.write("a", 0, 50)
			p.Deleting(0, 60)
			p.ReportedLost("a", 0, 50, 61, p.now)
			p.write("a", 60, 100)
		}},
		{"records that were committed are reported as lost", RuleLossReport, func(p *scenario) {
			p.write("a", 0, 60)
			p.commit(60)
			p.Deleting(0, 60)
			p.ReportedLost("a", 0, 55, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records that others have committed are reported by a frozen member", "", func(p *scenario) {
			p.cfg.Frozen = func(member string, _ time.Time) bool { return member == "b" }
			p.write("a", 0, 60)
			p.commit(60)
			p.Deleting(0, 60)
			p.ReportedLost("b", 0, 55, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records were deleted that were delivered", "", func(p *scenario) {
			p.write("a", 0, 60)
			p.commit(60)
			p.Deleting(0, 60)
			p.write("a", 60, 100)
		}},
		{"two events at one place", RuleKafka, func(p *scenario) { p.ack(150, 5); p.write("a", 0, 100) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newScenario(100)
			tc.do(p)
			p.end()
			got := p.v.List()
			if tc.rule == "" {
				if len(got) > 0 {
					t.Fatalf("got %+v, want no violation", got)
				}
				return
			}
			for _, v := range got {
				if v.Rule == tc.rule {
					return
				}
			}
			t.Fatalf("got %+v, want rule %s", got, tc.rule)
		})
	}
}

func TestDuplicatesAreCountedByCause(t *testing.T) {
	p := newScenario(100)
	p.cfg.AckMayBeLost = func(string, time.Time) bool { return true }
	p.write("a", 0, 50)
	p.write("a", 0, 50) // lost acknowledgement
	p.write("a", 50, 90)
	p.Assigned("b", []int32{0})
	p.write("b", 70, 100)
	p.end()
	got := p.Totals()
	if got.Rows != 170 || got.DistinctRows != 100 || got.AgainByLostAck != 50 || got.AgainByAssignment != 20 || got.LongestStepBack != 20 || p.Totals().Unresolved() != 0 {
		t.Errorf("got %+v, remaining %d; want 170 rows of 100 events, 50 by a lost ack, 20 by a takeover", got, p.Totals().Unresolved())
	}
}

func TestFewExamplesAreKept(t *testing.T) {
	v := NewViolations()
	for i := range 100 {
		v.Add(RuleLost, "event %d", i)
	}
	select {
	case <-v.First:
	default:
		t.Error("the first violation was not announced")
	}
	if got := v.List(); len(got) != 1 || got[0].Count != 100 || len(got[0].Examples) != MaxExamples {
		t.Errorf("got %+v, want one rule, broken 100 times, with %d examples", got, MaxExamples)
	}
}

func TestReportsAreAwaited(t *testing.T) {
	p := newScenario(100)
	p.write("a", 0, 50)
	p.Deleting(0, 40)
	if p.AwaitsReports() {
		t.Error("everything deleted was delivered, and a report is awaited")
	}
	p.Deleting(0, 60)
	if !p.AwaitsReports() {
		t.Error("ten events were deleted, and no report is awaited")
	}
	p.ReportedLost("a", 0, 50, 60, p.now)
	if p.AwaitsReports() {
		t.Error("all deleted events were reported, and a report is awaited")
	}
}
