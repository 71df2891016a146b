package consumer_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// Two integrations may read each other's dead-letter topic, in one bridge or in two. A dead
// letter is not written for the third time, and that shows.
func TestTwoIntegrationsAsEachOthersDeadLetterTopic(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		here, there := kafkatest.Topic(t, b, 1), kafkatest.Topic(t, b, 1)
		one, two := config(t, b, here), config(t, b, there)
		one.Rejects.Topic, two.Rejects.Topic = there, here
		one.Rejects.Integration, two.Rejects.Integration = "orders", "refunds"
		produce(t, b, here, 1, "e1", "bad2", "many bad3 bad4 e5")
		tabOne, tabTwo := newTable(t), newTable(t)
		first, second := start(t, one, tabOne), start(t, two, tabTwo)
		loops := func() int {
			return first.counts.get(func() int { return first.counts.rejected[consumer.CodeDeadLetterLoop] })
		}
		// bad2 and the record of three: here, there, here again, and no further.
		eventually(t, "the loop is counted", func() bool { return loops() == 3 })
		eventually(t, "everything is committed", func() bool {
			return committed(t, b, one.Group, here)[0] == endOf(t, b, here) && committed(t, b, two.Group, there)[0] == endOf(t, b, there)
		})
		first.stop()
		second.stop()
		if got := []int64{endOf(t, b, here), endOf(t, b, there)}; !slices.Equal(got, []int64{5, 2}) {
			t.Errorf("the topics hold %d records, want 3 events and 2 dead letters here, and 2 there", got)
		}
		if l := first.Status().Ledger; l.DeadLettered != 3 || l.Skipped != 3 {
			t.Errorf("ledger of the first: %+v, want 3 dead-lettered and 3 skipped", l)
		}
		if got := first.logged(0, "dead-letter topic of this integration is read by another"); got != 1 {
			t.Errorf("got %d lines about the loop, want 1", got)
		}
		for i, rec := range readAll(t, b, here, 5)[3:] {
			if got := header(rec, consumer.HeaderAttempts); got != "2" {
				t.Errorf("dead letter %d was given up %s times, want 2", i, got)
			}
			if got := header(rec, consumer.HeaderIntegration); got != "refunds" {
				t.Errorf("dead letter %d: got integration %q, want the last that gave up, refunds", i, got)
			}
		}
	})
}

// A bridge that reads the dead-letter topic of another gives what it cannot map
// a second dead letter: that is no loop.
func TestDeadLetterTopicAsSource(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		first := config(t, b, topic)
		var bad []string
		for i := range 120 { // more than it takes to call them a fault of the mapping
			bad = append(bad, "bad"+strconv.Itoa(i))
		}
		produce(t, b, topic, 1, append(bad, "e1")...)
		m := start(t, first, newTable(t))
		eventually(t, "the first gave up", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 120 })
		m.stop()

		again := config(t, b, topic+"-dlq")
		tab := newTable(t)
		produce(t, b, topic+"-dlq", 1, "e2")
		m = start(t, again, tab)
		eventually(t, "the second gave up", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 120 })
		eventually(t, "the good one delivered", func() bool { return tab.distinct() == 1 })
		m.stop()
		for _, rec := range readAll(t, b, topic+"-dlq-dlq", 120) {
			if got := header(rec, consumer.HeaderAttempts); got != "2" {
				t.Fatalf("a dead letter was given up %s times, want 2", got)
			}
		}
	})
}

// Only a dead letter of this program is passed: an event that carries a header
// of the same name is dead-lettered as any other.
func TestForgedAttemptsAreNoLoop(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg := config(t, b, topic)
		full := []kgo.RecordHeader{{Key: consumer.HeaderCode, Value: []byte("x")}, {Key: consumer.HeaderTopic, Value: []byte("x")}, {Key: consumer.HeaderPartition, Value: []byte("0")},
			{Key: consumer.HeaderOffset, Value: []byte("0")}}
		attempts := func(n string) []kgo.RecordHeader {
			return append(slices.Clone(full), kgo.RecordHeader{Key: consumer.HeaderAttempts, Value: []byte(n)})
		}
		produceRecords(t, b,
			&kgo.Record{Topic: topic, Value: []byte("bad0"), Headers: []kgo.RecordHeader{{Key: consumer.HeaderAttempts, Value: []byte("7")}}},
			&kgo.Record{Topic: topic, Value: []byte("bad1"), Headers: attempts("-3")},
			&kgo.Record{Topic: topic, Value: []byte("bad2"), Headers: attempts("many")},
			&kgo.Record{Topic: topic, Value: []byte("bad3"), Headers: attempts("1")},
			&kgo.Record{Topic: topic, Value: []byte("e4"), Headers: attempts("9")}, // a row is a row
			&kgo.Record{Topic: topic, Value: []byte("bad5"), Headers: attempts("2")},
		)
		tab := newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the loop is counted", func() bool {
			return m.counts.get(func() int { return m.counts.rejected[consumer.CodeDeadLetterLoop] }) == 1
		})
		m.stop()
		tab.verify([]string{"e4"})
		var values []string
		for _, rec := range readAll(t, b, topic+"-dlq", 4) {
			values = append(values, string(rec.Value))
		}
		if got := strings.Join(values, " "); got != "bad0 bad1 bad2 bad3" {
			t.Errorf("dead letters: %s, want bad0 to bad3", got)
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// Dead letters that are rejected again are no sign of a fault of the mapping:
// they were rejected before.
func TestDeadLettersAreNoMappingFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts := newCounts()
		l, err := consumer.NewLab(labConfig(), newTable(t), newRules(map[string]string{"amount": "type_mismatch"}).mapper(), counts, nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for i := range 300 {
			rec := &kgo.Record{Topic: "lab", Offset: int64(i), Value: []byte("amount1")}
			for _, key := range []string{consumer.HeaderCode, consumer.HeaderTopic, consumer.HeaderPartition, consumer.HeaderOffset, consumer.HeaderAttempts} {
				rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: key, Value: []byte("1")})
			}
			l.Push(rec)
		}
		_ = wait(t.Context(), time.Minute)
		if s := l.Status(); s.Marked != 300 {
			t.Errorf("marked %d of 300: %s %s", s.Marked, s.State, s.Reason)
		}
	})
}
