// Package consumer is the delivery core: it reads a Kafka topic as a member of
// a consumer group and brings every event to one of four ends, a durable row, a
// dead letter, a skip or a filter, before the offset behind it is committed.
//
// It does not know what a row looks like (a [Mapper] makes it), where rows go
// (a [Sink] makes them durable) or how numbers are shown (an [Observer] counts
// them). It holds no event longer than it takes to deliver it, retries no
// write itself, and never marks an offset for any reason but the sink's nil.
//
// The life of a partition is the only state machine here:
//
//	assigned -> run -> {wait | take, map, write, reject, mark}* -> quit -> drained
//
// Revoked, lost and shutdown share the one path out: stop taking, let the
// write in flight finish within [Config].Drain, then cancel it unmarked.
package consumer
