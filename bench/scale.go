package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus"
)

// groupKinds are the ways of being a group that scale compares.
var groupKinds = []string{"classic", "classic-static", "consumer", "consumer-static"}

// scaleSession is after how long a silent member is given up. It is shorter
// than the default, so that the member that is killed does not decide how long
// the measurement takes.
const scaleSession = 10 * time.Second

// scaleRun is one kind of group through a rolling restart and a kill.
type scaleRun struct {
	Kind       string        `json:"kind"`
	Partitions int           `json:"partitions"`
	Members    int           `json:"members"`
	Rate       int           `json:"events_per_second"`
	Produced   int           `json:"produced"`
	Duplicates int           `json:"duplicates"` // rows of the whole run that are there again, the kill's included
	Started    time.Duration `json:"started_ns"` // from the start of the members until each partition had a row

	Restarts []restart     `json:"restarts"`
	Takeover span          `json:"takeover"` // from SIGTERM to the new owner's first rows, by partition, over all restarts
	Stopped  span          `json:"stopped"`  // of all partitions that moved in the restarts: from the old owner's last rows to the new one's first
	Rolled   time.Duration `json:"rolled_ns"`
	KillTook span          `json:"kill_takeover"` // from SIGKILL to the new owner's first rows

	Rebalances float64 `json:"rebalances"`         // callbacks of members to whom partitions were given or from whom they were taken
	Commits    float64 `json:"commits_per_second"` // of the whole group
	PeakMemory int64   `json:"peak_rss_bytes"`     // of the largest member
	Noise      noise   `json:"noise"`
}

// restart is one member's.
type restart struct {
	Exit     time.Duration `json:"exit_ns"` // from SIGTERM until the process has ended
	Takeover span          `json:"takeover"`
	Moved    int           `json:"moved"` // partitions that changed hands until all was quiet again
}

// span sums times up.
type span struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	Max   time.Duration `json:"max_ns"`
}

func spanOf(all []time.Duration) span {
	if len(all) == 0 {
		return span{}
	}
	slices.Sort(all)
	return span{len(all), all[len(all)/2], all[len(all)-1]}
}

func (s span) String() string {
	return fmt.Sprintf("%.2f / %.2f s", s.P50.Seconds(), s.Max.Seconds())
}

type scaleResult []scaleRun

// scale has members share many partitions, replaces each of them under a steady
// load as a rolling update does, and kills one at the end.
func scale(ctx context.Context, r *rig) (any, error) {
	var out scaleResult
	for _, kind := range r.o.groups {
		s, err := r.rolled(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		r.logf("%s: takeover %s (p50 / longest), after a kill %s, %d duplicates of %d events; %s", kind, s.Takeover, s.KillTook, s.Duplicates, s.Produced, s.Noise)
		out = append(out, s)
	}
	return out, nil
}

func (r *rig) rolled(ctx context.Context, kind string) (s scaleRun, err error) {
	s = scaleRun{Kind: kind, Partitions: r.o.across, Members: r.o.members, Rate: r.o.rate}
	if s.Rate == 0 {
		s.Rate = 2 * s.Partitions
	}
	topic, err := r.topic(ctx, s.Partitions, r.o.codecs[0], 0)
	if err != nil {
		return s, err
	}
	if err := errors.Join(r.workspace.reset(ctx), r.workspace.call(ctx, http.MethodDelete, "/bench/owners", nil, nil)); err != nil {
		return s, err
	}
	l, err := newLoad(r.brokers, topic, "none", 5*time.Millisecond, s.Partitions)
	if err != nil {
		return s, err
	}
	from, err := readCPU(0)
	if err != nil {
		return s, err
	}
	sending, enough := context.WithCancel(ctx)
	rolling, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sent := make(chan error, 1)
	go func() { // ends with sending; waited for below
		l.steady(sending, s.Rate, l.nextInTurn)
		err := l.finish(ctx)
		if err != nil {
			giveUp(err) // partitions without events would be waited for in vain
		}
		sent <- err
	}()
	f := &fleet{r: r, kind: kind, topic: topic, group: r.name("group"), run: &s, ctx: ctx}
	err = f.roll(rolling)
	enough()
	err = errors.Join(err, <-sent)
	if err == nil {
		s.Produced = int(l.acked.Load())
		s.Duplicates, err = r.workspace.delivered(ctx, s.Produced)
	}
	err = errors.Join(err, f.close())
	if err != nil {
		return s, err
	}
	to, err := readCPU(0)
	if err != nil {
		return s, err
	}
	s.Noise = noiseBetween(from, to)
	s.Commits /= to.at.Sub(from.at).Seconds()
	return s, r.drop(ctx, topic)
}

// delivered waits until every event is in the table and returns the duplicates.
func (w *workspace) delivered(ctx context.Context, produced int) (duplicates int, err error) {
	if err := w.wait(ctx, produced); err != nil {
		return 0, err
	}
	for {
		rows, distinct, err := w.counts(ctx)
		if err == nil && distinct >= produced {
			return oracle.Duplicates(produced, rows, distinct)
		}
		if err == nil {
			err = pause(ctx, 100*time.Millisecond)
		}
		if err != nil {
			return 0, fmt.Errorf("%d of %d events are in the table: %w", distinct, produced, err)
		}
	}
}

func (all scaleResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "group\tmembers\tpartitions\tevents/s\tall started\texit, longest\ttakeover p50 / longest\tmoved\tno rows p50 / longest\tkill -9: takeover p50 / longest\tduplicates\tcommits/s\trebalances\tpeak RSS\tother CPU\t")
	for _, r := range all {
		var exit time.Duration
		moved := 0
		for _, one := range r.Restarts {
			exit, moved = max(exit, one.Exit), moved+one.Moved
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1f s\t%.2f s\t%s\t%d\t%s\t%s\t%d of %d\t%.1f\t%.0f\t%.0f MiB\t%.0f %%\t\n", r.Kind, r.Members, r.Partitions, r.Rate, r.Started.Seconds(),
			exit.Seconds(), r.Takeover, moved, r.Stopped, r.KillTook, r.Duplicates, r.Produced, r.Commits, r.Rebalances, mib(r.PeakMemory), 100*r.Noise.OtherCPU)
	}
	_ = w.Flush() // into memory
	s.WriteString("\nTakeover is from SIGTERM (or SIGKILL) to the acknowledgement of the new owner's first rows, by partition. A partition has an event every partitions / rate seconds, so shorter times cannot be measured. All events arrived.\n")
	return s.String()
}

