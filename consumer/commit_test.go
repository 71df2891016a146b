package consumer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A commit that fails is said once; delivery continues and the next one covers it.
func TestCommitsFail(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 2)
	cfg, tab := config(t, b, topic), newTable(t)
	fault := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: cfg.Group, Err: kerr.GroupAuthorizationFailed, Count: -1})
	m := start(t, cfg, tab)
	want := texts("e", 100)
	produce(t, b, topic, 2, want...)
	eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
	eventually(t, "three commits failed", func() bool { return m.counts.get(func() int { return m.counts.commitErrors }) >= 3 })
	if got := m.logged(0, "committing offsets fails"); got != 1 {
		t.Errorf("got %d lines about failing commits, want 1", got)
	}
	if !m.Status().LastCommit.IsZero() {
		t.Error("the status shows a commit")
	}
	if at := committed(t, b, cfg.Group, topic); at != nil {
		t.Errorf("committed %v, want nothing", at)
	}
	more := texts("f", 100)
	produce(t, b, topic, 2, more...)
	eventually(t, "delivery continues", func() bool { return tab.distinct() == len(want)+len(more) })
	fault.Remove()
	eventually(t, "commits work again", func() bool { return !m.Status().LastCommit.IsZero() })
	eventually(t, "one line reports it", func() bool { return m.logged(0, "committing offsets works again") == 1 })
	// The first commit that works may come before the last batch is marked.
	eventually(t, "all is committed", func() bool {
		return !slices.ContainsFunc(m.Status().Partitions, func(p consumer.PartitionStatus) bool { return p.Committed != 100 })
	})
	wantAllCommitted(t, b, cfg.Group, topic)
	for _, p := range m.Status().Partitions {
		if p.Committed != p.End || p.Marked != p.End || p.Lag != 0 || p.Rows != 100 {
			t.Errorf("status of a delivered partition: got %+v", p)
		}
	}
	m.stop()
	tab.verify(slices.Concat(want, more))
}

// A generation that is gone takes no commits; the member joins again and the
// next commit covers what was delivered, or it is delivered again.
func TestMembershipErrorsOnTheHeartbeat(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]kfake.Fault{
		"unknown member": {Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.UnknownMemberID},
		"fenced":         {Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.FencedInstanceID},
		"old generation": {Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.OffsetCommit}, TopLevel: true, Err: kerr.IllegalGeneration},
		"fenced epoch":   {Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, TopLevel: true, Err: kerr.FencedMemberEpoch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := kafkatest.StartFake(t, kafkatest.Options{})
			topic := kafkatest.Topic(t, b, 2)
			cfg, tab := config(t, b, topic), newTable(t)
			cfg.Drain = 5 * time.Second
			if name == "fenced epoch" {
				cfg.Protocol = "consumer"
			}
			want := texts("e", 100)
			produce(t, b, topic, 2, want...)
			entered := make(chan struct{}, 1)
			tab.set(hang(entered))
			m := start(t, cfg, tab)
			<-entered
			h := b.Fake().Fault(fault)
			eventually(t, "the partitions were lost", func() bool { return m.counts.get(func() int { return m.counts.rebalanced["lost"] }) == 2 })
			h.Remove()
			tab.set(nil)
			// Its assignment may have come back before the sink was fixed.
			if took := m.stop(); took > cfg.Drain+time.Second+room {
				t.Errorf("the stop took %v", took)
			}
			again := start(t, cfg, tab)
			eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
			again.stop()
			tab.verify(want)
			wantAllCommitted(t, b, cfg.Group, topic)
		})
	}
}

// The poll loop lives on while fetches fail, and reports it once.
func TestFetchesFail(t *testing.T) {
	t.Parallel()
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 50)
	want := texts("e", 500)
	cfg, tab := config(t, b, topic), newTable(t)
	fault := b.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	m := start(t, cfg, tab)
	produce(t, b, topic, 50, want...)
	eventually(t, "the failure is reported", func() bool { return slices.Contains(m.reasons(), "fetch_failing") })
	var s consumer.NotReady
	for _, r := range m.Status().NotReady {
		if r.Code == "fetch_failing" {
			s = r
		}
	}
	if want := "run: kafka-acls.sh --bootstrap-server " + b.Addrs()[0] + " --add --allow-principal User:ANONYMOUS --operation Read --topic " + topic; s.Remedy != want {
		t.Errorf("not ready: got %+v, want the grant as the remedy", s)
	}
	eventually(t, "the poll loop goes round", func() bool { return time.Since(m.Status().Polled) < 200*time.Millisecond })
	fault.Remove()
	eventually(t, "all rows delivered", func() bool { return tab.distinct() == len(want) })
	eventually(t, "the failure is over", func() bool { return len(m.reasons()) == 0 })
	if got := m.logged(0, "waiting for it to pass"); got != 1 {
		t.Errorf("got %d lines about failing fetches, want 1", got)
	}
	m.stop()
	tab.verify(want)
}
