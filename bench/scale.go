package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
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
	Stood    span          `json:"stood"`    // of all partitions that moved in the restarts: from the old owner's last rows to the new one's first
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
		r.say("%s: takeover %s (p50 / longest), after a kill %s, %d duplicates of %d events; %s", kind, s.Takeover, s.KillTook, s.Duplicates, s.Produced, s.Noise)
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
	l, err := newSpread(r.brokers, topic, s.Partitions)
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
		err := l.steady(sending, s.Rate)
		if err != nil {
			giveUp(err) // partitions without events would be waited for in vain
		}
		sent <- err
	}()
	f := &fleet{r: r, kind: kind, topic: topic, group: r.name("group"), run: &s, lives: ctx}
	err = f.roll(rolling)
	enough()
	err = errors.Join(err, <-sent)
	if err == nil {
		s.Produced = l.sent()
		s.Duplicates, err = r.workspace.settled(ctx, s.Produced)
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

// settled waits until every event is in the table and returns how many rows are
// there besides.
func (w *workspace) settled(ctx context.Context, produced int) (duplicates int, err error) {
	if err := w.wait(ctx, produced); err != nil {
		return 0, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, distinct, err := w.counts(ctx)
		switch {
		case err != nil:
			return 0, err
		case distinct > produced:
			return 0, fmt.Errorf("produced %d events and the table has %d message ids", produced, distinct)
		case distinct == produced:
			return rows - distinct, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d events are in the table: %w", distinct, produced, context.Cause(ctx))
		}
	}
}

func (all scaleResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "group\tmembers\tpartitions\tevents/s\tall started\texit, longest\ttakeover p50 / longest\tmoved\tstood still p50 / longest\tkill -9: takeover p50 / longest\tduplicates\tcommits/s\trebalances\tpeak RSS\tother CPU\t")
	for _, r := range all {
		var exit time.Duration
		moved := 0
		for _, one := range r.Restarts {
			exit, moved = max(exit, one.Exit), moved+one.Moved
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1f s\t%.2f s\t%s\t%d\t%s\t%s\t%d of %d\t%.1f\t%.0f\t%.0f MiB\t%.0f %%\t\n", r.Kind, r.Members, r.Partitions, r.Rate, r.Started.Seconds(),
			exit.Seconds(), r.Takeover, moved, r.Stood, r.KillTook, r.Duplicates, r.Produced, r.Commits, r.Rebalances, mib(r.PeakMemory), 100*r.Noise.OtherCPU)
	}
	_ = w.Flush() // into memory
	s.WriteString("\nTakeover is from SIGTERM (or SIGKILL) to the acknowledgement of the new owner's first rows, by partition. A partition has an event every partitions / rate seconds, so times below that are not told apart. All events arrived.\n")
	return s.String()
}
