//go:build synctests

package consumer_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
)

// moment is a step in a partition's life. A second member joins at it, and the
// first has to give a partition up.
type moment struct {
	name   string
	adjust func(*consumer.Config)
	// reach brings both partitions of m to the moment.
	reach func(w *world, m *vmember)
	// drained is how long giving up takes; -1: until what is in flight has
	// ended, which is before Drain is over.
	drained time.Duration
	// again is how many rows are delivered a second time.
	again int
}

// inState waits until all partitions are in it.
func (m *vmember) inState(state string) {
	m.w.t.Helper()
	m.w.until(m.name+" is "+state, 5*time.Minute, func() bool {
		s := m.Status()
		for _, p := range s.Partitions {
			if p.State != state {
				return false
			}
		}
		return len(s.Partitions) > 0
	})
}

func both(w *world, events ...string) {
	w.produce(0, events...)
	w.produce(1, events...)
}

var moments = []moment{
	{
		name: "before the first poll",
		reach: func(w *world, m *vmember) {
			w.holdFetches()
			both(w, plain(25)...)
			m.joined(2)
		},
	},
	{name: "idle", reach: func(w *world, m *vmember) { m.joined(2) }},
	{
		name:   "pushed and not taken",
		adjust: func(c *consumer.Config) { c.Linger = time.Hour },
		reach: func(w *world, m *vmember) {
			both(w, plain(5)...)
			w.until("all is pushed", time.Minute, func() bool {
				return m.counts.get(func() int { return m.counts.read }) == 10
			})
		},
	},
	{
		name: "mapping",
		reach: func(w *world, m *vmember) {
			w.mapping(func() { _ = wait(context.Background(), 400*time.Millisecond) }) // 4 s per batch
			both(w, plain(25)...)
			m.inState(consumer.StateWriting)
		},
		drained: -1,
	},
	{
		name: "a Write in flight",
		reach: func(w *world, m *vmember) {
			m.act(takes(4 * time.Second))
			both(w, plain(25)...)
			m.inState(consumer.StateWriting)
		},
		drained: -1,
	},
	{
		name: "a Write that hangs",
		reach: func(w *world, m *vmember) {
			m.act(hangs)
			both(w, plain(25)...)
			m.inState(consumer.StateWriting)
		},
		drained: vdrain,
	},
	{
		name: "a Write whose acknowledgement is lost",
		reach: func(w *world, m *vmember) {
			m.act(loses)
			both(w, plain(25)...)
			m.inState(consumer.StateWriting)
		},
		drained: vdrain,
		again:   2 * vrows, // the other partition's sink writes them again, too
	},
	{
		name: "splitting",
		reach: func(w *world, m *vmember) {
			m.act(takes(600 * time.Millisecond)) // 7 Writes for one bad row of 10
			both(w, append(plain(vrows-1), "poison")...)
			w.until("it parts", time.Minute, func() bool { return m.counts.get(func() int { return m.counts.wasSplit }) >= 2 })
		},
		drained: -1,
	},
	{
		name: "a dead letter in flight",
		reach: func(w *world, m *vmember) {
			w.holdDeadLetters(4 * time.Second)
			both(w, "e1", "bad2", "e3")
			m.inState(consumer.StateRejecting)
		},
		drained: -1,
	},
	{
		name: "a dead letter that hangs",
		reach: func(w *world, m *vmember) {
			w.holdDeadLetters(12 * time.Second)
			both(w, "e1", "bad2", "e3")
			m.inState(consumer.StateRejecting)
		},
		drained: vdrain,
		again:   2,
	},
	{
		name: "blocked by a schema fault",
		reach: func(w *world, m *vmember) {
			m.act(refuses)
			both(w, plain(100)...)
			m.inState(consumer.StateBlocked)
		},
	},
	{
		name: "blocked on dead letters",
		reach: func(w *world, m *vmember) {
			w.refuseDeadLetters(kerr.TopicAuthorizationFailed)
			both(w, "e1", "bad2", "e3")
			m.inState(consumer.StateBlocked)
		},
		again: 2,
	},
	{
		name: "marked and not committed",
		reach: func(w *world, m *vmember) {
			m.act(takes(300 * time.Millisecond))
			both(w, plain(400)...)
			m.inState(consumer.StateWriting)
		},
		drained: -1,
	},
}

// Whatever a partition is doing when it has to go, it goes in the time that is
// promised, loses nothing and repeats nothing that it had finished.
func TestVirtualRevokedAtEveryMoment(t *testing.T) {
	for _, at := range moments {
		t.Run(at.name, func(t *testing.T) {
			bothProtocols(t, worldSetup{partitions: 2}, func(w *world) {
				var adjust []func(*consumer.Config)
				if at.adjust != nil {
					adjust = append(adjust, at.adjust)
				}
				first := w.join(adjust...)
				first.joined(2)
				at.reach(w, first)
				second := w.join()
				w.until("a partition moved", 3*time.Minute, func() bool { return len(second.Status().Partitions) == 1 })
				w.look()
				w.release()

				lines := first.logs.FilterMessage("partitions revoked").All()
				if len(lines) != 1 {
					w.t.Fatalf("got %d lines about revoked partitions, want 1", len(lines))
				}
				got := drainedIn(lines[0])
				if at.drained >= 0 && got != at.drained {
					w.t.Errorf("the drain took %v, want exactly %v", got, at.drained)
				}
				if at.drained < 0 && (got <= 0 || got >= vdrain) {
					w.t.Errorf("the drain took %v, want the rest of what was in flight", got)
				}
				if at.name == "pushed and not taken" {
					first.stop() // it would linger for an hour
				}
				first.fix()
				w.resolved(10 * time.Minute)
				if got := w.duplicates(); got != at.again {
					w.t.Errorf("%d rows delivered again, want %d", got, at.again)
				}
			})
		})
	}
}

