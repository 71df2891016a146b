package consumer_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/panics"
)

// crashing panics at one place of those that a group calls.
type crashing struct {
	*counts
	*table
	at string
}

func (c *crashing) reach(place string) {
	if c.at == place {
		panic("injected at " + place)
	}
}

func (c *crashing) EventsRead(topic string, id int32, n, bytes int) {
	c.reach("EventsRead")
	c.counts.EventsRead(topic, id, n, bytes)
}

func (c *crashing) OffsetsPassed(topic string, id int32, lost, skipped int64) {
	c.reach("OffsetsPassed")
	c.counts.OffsetsPassed(topic, id, lost, skipped)
}

func (c *crashing) RowsDelivered(topic string, id int32, n, bytes int, ack time.Duration) {
	c.reach("RowsDelivered")
	c.counts.RowsDelivered(topic, id, n, bytes, ack)
}

func (c *crashing) EventRejected(topic, code string) {
	c.reach("EventRejected")
	c.counts.EventRejected(topic, code)
}

func (c *crashing) EventFiltered(topic, reason string, n int) {
	c.reach("EventFiltered")
	c.counts.EventFiltered(topic, reason, n)
}

func (c *crashing) DeadLettered(topic string, n int) {
	c.reach("DeadLettered")
	c.counts.DeadLettered(topic, n)
}

func (c *crashing) BatchSplit(topic string) {
	c.reach("BatchSplit")
	c.counts.BatchSplit(topic)
}

func (c *crashing) Committed(err error) {
	c.reach("Committed")
	c.counts.Committed(err)
}

func (c *crashing) Rebalanced(kind string, n int) {
	c.reach("Rebalanced " + kind)
	c.counts.Rebalanced(kind, n)
}

func (c *crashing) Forget(topic string, id int32) {
	c.reach("Forget")
	c.counts.Forget(topic, id)
}

func (c *crashing) BatchMapped(*consumer.BatchView) { c.reach("BatchMapped") }
func (c *crashing) BatchDone(*consumer.BatchView)   { c.reach("BatchDone") }

func (c *crashing) Write(ctx context.Context, version int64, rows [][]byte) (int, error) {
	c.reach("Write")
	return c.table.Write(ctx, version, rows)
}

func (c *crashing) Probe(ctx context.Context, version int64, rows [][]byte) (int, error) {
	c.reach("Probe")
	return c.table.Probe(ctx, version, rows)
}

func (c *crashing) newMapper() consumer.Mapper {
	c.reach("mapper factory")
	return func(rec *kgo.Record, out *consumer.Batch) {
		c.reach("mapper")
		toRow(rec, out)
	}
}

// A panic at any place that a group calls ends the run of that group with an error.
// The batch at hand is not committed, every other group of the process continues, and
// no goroutine is left.
func TestPanicEndsOneGroup(t *testing.T) {
	for _, tc := range []struct {
		at     string
		marked bool // what was delivered before may be committed
	}{
		{"mapper factory", false}, {"mapper", false}, {"Write", false}, {"Probe", false}, {"BatchMapped", false}, {"BatchDone", false},
		{"RowsDelivered", false}, {"EventRejected", false}, {"EventFiltered", false}, {"DeadLettered", false}, {"BatchSplit", false},
		{"decompressor", false}, {"OnSizeChange", false}, {"Rebalanced assigned", false}, {"OffsetsPassed", false},
		{"EventsRead", true}, {"Committed", true}, {"Rebalanced revoked", true}, {"Forget", true},
	} {
		t.Run(tc.at, func(t *testing.T) {
			ours := []goleak.Option{goleak.IgnoreCurrent(), leaving}
			t.Cleanup(func() { goleak.VerifyNone(t, ours...) })
			b := kafkatest.StartFake(t, kafkatest.Options{})
			topic, other := kafkatest.Topic(t, b, 2), kafkatest.Topic(t, b, 1)
			produceBatch(t, b, topic, "e1", "bad2", "drop3"+strings.Repeat("x", 4096), "odd4", "e5")
			produce(t, b, other, 1, "before")
			beside := newTable(t)
			fine := config(t, b, other)
			healthy := start(t, fine, beside)

			c := &crashing{counts: newCounts(), table: newTable(t), at: tc.at}
			c.set(func(_ context.Context, w write) error {
				if slices.ContainsFunc(w.rows, func(row string) bool { return textOf(row) == "odd4" }) {
					return &refusal{"odd"}
				}
				return nil
			})
			cfg := config(t, b, topic)
			cfg.Drain = 3 * time.Second
			cfg.BatchObserver = c
			cfg.OnSizeChange = func(_, partitions int) {
				if partitions > 0 {
					c.reach("OnSizeChange")
				}
			}
			cluster, log, _ := newCluster(t, cfg)
			ensureDeadLetters(t, cluster)
			g := consumer.NewGroup(cfg, cluster, c, c.newMapper, c, log)
			g.SetHeartbeat(heartbeat)
			if tc.at == "decompressor" {
				g.SetRoom(func() int64 { panic("injected at decompressor") })
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- g.Run(ctx) }()
			switch tc.at {
			case "Rebalanced revoked":
				eventually(t, "the partitions are assigned", func() bool { return len(g.Status().Partitions) == 2 })
				defer start(t, cfg, newTable(t)).stop()
			case "Forget": // at the end only
				eventually(t, "the events are delivered", func() bool { return c.get(func() int { return c.delivered }) == 2 })
				cancel()
			}
			var err error
			select {
			case err = <-ended:
			case <-time.After(patience):
				t.Fatal("Run has not returned after a panic")
			}
			if !panics.Is(err) || !strings.Contains(err.Error(), "panic: injected at "+tc.at) || !strings.Contains(panics.Stack(err), "panic_test.go") {
				t.Errorf("got %v, want the panic with its stack", err)
			}
			if s := g.Status(); s.BufferedBytes != 0 {
				t.Errorf("the group still holds %d bytes of the budget", s.BufferedBytes)
			}
			balanced(t, g.Status())
			if !tc.marked {
				wantStartCommitted(t, b, cfg.Group, topic)
			}

			produce(t, b, other, 1, "after")
			eventually(t, "the other group delivers what comes after", func() bool { return beside.count() == 2 })
			healthy.stop()
			wantAllCommitted(t, b, fine.Group, other)
		})
	}
}

// leaving is the goroutine that TestMain ignores.
var leaving = goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kgo.(*Client).LeaveGroupContext.func1")

// produceBatch produces texts to partition 0 in one compressed batch.
func produceBatch(t *testing.T, b kafkatest.Broker, topic string, texts ...string) {
	t.Helper()
	cl := client(t, b, kgo.ManualFlushing(), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	defer cl.Close()
	for _, text := range texts {
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte(text)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("producing: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}
