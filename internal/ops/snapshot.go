// Package ops answers the questions an operator asks a running bridge: its
// metrics, whether it is alive and ready, and what it is doing at the moment.
//
// It knows nothing of Kafka, blueprints or Zerobus. The other packages hand it
// numbers through Metrics, and the wiring hands it the present state through a
// Source. It shows no event and no row.
package ops

import (
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus"
)

// Source returns the present state. It is called once for each request that
// needs it, from any goroutine, possibly several at a time; it must not wait
// for Kafka or for the sink.
type Source func() Snapshot

// States of the process, for Snapshot.State.
const (
	StateStarting = "starting" // not yet a member of the group
	StateRunning  = "running"
	StateDraining = "draining" // finishing the writes in flight before leaving
	StateStopped  = "stopped"
)

// Snapshot is the state of one bridge at one moment, and the JSON of /status.
// A zero time is left out of the JSON.
type Snapshot struct {
	Time     time.Time `json:"time"` // when it was taken; the server fills a zero one
	Version  string    `json:"version"`
	Group    string    `json:"group"`     // consumer group
	MemberID string    `json:"member_id"` // as the group coordinator knows it; empty before the join
	State    string    `json:"state"`     // one of the State constants
	Started  time.Time `json:"started,omitzero"`

	// Live is false when the poll loop is stuck for good and only a restart
	// helps. A sink that is down does not make the bridge dead.
	Live       bool      `json:"live"`
	LiveReason string    `json:"live_reason,omitempty"` // why Live is false
	LastPoll   time.Time `json:"last_poll,omitzero"`    // last turn of the poll loop

	// Ready is false while events are not being delivered; NotReady says why,
	// the gravest reason first.
	Ready    bool                `json:"ready"`
	NotReady []consumer.NotReady `json:"not_ready,omitempty"`

	Sink zerobus.State `json:"sink"`

	// BufferedBytes is what is polled and not yet durable, over all
	// partitions; BufferedLimit is its budget.
	BufferedBytes int64 `json:"buffered_bytes"`
	BufferedLimit int64 `json:"buffered_limit_bytes"`

	Memory MemoryStatus `json:"memory"`

	Partitions []consumer.PartitionStatus `json:"partitions"`

	// Conservation accounts for every event this process has read, over all
	// partitions it ever owned.
	Conservation consumer.LedgerStatus `json:"conservation"`

	// Totals are those of IntegrationMetrics.
	Totals Totals `json:"totals"`

	// LogLinesDropped counts the lines of the log that standard error did not
	// take. It has no part in Ready.
	LogLinesDropped int64 `json:"log_lines_dropped"`

	// Reload tells where the configuration in force comes from, and whether a
	// newer one was refused. It has no part in Ready.
	Reload ReloadStatus `json:"reload"`

	// Config is the effective configuration. It is shown as it is: secrets
	// must have been redacted before.
	Config any `json:"config,omitempty"`
}

// MemoryStatus is how much memory the process may take, in bytes.
type MemoryStatus struct {
	BoundBytes     int64 `json:"bound_bytes"`                // resident memory to plan with, for the partitions assigned now
	SoftLimitBytes int64 `json:"soft_limit_bytes,omitempty"` // of the Go runtime; 0 is none
	CgroupBytes    int64 `json:"cgroup_bytes,omitempty"`     // limit of the control group; 0 is none
	// Warning says why the limit of the control group is too low, and what to
	// lower.
	Warning string `json:"warning,omitempty"`
}

// Totals count since the process started, over all topics and partitions.
type Totals struct {
	EventsRead        int64 `json:"events_read"`
	EventBytesRead    int64 `json:"event_bytes_read"`
	RowsDelivered     int64 `json:"rows_delivered"`
	RowBytesDelivered int64 `json:"row_bytes_delivered"`
	EventsRejected    int64 `json:"events_rejected"`
	EventsFiltered    int64 `json:"events_filtered"`
	DeadLetters       int64 `json:"dead_letters"`
	BatchesDelivered  int64 `json:"batches_delivered"`
	BatchesHalved     int64 `json:"batches_halved"`
	SinkRequests      int64 `json:"sink_requests"`
	SinkRetries       int64 `json:"sink_retries"`
	Commits           int64 `json:"commits"`
	CommitErrors      int64 `json:"commit_errors"`
	TokensMinted      int64 `json:"tokens_minted"`
	TokenErrors       int64 `json:"token_errors"`
	Rebalances        int64 `json:"rebalances"`
}
