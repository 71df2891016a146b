package zerobus

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Names of a State.
const (
	Ready    = "ready"    // the last answers were acks, or nothing was written yet
	Retrying = "retrying" // the service is away or busy; writes are retried
	Blocked  = "blocked"  // a configuration fault; writes wait until it is fixed
)

// State is the condition of the sink. All callers of Write share it. Its JSON is
// the object "sink" of /status.
type State struct {
	Name   string    `json:"state"`            // Ready, Retrying or Blocked
	Reason string    `json:"reason,omitempty"` // why it is not Ready; holds no secrets and no event data
	Remedy string    `json:"remedy,omitempty"` // what to do about it
	Since  time.Time `json:"since,omitzero"`   // when the state began; zero: ready since the start

	TokenMintedAt  time.Time `json:"token_minted_at,omitzero"`  // zero: none yet
	TokenExpiresAt time.Time `json:"token_expires_at,omitzero"` // zero: none yet, or the token endpoint names no expiry

	Table string `json:"table"` // catalog.schema.table
	// Transport is the one in use, TransportAuto until it is decided. Endpoint is where rows go:
	// scheme and host; empty until it is decided.
	Transport string `json:"transport"`
	Endpoint  string `json:"endpoint,omitempty"`
	// TransportReason is why the transport is in use. Holds no secrets and no event data.
	TransportReason string `json:"transport_reason,omitempty"`

	// Streams are the service's ids of the open gRPC streams, oldest first. The
	// service's own monitoring tables use them.
	Streams []string `json:"streams,omitempty"`

	// Confirmation is how the service last confirmed rows or an empty batch over
	// HTTP: ConfirmedByCount or ConfirmedWithoutCount; empty: not yet.
	Confirmation string `json:"-"`
}

const (
	probeAgain  = 5 * time.Second  // until the next probe, after one that met an outage
	secretEvery = time.Second      // between looks at the secret while blocked
	reportEvery = 30 * time.Second // between log lines while retrying
)

// breaker holds writers back while writing is blocked, lets one of them probe, and keeps
// the state. All writers share it: a fault is logged once, however many meet it.
type breaker struct {
	log            *zap.Logger
	probeEvery     time.Duration
	secretReplaced func() bool

	mu         sync.Mutex // guards the fields below
	state      State
	phase      int           // counts blocked phases, to recognize answers to older requests
	probing    bool          // one of the waiting writers probes
	probeAt    time.Time     // of the next probe
	wake       chan struct{} // closed, and replaced, when waiting writers should look again
	failing    int           // writers whose last answer was transient
	reportedAt time.Time     // of the last line about retrying
	reported   bool          // the present retrying state was logged
}

func newBreaker(log *zap.Logger, probeEvery time.Duration, secretReplaced func() bool) *breaker {
	return &breaker{log: log, probeEvery: probeEvery, secretReplaced: secretReplaced, state: State{Name: Ready}, wake: make(chan struct{})}
}

// permit allows one attempt. Each is given back by exactly one call of delivered, failed,
// block or abandon.
type permit struct {
	phase int
	probe bool
}

