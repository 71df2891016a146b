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

// ledger is what is known outside of the bridge: what was produced, the outcome of each
// event, and the owners of partitions. It checks every step when it is taken:
//
//   - a commit passes only events that the table or the dead-letter topic has
//     acknowledged, or that a rule drops;
//   - an assignment begins neither beyond such an event nor before one that a
//     commit had covered;
//   - within an assignment events are mapped in order, again only until they
//     are resolved, and delivered in order, each once;
//   - nothing is delivered that was not produced, and no partition has two Writes in
//     flight.
type ledger struct {
	t     *testing.T
	began time.Time

	mu      sync.Mutex
	logs    [][]*entry    // what was produced, by partition and offset
	stays   []*assignment // all so far
	busy    map[int32]*assignment
	covered map[int32]int64 // what commits of healthy members are known to cover
	commits int             // offsets in commit requests
	again   int             // rows that were delivered a second time
	besides func()
	skips   bool // rejects are resolved without a dead letter
	broken  int
}

// entry is one event.
type entry struct {
	text      string
	delivered int       // times
	resolved  bool      // acknowledged as a row or a dead letter, or nothing is to be done
	when      time.Time // resolved
}

// assignment is one stay of a partition with a member.
type assignment struct {
	n         int
	m         *vmember
	partition int32
	begun     bool
	first     int64 // offset it began at
	next      int64 // offset to be mapped next
	delivered int64 // highest offset that was delivered
	loose     bool  // it may be delivered again what it had, or out of order: the sink made it so
}

func newLedger(t *testing.T, partitions int) *ledger {
	return &ledger{t: t, began: time.Now(), logs: make([][]*entry, partitions), busy: map[int32]*assignment{}, covered: map[int32]int64{}}
}

// violated fails the test; a broken promise repeats itself, so only the first
// are reported.
func (b *ledger) violated(format string, args ...any) {
	b.t.Helper()
	if b.broken++; b.broken <= 5 {
		b.t.Errorf("after %v: %s", time.Since(b.began), fmt.Sprintf(format, args...))
	}
}

// produced enters an event. Dropped ones are resolved as they are.
func (b *ledger) produced(partition int32, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for int(partition) >= len(b.logs) {
		b.logs = append(b.logs, nil)
	}
	b.logs[partition] = append(b.logs[partition], &entry{text: text, resolved: strings.HasPrefix(text, "drop")})
}

func (b *ledger) resolve(e *entry) {
	if !e.resolved {
		e.resolved, e.when = true, time.Now()
	}
}

// open is the first offset of the partition that is not resolved.
func (b *ledger) open(partition int32) int64 {
	for i, e := range b.logs[partition] {
		if !e.resolved {
			return int64(i)
		}
	}
	return int64(len(b.logs[partition]))
}

// mapper makes the mapper of one assignment of m. Rows are
// "<assignment>:<offset>:<text>".
func (b *ledger) mapper(m *vmember) consumer.Mapper {
	b.mu.Lock()
	a := &assignment{n: len(b.stays), m: m, delivered: -1}
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

// mapped checks where an assignment begins and that it continues from there.
// It returns what the mapper is to do besides.
func (b *ledger) mapped(a *assignment, rec *kgo.Record) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, at := rec.Partition, rec.Offset
	switch {
	case !a.begun:
		a.begun, a.partition, a.first = true, p, at
		if open := b.open(p); at > open {
			b.violated("partition %d: assignment %d begins at %d, but %d is not resolved: it is lost", p, a.n, at, open)
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
		b.resolve(b.logs[p][at])
	}
	return b.besides
}

// mapping sets what a mapper does besides, with each event.
func (b *ledger) mapping(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.besides = f
}

// latest is the last assignment of a partition with a member that has begun.
func (b *ledger) latest(m *vmember, partition int32) *assignment {
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
func (b *ledger) parse(rows [][]byte) (*assignment, []vrow) {
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
func (b *ledger) begin(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.busy[a.partition]; other != nil && (other == a || !other.m.strayed() && !a.m.strayed()) {
		b.violated("partition %d: a Write of assignment %d (%s) begins beside one of %d (%s)", a.partition, a.n, a.m.name, other.n, other.m.name)
	}
	b.busy[a.partition] = a
}

func (b *ledger) end(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[a.partition] == a {
		delete(b.busy, a.partition)
	}
}

// land makes rows durable. Unless acked, the bridge gets no acknowledgement.
func (b *ledger) land(a *assignment, rows []vrow, acked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.loose = a.loose || !acked
	for _, r := range rows {
		log := b.logs[a.partition]
		if r.offset >= int64(len(log)) || log[r.offset].text != r.text {
			b.violated("partition %d: a row was delivered that was never produced: %+v", a.partition, r)
			continue
		}
		if r.offset <= a.delivered && !a.loose {
			b.violated("partition %d: assignment %d delivered %d after %d", a.partition, a.n, r.offset, a.delivered)
		}
		a.delivered = max(a.delivered, r.offset)
		e := log[r.offset]
		if e.delivered++; e.delivered > 1 {
			b.again++
		}
		if acked {
			b.resolve(e)
		}
	}
}

// loosen enters that the table refused rows at large: a blocked partition probes
// with one row and another until one is taken.
func (b *ledger) loosen(a *assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.loose = true
}

// refused enters an event that the table refuses standing alone.
func (b *ledger) refused(a *assignment, r vrow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.skips {
		b.resolve(b.logs[a.partition][r.offset])
	}
}

// buried enters a dead letter that the brokers take.
func (b *ledger) buried(rec *kgo.Record) {
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
	b.resolve(b.logs[p][at])
}

// committing checks a commit before the brokers hear of it.
func (b *ledger) committing(req *kmsg.OffsetCommitRequest) {
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
func (b *ledger) cover(p int32, to int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.covered[p] = max(b.covered[p], to)
}

// unsettled counts the events that have no end yet.
func (b *ledger) unsettled() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			if !e.resolved {
				n++
			}
		}
	}
	return n
}

// ends are the logs' ends by partition.
func (b *ledger) ends() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	ends := make([]int64, len(b.logs))
	for p, log := range b.logs {
		ends[p] = int64(len(log))
	}
	return ends
}

// landings counts the rows that were delivered.
func (b *ledger) landings() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			n += e.delivered
		}
	}
	return n
}

// duplicates counts the rows that were delivered again.
func (b *ledger) duplicates() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.again
}

// mostLandings is how often the row was delivered that came most often.
func (b *ledger) mostLandings() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, log := range b.logs {
		for _, e := range log {
			n = max(n, e.delivered)
		}
	}
	return n
}
