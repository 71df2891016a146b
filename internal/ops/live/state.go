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

// fresh is how long a state is shown again.
const fresh = 900 * time.Millisecond

// stateCache reads the state once for all viewers.
type stateCache struct {
	mu     sync.Mutex // guards the fields below
	at     time.Time
	status ops.Status
}

// status returns the state, at most a second old. It must not be changed.
func (p *Page) status() ops.Status {
	b := &p.state
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.at) >= fresh || b.at.UnixNano() <= p.forgot.Load() {
		b.at, b.status = now, p.source()
	}
	return b.status
}

// viewCache builds the messages once for all viewers of an integration.
type viewCache struct {
	mu         sync.Mutex // guards the fields below
	at         time.Time
	status     []byte
	partitions []byte
}

// status is the message of each second: the state of one integration without the parts
// that have their own messages, what the page shows of the process, and what is in no
// status.
type status struct {
	ops.IntegrationStatus
	NotReady    []consumer.NotReady `json:"not_ready,omitempty"`    // the first, each once
	MoreReasons int                 `json:"more_reasons,omitempty"` // beyond those

	Time          time.Time        `json:"time"`
	Version       string           `json:"version"`
	Started       time.Time        `json:"started,omitzero"`
	Epoch         string           `json:"epoch"` // of the ids of events
	BufferedLimit int64            `json:"buffered_limit_bytes"`
	Reload        ops.ReloadStatus `json:"reload"`
	Integrations  []health         `json:"integrations"`

	Partitions int     `json:"partitions"` // shadows the list
	Lag        int64   `json:"lag"`        // over all partitions whose lag is known; -1: none is
	Oldest     float64 `json:"oldest_unacked_seconds"`
	Blocked    int     `json:"blocked_partitions"`
	Sample     sample  `json:"sample"`
	Viewers    int32   `json:"viewers"`
}

// health is what the page shows of every integration.
type health struct {
	Integration string `json:"integration"`
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
}

type sample struct {
	Seen int64 `json:"seen"`
	Kept int64 `json:"kept"`
}

// read returns the state of an integration and its partitions as JSON, at most a second
// old; ok is false once the integration was removed.
func (p *Page) read(v *view) (statusJSON, partitionsJSON []byte, ok bool) {
	all := p.status()
	at := slices.IndexFunc(all.Integrations, func(i ops.IntegrationStatus) bool { return i.Integration == v.name })
	if at < 0 {
		return nil, nil, false
	}
	b := &v.state
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.at) < fresh {
		return b.status, b.partitions, true
	}
	b.at = now
	s := all.Integrations[at]
	if s.Sink.Name != "" && s.Sink.Name != zerobus.Ready {
		v.events.setRetrying()
	}
	out := status{IntegrationStatus: s, Partitions: len(s.Partitions), Lag: -1, Viewers: p.viewers.Load(), Oldest: s.Oldest().Seconds(),
		Time: all.Time, Version: all.Version, Started: all.Started, Epoch: v.epoch, BufferedLimit: all.BufferedLimit, Reload: all.Reload}
	out.Config = nil
	for _, i := range all.Integrations {
		out.Integrations = append(out.Integrations, health{i.Integration, i.State, i.Ready})
	}
	// Thousands of blocked partitions have the same reason.
	reasons := slices.Compact(slices.Clone(s.NotReady))
	for _, r := range all.NotReady {
		if r.Integration == "" { // of the process
			reasons = append(reasons, r)
		}
	}
	out.NotReady = reasons[:min(len(reasons), maxReasons)]
	out.MoreReasons = len(reasons) - len(out.NotReady)
	out.Ready = s.Ready && len(reasons) == 0
	out.Sample.Seen, out.Sample.Kept = v.events.Counts()
	if lag, known := s.Lag(); known || lag > 0 {
		out.Lag = lag
	}
	for _, part := range s.Partitions {
		if part.State == consumer.StateBlocked {
			out.Blocked++
		}
	}
	// All parts can be encoded; after a failure the page would not change.
	if text, err := json.Marshal(out); err == nil {
		b.status = text
	}
	if text, err := json.Marshal(worst(s.Partitions)); err == nil {
		b.partitions = text
	}
	return b.status, b.partitions, true
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
