package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// Cluster is a connection to Kafka outside any group: it looks things up and
// writes dead letters. It is safe for concurrent use.
type Cluster struct {
	cfg Config
	log *zap.Logger
	cl  *kgo.Client
	adm *kadm.Client

	// writing admits one writer of dead letters at a time, so that one
	// produce request never outgrows what a topic takes by default. It owns
	// the fields below.
	writing chan struct{}
	ensured map[string]bool // dead-letter topics that are known to exist
	writer  *kgo.Client     // cl, or one made since; see renewWriter
	opts    []kgo.Opt       // to make it with
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
	return &Cluster{cfg: cfg, log: log, cl: cl, adm: kadm.NewClient(cl), writing: make(chan struct{}, 1), writer: cl, opts: opts}, nil
}

// Close ends the connection.
func (c *Cluster) Close() {
	c.cl.Close()
	if c.writer != c.cl {
		c.writer.Close()
	}
}

// renewWriter makes another client for dead letters: one that was refused a
// producer id keeps that answer for ever, also when the grant has been made
// since. The caller holds c.writing.
func (c *Cluster) renewWriter() error {
	fresh, err := kgo.NewClient(c.opts...)
	if err != nil {
		return fmt.Errorf("preparing the kafka client: %w", err)
	}
	if c.writer != c.cl {
		c.writer.Close()
	}
	c.writer = fresh
	return nil
}

// ID returns the cluster's id, after asking a broker once. The error is a
// *[KafkaError]. It ends with ctx also where a connection is accepted and nothing
// answers on it: the client waits ten seconds for the first answer of each
// connection, whatever the context says.
func (c *Cluster) ID(ctx context.Context) (string, error) {
	type answer struct {
		id  string
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends within those ten seconds
		meta, err := c.adm.BrokerMetadata(ctx)
		answered <- answer{meta.Cluster, err}
	}()
	var got answer
	select {
	case got = <-answered:
	case <-ctx.Done():
		got.err = ctx.Err()
	}
	if got.err != nil {
		return "", c.cfg.Kafka.explain("connecting to kafka", got.err)
	}
	return got.id, nil
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
	return c.topics(ctx, kafka.Read, c.cfg.Topics...)
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
		if name := c.cfg.Rejects.TopicFor(t); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return c.topics(ctx, kafka.Write, names...)
}

// topics looks topics up of which the bridge needs op; who may do that may look
// them up, too.
func (c *Cluster) topics(ctx context.Context, op kafka.Operation, names ...string) ([]Topic, error) {
	found, err := c.metadata(ctx, names...)
	if err != nil {
		return nil, err
	}
	topics := make([]Topic, 0, len(names))
	for _, name := range names {
		t := found[name]
		err := kerr.ErrorForCode(t.ErrorCode)
		if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, c.cfg.Kafka.explain("looking up topic "+name, err, kafka.Request{Topic: name, Operation: op})
		}
		topics = append(topics, Topic{Name: name, Exists: err == nil && len(t.Partitions) > 0, Partitions: len(t.Partitions)})
	}
	return topics, nil
}

// metadata returns what one broker says of topics. Each has an error code of its
// own: that one of them may not be looked up says nothing about the others.
func (c *Cluster) metadata(ctx context.Context, names ...string) (map[string]kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return nil, c.cfg.Kafka.explain("looking up topics", err)
	}
	found := make(map[string]kmsg.MetadataResponseTopic, len(names))
	for _, t := range resp.Topics {
		found[text(t.Topic)] = t
	}
	return found, nil
}

// explainTopics is explain for a request about the source topics: it finds out
// which of them a denied permission is about.
func (c *Cluster) explainTopics(ctx context.Context, doing string, err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		if _, denied := c.Topics(ctx); denied != nil {
			return denied
		}
	}
	return c.cfg.Kafka.explain(doing, err)
}

