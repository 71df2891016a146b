//go:build synctests

package consumer_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
)

// book is what the outside knows of a virtual world: what was produced, what
// became of each event, who owned what. It holds every step against the promise
// the moment it is taken:
//
//   - a commit passes only events that the table or the dead-letter topic has
//     acknowledged, or that a rule drops;
//   - an assignment begins neither beyond such an event nor before one that a
//     commit had covered;
//   - within an assignment events are mapped in order, again only until they
//     are settled, and land in order, each once;
//   - nothing lands that was not produced, and no partition has two Writes in
//     flight.
type book struct {
	t     *testing.T
	began time.Time

	mu      sync.Mutex
	logs    [][]*entry    // what was produced, by partition and offset
	stays   []*assignment // all so far
	busy    map[int32]*assignment
	covered map[int32]int64 // what commits of healthy members are known to cover
	commits int             // offsets in commit requests
	again   int             // rows that landed a second time
	besides func()
	skips   bool // rejects are settled without a dead letter
	broken  int
}

// entry is one event.
type entry struct {
	text    string
	landed  int       // times
	settled bool      // acknowledged as a row or a dead letter, or nothing is to be done
	when    time.Time // settled
}

// assignment is one stay of a partition with a member.
type assignment struct {
	n         int
	m         *vmember
	partition int32
	begun     bool
	first     int64 // offset it began at
	next      int64 // offset to be mapped next
	landed    int64 // highest offset that landed
	loose     bool  // it may land again what it had, or out of order: the sink made it so
}

func newBook(t *testing.T, partitions int) *book {
	return &book{t: t, began: time.Now(), logs: make([][]*entry, partitions), busy: map[int32]*assignment{}, covered: map[int32]int64{}}
}

// violated fails the test; a broken promise repeats itself, so only the first
// are told.
func (b *book) violated(format string, args ...any) {
	b.t.Helper()
	if b.broken++; b.broken <= 5 {
		b.t.Errorf("after %v: %s", time.Since(b.began), fmt.Sprintf(format, args...))
	}
}

// produced enters an event. Dropped ones are settled as they are.
func (b *book) produced(partition int32, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for int(partition) >= len(b.logs) {
		b.logs = append(b.logs, nil)
	}
	b.logs[partition] = append(b.logs[partition], &entry{text: text, settled: strings.HasPrefix(text, "drop")})
}

func (b *book) settle(e *entry) {
	if !e.settled {
		e.settled, e.when = true, time.Now()
	}
}

// open is the first offset of the partition that is not settled.
func (b *book) open(partition int32) int64 {
	for i, e := range b.logs[partition] {
		if !e.settled {
			return int64(i)
		}
	}
	return int64(len(b.logs[partition]))
}

// mapper makes the mapper of one assignment of m. Rows are
// "<assignment>:<offset>:<text>".
func (b *book) mapper(m *vmember) consumer.Mapper {
	b.mu.Lock()
	a := &assignment{n: len(b.stays), m: m, landed: -1}
	b.stays = append(b.stays, a)
	b.mu.Unlock()
	return func(rec *kgo.Record, out *consumer.Batch) {
		if slowly := b.mapped(a, rec); slowly != nil {
			slowly()
		}
		switch text := string(rec.Value); {
		case strings.HasPrefix(text, "drop"):
			out.Filter("test")
		case strings.HasPrefix(text, "bad"):
			out.Reject("bad", "", "the text begins with bad")
		default:
			out.Row(fmt.Appendf(out.Buf(), "%d:%d:%s", a.n, rec.Offset, text))
		}
	}
}

// mapped checks where an assignment begins and that it goes on from there.
// It returns what the mapper is to do besides.
func (b *book) mapped(a *assignment, rec *kgo.Record) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, at := rec.Partition, rec.Offset
	switch {
	case !a.begun:
		a.begun, a.partition, a.first = true, p, at
		if open := b.open(p); at > open {
			b.violated("partition %d: assignment %d begins at %d, but %d is not settled: it is lost", p, a.n, at, open)
		}
		if at < b.covered[p] {
			b.violated("partition %d: assignment %d begins at %d, though a commit had covered all before %d", p, a.n, at, b.covered[p])
		}
	case p != a.partition:
		b.violated("assignment %d of partition %d maps an event of partition %d", a.n, a.partition, p)
	case at != a.next && (at > a.next || at > b.open(p)):
		b.violated("partition %d: assignment %d maps %d, want %d", p, a.n, at, a.next)
	}
	a.next = at + 1
	if strings.HasPrefix(string(rec.Value), "bad") && b.skips {
		b.settle(b.logs[p][at])
	}
	return b.besides
}

