package consumer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// hang never answers.
func hang(entered chan<- struct{}) hook {
	return func(ctx context.Context, _ write) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// A stop ends within Drain and a second, whatever hangs.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	const drain = time.Second
	for name, broken := range map[string]func(t *testing.T, b kafkatest.Broker){
		"sink hangs":                      nil,
		"sink hangs and brokers are down": func(t *testing.T, b kafkatest.Broker) { b.StopAll(t) },
		"sink hangs and brokers hang": func(t *testing.T, b kafkatest.Broker) {
			if b.Cluster() == nil {
				t.Skip("kfake cannot be frozen")
			}
			if err := b.Cluster().Pause(0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Cluster().Resume(0) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			kafkatest.Each(t, kafkatest.Options{Private: broken != nil}, func(t *testing.T, b kafkatest.Broker) {
				topic := kafkatest.Topic(t, b, 4)
				produce(t, b, topic, 4, texts("e", 400)...)
				cfg, tab := config(t, b, topic), newTable(t)
				cfg.Drain = drain
				entered := make(chan struct{})
				tab.set(hang(entered))
				m := start(t, cfg, tab)
				<-entered
				if broken != nil {
					broken(t, b)
				}
				took := m.stop()
				if took > drain+time.Second+room {
					t.Errorf("the stop took %v, want at most %v", took, drain+time.Second)
				}
				if broken == nil {
					if took < drain {
						t.Errorf("the stop took %v, want %v for the Write in flight", took, drain)
					}
					wantStartCommitted(t, b, cfg.Group, topic)
				}
			})
		})
	}
}

// A dead letter whose answer never comes does not hold a stop up.
func TestStopIsBoundedWhileDeadLettersHang(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{Private: true}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Drain = time.Second
		m := start(t, cfg, tab)
		produce(t, b, topic, 1, "e1", "bad2")
		eventually(t, "a dead letter was written", func() bool { return m.counts.get(func() int { return m.counts.deadLettered }) == 1 })

		entered, release := make(chan struct{}), make(chan struct{})
		tab.set(func(context.Context, write) error {
			close(entered)
			<-release
			return nil
		})
		produce(t, b, topic, 1, "many e3 bad4")
		<-entered
		if b.Cluster() == nil {
			b.StopAll(t)
		} else if err := b.Cluster().Pause(0); err != nil {
			t.Fatal(err)
		}
		close(release)
		eventually(t, "the dead letter is on its way", func() bool {
			p, ok := m.partition(0)
			return ok && (p.State == consumer.StateRejecting || p.State == consumer.StateBlocked)
		})
		if took := m.stop(); took > cfg.Drain+time.Second+room {
			t.Errorf("the stop took %v, want at most %v", took, cfg.Drain+time.Second)
		}
	})
}

// The cause a caller's context ended with is no failure of the run.
func TestRunReturnsNilWhateverEndedItsContext(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	cfg := config(t, b, kafkatest.Topic(t, b, 1))
	cluster, log, _ := newCluster(t, cfg)
	g := consumer.NewGroup(cfg, cluster, newTable(t), newToRow, newCounts(), log)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	eventually(t, "the member joined", func() bool { return g.Status().MemberID != "" })
	cancel(errors.New("the operator said so"))
	if err := <-done; err != nil {
		t.Errorf("Run returned %v, want nil", err)
	}
	if s := g.Status(); s.Running || len(s.Partitions) > 0 {
		t.Errorf("status after Run: got %+v, want neither running nor partitions", s)
	}
}

// The client has a commit wait for the one before it. A stop does not.
func TestStopIsBoundedWhileACommitHangs(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	cfg, tab := config(t, b, topic), newTable(t)
	cfg.Drain = time.Second
	release, hanging := make(chan struct{}), make(chan struct{}, 1)
	var asleep atomic.Int32
	fake := b.Fake() // the broker forgets it when it stops
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		asleep.Add(1)
		fake.SleepControl(func() {
			select {
			case hanging <- struct{}{}:
			default:
			}
			<-release
		})
		asleep.Add(-1)
		return nil, nil, false
	})
	m := start(t, cfg, tab)
	produce(t, b, topic, 1, texts("e", 100)...)
	<-hanging // the commit of the start position
	eventually(t, "all rows were delivered", func() bool { return tab.count() == 100 })
	if took := m.stop(); took > cfg.Drain+time.Second+room {
		t.Errorf("the stop took %v, want at most %v", took, cfg.Drain+time.Second)
	}
	close(release)
	eventually(t, "no commit is held any more", func() bool { return asleep.Load() == 0 }) // a broker that stops before leaves a goroutine
	tab.verify(texts("e", 100))
}

// A coordinator that is slow to answer a leave request is waited for while the drain
// has time left: otherwise the partitions would wait for the session timeout.
func TestSlowLeaveIsHeard(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	cfg, tab := config(t, b, topic), newTable(t)
	fake := b.Fake() // the broker forgets it when it stops
	fake.ControlKey(int16(kmsg.LeaveGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.SleepControl(func() { _ = wait(context.Background(), time.Second) })
		return nil, nil, false
	})
	m := start(t, cfg, tab)
	produce(t, b, topic, 1, texts("e", 10)...)
	eventually(t, "all rows delivered", func() bool { return tab.count() == 10 })
	m.stop()
	if got := m.logged(zapcore.WarnLevel, "without notifying"); got != 0 {
		t.Errorf("got %d lines about an unsent leave request, want none", got)
	}
	if members := fake.GroupInfo(cfg.Group).Members; len(members) != 0 {
		t.Errorf("the group still has members %v, want none", members)
	}
}