// fleet is the members of one group.
type fleet struct {
	r     *rig
	kind  string // one of groupKinds
	topic string
	group string
	run   *scaleRun
	ctx   context.Context // of the processes; they outlive a roll that is given up

	members []*running
	names   []string // of the members; a restarted one has a new name
	born    int
}

// begin starts a member in place i.
func (f *fleet) begin(i int) error {
	f.born++
	f.names[i] = fmt.Sprintf("%d-%d", i, f.born)
	protocol, static := strings.CutSuffix(f.kind, "-static")
	sets := []string{"kafka.group=" + f.group, "kafka.protocol=" + protocol, "kafka.session_timeout=" + scaleSession.String(),
		"zerobus.ingest_path=" + memberPath + f.names[i]}
	if static {
		sets = append(sets, fmt.Sprintf("kafka.instance_id=bridge-%d", i))
	}
	var err error
	f.members[i], err = f.r.startBridge(f.ctx, delivery{topic: f.topic, transport: zerobus.TransportWorkspace, to: f.r.workspace.plain(), sets: sets})
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
	var takeovers, stopped []time.Duration
	for i := range f.members {
		one, times, still, err := f.replace(ctx, i)
		if err != nil {
			return fmt.Errorf("replacing member %d: %w", i, err)
		}
		f.run.Restarts = append(f.run.Restarts, one)
		takeovers, stopped = append(takeovers, times...), append(stopped, still...)
	}
	f.run.Rolled = time.Since(rolling)
	f.run.Takeover, f.run.Stopped = spanOf(takeovers), spanOf(stopped)
	if f.run.Members == 1 {
		return nil // nobody would take over
	}
	return f.kill(ctx, 0)
}

// replace restarts a member as a rolling update without a surge does. It
// returns the takeover times of what was the member's, and how long each
// partition that moved had no rows.
func (f *fleet) replace(ctx context.Context, i int) (one restart, takeovers, stopped []time.Duration, err error) {
	before, err := f.r.workspace.owners(ctx)
	if err != nil {
		return one, nil, nil, err
	}
	old := f.members[i]
	if err := f.collect(ctx, old); err != nil {
		return one, nil, nil, err
	}
	gone, began := f.names[i], time.Now()
	if err := old.stop(); err != nil {
		return one, nil, nil, err
	}
	f.members[i] = nil
	one.Exit = time.Since(began)
	if err := f.begin(i); err != nil {
		return one, nil, nil, err
	}
	after, _, err := f.quiet(ctx, began, gone)
	if err != nil {
		return one, nil, nil, err
	}
	for _, m := range after.Moves[len(before.Moves):] {
		stopped = append(stopped, m.First.Sub(m.Last))
		if m.From == gone {
			takeovers = append(takeovers, m.First.Sub(began))
		}
	}
	one.Moved, one.Takeover = len(stopped), spanOf(takeovers)
	return one, takeovers, stopped, nil
}

// kill ends a member with SIGKILL and times its partitions' takeover by the
// others.
func (f *fleet) kill(ctx context.Context, i int) error {
	before, err := f.r.workspace.owners(ctx)
	if err != nil {
		return err
	}
	m := f.members[i]
	if err := f.collect(ctx, m); err != nil {
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

// collect adds the metrics of a member, before it ends.
func (f *fleet) collect(ctx context.Context, m *running) error {
	scraped, err := m.scrape(ctx)
	if err != nil {
		return err
	}
	f.run.Commits += scraped.sum("bridge_commits_total")
	f.run.Rebalances += scraped.sum("bridge_rebalances_total")
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
		errs = append(errs, f.collect(f.ctx, m), m.stop())
		f.members[i] = nil
	}
	return errors.Join(errs...)
}
