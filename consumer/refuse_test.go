package consumer_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// refuse makes a sink refuse each Write that holds such a row.
func refuse(bad func(row string) bool) hook {
	return func(_ context.Context, w write) error {
		if slices.ContainsFunc(w.rows, bad) {
			return &refusal{"schema_mismatch"}
		}
		return nil
	}
}

// One bad row among many costs one dead letter and a few Writes, no more.
func TestOneRefusedRowAmongMany(t *testing.T) {
	t.Parallel()
	const events, maxRows, mostExtra = 100_000, 5000, 26 // 2*log2(maxRows)+2
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		all := texts("e", events)
		const bad = 54_321
		produce(t, b, topic, 2, all...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxRows = maxRows
		cfg.FetchMaxPartitionBytes = 4 << 20
		var refused, extra atomic.Int64
		isBad := func(row string) bool { return textOf(row) == all[bad] }
		tab.set(func(ctx context.Context, w write) error {
			if n := refused.Load(); n > 0 && w.partition == "1" && n <= 14 {
				extra.Add(1)
			}
			err := refuse(isBad)(ctx, w)
			if err != nil {
				refused.Add(1)
			}
			return err
		})
		m := start(t, cfg, tab)
		eventually(t, "all other rows delivered", func() bool { return tab.count() >= events-1 })
		eventually(t, "the dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })
		m.stop()
		tab.verify(slices.Delete(slices.Clone(all), bad, bad+1))
		wantAllCommitted(t, b, cfg.Group, topic)
		deadLetter := readAll(t, b, topic+"-dlq", 1)[0]
		if string(deadLetter.Value) != all[bad] || header(deadLetter, consumer.HeaderCode) != "schema_mismatch" || header(deadLetter, consumer.HeaderColumn) != "event_name" {
			t.Errorf("dead letter: got %s with headers %v", deadLetter.Value, deadLetter.Headers)
		}
		// Each splitting turns one refused Write into two.
		wasSplit := m.counts.get(func() int { return m.counts.wasSplit })
		if got := 2 * wasSplit; got > mostExtra || wasSplit == 0 {
			t.Errorf("got %d extra Writes, want at most %d", got, mostExtra)
		}
		if got, want := refused.Load(), int64(wasSplit+1); got != want {
			t.Errorf("got %d refused Writes, want %d: one per splitting and the row alone", got, want)
		}
	})
}

// When every row is refused, the table is at fault, not the rows.
func TestSchemaFaultBlocks(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		good, later := texts("e", 100), texts("f", 300)
		cfg, tab := config(t, b, topic), newTable(t)
		// The first and the last of the later rows stay bad: the probe must
		// not hang on a row that is bad alone.
		poison := []string{later[0], later[299]}
		var broken atomic.Bool
		tab.set(func(ctx context.Context, w write) error {
			return refuse(func(row string) bool {
				text := textOf(row)
				return broken.Load() && text >= later[20] && text[0] == 'f' || slices.Contains(poison, text)
			})(ctx, w)
		})
		produce(t, b, topic, 1, good...)
		m := start(t, cfg, tab)
		eventually(t, "the good rows delivered", func() bool { return tab.count() == len(good) })
		eventually(t, "they are committed", func() bool { return committed(t, b, cfg.Group, topic)[0] == int64(len(good)) })

		broken.Store(true)
		produce(t, b, topic, 1, later...)
		eventually(t, "the partition is blocked", func() bool { p, ok := m.partition(0); return ok && p.State == consumer.StateBlocked })
		_ = wait(t.Context(), 1500*time.Millisecond)
		delivered := tab.count()
		if got := committed(t, b, cfg.Group, topic)[0]; got != int64(len(good)) {
			t.Errorf("committed %d while blocked, want %d as before", got, len(good))
		}
		if got := endOf(t, b, topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters while blocked, want none", got)
		}
		s := m.Status()
		if len(s.NotReady) != 1 || s.NotReady[0].Code != "partition_blocked" || !strings.Contains(s.NotReady[0].Text, "schema_mismatch") || !strings.Contains(s.NotReady[0].Remedy, "column") {
			t.Errorf("not ready: got %+v, want the blocked partition with cause and remedy", s.NotReady)
		}
		if got := m.logged(0, "partition blocked"); got != 1 {
			t.Errorf("got %d lines when it blocked, want 1", got)
		}
		if delivered > len(good)+20 {
			t.Errorf("%d rows delivered, want at most the %d that are accepted", delivered, len(good)+20)
		}

		broken.Store(false)
		want := slices.Concat(good, later[1:299])
		eventually(t, "the rest delivered once fixed", func() bool { return tab.distinct() == len(want) })
		eventually(t, "the poison is dead-lettered", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 2 })
		eventually(t, "one line reports it", func() bool { return m.logged(0, "partition resumed") == 1 })
		m.stop()
		tab.verifyDelivered(want)
		if got := tab.count(); got != len(want) {
			t.Errorf("got %d rows, want %d: an accepted row must not be written twice", got, len(want))
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// A stop while blocked is at once, and the events stay with the group.
func TestStopWhileBlocked(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, texts("e", 200)...)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Drain = time.Minute
		tab.set(refuse(func(string) bool { return true }))
		m := startProbing(t, cfg, tab, time.Hour)
		eventually(t, "the partition is blocked", func() bool { p, ok := m.partition(0); return ok && p.State == consumer.StateBlocked })
		if took := m.stop(); took > time.Second+room {
			t.Errorf("the stop took %v, want it at once", took)
		}
		wantStartCommitted(t, b, cfg.Group, topic)
	})
}

func TestPolicySkip(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "e1", "bad2", "e3", "refused4", "e5")
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Policy = consumer.PolicySkip
		tab.set(refuse(func(row string) bool { return strings.Contains(row, "refused") }))
		m := start(t, cfg, tab)
		eventually(t, "all good rows delivered", func() bool { return tab.distinct() == 3 })
		m.stop()
		tab.verify([]string{"e1", "e3", "e5"})
		wantAllCommitted(t, b, cfg.Group, topic)
		m.counts.with(func() {
			if m.counts.rejected["bad"] != 1 || m.counts.rejected["schema_mismatch"] != 1 || m.counts.deadLettered != 0 {
				t.Errorf("counts: got %+v, want two rejects and no dead letter", m.counts)
			}
		})
		if m.logged(0, "events rejected") == 0 {
			t.Error("no line reports the rejects")
		}
	})
}

func TestPolicyStop(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produce(t, b, topic, 1, "e0", "e1")
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Rejects.Policy = consumer.PolicyStop
		m := start(t, cfg, tab)
		eventually(t, "the good rows delivered", func() bool { return tab.distinct() == 2 })
		produce(t, b, topic, 1, "e2", "bad3", "e4")
		select {
		case <-m.done:
		case <-time.After(patience):
			t.Fatal("Run continues after a reject")
		}
		if m.err == nil {
			t.Fatal("Run returned nil, want the reject")
		}
		for _, want := range []string{topic + "/0", "offset 3", "(bad)", "the text begins with bad", "rejects.policy"} {
			if !strings.Contains(m.err.Error(), want) {
				t.Errorf("error %q does not say %q", m.err, want)
			}
		}
		if at := committed(t, b, cfg.Group, topic)[0]; at < 2 || at > 3 {
			t.Errorf("committed %d, want what came before the reject and not the reject", at)
		}
	})
}