// mapping sets what a mapper does besides, with each event.
func (b *book) mapping(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.besides = f
}

// latest is the last assignment of a partition with a member that has begun.
func (b *book) latest(m *vmember, partition int32) *assignment {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.stays) - 1; i >= 0; i-- {
		if a := b.stays[i]; a.m == m && a.begun && a.partition == partition {
			return a
		}
	}
	return nil
}

// vrow is a row as the sink sees it.
type vrow struct {
	offset int64
	text   string
}

// parse returns the rows of one Write and the assignment they are of.
func (b *book) parse(rows [][]byte) (*assignment, []vrow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []vrow
	stay := -1
	for _, row := range rows {
		var n int
		var r vrow
		if _, err := fmt.Sscanf(string(row), "%d:%d:%s", &n, &r.offset, &r.text); err != nil {
			b.violated("row %q is not ours: %v", row, err)
		}
		if stay >= 0 && n != stay {
			b.violated("a Write holds rows of assignments %d and %d", stay, n)
		}
		stay = n
		all = append(all, r)
	}
	return b.stays[stay], all
}

// begin enters a Write in flight.
func (b *book) begin(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.busy[a.partition]; other != nil && (other == a || !other.m.strayed() && !a.m.strayed()) {
		b.violated("partition %d: a Write of assignment %d (%s) begins beside one of %d (%s)", a.partition, a.n, a.m.name, other.n, other.m.name)
	}
	b.busy[a.partition] = a
}

func (b *book) end(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[a.partition] == a {
		delete(b.busy, a.partition)
	}
}

// land makes rows durable. Unless acked, the bridge does not hear of it.
func (b *book) land(a *assignment, rows []vrow, acked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.loose = a.loose || !acked
	for _, r := range rows {
		log := b.logs[a.partition]
		if r.offset >= int64(len(log)) || log[r.offset].text != r.text {
			b.violated("partition %d: a row landed that was never produced: %+v", a.partition, r)
			continue
		}
		if r.offset <= a.landed && !a.loose {
			b.violated("partition %d: assignment %d landed %d after %d", a.partition, a.n, r.offset, a.landed)
		}
		a.landed = max(a.landed, r.offset)
		e := log[r.offset]
		if e.landed++; e.landed > 1 {
			b.again++
		}
		if acked {
			b.settle(e)
		}
	}
}

// loosen enters that the table refused rows at large: a blocked partition probes
// with one row and another until one is taken.
func (b *book) loosen(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.loose = true
}

// refused enters an event that the table refuses standing alone.
func (b *book) refused(a *assignment, r vrow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.skips {
		b.settle(b.logs[a.partition][r.offset])
	}
}

// buried enters a dead letter that the brokers take.
func (b *book) buried(rec *kgo.Record) {
	var p, at int64
	for _, h := range rec.Headers {
		switch h.Key {
		case consumer.HeaderPartition:
			_, _ = fmt.Sscan(string(h.Value), &p)
		case consumer.HeaderOffset:
			_, _ = fmt.Sscan(string(h.Value), &at)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if int(p) >= len(b.logs) || at >= int64(len(b.logs[p])) || b.logs[p][at].text != string(rec.Value) {
		b.violated("a dead letter was never produced: %s from %d/%d", rec.Value, p, at)
		return
	}
	b.settle(b.logs[p][at])
}

// committing checks a commit before the brokers hear of it.
func (b *book) committing(req *kmsg.OffsetCommitRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			b.commits++
			if open := b.open(p.Partition); p.Offset > open {
				b.violated("partition %d: %d is committed, but %d is not acknowledged", p.Partition, p.Offset, open)
			}
		}
	}
}

// cover enters what a commit has covered.
func (b *book) cover(p int32, to int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.covered[p] = max(b.covered[p], to)
}

// unsettled counts the events that have no end yet.
func (b *book) unsettled() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			if !e.settled {
				n++
			}
		}
	}
	return n
}

// ends are the logs' ends by partition.
func (b *book) ends() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	ends := make([]int64, len(b.logs))
	for p, log := range b.logs {
		ends[p] = int64(len(log))
	}
	return ends
}

// landings counts the rows that landed.
func (b *book) landings() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			n += e.landed
		}
	}
	return n
}

// duplicates counts the rows that landed again.
func (b *book) duplicates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.again
}

// mostLandings is how often the row landed that landed most often.
func (b *book) mostLandings() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			n = max(n, e.landed)
		}
	}
	return n
}
