package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// Cluster is a connection to Kafka outside any group: it looks things up and
// writes dead letters. It is safe for concurrent use.
type Cluster struct {
	cfg Config
	log *zap.Logger
	cl  *kgo.Client
	adm *kadm.Client

	// writing admits one writer of dead letters at a time, so that one
	// produce request never outgrows what a topic takes by default.
	writing chan struct{}
}

// NewCluster prepares a connection; nothing is dialled yet.
func NewCluster(cfg Config, log *zap.Logger) (*Cluster, error) {
	opts, err := cfg.Kafka.options(log, cfg.Version)
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(deadLetterMax),
		kgo.RecordDeliveryTimeout(30*time.Second),
		// Without it a dead letter whose answer never comes outlives its
		// context, and a stop would wait for a broker that is gone. A copy
		// too many is the price, as everywhere here.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.RetryTimeout(10*time.Second),
	)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w", err)
	}
	return &Cluster{cfg: cfg, log: log, cl: cl, adm: kadm.NewClient(cl), writing: make(chan struct{}, 1)}, nil
}

// Close ends the connection.
func (c *Cluster) Close() { c.cl.Close() }

// ID returns the cluster's id, after asking a broker once. The error is a
// *[KafkaError].
func (c *Cluster) ID(ctx context.Context) (string, error) {
	meta, err := c.adm.BrokerMetadata(ctx)
	if err != nil {
		return "", c.cfg.Kafka.explain("connecting to kafka", err)
	}
	return meta.Cluster, nil
}

// Reach waits until a broker answers and returns the cluster's id. waiting is
// called with each failure. A refusal that waiting cannot mend (credentials,
// certificates) is returned at once.
func (c *Cluster) Reach(ctx context.Context, waiting func(error)) (string, error) {
	for attempt := 0; ; attempt++ {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		id, err := c.ID(asking)
		cancel()
		if err == nil {
			return id, nil
		}
		var failure *KafkaError
		if errors.As(err, &failure) && failure.Permanent || ctx.Err() != nil {
			return "", err
		}
		waiting(err)
		// Full jitter, half a second to eight: a fleet that starts while
		// the brokers are down must not knock in step.
		pause := time.Duration(rand.Int64N(int64(min(500*time.Millisecond<<min(attempt, 5), 8*time.Second)))) + 100*time.Millisecond
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", err
		}
	}
}

// Topic is what the brokers say of a topic.
type Topic struct {
	Name       string
	Exists     bool
	Partitions int
}

// Topics looks the source topics up.
func (c *Cluster) Topics(ctx context.Context) ([]Topic, error) {
	return c.topics(ctx, c.cfg.Topics)
}

// DeadLetterTopics looks up where rejects go; none unless the policy is
// dead_letter.
func (c *Cluster) DeadLetterTopics(ctx context.Context) ([]Topic, error) {
	if c.cfg.Rejects.Policy != PolicyDeadLetter {
		return nil, nil
	}
	var names []string
	seen := map[string]bool{}
	for _, t := range c.cfg.Topics {
		if name := c.cfg.Rejects.deadLetterTopic(t); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return c.topics(ctx, names)
}

func (c *Cluster) topics(ctx context.Context, names []string) ([]Topic, error) {
	found, err := c.adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, c.cfg.Kafka.explain("looking up topics", err)
	}
	topics := make([]Topic, 0, len(names))
	for _, name := range names {
		d := found[name]
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return nil, c.cfg.Kafka.explain("looking up topic "+name, d.Err)
		}
		topics = append(topics, Topic{Name: name, Exists: d.Err == nil && len(d.Partitions) > 0, Partitions: len(d.Partitions)})
	}
	return topics, nil
}

