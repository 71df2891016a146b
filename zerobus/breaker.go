package zerobus

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
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

	Table     string `json:"table"`     // catalog.schema.table
	Transport string `json:"transport"` // TransportWorkspace, TransportGRPC or TransportREST

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
		b.phase++
		b.probeAt = now.Add(b.probeEvery)
		b.state = State{Name: Blocked, Reason: reason, Remedy: remedy, Since: now}
		b.log.Error("writing to zerobus is blocked until its configuration is fixed; nothing is lost meanwhile",
			zap.String("reason", reason), zap.String("remedy", remedy))
	}
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
