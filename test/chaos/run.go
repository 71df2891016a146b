package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	// freshWithin bounds how long an event may take once every fault has ended. A
	// member that is blocked probes every 30 seconds.
	freshWithin = 90 * time.Second
	// backlogWithin bounds how long the backlog may take after that.
	backlogWithin = 3 * time.Minute
	// lingering is how long a fault that may lose an acknowledgement explains a
	// repeated write: the request is given up, then repeated.
	lingering = requestTimeout + 5*time.Second
	// deadLetterChecks is how often a missing dead letter is searched for, each
	// time up to the current end of the topic: after a new leader it may lag.
	deadLetterChecks = 5
)

// run is one run of the schedule.
type run struct {
	*source           // the main integration
	others  []*source // of the same members

	o        *options
	life     context.Context // of the run
	ctx      context.Context // of the faults; ends with the schedule
	rig      *rig
	v        *oracle.Violations
	recreate *recreation
	fleet    *fleet
	logf     func(format string, args ...any)

	broker    chan struct{} // holds one element while a broker is away
	columns   sync.Mutex    // held while the table lacks a column
	reports   sync.Mutex    // held while records are deleted, and while a member has no log
	refusing  sync.Mutex    // held while the service refuses rows once
	dlq       sync.Mutex    // held while the dead-letter topic is unavailable
	alone     sync.Mutex    // held while a fault affects one of the others alone
	blueprint sync.Mutex    // held while a blueprint is replaced; guards edition
	edition   int           // of the last blueprint: a later number is the later file

	mu       sync.Mutex       // guards the fields below
	faults   []*activeFault   // those that have begun
	latest   map[int32]uint32 // highest number of an event in the table, by partition
	fresh    time.Duration    // that the first event took after the faults
	accounts int64            // of members that were checked
}

// activeFault is a fault that has begun.
type activeFault struct {
	fault
	kind  kind
	began time.Time
	ended time.Time // zero while it lasts
}

// execute runs the schedule and checks everything. An error means that the test
// itself could not continue; what the bridge did wrong is in the report.
func execute(ctx context.Context, o *options, dir string, faults []fault, stderr io.Writer) (rep *report, err error) {
	began := time.Now()
	r := &run{o: o, v: oracle.NewViolations(), broker: make(chan struct{}, 1), latest: map[int32]uint32{}, edition: 1}
	var logging sync.Mutex
	r.logf = func(format string, args ...any) {
		logging.Lock()
		defer logging.Unlock()
		fmt.Fprintf(stderr, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	r.v.Report = func(rule, example string) { r.logf("rule %s is broken: %s", rule, example) }
	r.logf("starting %d brokers, the workspace and %d members; the files of this run are in %s", o.brokers, o.members, dir)
	if r.rig, err = newRig(ctx, o, dir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.rig.close()) }()

	// Uncommitted: brokers may be away for as long as a fault lasts and a session takes.
	cfg := oracle.Config{MaxRows: maxRows, Uncommitted: 45 * time.Second, AckMayBeLost: r.ackMayBeLost, Frozen: r.wasFrozen}
	for i, name := range otherNames() {
		r.others = append(r.others, newSource(name, generator{o.seed + uint64(i) + 1, otherTopic(name)}, cfg, r.v))
	}
	cfg.Transaction = transactionOf
	r.source = newSource(mainIntegration, generator{o.seed, topic}, cfg, r.v)
	if r.recreate, err = newRecreation(r); err != nil {
		return nil, err
	}
	defer r.recreate.close()
	r.fleet = &fleet{rig: r.rig, v: r.v, silent: map[string]bool{}, onLine: r.onLine}

	inner, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	r.life, r.ctx = inner, inner
	for _, src := range r.sources() {
		defer src.close()
		if err := r.start(inner, src); err != nil {
			return nil, err
		}
	}
	for range o.members {
		r.fleet.grow(inner, false)
	}
	defer func() { // in good order if that has not happened yet
		ending, stop := context.WithTimeout(context.WithoutCancel(ctx), drain+5*time.Second)
		defer stop()
		r.fleet.end(ending)
	}()
	for _, src := range r.sources() {
		watch.Go(func() { r.watchCommits(inner, src) })
	}
	watch.Go(func() {
		for sleep(inner, 2*time.Second) {
			r.checkAccounts(inner, false)
		}
	})
	for _, src := range r.others {
		src.producer.start(inner, max(5, o.rate/100))
	}
	r.producer.start(inner, o.rate)
	r.recreate.start(inner)
	if !until(inner, 2*patience, func() bool { return r.ledger.Totals().Rows > 0 }) && ctx.Err() == nil {
		r.v.Add(oracle.RuleFlow, "no row within %s of the start, and no fault has begun", 2*patience)
	}
	start := time.Now()
	r.schedule(inner, start, faults)
	if ctx.Err() == nil && !r.failedFirst() {
		r.finish(inner)
	}
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), drain+patience)
	defer stop()
	r.fleet.end(ending) // unless finish has done so: what members do wrong now counts
	return r.report(start, ctx.Err() != nil), nil
}

