package consumer_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/consumer"
)

// counts is an observer that remembers.
type counts struct {
	mu                                      sync.Mutex
	read, delivered, deadLettered, wasSplit int
	rejected, filtered, rebalanced          map[string]int
	committed, commitErrors                 int
	forgotten                               int
	lost, skipped                           int64 // offsets
	announced                               int   // partitions whose offsets were announced
}

func newCounts() *counts {
	return &counts{rejected: map[string]int{}, filtered: map[string]int{}, rebalanced: map[string]int{}}
}

func (c *counts) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// get reads a number under the lock.
func (c *counts) get(f func() int) (n int) {
	c.with(func() { n = f() })
	return n
}

func (c *counts) EventsRead(_ string, _ int32, n, _ int) { c.with(func() { c.read += n }) }
func (c *counts) OffsetsPassed(_ string, _ int32, lost, skipped int64) {
	c.with(func() {
		c.lost += lost
		c.skipped += skipped
		if lost == 0 && skipped == 0 {
			c.announced++
		}
	})
}
func (c *counts) RowsDelivered(_ string, _ int32, n, _ int, _ time.Duration) {
	c.with(func() { c.delivered += n })
}
func (c *counts) EventRejected(_, code string)          { c.with(func() { c.rejected[code]++ }) }
func (c *counts) EventFiltered(_, reason string, n int) { c.with(func() { c.filtered[reason] += n }) }
func (c *counts) DeadLettered(_ string, n int)          { c.with(func() { c.deadLettered += n }) }
func (c *counts) BatchSplit(string)                     { c.with(func() { c.wasSplit++ }) }
func (c *counts) Rebalanced(kind string, n int)         { c.with(func() { c.rebalanced[kind] += n }) }
func (c *counts) Forget(string, int32)                  { c.with(func() { c.forgotten++ }) }
func (c *counts) Committed(err error) {
	c.with(func() {
		if err != nil {
			c.commitErrors++
		} else {
			c.committed++
		}
	})
}

// How far a group is behind is the age of its oldest unacknowledged event by the event's own
// timestamp, without the partitions that are blocked.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		tab := newTable(t)
		tab.set(hold(release, every))
		l, err := consumer.NewLab(labConfig(), tab, toRow, newCounts(), nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		behind := func() time.Duration { return consumer.Behind([]consumer.PartitionStatus{l.Status()}) }
		if got := behind(); got != 0 {
			t.Errorf("without events: got %v, want 0", got)
		}
		recs := events(0, 2)
		recs[0].Timestamp, recs[1].Timestamp = time.Now().Add(-time.Hour), time.Now()
		l.Push(recs...)
		if got := behind(); got != time.Hour {
			t.Errorf("got %v, want the hour since the first event", got)
		}
		one := l.Status()
		blocked := one
		one.Behind, blocked.State, blocked.Behind = consumer.Seconds(time.Minute), consumer.StateBlocked, consumer.Seconds(time.Hour)
		if got := consumer.Behind([]consumer.PartitionStatus{blocked, one}); got != time.Minute {
			t.Errorf("beside a blocked partition: got %v, want the minute of the other", got)
		}
		close(release)
		synctest.Wait()
		if got := behind(); got != 0 {
			t.Errorf("all acknowledged: got %v, want 0", got)
		}
	})
}
