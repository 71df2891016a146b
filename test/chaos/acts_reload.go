package main

import (
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// takenWithin bounds how long a new blueprint may take to show in a member's
	// rows. Files are read every ten seconds if nothing announces a change, and
	// one at a time the faults last fifteen.
	takenWithin = 90 * time.Second
	// stuckWithin bounds how long rows that were made before may still be on
	// their way: blocked, and probed for every half minute.
	stuckWithin = 75 * time.Second
)

// edition numbers the blueprints that are put in place: one at a time, so that
// a later number is the later file.
type edition struct {
	sync.Mutex
	last int
}

// blueprintChanged puts another blueprint in place; half of the times the
// member is told, else it has to notice.
func (r *run) blueprintChanged(d *doing) error {
	r.editions.Lock()
	defer r.editions.Unlock()
	if _, p := r.fleet.pick(d.Target); p != nil {
		return r.replan(p, d.Target/2%2 == 0)
	}
	return nil
}

// blueprintBroken puts half a blueprint in place, which the member must refuse
// and go on, and then another whole one.
func (r *run) blueprintBroken(d *doing) error {
	r.editions.Lock()
	defer r.editions.Unlock()
	_, p := r.fleet.pick(d.Target)
	if p == nil {
		return nil
	}
	half := strings.TrimRight(blueprint(p.name, 0), "}\n") // a brace is open
	if _, err := r.rig.putBlueprint(p.name, half); err != nil {
		return err
	}
	p.hangUp()
	r.last(d)
	return r.replan(p, false)
}

// replan gives a process another blueprint and waits until its rows show it.
func (r *run) replan(p *process, tell bool) error {
	r.editions.last = max(r.editions.last, 1) + 1
	want, began := r.editions.last, time.Now()
	r.ledger.planPut(p.name)
	if _, err := r.rig.putBlueprint(p.name, blueprint(p.name, want)); err != nil {
		return err
	}
	if tell {
		p.hangUp()
	}
	taken := func() bool {
		edition, _ := r.ledger.edition(p.name)
		return edition >= want || !p.running()
	}
	if !r.until(r.ctx, takenWithin, taken) && r.ctx.Err() == nil {
		// A member without partitions writes nothing.
		if edition, at := r.ledger.edition(p.name); at.After(began.Add(stuckWithin)) {
			r.v.add(ruleReload, "%s wrote by edition %d of its blueprint at %s; edition %d is in place since %s", p.name, edition, clock(at), want, clock(began))
		}
	}
	return nil
}

// hangUp tells a process to read its configuration again.
func (p *process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == 0 && time.Since(p.begun) > listening {
		_ = p.cmd.Process.Signal(syscall.SIGHUP) // it may have ended just now
	}
}
