package consumer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// Cluster is a connection to Kafka outside any group: it looks things up and
// writes dead letters. It is safe for concurrent use.
type Cluster struct {
	*kafka.Client
	cfg Config

	// writing admits one writer of dead letters at a time, so that one produce
	// request never outgrows what a topic takes by default. It owns the fields
	// below.
	writing chan struct{}
	ensured map[string]bool // dead-letter topics that are known to exist
	writer  *kafka.Client   // for dead letters: Client, or one of its own; nil before the first where Client is lent
}

// NewCluster prepares a connection; nothing is dialled yet.
func NewCluster(cfg Config, log *zap.Logger) (*Cluster, error) {
	if cfg.LookUps != nil {
		lent := *cfg.LookUps
		lent.Log = log
		return &Cluster{Client: &lent, cfg: cfg, writing: make(chan struct{}, 1)}, nil
	}
	cl, err := newWriter(&cfg, log)
	if err != nil {
		return nil, err
	}
	return &Cluster{Client: cl, cfg: cfg, writing: make(chan struct{}, 1), writer: cl}, nil
}

func newWriter(cfg *Config, log *zap.Logger) (*kafka.Client, error) {
	return kafka.NewClient(cfg.Connection(), log,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(deadLetterMax),
		kgo.RecordDeliveryTimeout(30*time.Second),
		// Without it a dead letter whose answer never comes outlives its context,
		// and a stop would wait for a broker that is gone. The trade-off is a
		// duplicate, as everywhere here.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.RetryTimeout(10*time.Second),
	)
}

// Close ends the connection, unless it is lent.
func (c *Cluster) Close() {
	if c.cfg.LookUps == nil {
		c.Client.Close()
	}
	c.closeWriter()
}

func (c *Cluster) closeWriter() {
	if c.writer != nil && c.writer != c.Client {
		c.writer.Close()
	}
}

// renewWriter makes a client for dead letters. It replaces one that was refused a
// producer id, which keeps that answer, also after the grant. The caller holds
// c.writing.
func (c *Cluster) renewWriter() error {
	fresh, err := newWriter(&c.cfg, c.Log)
	if err != nil {
		return err
	}
	c.closeWriter()
	c.writer = fresh
	return nil
}

// Topics looks the source topics up.
func (c *Cluster) Topics(ctx context.Context) ([]kafka.Topic, error) {
	return c.LookUp(ctx, kafka.Read, c.cfg.Topics...)
}

// DeadLetterTopics looks up where rejects go; none unless the policy is
// dead_letter.
func (c *Cluster) DeadLetterTopics(ctx context.Context) ([]kafka.Topic, error) {
	if c.cfg.Rejects.Policy != PolicyDeadLetter {
		return nil, nil
	}
	return c.LookUp(ctx, kafka.Write, c.cfg.DeadLetterTopics()...)
}

// Size returns the number of brokers and of the source topics' partitions.
func (c *Cluster) Size(ctx context.Context) (brokers, partitions int, err error) {
	meta, err := c.Adm.BrokerMetadata(ctx)
	if err != nil {
		return 0, 0, c.Explain("looking up brokers", err, kafka.Request{})
	}
	topics, err := c.Topics(ctx)
	for _, t := range topics {
		partitions += t.Partitions
	}
	return len(meta.Brokers), partitions, err
}

// Readable returns the number of events that a fresh group would find, which
// needs DESCRIBE on the topics; see [Cluster.CanRead].
func (c *Cluster) Readable(ctx context.Context) (events int64, err error) {
	spans, err := c.Spans(ctx, c.cfg.Topics...)
	for _, s := range spans {
		events += s.End - s.Start
	}
	return events, err
}

// The methods below find out what the principal may do by a request that has no
// effect: brokers check the permission before they refuse the rest.

