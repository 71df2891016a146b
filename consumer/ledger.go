package consumer

import (
	"sync"

	"go.uber.org/zap/zapcore"
)

// Ledger accounts for every event of a partition since this process first
// owned it:
//
//	Read = Delivered + DeadLettered + Skipped + Filtered + InFlight + Dropped
//
// A record that holds several events counts as one until it is mapped, and as
// that many from then on.
//
// It accounts for every offset that polling has passed, too:
//
//	Offsets = Records + Lost + SkippedOffsets
type Ledger struct {
	Read         int64 `json:"read"`          // polled
	Delivered    int64 `json:"delivered"`     // acknowledged by the sink as rows
	DeadLettered int64 `json:"dead_lettered"` // acknowledged by the dead-letter topic
	Skipped      int64 `json:"skipped"`       // rejected under the skip policy, or as a dead letter that came back too often
	Filtered     int64 `json:"filtered"`      // dropped by rule
	InFlight     int64 `json:"in_flight"`     // polled, and none of the others yet
	Dropped      int64 `json:"dropped"`       // let go unmarked by a revoke or a stop, for the next owner to read again

	Offsets        int64 `json:"offsets"`         // by which polling has moved on
	Records        int64 `json:"records"`         // polled, without control records
	Lost           int64 `json:"lost"`            // offsets that Kafka removed before the group had passed them
	SkippedOffsets int64 `json:"skipped_offsets"` // offsets without an event: control records, aborted transactions, compaction
}

// Imbalance is the number of events and offsets that are unaccounted for.
// Anything but 0 is a fault of the bridge.
func (l Ledger) Imbalance() int64 {
	events := l.Read - l.Delivered - l.DeadLettered - l.Skipped - l.Filtered - l.InFlight - l.Dropped
	offsets := l.Offsets - l.Records - l.Lost - l.SkippedOffsets
	return max(events, -events) + max(offsets, -offsets)
}

// Add returns the sum of two ledgers.
func (l Ledger) Add(m Ledger) Ledger {
	return Ledger{
		Read: l.Read + m.Read, Delivered: l.Delivered + m.Delivered, DeadLettered: l.DeadLettered + m.DeadLettered,
		Skipped: l.Skipped + m.Skipped, Filtered: l.Filtered + m.Filtered, InFlight: l.InFlight + m.InFlight, Dropped: l.Dropped + m.Dropped,
		Offsets: l.Offsets + m.Offsets, Records: l.Records + m.Records, Lost: l.Lost + m.Lost, SkippedOffsets: l.SkippedOffsets + m.SkippedOffsets,
	}
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l Ledger) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt64("read", l.Read)
	e.AddInt64("delivered", l.Delivered)
	e.AddInt64("dead_lettered", l.DeadLettered)
	e.AddInt64("skipped", l.Skipped)
	e.AddInt64("filtered", l.Filtered)
	e.AddInt64("in_flight", l.InFlight)
	e.AddInt64("dropped", l.Dropped)
	e.AddInt64("offsets", l.Offsets)
	e.AddInt64("records", l.Records)
	e.AddInt64("lost", l.Lost)
	e.AddInt64("skipped_offsets", l.SkippedOffsets)
	return nil
}

// books sums up the ledgers of the process.
func (g *Group) books() (sum Ledger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.accounts {
		sum = sum.Add(a.snapshot())
	}
	return sum
}

// account is the ledger of one partition. It outlives the partition's stay, so
// that the books of a process close.
//
// What is in flight is counted by the queue, and what became of it by the
// batch: neither is computed from the other, so an event that got lost between
// them shows.
type account struct {
	mu sync.Mutex // guards Ledger, so that a snapshot balances
	Ledger
}

func (a *account) snapshot() Ledger {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Ledger
}

// polled enters records and the offsets that polling moved on by.
func (a *account) polled(records int, offsets int64, gap gaps) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Offsets += offsets
	a.Lost += gap.lost
	a.SkippedOffsets += gap.skipped
	a.Records += int64(records)
	a.Read += int64(records)
	a.InFlight += int64(records)
}

// read enters events that were found inside a record.
func (a *account) read(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Read += int64(n)
	a.InFlight += int64(n)
}

// settle enters what became of n events that were in flight.
func (a *account) settle(n int, fates Ledger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Delivered += fates.Delivered
	a.DeadLettered += fates.DeadLettered
	a.Skipped += fates.Skipped
	a.Filtered += fates.Filtered
	a.InFlight -= int64(n)
}

// drop lets go of all that is still in flight.
func (a *account) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Dropped += a.InFlight
	a.InFlight = 0
}

// account returns the books of a partition, which may have been ours before.
// The caller holds g.mu.
func (g *Group) account(tp topicPartition) *account {
	a := g.accounts[tp]
	if a == nil {
		a = new(account)
		g.accounts[tp] = a
	}
	return a
}

// unpacked enters the events that mapping found inside the batch's records,
// beyond the one that each record counted as when it was read.
func (p *partition) unpacked() {
	more := p.batch.events - len(p.batch.recs)
	p.books.read(more - p.inside)
	p.inside = more
}

// audit enters what became of every event of a batch that is through.
func (p *partition) audit() {
	b := p.batch
	fates := Ledger{Delivered: p.durable()}
	if p.g.cfg.Rejects.Policy == PolicyDeadLetter {
		fates.DeadLettered, fates.Skipped = int64(len(b.rejected)-b.passed), int64(b.passed)
	} else {
		fates.Skipped = int64(len(b.rejected))
	}
	for _, n := range b.filtered {
		fates.Filtered += int64(n)
	}
	p.books.settle(len(b.recs)+p.inside, fates)
	p.inside = 0
}

// auditAbandoned enters the rows of an abandoned batch that were acknowledged
// all the same; wait drops the rest.
func (p *partition) auditAbandoned() {
	n := p.durable()
	p.books.settle(int(n), Ledger{Delivered: n})
	p.inside = 0
}

// durable counts the rows of the batch that the sink has acknowledged.
func (p *partition) durable() int64 {
	n := int64(-len(p.lone)) // settled, but by refusal
	for _, done := range p.settled {
		if done {
			n++
		}
	}
	return n
}
