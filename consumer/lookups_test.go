package consumer_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// TestClustersShareLookUps lends one client to two clusters: they connect nowhere
// themselves, and the end of one leaves the other what is lent.
func TestClustersShareLookUps(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 2)
	cfg := config(t, b, topic)
	lent, err := kafka.NewClient(cfg.Connection(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	var dialed atomic.Int32
	cfg.LookUps = lent
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	one, _, _ := newCluster(t, cfg)
	two, _, _ := newCluster(t, cfg)
	size := func(c *consumer.Cluster) {
		t.Helper()
		if _, n, err := c.Size(t.Context()); err != nil || n != 2 {
			t.Errorf("got %d partitions, %v, want 2", n, err)
		}
	}
	size(one)
	size(two)
	one.Close()
	size(two)
	if n := dialed.Load(); n != 0 {
		t.Errorf("%d connections of the clusters themselves, want none", n)
	}
}

// A member with a client that is lent writes dead letters with its own.
func TestDeadLettersWithSharedLookUps(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	cfg := config(t, b, topic)
	lent, err := kafka.NewClient(cfg.Connection(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	cfg.LookUps = lent
	produce(t, b, topic, 1, "bad1", "good", "bad2")
	tab := newTable(t)
	m := start(t, cfg, tab)
	eventually(t, "the dead letters were written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 2 })
	m.stop()
	tab.verify([]string{"good"})
	readAll(t, b, topic+"-dlq", 2)
	wantAllCommitted(t, b, cfg.Group, topic)
	if _, err := lent.ID(t.Context()); err != nil {
		t.Errorf("the client that was lent after the member's end: %v", err)
	}
}
