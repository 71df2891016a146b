package consumer_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A topic that is deleted and created again is read from its start without a restart.
// What was read of the old one is delivered.
func TestRecreatedTopicIsReadAgain(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		topic := kafkatest.Topic(t, b, 2)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Protocol, cfg.Drain = protocol, patience
		m := start(t, cfg, tab)
		old := texts("old", 50)
		produce(t, b, topic, 2, old...)
		eventually(t, "the old topic was delivered", func() bool { return tab.distinct() == len(old) })
		entered, release := make(chan struct{}, 9), make(chan struct{})
		tab.set(func(ctx context.Context, _ write) error {
			entered <- struct{}{}
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		produceTo(t, b, topic, []int32{0}, "in-flight")
		<-entered

		deleteTopic(t, b, topic)
		eventually(t, "the reason is reported", func() bool {
			return slices.Contains(m.reasons(), "topic_missing") || slices.Contains(m.reasons(), "topic_recreated")
		})
		b.CreateTopic(t, topic, 3, nil)
		fresh := texts("new", 10)
		produce(t, b, topic, 3, fresh...)
		if protocol == "classic" { // else the group takes a deleted topic away, and what is in flight has cfg.Drain
			eventually(t, "the reason names the events of the old topic", func() bool {
				return slices.ContainsFunc(m.Status().NotReady, func(r consumer.NotReady) bool {
					return r.Code == "topic_recreated" && strings.Contains(r.Text, "1 events of the deleted topic are not delivered yet")
				})
			})
		}
		close(release)
		want := slices.Concat(old, []string{"in-flight"}, fresh)
		eventually(t, "the new topic was delivered within a metadata interval", func() bool { return tab.distinct() == len(want) })
		eventually(t, "the member is ready", func() bool { return len(m.reasons()) == 0 })
		eventually(t, "the new topic's offsets are committed", func() bool {
			at := committed(t, b, cfg.Group, topic)
			return at[0] == 4 && at[1] == 3 && at[2] == 3
		})
		m.stop()
		tab.verifyDelivered(want)
		if got := tab.count(); got != len(want) {
			t.Errorf("got %d rows, want %d", got, len(want))
		}
		if got := m.logged(0, "the topic was deleted and created again; reading"); got != 1 {
			t.Errorf("got %d lines about it, want 1", got)
		}
		if got := m.logged(0, "check kafka.brokers"); got != 0 {
			t.Errorf("%d lines advise to check kafka.brokers", got)
		}
	})
}

// What the client has fetched of a deleted topic is delivered before the new one
// is read, also where the memory is spent, and the reason names it.
func TestRecreatedTopicsFetchedEventsAreDelivered(t *testing.T) {
	t.Parallel()
	for name, busy := range map[string]bool{"another topic spent the memory": true, "the topic itself spent it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := kafkatest.StartFake(t, kafkatest.Options{Brokers: 3})
			topic, other := kafkatest.Topic(t, b, 1), kafkatest.Topic(t, b, 2) // the table reports partitions by number
			// A client holds one fetch of each broker.
			for i, name := range []string{topic, other} {
				if err := b.Fake().MoveTopicPartition(name, int32(i), int32(i)); err != nil {
					t.Fatal(err)
				}
			}
			cfg, tab := config(t, b, topic, other), newTable(t)
			cfg.MaxBuffered, cfg.MaxRows, cfg.Rejects.Topic = 20_000, 50, kafkatest.Name(t)
			release := make(chan struct{})
			tab.set(func(ctx context.Context, _ write) error {
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			want := texts("first", 300)
			if busy {
				produceTo(t, b, other, []int32{1}, want...)
			} else {
				produce(t, b, topic, 1, want...)
			}
			m := start(t, cfg, tab)
			eventually(t, "the memory is spent", func() bool { s := m.Status(); return s.BufferedBytes >= s.BufferedLimit })
			if busy {
				old := texts("old", 10)
				produce(t, b, topic, 1, old...)
				want = append(want, old...)
			}
			eventually(t, "everything is fetched", func() bool { return m.Status().Ledger.Read+m.Fetched() == int64(len(want)) })
			deleteTopic(t, b, topic)
			b.CreateTopic(t, topic, 1, nil)
			fresh := texts("new", 10)
			produce(t, b, topic, 1, fresh...)
			want = append(want, fresh...)
			eventually(t, "the reason names the fetched events", func() bool {
				return slices.ContainsFunc(m.Status().NotReady, func(r consumer.NotReady) bool {
					return r.Code == "topic_recreated" && strings.Contains(r.Text, "fetched events, of it or of other topics, wait for memory")
				})
			})
			// One write makes room for a poll, and leaves a partition above its share.
			before := m.Fetched()
			release <- struct{}{}
			eventually(t, "the next poll", func() bool { return m.Fetched() < before })
			close(release)
			eventually(t, "all of both topics was delivered", func() bool { return tab.distinct() == len(want) })
			m.stop()
			tab.verifyDelivered(want)
		})
	}
}

