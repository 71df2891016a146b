package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// fleet is the members of one group.
type fleet struct {
	r     *rig
	kind  string // one of groupKinds
	topic string
	group string
	run   *scaleRun
	lives context.Context // of the processes; they outlive a roll that is given up

	members []*running
	names   []string // of the doors of the members; a restarted one has a new name
	born    int
}

// begin starts a member in place i.
func (f *fleet) begin(i int) error {
	f.born++
	f.names[i] = fmt.Sprintf("%d-%d", i, f.born)
	at := f.r.workspace.at
	at.URL, at.CA = at.Control, "" // the doors speak plain HTTP
	protocol, static := strings.CutSuffix(f.kind, "-static")
	sets := []string{"kafka.group=" + f.group, "kafka.protocol=" + protocol, "kafka.session_timeout=" + scaleSession.String(),
		"zerobus.ingest_path=" + memberDoor + f.names[i]}
	if static {
		sets = append(sets, fmt.Sprintf("kafka.instance_id=bridge-%d", i))
	}
	var err error
	f.members[i], err = f.r.startBridge(f.lives, f.topic, at, sets...)
	return err
}

// roll starts the members, replaces each, and kills one.
func (f *fleet) roll(ctx context.Context) error {
	began := time.Now()
	f.members, f.names = make([]*running, f.run.Members), make([]string, f.run.Members)
	for i := range f.members {
		if err := f.begin(i); err != nil {
			return err
		}
	}
	_, full, err := f.quiet(ctx, began, "")
	if err != nil {
		return fmt.Errorf("waiting for the first assignment: %w", err)
	}
	f.run.Started = full.Sub(began)

	rolling := time.Now()
	var takeovers, stood []time.Duration
	for i := range f.members {
		one, times, still, err := f.replace(ctx, i)
		if err != nil {
			return fmt.Errorf("replacing member %d: %w", i, err)
		}
		f.run.Restarts = append(f.run.Restarts, one)
		takeovers, stood = append(takeovers, times...), append(stood, still...)
	}
	f.run.Rolled = time.Since(rolling)
	f.run.Takeover, f.run.Stood = spanOf(takeovers), spanOf(stood)
	if f.run.Members == 1 {
		return nil // nobody would take over
	}
	return f.kill(ctx, 0)
}

// replace restarts a member as a rolling update without a surge does. It
// returns the takeover times of what was the member's, and how long each
// partition stood that moved.
func (f *fleet) replace(ctx context.Context, i int) (one restart, takeovers, stood []time.Duration, err error) {
	before, err := f.r.workspace.owners(ctx)
	if err != nil {
		return one, nil, nil, err
	}
	old := f.members[i]
	if err := f.account(ctx, old); err != nil {
		return one, nil, nil, err
	}
	gone, told := f.names[i], time.Now()
	if err := old.stop(); err != nil {
		return one, nil, nil, err
	}
	f.members[i] = nil
	one.Exit = time.Since(told)
	if err := f.begin(i); err != nil {
		return one, nil, nil, err
	}
	after, _, err := f.quiet(ctx, told, gone)
	if err != nil {
		return one, nil, nil, err
	}
	for _, m := range after.Moves[len(before.Moves):] {
		stood = append(stood, m.First.Sub(m.Last))
		if m.From == gone {
			takeovers = append(takeovers, m.First.Sub(told))
		}
	}
	one.Moved, one.Takeover = len(stood), spanOf(takeovers)
	return one, takeovers, stood, nil
}

// kill ends a member with SIGKILL and times its partitions' takeover by the
// others.
func (f *fleet) kill(ctx context.Context, i int) error {
	before, err := f.r.workspace.owners(ctx)
	if err != nil {
		return err
	}
	m := f.members[i]
	if err := f.account(ctx, m); err != nil {
		return err
	}
	f.members[i] = nil
	killed := time.Now()
	if err := syscall.Kill(m.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing member %d: %w", i, err)
	}
	<-m.done
	m.cancel()
	after, _, err := f.quiet(ctx, killed, f.names[i])
	if err != nil {
		return fmt.Errorf("after the kill: %w", err)
	}
	var took []time.Duration
	for _, h := range after.Moves[len(before.Moves):] {
		if h.From == f.names[i] {
			took = append(took, h.First.Sub(killed))
		}
	}
	f.run.KillTook = spanOf(took)
	return nil
}

// quietFor is how long no partition may have moved for a rebalance to be over.
const quietFor = 4 * time.Second

// quiet waits until every partition has had rows since a time, none of them by
// the member that is gone, which is when it was full, and then until no
// partition has moved for a while.
func (f *fleet) quiet(ctx context.Context, since time.Time, gone string) (o ownership, full time.Time, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if o, err = f.r.workspace.owners(ctx); err != nil {
			return o, full, err
		}
		n, last := 0, since
		for _, p := range o.Partitions {
			if p.At.After(since) && p.Member != gone {
				n++
			}
		}
		if len(o.Moves) > 0 {
			last = o.Moves[len(o.Moves)-1].First
		}
		if n == f.run.Partitions {
			if full.IsZero() {
				full = time.Now()
			}
			if time.Since(last) > quietFor && time.Since(full) > quietFor {
				return o, full, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return o, full, fmt.Errorf("%d of %d partitions are written: %w", n, f.run.Partitions, context.Cause(ctx))
		}
		if err := f.alive(); err != nil {
			return o, full, err
		}
	}
}

// alive returns why a member has ended that should be running.
func (f *fleet) alive() error {
	for _, m := range f.members {
		if m == nil {
			continue
		}
		select {
		case <-m.done:
			return m.died()
		default:
		}
	}
	return nil
}

// account adds what a member says of itself, before it goes.
func (f *fleet) account(ctx context.Context, m *running) error {
	said, err := scrape(ctx, m)
	if err != nil {
		return err
	}
	f.run.Commits += said.sums["bridge_commits_total"]
	f.run.Rebalances += said.sums["bridge_rebalances_total"]
	_, peak, err := memoryOf(m.pid)
	f.run.PeakMemory = max(f.run.PeakMemory, peak)
	return err
}

// close stops the members that still run.
func (f *fleet) close() error {
	var errs []error
	for i, m := range f.members {
		if m == nil {
			continue
		}
		errs = append(errs, f.account(f.lives, m), m.stop())
		f.members[i] = nil
	}
	return errors.Join(errs...)
}
