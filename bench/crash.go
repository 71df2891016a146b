package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/datafly/bridge/zerobus/emulator"
)

// crashRun is a bridge that was killed in the middle of a full topic and started again.
type crashRun struct {
	PerSecond  float64 `json:"rows_per_second"` // before the kill
	Duplicates int     `json:"duplicates"`
	// Uncommitted is how many of them were acknowledged before the kill, and InFlight
	// the others: those whose Write was in flight.
	Uncommitted int   `json:"acknowledged_and_not_committed"`
	InFlight    int   `json:"in_flight"`
	Noise       noise `json:"noise"`
}

// crashLine is the runs under the same conditions.
type crashLine struct {
	Ack     time.Duration `json:"ack_ns"`
	MaxRows int           `json:"max_rows"`
	Runs    []crashRun    `json:"runs"`
}

type crashResult []*crashLine

// crash counts what a SIGKILL duplicates while the bridge is behind: its Writes are as
// large as they become. Two sizes of a Write take turns.
func crash(ctx context.Context, r *rig) (any, error) {
	events := r.o.events * min(r.o.partitions, 4) * 3 / 4
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], events)
	if err != nil {
		return nil, err
	}
	var out crashResult
	for _, ack := range r.o.acks {
		small, large := &crashLine{Ack: ack, MaxRows: 5000}, &crashLine{Ack: ack, MaxRows: 20000}
		out = append(out, small, large)
		for round := range r.o.rounds {
			// A kill comes at any moment between two commits.
			rows := events*3/8 + events/4*round/r.o.rounds
			for _, line := range []*crashLine{small, large} {
				run, err := r.killed(ctx, topic, events, rows, *line)
				if err != nil {
					return nil, fmt.Errorf("ack %s, max_rows %d: %w", ack, line.MaxRows, err)
				}
				line.Runs = append(line.Runs, run)
				r.logf("ack %s, max_rows %d, round %d: %.0f rows/s, %d duplicates, %d of them in flight; %s",
					ack, line.MaxRows, round+1, run.PerSecond, run.Duplicates, run.InFlight, run.Noise)
			}
		}
	}
	return out, r.drop(ctx, topic)
}

// killed ends a bridge by SIGKILL when the table has so many rows, has another one
// deliver the rest, and counts what is there twice.
func (r *rig) killed(ctx context.Context, topic string, events, rows int, line crashLine) (run crashRun, err error) {
	w, err := startWorkspace(ctx, r.dir, emulatorSettings{TLS: r.o.tls, Ack: emulator.Latency{P50: line.Ack}})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	group := r.name("group")
	// The second one takes the place of the first without waiting for the end of its session.
	d := delivery{topic: topic, transport: r.o.transport, to: w, sets: []string{
		"kafka.group=" + group, "kafka.instance_id=bridge", fmt.Sprintf("delivery.max_rows=%d", line.MaxRows)}}
	b, err := r.startBridge(ctx, d)
	if err != nil {
		return run, err
	}
	defer func() {
		b.cancel()
		<-b.done
	}()
	alive, cancel := b.alive(ctx)
	defer cancel()
	if err := w.wait(alive, 1); err != nil {
		return run, err
	}
	first, err := readCPU(b.pid)
	if err != nil {
		return run, err
	}
	if err := w.wait(alive, rows); err != nil {
		return run, err
	}
	last, err := readCPU(b.pid)
	if err != nil {
		return run, err
	}
	scraped, err := b.scrape(ctx)
	if err != nil {
		return run, err
	}
	if err := syscall.Kill(b.pid, syscall.SIGKILL); err != nil {
		return run, fmt.Errorf("killing the bridge: %w", err)
	}
	<-b.done // what it had sent is on its way
	committed, err := r.committed(ctx, group)
	if err != nil {
		return run, err
	}
	run.PerSecond, run.Noise = float64(rows)/last.at.Sub(first.at).Seconds(), noiseBetween(first, last)
	run.Uncommitted = int(scraped.sum("bridge_rows_delivered_total")) - committed
	next, err := r.startBridge(ctx, d)
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, next.stop()) }()
	alive, cancel = next.alive(ctx)
	defer cancel()
	run.Duplicates, err = w.delivered(alive, events)
	run.InFlight = run.Duplicates - run.Uncommitted
	return run, err
}

// committed returns how many events the group has committed: partitions begin at 0.
func (r *rig) committed(ctx context.Context, group string) (n int, err error) {
	offsets, err := kadm.NewClient(r.admin).FetchOffsets(ctx, group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	offsets.Each(func(o kadm.OffsetResponse) { n += int(o.At) })
	return n, nil
}

func (all crashResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ack\tmax_rows\trows/s\tduplicates, median\tmost\tacknowledged, not committed\tmost\tin flight\tmost\tother CPU\t")
	for _, line := range all {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t", line.Ack, line.MaxRows, median(line.Runs, func(c crashRun) float64 { return c.PerSecond }))
		for _, of := range []func(crashRun) int{
			func(c crashRun) int { return c.Duplicates }, func(c crashRun) int { return c.Uncommitted }, func(c crashRun) int { return c.InFlight },
		} {
			largest := slices.MaxFunc(line.Runs, func(a, b crashRun) int { return of(a) - of(b) })
			fmt.Fprintf(w, "%.0f\t%d\t", median(line.Runs, func(c crashRun) float64 { return float64(of(c)) }), of(largest))
		}
		fmt.Fprintf(w, "%.0f %%\t\n", 100*median(line.Runs, func(c crashRun) float64 { return c.Noise.OtherCPU }))
	}
	_ = w.Flush() // into memory
	s.WriteString("\nThe bridge was killed while it was behind, and started again. Rows whose Write was in flight may be in the table or not; those that are not are no duplicates. Every event is in the table at the end.\n")
	return s.String()
}
