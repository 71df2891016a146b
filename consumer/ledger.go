package consumer

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/kafka"
)

// Ledger accounts for every event of a partition since this process first owned
// it:
//
//	Read = Delivered + DeadLettered + Skipped + Filtered + InFlight + Released
//
// A record that holds several events counts as one until it is mapped, and as that
// many from then on.
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
	Released     int64 `json:"released"`      // released unmarked by a revoke or a stop, for redelivery

	Offsets        int64 `json:"offsets"`         // by which polling has moved on
	Records        int64 `json:"records"`         // polled, without control records
	Lost           int64 `json:"lost"`            // offsets that Kafka removed before the group had passed them
	SkippedOffsets int64 `json:"skipped_offsets"` // offsets without an event: control records, aborted transactions, compaction
}

// Unaccounted is the number of events and offsets that are unaccounted for. Anything
// but 0 is a fault of the bridge.
func (l Ledger) Unaccounted() int64 {
	events := l.Read - l.Delivered - l.DeadLettered - l.Skipped - l.Filtered - l.InFlight - l.Released
	offsets := l.Offsets - l.Records - l.Lost - l.SkippedOffsets
	return max(events, -events) + max(offsets, -offsets)
}

// fields returns the numbers with their names in the log.
func (l *Ledger) fields() (names []string, numbers []*int64) {
	return []string{"read", "delivered", "dead_lettered", "skipped", "filtered", "in_flight", "released", "offsets", "records", "lost", "skipped_offsets"},
		[]*int64{&l.Read, &l.Delivered, &l.DeadLettered, &l.Skipped, &l.Filtered, &l.InFlight, &l.Released, &l.Offsets, &l.Records, &l.Lost, &l.SkippedOffsets}
}

// Add returns the sum of two ledgers.
func (l Ledger) Add(m Ledger) Ledger {
	_, sum := l.fields()
	_, more := m.fields()
	for i, n := range sum {
		*n += *more[i]
	}
	return l
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l Ledger) MarshalLogObject(e zapcore.ObjectEncoder) error {
	names, numbers := l.fields()
	for i, name := range names {
		e.AddInt64(name, *numbers[i])
	}
	return nil
}

// partitionLedger is the ledger of one partition. It outlives the assignment, so
// that the ledger of a process balances.
//
// The queue counts what is in flight, and the batch counts the outcomes: neither is
// computed from the other, so an event that is lost between them shows.
type partitionLedger struct {
	mu sync.Mutex // guards Ledger, so that a snapshot balances
	Ledger
}

func (a *partitionLedger) snapshot() Ledger {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Ledger
}

// polled enters records and the offsets that polling moved on by.
func (a *partitionLedger) polled(records int, offsets int64, gap gaps) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Offsets += offsets
	a.Lost += gap.lost
	a.SkippedOffsets += gap.skipped
	a.Records += int64(records)
	a.Read += int64(records)
	a.InFlight += int64(records)
}

// split enters events that were found inside a record.
func (a *partitionLedger) split(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Read += int64(n)
	a.InFlight += int64(n)
}

// done enters the outcomes of n events that were in flight.
func (a *partitionLedger) done(n int, outcomes Ledger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Delivered += outcomes.Delivered
	a.DeadLettered += outcomes.DeadLettered
	a.Skipped += outcomes.Skipped
	a.Filtered += outcomes.Filtered
	a.InFlight -= int64(n)
}

// release enters all that is in flight as dropped.
func (a *partitionLedger) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Released += a.InFlight
	a.InFlight = 0
}

// ledgerOf returns the ledger of a partition, which may have been assigned before.
// The caller holds g.mu.
func (g *Group) ledgerOf(tp topicPartition) *partitionLedger {
	a := g.ledgers[tp]
	if a == nil {
		a = new(partitionLedger)
		g.ledgers[tp] = a
	}
	return a
}

// sumLedgers sums up the ledgers of the process, in all and by topic. The caller holds
// g.mu.
func (g *Group) sumLedgers() (sum LedgerStatus, topics map[string]LedgerStatus) {
	topics = make(map[string]LedgerStatus)
	for tp, a := range g.ledgers {
		l := a.snapshot()
		topics[tp.Topic] = topics[tp.Topic].plus(l)
		sum = sum.plus(l)
	}
	return sum, topics
}

func (s LedgerStatus) plus(l Ledger) LedgerStatus {
	return LedgerStatus{s.Add(l), s.Unaccounted + l.Unaccounted()}
}

// Kafka removes records: by retention, by DeleteRecords, by an unclean leader
// election. Compaction and transactions leave offsets without an event, which is no
// loss. Every offset that polling passes is a record, lost, or skipped.

// gaps counts the offsets of one poll that brought no record.
type gaps struct{ lost, skipped int64 }

// Why offsets are lost, with the remedy.
const (
	lostRemoved = "the log start moved past the group's position"
	lostCut     = "the log ended before the group's position"

	remedyRemoved = "raise retention.ms and retention.bytes of the topic above the longest outage to survive, and find out who deletes records; alert BridgeOffsetsLost"
	remedyCut     = "check the brokers for unclean leader elections (unclean.leader.election.enable) and whether the topic was deleted and created again; alert BridgeOffsetsLost"
)

