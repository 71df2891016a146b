package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// Client looks things up in a cluster, outside of any group. Its errors are
// *[Error]. It is safe for concurrent use.
type Client struct {
	Connection
	Log *zap.Logger
	Adm *kadm.Client
	*kgo.Client
}

// NewClient prepares a client; nothing is dialled yet.
func NewClient(conn Connection, log *zap.Logger, opts ...kgo.Opt) (*Client, error) {
	shared, err := conn.Options(log)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(shared, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w", err)
	}
	return &Client{Connection: conn, Log: log, Adm: kadm.NewClient(cl), Client: cl}, nil
}

// ID returns the cluster's id, after asking a broker once. It ends with ctx also
// where a connection is accepted and nothing answers on it: the client waits ten
// seconds for the first answer of each connection, whatever the context is.
func (c *Client) ID(ctx context.Context) (string, error) {
	type answer struct {
		id  string
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends within those ten seconds
		meta, err := c.Adm.BrokerMetadata(ctx)
		answered <- answer{meta.Cluster, err}
	}()
	var got answer
	select {
	case got = <-answered:
	case <-ctx.Done():
		got.err = ctx.Err()
	}
	if got.err != nil {
		return "", c.Explain("connecting to kafka", got.err, Request{})
	}
	return got.id, nil
}

// Reach waits until a broker answers and returns the cluster's id. waiting is
// called with each failure. A permanent refusal (credentials, certificates) is
// returned at once.
func (c *Client) Reach(ctx context.Context, waiting func(error)) (string, error) {
	for attempt := 0; ; attempt++ {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		id, err := c.ID(asking)
		cancel()
		if err == nil {
			return id, nil
		}
		var failure *Error
		if errors.As(err, &failure) && failure.Permanent || ctx.Err() != nil {
			return "", err
		}
		waiting(err)
		// Full jitter, half a second to eight: members that start while the brokers
		// are down must not retry at the same moments.
		pause := time.Duration(rand.Int64N(int64(min(500*time.Millisecond<<min(attempt, 5), 8*time.Second)))) + 100*time.Millisecond
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", err
		}
	}
}

// Topic is a topic as the brokers know it.
type Topic struct {
	Name       string
	Exists     bool
	Partitions int
}

// LookUp looks topics up, in the order of names. op is what the bridge needs on
// them, for the remedy: whoever may do that may look them up, too.
func (c *Client) LookUp(ctx context.Context, op Operation, names ...string) ([]Topic, error) {
	found, err := c.Metadata(ctx, names...)
	if err != nil {
		return nil, err
	}
	topics := make([]Topic, 0, len(names))
	for _, name := range names {
		t := found[name]
		err := kerr.ErrorForCode(t.ErrorCode)
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, c.Explain("looking up topic "+name, err, Request{Topic: name, Operation: op})
		}
		topics = append(topics, Topic{Name: name, Exists: err == nil && len(t.Partitions) > 0, Partitions: len(t.Partitions)})
	}
	return topics, nil
}

// Metadata returns what one broker knows of topics. Each has an error code of its
// own: that one of them may not be looked up leaves the others.
func (c *Client) Metadata(ctx context.Context, names ...string) (map[string]kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.Client)
	if err != nil {
		return nil, c.Explain("looking up topics", err, Request{})
	}
	found := make(map[string]kmsg.MetadataResponseTopic, len(names))
	for _, t := range resp.Topics {
		found[deref(t.Topic)] = t
	}
	return found, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ExplainTopics is Explain for a request about several topics that the bridge
// reads: it finds out which of them a denied permission is about.
func (c *Client) ExplainTopics(ctx context.Context, op string, err error, topics ...string) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		if _, denied := c.LookUp(ctx, Read, topics...); denied != nil {
			return denied
		}
	}
	return c.Explain(op, err, Request{})
}

// MessageLimit returns the max.message.bytes of a topic; 0 where the bridge may
// not read the topic's configuration.
func (c *Client) MessageLimit(ctx context.Context, topic string) int {
	found, err := c.Adm.DescribeTopicConfigs(ctx, topic)
	if err != nil || len(found) != 1 || found[0].Err != nil {
		return 0
	}
	for _, kv := range found[0].Configs {
		if kv.Key == "max.message.bytes" && kv.Value != nil {
			n := 0
			_, _ = fmt.Sscan(*kv.Value, &n) // 0 where it is no number
			return max(n, 0)
		}
	}
	return 0
}

// Coordinated repeats a request while the group's coordinator is not available:
// the first group of a cluster creates the topic of offsets, and an elected
// coordinator loads it.
func Coordinated(ctx context.Context, request func() error) error {
	for {
		err := request()
		if !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator) {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// NoTopicID is the id of topics of brokers that have no topic ids.
var NoTopicID [16]byte

// TopicIDText returns an id as Kafka's tools print it.
func TopicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseTopicID reads what TopicIDText returns.
func ParseTopicID(text string) (id [16]byte, ok bool) {
	if base64.RawURLEncoding.DecodedLen(len(text)) != len(id) {
		return id, false
	}
	n, err := base64.RawURLEncoding.Decode(id[:], []byte(text))
	return id, err == nil && n == len(id) && id != NoTopicID
}

// topicIDPrefix begins the metadata of committed offsets. Brokers before Kafka 4.2
// take a commit for the name of a topic, and one for a deleted topic may arrive
// when the new one exists: read from there, events would be skipped.
const topicIDPrefix = "topic-id="

// AddTopicIDs writes the topic's id into the metadata of every offset of a commit.
func AddTopicIDs(req *kmsg.OffsetCommitRequest) error {
	for i := range req.Topics {
		t := &req.Topics[i]
		if t.TopicID == NoTopicID {
			continue
		}
		metadata := topicIDPrefix + TopicIDText(t.TopicID)
		for j := range t.Partitions {
			t.Partitions[j].Metadata = &metadata
		}
	}
	return nil
}

// CommittedTopicID returns the id that AddTopicIDs wrote.
func CommittedTopicID(metadata string) ([16]byte, bool) {
	text, ok := strings.CutPrefix(metadata, topicIDPrefix)
	if !ok {
		return NoTopicID, false
	}
	return ParseTopicID(text)
}

// currentTopic reports whether a committed offset is that of the topic that exists:
// id is its id, none where the broker does not know it.
func currentTopic(metadata string, id [16]byte) bool {
	committed, ok := CommittedTopicID(metadata)
	return !ok || id == NoTopicID || committed == id
}

// PartitionWriteTimeout bounds one record of a partition writer.
const PartitionWriteTimeout = 30 * time.Second

// NewPartitionWriter prepares a client whose records name their partition. It
// waits for all in-sync replicas.
func NewPartitionWriter(conn Connection, log *zap.Logger) (*Client, error) {
	return NewClient(conn, log,
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(PartitionWriteTimeout), kgo.AllowIdempotentProduceCancellation(), kgo.RetryTimeout(10*time.Second))
}
