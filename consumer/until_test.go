package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

// bounded is a member that ends alone.
type bounded struct {
	*member
	ends *consumer.StopOffsets
}

// startUntil runs a member until the group has reached until, which is resolved
// before it joins.
func startUntil(t *testing.T, cfg consumer.Config, sink consumer.Sink, until kafka.Position) *bounded {
	t.Helper()
	cluster, log, logs := newCluster(t, cfg)
	ensureDeadLetters(t, cluster)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	from := earliest
	if !cfg.StartAt.IsZero() {
		from = at(cfg.StartAt)
	}
	if _, _, err := cluster.CommitStartOffsets(ctx, from); err != nil {
		t.Fatal(err)
	}
	ends, err := cluster.StopOffsets(ctx, until)
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{member: &member{t: t, counts: newCounts(), logs: logs, done: make(chan struct{})}, ends: ends}
	b.Group = consumer.NewGroup(cfg, cluster, sink, newToRow, b.counts, log)
	b.SetProbe(200 * time.Millisecond)
	b.StopAt(ends)
	var running context.Context
	running, b.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(b.done)
		b.err = b.Run(running)
	}()
	t.Cleanup(func() {
		b.cancel()
		<-b.done
	})
	return b
}

// finish waits until the member has ended alone.
func (b *bounded) finish() {
	b.t.Helper()
	eventually(b.t, "the end of the bounded run", func() bool {
		select {
		case <-b.done:
			return true
		default:
			return false
		}
	})
	if b.err != nil {
		b.t.Errorf("Run returned %v, want nil at the ends", b.err)
	}
	if p := b.ends.Progress(); !b.ends.Reached() || p.Done != p.Total || p.Reached != p.Partitions {
		b.t.Errorf("got %+v after the end, want all of it reached", p)
	}
}

// values are the rows' texts, sorted.
func (tab *table) values() []string {
	var all []string
	for _, row := range tab.snapshot() {
		all = append(all, row[strings.LastIndexByte(row, ':')+1:])
	}
	slices.Sort(all)
	return all
}

func minutes(from, until int) []string {
	var all []string
	for i := from; i < until; i++ {
		all = append(all, fmt.Sprintf("minute%d", i))
	}
	slices.Sort(all)
	return all
}

// One partition holds an hour, one nothing, one only what is before the
// window, one only what is after it.
func TestBoundedRunDeliversItsWindowAndEnds(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				kafkatest.NeedProtocol(t, b, protocol)
				topic := kafkatest.Topic(t, b, 4)
				produceMinutes(t, b, topic, 0, 60)
				produceMinutes(t, b, topic, 2, 20)
				produceRecords(t, b, &kgo.Record{Topic: topic, Partition: 3, Value: []byte("late"), Timestamp: minute(50)})
				cfg := config(t, b, topic)
				cfg.Protocol, cfg.StartAt, cfg.MaxRows = protocol, minute(20), 7
				tab := newTable(t)
				r := startUntil(t, cfg, tab, at(minute(40)))
				r.finish()
				if got, want := tab.values(), minutes(20, 40); !slices.Equal(got, want) {
					t.Errorf("got %d rows %v, want %v", len(got), got, want)
				}
				if got := committed(t, b, cfg.Group, topic); got[0] != 40 || got[2] != 20 || got[3] != 0 {
					t.Errorf("committed %v, want 40 in partition 0, 20 in 2 and 0 in 3", got)
				}
				if got := r.counts.get(func() int { return r.counts.read }); got != 20 {
					t.Errorf("got %d events counted as read, want 20", got)
				}

				// Again, it has nothing to do and ends at once.
				startUntil(t, cfg, tab, at(minute(40))).finish()
				// A later end continues where the first run ended.
				startUntil(t, cfg, tab, at(minute(45))).finish()
				if got, want := tab.values(), minutes(20, 45); !slices.Equal(got, want) {
					t.Errorf("got %d rows %v, want %v", len(got), got, want)
				}
			})
		})
	}
}

// What is produced while the run continues lies past its end, and so do
// partitions that are added.
func TestBoundedRunEndsBesideLiveTraffic(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, texts("a", 200)...)
		cfg := config(t, b, topic)
		cfg.MaxRows = 20
		tab := newTable(t)
		open := make(chan struct{})
		tab.set(func(ctx context.Context, _ write) error {
			select {
			case <-open:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		r := startUntil(t, cfg, tab, latest)
		eventually(t, "a write", func() bool { return tab.requests() > 0 })
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cl := client(t, b)
		if _, err := kadm.NewClient(cl).CreatePartitions(ctx, 1, topic); err != nil {
			t.Fatal(err)
		}
		produce(t, b, topic, 2, texts("b", 200)...)
		eventually(t, "a line about the new partition", func() bool { return r.logged(zapcore.WarnLevel, "not part of it") == 1 })
		if p := r.ends.Progress(); p.Total != 200 || p.Done != 0 || p.Reached != 0 || p.Partitions != 2 {
			t.Errorf("got %+v, want nothing of 200 done", p)
		}
		close(open)
		r.finish()
		if got, want := tab.values(), texts("a", 200); !slices.Equal(got, want) {
			t.Errorf("got %d rows, want the 200 that were there when it began", len(got))
		}
	})
}

