package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// patience is how long a member may take over what should be quick: starting,
// or ending after its drain. A busy machine is why it is long.
const patience = 45 * time.Second

// fleet keeps members running, as an orchestrator does: one that has ended is
// started again.
type fleet struct {
	rig   *rig
	v     *violations
	heard func(p *process, line []byte)
	// excused reports whether a member that started then may have ended with
	// exit code 1.
	excused func(began time.Time) bool

	wg sync.WaitGroup // keepers; end waits

	mu     sync.Mutex // guards the fields below
	slots  []*slot
	over   bool
	mute   map[string]bool // processes without a log
	lives  int
	failed error // a process could not be started
}

// slot is the place of one member, where processes follow each other.
type slot struct {
	id      int
	spare   bool  // joins and leaves again
	want    bool  // a process should run
	log     logTo // of the next one
	proc    *process
	changed chan struct{} // holds one element when the above changed
}

func (s *slot) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func newFleet(r *rig, v *violations) *fleet { return &fleet{rig: r, v: v, mute: map[string]bool{}} }

// grow adds a member, for the time being if it is spare, and returns its slot.
// ctx is the fleet's.
func (f *fleet) grow(ctx context.Context, spare bool) *slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.slots { // one that came before and left
		if s.spare && spare && !s.want {
			s.want = true
			s.poke()
			return s
		}
	}
	s := &slot{id: len(f.slots), spare: spare, want: true, changed: make(chan struct{}, 1)}
	f.slots = append(f.slots, s)
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		f.keep(ctx, s)
	}()
	return s
}

// keep runs one process after the other in a slot.
func (f *fleet) keep(ctx context.Context, s *slot) {
	for life := 1; ; {
		f.mu.Lock()
		want, log, over := s.want, s.log, f.over
		f.mu.Unlock()
		switch {
		case over:
			return
		case !want:
			select {
			case <-s.changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		name := fmt.Sprintf("m%d.%d", s.id, life)
		life++
		p, err := startProcess(f.rig, name, f.transport(s.id), log, f.heard)
		if err != nil {
			f.v.add(ruleMember, "%v", err)
			f.mu.Lock()
			f.failed = err
			f.mu.Unlock()
			return
		}
		f.mu.Lock()
		s.proc = p
		f.lives++
		if log != logKept {
			f.mute[name] = true
		}
		if f.over { // it was too late to start
			p.ask(syscall.SIGKILL)
		}
		f.mu.Unlock()
		<-p.done
		f.judge(p)
		if !hold(ctx, 300*time.Millisecond) {
			return
		}
	}
}

// transport is the wire of a member.
func (f *fleet) transport(id int) string {
	if f.rig.o.transport != "mixed" {
		return f.rig.o.transport
	}
	return []string{"workspace", "grpc", "rest"}[id%3]
}

// judge holds a process's end against why it ended.
func (f *fleet) judge(p *process) {
	state := p.cmd.ProcessState
	p.mu.Lock()
	asked, askedAt := p.asked, p.askedAt
	p.mu.Unlock()
	status, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case asked == syscall.SIGKILL:
	case state.ExitCode() == 0 && asked == syscall.SIGTERM:
	case status.Signaled() && status.Signal() == syscall.SIGTERM && askedAt.Sub(p.begun) < listening:
		// It had not come as far as listening to signals.
	case state.ExitCode() == 1 && f.excused(p.begun):
	default:
		f.v.add(ruleMember, "%s ended with %v, asked by %v; see %s.log", p.name, state, asked, p.name)
	}
}

// running lists the slots that have a process, in order.
func (f *fleet) running() []*slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.slots), func(s *slot) bool { return !s.want || s.proc == nil || !s.proc.running() })
}

// pick chooses a running member, or nil.
func (f *fleet) pick(target int) (*slot, *process) {
	all := f.running()
	if len(all) == 0 {
		return nil, nil
	}
	s := all[target%len(all)]
	f.mu.Lock()
	defer f.mu.Unlock()
	return s, s.proc
}

// process returns the process in a slot, which may be nil or have ended.
func (f *fleet) process(s *slot) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.proc
}

// named finds a running process by its name, or nil.
func (f *fleet) named(name string) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.slots {
		if s.proc != nil && s.proc.name == name {
			return s.proc
		}
	}
	return nil
}

// set says whether a process should run in a slot, and where the log of the next
// one goes.
func (f *fleet) set(s *slot, want bool, log logTo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.want, s.log = want, log
	s.poke()
}

// unheard reports whether a process has no log.
func (f *fleet) unheard(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mute[name]
}

// terminate asks a process to end and wants it to.
func (f *fleet) terminate(ctx context.Context, p *process) {
	p.ask(syscall.SIGTERM)
	timer := time.NewTimer(drain + patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-ctx.Done():
	case <-timer.C:
		f.v.add(ruleMember, "%s runs %s after SIGTERM still; see %s.log", p.name, drain+patience, p.name)
		p.ask(syscall.SIGKILL)
		<-p.done
	}
}

// end ends all members, in good order as long as ctx lives, and waits.
func (f *fleet) end(ctx context.Context) {
	f.mu.Lock()
	f.over = true
	var procs []*process
	for _, s := range f.slots {
		s.poke()
		if s.proc != nil {
			procs = append(procs, s.proc)
		}
	}
	f.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range procs {
		if !p.running() {
			continue
		}
		all.Add(1)
		go func() {
			defer all.Done()
			f.terminate(ctx, p)
			if p.running() {
				p.ask(syscall.SIGKILL)
				<-p.done
			}
		}()
	}
	all.Wait()
	f.wg.Wait()
}

// hold waits and reports whether ctx is still alive.
func hold(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// begun counts the processes that were started.
func (f *fleet) begun() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lives
}