// CanRead returns nil if the principal may read every topic (READ, which a commit
// needs, too). The error is a *[kafka.Error] with the ACL to add.
func (c *Cluster) CanRead(ctx context.Context) error {
	for _, topic := range c.cfg.Topics {
		req := kmsg.NewPtrFetchRequest()
		req.MaxBytes = 1
		t := kmsg.NewFetchRequestTopic()
		t.Topic = topic
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes = math.MaxInt64, 1 // there is nothing
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		err := c.denied(ctx, req, func(resp kmsg.Response) int16 {
			fetched := resp.(*kmsg.FetchResponse)
			for _, t := range fetched.Topics {
				for _, p := range t.Partitions {
					return p.ErrorCode
				}
			}
			return fetched.ErrorCode
		})
		if err != nil {
			return c.Explain("reading topic "+topic, err, kafka.Request{Topic: topic})
		}
	}
	return nil
}

// CanReject returns nil if the principal may write to every one of the dead-letter
// topics and, with Rejects.Create, create those that are missing.
func (c *Cluster) CanReject(ctx context.Context, topics []kafka.Topic) error {
	for _, t := range topics {
		if !t.Exists {
			if err := c.createMissing(ctx, t.Name, c.sourceOf(t.Name), true); err != nil {
				return err
			}
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 5000
		pt := kmsg.NewProduceRequestTopic()
		pt.Topic = t.Name
		pp := kmsg.NewProduceRequestTopicPartition()
		pp.Records = []byte{} // no batch, which is refused after the permission is checked
		pt.Partitions = append(pt.Partitions, pp)
		req.Topics = append(req.Topics, pt)
		err := c.denied(ctx, req, func(resp kmsg.Response) int16 {
			for _, t := range resp.(*kmsg.ProduceResponse).Topics {
				for _, p := range t.Partitions {
					return p.ErrorCode
				}
			}
			return 0
		})
		if err != nil {
			return c.Explain("writing to dead-letter topic "+t.Name, err, kafka.Request{Topic: t.Name, Operation: kafka.Write})
		}
	}
	return nil
}

// denied sends a request to any one broker and returns an error where that fails
// or the answer's code denies a permission. Topics are named: later versions send their
// ids, which a missing topic does not have.
func (c *Cluster) denied(ctx context.Context, req kmsg.Request, code func(kmsg.Response) int16) error {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.Produce.Int16(), 12)
	versions.SetMaxKeyVersion(kmsg.Fetch.Int16(), 12)
	cl, err := kafka.NewClient(c.Connection, c.Log, kgo.MaxVersions(versions))
	if err != nil {
		return err
	}
	defer cl.Close()
	meta, err := c.Adm.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	var resp kmsg.Response
	for _, id := range meta.Brokers.NodeIDs() {
		if resp, err = cl.Broker(int(id)).Request(ctx, req); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(code(resp))
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return err
	}
	return nil
}

// CanJoin returns nil if the principal may join the group and commit for it (READ
// on the group). It joins nothing: it sends a heartbeat of a member that the group
// does not have.
func (c *Cluster) CanJoin(ctx context.Context) error {
	err := kafka.Coordinated(ctx, func() error {
		code, err := c.unknownHeartbeat(ctx)
		if err == nil {
			err = kerr.ErrorForCode(code)
		}
		return err
	})
	for _, missing := range []error{nil, kerr.UnknownMemberID, kerr.GroupIDNotFound, kerr.IllegalGeneration, kerr.FencedMemberEpoch, kerr.RebalanceInProgress} {
		if errors.Is(err, missing) {
			return nil // it may join: only the member is missing
		}
	}
	return c.Explain("joining group "+c.cfg.Group, err, kafka.Request{Group: c.cfg.Group})
}

func (c *Cluster) unknownHeartbeat(ctx context.Context) (int16, error) {
	const member = "bridge-check"
	if c.cfg.Protocol == "consumer" {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = c.cfg.Group, member, 1
		resp, err := req.RequestWith(ctx, c.Client)
		// The client joins by classic where version 1 of the request is not known.
		// franz-go 1.22 has no exported error for a request that no version is known of.
		switch {
		case err != nil && !strings.Contains(err.Error(), "broker is too old"):
			return 0, err
		case err == nil && (resp.Version > 0 || resp.ErrorCode != kerr.UnsupportedVersion.Code):
			return resp.ErrorCode, nil
		}
	}
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID = c.cfg.Group, member
	resp, err := req.RequestWith(ctx, c.Client)
	if err != nil {
		return 0, err
	}
	return resp.ErrorCode, nil
}

