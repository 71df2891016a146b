package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// With start: latest nothing is lost of what came after the group began. That
// includes events that came while the bridge was down, and added partitions.
func TestLatestLosesNothing(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, texts("history", 10)...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Start, cfg.Protocol, cfg.Drain = "latest", protocol, 100*time.Millisecond
		entered := make(chan struct{}, 2)
		tab.set(hang(entered))
		m := start(t, cfg, tab)
		eventually(t, "both partitions are assigned", func() bool { return len(m.Status().Partitions) == 2 })
		read := texts("read", 10)
		produce(t, b, topic, 2, read...)
		<-entered
		m.stop()
		down := texts("down", 10)
		produce(t, b, topic, 2, down...)
		addPartitions(t, b, topic, 4)
		added := texts("added", 10)
		produceTo(t, b, topic, []int32{2, 3}, added...)

		tab.set(nil)
		m = start(t, cfg, tab)
		want := slices.Concat(read, down, added)
		eventually(t, "all rows were delivered", func() bool { return tab.distinct() == len(want) })
		addPartitions(t, b, topic, 5)
		late := texts("late", 10)
		produceTo(t, b, topic, []int32{4}, late...)
		want = append(want, late...)
		eventually(t, "rows of a partition that was added while it ran", func() bool { return tab.distinct() == len(want) })
		m.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

func addPartitions(t *testing.T, b kafkatest.Broker, topic string, total int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b)
	version, err := kadm.NewClient(cl).UpdatePartitions(ctx, total, topic)
	if err == nil {
		err = version.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the partitions have leaders", func() bool {
		ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == total
	})
}

// The start position of every partition is committed, whatever it is and before
// anything is read.
func TestStartPositionIsCommitted(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		for name, tc := range map[string]struct {
			adjust func(*consumer.Config)
			want   map[int32]int64
		}{
			"earliest": {func(*consumer.Config) {}, map[int32]int64{0: 3, 1: 0, 2: 0}},
			"latest":   {func(c *consumer.Config) { c.Start = "latest" }, map[int32]int64{0: 10, 1: 10, 2: 0}},
			"time":     {func(c *consumer.Config) { c.StartAt = minute(6) }, map[int32]int64{0: 6, 1: 6, 2: 0}},
		} {
			t.Run(name, func(t *testing.T) {
				topic := kafkatest.Name(t)
				b.CreateTopic(t, topic, 3, map[string]string{"retention.ms": "-1"})
				produceMinutes(t, b, topic, 0, 10)
				produceMinutes(t, b, topic, 1, 10)
				trim(t, b, topic, 0, 3)
				cfg, tab := config(t, b, topic), newTable(t)
				tab.set(hang(make(chan struct{}, 9)))
				tc.adjust(&cfg)
				cfg.Drain = 100 * time.Millisecond
				m := start(t, cfg, tab)
				eventually(t, "the partitions are assigned", func() bool { return len(m.Status().Partitions) == 3 })
				eventually(t, fmt.Sprintf("the start positions %v are committed", tc.want), func() bool {
					got := committed(t, b, cfg.Group, topic)
					return fmt.Sprint(got) == fmt.Sprint(tc.want)
				})
				m.stop()
				if got := committed(t, b, cfg.Group, topic); fmt.Sprint(got) != fmt.Sprint(tc.want) {
					t.Errorf("committed %v after a stop with nothing delivered, want %v", got, tc.want)
				}
			})
		}
	})
}

// Members that start together begin at the same place, also those that come
// while the others deliver.
func TestMembersBeginTogetherAtLatest(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		const partitions = 6
		topic := kafkatest.Topic(t, b, partitions)
		produce(t, b, topic, partitions, texts("history", 60)...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Start, cfg.Protocol = "latest", protocol
		first, second := start(t, cfg, tab), start(t, cfg, tab)
		eventually(t, "the members share the partitions", func() bool {
			a, b := len(first.Status().Partitions), len(second.Status().Partitions)
			return a > 0 && b > 0 && a+b == partitions
		})
		want := texts("e", 60)
		produce(t, b, topic, partitions, want...)
		third := start(t, cfg, tab)
		eventually(t, "all rows were delivered", func() bool { return tab.distinct() == len(want) })
		for _, m := range []*member{first, second, third} {
			m.stop()
		}
		tab.verifyDelivered(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// A start position that cannot be found yet is waited for, with the reason, and
// one that never can be ends the run.
func TestStartPositionIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	produce(t, b, topic, 1, "history")
	cfg, tab := config(t, b, topic), newTable(t)
	cfg.Start = "latest"
	h := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: topic, Err: kerr.UnknownServerError, Count: -1})
	m := start(t, cfg, tab)
	eventually(t, "the reason is reported", func() bool { return slices.Contains(m.reasons(), "start_position") })
	h.Remove()
	eventually(t, "the partition is assigned", func() bool { return len(m.Status().Partitions) == 1 })
	produce(t, b, topic, 1, "new")
	eventually(t, "the row was delivered", func() bool { return tab.count() == 1 })
	m.stop()
	tab.verify([]string{"new"})
	if got := m.logged(0, "code:start_position"); got != 2 {
		t.Errorf("got %d lines about the wait, want one when it began and one when it was over", got)
	}

	b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	cfg.Group = kafkatest.Name(t)
	refused := start(t, cfg, tab)
	<-refused.done
	if refused.err == nil || !strings.Contains(strings.ToLower(refused.err.Error()), "--operation read") {
		t.Errorf("Run returned %v, want the grant that is missing", refused.err)
	}
}

