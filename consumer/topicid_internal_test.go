package consumer

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
)

// A topic whose id was refused for too long is purged and subscribed to again. That
// holds also where the group takes its partitions back after the refusals are forgotten.
func TestPurgedTopicIsSubscribedToAgain(t *testing.T) {
	b, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cfg := Config{Kafka: Kafka{Brokers: b.ListenAddrs(), Topics: []string{"t"}, Group: "g"}, Delivery: Delivery{MaxBuffered: 1 << 20, MaxBytes: 1 << 20}}
	cluster, err := NewCluster(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	g := NewGroup(cfg, cluster, nil, nil, nil, zap.NewNop())
	if g.cl, err = kgo.NewClient(kgo.SeedBrokers(b.ListenAddrs()...), kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g")); err != nil {
		t.Fatal(err)
	}
	defer g.cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	g.followTopics(ctx) // knows the id
	g.owned[partitionKey("t", 0)] = true
	now := time.Now()
	g.topicIDs.unknown = map[string]refusedID{"t": {since: now.Add(-unknownTooLong - time.Second), last: now}}
	g.followTopics(ctx) // leaves the topic, and waits until the group has taken it back
	if slices.Contains(g.cl.GetConsumeTopics(), "t") {
		t.Fatal("the topic was not purged")
	}
	g.topicIDs.accepted("t")
	delete(g.owned, partitionKey("t", 0))
	g.followTopics(ctx)
	if !slices.Contains(g.cl.GetConsumeTopics(), "t") {
		t.Error("the topic is purged and not subscribed to again")
	}
}

// A commit of start positions that the client sends after it has joined again
// leaves out what the former membership was given.
func TestStartPositionsOfAFormerMembershipAreNotCommitted(t *testing.T) {
	g := NewGroup(Config{Kafka: Kafka{Topics: []string{"t"}}, Delivery: Delivery{MaxBuffered: 1, MaxBytes: 1}}, nil, nil, func() Mapper { return nil }, nil, zap.NewNop())
	for id, member := range []string{"former", "present"} {
		p := newPartition(g, "t", int32(id))
		defer p.cancel(nil)
		p.member = member
		g.parts[partitionKey("t", int32(id))] = p
	}
	commit := func(ids ...int32) *kmsg.OffsetCommitRequest {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.MemberID = "present"
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "t"
		for _, id := range ids {
			topic.Partitions = append(topic.Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: id})
		}
		req.Topics = append(req.Topics, topic)
		return req
	}
	both := commit(0, 1)
	if err := g.dropPassed(both); err != nil || len(both.Topics) != 1 || len(both.Topics[0].Partitions) != 1 || both.Topics[0].Partitions[0].Partition != 1 {
		t.Errorf("got %v and topics %v, want partition 1 alone", err, both.Topics)
	}
	if err := g.dropPassed(commit(0)); !errors.Is(err, errNothingToCommit) {
		t.Errorf("got %v, want %v", err, errNothingToCommit)
	}
}