func TestBoundedRunIsSharedByMembers(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produce(t, b, topic, 2, texts("a", 2000)...)
		cfg := config(t, b, topic)
		cfg.MaxRows = 10
		tab := newTable(t)
		tab.set(func(ctx context.Context, _ write) error { return wait(ctx, 10*time.Millisecond) })
		first := startUntil(t, cfg, tab, latest)
		eventually(t, "rows", func() bool { return tab.count() > 0 })
		second, third := startUntil(t, cfg, tab, latest), startUntil(t, cfg, tab, latest)
		first.finish()
		second.finish()
		third.finish() // it may never have owned a partition
		if got := tab.distinct(); got != 2000 {
			t.Errorf("got %d different rows, want 2000", got)
		}
	})
}

func TestBoundedRunGoesOnWhereItWasCut(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		produceMinutes(t, b, topic, 0, 60)
		cfg := config(t, b, topic)
		cfg.MaxRows, cfg.StartAt = 5, minute(10)
		tab := newTable(t)
		tab.set(func(ctx context.Context, w write) error {
			if w.n <= 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		cfg.Drain = 100 * time.Millisecond
		r := startUntil(t, cfg, tab, at(minute(40)))
		eventually(t, "a write that hangs", func() bool { return tab.requests() == 4 })
		r.stop()
		if r.ends.Reached() {
			t.Error("a run that was stopped early reports that it reached its ends")
		}
		tab.set(nil)
		cfg.StartAt = minute(30) // ignored: it has begun
		startUntil(t, cfg, tab, at(minute(40))).finish()
		if got, want := tab.values(), minutes(10, 40); !slices.Equal(got, want) {
			t.Errorf("got %d rows %v, want %v, each once", len(got), got, want)
		}
	})
}

// A log may end with a transaction's marker, which is no event, and the events
// of an aborted transaction are read as all others.
func TestBoundedRunReachesAnEndBehindATransaction(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cl := client(t, b, kgo.TransactionalID(kafkatest.Name(t)))
		for _, text := range []string{"one", "two"} {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(text)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
		}
		cfg := config(t, b, topic)
		tab := newTable(t)
		startUntil(t, cfg, tab, latest).finish()
		if got, want := tab.values(), []string{"one", "two"}; !slices.Equal(got, want) {
			t.Errorf("got rows %v, want %v", got, want)
		}
		if got := committed(t, b, cfg.Group, topic)[0]; got != 4 {
			t.Errorf("committed %d, want 4: two events and two markers", got)
		}
	})
}

// What lies before the end may be gone when the run gets there.
func TestBoundedRunEndsWhereTheLogWasCut(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produceMinutes(t, b, topic, 0, 10)
		produceMinutes(t, b, topic, 1, 10)
		trim(t, b, topic, 1, 10)
		cfg := config(t, b, topic)
		tab := newTable(t)
		startUntil(t, cfg, tab, latest).finish()
		if got, want := tab.values(), minutes(0, 10); !slices.Equal(got, want) {
			t.Errorf("got rows %v, want %v", got, want)
		}
	})
}

func TestBeginKeepsWhatIsCommitted(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		produceMinutes(t, b, topic, 0, 10)
		produceMinutes(t, b, topic, 1, 10)
		cfg := config(t, b, topic)
		r := newReplayer(t, b, cfg)
		if err := r.commit([]kafka.Move{{Topic: topic, Partition: 1, Target: 7}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		begun, kept, err := r.cluster.CommitStartOffsets(ctx, at(minute(4)))
		if err != nil || begun != 1 || kept != 1 {
			t.Fatalf("got %d begun, %d kept, %v; want one of each", begun, kept, err)
		}
		if got := committed(t, b, cfg.Group, topic); got[0] != 4 || got[1] != 7 {
			t.Errorf("committed %v, want 4 and 7", got)
		}
		var failure *kafka.Error
		cfg.Topics = []string{"absent-" + topic}
		if _, err := newReplayer(t, b, cfg).cluster.StopOffsets(ctx, latest); !errors.As(err, &failure) || !failure.Permanent {
			t.Errorf("got %v, want a permanent failure for a topic that does not exist", err)
		}
	})
}

// Offsets that were committed for a deleted topic of that name are no progress:
// the run begins at the start of the topic and ends when that is delivered.
func TestBoundedRunIgnoresOffsetsOfADeletedTopic(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 1)
		want := texts("e", 10)
		produce(t, b, topic, 1, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		commitForDeleted(t, b, cfg.Group, topic, 100)
		m := startUntil(t, cfg, tab, latest)
		if got := m.ends.Progress(); got.Done != 0 || got.Total != 10 {
			t.Errorf("got %d of %d done when it began, want 0 of 10", got.Done, got.Total)
		}
		m.finish()
		tab.verify(want)
	})
}

// The ends of a topic that is deleted and created again while the run lasts mean
// nothing any more.
func TestBoundedRunFailsWhenItsTopicIsCreatedAgain(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	produce(t, b, topic, 1, "a")
	cfg, tab := config(t, b, topic), newTable(t)
	cfg.Drain = 100 * time.Millisecond
	entered := make(chan struct{}, 9)
	tab.set(hang(entered))
	m := startUntil(t, cfg, tab, latest)
	<-entered
	eventually(t, "the run knows its topic", m.KnowsTopics)
	deleteTopic(t, b, topic)
	b.CreateTopic(t, topic, 1, nil)
	eventually(t, "the run ends", func() bool {
		select {
		case <-m.done:
			return true
		default:
			return false
		}
	})
	if m.err == nil || !strings.Contains(m.err.Error(), "deleted and created again") {
		t.Errorf("Run returned %v, want that the topic was created again", m.err)
	}
}
