package zerobus

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// throttle holds writers back to a number of rows per second, which may change
// while they wait.
type throttle struct {
	mu      sync.Mutex    // guards the fields below
	rows    float64       // a second; 0: no limit
	limit   *rate.Limiter // nil: none
	changed chan struct{} // closed, and replaced, when limit is another
}

func newThrottle(rows float64) *throttle {
	return &throttle{rows: rows, limit: newLimiter(rows), changed: make(chan struct{})}
}

// newLimiter lets a second's worth of rows through at once.
func newLimiter(rows float64) *rate.Limiter {
	if rows <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(rows), int(min(max(math.Ceil(rows), 1), math.MaxInt32)))
}

// SetRateLimit changes Config.RateLimit: the rows sent per second over all
// callers, 0 for no limit; what is no such number counts as 0. Writers that
// wait go by the new one at once. It is safe for concurrent use.
func (c *Client) SetRateLimit(rows float64) {
	if rows != rows || rows < 0 {
		rows = 0
	}
	c.limit.set(rows)
}

func (t *throttle) set(rows float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rows == t.rows {
		return
	}
	t.rows, t.limit = rows, newLimiter(rows)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *throttle) now() (*rate.Limiter, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit, t.changed
}

// wait returns when n rows may be sent, in portions no larger than the
// limiter's burst. It reports whether ctx is still alive.
func (t *throttle) wait(ctx context.Context, n int) bool {
	for n > 0 {
		limit, changed := t.now()
		if limit == nil {
			return true
		}
		part := min(n, limit.Burst())
		r := limit.ReserveN(time.Now(), part)
		timer := time.NewTimer(r.Delay())
		select {
		case <-timer.C:
			n -= part
		case <-changed: // what was reserved of the old limit is nothing of the new
		case <-ctx.Done():
			r.Cancel()
		}
		timer.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}
