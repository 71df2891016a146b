package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Config says how a group delivers. Zero values are not defaults: the caller
// fills every field.
type Config struct {
	Kafka Kafka

	Topics []string // the topics to read
	Group  string   // consumer group id

	// Start is where a topic begins in which the group has committed nothing:
	// "earliest" or "latest". "latest" leaves unread what is already there.
	// Partitions that are added later begin at their start.
	Start string
	// StartAt, if not zero, goes before Start: such a topic begins at the first
	// event with this timestamp or later.
	StartAt time.Time
	// Isolation is "read_committed", which is also what empty means, or
	// "read_uncommitted", which delivers the events of open and aborted
	// transactions, too.
	Isolation string
	// Protocol is "classic" (cooperative-sticky) or "consumer" (KIP-848,
	// brokers of 4.0 and later).
	Protocol string
	// InstanceID makes the member static: a restart within SessionTimeout
	// moves no partition. It must differ between members. Empty: dynamic.
	InstanceID string
	// SessionTimeout is how long a silent member keeps its partitions. It is
	// also how long a killed member's partitions stand still.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long the group waits for a member to give up
	// revoked partitions. It must exceed Drain.
	RebalanceTimeout time.Duration

	// FetchMaxBytes and FetchMaxPartitionBytes cap one fetch answer, in
	// compressed bytes per broker and per partition. Where events decompress to
	// more than seven times that, smaller answers are asked for; see
	// internal/memory for what the client holds on top of MaxBuffered.
	FetchMaxBytes          int32
	FetchMaxPartitionBytes int32

	// MaxRows and MaxBytes cap one Write in rows and in row bytes. A single
	// larger row is still written alone.
	MaxRows  int
	MaxBytes int64
	// MaxBuffered bounds the event bytes polled and not yet durable, over
	// all partitions. A poll may pass it by one fetch answer.
	MaxBuffered int64
	// Budget, if not nil, bounds the event bytes instead of a budget of
	// MaxBuffered bytes for this group alone.
	Budget *Budget
	// Linger is how long a batch that is not full waits for more. 0: what
	// gathers during a Write is the next batch.
	Linger time.Duration
	// Drain is how long a Write in flight may go on after its partition was
	// revoked or the process was told to stop.
	Drain time.Duration

	// StuckAfter is how long a partition may hold events without delivering
	// one before the group is not ready and the log says where and why.
	// 0: never.
	StuckAfter time.Duration
	// SinkProblem returns what the sink says of itself while it has trouble,
	// and "" while it has none, to explain a partition that stands still. It
	// may be nil and must not wait.
	SinkProblem func() (reason, remedy string)

	Rejects Rejects

	// BatchObserver, if not nil, sees every batch. Nil costs nothing.
	BatchObserver BatchObserver

	// OnSizeChange, if not nil, is called with the number of brokers and of assigned
	// partitions whenever either may have changed. It must not block.
	OnSizeChange func(brokers, partitions int)

	// Version is written into dead letters.
	Version string
}

// isolation is what fetches ask the brokers for.
func (c *Config) isolation() kgo.IsolationLevel {
	if c.Isolation == IsolationUncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}

// maxPoll is how many records one poll takes at most.
func (c *Config) maxPoll() int { return max(2*c.MaxRows, 100) }

// readableEnd returns the offset after the last record that a fetch can bring:
// an open transaction holds back what comes after its first record.
func (c *Config) readableEnd(f kgo.FetchTopicPartition) int64 {
	if c.Isolation != IsolationUncommitted && f.LastStableOffset >= 0 {
		return f.LastStableOffset
	}
	return f.HighWatermark
}

// Isolation levels.
const (
	IsolationCommitted   = "read_committed"
	IsolationUncommitted = "read_uncommitted"
)

// Rejects says what becomes of an event that can never be a row.
type Rejects struct {
	// Policy is "dead_letter", "skip" or "stop".
	Policy string
	// Topic is the dead-letter topic; empty means the source topic with
	// "-dlq" appended.
	Topic string
	// Create allows the dead-letter topic to be created when it is missing.
	Create bool
	// Partitions of a created topic; 0 means as many as the source has.
	Partitions int32
	// ReplicationFactor of a created topic; -1 means the broker's default.
	ReplicationFactor int16
}

// Reject policies.
const (
	PolicyDeadLetter = "dead_letter"
	PolicySkip       = "skip"
	PolicyStop       = "stop"
)

// deadLetterTopic names the topic that takes the rejects of topic.
func (r Rejects) deadLetterTopic(topic string) string {
	if r.Topic != "" {
		return r.Topic
	}
	return topic + "-dlq"
}

const (
	commitInterval = time.Second
	// commitOnStop and leaveOnStop bound the two requests after the drain,
	// so that a stop ends within Drain and a second when brokers are gone.
	// What the drain has not used of its time is theirs as well, up to the
	// larger bounds: a busy coordinator takes longer, and a goodbye it never
	// hears has the partitions stand still until the session times out.
	commitOnStop    = 500 * time.Millisecond
	commitOnStopMax = time.Second
	leaveOnStop     = 300 * time.Millisecond
	leaveOnStopMax  = 3 * time.Second
	// probeInterval is how often a blocked partition tries again.
	probeInterval = 30 * time.Second
	// watchInterval is how often end offsets and missing topics are looked up.
	watchInterval = 5 * time.Second
	// pollTimeout is how long a poll of an idle topic waits.
	pollTimeout = 10 * time.Second
	// fetchMaxWait is how long a broker may hold a fetch for which it has
	// nothing new. A partition that is resumed while such a fetch is out waits
	// for it to come back, so the client's own 5 s would leave the only busy
	// partition of a broker standing still for that long after each pause.
	fetchMaxWait = 500 * time.Millisecond
	// metadataMaxAge is how soon new partitions are noticed.
	metadataMaxAge = 30 * time.Second
)