// A start position whose commit fails is committed later; what the partition
// delivered meanwhile is not set back.
func TestStartPositionIsCommittedLater(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 2)
	cfg, tab := config(t, b, topic), newTable(t)
	h := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: cfg.Group, Err: kerr.GroupAuthorizationFailed, Count: -1})
	m := start(t, cfg, tab)
	eventually(t, "a commit failed", func() bool { return m.counts.get(func() int { return m.counts.commitErrors }) > 0 })
	produceTo(t, b, topic, []int32{1}, "a", "b")
	eventually(t, "the rows were delivered", func() bool { return tab.count() == 2 })
	h.Remove()
	eventually(t, "both partitions are committed", func() bool {
		return fmt.Sprint(committed(t, b, cfg.Group, topic)) == fmt.Sprint(map[int32]int64{0: 0, 1: 2})
	})
	m.stop()
	tab.verify([]string{"a", "b"})
	if got := committed(t, b, cfg.Group, topic); got[1] != 2 {
		t.Errorf("committed %v after the stop, want 2 of partition 1", got)
	}
}

// Offsets that were committed for a topic of the same name, deleted since, say
// nothing about the new one.
func TestOffsetsOfADeletedTopicAreNotUsed(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		want := texts("e", 10)
		produce(t, b, topic, 1, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		commitForDeleted(t, b, cfg.Group, topic, 7)
		m := start(t, cfg, tab)
		eventually(t, "all rows were delivered", func() bool { return tab.distinct() == len(want) })
		m.stop()
		tab.verify(want)
		if got := m.logged(0, "belong to a topic of this name that was deleted"); got != 1 {
			t.Errorf("got %d lines about it, want 1", got)
		}
		// What was committed since is the new topic's, and is used.
		produce(t, b, topic, 1, "more")
		m = start(t, cfg, tab)
		eventually(t, "the new row was delivered", func() bool { return tab.count() == len(want)+1 })
		m.stop()
		tab.verify(append(want, "more"))
	})
}

// A topic that may not be looked up holds up no other: what is assigned of the
// others is read.
func TestStartIsNotHeldUpByADeniedTopic(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	good, denied := kafkatest.Topic(t, b, 1), kafkatest.Topic(t, b, 1)
	cfg, tab := config(t, b, good, denied), newTable(t)
	cfg.Rejects.Topic = kafkatest.Name(t)
	m := start(t, cfg, tab)
	produce(t, b, good, 1, "a")
	produce(t, b, denied, 1, "b")
	eventually(t, "two rows were delivered", func() bool { return tab.distinct() == 2 })
	m.stop()
	b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata, kmsg.Fetch, kmsg.ListOffsets}, Topic: denied, Err: kerr.TopicAuthorizationFailed, Count: -1})
	m = start(t, cfg, tab)
	produce(t, b, good, 1, "c")
	eventually(t, "the row of the topic that may be read was delivered", func() bool { return tab.distinct() == 3 })

	// Also one that is created again.
	deleteTopic(t, b, good)
	b.CreateTopic(t, good, 1, nil)
	produce(t, b, good, 1, "d")
	eventually(t, "the row of the new topic was delivered", func() bool { return tab.distinct() == 4 })
	m.stop()
}

// A broker that does not know the new topic yet does not make an offset of the
// deleted one count.
func TestOffsetsOfADeletedTopicAreNotUsedWhereABrokerLags(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	want := texts("e", 10)
	produce(t, b, topic, 1, want...)
	cfg, tab := config(t, b, topic), newTable(t)
	commitForDeleted(t, b, cfg.Group, topic, 7)
	// The first look-up after the offsets were fetched, and two more.
	var fetched atomic.Bool
	b.Fake().ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.Fake().KeepControl()
		fetched.Store(true)
		return nil, nil, false
	})
	b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 3,
		When: func(kmsg.Request) bool { return fetched.Load() }})
	m := start(t, cfg, tab)
	eventually(t, "all rows were delivered", func() bool { return tab.distinct() == len(want) })
	m.stop()
	tab.verify(want)
}

// commitForDeleted commits an offset as for a topic of that name that was deleted.
func commitForDeleted(t *testing.T, b kafkatest.Broker, group, topic string, at int64) {
	t.Helper()
	stale := kadm.Offsets{}
	stale.Add(kadm.Offset{Topic: topic, Partition: 0, At: at, LeaderEpoch: -1, Metadata: "topic-id=AAAAAAAAAAAAAAAAAAAAAQ"})
	if err := kadm.NewClient(client(t, b)).CommitAllOffsets(t.Context(), group, stale); err != nil {
		t.Fatal(err)
	}
}

// deleteTopic returns when no broker knows the topic any more.
func deleteTopic(t *testing.T, b kafkatest.Broker, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl, err := kgo.NewClient(b.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopic(ctx, topic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is gone", func() bool {
		found, err := adm.ListTopics(ctx, topic)
		return err == nil && found[topic].Err != nil
	})
}
