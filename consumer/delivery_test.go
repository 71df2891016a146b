package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// Every event comes to one of its ends, in order, and is committed.
func TestDeliversEverything(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 4)
		var all, want []string
		for i := range 8000 {
			switch {
			case i%1000 == 7:
				all = append(all, fmt.Sprintf("bad%d", i))
			case i%1000 == 11:
				all = append(all, fmt.Sprintf("drop%d", i))
			case i%1000 == 13:
				all = append(all, fmt.Sprintf("many a%d b%d", i, i))
				want = append(want, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
			default:
				all = append(all, fmt.Sprintf("e%d", i))
				want = append(want, fmt.Sprintf("e%d", i))
			}
		}
		produce(t, b, topic, 4, all...)

		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() >= len(want) })
		eventually(t, "the last partition is idle", func() bool {
			for _, p := range m.Status().Partitions {
				if p.Lag != 0 || p.State != consumer.StateWaiting {
					return false
				}
			}
			return len(m.Status().Partitions) == 4
		})
		if s := m.Status(); len(s.NotReady) > 0 || s.BufferedBytes != 0 || !s.Running {
			t.Errorf("idle status: got %+v, want running, ready and nothing buffered", s)
		}
		m.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
		if got := len(readAll(t, b, topic+"-dlq", 8)); got != 8 {
			t.Errorf("got %d dead letters, want 8", got)
		}
		m.counts.with(func() {
			if m.counts.read != len(all) || m.counts.delivered != len(want) || m.counts.rejected["bad"] != 8 || m.counts.filtered["test"] != 8 || m.counts.deadLettered != 8 || m.counts.forgotten != 4 {
				t.Errorf("counts: got %+v", m.counts)
			}
		})
	})
}

func TestDeadLetterKeepsTheOriginal(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		stamp := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		original := &kgo.Record{
			Topic: topic, Partition: 1, Timestamp: stamp, Key: []byte{0, 0xff, 'k'}, Value: []byte("many bad0 good1 bad2"),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}, {Key: consumer.HeaderAttempts, Value: []byte("2")}},
		}
		produceRecords(t, b, &kgo.Record{Topic: topic, Partition: 1, Value: []byte("first")}, original)

		tab := newTable(t)
		m := start(t, config(t, b, topic), tab)
		eventually(t, "the dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })
		m.stop()
		tab.verify([]string{"first", "good1"})

		deadLetter := readAll(t, b, topic+"-dlq", 1)[0]
		if string(deadLetter.Key) != string(original.Key) || string(deadLetter.Value) != string(original.Value) {
			t.Errorf("key and value: got %q %q, want %q %q", deadLetter.Key, deadLetter.Value, original.Key, original.Value)
		}
		for i, h := range original.Headers {
			if deadLetter.Headers[i].Key != h.Key || string(deadLetter.Headers[i].Value) != string(h.Value) {
				t.Errorf("header %d: got %v, want %v", i, deadLetter.Headers[i], h)
			}
		}
		for key, want := range map[string]string{
			consumer.HeaderCode: "bad", consumer.HeaderReason: "the text begins with bad", consumer.HeaderColumn: "",
			consumer.HeaderEvents: "0,2", consumer.HeaderTopic: topic, consumer.HeaderPartition: "1", consumer.HeaderOffset: "1",
			consumer.HeaderTimestamp: stamp.Format("2006-01-02T15:04:05.000Z07:00"), consumer.HeaderAttempts: "3", consumer.HeaderVersion: "1.2.3",
		} {
			if got := header(deadLetter, key); got != want {
				t.Errorf("header %s: got %q, want %q", key, got, want)
			}
		}
		if at, err := time.Parse(time.RFC3339, header(deadLetter, consumer.HeaderFailedAt)); err != nil || time.Since(at) > time.Minute {
			t.Errorf("header %s: got %q, want the time of now", consumer.HeaderFailedAt, header(deadLetter, consumer.HeaderFailedAt))
		}
	})
}

