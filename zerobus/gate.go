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
	Blocked  = "blocked"  // a configuration fault; writes wait until it is mended
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
	sayEvery    = 30 * time.Second // between log lines while retrying
)

// gate holds writers back while writing is blocked, lets one of them through
// to probe, and keeps the state. All writers share it: a fault is logged once,
// however many partitions meet it.
type gate struct {
	log        *zap.Logger
	probeEvery time.Duration
	replaced   func() bool // the client secret is a new one

	mu      sync.Mutex // guards the fields below
	state   State
	phase   int           // counts blocked phases; tells answers to older requests apart
	guarded bool          // one of the waiting writers does the probing
	probeAt time.Time     // of the next probe
	wake    chan struct{} // closed, and replaced, when waiting writers should look again
	failing int           // writers whose last answer was transient
	saidAt  time.Time     // of the last line about retrying
	said    bool          // the present retrying state was logged
}

func newGate(log *zap.Logger, probeEvery time.Duration, replaced func() bool) *gate {
	return &gate{log: log, probeEvery: probeEvery, replaced: replaced, state: State{Name: Ready}, wake: make(chan struct{})}
}

// pass is the permission to make one attempt. Each is given back by exactly
// one call of delivered, failed, block or abandon.
type pass struct {
	phase int
	probe bool
}

// enter waits while writing is blocked. Of all who wait, one is let through
// per probe.
func (g *gate) enter(ctx context.Context) (pass, error) {
	for {
		g.mu.Lock()
		if g.state.Name != Blocked {
			p := pass{phase: g.phase}
			g.mu.Unlock()
			return p, nil
		}
		if !g.guarded {
			g.guarded = true
			g.mu.Unlock()
			if err := g.vigil(ctx); err != nil {
				g.abandon(pass{probe: true})
				return pass{}, err
			}
			return pass{phase: g.phaseNow(), probe: true}, nil
		}
		wake := g.wake
		g.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return pass{}, context.Cause(ctx)
		}
	}
}

// vigil waits until it is time to probe: each probeEvery, or at once when the
// secret was replaced.
func (g *gate) vigil(ctx context.Context) error {
	for {
		g.mu.Lock()
		left := time.Until(g.probeAt)
		g.mu.Unlock()
		if left <= 0 || g.replaced() {
			return nil
		}
		if !sleep(ctx, min(left, secretEvery)) {
			return context.Cause(ctx)
		}
	}
}

// hurry has the next probe made within a second.
func (g *gate) hurry() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.Name == Blocked {
		g.probeAt = time.Now()
	}
}

func (g *gate) phaseNow() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase
}

// delivered says that the service answered as a healthy one does. Only a probe
// ends a blocked phase: an ack of a request from before proves nothing.
func (g *gate) delivered(p pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.state
	switch {
	case was.Name == Blocked && p.probe:
		g.state = State{Name: Ready, Since: time.Now()}
		g.log.Info("zerobus accepts rows again, writing goes on", zap.Duration("blocked_for", time.Since(was.Since)))
	case was.Name == Retrying && g.failing == 0:
		g.state = State{Name: Ready, Since: time.Now()}
		if g.said {
			g.log.Info("zerobus is healthy again", zap.Duration("retried_for", time.Since(was.Since)))
		}
	}
	g.unguard(p)
}

// failed says that an attempt is to be retried. A probe that fails so leaves
// the state blocked: nothing was learnt, so the next one comes soon. It may be
// that the fault is mended, and a replaced secret has had its only early try.
func (g *gate) failed(p pass, e *Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.unguard(p)
	now := time.Now()
	switch g.state.Name {
	case Blocked:
		if p.probe {
			g.probeAt = now.Add(min(g.probeEvery, probeAgain))
		}
		return
	case Ready:
		g.state = State{Name: Retrying, Since: now}
		g.said = false
	}
	g.state.Reason, g.state.Remedy = e.Reason(), e.Remedy
	// The pause holds over states too: a service that fails one request in a
	// hundred would otherwise fill the log with beginnings and ends.
	if g.saidAt.IsZero() || now.Sub(g.saidAt) >= sayEvery {
		g.saidAt, g.said = now, true
		g.log.Warn("writing to zerobus is being retried", zap.String("reason", g.state.Reason), zap.String("remedy", g.state.Remedy),
			zap.Duration("for", now.Sub(g.state.Since)), zap.Int("writers", g.failing))
	}
}

// block says that an attempt met a fault of configuration.
func (g *gate) block(p pass, reason, remedy string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.unguard(p)
	now := time.Now()
	if g.state.Name == Blocked {
		if p.probe {
			g.probeAt = now.Add(g.probeEvery)
			g.state.Reason, g.state.Remedy = reason, remedy
		}
		return
	}
	if p.phase != g.phase {
		return // refused by what a probe has found mended since; the next attempt will tell
	}
	g.phase++
	g.probeAt = now.Add(g.probeEvery)
	g.state = State{Name: Blocked, Reason: reason, Remedy: remedy, Since: now}
	g.log.Error("writing to zerobus is blocked until its configuration is mended; nothing is lost meanwhile",
		zap.String("reason", reason), zap.String("remedy", remedy))
}

// abandon says that an attempt was given up before it brought an answer.
func (g *gate) abandon(p pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unguard(p)
}

// unguard makes room for the next prober and wakes those who wait. Called with
// mu held.
func (g *gate) unguard(p pass) {
	if !p.probe {
		return
	}
	g.guarded = false
	close(g.wake)
	g.wake = make(chan struct{})
}

// streak counts a writer in (+1) or out (-1) of those that keep failing.
func (g *gate) streak(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failing += n
}

func (g *gate) now() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}
