// Package ops serves what operators need of a running bridge: metrics, liveness and
// readiness, and the present state. It shows no event and no row.
//
// The pipelines count in IntegrationMetrics and return their state through a Source.
package ops

import (
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus"
)

// Source returns the present state. It is called once for each request that needs
// it, from any goroutine and concurrently; it must not wait for Kafka or the sink.
type Source func() Snapshot

// Snapshot returns the state with its time, and with an empty list in JSON if there
// are no partitions.
func (s Source) Snapshot() Snapshot {
	out := s()
	if out.Time.IsZero() {
		out.Time = time.Now()
	}
	if out.Partitions == nil {
		out.Partitions = []consumer.PartitionStatus{}
	}
	return out
}

// States of the process, for Snapshot.State.
const (
	StateStarting = "starting" // not yet a member of the group
	StateRunning  = "running"
	StateDraining = "draining" // completing the writes in flight before leaving
	StateStopped  = "stopped"
)

// Snapshot is the state of one bridge at one moment, and the JSON of /status.
// A zero time is left out of the JSON.
type Snapshot struct {
	Time     time.Time `json:"time"` // set by the server if zero
	Version  string    `json:"version"`
	Group    string    `json:"group"`     // consumer group
	MemberID string    `json:"member_id"` // assigned by the group coordinator; empty before the join
	State    string    `json:"state"`     // one of the State constants
	Started  time.Time `json:"started,omitzero"`

	// Live is false if the poll loop has stopped for good and only a restart helps. An
	// unavailable sink does not change it.
	Live       bool      `json:"live"`
	LiveReason string    `json:"live_reason,omitempty"` // why Live is false
	LastPoll   time.Time `json:"last_poll,omitzero"`    // last iteration of the poll loop

	// Ready is false while events are not being delivered. NotReady has the reasons,
	// the most severe first.
	Ready    bool                `json:"ready"`
	NotReady []consumer.NotReady `json:"not_ready,omitempty"`

	Sink zerobus.State `json:"sink"`

	// BufferedBytes are polled and not yet durable, over all partitions;
	// BufferedLimit is their budget.
	BufferedBytes int64 `json:"buffered_bytes"`
	BufferedLimit int64 `json:"buffered_limit_bytes"`

	Memory     memory.State               `json:"memory"`
	Partitions []consumer.PartitionStatus `json:"partitions"`

	// Ledger has the outcomes of all events this process has read, over all
	// partitions it was ever assigned.
	Ledger consumer.LedgerStatus `json:"ledger"`
	Totals Totals                `json:"totals"`

	// LogLinesDropped counts the log lines that standard error did not accept. It does
	// not affect Ready.
	LogLinesDropped int64 `json:"log_lines_dropped"`

	// Reload is the state of the configuration. It does not affect Ready.
	Reload ReloadStatus `json:"reload"`

	// Config is the effective configuration, with secrets redacted.
	Config any `json:"config,omitempty"`
}

// Totals count since the start of the process, over all topics and partitions.
type Totals struct {
	EventsRead        int64 `json:"events_read"`
	EventBytesRead    int64 `json:"event_bytes_read"`
	RowsDelivered     int64 `json:"rows_delivered"`
	RowBytesDelivered int64 `json:"row_bytes_delivered"`
	EventsRejected    int64 `json:"events_rejected"`
	EventsFiltered    int64 `json:"events_filtered"`
	DeadLetters       int64 `json:"dead_letters"`
	BatchesDelivered  int64 `json:"batches_delivered"`
	BatchesSplit      int64 `json:"batches_split"`
	SinkRequests      int64 `json:"sink_requests"`
	SinkRetries       int64 `json:"sink_retries"`
	Commits           int64 `json:"commits"`
	CommitErrors      int64 `json:"commit_errors"`
	TokensMinted      int64 `json:"tokens_minted"`
	TokenErrors       int64 `json:"token_errors"`
	Rebalances        int64 `json:"rebalances"`
}

// States of the configuration, for ReloadStatus.State.
const (
	ReloadOK     = "ok"     // the files are in force, except for PendingRestart
	ReloadFailed = "failed" // the files were refused; the previous configuration is in force
)

// ReloadStatus is the state of the configuration and of the last attempt to reload
// it.
type ReloadStatus struct {
	State string    `json:"state"`           // one of the Reload constants
	At    time.Time `json:"at,omitzero"`     // of the last attempt; of the start before the first
	Error string    `json:"error,omitempty"` // why the files were refused: file, line, remedy
	// Generation counts the configurations in force since the start, from 1.
	Generation int `json:"generation"`
	// Hash is the same for members with the same configuration and blueprint in force.
	// It does not depend on secrets.
	Hash string `json:"hash"`
	// PendingRestart are changed keys that take effect after a restart.
	PendingRestart []string `json:"pending_restart,omitempty"`
}
