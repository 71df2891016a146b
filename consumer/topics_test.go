package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// Reading begins alone within seconds of the topic's creation.
func TestTopicIsCreatedLater(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Name(t)
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the missing topic is named", func() bool {
			return slices.Contains(m.reasons(), "topic_missing") && m.logged(0, "it does not exist yet") > 0
		})
		b.CreateTopic(t, topic, 3, nil)
		want := texts("e", 300)
		produce(t, b, topic, 3, want...)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		eventually(t, "the member is ready", func() bool { return len(m.reasons()) == 0 })
		m.stop()
		if got := m.logged(0, "it does not exist yet"); got != 1 {
			t.Errorf("got %d lines about the missing topic, want 1", got)
		}
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// Kafka takes dots and underscores in one name, though it warns of the two.
func TestTopicWithDotAndUnderscore(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := "signal.events_v1." + kafkatest.Name(t)
		b.CreateTopic(t, topic, 2, nil)
		produce(t, b, topic, 2, "e1", "bad2", "e3")
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == 2 })
		m.stop()
		tab.verify([]string{"e1", "e3"})
		if got := readAll(t, b, topic+"-dlq", 1)[0]; string(got.Value) != "bad2" || header(got, consumer.HeaderTopic) != topic {
			t.Errorf("dead letter: got %s from %s, want bad2 from %s", got.Value, header(got, consumer.HeaderTopic), topic)
		}
	})
}

func TestSeveralTopicsAndAnEmptyOne(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		one, two, empty := kafkatest.Topic(t, b, 1), kafkatest.Topic(t, b, 1), kafkatest.Topic(t, b, 2)
		cfg := config(t, b, one, two, empty)
		cfg.Rejects.Topic = kafkatest.Name(t) // of all three
		// Partitions of different topics write at once; the table reports them
		// apart by number only.
		first, second := newTable(t), newTable(t)
		m := start(t, cfg, sinkFunc(func(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
			if strings.Contains(string(rows[0]), "one") {
				return first.Write(ctx, schemaVersion, rows)
			}
			return second.Write(ctx, schemaVersion, rows)
		}))
		eventually(t, "all partitions are assigned", func() bool { return len(m.Status().Partitions) == 4 })
		eventually(t, "a group without events is ready and has no lag", func() bool {
			s := m.Status()
			return len(s.NotReady) == 0 && !slices.ContainsFunc(s.Partitions, func(p consumer.PartitionStatus) bool { return p.Lag > 0 })
		})
		produce(t, b, one, 1, "one", "badone")
		produce(t, b, two, 1, "two", "badtwo")
		eventually(t, "both dead letters were written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 2 })
		m.stop()
		first.verify([]string{"one"})
		second.verify([]string{"two"})
		readAll(t, b, cfg.Rejects.Topic, 2)
		wantAllCommitted(t, b, cfg.Group, one)
		wantAllCommitted(t, b, cfg.Group, two)
	})
}

type sinkFunc func(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error)

func (f sinkFunc) Write(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return f(ctx, schemaVersion, rows)
}
func (f sinkFunc) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return f(ctx, schemaVersion, rows)
}

// A missing dead-letter topic is made like its source, or named with the command.
func TestDeadLetterTopicIsCreated(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Name(t)
		b.CreateTopic(t, topic, 7, map[string]string{"max.message.bytes": "3000000"})
		cfg := config(t, b, topic)
		cfg.Rejects.Create = false
		forbidden, _, _ := newCluster(t, cfg)
		err := forbidden.EnsureDeadLetters(t.Context())
		var failure *kafka.Error
		if !errors.As(err, &failure) || !failure.Permanent || !strings.Contains(err.Error(), "kafka-topics.sh --bootstrap-server "+b.Addrs()[0]+" --create --topic "+topic+"-dlq") {
			t.Errorf("without leave to create: got %v, want a permanent error with the command", err)
		}
		if found, err := forbidden.DeadLetterTopics(t.Context()); err != nil || len(found) != 1 || found[0].Exists {
			t.Errorf("looking up: got %+v %v, want one missing topic", found, err)
		}

		cfg.Rejects.Create = true
		allowed, _, logs := newCluster(t, cfg)
		for range 2 { // the second time it is there
			if err := allowed.EnsureDeadLetters(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := logs.FilterMessage("created the dead-letter topic").Len(); got != 1 {
			t.Errorf("got %d lines about the creation, want 1", got)
		}
		eventually(t, "the topic has its source's partitions", func() bool {
			found, err := allowed.DeadLetterTopics(t.Context())
			return err == nil && found[0].Exists && found[0].Partitions == 7
		})
		configs, err := kadm.NewClient(client(t, b)).DescribeTopicConfigs(t.Context(), topic+"-dlq")
		if err != nil {
			t.Fatal(err)
		}
		size := ""
		for _, kv := range configs[0].Configs {
			if kv.Key == "max.message.bytes" {
				size = kv.MaybeValue()
			}
		}
		if size != "3065536" {
			t.Errorf("max.message.bytes: got %s, want the source's and 64 KiB", size)
		}

		cfg.Rejects.Policy = consumer.PolicySkip
		none, _, _ := newCluster(t, cfg)
		if found, err := none.DeadLetterTopics(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("under the skip policy: got %+v %v, want no dead-letter topic", found, err)
		}
	})
}

