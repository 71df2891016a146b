// Package consumer is the delivery core. It reads Kafka topics as a member of a
// consumer group. Every event becomes a durable row or a dead letter, or is skipped or
// filtered, before the offset after it is committed.
//
// A [Mapper] makes rows, a [Sink] makes them durable, and an [Observer] counts them.
// The package holds no event longer than its delivery takes and retries no Write. It
// marks an offset only after the sink's nil.
//
// The life of a partition is the only state machine here:
//
//	assigned -> run -> {wait | map, write, reject, mark}* -> quit -> drained
//
// A revoked or lost partition and a shutdown take the same way: map no more, and let the
// Write in flight finish within Drain. After that it is cancelled, unmarked.
package consumer