// arrive accounts for every offset from the partition's position to the last record
// polled, and queues the events among the records. It returns what they take of the
// budget. The fetch holds at least one record.
func (g *Group) arrive(p *partition, f kgo.FetchTopicPartition, share int64) (size int) {
	p.arriving.Lock()
	defer p.arriving.Unlock()
	from := g.position(p, f)
	p.logStart = f.LogStartOffset
	recs, first, start := f.Records, f.Records[0].Offset, f.LogStartOffset
	last := recs[len(recs)-1]
	to := kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: last.Offset + 1}
	if g.stopAt != nil {
		if end := g.stopAt.of(p); to.Offset >= end {
			g.pause(p.topic, p.id) // the rest is not part of the run
			n, _ := slices.BinarySearchFunc(recs, end, func(r *kgo.Record, end int64) int { return cmp.Compare(r.Offset, end) })
			recs, to.Offset, first, start = recs[:n], end, min(first, end), min(start, end)
		}
		if to.Offset <= from {
			return 0
		}
	}
	var gap gaps
	if present := min(first, start); present > from {
		gap.lost = present - from
		p.logLoss(from, gap.lost, lostRemoved, remedyRemoved)
	}
	gap.skipped = first - from - gap.lost
	if to.Offset-first != int64(len(recs)) { // else no offset between them is missing
		next := first
		for _, r := range recs {
			gap.skipped += r.Offset - next
			next = r.Offset + 1
		}
		gap.skipped += to.Offset - next
	}
	events, bytes := p.push(recs, to, gap, share)
	if events > 0 {
		g.obs.EventsRead(p.topic, p.id, events, bytes)
	}
	return bytes + kafka.RecordCost*events
}

// position returns the offset that the poll should begin at: where the last one
// ended, or what the group has committed. Without either, nothing before the first
// record was ever the group's. The caller holds p.arriving.
func (g *Group) position(p *partition, f kgo.FetchTopicPartition) int64 {
	first := f.Records[0]
	at := g.known(p)
	switch {
	case at.Offset < 0:
		at = kgo.EpochOffset{Epoch: first.LeaderEpoch, Offset: first.Offset}
	case first.Offset < at.Offset:
		end := first.Offset
		if end <= f.LogStartOffset {
			// Without leader epochs to compare the client resumes at the log's start.
			// What lies before the end is still there.
			end = f.HighWatermark
		}
		g.enterCut(p, end, at.Offset)
		at = kgo.EpochOffset{Epoch: first.LeaderEpoch, Offset: first.Offset}
	}
	p.setPosition(at)
	return at.Offset
}

// known returns the partition's position: where polling is, or where it began. The
// offset is -1 when there is neither.
func (g *Group) known(p *partition) kgo.EpochOffset {
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	if at.Offset < 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		if began, ok := g.begins[partitionKey(p.topic, p.id)]; ok {
			return began
		}
	}
	return at
}

// enterCut enters a log that ended at end while the group's position was at. What
// was lost beyond the position is unknown, so it counts as one offset at least. The
// caller holds p.arriving.
func (g *Group) enterCut(p *partition, end, at int64) {
	end = min(max(end, 0), at-1)
	p.logLoss(end, at-end, lostCut, remedyCut)
	p.ledger.polled(0, at-end, gaps{lost: at - end})
	g.obs.OffsetsPassed(p.topic, p.id, at-end, 0)
}

// enterDataLoss enters what the client found when it compared leader epochs. Where
// it had none to compare it resumes at the log's start, and the next poll shows
// where the log ended.
func (g *Group) enterDataLoss(loss *kgo.ErrDataLoss) {
	p := g.partition(loss.Topic, loss.Partition)
	if p == nil {
		return // the next owner's client compares the committed offset's epoch
	}
	p.arriving.Lock()
	defer p.arriving.Unlock()
	if loss.ResetTo <= p.logStart {
		return
	}
	g.enterCut(p, loss.ResetTo, loss.ConsumedTo)
	p.setPosition(kgo.EpochOffset{Epoch: loss.ResetToEpoch, Offset: loss.ResetTo})
}

// enterEmptied finds partitions whose log start has passed the position and which
// bring no record that would show it: everything was removed, or an open
// transaction holds the rest back. What the client has fetched already is not lost,
// so it takes two looks without progress, and a client that holds nothing any more
// of what it held at the first. Only watch calls it.
func (g *Group) enterEmptied(ctx context.Context) {
	starts, err := g.cluster.Adm.ListStartOffsets(ctx, g.cfg.Topics...)
	if err != nil {
		return // whether the brokers answer is known from the end offsets
	}
	buffered := g.cl.BufferedFetchRecords()
	arrived := g.arrived.Load() // after it, so that what is polled meanwhile counts in both
	starts.Each(func(o kadm.ListedOffset) {
		p := g.partition(o.Topic, o.Partition)
		if p == nil || o.Err != nil {
			return
		}
		p.arriving.Lock()
		defer p.arriving.Unlock()
		start := o.Offset
		if g.stopAt != nil {
			start = min(start, g.stopAt.of(p))
		}
		at := g.known(p)
		switch {
		case at.Offset < 0 || start <= at.Offset:
			p.behind = -1
		case p.behind != at.Offset:
			p.behind, p.behindUntil = at.Offset, arrived+buffered
		case arrived < p.behindUntil && buffered == 0:
			p.behindUntil = arrived // the client dropped what it held
		case arrived >= p.behindUntil:
			lost := start - at.Offset
			p.logLoss(at.Offset, lost, lostRemoved, remedyRemoved)
			p.setPosition(at)
			p.push(nil, kgo.EpochOffset{Epoch: max(at.Epoch, o.LeaderEpoch), Offset: start}, gaps{lost: lost}, 0)
		}
	})
}
