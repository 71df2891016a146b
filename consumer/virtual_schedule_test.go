//go:build synctests

package consumer_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/consumer"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "run TestVirtualSchedules with this seed alone")
	schedulesFlag = flag.Int("schedules", 400, "how many schedules TestVirtualSchedules runs")
)

// schedule decides by bytes: the same bytes are the same steps. When they are
// used up it continues with zeros.
type schedule struct{ rest []byte }

// pick returns one of n.
func (s *schedule) pick(n int) int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b) % n
}

func (s *schedule) over() bool { return len(s.rest) == 0 }

// seeded makes the schedule of a seed: 8 to 24 steps.
func seeded(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	steps := make([]byte, 20+r.IntN(40))
	for i := range steps {
		steps[i] = byte(r.Uint32())
	}
	return steps
}

// step is one thing that can happen. It returns what it did, or "" when it
// could not.
type step struct {
	weight int
	do     func(w *world, s *schedule) string
}

var codesOfCommits = []*kerr.Error{
	kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator,
	kerr.CoordinatorLoadInProgress, kerr.GroupAuthorizationFailed, kerr.StaleMemberEpoch, kerr.RequestTimedOut,
}

var codesOfHeartbeats = []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.NotCoordinator}

var codesOf848Heartbeats = []*kerr.Error{kerr.UnknownMemberID, kerr.FencedMemberEpoch, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress}

var codesOfFetches = []*kerr.Error{kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.UnknownTopicOrPartition, kerr.UnknownServerError, kerr.CorruptMessage}

var steps = []step{
	{6, func(w *world, s *schedule) string { // time passes
		d := []time.Duration{10 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 7 * time.Second}[s.pick(5)]
		w.pass(d)
		return fmt.Sprintf("%v pass", d)
	}},
	{5, func(w *world, s *schedule) string { // events arrive
		p, n := int32(s.pick(len(w.ends()))), 1+s.pick(40)
		events := plain(n)
		for i := range events {
			if kind := s.pick(24); kind < 3 {
				events[i] = []string{"bad", "drop", "poison"}[kind]
			}
		}
		w.produce(p, events...)
		return fmt.Sprintf("%d events for partition %d", n, p)
	}},
	{3, func(w *world, _ *schedule) string { // a member joins
		if w.alive() >= 4 {
			return ""
		}
		return w.join().name + " joins"
	}},
	{2, func(w *world, s *schedule) string { // a member stops
		m := w.oneOf(s)
		if m == nil {
			return ""
		}
		if took, most := m.stop(), vdrain+time.Second; took > most {
			w.t.Errorf("%s: the stop took %v, want at most %v", m.name, took, most)
		}
		return m.name + " stops"
	}},
	{2, func(w *world, s *schedule) string { // a member is killed
		m := w.oneOf(s)
		if m == nil {
			return ""
		}
		m.kill()
		return m.name + " is killed"
	}},
	{2, func(w *world, s *schedule) string { // a member is cut off, or joined again
		m := w.oneOf(s)
		if m == nil {
			return ""
		}
		m.mu.Lock()
		cut := m.cut
		m.cut = false
		m.mu.Unlock()
		if cut {
			return m.name + " has its network back"
		}
		m.sever()
		return m.name + " is cut off"
	}},
	{6, func(w *world, s *schedule) string { // a sink changes its ways
		m := w.oneOf(s)
		if m == nil {
			return ""
		}
		if how := s.pick(6); how > 0 {
			m.act([]script{takes(50 * time.Millisecond), takes(2 * time.Second), hangs, loses, refuses}[how-1])
			return fmt.Sprintf("%s: its sink %s", m.name, []string{"is slow", "is very slow", "hangs", "loses acknowledgements", "refuses all"}[how-1])
		}
		m.fixSink()
		return m.name + ": its sink is well"
	}},
	{3, func(w *world, s *schedule) string { // commits are refused
		code, n := codesOfCommits[s.pick(len(codesOfCommits))], 1+s.pick(4)
		w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: vgroup, Err: code, Count: n})
		return fmt.Sprintf("%d commits: %s", n, code.Message)
	}},
	{2, func(w *world, s *schedule) string { // heartbeats are refused
		for _, m := range w.members {
			m.mu.Lock()
			m.stray = true // it may be expelled in mid-Write
			m.mu.Unlock()
		}
		key, codes := kmsg.Heartbeat, codesOfHeartbeats
		if w.cfg.Protocol == "consumer" {
			key, codes = kmsg.ConsumerGroupHeartbeat, codesOf848Heartbeats
		}
		code := codes[s.pick(len(codes))]
		w.fault(kfake.Fault{Keys: []kmsg.Key{key}, TopLevel: true, Err: code})
		return "a heartbeat: " + code.Message
	}},
	{2, func(w *world, s *schedule) string { // fetches are refused
		code, n := codesOfFetches[s.pick(len(codesOfFetches))], 1+s.pick(8)
		w.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: vtopic, Err: code, Count: n})
		return fmt.Sprintf("%d fetches: %s", n, code.Message)
	}},
	{1, func(w *world, s *schedule) string { // dead letters are refused
		if s.pick(2) == 0 {
			w.deadLetterFault.Store(nil)
			return "dead letters are taken"
		}
		w.refuseDeadLetters(kerr.TopicAuthorizationFailed)
		return "dead letters are refused"
	}},
	{2, func(w *world, _ *schedule) string { // the coordinator moves
		w.kafka.RehashCoordinators()
		return "the coordinator moves"
	}},
	{2, func(w *world, s *schedule) string { // a leader moves
		p, to := int32(s.pick(len(w.ends()))), int32(s.pick(2))
		if err := w.kafka.MoveTopicPartition(vtopic, p, to); err != nil {
			w.t.Fatal(err)
		}
		return fmt.Sprintf("the leader of partition %d is broker %d", p, to)
	}},
	{1, func(w *world, _ *schedule) string { // partitions are added
		n := len(w.ends()) + 1
		if n > 6 {
			return ""
		}
		w.addPartitions(int32(n))
		return "a partition is added"
	}},
}

