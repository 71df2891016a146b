//go:build synctests

package consumer_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafka"
)

// commitRefusals are what brokers may answer an OffsetCommit with.
var commitRefusals = []struct {
	code *kerr.Error
	// reported is how many refusals the bridge hears of; the client tries again
	// alone where the coordinator is on its way.
	reported int
	// in is how long it takes at most until all is committed: the early commits
	// that were refused and the one that was not. 0: threeTicks.
	in time.Duration
}{
	{kerr.UnknownServerError, 3, threeEarly},
	{kerr.OffsetMetadataTooLarge, 3, threeEarly},
	{kerr.UnknownTopicOrPartition, 3, threeEarly},
	{kerr.UnknownTopicID, 3, threeEarly},
	{kerr.TopicAuthorizationFailed, 3, threeEarly},
	{kerr.GroupAuthorizationFailed, 3, threeEarly},
	{kerr.InvalidCommitOffsetSize, 3, threeEarly},
	{kerr.InvalidGroupID, 3, threeEarly},
	{kerr.GroupIDNotFound, 3, threeEarly},
	{kerr.FencedInstanceID, 3, threeEarly},
	{kerr.FencedMemberEpoch, 3, threeEarly},
	{kerr.RebalanceInProgress, 3, threeEarly},
	// The client tries this one again for half a second alone.
	{kerr.StaleMemberEpoch, 3, 1900 * time.Millisecond},
	{kerr.UnsupportedVersion, 3, threeEarly},
	// A classic member joins again, and gives up its generation with a
	// commit each time.
	{kerr.IllegalGeneration, 3, 0},
	{kerr.UnknownMemberID, 3, 0},
	{kerr.NotCoordinator, 0, 0},
	{kerr.CoordinatorNotAvailable, 0, 0},
	{kerr.CoordinatorLoadInProgress, 0, 0},
}

const (
	threeTicks = 3*vcommit + vcommit/2
	// threeEarly is when the fourth commit of an assignment comes: the second
	// partition's first batch has the gaps begin again.
	threeEarly = 400 * time.Millisecond
)

// Commits that are refused cost nothing but what would be repeated after a
// crash: events flow on, nothing is committed that was not acknowledged, no
// partition is given up, and the first commit that is taken covers it all.
func TestVirtualCommitsRefused(t *testing.T) {
	for _, c := range commitRefusals {
		t.Run(c.code.Message, func(t *testing.T) {
			bothProtocols(t, worldSetup{partitions: 2}, func(w *world) {
				m := w.join().joined(2)
				w.pass(vcommit / 2) // between two ticks
				h := w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: vgroup, Err: c.code, Count: 3})
				both(w, plain(25)...)
				// The second partition's are in the next fetch.
				if took := w.resolved(time.Minute); took > 2*kafka.FetchInterval {
					w.t.Errorf("it took %v until the events had flowed, want %v", took, kafka.FetchInterval)
				}
				took := w.until("all is committed", time.Minute, func() bool { return w.committedTo(0) == 25 && w.committedTo(1) == 25 })
				// Each of the four commits may wait behind a fetch to the same broker.
				if most := cmp.Or(c.in, threeTicks) + 4*kafka.FetchInterval; took > most {
					w.t.Errorf("all was committed after %v, want it within %v", took, most)
				}
				if h.Hits() != 3 {
					w.t.Errorf("%d commits were refused, want 3", h.Hits())
				}
				if got := m.counts.get(func() int { return m.counts.commitErrors }); got != c.reported {
					w.t.Errorf("%d refusals were reported, want %d", got, c.reported)
				}
				if got := m.logs.FilterMessageSnippet("committing offsets fails").Len(); got != min(c.reported, 1) {
					w.t.Errorf("got %d lines about failing commits, want %d", got, min(c.reported, 1))
				}
				if got := m.counts.get(func() int { return m.counts.rebalanced["lost"] + m.counts.rebalanced["revoked"] }); got != 0 {
					w.t.Errorf("%d partitions were given up", got)
				}
				w.look()
			})
		})
	}
}

// A commit may be applied though its answer is a timeout.
func TestVirtualCommitTimesOutAndIsApplied(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 1}, func(w *world) {
		m := w.join().joined(1)
		w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: vgroup, Err: kerr.RequestTimedOut, Count: 1})
		w.produce(0, plain(25)...)
		w.until("all is committed", time.Minute, func() bool { return w.committedTo(0) == 25 })
		w.pass(3 * vcommit)
		if got := m.counts.get(func() int { return m.counts.commitErrors }); got != 1 {
			w.t.Errorf("%d refusals were reported, want 1", got)
		}
		w.look()
	})
}

// What is not committed when a member is killed is delivered again: what was
// in flight and what was marked since the last commit that was taken.
func TestVirtualKilledWhileCommitsAreRefused(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 1}, func(w *world) {
		m := w.join().joined(1)
		m.act(takes(100 * time.Millisecond))
		w.produce(0, plain(1000)...)
		w.pass(2500 * time.Millisecond)
		w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: vgroup, Err: kerr.GroupAuthorizationFailed, Count: 3})
		w.pass(3 * time.Second)
		before, delivered := w.committedTo(0), w.landings()
		m.kill()
		w.join().joined(1)
		w.resolved(time.Minute)
		if got, want := w.duplicates(), delivered-int(before); got != want {
			w.t.Errorf("%d rows delivered again, want the %d between the last commit and the kill", got, want)
		}
	})
}

