package consumer

import (
	"context"
	"sync"
	"sync/atomic"
)

// Budget bounds, in bytes, the events that groups have polled and not yet
// delivered. Hand one Budget to several groups by [Config.Budget] to bound them
// together. Each group that runs may always hold its even share of the limit, so a
// stalled group cannot stop the others. Beyond that share a group takes
// what is free of the limit, up to twice its share while others run. All groups
// together hold at most one and a half times the limit, and one fetch answer each.
// It can be more after a third group has joined: it takes its even share even if the
// first two hold all they could. That lasts until they have delivered it.
// A Budget is safe for concurrent use.
type Budget struct {
	limit int64
	used  atomic.Int64 // by all groups
	count atomic.Int64 // of groups

	mu     sync.Mutex // guards groups
	groups map[*groupBudget]bool
}

// NewBudget returns a Budget of limit bytes.
func NewBudget(limit int64) *Budget {
	return &Budget{limit: limit, groups: make(map[*groupBudget]bool)}
}

// groupBudget is the part of a Budget that one group uses. Only the group's poll
// loop waits on it; partitions give back.
type groupBudget struct {
	*Budget
	own   atomic.Int64  // bytes that the group holds
	freed chan struct{} // holds one token when there may be room again
}

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
	g.count.Store(int64(len(g.groups)))
	for other := range g.groups {
		other.signal()
	}
}

func (g *groupBudget) signal() {
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// even is the group's even share of the limit.
func (g *groupBudget) even() int64 { return g.limit / max(g.count.Load(), 1) }

func (g *groupBudget) take(n int64) {
	g.used.Add(n)
	g.own.Add(n)
}

func (g *groupBudget) give(n int64) {
	own, all := g.own.Add(-n), g.used.Add(-n)
	if all < g.limit && all+n >= g.limit {
		g.mu.Lock()
		for other := range g.groups {
			other.signal()
		}
		g.mu.Unlock()
	}
	if even := g.even(); own < 2*even && own+n >= even {
		g.signal()
	}
}

// room returns how many bytes the group may still take; 0 or less when it has to
// wait.
func (g *groupBudget) room() int64 {
	even, own := g.even(), g.own.Load()
	free := g.limit - g.used.Load()
	if g.count.Load() > 1 {
		free = min(free, 2*even-own)
	}
	return max(free, even-own)
}

// wait returns when there is room, or with the context's error. Not polling is
// the backpressure: the client stops fetching when its own small buffer is full,
// and heartbeats and rebalances continue.
func (g *groupBudget) wait(ctx context.Context) error {
	for g.room() <= 0 {
		select {
		case <-g.freed:
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
