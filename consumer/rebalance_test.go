package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

// slow is a sink that takes its time, or as long as ctx lives.
func slow(d time.Duration) hook {
	return func(ctx context.Context, _ write) error { return wait(ctx, d) }
}

func protocols(t *testing.T, body func(t *testing.T, b kafkatest.Broker, protocol string)) {
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
				kafkatest.NeedProtocol(t, b, protocol)
				body(t, b, protocol)
			})
		})
	}
}

// A member joins while Writes are in flight, another leaves: nothing is lost
// and, as every Write may finish, nothing is written twice.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		const partitions = 6
		topic := kafkatest.Topic(t, b, partitions)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Protocol, cfg.MaxRows = protocol, 20
		tab.set(slow(50 * time.Millisecond))
		feed := startFeed(t, b, topic, partitions, tab)

		first := start(t, cfg, tab)
		eventually(t, "the first member delivers", func() bool { return tab.count() > 200 })
		second := start(t, cfg, tab)
		eventually(t, "the second member delivers", func() bool {
			return slices.ContainsFunc(second.Status().Partitions, func(p consumer.PartitionStatus) bool { return p.Rows > 0 })
		})
		eventually(t, "a Write of the first member is in flight", func() bool {
			return slices.ContainsFunc(first.Status().Partitions, func(p consumer.PartitionStatus) bool { return p.State == consumer.StateWriting })
		})
		first.stop()
		want := feed.stop()
		eventually(t, "the second member has all partitions", func() bool { return len(second.Status().Partitions) == partitions })
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
		second.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
		if first.counts.get(func() int { return first.counts.rebalanced["revoked"] }) == 0 {
			t.Error("the first member was stopped before it gave up a partition")
		}
		for _, m := range []*member{first, second} {
			if m.logged(0, "abandoned")+m.logged(0, "partitions lost") > 0 {
				t.Error("a Write was cut off in good order")
			}
		}
	})
}

// feed is a producer beside a test.
type feed struct {
	t    *testing.T
	end  context.CancelFunc
	done chan struct{}
	sent []string // once done is closed
	err  error    // once done is closed
}

// startFeed keeps a topic a thousand events ahead of what the table has, however
// long members take to come and go.
func startFeed(t *testing.T, b kafkatest.Broker, topic string, partitions int32, tab *table) *feed {
	t.Helper()
	const ahead, batch = 1000, 200
	f := &feed{t: t, done: make(chan struct{})}
	var ctx context.Context
	ctx, f.end = context.WithTimeout(context.Background(), await.Limit(t))
	cl := client(t, b)
	go func() { // ends with ctx; stop and the test's end wait for it
		defer close(f.done)
		for ctx.Err() == nil && f.err == nil {
			if len(f.sent)-tab.count() >= ahead {
				_ = wait(ctx, 5*time.Millisecond)
				continue
			}
			var recs []*kgo.Record
			for i := range batch {
				text := fmt.Sprintf("e%06d", len(f.sent))
				f.sent = append(f.sent, text)
				recs = append(recs, &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: []byte(text)})
			}
			// Whole batches, also at the end: the test counts on what was sent.
			f.err = cl.ProduceSync(context.WithoutCancel(ctx), recs...).FirstErr()
		}
	}()
	t.Cleanup(func() { f.end(); <-f.done })
	return f
}

// stop ends the feed and returns all that it produced.
func (f *feed) stop() []string {
	f.t.Helper()
	f.end()
	<-f.done
	if f.err != nil {
		f.t.Fatalf("producing: %v", f.err)
	}
	return f.sent
}

