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
	// maxPartitions and maxReasons are sent in full; the rest is counted.
	maxPartitions = 1000
	maxReasons    = 20
)

// stateCache builds the state once for all viewers.
type stateCache struct {
	mu         sync.Mutex // guards the fields below
	at         time.Time
	status     []byte
	partitions []byte
}

// status is the message of each second: a snapshot without the parts that have
// their own messages, and what is not in a snapshot.
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
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
}

type sample struct {
	Seen int64 `json:"seen"`
	Kept int64 `json:"kept"`
}

// read returns the state and the partitions as JSON, at most a second old.
func (p *Page) read() (statusJSON, partitionsJSON []byte) {
	b := &p.state
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.at) < 900*time.Millisecond {
		return b.status, b.partitions
	}
	b.at = now
	s := p.source.Snapshot()
	if s.Sink.Name != "" && s.Sink.Name != zerobus.Ready {
		p.events.setRetrying()
	}
	out := status{Snapshot: s, Partitions: len(s.Partitions), Lag: -1, Viewers: p.events.viewers.Load()}
	out.Config = nil
	// Thousands of blocked partitions have the same reason.
	reasons := slices.Compact(slices.Clone(s.NotReady))
	out.NotReady = reasons[:min(len(reasons), maxReasons)]
	out.MoreReasons = len(reasons) - len(out.NotReady)
	out.Sample.Seen, out.Sample.Kept = p.events.Counts()
	for _, part := range s.Partitions {
		if part.Lag >= 0 {
			out.Lag = max(out.Lag, 0) + part.Lag
		}
		out.Oldest = max(out.Oldest, time.Duration(part.Oldest).Seconds())
		if part.State == consumer.StateBlocked {
			out.Blocked++
		}
	}
	if p50, p99, ok := p.counts.RecentAcks(); ok {
		out.Ack = &quantiles{p50, p99}
	}
	// All parts can be encoded; after a failure the page would not change.
	if text, err := json.Marshal(out); err == nil {
		b.status = text
	}
	if text, err := json.Marshal(worst(s.Partitions)); err == nil {
		b.partitions = text
	}
	return b.status, b.partitions
}

// worst returns all partitions, or of too many the blocked, oldest and most lagging.
func worst(all []consumer.PartitionStatus) []consumer.PartitionStatus {
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
