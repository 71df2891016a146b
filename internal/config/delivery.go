package config

import "time"

// Mapping is how one event becomes one row.
type Mapping struct {
	// Blueprint is a file that extends or replaces the built-in mapping.
	// Default empty, the built-in one.
	Blueprint string `yaml:"blueprint"`
	// Input is auto, canonical (every event in Signal's envelope) or mapped
	// (every event already a row). Default auto, decided event by event.
	Input string `yaml:"input"`
	// InvalidUTF8 is reject or replace (U+FFFD in place of what is not
	// Unicode). Default reject. Price of replace: altered text in the table.
	InvalidUTF8 string `yaml:"invalid_utf8"`
	// TimestampFallback for events without any timestamp: none leaves the
	// column NULL, kafka takes the record's. Default none.
	TimestampFallback string `yaml:"timestamp_fallback"`
	// OnBadTimestamp for a value that is no time: reject the event, or next, to
	// try the column's remaining sources. Default reject. Price of next: the
	// column holds another time than the one it was meant to.
	OnBadTimestamp string `yaml:"on_bad_timestamp"`
	// RequireConsent lists categories that must all be granted, else the event
	// is filtered. Default none: everything
	// is forwarded.
	RequireConsent []string `yaml:"require_consent"`
	// OnMissingConsent says what becomes of an event that does not mention a
	// required category: allow or drop. Default allow.
	OnMissingConsent string `yaml:"on_missing_consent"`
	// MaxEventsPerRecord bounds the events of one record: a record that is an
	// array or batch of more is rejected as a whole. Default 10000. Higher: what
	// becomes of one record takes more memory.
	MaxEventsPerRecord int `yaml:"max_events_per_record"`
}

// Delivery is the size of batches, the memory they may take and how long a
// stop may last.
type Delivery struct {
	// MaxRows caps the rows of one write. Default 5000. Higher: more rows per
	// second and partition, more rows twice after a crash.
	MaxRows int `yaml:"max_rows"`
	// MaxBytes caps the encoded rows of one write. A larger row travels
	// alone. Default 4MiB. Price: a buffer of this size per busy partition.
	MaxBytes Size `yaml:"max_bytes"`
	// MaxBuffered caps the events read and not yet durable, over all
	// partitions; past it fetching pauses. Default 64MiB. Lower: less memory,
	// and less ready when the target answers again.
	MaxBuffered Size `yaml:"max_buffered"`
	// Linger is how long a batch that is not full waits for more. Default 0s:
	// what gathers during one write is the next. Price: latency.
	Linger time.Duration `yaml:"linger"`
	// Drain is how long a stop or a revoked partition waits for the write in
	// flight. Default 20s; shorter than kafka.rebalance_timeout. Lower: a
	// slow write is abandoned and its rows are written again by the next
	// owner.
	Drain time.Duration `yaml:"drain"`
	// StuckAfter is how long a partition may hold events without delivering
	// one before the bridge is not ready and the log names the partition, the
	// offset and the reason. Default 5m; 0s is never. Lower: a pause of the
	// target is told sooner, and readiness flaps with it.
	StuckAfter time.Duration `yaml:"stuck_after"`
}

// Rejects is what becomes of an event that can never be a row.
type Rejects struct {
	// Policy is dead_letter (copy it to a topic, then pass), skip (count it
	// and pass) or stop (end with an error, the offset not passed). Default
	// dead_letter. Price of skip: the event is gone once its topic expires.
	Policy string `yaml:"policy"`
	// Topic for dead letters of every source topic. Default empty, which is
	// one per source topic, named <topic>-dlq.
	Topic string `yaml:"topic"`
	// Create makes a missing dead-letter topic at start. Default true. Price
	// of false: start-up fails until somebody has created it.
	Create bool `yaml:"create"`
	// Partitions of a topic so created; 0 is as many as its source has.
	// Default 0.
	Partitions int `yaml:"partitions"`
	// ReplicationFactor of a topic so created; -1 is the broker's default.
	// Default -1. Price of 1: dead letters die with one broker.
	ReplicationFactor int `yaml:"replication_factor"`
}

// TopicFor returns the dead-letter topic for events of the source topic.
func (r Rejects) TopicFor(source string) string {
	if r.Topic != "" {
		return r.Topic
	}
	return source + "-dlq"
}
