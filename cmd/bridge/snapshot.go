package main

import (
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

// pollStall is how long the poll loop may stand still with room in the buffer
// before the process is called dead. A poll waits at most a few seconds.
const pollStall = 2 * time.Minute

// snapshot is what the ops server shows.
func (b *bridge) snapshot() ops.Snapshot {
	sink := b.client.State()
	s := ops.Snapshot{
		Version: version(), Group: b.cfg.Kafka.Group, State: b.state.Load().(string), Started: b.started,
		Live: true,
		Sink: ops.SinkStatus{
			State: sink.Name, Reason: sink.Reason, Remedy: sink.Remedy, Since: sink.Since,
			TokenMintedAt: sink.TokenMintedAt, TokenExpiresAt: sink.TokenExpiresAt,
			Table: b.client.Table().String(), Transport: b.cfg.Zerobus.Transport, Streams: sink.Streams,
		},
		BufferedLimit:   int64(b.cfg.Delivery.MaxBuffered),
		Memory:          b.memoryStatus(),
		Totals:          b.counts.Totals(),
		Config:          b.settings.Load().Redacted(),
		Reload:          b.reloads.now(),
		LogLinesDropped: b.logLinesDropped(),
	}
	if sink.Name == zerobus.Blocked {
		s.NotReady = append(s.NotReady, ops.Reason{Code: "sink_blocked", Text: sink.Reason, Remedy: sink.Remedy})
	}
	if w := b.waiting.Load(); w != nil {
		s.NotReady = append(s.NotReady, *w)
	}
	if g := b.group.Load(); g != nil {
		st := g.Status()
		s.MemberID, s.BufferedBytes, s.LastPoll = st.MemberID, st.BufferedBytes, st.Polled
		if st.Running && st.BufferedBytes < st.BufferedLimit && time.Since(st.Polled) > pollStall {
			s.Live, s.LiveReason = false, "the poll loop stands still"
		}
		for _, r := range st.NotReady {
			s.NotReady = append(s.NotReady, ops.Reason{Code: r.Code, Text: r.Text, Remedy: r.Remedy})
		}
		for _, p := range st.Partitions {
			s.Partitions = append(s.Partitions, ops.PartitionStatus{
				Topic: p.Topic, Partition: p.Partition, State: p.State, Paused: p.Paused, Committed: p.Committed, Marked: p.Marked,
				EndOffset: p.End, Lag: p.Lag, PendingEvents: p.Pending, BufferedBytes: p.Buffered,
				OldestUnacked: p.Oldest, Reason: p.Reason, RowsDelivered: p.Rows,
				Conservation: ledger(p.Ledger, p.Ledger.Imbalance()),
			})
		}
		s.Conservation = ledger(st.Ledger, st.Imbalance)
	}
	if short := b.handles.short(time.Now(), b.descriptorsNeeded(len(s.Partitions))); short != nil {
		s.NotReady = append(s.NotReady, *short)
	}
	s.Ready = s.State == ops.StateRunning && len(s.NotReady) == 0
	if !s.Ready && len(s.NotReady) == 0 {
		s.NotReady = append(s.NotReady, ops.Reason{Code: s.State, Text: "the bridge is " + s.State, Remedy: "wait; this state passes by itself"})
	}
	return s
}

// logLinesDropped returns how many lines of the log were dropped.
func (b *bridge) logLinesDropped() int64 {
	if lines := b.lines.Load(); lines != nil {
		return lines.Dropped()
	}
	return 0
}

// ledger says in ops's words what consumer's says.
func ledger(l consumer.Ledger, imbalance int64) ops.Ledger {
	return ops.Ledger{
		Read: l.Read, Delivered: l.Delivered, DeadLettered: l.DeadLettered, Skipped: l.Skipped, Filtered: l.Filtered,
		InFlight: l.InFlight, Dropped: l.Dropped,
		Offsets: l.Offsets, Records: l.Records, Lost: l.Lost, SkippedOffsets: l.SkippedOffsets, Imbalance: imbalance,
	}
}

// sinkTrouble says what the sink says of itself while it has trouble.
func (b *bridge) sinkTrouble() (reason, remedy string) {
	if s := b.client.State(); s.Name != zerobus.Ready {
		return "the sink is " + s.Name + ": " + s.Reason, s.Remedy
	}
	return "", ""
}
