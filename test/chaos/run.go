package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	// freshWithin bounds how long an event may take once all is mended. A
	// member that is blocked probes every 30 seconds.
	freshWithin = 90 * time.Second
	// restWithin bounds how long what has gathered may take after that.
	restWithin = 3 * time.Minute
)

// run is one pass of the oracle.
type run struct {
	o        *options
	life     context.Context // of all that goes on; ends with the run
	ctx      context.Context // the faults'; ends with the schedule
	rig      *rig
	v        *violations
	ledger   *ledger
	producer *producer
	recreate *recreation
	reader   *reader
	fleet    *fleet
	say      func(format string, args ...any)

	brokers  chan struct{} // holds one element while a broker is away
	drifting sync.Mutex    // held while the table lacks a column
	reports  sync.Mutex    // held while records are deleted, and while a member has no log
	refusing sync.Mutex    // held while the service refuses rows once
	closing  sync.Mutex    // held while the dead-letter topic takes nothing, or is away
	editions edition       // of the blueprints of all members

	mu     sync.Mutex // guards what follows
	faults []*doing   // those that have begun
	fresh  time.Duration
	books  int64 // conservation equations of members that were held
}

// carryOut runs the schedule and audits. The error says that the oracle itself
// could not go on; what the bridge did wrong is in the report.
func carryOut(ctx context.Context, o *options, dir string, faults []fault, stderr io.Writer) (rep *report, err error) {
	began := time.Now()
	r := &run{o: o, v: newViolations(), brokers: make(chan struct{}, 1)}
	var saying sync.Mutex
	r.say = func(format string, args ...any) {
		saying.Lock()
		defer saying.Unlock()
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	r.v.tell = func(rule, example string) { r.say("rule %s is broken: %s", rule, example) }
	r.say("starting %d brokers, the workspace and %d members; everything of this run is in %s", o.brokers, o.members, dir)
	if r.rig, err = newRig(ctx, o, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.rig.close()) }()

	// One write, and what became durable between two commits; brokers may be
	// away for as long as a fault lasts and a session takes.
	r.ledger = newLedger(maker{o.seed}, r.v, limits{maxRows: maxRows, uncommitted: 45 * time.Second})
	r.ledger.excused, r.ledger.stopped = r.ackMayBeLost, r.stoodStill
	r.rig.table.OnRows(r.kept)
	if r.producer, err = newProducer(r.rig, r.ledger, r.v); err != nil {
		return nil, err
	}
	defer r.producer.close()
	if r.recreate, err = newRecreation(r.rig, r.ledger, r.v); err != nil {
		return nil, err
	}
	defer r.recreate.close()
	if r.reader, err = newReader(r.rig, r.ledger, r.v); err != nil {
		return nil, err
	}
	defer r.reader.close()
	r.fleet = newFleet(r.rig, r.v)
	r.fleet.heard, r.fleet.excused = r.heard, r.mayEnd

	inner, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	r.life, r.ctx = inner, inner
	r.reader.start(inner)
	for range o.members {
		r.fleet.grow(inner, false)
	}
	defer func() { // in good order if that has not happened yet
		ending, stop := context.WithTimeout(context.WithoutCancel(ctx), drain+5*time.Second)
		defer stop()
		r.fleet.end(ending)
	}()
	watch.Go(func() { r.watchCommits(inner) })
	watch.Go(func() { r.watchBooks(inner) })
	r.producer.start(inner, o.rate)
	r.recreate.start(inner)
	if !r.until(inner, 2*patience, func() bool { return r.ledger.totals().Rows > 0 }) && ctx.Err() == nil {
		r.v.add(ruleFlow, "no row within %s of the start, and no fault has begun", 2*patience)
	}
	start := time.Now()
	r.schedule(inner, start, faults)
	if ctx.Err() == nil && !r.given() {
		r.settle(inner)
	}
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), drain+patience)
	defer stop()
	r.fleet.end(ending) // unless the rest has done so: what members do wrong now counts
	return r.report(start, faults, ctx.Err() != nil), nil
}

// given reports whether the run is to end with the first violation, and has one.
func (r *run) given() bool { return r.o.first && len(r.v.list()) > 0 }

