package consumer

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
)

// Config is how a group delivers. Zero values are not defaults: the caller fills
// every field.
type Config struct {
	Kafka
	Delivery
	Rejects Rejects

	// StartAt, if not zero, goes before Start: such a topic begins at the first
	// event with this timestamp or later.
	StartAt time.Time
	// Budget, if not nil, bounds the event bytes instead of a budget of MaxBuffered
	// bytes for this group alone.
	Budget *Budget
	// LookUps, if not nil, is lent: a cluster looks things up with it, and makes a
	// client of its own only for its first dead letter.
	LookUps *kafka.Client
	// SinkProblem returns the sink's problem, and "" while it has none, to explain a
	// partition that delivers nothing. It may be nil and must not wait.
	SinkProblem func() (reason, remedy string)
	// BatchObserver, if not nil, sees every batch. Nil costs nothing.
	BatchObserver BatchObserver
	// OnSizeChange, if not nil, is called with the number of brokers and of assigned
	// partitions whenever either may have changed. It must not block.
	OnSizeChange func(brokers, partitions int)

	// Version of the bridge is shown to brokers, and written into dead letters.
	Version string
	// Dial connects to a broker. Nil: over TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Connection returns how to reach the cluster.
func (c *Config) Connection() kafka.Connection {
	return kafka.Connection{Brokers: c.Brokers, ClientID: c.ClientID, Version: c.Version, TLS: c.TLS, SASL: c.SASL, Isolation: c.Isolation, Dial: c.Dial}
}

// maxPoll is how many records one poll takes at most.
func (c *Config) maxPoll() int { return max(2*c.MaxRows, 100) }

// readableEnd returns the offset after the last record that a fetch can bring:
// an open transaction holds back what comes after its first record.
func (c *Config) readableEnd(f kgo.FetchTopicPartition) int64 {
	if c.Isolation != kafka.IsolationUncommitted && f.LastStableOffset >= 0 {
		return f.LastStableOffset
	}
	return f.HighWatermark
}

// Reject policies.
const (
	PolicyDeadLetter = "dead_letter"
	PolicySkip       = "skip"
	PolicyStop       = "stop"
)

// DeadLetterTopics names the topics that take the rejects of Topics, each once.
func (c *Config) DeadLetterTopics() (names []string) {
	for _, topic := range c.Topics {
		if name := c.Rejects.TopicFor(topic); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

const (
	commitInterval = time.Second
	// commitOnStop and leaveOnStop bound the two requests after the drain, so that a
	// stop ends within Drain and a second when brokers are gone. What the drain leaves
	// of its time is theirs as well, up to the larger bounds: a busy coordinator takes
	// longer. The partitions of a member that does not leave wait for its session timeout.
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
)
