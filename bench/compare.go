package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// variant is one way of writing rows that is compared with others.
type variant struct {
	name      string
	transport string
	sets      []string
}

// steady are the figures of one variant over a stretch in which the topic
// neither begins nor ends.
type steady struct {
	figures
	PerPartition float64 `json:"rows_per_second_and_partition"`
	BatchRows    float64 `json:"rows_per_write"`
	RowBytes     float64 `json:"bytes_per_row"`
	Ack          float64 `json:"mean_ack_seconds"`
}

// terms are what the variants of a comparison have in common.
type terms struct {
	Partitions int              `json:"partitions"`
	Ack        emulator.Latency `json:"ack"`          // what the emulated service waits
	Budget     string           `json:"max_buffered"` // delivery.max_buffered
}

// comparison are variants that took turns on one topic.
type comparison struct {
	terms
	Lines []comparedLine `json:"variants"`
}

type comparedLine struct {
	Name   string   `json:"name"`
	Runs   []steady `json:"runs"`
	Kept   int      `json:"runs_kept"` // quiet enough to count, or all when none was
	Median steady   `json:"median"`
}

// summarise takes medians over the quiet runs, or over all when none was quiet.
func (l *comparedLine) summarise() {
	kept := slices.DeleteFunc(slices.Clone(l.Runs), func(s steady) bool { return s.Noise.OtherCPU > noisy })
	if len(kept) == 0 {
		kept = l.Runs
	}
	l.Kept, l.Median = len(kept), medianSteady(kept)
}

// compare has the variants write one topic to a service that waits before it
// acknowledges.
func (r *rig) compare(ctx context.Context, t terms, variants []variant) (c comparison, err error) {
	c = comparison{terms: t, Lines: make([]comparedLine, len(variants))}
	partitions, events := t.Partitions, eventsFor(r.o.events, t.Partitions)
	w, err := startWorkspace(ctx, r.dir, r.o.tls, t.Ack)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	topic, err := r.topic(ctx, partitions, r.o.codecs[0], events)
	if err != nil {
		return c, err
	}
	for range r.o.rounds {
		for i, v := range variants {
			v.sets = append([]string{"delivery.max_buffered=" + t.Budget}, v.sets...)
			s, err := r.steadyRun(ctx, w, topic, events, v)
			if err != nil {
				return c, fmt.Errorf("%s on %d partitions: %w", v.name, partitions, err)
			}
			s.PerPartition = s.PerSecond / float64(partitions)
			l := &c.Lines[i]
			l.Name, l.Runs = v.name, append(l.Runs, s)
			r.say("%d partitions, ack %s, max_buffered %s, %s: %.0f rows/s, %.2f us/row, %.0f rows per write, ack %.0f ms, peak RSS %.0f MiB; %s",
				partitions, t.Ack, t.Budget, v.name, s.PerSecond, s.CPUMicros, s.BatchRows, 1e3*s.Ack, mib(s.PeakMemory), s.Noise)
		}
	}
	for i := range c.Lines {
		c.Lines[i].summarise()
	}
	return c, r.drop(ctx, topic)
}

// steadyRun has one variant write the whole topic and measures it from an
// eighth to three quarters of it: buffers are full at both ends, so what is
// read and what is written is the same.
func (r *rig) steadyRun(ctx context.Context, w *workspace, topic string, events int, v variant) (s steady, err error) {
	if err := w.reset(ctx); err != nil {
		return s, err
	}
	began := time.Now()
	b, err := r.startBridge(ctx, topic, w.at, append(w.at.reached(v.transport), v.sets...)...)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := w.wait(ctx, 1); err != nil {
		return s, err
	}
	s.FirstRow = time.Since(began)
	var at [2]cpuTimes
	var said [2]*metrics
	for i, n := range []int{warm(events), events * 3 / 4} {
		if err := w.wait(ctx, n); err != nil {
			return s, err
		}
		if said[i], err = scrape(ctx, b); err != nil {
			return s, err
		}
		if at[i], err = readCPU(b.pid); err != nil {
			return s, err
		}
	}
	since := func(name string) float64 { return said[1].sums[name] - said[0].sums[name] }
	rows, read := int(since("bridge_rows_delivered_total")), int(since("bridge_events_read_total"))
	if rows == 0 || read == 0 || read < rows/2 {
		return s, fmt.Errorf("the bridge had nearly all of %d events in memory before it was warm; take more --events, or lower delivery.max_buffered with --set", events)
	}
	first := s.FirstRow
	s.figures = newFigures(rows, at[0], at[1])
	s.FirstRow = first
	// What was read before does not count as work done, nor does what is
	// still to be written.
	s.PerCPU = float64(min(rows, read)) / s.CPU.Seconds()
	s.CPUMicros = 1e6 / s.PerCPU
	if rows > 0 {
		s.RowBytes = since("bridge_rows_delivered_bytes_total") / float64(rows)
	}
	if writes := since("bridge_ack_latency_seconds_count"); writes > 0 {
		s.BatchRows = float64(rows) / writes
		s.Ack = since("bridge_ack_latency_seconds_sum") / writes
	}
	if err := w.wait(ctx, events); err != nil {
		return s, err
	}
	if _, s.PeakMemory, err = memoryOf(b.pid); err != nil {
		return s, err
	}
	return s, w.complete(ctx, events)
}

func medianSteady(runs []steady) steady {
	of := func(get func(steady) float64) float64 { return median(runs, get) }
	return steady{
		figures: figures{
			Rows:       runs[0].Rows,
			PerSecond:  of(func(s steady) float64 { return s.PerSecond }),
			PerCPU:     of(func(s steady) float64 { return s.PerCPU }),
			CPUMicros:  of(func(s steady) float64 { return s.CPUMicros }),
			PeakMemory: int64(of(func(s steady) float64 { return float64(s.PeakMemory) })),
			FirstRow:   time.Duration(of(func(s steady) float64 { return float64(s.FirstRow) })),
			Noise: noise{
				OtherCPU: of(func(s steady) float64 { return s.Noise.OtherCPU }),
				Steal:    of(func(s steady) float64 { return s.Noise.Steal }),
			},
		},
		PerPartition: of(func(s steady) float64 { return s.PerPartition }),
		BatchRows:    of(func(s steady) float64 { return s.BatchRows }),
		RowBytes:     of(func(s steady) float64 { return s.RowBytes }),
		Ack:          of(func(s steady) float64 { return s.Ack }),
	}
}

type comparisons []comparison

func (all comparisons) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partitions\tack\tmax_buffered\tvariant\trows/s\tper partition\trows/CPU s\tus/row\tB/row\trows/write\tmean ack\tpeak RSS\tother CPU\tsteal\trounds\t")
	for _, c := range all {
		for _, l := range c.Lines {
			m := l.Median
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t%.0f\t%.0f ms\t%.0f MiB\t%.0f %%\t%.0f %%\t%d of %d\t\n", c.Partitions, c.Ack, c.Budget, l.Name,
				m.PerSecond, m.PerPartition, m.PerCPU, m.CPUMicros, m.RowBytes, m.BatchRows, 1e3*m.Ack, mib(m.PeakMemory), 100*m.Noise.OtherCPU, 100*m.Noise.Steal, l.Kept, len(l.Runs))
		}
	}
	_ = w.Flush() // into memory
	s.WriteString("\nMedians of the interleaved rounds with other CPU below 10 %, or of all where there was none. Every run left as many rows and message ids in the table as events were produced.\n")
	return s.String()
}