// A rolling restart: one member is stopped and, while its Writes finish,
// another joins. The newcomer must not begin beside a Write in flight.
func TestJoinDuringDrain(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		const partitions = 2
		topic := kafkatest.Topic(t, b, partitions)
		want := texts("e", 200)
		produce(t, b, topic, partitions, want...)
		cfg, old, tab := config(t, b, topic), newTable(t), newTable(t)
		cfg.Protocol, cfg.Drain = protocol, time.Minute
		entered, release := make(chan struct{}, partitions), make(chan struct{})
		old.set(func(context.Context, write) error {
			entered <- struct{}{}
			<-release
			return nil
		})
		first := start(t, cfg, old)
		for range partitions {
			<-entered
		}
		first.cancel()
		second := start(t, cfg, tab)
		// Some heartbeats: the first member hears of the newcomer while it drains.
		_ = wait(t.Context(), 4*heartbeat)
		if got := tab.count(); got > 0 {
			t.Errorf("the second member wrote %d rows while the first still had them in flight", got)
		}
		close(release)
		first.stop()
		eventually(t, "all rows delivered", func() bool { return old.count()+tab.distinct() >= len(want) })
		eventually(t, "the second member has all partitions", func() bool { return len(second.Status().Partitions) == partitions })
		second.stop()
		if got := old.count() + tab.count(); got != len(want) {
			t.Errorf("got %d rows, want %d: the rest are duplicates", got, len(want))
		}
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// An expelled member cuts off what is in flight, commits nothing for it, joins
// again and reads it again.
func TestExpelled(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		topic := kafkatest.Topic(t, b, 2)
		want := texts("e", 200)
		produce(t, b, topic, 2, want...)
		cfg, tab := config(t, b, topic), newTable(t)
		cut := make(chan error, 2)
		entered := make(chan struct{}, 2)
		tab.set(func(ctx context.Context, _ write) error {
			entered <- struct{}{}
			<-ctx.Done()
			cut <- context.Cause(ctx)
			return ctx.Err()
		})
		m := start(t, cfg, tab)
		<-entered
		<-entered
		tab.set(nil)
		expel(t, b, cfg.Group, m.Status().MemberID)
		for range 2 {
			select {
			case <-cut:
			case <-time.After(patience):
				t.Fatal("a Write in flight was not cut off")
			}
		}
		wantStartCommitted(t, b, cfg.Group, topic)
		eventually(t, "all rows delivered after it joined again", func() bool { return tab.distinct() == len(want) })
		if got := m.counts.get(func() int { return m.counts.rebalanced["lost"] }); got != 2 {
			t.Errorf("got %d partitions lost, want 2", got)
		}
		if got := m.logged(1, "partitions lost"); got != 1 {
			t.Errorf("got %d lines about the loss, want 1", got)
		}
		m.stop()
		tab.verify(want)
		wantAllCommitted(t, b, cfg.Group, topic)
	})
}

// expel has a member leave its group without its knowledge.
func expel(t *testing.T, b kafkatest.Broker, group, member string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = group, member
	leaving := kmsg.NewLeaveGroupRequestMember()
	leaving.MemberID = member
	req.Members = append(req.Members, leaving)
	cl := client(t, b)
	defer cl.Close()
	resp, err := req.RequestWith(ctx, cl)
	if err != nil || resp.ErrorCode != 0 || len(resp.Members) != 1 || resp.Members[0].ErrorCode != 0 {
		t.Fatalf("expelling member %s: %v, %+v", member, err, resp)
	}
}

// A static member that restarts within its session moves no partition.
func TestStaticMemberRestarts(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, b kafkatest.Broker, protocol string) {
		const partitions = 4
		topic := kafkatest.Topic(t, b, partitions)
		cfg, tab := config(t, b, topic), newTable(t)
		cfg.Protocol = protocol
		other := cfg
		cfg.InstanceID, other.InstanceID = "one", "two"
		first, second := start(t, cfg, tab), start(t, other, tab)
		eventually(t, "both have their half", func() bool {
			return len(first.Status().Partitions) == partitions/2 && len(second.Status().Partitions) == partitions/2
		})
		produce(t, b, topic, partitions, texts("e", 100)...)
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == 100 })
		before := ids(first)
		moved := func() (n int) {
			second.counts.with(func() {
				n = second.counts.rebalanced["assigned"] + second.counts.rebalanced["revoked"] + second.counts.rebalanced["lost"]
			})
			return n
		}
		quiet := moved()

		first.stop()
		produce(t, b, topic, partitions, texts("f", 100)...)
		again := start(t, cfg, tab)
		eventually(t, "the restarted member has its half again", func() bool { return slices.Equal(ids(again), before) })
		eventually(t, "all rows delivered", func() bool { return tab.distinct() == 200 })
		if got := moved(); got != quiet {
			t.Errorf("%d partitions of the other member moved, want none", got-quiet)
		}
		again.stop()
		second.stop()
		tab.verify(slices.Concat(texts("e", 100), texts("f", 100)))
	})
}

func ids(m *member) []int32 {
	var all []int32
	for _, p := range m.Status().Partitions {
		all = append(all, p.Partition)
	}
	return all
}
