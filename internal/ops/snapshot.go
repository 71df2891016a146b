// Package ops answers the questions an operator asks a running bridge: its
// metrics, whether it is alive and ready, and what it is doing at the moment.
//
// It knows nothing of Kafka, blueprints or Zerobus. The other packages hand it
// numbers through Metrics, and the wiring hands it the present state through a
// Source. It shows no event and no row.
package ops

import (
	"encoding/json"
	"time"
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

// States of the sink, for SinkStatus.State.
const (
	SinkReady    = "ready"
	SinkRetrying = "retrying" // a transient fault; it mends itself
	SinkBlocked  = "blocked"  // a fault of configuration; somebody has to act
)

// States of a partition, for PartitionStatus.State.
const (
	PartitionWaiting   = "waiting" // nothing to write
	PartitionWriting   = "writing"
	PartitionRejecting = "rejecting" // waiting for dead letters to be acknowledged
	PartitionBlocked   = "blocked"   // nearly every row is refused
	PartitionDraining  = "draining"  // revoked or stopping
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
	Ready    bool     `json:"ready"`
	NotReady []Reason `json:"not_ready,omitempty"`

	Sink SinkStatus `json:"sink"`

	// BufferedBytes is what is polled and not yet durable, over all
	// partitions; BufferedLimit is its budget.
	BufferedBytes int64 `json:"buffered_bytes"`
	BufferedLimit int64 `json:"buffered_limit_bytes"`

	Memory MemoryStatus `json:"memory"`

	Partitions []PartitionStatus `json:"partitions"`

	// Conservation accounts for every event this process has read, over all
	// partitions it ever owned.
	Conservation Ledger `json:"conservation"`

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

// Reason is one cause of not being ready.
type Reason struct {
	Code   string `json:"code"`   // from a closed set, for machines: "sink_blocked"
	Text   string `json:"text"`   // what is the matter
	Remedy string `json:"remedy"` // what the operator can do
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

// SinkStatus describes the far end.
type SinkStatus struct {
	State          string    `json:"state"` // one of the Sink constants
	Reason         string    `json:"reason,omitempty"`
	Remedy         string    `json:"remedy,omitempty"`
	Since          time.Time `json:"since,omitzero"` // when State began
	TokenMintedAt  time.Time `json:"token_minted_at,omitzero"`
	TokenExpiresAt time.Time `json:"token_expires_at,omitzero"`
	Table          string    `json:"table"`     // catalog.schema.table
	Transport      string    `json:"transport"` // which wire is spoken
	// Streams are the service's names of the open streams, where the wire has
	// streams: its own monitoring tables know them by these.
	Streams []string `json:"streams,omitempty"`
}

// PartitionStatus describes one assigned partition. Offsets are -1 when they
// are not known.
type PartitionStatus struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	State     string `json:"state"`  // one of the Partition constants
	Paused    bool   `json:"paused"` // fetches are held back by the buffer budget

	Committed int64 `json:"committed"`  // next offset a new owner would read
	Marked    int64 `json:"marked"`     // next offset after the last durable row, committed or not
	EndOffset int64 `json:"end_offset"` // the end of what can be read, when last seen
	Lag       int64 `json:"lag"`        // EndOffset minus Marked or, before the first event, Committed; -1 unknown

	PendingEvents int   `json:"pending_events"` // polled, not yet durable
	BufferedBytes int64 `json:"buffered_bytes"`

	// OldestUnacked is the age of the oldest event that is polled and not yet
	// durable; 0 when there is none. In JSON it is oldest_unacked_seconds.
	OldestUnacked time.Duration `json:"-"`

	Reason        string `json:"reason,omitempty"` // why State is blocked
	RowsDelivered int64  `json:"rows_delivered"`   // since the partition was assigned

	// Conservation accounts for every event of the partition since this
	// process first owned it.
	Conservation Ledger `json:"conservation"`
}

// Ledger accounts for events: what was read is what was delivered,
// dead-lettered, skipped, filtered, dropped and is in flight. And it accounts
// for offsets: those that polling has passed are records, lost or skipped.
type Ledger struct {
	Read         int64 `json:"read"`
	Delivered    int64 `json:"delivered"`     // rows acknowledged by the sink
	DeadLettered int64 `json:"dead_lettered"` // acknowledged by the dead-letter topic
	Skipped      int64 `json:"skipped"`       // rejected under the skip policy, or as a dead letter for the third time
	Filtered     int64 `json:"filtered"`      // dropped by rule
	InFlight     int64 `json:"in_flight"`     // read, and none of the others yet
	Dropped      int64 `json:"dropped"`       // let go by a revoke or a stop, for the next owner to read again

	Offsets int64 `json:"offsets"` // by which polling has moved on
	Records int64 `json:"records"` // polled, without control records
	// Lost are offsets that Kafka removed before the group had passed them.
	Lost int64 `json:"lost"`
	// SkippedOffsets hold no event: control records, aborted transactions, and
	// what compaction removed.
	SkippedOffsets int64 `json:"skipped_offsets"`

	// Imbalance is the number of events and offsets that are unaccounted for;
	// anything but 0 is a fault of the bridge.
	Imbalance int64 `json:"imbalance"`
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

// barePartition is PartitionStatus without its methods.
type barePartition PartitionStatus

// partitionJSON adds to a PartitionStatus the field that JSON has in another
// unit.
type partitionJSON struct {
	barePartition
	OldestUnackedSeconds float64 `json:"oldest_unacked_seconds"`
}

// MarshalJSON writes OldestUnacked in seconds.
func (p PartitionStatus) MarshalJSON() ([]byte, error) {
	return json.Marshal(partitionJSON{barePartition(p), p.OldestUnacked.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *PartitionStatus) UnmarshalJSON(b []byte) error {
	var v partitionJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*p = PartitionStatus(v.barePartition)
	p.OldestUnacked = time.Duration(v.OldestUnackedSeconds * float64(time.Second))
	return nil
}