// lots is steps by weight.
var lots = func() (all []step) {
	for _, s := range steps {
		for range s.weight {
			all = append(all, s)
		}
	}
	return all
}()

func (w *world) alive() (n int) {
	for _, m := range w.members {
		if !m.ended() {
			n++
		}
	}
	return n
}

// oneOf picks a member that is alive; nil if there is none.
func (w *world) oneOf(s *schedule) *vmember {
	i := s.pick(4)
	alive := slices.DeleteFunc(slices.Clone(w.members), (*vmember).ended)
	if len(alive) == 0 {
		return nil
	}
	return alive[i%len(alive)]
}

// play runs a schedule from its first byte to a world at rest.
func play(t *testing.T, moves []byte) {
	s := &schedule{moves}
	// While two brokers disagree on who leads, a client goes back and forth
	// between them until it may look the leaders up; that has to take time.
	setup := worldSetup{partitions: 1 + s.pick(3), brokers: 2, latency: time.Millisecond}
	setup.protocol = []string{"classic", "consumer"}[s.pick(2)]
	skip, tight := s.pick(4) == 0, s.pick(4) == 0
	setup.adjust = func(c *consumer.Config) {
		if skip {
			c.Rejects.Policy = consumer.PolicySkip
		}
		if tight {
			c.MaxBuffered = 8_000 // about three Writes
		}
	}
	var reported []string
	t.Cleanup(func() {
		if t.Failed() {
			for _, line := range reported {
				t.Log(line)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, setup)
		w.restless = true
		defer w.close()
		reported = append(reported, fmt.Sprintf("%d partitions, %s protocol, policy %s, %d bytes", setup.partitions, setup.protocol, w.cfg.Rejects.Policy, w.cfg.MaxBuffered))
		w.join()
		for !s.over() {
			at := time.Since(w.began)
			if did := lots[s.pick(len(lots))].do(w, s); did != "" {
				reported = append(reported, fmt.Sprintf("after %v: %s", at, did))
			}
			w.look()
		}
		w.finish()
	})
}

// Whatever happens in whatever order, the promise holds at every step and
// everything has its one end when the world has come to rest. The seed repeats
// the steps; which of two things that are due at one moment comes first is the
// scheduler's to say.
func TestVirtualSchedules(t *testing.T) {
	first, n := uint64(1), *schedulesFlag
	if *seedFlag > 0 {
		first, n = *seedFlag, 1
	} else if testing.Short() || raceEnabled {
		n = max(n/8, 1)
	}
	began := time.Now()
	for seed := first; seed < first+uint64(n); seed++ {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { play(t, seeded(seed)) }) {
			t.Fatalf("repeat it with: go test -tags synctests ./consumer -run TestVirtualSchedules -seed %d", seed)
		}
	}
	took := time.Since(began)
	t.Logf("%d schedules in %v, %.0f a second", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
}

func FuzzVirtualSchedule(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seeded(seed + 1))
	}
	f.Fuzz(func(t *testing.T, moves []byte) {
		if len(moves) > 120 {
			t.Skip("long schedules find nothing that short ones do not")
		}
		play(t, moves)
	})
}