func drainedIn(e observer.LoggedEntry) time.Duration {
	d, _ := e.ContextMap()["drained_in"].(time.Duration)
	return d
}

// A member that is stopped while it gives a partition up waits for what is
// in flight once, not twice.
func TestVirtualStopDuringARebalance(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 2}, func(w *world) {
		first := w.join().joined(2)
		first.act(hangs)
		both(w, plain(25)...)
		first.inState(consumer.StateWriting)
		second := w.join()
		w.until("a partition drains", time.Minute, func() bool {
			for _, p := range first.Status().Partitions {
				if p.State == consumer.StateDraining {
					return true
				}
			}
			return false
		})
		w.pass(2 * time.Second)
		began := time.Now()
		if got := first.stop(); got != vdrain {
			w.t.Errorf("the stop took %v, want exactly the drain", got)
		}
		if w.landings() > 0 && time.Since(began) < vdrain {
			w.t.Error("the second member wrote before the first had given up")
		}
		second.joined(2)
		w.resolved(time.Minute)
		if got := w.duplicates(); got != 0 {
			w.t.Errorf("%d rows delivered again, want none: the Writes that were cut off delivered nothing", got)
		}
	})
}

// A lost partition is cut off at once, nothing of it is committed, and the same
// member begins again where it had committed.
func TestVirtualLostWhileWriting(t *testing.T) {
	for protocol, fault := range map[string]kfake.Fault{
		"classic":  {Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.UnknownMemberID},
		"consumer": {Keys: []kmsg.Key{kmsg.ConsumerGroupHeartbeat}, TopLevel: true, Err: kerr.FencedMemberEpoch},
	} {
		t.Run(protocol, func(t *testing.T) {
			virtually(t, worldSetup{protocol: protocol, partitions: 2}, func(w *world) {
				m := w.join().joined(2)
				var cut []time.Time
				var at []int64 // what was committed then
				m.act(func(ctx context.Context, m *vmember, rows []vrow, land func()) error {
					err := loses(ctx, m, rows, land)
					committed := max(w.committedTo(0), w.committedTo(1))
					m.mu.Lock()
					cut, at = append(cut, time.Now()), append(at, committed)
					m.script = nil
					m.mu.Unlock()
					return err
				})
				both(w, plain(25)...)
				m.inState(consumer.StateWriting)
				h := w.fault(fault)
				began := time.Now()
				w.until("the heartbeat is refused", time.Minute, func() bool { return h.Hits() == 1 })
				w.resolved(time.Minute)
				if !slices.Equal(at, []int64{0, 0}) {
					w.t.Errorf("committed %v when the batches were cut off, want the start position", at)
				}
				if len(cut) != 2 || !cut[0].Equal(cut[1]) || cut[0].Sub(began) > vbeat {
					w.t.Errorf("the Writes were cut off at %v, want both with the heartbeat within %v of %v", cut, vbeat, began)
				}
				if got, want := m.counts.get(func() int { return m.counts.rebalanced["lost"] }), 2; got != want {
					w.t.Errorf("%d partitions were lost, want %d", got, want)
				}
				if got := w.duplicates(); got != 2*vrows {
					w.t.Errorf("%d rows delivered again, want the %d in flight", got, 2*vrows)
				}
			})
		})
	}
}

// A partition that is paused for the memory it holds, revoked, and given back
// flows again.
func TestVirtualPausedThenRevokedAndGivenBack(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 2, adjust: func(c *consumer.Config) { c.MaxBuffered = 40_000 }}, func(w *world) {
		m := w.join().joined(2)
		m.act(hangs)
		w.produce(0, plain(300)...)
		m.w.until("a partition is paused", time.Minute, func() bool {
			p, ok := m.partition(0)
			return ok && p.Paused
		})
		other := w.join()
		w.until("a partition moved", time.Minute, func() bool { return len(other.Status().Partitions) == 1 })
		m.fix()
		other.stop()
		m.joined(2)
		synctest.Wait()
		w.produce(0, "fresh")
		w.produce(1, "fresh")
		if took := w.resolved(time.Minute); took > time.Second {
			w.t.Errorf("it took %v until the events had flowed, want a second at most", took)
		}
		for _, p := range m.Status().Partitions {
			if p.Paused {
				w.t.Errorf("partition %d is still paused", p.Partition)
			}
		}
	})
}

// partition returns the status of one assigned partition.
func (m *vmember) partition(id int32) (consumer.PartitionStatus, bool) {
	for _, p := range m.Status().Partitions {
		if p.Partition == id {
			return p, true
		}
	}
	return consumer.PartitionStatus{}, false
}