// failedFirst reports whether the run is to end with the first violation, and has one.
func (r *run) failedFirst() bool { return r.o.first && len(r.v.List()) > 0 }

// schedule carries out the faults and returns when the last has ended.
func (r *run) schedule(ctx context.Context, start time.Time, faults []fault) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.ctx = ctx
	if r.o.first {
		go func() { // ends with ctx, which the return cancels
			select {
			case <-r.v.First:
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
		if !sleep(ctx, time.Until(start.Add(f.At))) {
			return
		}
		all.Go(func() {
			a := &activeFault{fault: f, kind: by[f.Kind], began: time.Now()}
			r.mu.Lock()
			r.faults = append(r.faults, a)
			r.mu.Unlock()
			r.logf("fault %d of %d: %s for %s", i+1, len(faults), f.Kind, f.Length)
			if err := a.kind.act(r, f); err != nil && ctx.Err() == nil {
				r.v.Add(oracle.RuleFlow, "%s could not be carried out: %v", f.Kind, err)
			}
			r.mu.Lock()
			a.ended = time.Now()
			r.mu.Unlock()
		})
	}
	all.Wait()
	sleep(ctx, time.Until(start.Add(r.o.duration)))
}

// finish waits, without faults, for a fresh event and then for all of them.
func (r *run) finish(ctx context.Context) {
	r.logf("every fault has ended; a fresh event must arrive within %s", freshWithin)
	began := time.Now()
	if err := r.rig.cluster.StartAll(ctx); err != nil {
		r.v.Add(oracle.RuleFlow, "the brokers do not come back: %v", err)
	}
	number, again := r.producer.next.Load(), r.recreate.number()
	if !until(ctx, freshWithin, func() bool { return r.arrived(number, again) }) && ctx.Err() == nil {
		r.v.Add(oracle.RuleFlow, "no event that was produced after every fault had ended has arrived on every partition within %s", freshWithin)
	}
	r.mu.Lock()
	r.fresh = time.Since(began)
	r.mu.Unlock()
	if r.failedFirst() {
		return
	}
	for _, src := range r.sources() {
		if err := src.producer.stop(ctx); err != nil {
			r.v.Add(oracle.RuleKafka, "%v", err)
		}
	}
	r.recreate.stop()
	if r.ledger.Transactions() > 0 {
		// The last records of partitions may not arrive, and the lag must become 0
		// all the same.
		if err := r.transaction(2*partitions, 0, false); err != nil && ctx.Err() == nil {
			r.v.Add(oracle.RuleFlow, "a last transaction could not be made: %v", err)
		}
	}
	r.logf("%d events are acknowledged; everything must be committed within %s", r.ledger.Totals().Acknowledged, backlogWithin)
	last := ""
	if !until(ctx, backlogWithin, func() bool {
		lag, text := r.lag(ctx)
		last = text
		return lag == 0
	}) && ctx.Err() == nil {
		r.v.Add(oracle.RuleFlow, "after %s %s", backlogWithin, last)
	}
	until(ctx, patience, func() bool { return r.deadLettersRead(ctx, r.sources()...) })
	r.checkAccounts(ctx, true) // nothing is in flight now
	r.fleet.end(ctx)
	for _, src := range r.sources() {
		src.ledger.Close(func(process string, partition int32) bool {
			return partition >= recreatedFrom || r.fleet.hasNoLog(process) // a log does not name the incarnation that was assigned
		})
	}
}

// readRows reads rows of an integration's table.
func (r *run) readRows(src *source, rows []emulator.Row, produced func(uint32) bool) []oracle.DeliveredRow {
	kept := make([]oracle.DeliveredRow, 0, len(rows))
	for _, text := range rows {
		row, err := src.gen.read(text.JSON)
		if err == nil && !produced(row.Number) {
			err = fmt.Errorf("a row of event %d, which was not produced yet", row.Number)
		}
		if err != nil {
			r.v.Add(oracle.RuleUnexpected, "in a table of integration %s: %v", src.name, err)
			continue
		}
		kept = append(kept, row)
	}
	return kept
}

// kept adds rows of the main table as the service keeps them.
func (r *run) kept(rows []emulator.Row) {
	kept := r.readRows(r.source, rows, r.produced)
	r.ledger.Written(kept, time.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range kept {
		if _, ok := incarnationOf(row.Number); ok || row.Number < arrayNumbers {
			r.latest[row.Partition] = max(r.latest[row.Partition], row.Number)
		}
	}
}

// produced reports whether an event of a number was produced.
func (r *run) produced(number uint32) bool {
	if id, ok := transactionOf(number); ok {
		return int(id) < r.ledger.Transactions()
	}
	if _, ok := incarnationOf(number); ok {
		return r.recreate.produced(number)
	}
	return r.producer.produced(number)
}

// arrived reports whether every partition has a row of an event that was produced
// after the given one: number in the steady topic, again in the recreated one.
func (r *run) arrived(number, again uint32) bool {
	incarnation, _ := incarnationOf(again)
	known := r.ledger.Partitions()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, partition := range known {
		after := number
		if partition >= recreatedFrom {
			if uint32(partition-recreatedFrom)/10 != incarnation {
				continue
			}
			after = again
		}
		if r.latest[partition] <= after {
			return false
		}
	}
	return len(known) > 0
}

// onLine reads a line of a member's log.
func (r *run) onLine(p *process, line []byte) {
	if r.rig.secrets.in(line) {
		r.v.Add(oracle.RuleSecret, "%s.log shows a secret or a token", p.name)
	}
	switch {
	case bytes.Contains(line, []byte(`"msg":"partitions assigned"`)):
		var entry struct {
			Partitions map[string][]int32 `json:"partitions"`
		}
		if json.Unmarshal(line, &entry) == nil {
			for _, src := range r.sources() {
				src.ledger.Assigned(p.name, entry.Partitions[src.gen.topic])
			}
		}
	case bytes.Contains(line, []byte(`"msg":"`+lossMessage+`"`)):
		r.lossReported(p, line)
	case bytes.Contains(line, []byte(`"msg":"stopped"`)):
		r.stopped(p, line)
	}
}

// ackMayBeLost reports whether an acknowledgement to a member may have been lost
// since then. Streams end with a refused row and at their maximum age, and rows may
// be kept whose acknowledgement was under way.
func (r *run) ackMayBeLost(member string, since time.Time) bool {
	var id, n int
	if _, err := fmt.Sscanf(member, "m%d.%d", &id, &n); err == nil && r.fleet.transport(id) == "grpc" {
		return true
	}
	return r.wasFrozen(member, since) || r.anyFault(func(a *activeFault) bool {
		return a.kind.flags&losesAck != 0 && (a.ended.IsZero() || a.ended.Add(lingering).After(since))
	})
}

func (r *run) wasFrozen(member string, since time.Time) bool {
	p := r.fleet.named(member)
	return p == nil || p.wasFrozen(since)
}

func (r *run) anyFault(is func(*activeFault) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.faults {
		if is(a) {
			return true
		}
	}
	return false
}

// checkAccounts asks each member for its account once. While nothing is in flight,
// what it has counted as lost must be what it has logged.
func (r *run) checkAccounts(ctx context.Context, quiet bool) {
	for _, s := range r.fleet.running() {
		p := r.fleet.process(s)
		all, _ := r.statusOf(ctx, p)
		for _, i := range all {
			r.checkAccount(p.name+" at /status, integration "+i.Integration, i.Account)
			if quiet {
				r.checkLost(p, r.sourceOf(i.Integration), "at /status", i.Account.Lost)
			}
			for _, part := range i.Partitions {
				r.checkAccount(fmt.Sprintf("%s at /status, integration %s, partition %d", p.name, i.Integration, part.Partition), part.Account)
			}
		}
	}
}

func (r *run) checkAccount(where string, a oracle.Account) {
	if err := a.Check(); err != nil {
		r.v.Add(oracle.RuleAccounting, "%s: %v", where, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accounts++
}

// stopped checks the counts in the last line of a member's log.
func (r *run) stopped(p *process, line []byte) {
	var entry struct {
		Integration string          `json:"integration"`
		Events      *oracle.Account `json:"events"`
	}
	if err := json.Unmarshal(line, &entry); err != nil || entry.Events == nil {
		r.v.Add(oracle.RuleAccounting, "the last line of %s has no count of events: %s", p.name, line)
		return
	}
	if entry.Events.InFlight != 0 {
		r.v.Add(oracle.RuleAccounting, "%s stopped with %d events in flight", p.name, entry.Events.InFlight)
	}
	r.checkLost(p, r.sourceOf(entry.Integration), "in its last line", entry.Events.Lost)
	r.checkAccount(p.name+" when it stopped "+entry.Integration, *entry.Events)
}

// checkLost compares the lost offsets that a member counts with those it logged.
func (r *run) checkLost(p *process, of *source, where string, counted int64) {
	if logged := of.ledger.LoggedLost(p.name); logged != counted && p.log == logKept {
		r.v.Add(oracle.RuleLossReport, "%s counts %d lost offsets of integration %s %s, and logged %d of them", p.name, counted, of.name, where, logged)
	}
}

// lossMessage is the log line of offsets that a member found to be lost.
const lossMessage = "kafka removed events before they were delivered"

// lossReported adds the offsets that a log line reports as lost.
func (r *run) lossReported(p *process, line []byte) {
	var entry struct {
		Integration string `json:"integration"`
		Topic       string `json:"topic"`
		Partition   *int32 `json:"partition"`
		First       *int64 `json:"first_offset"`
		Last        *int64 `json:"last_offset"`
	}
	if json.Unmarshal(line, &entry) != nil || entry.Partition == nil || entry.First == nil || entry.Last == nil || *entry.Last < *entry.First {
		r.v.Add(oracle.RuleLossReport, "a line of %s reports a loss without its range: %s", p.name, line)
		return
	}
	partition := *entry.Partition
	if entry.Topic == recreated {
		partition += recreatedFrom + 10*r.recreate.last()
	}
	r.sourceOf(entry.Integration).ledger.ReportedLost(p.name, partition, *entry.First, *entry.Last+1, time.Now())
}

// watchCommits compares what an integration's group has committed with the ledger
// until ctx ends.
func (r *run) watchCommits(ctx context.Context, src *source) {
	var missing []oracle.Event
	tried := 0
	for sleep(ctx, 400*time.Millisecond) {
		committed, err := r.committed(ctx, src.group, src.gen.topic)
		if err != nil {
			continue // a broker is away
		}
		now := src.ledger.Committed(committed[src.gen.topic], time.Now())
		if missing = src.ledger.Overdue(missing); len(missing) == 0 {
			missing, tried = now, 0
		}
		if len(missing) == 0 {
			continue
		}
		ends, err := r.ends(ctx, src.deadLetters)
		if err != nil || !until(ctx, 20*time.Second, func() bool { return src.reader.passed(ends) }) {
			continue
		}
		if missing = src.ledger.Overdue(missing); len(missing) == 0 {
			continue
		}
		if tried++; tried >= deadLetterChecks {
			src.ledger.Missing(missing)
			missing, tried = nil, 0
		}
	}
}

// committed returns a group's offsets, by topic and partition.
func (r *run) committed(ctx context.Context, group string, topics ...string) (map[string]map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := r.rig.adm.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{}
	for _, of := range topics {
		offsets := map[int32]int64{}
		out[of] = offsets
		for p, o := range all[of] {
			if o.Err == nil && o.At >= 0 {
				offsets[p] = o.At
			}
		}
	}
	return out, nil
}

// ends returns the ends of a topic's partitions, all of them or none.
func (r *run) ends(ctx context.Context, of string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := r.rig.adm.ListEndOffsets(ctx, of)
	if err == nil {
		err = all.Error()
	}
	out := map[int32]int64{}
	for p, o := range all[of] {
		out[p] = o.Offset
	}
	return out, err
}

// deadLettersRead reports whether the dead-letter topics of integrations were read to
// their ends.
func (r *run) deadLettersRead(ctx context.Context, of ...*source) bool {
	return !slices.ContainsFunc(of, func(src *source) bool {
		ends, err := r.ends(ctx, src.deadLetters)
		return err != nil || !src.reader.passed(ends)
	})
}

// lag counts the events that are not committed; text describes it, or why it is
// not known.
func (r *run) lag(ctx context.Context) (lag int64, text string) {
	for _, src := range r.sources() {
		topics := []string{src.gen.topic}
		if src == r.source {
			topics = append(topics, recreated)
		}
		committed, err := r.committed(ctx, src.group, topics...)
		before := lag
		for _, of := range topics {
			ends, eerr := r.ends(ctx, of)
			if err = errors.Join(err, eerr); err != nil {
				return -1, err.Error()
			}
			for p, end := range ends {
				lag += max(0, end-committed[of][p])
			}
		}
		if lag > before {
			text += fmt.Sprintf("%d events of integration %s are not committed; ", lag-before, src.name)
		}
	}
	return lag, text
}

// until waits for a condition and reports whether it came.
func until(ctx context.Context, limit time.Duration, condition func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !condition() {
		if !sleep(ctx, 100*time.Millisecond) {
			return condition()
		}
	}
	return true
}
