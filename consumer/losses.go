package consumer

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// Kafka takes records away: by retention, by DeleteRecords, by an unclean leader
// election. Compaction and transactions leave offsets without an event, which is
// no loss. Every offset that polling passes is one of these: a record, lost, or
// skipped; see [Ledger].

// gaps counts the offsets of one poll that brought no record.
type gaps struct{ lost, skipped int64 }

// Why offsets are lost, with what can be done about it.
const (
	lostRemoved = "the log start moved past the group's position"
	lostCut     = "the log ended before the group's position"

	remedyRemoved = "raise retention.ms and retention.bytes of the topic above the longest outage to survive, and find out who deletes records; alert BridgeOffsetsLost"
	remedyCut     = "check the brokers for unclean leader elections (unclean.leader.election.enable) and whether the topic was deleted and created again; alert BridgeOffsetsLost"
)

// arrive accounts for every offset from the partition's position to the last
// record polled, and queues the events among the records. The fetch holds at
// least one record.
func (g *Group) arrive(p *partition, f kgo.FetchTopicPartition, share int64) {
	p.arriving.Lock()
	defer p.arriving.Unlock()
	from := g.position(p, f)
	p.logStart = f.LogStartOffset
	recs, first, start := f.Records, f.Records[0].Offset, f.LogStartOffset
	last := recs[len(recs)-1]
	to := kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: last.Offset + 1}
	if g.ends != nil {
		if end := g.ends.of(p); to.Offset >= end {
			g.pause(p.topic, p.id) // the rest is not part of the run
			n, _ := slices.BinarySearchFunc(recs, end, func(r *kgo.Record, end int64) int { return cmp.Compare(r.Offset, end) })
			recs, to.Offset, first, start = recs[:n], end, min(first, end), min(start, end)
		}
		if to.Offset <= from {
			return
		}
	}
	var gap gaps
	if present := min(first, start); present > from {
		gap.lost = present - from
		p.logLoss(from, gap.lost, lostRemoved, remedyRemoved)
	}
	gap.skipped = first - from - gap.lost
	if to.Offset-first != int64(len(recs)) {
		gap.skipped += inside(recs, first, to.Offset)
	}
	events, bytes := p.push(recs, to, gap, share)
	if events > 0 {
		g.obs.EventsRead(p.topic, p.id, events, bytes)
	}
}

// inside counts the offsets from first up to, and without, end that no record has.
func inside(recs []*kgo.Record, first, end int64) (missing int64) {
	for _, r := range recs {
		missing += r.Offset - first
		first = r.Offset + 1
	}
	return missing + end - first
}

// position returns the offset that the poll should begin at: where the last one
// ended, or what the group has committed. Without either nothing before the first
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
			// Without leader epochs to compare the client resumes at the log's
			// start. What lies before the end is still there.
			end = f.HighWatermark
		}
		g.cut(p, end, at.Offset)
		at = kgo.EpochOffset{Epoch: first.LeaderEpoch, Offset: first.Offset}
	}
	p.setPosition(at)
	return at.Offset
}

// known returns the partition's position: where polling is, or where it began.
// The offset is -1 when there is neither.
func (g *Group) known(p *partition) kgo.EpochOffset {
	p.mu.Lock()
	at := p.at
	p.mu.Unlock()
	if at.Offset < 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		if began, ok := g.begins[topicPartition{p.topic, p.id}]; ok {
			return began
		}
	}
	return at
}

// cut enters a log that ended at end while the group's position was at. What was
// lost beyond the position is unknown, so it counts as one offset at least. The
// caller holds p.arriving.
func (g *Group) cut(p *partition, end, at int64) {
	end = min(max(end, 0), at-1)
	p.logLoss(end, at-end, lostCut, remedyCut)
	p.books.polled(0, at-end, gaps{lost: at - end})
	g.obs.OffsetsPassed(p.topic, p.id, at-end, 0)
}

// dataLoss enters what the client found when it compared leader epochs. Where it
// had none to compare it resumes at the log's start, and the next poll shows where
// the log ended.
func (g *Group) dataLoss(loss *kgo.ErrDataLoss) {
	g.mu.Lock()
	p := g.parts[topicPartition{loss.Topic, loss.Partition}]
	g.mu.Unlock()
	if p == nil {
		return // the next owner's client compares the committed offset's epoch
	}
	p.arriving.Lock()
	defer p.arriving.Unlock()
	if loss.ResetTo <= p.logStart {
		return
	}
	g.cut(p, loss.ResetTo, loss.ConsumedTo)
	p.setPosition(kgo.EpochOffset{Epoch: loss.ResetToEpoch, Offset: loss.ResetTo})
}

// emptied finds partitions whose log start has passed the position and which
// bring no record that would show it: everything was removed, or an open
// transaction holds the rest back. What the client has fetched already is not
// lost, so it takes two looks without progress, and a client that holds nothing
// any more of what it held at the first. Only watch calls it.
func (g *Group) emptied(ctx context.Context) {
	starts, err := g.cluster.adm.ListStartOffsets(ctx, g.cfg.Topics...)
	if err != nil {
		return // whether the brokers answer is known from the end offsets
	}
	buffered := g.cl.BufferedFetchRecords()
	arrived := g.arrived.Load() // after it, so that what is polled meanwhile counts in both
	starts.Each(func(o kadm.ListedOffset) {
		g.mu.Lock()
		p := g.parts[topicPartition{o.Topic, o.Partition}]
		g.mu.Unlock()
		if p == nil || o.Err != nil {
			return
		}
		p.arriving.Lock()
		defer p.arriving.Unlock()
		start := o.Offset
		if g.ends != nil {
			start = min(start, g.ends.of(p))
		}
		at := g.known(p)
		switch {
		case at.Offset < 0 || start <= at.Offset:
			p.behind = -1
		case p.behind != at.Offset:
			p.behind, p.behindUntil = at.Offset, arrived+buffered
		case arrived < p.behindUntil && buffered == 0:
			p.behindUntil = arrived // the client let go of what it held
		case arrived >= p.behindUntil:
			lost := start - at.Offset
			p.logLoss(at.Offset, lost, lostRemoved, remedyRemoved)
			p.setPosition(at)
			p.push(nil, kgo.EpochOffset{Epoch: max(at.Epoch, o.LeaderEpoch), Offset: start}, gaps{lost: lost}, 0)
		}
	})
}

func (p *partition) setPosition(at kgo.EpochOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
}

// logLoss writes the one line about a loss.
func (p *partition) logLoss(first, count int64, cause, remedy string) {
	p.log.Warn("kafka removed events before they were delivered", zap.String("cause", cause),
		zap.Int64("first_offset", first), zap.Int64("last_offset", first+count-1), zap.Int64("offsets", count), zap.String("remedy", remedy))
}