// A killed member's partitions move when the session is over, and what is delivered
// again is what was in flight and one commit interval's worth.
func TestVirtualKilled(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 4}, func(w *world) {
		first, second := w.join(), w.join()
		first.joined(2)
		second.joined(2)
		w.pass(10 * time.Second) // nobody's first heartbeat
		const ack = 100 * time.Millisecond
		first.act(takes(ack))
		second.act(takes(ack))
		for p := range int32(4) {
			w.produce(p, plain(1000)...)
		}
		w.pass(3300 * time.Millisecond)
		first.kill()
		took := w.until("the other member has all partitions", time.Minute, func() bool { return len(second.Status().Partitions) == 4 })
		if took > vexpiry+vbeat {
			w.t.Errorf("the takeover took %v, want at most the session and a heartbeat: %v", took, vexpiry+vbeat)
		}
		w.resolved(5 * time.Minute)
		most := 2 * (vrows + vrows*int(vcommit/ack)) // of each of its partitions
		if got := w.duplicates(); got == 0 || got > most {
			w.t.Errorf("%d rows delivered again, want some and at most %d: those in flight and a commit interval's", got, most)
		}
	})
}

// The first batch of an assignment is committed as it is acknowledged, and the
// next ones in growing gaps.
func TestVirtualFirstBatchIsCommittedAtOnce(t *testing.T) {
	bothProtocols(t, worldSetup{partitions: 1}, func(w *world) {
		const ack = 40 * time.Millisecond
		w.pass(vcommit / 3) // no tick of the client falls on an acknowledgement
		m := w.join().joined(1)
		m.act(takes(ack))
		w.produce(0, plain(1000)...)
		began := time.Now()
		for _, want := range []struct {
			after time.Duration // the first acknowledgement
			at    int64
		}{{0, vrows}, {90 * time.Millisecond, vrows}, {110 * time.Millisecond, 3 * vrows}, {310 * time.Millisecond, 8 * vrows}, {710 * time.Millisecond, 18 * vrows}} {
			w.pass(time.Until(began.Add(ack + time.Millisecond + want.after)))
			if got := w.committedTo(0); got < want.at || want.after == 0 && got != want.at {
				w.t.Errorf("%v after the first acknowledgement %d is committed, want %d at least", want.after, got, want.at)
			}
		}
		w.resolved(time.Minute)
	})
}

// A member that keeps dying young makes progress: of what a life delivers about
// half is committed, so no event is delivered more than three times.
func TestVirtualCrashLoopMakesProgress(t *testing.T) {
	for life, most := range map[time.Duration]int{
		150 * time.Millisecond: 3,
		800 * time.Millisecond: 3,
		3 * time.Second:        2, // a commit interval's and what was in flight
	} {
		t.Run(life.String(), func(t *testing.T) {
			bothProtocols(t, worldSetup{partitions: 1}, func(w *world) {
				w.produce(0, plain(1000)...)
				before := int64(0)
				for range 5 {
					m := w.join()
					m.act(takes(50 * time.Millisecond))
					m.joined(1)
					w.pass(life)
					m.kill()
					at := w.committedTo(0)
					if at <= before && before < 1000 {
						w.t.Errorf("a life of %v has committed nothing behind %d", life, before)
					}
					before = at
				}
				if got := w.mostLandings(); got > most {
					w.t.Errorf("an event was delivered %d times, want at most %d", got, most)
				}
				w.join().joined(1)
				w.resolved(time.Minute)
			})
		})
	}
}

// A member that the group has forgotten joins again without learning that it has lost
// its partitions, and is stopped meanwhile. What it delivered as the former member is
// not committed: others may have owned the partitions, and committed more.
func TestVirtualStopAfterTheGroupForgotTheMember(t *testing.T) {
	virtually(t, worldSetup{partitions: 1, protocol: "classic"}, func(w *world) {
		m := w.join().joined(1)
		refused := w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: vgroup, Err: kerr.GroupAuthorizationFailed, Count: 1000})
		w.produce(0, plain(25)...)
		w.until("all is delivered", time.Minute, func() bool { return w.landings() == 25 })
		before := w.committedTo(0)

		former := m.Status().MemberID
		joining, stopping := make(chan struct{}), make(chan struct{})
		w.kafka.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
			switch id := req.(*kmsg.JoinGroupRequest).MemberID; {
			case id == former:
				w.kafka.SleepControl(func() { w.expel(former) })
			case id != "" && joining != nil:
				close(joining)
				joining = nil
				w.kafka.SleepControl(func() { <-stopping; <-time.After(commitsLate) })
			}
			return nil, nil, false
		})
		joins := joining
		w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.RebalanceInProgress, Count: 1})
		<-joins
		refused.Remove()
		close(stopping)
		m.stop()
		if got := w.committedTo(0); got != before {
			w.t.Errorf("offset %d is committed, want %d as before: the group had forgotten the member that delivered up to it", got, before)
		}
		w.join().joined(1)
		w.resolved(time.Minute)
	})
}

// commitsLate is how long a commit of a stop waits for the join.
const commitsLate = 200 * time.Millisecond
