//go:build synctests

package consumer_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
)

const vlimit = 64 << 20 // MaxBuffered of the tests below

// heavy are n events of 64 KiB.
func heavy(prefix string, n int) []string {
	all := texts(prefix, n)
	for i := range all {
		all[i] += strings.Repeat("x", 64<<10)
	}
	return all
}

func withHeavy(c *consumer.Config) {
	c.MaxRows, c.MaxBytes, c.MaxBuffered = 1000, 1<<20, vlimit
	c.FetchMaxBytes, c.FetchMaxPartitionBytes = 4<<20, 1<<20
}

// most has the member deliver and returns the most bytes that it held.
func (w *world) most(m *vmember, done func() bool) (most int64) {
	w.until("the events are delivered", 10*time.Minute, func() bool {
		most = max(most, m.Status().BufferedBytes)
		return done()
	})
	return most
}

// A member holds what its deliveries need: little while they are prompt, all it may
// while they are slow, and little again after that.
func TestVirtualHeldFollowsDeliveries(t *testing.T) {
	virtually(t, worldSetup{partitions: 4, adjust: withHeavy}, func(w *world) {
		m := w.join().joined(4)
		for i, tc := range []struct {
			takes       time.Duration
			least, most int64 // MiB held at the highest
		}{{5 * time.Millisecond, 4, 18}, {500 * time.Millisecond, 60, 66}, {5 * time.Millisecond, 4, 18}} {
			m.act(takes(tc.takes))
			for p := range int32(4) {
				w.produce(p, heavy("e", 400)...)
			}
			got := w.most(m, func() bool { return w.unsettled() == 0 }) >> 20
			if got < tc.least || got > tc.most {
				t.Errorf("%d: with Writes of %v the member held up to %d MiB, want %d to %d", i, tc.takes, got, tc.least, tc.most)
			}
		}
	})
}

// A partition whose Writes hang costs the others no room.
func TestVirtualBlockedPartitionLeavesRoom(t *testing.T) {
	virtually(t, worldSetup{partitions: 2, adjust: withHeavy}, func(w *world) {
		m := w.join().joined(2)
		m.act(func(ctx context.Context, m *vmember, rows []vrow, land func()) error {
			if rows[0].text[0] == 'h' {
				return hangs(ctx, m, rows, land)
			}
			return wait(ctx, 5*time.Millisecond)
		})
		w.produce(0, heavy("h", 700)...) // more than all the room
		w.produce(1, heavy("e", 700)...)
		delivered := func() bool {
			for _, p := range m.Status().Partitions {
				if p.Partition == 1 {
					return p.Marked == 700
				}
			}
			return false
		}
		if took := w.until("the other partition is delivered", time.Minute, delivered); took > 5*time.Second {
			t.Errorf("it took %v to deliver the other partition, want at most 5s", took)
		}
		if got := m.Status().BufferedBytes; got > vlimit+2<<20 {
			t.Errorf("the member holds %d bytes, want at most the limit and a poll", got)
		}
		m.fixSink()
		w.resolved(time.Minute)
	})
}

// A partition whose Writes begin to hang is slow after 40 ms. Until then its events may
// keep those of others from being read, and no longer, however many it has.
func TestVirtualSlowPartitionIsNoticedOnce(t *testing.T) {
	virtually(t, worldSetup{partitions: 2, adjust: withHeavy}, func(w *world) {
		m := w.join().joined(2)
		m.act(func(ctx context.Context, m *vmember, rows []vrow, land func()) error {
			if rows[0].text[0] == 'h' {
				return hangs(ctx, m, rows, land)
			}
			return nil
		})
		const hang = 600 // more than twice what is held of prompt partitions
		w.produce(0, heavy("h", hang)...)
		began := time.Now()
		w.produce(1, "e")
		for w.pass(0); w.unsettled() > hang; w.pass(time.Millisecond) {
			if time.Since(began) > 60*time.Millisecond {
				t.Errorf("an event of the other partition waits for %v and %d bytes are held, want it delivered", time.Since(began), m.Status().BufferedBytes)
				break
			}
		}
		m.fixSink()
		w.resolved(time.Minute)
	})
}
