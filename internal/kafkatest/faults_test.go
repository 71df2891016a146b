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
		if err := tryProduce(t, b, topic); err == nil {
			t.Error("acks=all was given with one broker of three")
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

// tryProduce writes one record that does not count, and gives up soon.
func tryProduce(t *testing.T, b kafkatest.Broker, topic string) error {
	t.Helper()
	cl := client(t, b, kgo.DefaultProduceTopic(topic), kgo.RecordDeliveryTimeout(5*time.Second))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return cl.ProduceSync(ctx, kgo.StringRecord("0")).FirstErr()
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
