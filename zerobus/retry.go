package zerobus

import (
	"context"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	backoffBase   = 500 * time.Millisecond
	backoffMax    = 30 * time.Second
	retryAfterMax = 10 * time.Minute // a longer wish is a fault of the service or a proxy
)

// delay returns how long to wait before the given retry (0 is the first), with full jitter:
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
// A Retry-After is waited out in full, plus the jitter of the first step.
func delay(retry int, retryAfter time.Duration, jitter func(time.Duration) time.Duration) time.Duration {
	if retryAfter > 0 {
		return retryAfter + jitter(backoffBase)
	}
	return jitter(min(backoffMax, backoffBase<<min(retry, 10)))
}

// fullJitter returns a random duration from 0 to d.
func fullJitter(d time.Duration) time.Duration { return rand.N(d + 1) }

// retryAfter reads the Retry-After header: seconds or an HTTP date (RFC 9110, section
// 10.2.3). A missing, past or malformed one is 0.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, retryAfterMax)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), retryAfterMax)
}

// sleep waits for d, or until ctx ends, and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// call is an operation that one caller runs for all that need its result. The other fields
// may be read once done is closed.
type call[T any] struct {
	done      chan struct{}
	value     T
	err       error
	abandoned bool // the running caller's context ended: the result does not count
}

// join returns the call under way, or begins one that is the caller's to run.
func join[T any](current **call[T]) (c *call[T], mine bool) {
	if *current == nil {
		*current, mine = &call[T]{done: make(chan struct{})}, true
	}
	return *current, mine
}

// wait returns the result; again asks the caller to start over.
func (c *call[T]) wait(ctx context.Context, mine bool) (value T, again bool, err error) {
	select {
	case <-c.done:
		return c.value, c.abandoned && !mine, c.err
	case <-ctx.Done():
		return value, false, context.Cause(ctx)
	}
}

// throttle limits writers to a number of rows per second, which may change while they wait.
type throttle struct {
	mu      sync.Mutex    // guards the fields below
	rows    float64       // per second; 0: no limit
	limit   *rate.Limiter // nil: none
	changed chan struct{} // closed, and replaced, with every change
}

func newThrottle(rows float64) *throttle {
	t := &throttle{changed: make(chan struct{})}
	t.set(rows)
	return t
}

// SetRateLimit changes Config.RateLimit: the rows sent per second by all callers, 0 for no
// limit; negative numbers and NaN count as 0. It also applies to waiting writers, at once.
// It is safe for concurrent use.
func (c *Client) SetRateLimit(rows float64) { c.throttle.set(rows) }

func (t *throttle) set(rows float64) {
	if math.IsNaN(rows) || rows < 0 {
		rows = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if rows == t.rows {
		return
	}
	t.rows, t.limit = rows, nil
	if rows > 0 { // the burst is one second's rows
		t.limit = rate.NewLimiter(rate.Limit(rows), int(min(max(math.Ceil(rows), 1), math.MaxInt32)))
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// wait returns when n rows may be sent, in portions of at most the limiter's burst. It
// reports whether ctx is still alive.
func (t *throttle) wait(ctx context.Context, n int) bool {
	for n > 0 {
		t.mu.Lock()
		limit, changed := t.limit, t.changed
		t.mu.Unlock()
		if limit == nil {
			return true
		}
		part := min(n, limit.Burst())
		r := limit.ReserveN(time.Now(), part)
		timer := time.NewTimer(r.Delay())
		select {
		case <-timer.C:
			n -= part
		case <-changed: // the reservation was with the old limit
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

const (
	// refusalRepeat is the minimum time between the two refusals after which a row is
	// given up. A gateway that misbehaves for a moment costs no row.
	refusalRepeat = time.Second

	refusalsMax = 1 << 15         // rows remembered, in each of two generations
	refusalsAge = 5 * time.Minute // for at least this long, up to refusalsMax
)

// refusals remembers when rows were first refused, alone or in a batch. The parts of a
// refused batch then wait for refusalRepeat once, not once per bad row. A forgotten row
// only costs another wait.
type refusals struct {
	seed maphash.Seed

	mu          sync.Mutex // guards the fields below
	recent, old map[uint64]time.Time
	began       time.Time // of recent
}

func newRefusals() *refusals { return &refusals{seed: maphash.MakeSeed()} }

// note remembers that the rows were refused now, unless they were before, and returns how
// long to wait until the next refusal of the first of them counts.
func (r *refusals) note(rows ...[]byte) time.Duration {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var left time.Duration
	for i, row := range rows {
		if at := r.first(row, now); i == 0 {
			left = max(at.Add(refusalRepeat).Sub(now), 0)
		}
	}
	return left
}

// first returns when the row was first refused, now at the latest. Called with mu held.
func (r *refusals) first(row []byte, now time.Time) time.Time {
	if len(r.recent) >= refusalsMax || now.Sub(r.began) > refusalsAge {
		if r.old = r.recent; now.Sub(r.began) > 2*refusalsAge {
			r.old = nil
		}
		r.recent, r.began = map[uint64]time.Time{}, now
	}
	key := maphash.Bytes(r.seed, row)
	at, known := r.recent[key]
	if !known {
		if at, known = r.old[key]; !known {
			at = now
		}
		r.recent[key] = at
	}
	return at
}