// acquire waits while writing is blocked. Of all that wait, one is let through per probe.
func (b *breaker) acquire(ctx context.Context) (permit, error) {
	for {
		b.mu.Lock()
		blocked, wake, phase := b.state.Name == Blocked, b.wake, b.phase
		probe := blocked && !b.probing
		b.probing = b.probing || probe
		b.mu.Unlock()
		p := permit{phase: phase, probe: probe}
		switch {
		case !blocked:
			return p, nil
		case probe:
			err := b.awaitProbe(ctx)
			if err != nil {
				b.abandon(p)
			}
			return p, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

// awaitProbe waits for the time of the next probe, or until the secret is replaced.
func (b *breaker) awaitProbe(ctx context.Context) error {
	for {
		b.mu.Lock()
		left := time.Until(b.probeAt)
		b.mu.Unlock()
		if left <= 0 || b.secretReplaced() {
			return nil
		}
		if !sleep(ctx, min(left, secretEvery)) {
			return context.Cause(ctx)
		}
	}
}

// probeNow has the next probe made within a second.
func (b *breaker) probeNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Name == Blocked {
		b.probeAt = time.Now()
	}
}

// delivered records an answer of a healthy service. Only a probe ends a blocked phase: an
// ack of an earlier request proves nothing.
func (b *breaker) delivered(p permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.release(p)
	before := b.state
	switch {
	case before.Name == Blocked && p.probe:
		b.log.Info("zerobus accepts rows again, writing resumed", zap.Duration("blocked_for", time.Since(before.Since)))
	case before.Name == Retrying && b.failing == 0:
		if b.reported {
			b.log.Info("zerobus is healthy again", zap.Duration("retried_for", time.Since(before.Since)))
		}
	default:
		return
	}
	b.state = State{Name: Ready, Since: time.Now()}
}

// failed records an attempt that will be retried. A probe that fails leaves the state
// blocked and comes again soon, since the fault may be fixed by now.
func (b *breaker) failed(p permit, e *Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.release(p)
	now := time.Now()
	switch b.state.Name {
	case Blocked:
		if p.probe {
			b.probeAt = now.Add(min(b.probeEvery, probeAgain))
		}
		return
	case Ready:
		b.state = State{Name: Retrying, Since: now}
		b.reported = false
	}
	b.state.Reason, b.state.Remedy = e.Reason(), e.Remedy
	// The pause spans states, or a service that fails one request in a hundred would
	// fill the log.
	if b.reportedAt.IsZero() || now.Sub(b.reportedAt) >= reportEvery {
		b.reportedAt, b.reported = now, true
		b.log.Warn("writing to zerobus is being retried", zap.String("reason", b.state.Reason), zap.String("remedy", b.state.Remedy),
			zap.Duration("for", now.Sub(b.state.Since)), zap.Int("writers", b.failing))
	}
}

// block records an attempt that met a configuration fault.
func (b *breaker) block(p permit, reason, remedy string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.release(p)
	now := time.Now()
	switch {
	case b.state.Name == Blocked && p.probe:
		b.probeAt = now.Add(b.probeEvery)
		b.state.Reason, b.state.Remedy = reason, remedy
	case b.state.Name != Blocked && p.phase == b.phase: // else a probe has found the fault fixed since
		b.begin(now, reason, remedy)
	}
}

// hold blocks writing for a fault that no attempt has met.
func (b *breaker) hold(reason, remedy string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.Name != Blocked {
		b.begin(time.Now(), reason, remedy)
	}
	b.state.Reason, b.state.Remedy = reason, remedy
}

// begin begins a blocked phase. Called with mu held.
func (b *breaker) begin(now time.Time, reason, remedy string) {
	b.phase++
	b.probeAt = now.Add(b.probeEvery)
	b.state = State{Name: Blocked, Reason: reason, Remedy: remedy, Since: now}
	b.log.Error("writing to zerobus is blocked until its configuration is fixed; nothing is lost meanwhile",
		zap.String("reason", reason), zap.String("remedy", remedy))
}

// abandon records an attempt without an answer.
func (b *breaker) abandon(p permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release(p)
}

// release allows the next probe and wakes the waiting writers. Called with mu held.
func (b *breaker) release(p permit) {
	if p.probe {
		b.probing = false
		close(b.wake)
		b.wake = make(chan struct{})
	}
}

// countFailing adds a writer to (+1) or removes it from (-1) those that keep failing.
func (b *breaker) countFailing(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing += n
}

func (b *breaker) now() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

const (
	backoffBase = 500 * time.Millisecond
	backoffMax  = 30 * time.Second
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

// errInterrupted is the error of a call that a panic of its caller has ended.
var errInterrupted = errors.New("a fault of the bridge interrupted it")

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
