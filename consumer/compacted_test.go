package consumer_test

import (
	"context"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// kept counts the records that the log still holds up to an offset.
func kept(t *testing.T, b kafkatest.Broker, topic string, last int64) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(t, b, kgo.ConsumeTopics(topic))
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			if n++; r.Offset >= last {
				return n
			}
		}
	}
}

// Compaction leaves offsets without events, also right before the end of a
// bounded run: minutes 1 to 9 are superseded by minute 20.
func TestCompactionGapsAreSteppedOver(t *testing.T) {
	t.Parallel()
	o := kafkatest.Options{Private: true, Config: map[string]string{"log.cleaner.backoff.ms": "100"}}
	kafkatest.Each(t, o, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Name(t)
		b.CreateTopic(t, topic, 1, map[string]string{"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01"})
		for i := range 22 { // each in a batch and, by its time, a segment of its own
			key := "always the same"
			if i == 0 || i >= 10 && i < 20 {
				key = minutes(i, i+1)[0]
			}
			produceRecords(t, b, &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(minutes(i, i+1)[0]), Timestamp: minute(i)})
		}
		eventually(t, "compaction", func() bool { return kept(t, b, topic, 20) == 12 })

		cfg := config(t, b, topic)
		r := newReplayer(t, b, cfg)
		if m := r.plan(at(minute(3)))[0]; m.Target != 10 {
			t.Errorf("got offset %d for a time in the gap, want 10, the first event after it", m.Target)
		}
		tab := newTable(t)
		if err := r.commit([]kafka.Move{{Topic: topic, Target: 0}}); err != nil {
			t.Fatal(err)
		}
		startUntil(t, cfg, tab, at(minute(10))).finish()
		if got, want := tab.values(), minutes(0, 1); !slices.Equal(got, want) {
			t.Errorf("got rows %v, want %v", got, want)
		}
		if got := committed(t, b, cfg.Group, topic)[0]; got != 10 {
			t.Errorf("committed %d, want the end at 10", got)
		}
		startUntil(t, cfg, tab, at(minute(15))).finish()
		if got, want := tab.values(), append(minutes(0, 1), minutes(10, 15)...); !slices.Equal(got, want) {
			t.Errorf("got rows %v, want %v", got, want)
		}

		// What compaction removed is skipped, and no loss.
		if err := r.commit([]kafka.Move{{Topic: topic, Target: 0}}); err != nil {
			t.Fatal(err)
		}
		m := start(t, cfg, newTable(t))
		m.caughtUp(22)
		if l := m.Status().Ledger; l.Lost != 0 || l.SkippedOffsets != 9 || l.Records != 13 || l.Offsets != 22 {
			t.Errorf("got %+v, want 9 offsets skipped and none lost", l)
		}
		lost(t, m, 0, "[]")
	})
}
