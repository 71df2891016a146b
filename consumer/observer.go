package consumer

import "time"

// Observer is told what happens, to count it. All methods are called from
// several goroutines and must not block.
type Observer interface {
	// EventsRead: records polled from a partition, and their key, value and
	// header bytes.
	EventsRead(topic string, partition int32, events int, bytes int)
	// OffsetsPassed: polling passed offsets without an event; lost of them
	// Kafka had removed before the group came there. Both are 0 when a
	// partition is assigned.
	OffsetsPassed(topic string, partition int32, lost, skipped int64)
	// RowsDelivered: one Write was acknowledged after ack.
	RowsDelivered(topic string, partition int32, rows int, bytes int, ack time.Duration)
	// EventRejected: one event can never be a row; code is from a closed set.
	EventRejected(topic, code string)
	// EventFiltered: n events were dropped by rule; reason is from a closed set.
	EventFiltered(topic, reason string, n int)
	// DeadLettered: n dead letters were acknowledged.
	DeadLettered(topic string, n int)
	// BatchHalved: a refused batch was split in two.
	BatchHalved(topic string)
	// Committed: an offset commit ended, err nil if it was accepted.
	Committed(err error)
	// Rebalanced: partitions were assigned, revoked or lost.
	Rebalanced(kind string, partitions int)
	// Forget: the partition is no longer ours; drop what is kept for it.
	Forget(topic string, partition int32)
}