// An offset is committed only after the rows behind it are durable.
func TestNothingIsCommittedBeforeTheAck(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		want := texts("e", 400)
		produce(t, b, topic, 2, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Drain = 200 * time.Millisecond
		entered := make(chan struct{}, 8)
		tab.set(func(ctx context.Context, _ write) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		first := start(t, cfg, tab)
		<-entered
		<-entered
		_ = wait(t.Context(), 1500*time.Millisecond) // an autocommit comes each second
		wantStartCommitted(t, b, cfg.Group, topic)   // while the Writes are in flight
		for _, p := range first.Status().Partitions {
			if p.State != consumer.StateWriting || p.Pending == 0 || time.Duration(p.Oldest) < time.Second {
				t.Errorf("status of a Write in flight: got %+v", p)
			}
		}
		first.stop()
		wantStartCommitted(t, b, cfg.Group, topic) // after a stop cut the Writes off
		if got := first.logged(0, "batch abandoned unmarked"); got != 2 {
			t.Errorf("got %d lines about abandoned batches, want one per partition", got)
		}

		tab.set(nil)
		second := start(t, cfg, tab)
		eventually(t, "all rows delivered after the restart", func() bool { return tab.distinct() == len(want) })
		second.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// What a drain lets finish is committed by the stop itself.
func TestDrainFinishesTheWriteInFlight(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, texts("e", 100)...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxRows = 10
		entered, release := make(chan struct{}, 100), make(chan struct{})
		tab.set(func(context.Context, write) error {
			entered <- struct{}{}
			<-release
			return nil
		})
		m := start(t, cfg, tab)
		<-entered
		m.cancel()
		eventually(t, "the partition is draining", func() bool {
			p, ok := m.partition(0)
			return ok && p.State == consumer.StateDraining
		})
		close(release)
		m.stop()
		if got, want := committed(t, b, cfg.Group, topic)[0], int64(tab.count()); got != want || want == 0 || want > 10 {
			t.Errorf("committed %d with %d rows durable, want the one Write that was in flight", got, want)
		}
		rest := newTable(t)
		again := start(t, cfg, rest)
		eventually(t, "the rest delivered", func() bool { return rest.count() >= 100-tab.count() })
		again.stop()
		if got := rest.count() + tab.count(); got != 100 {
			t.Errorf("got %d rows over both runs, want 100 without duplicates", got)
		}
	})
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		small := texts(strings.Repeat("s", 100), 500)
		large := "L" + strings.Repeat("l", 5000)
		crowd := texts("w", 70) // in one record: more events than a Write takes
		all := slices.Concat(small[:250], []string{large, "many " + strings.Join(crowd, " ")}, small[250:])
		produce(t, b, topic, 1, all...)

		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxRows, cfg.MaxBytes = 30, 2000
		byRows, byBytes := false, false
		tab.set(func(_ context.Context, w write) error {
			size := 0
			for _, row := range w.rows {
				size += len(row)
			}
			if len(w.rows) > cfg.MaxRows {
				t.Errorf("a Write has %d rows, want at most %d", len(w.rows), cfg.MaxRows)
			}
			if int64(size) > int64(cfg.MaxBytes) && len(w.rows) > 1 {
				t.Errorf("a Write of %d rows has %d bytes, want at most %d unless one row is larger", len(w.rows), size, cfg.MaxBytes)
			}
			byRows = byRows || len(w.rows) == cfg.MaxRows
			byBytes = byBytes || len(w.rows) > 10 && len(w.rows) < 20
			return nil
		})
		m := start(t, cfg, tab)
		want := slices.Concat(small, []string{large}, crowd)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		m.stop()
		tab.verify(want)
		if !byRows || !byBytes {
			t.Errorf("batches were never as full as allowed: by rows %v, by bytes %v", byRows, byBytes)
		}
	})
}

// With a linger, events that trickle in share a Write.
func TestLinger(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Linger = time.Second
		m := start(t, cfg, tab)
		want := texts("e", 60)
		began := time.Now()
		for _, text := range want {
			produce(t, b, topic, 1, text)
		}
		took := time.Since(began)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		if got, most := tab.requests(), int(took/cfg.Linger)+2; got > most {
			t.Errorf("got %d Writes for events produced over %v, want at most %d", got, took, most)
		}
		m.stop()
		tab.verify(want)
	})
}

func TestStartOffset(t *testing.T) {
	t.Parallel()
	for from, want := range map[string][]string{"earliest": {"old", "new"}, "latest": {"new"}} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				topic := kafkatest.Topic(t, b, 1)
				produce(t, b, topic, 1, "old")
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.Start = from
				m := start(t, cfg, tab)
				// A member that begins at the end has looked it up only once it
				// fetches: an event that comes in between is the first it skips.
				eventually(t, "the partition was assigned", func() bool { _, ok := m.partition(0); return ok })
				_ = wait(t.Context(), time.Second)
				produce(t, b, topic, 1, "new")
				eventually(t, "the new event delivered", func() bool {
					return slices.ContainsFunc(tab.snapshot(), func(r string) bool { return textOf(r) == "new" })
				})
				m.stop()
				tab.verify(want)
			})
		})
	}
}

// Events of several MiB pass a fetch limit of 256 KiB, as rows and as dead letters.
func TestNineMebibytes(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Name(t)
		b.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": fmt.Sprint(10 << 20)})
		good, bad := "e"+noise(9<<20), "bad"+noise(9<<20)
		for _, text := range []string{"first", good, bad, "last"} {
			produce(t, b, topic, 1, text)
		}
		cfg, tab := config(t, b, topic), newTable(t)
		m := start(t, cfg, tab)
		eventually(t, "the last event delivered", func() bool { return tab.distinct() == 3 })
		m.stop()
		tab.verify([]string{"first", good, "last"})
		if deadLetter := readAll(t, b, topic+"-dlq", 1)[0]; string(deadLetter.Value) != bad {
			t.Errorf("the dead letter has %d bytes, want the original's %d", len(deadLetter.Value), len(bad))
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}
