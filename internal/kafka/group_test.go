package kafka_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

func newClient(t *testing.T, b kafkatest.Broker) *kafka.Client {
	t.Helper()
	cl, err := kafka.NewClient(kafka.Connection{Brokers: b.Addrs(), ClientID: "looking"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// join starts a member that reads a topic and commits nothing.
func join(t *testing.T, b kafkatest.Broker, group, topic string, protocol kgo.Opt) {
	t.Helper()
	cl, err := kgo.NewClient(append(b.ClientOpts(), kgo.ClientID("member-of-"+group), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), protocol)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
}

// commit commits an offset from outside the group, with the id of a topic.
func commit(t *testing.T, cl *kafka.Client, group, topic string, partition int32, at int64, id [16]byte) {
	t.Helper()
	offsets := make(kadm.Offsets)
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1, Metadata: "topic-id=" + kafka.TopicIDText(id)})
	await.That(t, "a commit", func() bool {
		answers, err := cl.Adm.CommitOffsets(t.Context(), group, offsets)
		return err == nil && answers.Error() == nil
	})
}

func groups(t *testing.T, cl *kafka.Client, queries ...kafka.GroupQuery) []kafka.GroupState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	states, err := cl.Groups(ctx, queries)
	if err != nil || len(states) != len(queries) {
		t.Fatalf("got %d states and error %v, want %d", len(states), err, len(queries))
	}
	return states
}

// text is a state in one line; members are named by their client id.
func text(s kafka.GroupState) string {
	names := map[string]string{"": "nobody"}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Protocol, s.State)
	for _, m := range s.Members {
		names[m.ID] = m.ClientID
		fmt.Fprintf(&b, " | %s has %d", m.ClientID, m.Partitions)
	}
	for _, p := range s.Partitions {
		fmt.Fprintf(&b, " | %d: %d of %d by %s", p.Partition, p.Committed, p.End, names[p.Owner])
	}
	return b.String()
}

func TestGroupsOfBothProtocols(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		kafkatest.NeedProtocol(t, b, "consumer")
		topic, cl := kafkatest.Topic(t, b, 3), newClient(t, b)
		writer, err := kafka.NewPartitionWriter(kafka.Connection{Brokers: b.Addrs()}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		for range 5 {
			if err := writer.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: 1, Value: []byte("e")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		meta, err := cl.Metadata(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		newer, older, none := kafkatest.Name(t), kafkatest.Name(t), kafkatest.Name(t)
		commit(t, cl, newer, topic, 1, 3, meta[topic].TopicID)
		commit(t, cl, older, topic, 1, 4, meta[topic].TopicID)
		commit(t, cl, older, topic, 2, 7, [16]byte{1}) // of a deleted topic
		join(t, b, newer, topic, kgo.ServerSideBalancer())
		join(t, b, older, topic, kgo.Balancers(kgo.CooperativeStickyBalancer()))

		want := []string{
			"classic Stable | member-of-" + older + " has 3 | 0: -1 of 0 by member-of-" + older + " | 1: 4 of 5 by member-of-" + older + " | 2: -1 of 0 by member-of-" + older,
			"classic Dead | 0: -1 of 0 by nobody | 1: -1 of 5 by nobody | 2: -1 of 0 by nobody",
			"consumer Stable | member-of-" + newer + " has 3 | 0: -1 of 0 by member-of-" + newer + " | 1: 3 of 5 by member-of-" + newer + " | 2: -1 of 0 by member-of-" + newer,
		}
		var got []kafka.GroupState
		await.That(t, "both groups with all partitions assigned", func() bool {
			got = groups(t, cl, kafka.GroupQuery{Group: older, Topics: []string{topic}}, kafka.GroupQuery{Group: none, Topics: []string{topic}}, kafka.GroupQuery{Group: newer, Topics: []string{topic}})
			return text(got[0]) == want[0] && text(got[1]) == want[1] && text(got[2]) == want[2]
		}, func() string { return text(got[0]) + "\n" + text(got[1]) + "\n" + text(got[2]) })
		for _, s := range got {
			if s.Err != nil {
				t.Errorf("got error %v, want none", s.Err)
			}
			for _, m := range s.Members {
				if m.Host == "" {
					t.Errorf("got %+v, want a host", m)
				}
			}
		}
	})
}

func TestAGroupThatMayNotBeLookedUp(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic, cl := kafkatest.Topic(t, b, 1), newClient(t, b)
	b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ConsumerGroupDescribe, kmsg.DescribeGroups, kmsg.OffsetFetch}, Group: "denied", Err: kerr.GroupAuthorizationFailed, Count: -1})
	got := groups(t, cl, kafka.GroupQuery{Group: "denied", Topics: []string{topic}}, kafka.GroupQuery{Group: "allowed", Topics: []string{topic, "missing"}})
	for _, want := range []string{"members of group denied", "committed offsets of group denied", "kafka-acls"} {
		if got[0].Err == nil || !strings.Contains(got[0].Err.Error(), want) {
			t.Errorf("got error %v, want %q in it", got[0].Err, want)
		}
	}
	if want := " | 0: -1 of 0 by nobody"; text(got[0]) != " "+want {
		t.Errorf("got %q, want the partition all the same", text(got[0]))
	}
	if want := "classic Dead | 0: -1 of 0 by nobody"; text(got[1]) != want {
		t.Errorf("got %q, want %q", text(got[1]), want)
	}
	if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "looking up topic missing") || strings.Contains(got[1].Err.Error(), "denied") {
		t.Errorf("got error %v, want one about the missing topic only", got[1].Err)
	}
}

func TestGroupsWithoutABroker(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{Private: true})
	cl := newClient(t, b)
	b.StopAll(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if states, err := cl.Groups(ctx, []kafka.GroupQuery{{Group: "g", Topics: []string{"t"}}}); err == nil || len(states) != 0 {
		t.Errorf("got %v and no error, want an error", states)
	}
}