// A dead letter of which the topic takes no part either blocks the partition
// until the topic does. What the topic does take is written once meanwhile.
func TestDeadLetterTooLargeForItsTopic(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		b.CreateTopic(t, topic+"-dlq", 1, map[string]string{"max.message.bytes": "1000"})
		bad := "bad" + noise(5000)
		produce(t, b, topic, 1, "e1", "bad small", bad, "e2")
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the partition is blocked", func() bool { p, ok := m.partition(0); return ok && p.State == consumer.StateBlocked })
		s := m.Status()
		if len(s.NotReady) != 1 || s.NotReady[0].Code != "partition_blocked" || !strings.Contains(s.NotReady[0].Text, "MESSAGE_TOO_LARGE") || !strings.Contains(s.NotReady[0].Remedy, "max.message.bytes") {
			t.Errorf("not ready: got %+v, want the size and its remedy", s.NotReady)
		}
		if at := committed(t, b, cfg.Group, topic)[0]; at > 2 {
			t.Errorf("committed %d past an event without its dead letter", at)
		}
		larger := "10000"
		altered, err := kadm.NewClient(client(t, b)).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &larger}}, topic+"-dlq")
		if err != nil || altered[0].Err != nil {
			t.Fatal(err, altered)
		}
		eventually(t, "the rest delivered", func() bool { return tab.distinct() == 2 })
		eventually(t, "the dead letters were written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 2 })
		if got := m.logged(0, "partition blocked") + m.logged(0, "partition resumed"); got != 2 {
			t.Errorf("got %d lines, want one when it blocked and one when it resumed", got)
		}
		m.stop()
		if got := readAll(t, b, topic+"-dlq", 2); string(got[0].Value) != "bad small" || string(got[1].Value) != bad {
			t.Error("the dead letters are not the originals, each once")
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

func TestReadable(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, texts("e", 11)...)
		cluster, _, _ := newCluster(t, config(t, b, topic))
		if got, err := cluster.Readable(t.Context()); err != nil || got != 11 {
			t.Errorf("got %d events, %v, want 11", got, err)
		}
		found, err := cluster.Topics(t.Context())
		if want := (kafka.Topic{Name: topic, Exists: true, Partitions: 2}); err != nil || len(found) != 1 || found[0] != want {
			t.Errorf("got %+v %v, want %+v", found, err, want)
		}
		missing, _, _ := newCluster(t, config(t, b, kafkatest.Name(t)))
		if found, err := missing.Topics(t.Context()); err != nil || len(found) != 1 || found[0].Exists {
			t.Errorf("got %+v %v, want one that does not exist", found, err)
		}
	})
}

// start: latest is where a group begins. An offset that fell out of the log is no
// beginning: what is left is read, not skipped.
func TestOffsetFellOutOfTheLog(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Policy = consumer.PolicySkip
		produce(t, b, topic, 1, texts("e", 100)...)
		adm := kadm.NewClient(client(t, b))
		begin, gone := kadm.Offsets{}, kadm.Offsets{}
		begin.AddOffset(topic, 0, 10, -1)
		gone.AddOffset(topic, 0, 60, -1)
		if err := adm.CommitAllOffsets(t.Context(), cfg.Group, begin); err != nil {
			t.Fatal(err)
		}
		if deleted, err := adm.DeleteRecords(t.Context(), gone); err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
		cfg.Start = "latest"
		m := start(t, cfg, tab)
		eventually(t, "what is left delivered", func() bool { return tab.count() >= 40 })
		m.stop()
		tab.verify(texts("e", 100)[60:])
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}
