package kafkatest_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
)

// Two of three brokers are enough for acks=all, one is not; what was
// acknowledged survives every way a broker can go.
func TestFaultsOfThreeBrokers(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{Brokers: 3, Private: true}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 6)
		produce(t, b, topic, 0, 60)
		c := b.Cluster()
		if c == nil {
			b.StopAll(t)
			b.StartAll(t)
			consume(t, b, topic, "", 60)
			return
		}

		must(t, c.Kill(0))
		produce(t, b, topic, 60, 60)

		must(t, c.Pause(1))
		if n := tryProduce(t, b.Addrs()[2], topic); n > 0 {
			t.Errorf("one broker of three acknowledged %d records with acks=all", n)
		}
		must(t, c.Resume(1))
		must(t, c.Restart(t.Context(), 0))
		produce(t, b, topic, 120, 60)

		must(t, c.Stop(2))
		produce(t, b, topic, 180, 60)
		b.StartAll(t)
		consume(t, b, topic, "", 240)
	})
}

func TestSharedClusterMayNotBeStopped(t *testing.T) {
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		stopped := make(chan bool)
		probe := &fatalProbe{TB: t}
		go func() { // FailNow ends the goroutine it is called on
			defer func() { stopped <- probe.fatal }()
			b.StopAll(probe)
		}()
		if !<-stopped {
			t.Error("StopAll went through without Options.Private")
		}
		if err := ping(t, b); err != nil {
			t.Errorf("the shared cluster is gone: %v", err)
		}
	})
}

func TestBrokerOutOfRange(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{})
	for _, i := range []int{-1, 1} {
		if err := c.Kill(i); err == nil {
			t.Errorf("Kill(%d) of one broker gave no error", i)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Kill(0); err == nil {
		t.Error("Kill after Close gave no error")
	}
}

// tryProduce writes one record that does not count to each of the six partitions,
// gives up soon and returns how many were acknowledged. Not idempotent: kgo repeats an
// idempotent record that may have been written until a broker reports whether it was, past
// its context too.
func tryProduce(t *testing.T, seed, topic string) (acknowledged int) {
	t.Helper()
	cl := kgoClient(t, kgo.SeedBrokers(seed), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DisableIdempotentWrite(), kgo.ProduceRequestTimeout(time.Second))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var recs []*kgo.Record
	for p := range int32(6) {
		recs = append(recs, &kgo.Record{Partition: p, Value: []byte("0")})
	}
	for _, result := range cl.ProduceSync(ctx, recs...) {
		if result.Err == nil {
			acknowledged++
		}
	}
	return acknowledged
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fatalProbe notes that a helper ended the test and ends only the goroutine.
type fatalProbe struct {
	testing.TB
	fatal bool
}

func (p *fatalProbe) Fatal(...any) {
	p.fatal = true
	runtime.Goexit()
}
