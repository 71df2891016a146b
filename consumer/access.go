package consumer

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/datafly/bridge/internal/kafka"
)

// What bridge run may do is found out by asking for it in a form that has no
// effect: brokers check the permission before they find fault with the rest.

// CanRead returns nil if the principal may read every topic (READ, which a
// commit needs, too). The error is a *[KafkaError] with the ACL to add.
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
		resp, err := c.askOne(ctx, req)
		if err == nil {
			err = refusedAccess(fetchCode(resp.(*kmsg.FetchResponse)))
		}
		if err != nil {
			return c.cfg.Kafka.explain("reading topic "+topic, err, kafka.Request{Topic: topic})
		}
	}
	return nil
}

func fetchCode(resp *kmsg.FetchResponse) int16 {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			return p.ErrorCode
		}
	}
	return resp.ErrorCode
}

// CanJoin returns nil if the principal may join the group and commit for it
// (READ on the group). It joins nothing: it sends a heartbeat of a member that
// the group does not have.
func (c *Cluster) CanJoin(ctx context.Context) error {
	err := coordinated(ctx, func() error {
		code, err := c.strangeHeartbeat(ctx)
		if err == nil {
			err = kerr.ErrorForCode(code)
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.GroupIDNotFound), errors.Is(err, kerr.IllegalGeneration),
		errors.Is(err, kerr.FencedMemberEpoch), errors.Is(err, kerr.RebalanceInProgress):
		return nil // it may join: all that is missing is the member
	}
	return c.cfg.Kafka.explain("joining group "+c.cfg.Group, err, kafka.Request{Group: c.cfg.Group})
}

const noMember = "bridge-check"

func (c *Cluster) strangeHeartbeat(ctx context.Context) (int16, error) {
	if c.cfg.Protocol == "consumer" {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = c.cfg.Group, noMember, 1
		resp, err := req.RequestWith(ctx, c.cl)
		if err == nil {
			return resp.ErrorCode, nil
		}
		if !tooOld(err) {
			return 0, err
		}
		// The client falls back to the classic protocol, so does this.
	}
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID = c.cfg.Group, noMember
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return 0, err
	}
	return resp.ErrorCode, nil
}

// tooOld tells that the client sent nothing, as the broker does not know the
// request. franz-go 1.22 has no exported error for it.
func tooOld(err error) bool { return strings.Contains(err.Error(), "broker is too old") }

// CanReject returns nil if the principal may write to every dead-letter topic
// of letters and, with Rejects.Create, create those that are missing.
func (c *Cluster) CanReject(ctx context.Context, letters []Topic) error {
	for _, t := range letters {
		if !t.Exists {
			if !c.cfg.Rejects.Create {
				return c.notCreated(t.Name)
			}
			if err := c.create(ctx, t.Name, c.sourceOf(t.Name), true); err != nil {
				return err
			}
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 5000
		pt := kmsg.NewProduceRequestTopic()
		pt.Topic = t.Name
		pp := kmsg.NewProduceRequestTopicPartition()
		pp.Records = []byte{} // no batch, which is refused behind the permission
		pt.Partitions = append(pt.Partitions, pp)
		req.Topics = append(req.Topics, pt)
		resp, err := c.askOne(ctx, req)
		if err == nil {
			err = refusedAccess(produceCode(resp.(*kmsg.ProduceResponse)))
		}
		if err != nil {
			return c.cfg.Kafka.explain("writing to dead-letter topic "+t.Name, err, kafka.Request{Topic: t.Name, Operation: kafka.Write})
		}
	}
	return nil
}

func produceCode(resp *kmsg.ProduceResponse) int16 {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			return p.ErrorCode
		}
	}
	return 0
}

// refusedAccess passes an answer on only where it denies a permission.
func refusedAccess(code int16) error {
	switch err := kerr.ErrorForCode(code); {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return err
	}
	return nil
}

// askOne sends a request to any one broker. Topics go by name: in later versions
// their ids are sent, which a topic that is missing does not have.
func (c *Cluster) askOne(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	opts, err := c.cfg.Kafka.options(c.log, c.cfg.Version)
	if err != nil {
		return nil, err
	}
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.Produce.Int16(), 12)
	versions.SetMaxKeyVersion(kmsg.Fetch.Int16(), 12)
	cl, err := kgo.NewClient(append(opts, kgo.MaxVersions(versions))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	meta, err := c.adm.BrokerMetadata(ctx)
	if err != nil {
		return nil, err
	}
	var resp kmsg.Response
	for _, id := range meta.Brokers.NodeIDs() {
		if resp, err = cl.Broker(int(id)).Request(ctx, req); err == nil {
			break
		}
	}
	return resp, err
}
