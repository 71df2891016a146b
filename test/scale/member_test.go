package scale_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

// patience is how long a test waits for what should take seconds.
const patience = await.Patience

func eventually(t *testing.T, what string, holds func() bool, last func() string) {
	t.Helper()
	await.That(t, what, holds, last)
}

// member is one of the group, with a connection of its own as a process has.
type member struct {
	*consumer.Group
	counts *counts
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed
}

func start(t *testing.T, b kafkatest.Broker, cfg consumer.Config, sink consumer.Sink) *member {
	t.Helper()
	cluster, err := consumer.NewCluster(cfg, warns(t))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{counts: new(counts), done: make(chan struct{})}
	m.Group = consumer.NewGroup(cfg, cluster, sink, func() consumer.Mapper { return toRow }, m.counts, warns(t))
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go func() { // ends with ctx; stop waits for it
		defer close(m.done)
		defer cluster.Close()
		m.err = m.Run(ctx)
	}()
	t.Cleanup(func() { m.stop(t) })
	return m
}

// stop ends the member as SIGTERM does.
func (m *member) stop(t *testing.T) {
	t.Helper()
	m.cancel()
	<-m.done
	if m.err != nil {
		t.Errorf("Run returned %v, want nil after its context ended", m.err)
	}
}

// counts are what a member's observer hears that a test asks for.
type counts struct {
	moved, commits, commitErrors, read, delivered atomic.Int64
}

func (*counts) OffsetsPassed(string, int32, int64, int64) {}
func (c *counts) EventsRead(_ string, _ int32, n, _ int)  { c.read.Add(int64(n)) }
func (c *counts) RowsDelivered(_ string, _ int32, n, _ int, _ time.Duration) {
	c.delivered.Add(int64(n))
}
func (*counts) EventRejected(string, string)      {}
func (*counts) EventFiltered(string, string, int) {}
func (*counts) DeadLettered(string, int)          {}
func (*counts) BatchSplit(string)                 {}
func (*counts) Forget(string, int32)              {}
func (c *counts) Rebalanced(_ string, n int)      { c.moved.Add(int64(n)) }
func (c *counts) Committed(err error) {
	c.commits.Add(1)
	if err != nil {
		c.commitErrors.Add(1)
	}
}

// client is a plain client of the broker.
func client(t *testing.T, b kafkatest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(b.ClientOpts(), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produce appends n events to each of the partitions. It returns an error
// instead of failing, so that it can run beside the test.
func produce(ctx context.Context, cl *kgo.Client, topic string, partitions, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	recs := make([]*kgo.Record, 0, n*partitions)
	for range n {
		for id := range partitions {
			recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(id), Value: []byte("e")})
		}
	}
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	return nil
}

// committed counts the events the group has committed past.
func committed(t *testing.T, cl *kgo.Client, group, topic string) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if err != nil {
		t.Fatalf("reading the offsets of %s: %v", group, err)
	}
	for _, o := range offsets[topic] {
		n += max(o.At, 0)
	}
	return n
}

// warns shows what members warn of, when the test fails or is verbose.
func warns(t *testing.T) *zap.Logger {
	return zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
}
