//go:build synctests

package consumer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchRefusals are what brokers may answer for a partition of a fetch.
var fetchRefusals = []*kerr.Error{
	kerr.UnknownServerError,
	kerr.CorruptMessage,
	kerr.UnknownTopicOrPartition,
	kerr.UnknownTopicID,
	kerr.InconsistentTopicID,
	kerr.LeaderNotAvailable,
	kerr.NotLeaderForPartition,
	kerr.ReplicaNotAvailable,
	kerr.KafkaStorageError,
	kerr.FencedLeaderEpoch,
	kerr.UnknownLeaderEpoch,
	kerr.OffsetNotAvailable,
	kerr.TopicAuthorizationFailed,
	kerr.ClusterAuthorizationFailed,
}

// Fetches that are refused cost time: nothing is skipped, nothing read twice,
// the member stays, and the refusal that lasts is reported.
func TestVirtualFetchesRefused(t *testing.T) {
	for _, refusal := range fetchRefusals {
		t.Run(refusal.Message, func(t *testing.T) {
			virtually(t, worldSetup{partitions: 2}, func(w *world) {
				m := w.join().joined(2)
				w.produce(0, plain(25)...)
				w.resolved(time.Minute)
				w.until("they are committed", time.Minute, func() bool { return w.committedTo(0) == 25 })
				h := w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: vtopic, Partitions: []int32{0}, Err: refusal, Count: 20})
				both(w, plain(25)...)
				if took := w.resolved(5 * time.Minute); took > 15*time.Second {
					w.t.Errorf("it took %v until events flowed again, want at most 20 fetches of half a second and a look at the leaders", took)
				}
				if h.Hits() != 20 {
					w.t.Errorf("%d fetches were refused, want 20", h.Hits())
				}
				w.until("the member is ready", time.Minute, func() bool { return len(m.Status().NotReady) == 0 })
				if got := m.counts.get(func() int { return m.counts.rebalanced["lost"] + m.counts.rebalanced["revoked"] }); got != 0 {
					w.t.Errorf("%d partitions were given up", got)
				}
				if got := w.duplicates(); got != 0 {
					w.t.Errorf("%d rows delivered again, want none", got)
				}
			})
		})
	}
}

// The coordinator and the leaders may move under a group at work: it costs
// neither its partitions nor a row.
func TestVirtualCoordinatorAndLeadersMove(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 3, brokers: 3}, func(w *world) {
		m := w.join().joined(3)
		m.act(takes(100 * time.Millisecond))
		for range 20 {
			for p := range int32(3) {
				w.produce(p, plain(20)...)
			}
			w.kafka.RehashCoordinators()
			for p := range int32(3) {
				if err := w.kafka.MoveTopicPartition(vtopic, p, (w.kafka.LeaderFor(vtopic, p)+1)%3); err != nil {
					w.t.Fatal(err)
				}
			}
			w.pass(700 * time.Millisecond)
			w.look()
		}
		w.resolved(5 * time.Minute)
		if got := m.counts.get(func() int { return m.counts.rebalanced["lost"] + m.counts.rebalanced["revoked"] }); got != 0 {
			w.t.Errorf("%d partitions were given up", got)
		}
		if got := w.duplicates(); got != 0 {
			w.t.Errorf("%d rows delivered again, want none", got)
		}
	})
}

// A member that is cut off from the brokers for longer than its session loses
// its partitions to another. What it had in flight may be delivered twice; it
// commits nothing that was not acknowledged.
func TestVirtualCutOffBeyondTheSession(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 2}, func(w *world) {
		first, second := w.join(), w.join()
		first.joined(1)
		second.joined(1)
		first.act(takes(2 * time.Second))
		second.act(takes(2 * time.Second))
		both(w, plain(200)...)
		w.pass(5 * time.Second)
		first.sever()
		took := w.until("the other has both partitions", time.Minute, func() bool { return len(second.Status().Partitions) == 2 })
		if took > vexpiry+vbeat {
			w.t.Errorf("the takeover took %v, want at most the session and a heartbeat: %v", took, vexpiry+vbeat)
		}
		first.fix()
		w.until("the first hears that it lost its partition", time.Minute, func() bool {
			return first.counts.get(func() int { return first.counts.rebalanced["lost"] }) == 1
		})
		w.until("each has one again", 2*time.Minute, func() bool {
			return len(first.Status().Partitions) == 1 && len(second.Status().Partitions) == 1
		})
		w.resolved(10 * time.Minute)
	})
}

// Partitions that are added while the group runs are read from their start.
func TestVirtualPartitionsAdded(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 1}, func(w *world) {
		first, second := w.join(), w.join()
		w.until("one of them has the partition", time.Minute, func() bool {
			return len(first.Status().Partitions)+len(second.Status().Partitions) == 1
		})
		w.addPartitions(4)
		for p := range int32(4) {
			w.produce(p, plain(25)...)
		}
		if took := w.resolved(5 * time.Minute); took > time.Minute {
			w.t.Errorf("it took %v until new partitions had flowed, want the age of metadata and a rebalance", took)
		}
		var ids []int32
		for _, m := range w.members {
			for _, p := range m.Status().Partitions {
				ids = append(ids, p.Partition)
			}
		}
		slices.Sort(ids)
		if !slices.Equal(ids, []int32{0, 1, 2, 3}) {
			w.t.Errorf("the members have partitions %v, want each of the four once", ids)
		}
	})
}
