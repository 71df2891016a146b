package live

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

const (
	// ackWindow is what the shown acknowledgement times are taken over.
	ackWindow = 10 * time.Second
	// maxPartitions and maxReasons bound those sent in full; the rest is counted.
	maxPartitions = 1000
	maxReasons    = 20
)

// board makes the state once for all viewers.
type board struct {
	mu         sync.Mutex // guards the fields below
	at         time.Time
	status     []byte
	partitions []byte
	history    []ackMark // oldest first
}

type ackMark struct {
	at   time.Time
	acks ops.AckTimes
}

// status is what a viewer is told each second: a snapshot without the parts
// that have messages of their own, and what is not in a snapshot.
type status struct {
	ops.Snapshot
	NotReady    []consumer.NotReady `json:"not_ready,omitempty"`    // the first, each once
	MoreReasons int                 `json:"more_reasons,omitempty"` // beyond those

	Partitions int        `json:"partitions"` // shadows the list
	Lag        int64      `json:"lag"`        // over all partitions whose lag is known; -1: none is
	Oldest     float64    `json:"oldest_unacked_seconds"`
	Blocked    int        `json:"blocked_partitions"`
	Ack        *quantiles `json:"ack,omitempty"`
	Sample     sample     `json:"sample"`
	Viewers    int32      `json:"viewers"`
}

type quantiles struct {
	P50   float64 `json:"p50_seconds"`
	P99   float64 `json:"p99_seconds"`
	Count uint64  `json:"count"`
}

type sample struct {
	Seen int64 `json:"seen"`
	Kept int64 `json:"kept"`
}

// read returns the state and the partitions as JSON, at most a second old.
func (p *Page) read() (statusJSON, partitionsJSON []byte) {
	b := &p.board
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.at) < 900*time.Millisecond {
		return b.status, b.partitions
	}
	b.at = now
	s := p.source()
	if s.Time.IsZero() {
		s.Time = now
	}
	if s.Sink.Name != "" && s.Sink.Name != zerobus.Ready {
		p.feed.trouble()
	}
	out := status{Snapshot: s, Partitions: len(s.Partitions), Lag: -1, Viewers: p.feed.viewers.Load()}
	out.Config = nil
	// Blocked partitions say the same by the thousand.
	reasons := slices.Compact(slices.Clone(s.NotReady))
	out.NotReady = reasons[:min(len(reasons), maxReasons)]
	out.MoreReasons = len(reasons) - len(out.NotReady)
	out.Sample.Seen, out.Sample.Kept = p.feed.Counts()
	for _, part := range s.Partitions {
		if part.Lag >= 0 {
			out.Lag = max(out.Lag, 0) + part.Lag
		}
		out.Oldest = max(out.Oldest, time.Duration(part.Oldest).Seconds())
		if part.State == consumer.StateBlocked {
			out.Blocked++
		}
	}
	out.Ack = b.acks(now, p.counts.AckTimes())
	// Every part is ours and can be written; a failure would show as a stale page.
	if text, err := json.Marshal(out); err == nil {
		b.status = text
	}
	if s.Partitions == nil {
		s.Partitions = []consumer.PartitionStatus{}
	}
	if text, err := json.Marshal(gravest(s.Partitions)); err == nil {
		b.partitions = text
	}
	return b.status, b.partitions
}

// gravest returns all partitions, or of too many those that need somebody most.
func gravest(all []consumer.PartitionStatus) []consumer.PartitionStatus {
	if len(all) <= maxPartitions {
		return all
	}
	blocked := func(p consumer.PartitionStatus) int {
		if p.State == consumer.StateBlocked {
			return 0
		}
		return 1
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b consumer.PartitionStatus) int {
		return cmp.Or(cmp.Compare(blocked(a), blocked(b)), cmp.Compare(b.Oldest, a.Oldest), cmp.Compare(b.Lag, a.Lag))
	})
	return all[:maxPartitions]
}

// acks holds the counts against those of ackWindow ago.
func (b *board) acks(now time.Time, a ops.AckTimes) *quantiles {
	for len(b.history) > 0 && now.Sub(b.history[0].at) > ackWindow {
		b.history = b.history[1:]
	}
	b.history = append(b.history, ackMark{now, a})
	before := b.history[0].acks
	p50, ok := a.Quantile(0.50, before)
	if !ok {
		return nil
	}
	p99, _ := a.Quantile(0.99, before)
	return &quantiles{P50: p50, P99: p99, Count: a.Count(before)}
}