// EnsureDeadLetters makes sure that rejects have somewhere to go: a missing
// dead-letter topic is created when Rejects.Create allows it. A permanent
// refusal names the command that creates the topic. While a source topic does
// not exist nothing is created for it, or a misspelt name would leave a topic
// behind: its dead-letter topic is created with the first dead letter.
func (c *Cluster) EnsureDeadLetters(ctx context.Context) error {
	letters, err := c.DeadLetterTopics(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(letters, func(t Topic) bool { return !t.Exists }) {
		return nil
	}
	sources, err := c.Topics(ctx)
	if err != nil {
		return err
	}
	for _, t := range letters {
		source := slices.IndexFunc(sources, func(s Topic) bool { return s.Exists && c.cfg.Rejects.TopicFor(s.Name) == t.Name })
		if t.Exists || source < 0 {
			continue
		}
		if err := c.createMissing(ctx, t.Name, sources[source].Name); err != nil {
			return err
		}
	}
	return nil
}

// ensureDeadLetter makes sure that the dead-letter topic of source is there
// before something is written to it. The caller holds c.writing.
func (c *Cluster) ensureDeadLetter(ctx context.Context, name, source string) error {
	if c.ensured[name] {
		return nil
	}
	found, err := c.topics(ctx, kafka.Write, name)
	if err != nil {
		return err
	}
	if !found[0].Exists {
		if err := c.createMissing(ctx, name, source); err != nil {
			return err
		}
	}
	if c.ensured == nil {
		c.ensured = make(map[string]bool)
	}
	c.ensured[name] = true
	return nil
}

func (c *Cluster) createMissing(ctx context.Context, name, source string) error {
	if !c.cfg.Rejects.Create {
		return c.notCreated(name)
	}
	return c.create(ctx, name, source, false)
}

func (c *Cluster) notCreated(name string) error {
	return &KafkaError{Doing: "looking up dead-letter topic " + name, Err: errors.New("it does not exist and rejects.create is false"), Permanent: true, Remedy: c.createCommand(name)}
}

func (c *Cluster) sourceOf(deadLetter string) string {
	for _, t := range c.cfg.Topics {
		if c.cfg.Rejects.TopicFor(t) == deadLetter {
			return t
		}
	}
	return c.cfg.Topics[0]
}

// headroom is added to the source's message size limit for a created
// dead-letter topic: a dead letter is the original with headers of ours.
const headroom = 64 << 10

// create creates a dead-letter topic; with dry the brokers only check whether
// they would.
func (c *Cluster) create(ctx context.Context, name, source string, dry bool) error {
	partitions := int32(c.cfg.Rejects.Partitions)
	if partitions <= 0 {
		partitions = -1
		if sources, err := c.topics(ctx, kafka.Read, source); err == nil && sources[0].Exists {
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
	ask := c.adm.CreateTopics
	if dry {
		ask = c.adm.ValidateCreateTopics
	}
	created, err := ask(ctx, partitions, int16(c.cfg.Rejects.ReplicationFactor), configs, name)
	if err == nil {
		err = created.Error()
	}
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another member was faster, or what we know is a moment old
	}
	if err != nil {
		e := c.cfg.Kafka.explain("creating dead-letter topic "+name, err, kafka.Request{Topic: name, Operation: kafka.Create})
		var answer *kerr.Error
		if errors.As(err, &answer) {
			e.Remedy += "; or " + c.createCommand(name)
		}
		return e
	}
	if !dry {
		c.log.Info("created the dead-letter topic", zap.String("topic", name), zap.String("source", source), zap.Int32("partitions", partitions))
	}
	return nil
}

// createCommand is what to do where the bridge may not create a topic.
func (c *Cluster) createCommand(name string) string {
	command := fmt.Sprintf("create it with: kafka-topics.sh %s --create --topic %s", c.cfg.Kafka.access().Admin(), name)
	if !c.cfg.Rejects.Create {
		command += ", or set rejects.create: true"
	}
	return command + ", or choose another rejects.policy"
}

// Readable returns the number of events that a fresh group would find, which
// takes DESCRIBE on the topics; see [Cluster.CanRead].
func (c *Cluster) Readable(ctx context.Context) (int64, error) {
	starts, err := c.adm.ListStartOffsets(ctx, c.cfg.Topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, c.explainTopics(ctx, "reading offsets of "+strings.Join(c.cfg.Topics, ","), err)
	}
	ends, err := c.listEnds(ctx, c.cfg.Topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, c.explainTopics(ctx, "reading offsets of "+strings.Join(c.cfg.Topics, ","), err)
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
		return nil, c.explainTopics(ctx, "reading end offsets", err)
	}
	return ends, nil
}

// Size returns the number of brokers and of the source topics' partitions.
func (c *Cluster) Size(ctx context.Context) (brokers, partitions int, err error) {
	meta, err := c.adm.BrokerMetadata(ctx)
	if err != nil {
		return 0, 0, c.cfg.Kafka.explain("looking up brokers", err)
	}
	topics, err := c.Topics(ctx)
	for _, t := range topics {
		partitions += t.Partitions
	}
	return len(meta.Brokers), partitions, err
}