// schedule carries out the faults and returns when the last is mended.
func (r *run) schedule(ctx context.Context, start time.Time, faults []fault) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.ctx = ctx
	if r.o.first {
		go func() { // ends with ctx, which the return cancels
			select {
			case <-r.v.first:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	by := map[string]kind{}
	for _, k := range kinds() {
		by[k.name] = k
	}
	var all sync.WaitGroup
	defer all.Wait()
	for i, f := range faults {
		if !hold(ctx, time.Until(start.Add(f.At))) {
			return
		}
		all.Add(1)
		go func() {
			defer all.Done()
			d := &doing{fault: f, kind: by[f.Kind], began: time.Now()}
			r.mu.Lock()
			r.faults = append(r.faults, d)
			r.mu.Unlock()
			r.say("fault %d of %d: %s for %s", i+1, len(faults), f.Kind, f.Length)
			if err := d.kind.act(r, d); err != nil && ctx.Err() == nil {
				r.v.add(ruleFlow, "%s could not be carried out: %v", f.Kind, err)
			}
			r.mu.Lock()
			d.ended = time.Now()
			r.mu.Unlock()
		}()
	}
	all.Wait()
	hold(ctx, time.Until(start.Add(r.o.duration)))
}

// settle is the quiet end: a fresh event must flow, then everything.
func (r *run) settle(ctx context.Context) {
	r.say("all is mended; a fresh event must flow within %s", freshWithin)
	began := time.Now()
	if err := r.rig.cluster.StartAll(ctx); err != nil {
		r.v.add(ruleFlow, "the brokers do not come back: %v", err)
	}
	number, again := r.producer.next.Load(), r.recreate.number()
	if !r.until(ctx, freshWithin, func() bool { return r.ledger.arrived(number, again) }) && ctx.Err() == nil {
		r.v.add(ruleFlow, "no event that was produced after everything was mended has arrived on every partition within %s", freshWithin)
	}
	r.mu.Lock()
	r.fresh = time.Since(began)
	r.mu.Unlock()
	if r.given() {
		return
	}
	if err := r.producer.stop(ctx); err != nil {
		r.v.add(rulePromise, "%v", err)
	}
	r.recreate.stop()
	if r.ledger.transactions() > 0 {
		// The last records of partitions are none that may arrive, and the lag
		// must become 0 all the same.
		if err := r.transaction(2*partitions, 0, false); err != nil && ctx.Err() == nil {
			r.v.add(ruleFlow, "a last transaction could not be made: %v", err)
		}
	}
	r.say("%d events are acknowledged; everything must be committed within %s", r.ledger.totals().Acked, restWithin)
	last := ""
	if !r.until(ctx, restWithin, func() bool {
		lag, text := r.lag(ctx)
		last = text
		return lag == 0
	}) && ctx.Err() == nil {
		r.v.add(ruleFlow, "after %s %s", restWithin, last)
	}
	r.until(ctx, patience, func() bool {
		ends, err := r.ends(ctx, letters)
		return err == nil && r.reader.passed(ends)
	})
	r.holdBooks(ctx, true) // nothing is in flight now
	r.fleet.end(ctx)
	r.ledger.close()
	r.ledger.tenures(r.fleet.unheard)
}

// kept enters rows as the service keeps them.
func (r *run) kept(rows []emulator.Row) {
	taken := make([]row, 0, len(rows))
	for _, text := range rows {
		row, err := r.ledger.maker.read(text.JSON)
		if err == nil && !r.produced(row.number) {
			err = fmt.Errorf("a row of event %d, which was not produced yet", row.number)
		}
		if err != nil {
			r.v.add(ruleInvented, "%v", err)
			continue
		}
		taken = append(taken, row)
	}
	if len(taken) > 0 {
		r.ledger.written(taken, time.Now())
	}
}

// produced reports whether an event of a number was produced.
func (r *run) produced(number uint32) bool {
	if id, ok := transactionOf(number); ok {
		return r.ledger.known(id)
	}
	if _, ok := incarnationOf(number); ok {
		return r.recreate.produced(number)
	}
	if number >= arrayNumbers {
		return number-arrayNumbers < r.producer.arrays.Load()
	}
	return number < r.producer.next.Load()
}

// heard goes through a line of a member's log.
func (r *run) heard(p *process, line []byte) {
	if parts := assignedTo(line); len(parts) > 0 {
		r.ledger.assigned(p.name, parts)
	}
	r.loss(p, line)
	r.lastWords(p, line)
	if r.rig.secrets.in(line) {
		r.v.add(ruleSecret, "%s.log shows a secret or a token", p.name)
	}
}

// lingering is how long a fault that may lose an acknowledgement explains a
// write that comes again: the request is given up, then repeated.
const lingering = requestTimeout + 5*time.Second

// ackMayBeLost reports whether an acknowledgement to a member may have been
// lost since then. Streams end by themselves, with a refused row and of age,
// and rows may be kept whose acknowledgement was on the way.
func (r *run) ackMayBeLost(member string, since time.Time) bool {
	if r.stoodStill(member, since) || r.writesStreams(member) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.faults {
		if d.kind.losesAck && (d.ended.IsZero() || d.ended.Add(lingering).After(since)) {
			return true
		}
	}
	return false
}

func (r *run) writesStreams(member string) bool {
	var id, life int
	_, err := fmt.Sscanf(member, "m%d.%d", &id, &life)
	return err == nil && r.fleet.transport(id) == "grpc"
}

func (r *run) stoodStill(member string, since time.Time) bool {
	p := r.fleet.named(member)
	return p == nil || p.stoodStill(since)
}

// mayEnd reports whether a member that started then may have found its
// configuration refused.
func (r *run) mayEnd(began time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.faults {
		if d.kind.unready && (d.ended.IsZero() || d.ended.Add(2*time.Second).After(began)) {
			return true
		}
	}
	return false
}