// Members of a group each begin with the new topic.
func TestRecreatedTopicIsReadByAllMembers(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		topic, other := kafkatest.Topic(t, b, 4), kafkatest.Topic(t, b, 2)
		cfg, tab := config(t, b, topic, other), newTable(t)
		cfg.Protocol, cfg.Rejects.Topic = protocol, kafkatest.Name(t)
		first, second := start(t, cfg, tab), start(t, cfg, tab)
		eventually(t, "the members share the partitions", func() bool {
			a, b := len(first.Status().Partitions), len(second.Status().Partitions)
			return a > 0 && b > 0 && a+b == 6
		})
		old := texts("old", 40)
		produce(t, b, topic, 4, old...)
		eventually(t, "the old topic was delivered", func() bool { return tab.distinct() == len(old) })
		deleteTopic(t, b, topic)
		b.CreateTopic(t, topic, 4, nil)
		fresh := texts("new", 40)
		produce(t, b, topic, 4, fresh...)
		want := slices.Concat(old, fresh)
		eventually(t, "the new topic was delivered", func() bool { return tab.distinct() == len(want) })
		first.stop()
		second.stop()
		tab.verifyDelivered(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

func TestRecreatedDeadLetterTopicIsWrittenAgain(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		produce(t, b, topic, 1, "bad1")
		eventually(t, "the first dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })
		deleteTopic(t, b, topic+"-dlq")
		b.CreateTopic(t, topic+"-dlq", 1, nil)
		produce(t, b, topic, 1, "bad2", "e3")
		eventually(t, "the second dead letter was written within a metadata interval", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 2 })
		eventually(t, "the rest was delivered", func() bool { return tab.count() == 1 })
		m.stop()
		if got := readAll(t, b, topic+"-dlq", 1)[0]; string(got.Value) != "bad2" {
			t.Errorf("the new dead-letter topic holds %q, want bad2", got.Value)
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// The mapper gets the id of the topic a record comes from, also when the
// record is redriven: what is derived from it is the same then, and another for
// the topic that has the name later.
func TestMapperKnowsTheTopicID(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg := config(t, b, topic)
		cluster, log, _ := newCluster(t, cfg)
		ensureDeadLetters(t, cluster)
		var mu sync.Mutex
		seen := map[string][16]byte{}
		mapper := func(rec *kgo.Record, out *consumer.Batch) {
			mu.Lock()
			seen[string(rec.Value)] = out.TopicID()
			mu.Unlock()
			toRow(rec, out)
		}
		of := func(text string) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				return seen[text] != [16]byte{}
			}
		}
		g := consumer.NewGroup(cfg, cluster, newTable(t), func() consumer.Mapper { return mapper }, newCounts(), log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := g.Run(ctx); err != nil {
				t.Errorf("Run returned %v", err)
			}
		}()
		defer func() { cancel(); <-done }()

		produce(t, b, topic, 1, "first", "bad")
		eventually(t, "the topic's id is known", of("bad"))
		eventually(t, "the dead letter was written", func() bool { return endOf(t, b, topic+"-dlq") == 1 })
		deleteTopic(t, b, topic)
		b.CreateTopic(t, topic, 1, nil)
		produce(t, b, topic, 1, "second")
		eventually(t, "the new topic's id is known", of("second"))
		found, err := kadm.NewClient(client(t, b)).ListTopics(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		if now := [16]byte(found[topic].ID); seen["second"] != now || seen["first"] == now || seen["first"] != seen["bad"] {
			t.Errorf("got ids %x, %x and %x, want the third to be %x and the others another", seen["first"], seen["bad"], seen["second"], now)
		}

		deadLetters, err := deadletter.Open(t.Context(), cluster.Client, cfg)
		if err != nil {
			t.Fatal(err)
		}
		was := seen["bad"]
		delete(seen, "bad")
		err = deadLetters.Redrive(t.Context(), deadletter.RedriveOptions{Match: func(*deadletter.Record) bool { return true }, Mapper: mapper, OnResult: func(f *deadletter.RedriveResult) {
			if f.Record.TopicID != was {
				t.Errorf("the dead letter names topic id %x, want %x", f.Record.TopicID, was)
			}
		}})
		if err != nil || seen["bad"] != was {
			t.Errorf("redriven: got topic id %x, %v, want %x", seen["bad"], err, was)
		}
	})
}

// Dead letters of bridges that wrote no topic id, and such whose id is no id.
func TestTopicIDOfADeadLetter(t *testing.T) {
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	whole := []kgo.RecordHeader{header(consumer.HeaderCode, "c"), header(consumer.HeaderEvents, "0"), header(consumer.HeaderTopic, "t"),
		header(consumer.HeaderPartition, "0"), header(consumer.HeaderOffset, "1"), header(consumer.HeaderTimestamp, time.Unix(0, 0).UTC().Format(time.RFC3339))}
	for text, want := range map[string]struct {
		id    [16]byte
		fault bool
	}{
		"":                        {},
		"AAAAAAAAAAAAAAAAAAAAAQ":  {id: [16]byte{15: 1}},
		"AAAAAAAAAAAAAAAAAAAAAA":  {fault: true},
		"AAAAAAAAAAAAAAAAAAAAA":   {fault: true},
		"AAAAAAAAAAAAAAAAAAAA!A":  {fault: true},
		"AAAAAAAAAAAAAAAAAAAAAQ=": {fault: true},
	} {
		headers := slices.Clone(whole)
		if text != "" {
			headers = append(headers, header(consumer.HeaderTopicID, text))
		}
		l := deadletter.Parse(&kgo.Record{Headers: headers})
		if l.TopicID != want.id && !want.fault || (l.Fault != "") != want.fault {
			t.Errorf("%q: got id %x and fault %q", text, l.TopicID, l.Fault)
		}
	}
}

// A broker may be behind: an id that was replaced is not taken up again. A broker
// without topic ids gives none.
func TestTopicIDThatWasReplacedIsNotTakenUpAgain(t *testing.T) {
	var in consumer.Incarnations
	old, next := [16]byte{1}, [16]byte{2}
	for i, step := range []struct{ id, want [16]byte }{{old, old}, {old, old}, {next, next}, {old, next}, {next, next}, {[16]byte{}, [16]byte{}}} {
		if got := in.Current("t", step.id); got != step.want {
			t.Errorf("step %d: got %x, want %x", i, got, step.want)
		}
	}
}

// The id of a topic that was just created is refused for a moment; one that is
// refused all along is no longer the topic's.
func TestTopicIDThatIsRefused(t *testing.T) {
	var in consumer.Incarnations
	for _, step := range []struct {
		at   int // seconds
		want bool
	}{{0, false}, {4, false}, {8, false}, {11, true}, {30, false}, {35, false}, {40, false}, {41, true}} {
		if got := in.RefusedTooLong("t", time.Unix(int64(step.at), 0)); got != step.want {
			t.Errorf("at %d s: got %v, want %v", step.at, got, step.want)
		}
	}
	in.Accepted("t")
	if in.RefusedTooLong("t", time.Unix(42, 0)) {
		t.Error("refusals that were forgotten count")
	}
}
