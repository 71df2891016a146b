package consumer_test

import (
	"context"
	"fmt"
	"github.com/datafly/bridge/consumer"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zaptest"
	"testing"
	"time"
)

func TestSmoke(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "ev"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, _ := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	defer cl.Close()
	var recs []*kgo.Record
	for i := range 20000 {
		v := fmt.Sprintf("e%d", i)
		if i%1000 == 7 {
			v = "bad" + v
		}
		recs = append(recs, &kgo.Record{Topic: "ev", Key: []byte(v), Value: []byte(v)})
	}
	if err := cl.ProduceSync(context.Background(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cfg := consumer.Config{Kafka: consumer.Kafka{Brokers: c.ListenAddrs(), ClientID: "x"}, Topics: []string{"ev"}, Group: "g", Start: "earliest", Protocol: "classic", SessionTimeout: 45 * time.Second, RebalanceTimeout: 60 * time.Second, FetchMaxBytes: 4 << 20, FetchMaxPartitionBytes: 256 << 10, MaxRows: 500, MaxBytes: 1 << 20, MaxBuffered: 64 << 20, Drain: 5 * time.Second, Rejects: consumer.Rejects{Policy: "dead_letter", Create: true, ReplicationFactor: -1}, Version: "t"}
	log := zaptest.NewLogger(t)
	k, err := consumer.NewCluster(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	id, err := k.Reach(context.Background(), func(err error) { t.Log(err) })
	t.Log(id, err)
	if err := k.EnsureDeadLetters(context.Background()); err != nil {
		t.Fatal(err)
	}
	tab := newTable(t)
	g := consumer.NewGroup(cfg, k, tab, func() consumer.Mapper { return toRow }, nobody{}, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	start := time.Now()
	for tab.distinct() < 19980 && time.Since(start) < 10*time.Second {
		time.Sleep(10 * time.Millisecond)
	}
	t.Log(tab.distinct(), time.Since(start), tab.writes)
	t.Logf("%+v", g.Status())
	cancel()
	t.Log(<-done, time.Since(start))
}
