package main

import (
	"testing"
	"time"
)

// page is a ledger with one partition, on which events 0 to n-1 were
// acknowledged at the offsets of the same number. All events are fine.
type page struct {
	*ledger
	now time.Time
}

// fineSeed is a seed whose first events are all fine.
var fineSeed = func() uint64 {
	for seed := uint64(1); ; seed++ {
		all := true
		for n := range uint32(200) {
			all = all && maker{seed}.kind(n) == fine
		}
		if all {
			return seed
		}
	}
}()

func newPage(n int) *page {
	p := &page{newLedger(maker{fineSeed}, newViolations(), limits{maxRows: 10, uncommitted: time.Minute}), time.Unix(1e9, 0)}
	for i := range n {
		p.acked(uint32(i), 0, int64(i))
	}
	p.assigned("a", []int32{0})
	return p
}

// write enters rows from..to-1 as written by a member, by its first blueprint.
func (p *page) write(member string, from, to int) { p.by(1, member, from, to) }

// by is write, by any blueprint.
func (p *page) by(edition int, member string, from, to int) {
	var rows []row
	for i := from; i < to; i++ {
		rows = append(rows, row{number: uint32(i), offset: int64(i), member: member, edition: edition})
	}
	p.now = p.now.Add(time.Second)
	p.written(rows, p.now)
}

func (p *page) commit(offset int64) []place {
	p.now = p.now.Add(time.Second)
	return p.commits(map[int32]int64{0: offset}, p.now)
}

// transact begins a transaction with one event at offset 100, which a member
// writes if it is named, and returns the event's number.
func (p *page) transact(member string) uint32 {
	number := transactionNumbers + p.begin()<<transactionShift
	p.acked(number, 0, 100)
	if member != "" {
		p.written([]row{{number: number, offset: 100, member: member, edition: 1}}, p.now)
	}
	return number
}

func (p *page) end() {
	p.close()
	p.tenures(func(string) bool { return false })
}

