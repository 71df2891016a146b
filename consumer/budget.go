package consumer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Budget bounds, in bytes, the events that groups have polled and not yet
// delivered. Hand one Budget to several groups by [Config.Budget] to bound them
// together. The even share is the limit divided by the number of groups: those that
// run, or those that [Budget.Reserve] announced, if these are more.
//
// Each group may always hold its even share, so a stalled group cannot stop the
// others. Beyond that share a group takes what is free of the limit, up to twice its
// share. All groups together hold at most one and a half times the limit, and one
// poll each. One group alone holds the limit and one poll. A poll is sized by the
// room there is, and by the events before it.
//
// Groups that are added while others are stalled make the even share smaller, and
// what the others hold stays. The bound does not change. Once one and a half times
// the limit is held, an empty group may take one event at a time until the stalled
// groups deliver.
//
// An event that is larger than the share is admitted alone.
//
// Below these bounds a group holds at most 16 MiB of partitions that deliver within
// 40 ms: more would not be delivered sooner. What slower partitions hold comes on top.
//
// A Budget is safe for concurrent use.
type Budget struct {
	limit int64
	most  int64        // that all groups hold together
	used  atomic.Int64 // by all groups
	count atomic.Int64 // of groups that the limit is divided among

	mu       sync.Mutex // guards the fields below
	reserved int
	groups   map[*groupBudget]bool // those that run
}

// NewBudget returns a Budget of limit bytes.
func NewBudget(limit int64) *Budget {
	return &Budget{limit: limit, most: limit + limit/2, groups: make(map[*groupBudget]bool)}
}

// Reserve divides the limit among n groups from now on, even before they run. Call
// it with the number of configured groups before they start, and when it changes:
// then the order in which they start does not matter.
func (b *Budget) Reserve(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved = n
	b.divide()
}

// divide counts the groups again. The caller holds mu.
func (b *Budget) divide() {
	b.count.Store(int64(max(b.reserved, len(b.groups))))
	b.signalAll()
}

// signalAll has every group that waits look for room. The caller holds mu.
func (b *Budget) signalAll() {
	for g := range b.groups {
		g.signal()
	}
}

// groupBudget is the part of a Budget that one group uses. Only the group's poll
// loop waits on it; partitions give back.
type groupBudget struct {
	*Budget
	own   atomic.Int64  // bytes that the group holds
	slow  atomic.Int64  // of them, bytes of partitions that deliver slowly
	freed chan struct{} // holds one token when there may be room again
}

// promptHeld is how many bytes a group holds at most of partitions that deliver
// within promptDelivery.
const (
	promptHeld     = 16 << 20
	promptDelivery = 40 * time.Millisecond
)

func (b *Budget) group() *groupBudget {
	return &groupBudget{Budget: b, freed: make(chan struct{}, 1)}
}

// join counts the group among those that run, until leave.
func (g *groupBudget) join() { g.setRunning(true) }

func (g *groupBudget) leave() { g.setRunning(false) }

func (g *groupBudget) setRunning(running bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if running {
		g.groups[g] = true
	} else {
		delete(g.groups, g)
	}
	g.divide()
}

func (g *groupBudget) signal() {
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// shared is how many groups the limit is divided among.
func (g *groupBudget) shared() int64 { return max(g.count.Load(), 1) }

// even is the group's even share of the limit.
func (g *groupBudget) even() int64 { return g.limit / g.shared() }

func (g *groupBudget) take(n int64) {
	g.used.Add(n)
	g.own.Add(n)
}

// give returns what take took. Room for other groups appears only where the sum
// falls below a level that room compares it with, and one of those who give back
// sees that.
func (g *groupBudget) give(n int64) {
	g.own.Add(-n)
	all := g.used.Add(-n)
	g.signal()
	for _, level := range []int64{g.limit, g.most} {
		if all < level && all+n >= level {
			g.mu.Lock()
			g.signalAll()
			g.mu.Unlock()
		}
	}
}

// room returns how many bytes the group may still take; 0 or less when it has to
// wait.
func (g *groupBudget) room() int64 {
	even, own, used := g.even(), g.own.Load(), g.used.Load()
	room := max(min(even-own, g.most-used), min(2*even-own, g.limit-used))
	room = min(room, promptHeld+g.slow.Load()-own)
	if own == 0 {
		room = max(room, 1)
	}
	return room
}

// prefetch returns how many bytes of what is polled next the client may hold
// beside its fetches. It is what is left of the even share: the groups do not wait
// for each other when they fetch, so what is free would be counted once for each.
// It is less than 0 by what the group holds too much.
func (g *groupBudget) prefetch() int64 {
	even, own := g.even(), g.own.Load()
	over := min(min(2*even, g.limit)-own, 0)
	return min(max(g.room(), over), max(even-own, over))
}

// wait returns when there is room, or with the context's error. Not polling is
// the backpressure: the client stops fetching when its own small buffer is full,
// and heartbeats and rebalances continue. It calls look before each pause: the
// share may have changed, and a partition that was prompt may be slow by now.
func (g *groupBudget) wait(ctx context.Context, look func()) error {
	for g.room() <= 0 {
		if look(); g.room() > 0 {
			break
		}
		select {
		case <-g.freed:
		case <-time.After(promptDelivery / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// share is what one of n partitions may hold while memory is short. It is twice
// the partition's even share, so that under an even load the poll loop stops first
// and only an uneven partition is ever paused. From two partitions on it is less
// than the whole, so that no partition can take all the room from the others.
func (g *groupBudget) share(n int) int64 {
	return max(g.even()*2/int64(n+1), 1)
}

// tight reports whether memory is short enough to pause partitions that hold more
// than their share.
func (g *groupBudget) tight() bool {
	return g.used.Load() > g.limit/2 || g.own.Load() > g.even()/2
}