// EnsureDeadLetters makes sure that the dead-letter topics exist: a missing one is
// created when Rejects.Create allows it. A permanent refusal names the command
// that creates the topic. For a source topic that does not exist nothing is
// created, or a misspelt name would leave a topic behind: its dead-letter topic is
// created with the first dead letter.
func (c *Cluster) EnsureDeadLetters(ctx context.Context) error {
	topics, err := c.DeadLetterTopics(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(topics, func(t kafka.Topic) bool { return !t.Exists }) {
		return nil
	}
	sources, err := c.Topics(ctx)
	if err != nil {
		return err
	}
	for _, t := range topics {
		source := slices.IndexFunc(sources, func(s kafka.Topic) bool { return s.Exists && c.cfg.Rejects.TopicFor(s.Name) == t.Name })
		if t.Exists || source < 0 {
			continue
		}
		if err := c.createMissing(ctx, t.Name, sources[source].Name, false); err != nil {
			return err
		}
	}
	return nil
}

// ensureDeadLetter makes sure that the dead-letter topic of source exists before
// something is written to it. The caller holds c.writing.
func (c *Cluster) ensureDeadLetter(ctx context.Context, name, source string) error {
	if c.ensured[name] {
		return nil
	}
	found, err := c.LookUp(ctx, kafka.Write, name)
	if err != nil {
		return err
	}
	if !found[0].Exists {
		if err := c.createMissing(ctx, name, source, false); err != nil {
			return err
		}
	}
	if c.ensured == nil {
		c.ensured = make(map[string]bool)
	}
	c.ensured[name] = true
	return nil
}

func (c *Cluster) sourceOf(deadLetter string) string {
	i := slices.IndexFunc(c.cfg.Topics, func(t string) bool { return c.cfg.Rejects.TopicFor(t) == deadLetter })
	return c.cfg.Topics[max(i, 0)]
}

// headroom is added to the source's message size limit for a created dead-letter
// topic: a dead letter is the original with headers of the bridge.
const headroom = 64 << 10

// createMissing creates a dead-letter topic; with dryRun the brokers only check
// whether they would.
func (c *Cluster) createMissing(ctx context.Context, name, source string, dryRun bool) error {
	command := fmt.Sprintf("create it with: kafka-topics.sh %s --create --topic %s", c.Admin(), name)
	if !c.cfg.Rejects.Create {
		return &kafka.Error{Op: "looking up dead-letter topic " + name, Err: errors.New("it does not exist and rejects.create is false"), Permanent: true,
			Remedy: command + ", or set rejects.create: true, or choose another rejects.policy"}
	}
	partitions := int32(c.cfg.Rejects.Partitions)
	if partitions <= 0 {
		partitions = -1
		if sources, err := c.LookUp(ctx, kafka.Read, source); err == nil && sources[0].Exists {
			partitions = int32(sources[0].Partitions)
		}
	}
	configs := map[string]*string{}
	if limit := c.MessageLimit(ctx, source); limit > 0 {
		v := fmt.Sprint(min(limit+headroom, math.MaxInt32))
		configs["max.message.bytes"] = &v
	}
	create := c.Adm.CreateTopics
	if dryRun {
		create = c.Adm.ValidateCreateTopics
	}
	created, err := create(ctx, partitions, int16(c.cfg.Rejects.ReplicationFactor), configs, name)
	if err == nil {
		err = created.Error()
	}
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil // another member was faster, or the metadata is out of date
	}
	if err != nil {
		e := c.Explain("creating dead-letter topic "+name, err, kafka.Request{Topic: name, Operation: kafka.Create})
		var answer *kerr.Error
		if errors.As(err, &answer) {
			e.Remedy += "; or " + command + ", or choose another rejects.policy"
		}
		return e
	}
	if !dryRun {
		c.Log.Info("created the dead-letter topic", zap.String("topic", name), zap.String("source", source), zap.Int32("partitions", partitions))
	}
	return nil
}