func TestEveryRuleFires(t *testing.T) {
	bad := func(kind int) uint32 { // an event of a kind, far behind those of the page
		for n := uint32(1000); ; n++ {
			if (maker{fineSeed}).kind(n) == kind {
				return n
			}
		}
	}
	for _, tc := range []struct {
		name string
		rule string // "": all is well
		do   func(p *page)
	}{
		{"all in order", "", func(p *page) { p.write("a", 0, 50); p.write("a", 50, 100); p.commit(100) }},
		{"a row is missing", ruleLost, func(p *page) { p.write("a", 0, 50); p.write("a", 51, 100) }},
		{"a dead letter is missing", ruleLost, func(p *page) { p.acked(bad(malformed), 0, 100); p.write("a", 0, 100) }},
		{"an array needs its row", ruleLost, func(p *page) {
			n := arrayNumbers + 1
			p.acked(n, 0, 100)
			p.letter(n, 0, 100, "")
			p.write("a", 0, 100)
		}},
		{"an array needs its dead letter", ruleLost, func(p *page) {
			n := arrayNumbers + 1
			p.acked(n, 0, 100)
			p.write("a", 0, 100)
			p.written([]row{{number: n, offset: 100, member: "a", edition: 1}}, p.now)
		}},
		{"an array that has both", "", func(p *page) {
			n := arrayNumbers + 1
			p.acked(n, 0, 100)
			p.write("a", 0, 100)
			p.written([]row{{number: n, offset: 100, member: "a", edition: 1}}, p.now)
			p.letter(n, 0, 100, "")
			p.commit(101)
			if left := p.remaining(); left != 0 {
				p.v.add(ruleFlow, "%d events remain", left)
			}
		}},
		{"an array of too many events needs a dead letter alone", "", func(p *page) {
			p.acked(arrayNumbers, 0, 100)
			p.write("a", 0, 100)
			p.letter(arrayNumbers, 0, 100, "")
			p.commit(101)
		}},
		{"a tombstone needs nothing", "", func(p *page) { p.acked(bad(tombstone), 0, 100); p.write("a", 0, 100); p.commit(101) }},
		{"a row of nowhere", ruleInvented, func(p *page) { p.write("a", 0, 101) }},
		{"a row of another event", ruleInvented, func(p *page) {
			p.write("a", 0, 99)
			p.written([]row{{number: 98, offset: 99, member: "a"}}, p.now)
		}},
		{"a row that came before its acknowledgement", "", func(p *page) { p.write("a", 0, 101); p.acked(100, 0, 100) }},
		{"a row of another event that came before its acknowledgement", ruleInvented, func(p *page) { p.write("a", 0, 101); p.acked(150, 0, 100) }},
		{"a column differs", ruleValue, func(p *page) {
			p.written([]row{{number: 0, offset: 0, member: "a", wrong: "column x"}}, p.now)
			p.write("a", 1, 100)
		}},
		{"a dead letter differs", ruleValue, func(p *page) {
			n := bad(malformed)
			p.acked(n, 0, 100)
			p.write("a", 0, 100)
			p.letter(n, 0, 100, "key")
		}},
		{"a good event is a dead letter", ruleMisplaced, func(p *page) { p.write("a", 0, 100); p.letter(5, 0, 5, "") }},
		{"a bad event is a row", ruleMisplaced, func(p *page) {
			n := bad(unfit)
			p.acked(n, 0, 100)
			p.letter(n, 0, 100, "")
			p.write("a", 0, 100)
			p.written([]row{{number: n, offset: 100, member: "a"}}, p.now)
		}},
		{"the dead letter of a refused row", "", func(p *page) {
			n := bad(unfit)
			p.acked(n, 0, 100)
			p.write("a", 0, 100)
			p.letter(n, 0, 100, "")
			p.commit(101)
		}},
		{"a gap is filled later", ruleOrder, func(p *page) {
			p.write("a", 0, 50)
			p.write("a", 60, 100)
			p.assigned("a", []int32{0})
			p.write("a", 50, 60)
		}},
		{"two members overlap", "", func(p *page) {
			p.write("a", 0, 50)
			p.write("a", 60, 100)
			p.assigned("b", []int32{0})
			p.write("b", 50, 100)
		}},
		{"rows of a request are out of order", ruleOrder, func(p *page) {
			p.written([]row{{number: 1, offset: 1, member: "a"}, {number: 0, offset: 0, member: "a"}}, p.now)
			p.write("a", 0, 100)
		}},
		{"the last write again, with no reason", ruleDuplicate, func(p *page) { p.write("a", 0, 50); p.write("a", 50, 100); p.write("a", 50, 100) }},
		{"the last write again, its acknowledgement lost", "", func(p *page) {
			p.excused = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.write("a", 50, 100)
		}},
		{"an earlier write again", ruleDuplicate, func(p *page) {
			p.excused = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.write("a", 0, 50)
		}},
		{"an earlier write again, given anew", "", func(p *page) {
			p.write("a", 0, 50)
			p.write("a", 50, 100)
			p.assigned("a", []int32{0})
			p.write("a", 90, 100)
		}},
		{"the batch made anew for other columns", "", func(p *page) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.columnsChanged()
			p.write("a", 75, 100)
		}},
		{"a member that was never given the partition", ruleDuplicate, func(p *page) { p.write("a", 0, 50); p.write("b", 50, 100) }},
		{"a new member goes back further than it may", ruleBound, func(p *page) {
			for i := range 100 {
				p.write("a", i, i+1)
				p.commit(0)
			}
			p.now = p.now.Add(2 * time.Minute)
			p.commit(0)
			p.commit(0)
			p.assigned("b", []int32{0})
			p.now = p.now.Add(2 * time.Minute)
			p.write("b", 0, 100)
		}},
		{"a commit ahead of the rows", ruleCommit, func(p *page) { p.write("a", 0, 50); p.commit(51); p.write("a", 50, 100) }},
		{"a commit ahead of a dead letter", ruleCommit, func(p *page) {
			n := bad(malformed)
			p.acked(n, 0, 100)
			p.write("a", 0, 100)
			missing := p.commit(101)
			if len(p.overdue(missing)) != 1 {
				panic("the dead letter is not missed")
			}
			p.unlettered(missing)
			p.letter(n, 0, 100, "")
		}},
		{"a new member begins below the commit", ruleTakeover, func(p *page) {
			p.write("a", 0, 50)
			p.commit(50)
			p.assigned("b", []int32{0})
			p.write("b", 45, 100)
		}},
		{"a new member begins below the commit, having stood still", "", func(p *page) {
			p.stopped = func(string, time.Time) bool { return true }
			p.write("a", 0, 50)
			p.commit(50)
			p.assigned("b", []int32{0})
			p.write("b", 45, 100)
		}},
		{"another blueprint between two writes", "", func(p *page) { p.write("a", 0, 50); p.by(2, "a", 50, 100) }},
		{"two blueprints in one request", ruleReload, func(p *page) {
			p.written([]row{{number: 0, offset: 0, member: "a", edition: 1}, {number: 1, offset: 1, member: "a", edition: 2}}, p.now)
			p.by(2, "a", 2, 100)
		}},
		{"a blueprint that was replaced", ruleReload, func(p *page) { p.by(2, "a", 0, 50); p.write("a", 50, 100) }},
		{"the batch made anew by another blueprint", "", func(p *page) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.planPut("a")
			p.by(2, "a", 75, 100)
		}},
		{"the batch made anew by a blueprint of another member", ruleDuplicate, func(p *page) {
			p.write("a", 0, 80)
			p.write("a", 80, 85)
			p.planPut("b")
			p.by(2, "a", 75, 100)
		}},
		{"a transaction is open", ruleAborted, func(p *page) { p.write("a", 0, 100); p.transact("a") }},
		{"a transaction was aborted", ruleAborted, func(p *page) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.ended(0, false)
			p.written([]row{{number: number, offset: 100, member: "a"}}, p.now)
		}},
		{"a transaction was aborted, and its row came while it was being committed", ruleAborted, func(p *page) {
			p.write("a", 0, 100)
			p.committing(p.begin())
			p.acked(transactionNumbers, 0, 100)
			p.written([]row{{number: transactionNumbers, offset: 100, member: "a"}}, p.now)
			p.ended(0, false)
		}},
		{"an aborted event is a dead letter", ruleAborted, func(p *page) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.ended(0, false)
			p.letter(number, 0, 100, "")
		}},
		{"a transaction was aborted, and is passed", "", func(p *page) {
			p.write("a", 0, 100)
			p.transact("")
			p.commit(100)
			p.ended(0, false)
			p.acked(150, 0, 102) // 101 is the marker
			p.written([]row{{number: 150, offset: 102, member: "a", edition: 1}}, p.now)
			p.commit(103)
		}},
		{"a transaction was committed", "", func(p *page) {
			p.write("a", 0, 100)
			number := p.transact("")
			p.committing(0)
			p.written([]row{{number: number, offset: 100, member: "a", edition: 1}}, p.now)
			p.ended(0, true)
			p.commit(102)
		}},
		{"a transaction was committed, and its event is missing", ruleLost, func(p *page) {
			p.write("a", 0, 100)
			p.transact("")
			p.ended(0, true)
		}},
		{"an open transaction is committed past, and then committed", ruleCommit, func(p *page) {
			p.write("a", 0, 100)
			p.transact("")
			p.commit(101)
			p.ended(0, true)
			p.commit(101)
		}},
		{"records were deleted, and reported", "", func(p *page) {
			p.write("a", 0, 50)
			p.commit(40)
			p.deleting(0, 60)
			p.lossReported("a", 0, 50, 60, p.now)
			p.commit(60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported twice, by members that follow each other", "", func(p *page) {
			p.write("a", 0, 50)
			p.commit(40)
			p.deleting(0, 60)
			p.lossReported("a", 0, 50, 60, p.now)
			p.assigned("b", []int32{0})
			p.lossReported("b", 0, 40, 60, p.now)
			p.write("b", 60, 100)
		}},
		{"records were deleted twice, and reported at once", "", func(p *page) {
			p.write("a", 0, 50)
			p.commit(50)
			p.deleting(0, 60)
			p.deleting(0, 70)
			p.lossReported("a", 0, 50, 70, p.now)
			p.write("a", 70, 100)
		}},
		{"records were deleted, and not reported", ruleLossReport, func(p *page) {
			p.write("a", 0, 50)
			p.deleting(0, 60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported too late", ruleLossReport, func(p *page) {
			p.write("a", 0, 50)
			p.deleting(0, 60)
			p.commit(60)
			p.now = p.now.Add(reportedWithin)
			p.commit(60)
			p.lossReported("a", 0, 50, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and reported after they were committed past", "", func(p *page) {
			p.write("a", 0, 50)
			p.deleting(0, 60)
			p.commit(60)
			p.lossReported("a", 0, 50, 60, p.now)
			p.now = p.now.Add(reportedWithin)
			p.commit(60)
			p.write("a", 60, 100)
		}},
		{"records were deleted, and half of them reported", ruleLossReport, func(p *page) {
			p.write("a", 0, 50)
			p.deleting(0, 60)
			p.lossReported("a", 0, 50, 55, p.now)
			p.write("a", 60, 100)
		}},
		{"records that are there are reported as lost", ruleLossReport, func(p *page) {
			p.write("a", 0, 50)
			p.deleting(0, 60)
			p.lossReported("a", 0, 50, 61, p.now)
			p.write("a", 60, 100)
		}},
		{"records that were committed are reported as lost", ruleLossReport, func(p *page) {
			p.write("a", 0, 60)
			p.commit(60)
			p.deleting(0, 60)
			p.lossReported("a", 0, 55, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records that others have committed are reported by a member that stood still", "", func(p *page) {
			p.stopped = func(member string, _ time.Time) bool { return member == "b" }
			p.write("a", 0, 60)
			p.commit(60)
			p.deleting(0, 60)
			p.lossReported("b", 0, 55, 60, p.now)
			p.write("a", 60, 100)
		}},
		{"records were deleted that were delivered", "", func(p *page) {
			p.write("a", 0, 60)
			p.commit(60)
			p.deleting(0, 60)
			p.write("a", 60, 100)
		}},
		{"events of two incarnations at one place", "", func(p *page) {
			p.write("a", 0, 100)
			for i := range uint32(2) {
				number := recreatedNumbers + i<<incarnationShift
				book, err := bookOf(recreated, 0, number)
				if err != nil {
					panic(err)
				}
				p.acked(number, book, 0)
				p.written([]row{{number: number, partition: book, member: "a", edition: 1}}, p.now)
			}
		}},
		{"an event of a later incarnation is missing", ruleLost, func(p *page) {
			p.write("a", 0, 100)
			p.acked(recreatedNumbers+1<<incarnationShift, recreatedBooks+10, 0)
		}},
		{"two events at one place", rulePromise, func(p *page) { p.acked(150, 0, 5); p.write("a", 0, 100) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPage(100)
			tc.do(p)
			p.end()
			got := p.v.list()
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
	p := newPage(100)
	p.excused = func(string, time.Time) bool { return true }
	p.write("a", 0, 50)
	p.write("a", 0, 50) // lost acknowledgement
	p.write("a", 50, 90)
	p.assigned("b", []int32{0})
	p.write("b", 70, 100)
	p.end()
	got := p.totals()
	if got.Rows != 170 || got.Distinct != 100 || got.AgainAck != 50 || got.AgainTakeover != 20 || got.LongestBack != 20 || p.remaining() != 0 {
		t.Errorf("got %+v, remaining %d; want 170 rows of 100 events, 50 by a lost ack, 20 by a takeover", got, p.remaining())
	}
}

func TestFewExamplesAreKept(t *testing.T) {
	v := newViolations()
	for i := range 100 {
		v.add(ruleLost, "event %d", i)
	}
	select {
	case <-v.first:
	default:
		t.Error("the first violation was not announced")
	}
	if got := v.list(); len(got) != 1 || got[0].Count != 100 || len(got[0].Examples) != maxExamples {
		t.Errorf("got %+v, want one rule, broken 100 times, with %d examples", got, maxExamples)
	}
}

func TestBooksAreAdded(t *testing.T) {
	fine := account{Read: 21, Delivered: 1, DeadLettered: 2, Skipped: 3, Filtered: 4, InFlight: 5, Dropped: 6}
	if got := fine.wrong(); got != "" {
		t.Errorf("got %q of books that balance", got)
	}
	for i, broken := range []account{{Read: 1}, {Delivered: 1}, {Dropped: 1}, {Imbalance: 1}} {
		if broken.wrong() == "" {
			t.Errorf("books %d do not balance, and pass", i)
		}
	}
	newRun := func() *run {
		v := newViolations()
		return &run{v: v, ledger: newLedger(maker{1}, v, limits{}), recreate: &recreation{next: []uint32{recreatedNumbers}}}
	}
	r := newRun()
	p := &process{name: "m"}
	r.lastWords(p, []byte(`{"msg":"stopped","events":{"read":2,"delivered":2}}`))
	if got := r.v.list(); len(got) != 0 {
		t.Errorf("got %+v of a line that closes the books", got)
	}
	for _, line := range []string{`{"msg":"stopped","events":{"read":2,"delivered":1}}`, `{"msg":"stopped"}`, `{"msg":"stopped","events":{"read":1,"in_flight":1}}`} {
		r := newRun()
		r.lastWords(p, []byte(line))
		if got := r.v.list(); len(got) != 1 || got[0].Rule != ruleBooks {
			t.Errorf("%s: got %+v, want rule %s", line, got, ruleBooks)
		}
	}
}

func TestLossReportsAreRead(t *testing.T) {
	line := func(msg, fields string) string { return `{"msg":"` + msg + `",` + fields + "}" }
	whole := `"topic":"chaos.events","partition":2,"first_offset":5,"last_offset":9,"offsets":5`
	for _, tc := range []struct {
		name  string
		lines []string
		rule  string
		lost  int64
	}{
		{"a report, and its count at the end", []string{line(lossMessage, whole), line("stopped", `"events":{"lost":5}`)}, "", 5},
		{"another line that names offsets", []string{line("other", whole), line("stopped", `"events":{}`)}, "", 0},
		{"a report without its range", []string{line(lossMessage, `"topic":"chaos.events","partition":2`)}, ruleLossReport, 0},
		{"a report that is not counted", []string{line(lossMessage, whole), line("stopped", `"events":{}`)}, ruleLossReport, 5},
		{"a count without a report", []string{line("stopped", `"events":{"lost":1}`)}, ruleLossReport, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newViolations()
			r := &run{v: v, ledger: newLedger(maker{1}, v, limits{}), recreate: &recreation{next: []uint32{recreatedNumbers}}}
			p := &process{name: "m"}
			for _, text := range tc.lines {
				r.loss(p, []byte(text))
				r.lastWords(p, []byte(text))
			}
			got := v.list()
			if (tc.rule == "") != (len(got) == 0) || len(got) > 0 && got[0].Rule != tc.rule {
				t.Errorf("got %+v, want rule %q", got, tc.rule)
			}
			if lost := r.ledger.loggedAsLost("m"); lost != tc.lost {
				t.Errorf("got %d lost offsets, want %d", lost, tc.lost)
			}
		})
	}
}

func TestFreshEventsAreWaitedForOnEveryPartition(t *testing.T) {
	p := newPage(100)
	again := recreatedNumbers + 1<<incarnationShift
	p.write("a", 0, 100)
	if !p.arrived(98, again) || p.arrived(99, again) {
		t.Error("the newest event of the only partition is 99, and that is not what counts")
	}
	book, err := bookOf(recreated, 0, again)
	if err != nil {
		t.Fatal(err)
	}
	p.acked(again, book, 0)
	if p.arrived(98, again) {
		t.Error("no event of the recreated topic has arrived, and that is not waited for")
	}
	p.written([]row{{number: again + 1, partition: book, offset: 1, member: "a"}}, p.now)
	if !p.arrived(98, again) {
		t.Error("a newer event of the recreated topic has arrived, and is waited for")
	}
	if !p.arrived(98, again+1<<incarnationShift) {
		t.Error("an incarnation that is gone is waited for")
	}
}

func TestReportsAreAwaited(t *testing.T) {
	p := newPage(100)
	p.write("a", 0, 50)
	p.deleting(0, 40)
	if p.reportsAwaited() {
		t.Error("everything deleted was delivered, and a report is awaited")
	}
	p.deleting(0, 60)
	if !p.reportsAwaited() {
		t.Error("ten events were deleted, and no report is awaited")
	}
	p.lossReported("a", 0, 50, 60, p.now)
	if p.reportsAwaited() {
		t.Error("all deleted events were reported, and a report is awaited")
	}
}
