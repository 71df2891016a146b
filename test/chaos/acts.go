package main

import (
	"context"
	"syscall"
	"time"
)

// doing is a fault that has begun.
type doing struct {
	fault
	kind  kind
	began time.Time
	ended time.Time // zero while it lasts
}

// last waits for a fault's length.
func (r *run) last(d *doing) { hold(r.ctx, d.Length) }

func (r *run) memberTerm(d *doing) error {
	if _, p := r.fleet.pick(d.Target); p != nil {
		r.fleet.terminate(r.ctx, p)
	}
	return nil
}

func (r *run) memberKill(d *doing) error {
	if _, p := r.fleet.pick(d.Target); p != nil {
		p.ask(syscall.SIGKILL)
	}
	return nil
}

func (r *run) memberStop(d *doing) error {
	if _, p := r.fleet.pick(d.Target); p != nil {
		resume := p.stop()
		r.last(d)
		resume()
	}
	return nil
}

func (r *run) memberJoin(d *doing) error {
	s := r.fleet.grow(r.life, true)
	r.last(d)
	r.fleet.set(s, false, logKept)
	if p := r.fleet.process(s); p != nil && p.running() {
		r.fleet.terminate(r.ctx, p)
	}
	return nil
}

func (r *run) memberLeave(d *doing) error {
	s, p := r.fleet.pick(d.Target)
	if p == nil || len(r.fleet.running()) < 2 {
		return nil
	}
	r.fleet.set(s, false, logKept)
	r.fleet.terminate(r.ctx, p)
	r.last(d)
	r.fleet.set(s, true, logKept)
	return nil
}

func (r *run) restartAll(*doing) error {
	for _, s := range r.fleet.running() {
		if p := r.fleet.process(s); p != nil {
			p.ask(syscall.SIGTERM)
		}
	}
	return nil
}

func (r *run) diskFull(d *doing) error   { return r.unheard(d, logFull) }
func (r *run) logStalled(d *doing) error { return r.unheard(d, logStalled) }

// unheard starts a member whose log goes nowhere, and after a while one that is
// heard. It waits until deleted records are reported: this member's report would
// not be heard.
func (r *run) unheard(d *doing, log logTo) error {
	r.reports.Lock()
	defer r.reports.Unlock()
	if !r.until(r.ctx, deliveredWithin, func() bool { return !r.ledger.reportsAwaited() }) {
		r.say("no member loses its log: a report of deleted records is awaited")
		return nil
	}
	s, p := r.fleet.pick(d.Target)
	if p == nil {
		return nil
	}
	r.fleet.set(s, true, log)
	r.fleet.terminate(r.ctx, p)
	r.last(d)
	r.fleet.set(s, true, logKept)
	if p := r.fleet.process(s); p != nil && p.running() {
		r.fleet.terminate(r.ctx, p)
	}
	return nil
}

// under puts weather on proxies for the fault's length.
func (r *run) under(d *doing, w weather, proxies ...*proxy) error {
	for _, p := range proxies {
		defer p.add(w)()
	}
	r.last(d)
	return nil
}

func (r *run) oneNetwork(d *doing) *proxy { return r.rig.networks[d.Target%len(r.rig.networks)] }

func (r *run) brokerCut(d *doing) error {
	return r.under(d, weather{cut: true}, r.oneNetwork(d))
}

func (r *run) brokersCut(d *doing) error {
	return r.under(d, weather{cut: true}, r.rig.networks...)
}

func (r *run) brokerHole(d *doing) error {
	return r.under(d, weather{hole: true}, r.oneNetwork(d))
}

func (r *run) brokerLatency(d *doing) error {
	return r.under(d, weather{latency: 250 * time.Millisecond}, r.rig.networks...)
}

func (r *run) brokerSlow(d *doing) error {
	return r.under(d, weather{rate: 64 << 10}, r.oneNetwork(d))
}

func (r *run) sinkCut(d *doing) error  { return r.under(d, weather{cut: true}, r.rig.sinks...) }
func (r *run) sinkHole(d *doing) error { return r.under(d, weather{hole: true}, r.rig.sinks...) }

func (r *run) sinkLatency(d *doing) error {
	return r.under(d, weather{latency: 400 * time.Millisecond}, r.rig.sinks...)
}

func (r *run) sinkSlow(d *doing) error {
	return r.under(d, weather{rate: 256 << 10}, r.rig.sinks...)
}

func (r *run) answerTorn(d *doing) error {
	return r.under(d, weather{tear: true}, r.rig.sinks...)
}

// retry repeats what a cluster in trouble may refuse.
func (r *run) retry(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(r.ctx, 2*patience)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, 10*time.Second)
		err := f(trying)
		done()
		if err == nil || !hold(ctx, 500*time.Millisecond) {
			return err
		}
	}
}
