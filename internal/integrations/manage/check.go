package manage

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
)

// Bounds of the checks.
const (
	checkTimeout = 20 * time.Second // of all steps
	stepTimeout  = 8 * time.Second
	maxChecks    = 4               // that run at a time
	installTurn  = 1 * time.Second // an install waits for its turn, then it is not tested
)

var nopLog = zap.NewNop()

// Check tries what an integration depends on, and calls step after each step.
// With a patch, it tries the integration as the patch would make it.
func (m *Manager) Check(ctx context.Context, id string, p *Patch, step func(pipeline.CheckStep)) error {
	d := m.o.Files()
	if i := fileOf(d, id); i != nil && p == nil {
		return m.check(ctx, i.Config, checkTimeout, step)
	}
	state, err := m.state(ctx)
	if err != nil {
		return err
	}
	r, err := target(d, state, id, 0)
	if err != nil {
		return err
	}
	vendors, _ := m.Catalog()
	if p == nil {
		p = &Patch{}
	}
	dr, f := apply(d, vendors, r, p)
	if len(f) > 0 {
		return f.refusal()
	}
	c, err := m.withSecrets(d, r, state.StoreID, &dr)
	if err != nil {
		return err
	}
	return m.check(ctx, c, checkTimeout, step)
}

// withSecrets returns the configuration of a draft of r with the secrets that were given, and
// those that are stored.
func (m *Manager) withSecrets(d *config.Deployment, r *store.Record, storeID string, dr *draft) (*config.Config, error) {
	secrets := map[string]string{}
	for field := range r.Secrets {
		if _, given := dr.given[field]; given {
			continue
		}
		secret, err := m.o.Store.Open(r, storeID, field)
		if err != nil {
			var f faults
			f.add("config."+field, "cannot be used: "+err.Error(), "give it again")
			return nil, f.refusal()
		}
		secrets[field] = secret
	}
	for field, secret := range dr.given {
		secrets[field] = secret
	}
	i, f := overlay(d, &dr.record, secrets)
	return i.Config, f.refusal()
}

// CheckRequest is Check for what is not installed yet.
func (m *Manager) CheckRequest(ctx context.Context, r Request, step func(pipeline.CheckStep)) error {
	d := m.o.Files()
	dr, err := m.draft(ctx, d, &r)
	if err != nil {
		return err
	}
	i, f := overlay(d, &dr.record, dr.given)
	if len(f) > 0 {
		return f.refusal()
	}
	return m.check(ctx, i.Config, checkTimeout, step)
}

// checkInstalled returns the steps of the check of what was just installed.
func (m *Manager) checkInstalled(ctx context.Context, d *config.Deployment, r *store.Record, secrets map[string]string) (steps []pipeline.CheckStep, err error) {
	i, f := overlay(d, r, secrets)
	if len(f) > 0 {
		return nil, f.refusal()
	}
	err = m.check(ctx, i.Config, installTurn, func(s pipeline.CheckStep) { steps = append(steps, s) })
	return steps, err
}

// turn waits until one more connection may be tested.
func (m *Manager) turn(ctx context.Context, most time.Duration) (release func(), err error) {
	patience, stop := context.WithTimeout(ctx, most)
	defer stop()
	select {
	case m.checks <- struct{}{}:
		return func() { <-m.checks }, nil
	case <-patience.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, &Error{Code: StoreUnavailable, Message: "other connections are being tested", Remedy: "test this one again later", RetryAfter: retryAfter}
	}
}

// check runs the steps within 20 seconds, the wait for its turn included.
func (m *Manager) check(ctx context.Context, c *config.Config, turn time.Duration, step func(pipeline.CheckStep)) error {
	within, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	release, err := m.turn(within, turn)
	if err != nil {
		return err
	}
	defer release()
	parts, err := pipeline.NewParts(c, m.o.Version, nopLog, m.o.Connections)
	if err != nil {
		return &Error{Code: ValidationFailed, Message: err.Error(), Err: err}
	}
	defer parts.Close()
	check := &pipeline.Check{Timeout: stepTimeout, Each: step}
	clusterID, reached := check.Kafka(within, parts, true)
	check.Topics(within, parts, reached)
	check.Group(within, parts, reached)
	check.Table(within, parts, true, clusterID, false)
	return ctx.Err()
}
