package consumer

import (
	"context"
	"sync/atomic"
)

// budget bounds, in bytes and over all partitions, the events that are polled
// and not yet durable. Only the poll loop waits on it: partitions give back.
type budget struct {
	limit int64
	used  atomic.Int64
	freed chan struct{} // holds one token when used fell below limit
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, freed: make(chan struct{}, 1)}
}

func (b *budget) take(n int64) { b.used.Add(n) }

func (b *budget) give(n int64) {
	after := b.used.Add(-n)
	if after < b.limit && after+n >= b.limit {
		select {
		case b.freed <- struct{}{}:
		default:
		}
	}
}

// wait returns when there is room, or with the context's error. Not polling is
// the backpressure: the client stops fetching when its own small buffer is
// full, and goes on heartbeating and rebalancing meanwhile.
func (b *budget) wait(ctx context.Context) error {
	for b.used.Load() >= b.limit {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// share is what one of n partitions may hold while memory is short. It is
// twice the even share, so that under an even load the poll loop stops first
// and only an uneven partition is ever paused, and less than the whole from two
// partitions on, so that no partition can take all the room from the others.
func (b *budget) share(n int) int64 {
	return max(b.limit*2/int64(n+1), 1)
}

// tight tells whether memory is short enough to ask who holds too much.
func (b *budget) tight() bool { return b.used.Load() > b.limit/2 }