// EnsureDeadLetters makes sure that rejects have somewhere to go: a missing
// dead-letter topic is created when Rejects.Create allows it. A permanent
// refusal names the command that creates the topic.
func (c *Cluster) EnsureDeadLetters(ctx context.Context) error {
	letters, err := c.DeadLetterTopics(ctx)
	if err != nil {
		return err
	}
	for _, t := range letters {
		if t.Exists {
			continue
		}
		source := c.sourceOf(t.Name)
		if !c.cfg.Rejects.Create {
			return &KafkaError{Doing: "looking up dead-letter topic " + t.Name, Err: errors.New("it does not exist and rejects.create is false"), Permanent: true, Remedy: c.createCommand(t.Name)}
		}
		if err := c.create(ctx, t.Name, source); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) sourceOf(deadLetter string) string {
	for _, t := range c.cfg.Topics {
		if c.cfg.Rejects.deadLetterTopic(t) == deadLetter {
			return t
		}
	}
	return c.cfg.Topics[0]
}

// headroom is added to the source's message size limit for a created
// dead-letter topic: a dead letter is the original with headers of ours.
const headroom = 64 << 10

func (c *Cluster) create(ctx context.Context, name, source string) error {
	partitions := c.cfg.Rejects.Partitions
	if partitions <= 0 {
		partitions = -1
		if sources, err := c.topics(ctx, []string{source}); err == nil && sources[0].Exists {
			partitions = int32(sources[0].Partitions)
		}
	}
	configs := map[string]*string{}
	if rc, err := c.adm.DescribeTopicConfigs(ctx, source); err == nil && len(rc) == 1 {
		for _, kv := range rc[0].Configs {
			var size int64
			if kv.Key == "max.message.bytes" && kv.Value != nil {
				if _, err := fmt.Sscan(*kv.Value, &size); err == nil && size > 0 {
					v := fmt.Sprint(min(size+headroom, 1<<31-1))
					configs[kv.Key] = &v
				}
			}
		}
	}
	created, err := c.adm.CreateTopic(ctx, partitions, c.cfg.Rejects.ReplicationFactor, configs, name)
	if err == nil {
		err = created.Err
	}
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another member was faster, or what we know is a moment old
	}
	if err != nil {
		e := c.cfg.Kafka.explain("creating dead-letter topic "+name, err)
		e.Remedy = c.createCommand(name)
		var answer *kerr.Error
		e.Permanent = errors.As(err, &answer) && !answer.Retriable
		return e
	}
	c.log.Info("created the dead-letter topic", zap.String("topic", name), zap.String("source", source), zap.Int32("partitions", partitions))
	return nil
}

func (c *Cluster) createCommand(name string) string {
	return fmt.Sprintf("create it with: kafka-topics.sh --bootstrap-server %s --create --topic %s, or set rejects.create: true, or choose another rejects.policy",
		strings.Join(c.cfg.Kafka.Brokers, ","), name)
}

// Readable proves that the principal may read the topics: it asks for their
// end offsets. It returns the number of events that a fresh group would find.
func (c *Cluster) Readable(ctx context.Context) (int64, error) {
	starts, err := c.adm.ListStartOffsets(ctx, c.cfg.Topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, c.cfg.Kafka.explain("reading offsets of "+strings.Join(c.cfg.Topics, ","), err)
	}
	ends, err := c.listEnds(ctx, c.cfg.Topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, c.cfg.Kafka.explain("reading offsets of "+strings.Join(c.cfg.Topics, ","), err)
	}
	var events int64
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
			events += end.Offset - start.Offset
		}
	})
	return events, nil
}

// listEnds looks up the offset after the last record that can be read: under
// read_committed the last stable offset.
func (c *Cluster) listEnds(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
	if c.cfg.Isolation == IsolationUncommitted {
		return c.adm.ListEndOffsets(ctx, topics...)
	}
	return c.adm.ListCommittedOffsets(ctx, topics...)
}

// endOffsets returns the offset after the last event, by topic and partition,
// for as many partitions as answer.
func (c *Cluster) endOffsets(ctx context.Context) (kadm.ListedOffsets, error) {
	ends, err := c.listEnds(ctx, c.cfg.Topics...)
	if err != nil {
		return nil, c.cfg.Kafka.explain("reading end offsets", err)
	}
	return ends, nil
}
