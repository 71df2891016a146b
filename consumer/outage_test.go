package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A bridge that starts before its brokers waits for them and continues.
func TestBrokersAreDownAtStart(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		want := texts("e", 100)
		produce(t, b, topic, 2, want...)
		b.StopAll(t)
		cfg, tab := config(t, b, topic), newTable(t)
		cluster, _, _ := newCluster(t, cfg)
		var failures atomic.Int64
		var last atomic.Value
		type answer struct {
			id  string
			err error
		}
		reached := make(chan answer, 1)
		go func() {
			id, err := cluster.Reach(context.Background(), func(err error) {
				last.Store(err)
				failures.Add(1)
			})
			reached <- answer{id, err}
		}()
		eventually(t, "two attempts failed", func() bool { return failures.Load() >= 2 })
		err := last.Load().(error)
		var failure *kafka.Error
		if !errors.As(err, &failure) || failure.Permanent || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), b.Addrs()[0]) {
			t.Errorf("while down: got %v, want a passing error that names cause and brokers", err)
		}
		b.StartAll(t)
		select {
		case got := <-reached:
			if got.err != nil || got.id == "" {
				t.Fatalf("got %q %v, want the cluster's id", got.id, got.err)
			}
		case <-time.After(patience):
			t.Fatal("Reach continues waiting though the brokers are up")
		}
		m := start(t, cfg, tab)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		m.stop()
		tab.verify(want)
	})
}

// Reach gives up with its context.
func TestReachEndsWithItsContext(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{Private: true})
	cluster, _, _ := newCluster(t, config(t, b, kafkatest.Topic(t, b, 1)))
	b.StopAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := cluster.Reach(ctx, func(error) { cancel() })
	if err == nil {
		t.Error("got nil, want the failure")
	}
}

// A broker that restarts in mid-flow costs time only.
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		const partitions = 3
		topic := kafkatest.Topic(t, b, partitions)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.MaxRows = 20
		tab.set(slow(10 * time.Millisecond))
		before, after := texts("e", 3000), texts("f", 300)
		produce(t, b, topic, partitions, before...)
		m := start(t, cfg, tab)
		eventually(t, "delivery is under way", func() bool { return tab.count() > 300 })
		b.Restart(t)
		produce(t, b, topic, partitions, after...)
		want := slices.Concat(before, after)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		eventually(t, "the member is ready", func() bool { return len(m.reasons()) == 0 })
		m.stop()
		tab.verifyDelivered(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// While the brokers are away the member is not ready and reports it once.
func TestBrokersAreAway(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.SessionTimeout = 6 * time.Second
		m := start(t, cfg, tab)
		produce(t, b, topic, 2, texts("e", 100)...)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == 100 })
		eventually(t, "they are committed", func() bool { return !m.Status().LastCommit.IsZero() })
		b.StopAll(t)
		away := func() bool { return slices.Contains(m.reasons(), "kafka_unreachable") }
		eventually(t, "the member is not ready", away)
		for _, r := range m.Status().NotReady {
			if r.Code == "kafka_unreachable" && (!strings.Contains(r.Text, "refused") || !strings.Contains(r.Remedy, b.Addrs()[0])) {
				t.Errorf("not ready: got %+v, want the cause and the brokers", r)
			}
		}
		// Past the next look and past the session.
		await.Within(cfg.SessionTimeout+2*time.Second, func() bool { return !away() })
		if !away() {
			t.Error("the member is ready though the brokers are away")
		}
		b.StartAll(t)
		produce(t, b, topic, 2, texts("f", 100)...)
		eventually(t, "the rest delivered", func() bool { return tab.distinct() == 200 })
		eventually(t, "the member is ready again", func() bool { return len(m.reasons()) == 0 })
		for text, want := range map[string]int{"waiting for it to pass": 1, "problem is over": 1} {
			// A busy broker may also have a member wait before it joins, which has a code of its own.
			if got := m.logs.FilterMessageSnippet(text).FilterField(zap.String("code", "kafka_unreachable")).Len(); got != want {
				t.Errorf("got %d lines %q, want %d", got, text, want)
			}
		}
		m.stop()
		tab.verifyDelivered(slices.Concat(texts("e", 100), texts("f", 100)))
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// Events keep flowing in while the brokers come and go: nothing is lost.
func TestProducingThroughARestart(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{Private: true})
	const partitions, events = 2, 2000
	topic := kafkatest.Topic(t, b, partitions)
	cfg, tab := config(t, b, topic), newTable(t)
	m := start(t, cfg, tab)
	want := texts("e", events)
	cl := client(t, b)
	failed := make(chan error, 1)
	go func() {
		for i, text := range want {
			if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: []byte(text)}).FirstErr(); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for range 3 {
		at := tab.count()
		eventually(t, "some more rows delivered", func() bool { return tab.count() >= min(at+50, events) })
		b.Restart(t)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	eventually(t, "all rows delivered", func() bool { return tab.distinct() == events })
	m.stop()
	tab.verifyDelivered(want)
}
