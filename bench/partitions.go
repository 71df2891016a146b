package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

type partitionsRun struct {
	Partitions int       `json:"partitions"`
	Runs       []figures `json:"runs"`
	Median     figures   `json:"median"`
}

type partitionsResult []partitionsRun

// partitions has the bridge read the same events from topics of different
// widths, in turns.
func partitions(ctx context.Context, r *rig) (any, error) {
	var out partitionsResult
	var topics []string
	for _, n := range r.o.counts {
		topic, err := r.topic(ctx, n, r.o.codecs[0], r.o.events)
		if err != nil {
			return nil, err
		}
		topics = append(topics, topic)
		out = append(out, partitionsRun{Partitions: n})
	}
	for range min(r.o.rounds, 3) {
		for i, topic := range topics {
			f, err := r.carryAll(ctx, topic)
			if err != nil {
				return nil, fmt.Errorf("%d partitions: %w", out[i].Partitions, err)
			}
			out[i].Runs = append(out[i].Runs, f)
			r.say("%d partitions: %.2f us/row, peak RSS %.0f MiB, first row after %.2f s, %.2f s in all; %s", out[i].Partitions, f.CPUMicros, mib(f.PeakMemory),
				f.FirstRow.Seconds(), f.Wall.Seconds(), f.Noise)
		}
	}
	for i := range out {
		of := func(get func(figures) float64) float64 { return median(out[i].Runs, get) }
		out[i].Median = figures{
			Rows:       out[i].Runs[0].Rows,
			PerSecond:  of(func(f figures) float64 { return f.PerSecond }),
			PerCPU:     of(func(f figures) float64 { return f.PerCPU }),
			CPUMicros:  of(func(f figures) float64 { return f.CPUMicros }),
			PeakMemory: int64(of(func(f figures) float64 { return float64(f.PeakMemory) })),
		}
	}
	for _, topic := range topics {
		if err := r.drop(ctx, topic); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p partitionsResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partitions\trows/s\trows/CPU s\tus/row\tpeak RSS\t")
	for _, r := range p {
		fmt.Fprintf(w, "%d\t%.0f\t%.0f\t%.2f\t%.0f MiB\t\n", r.Partitions, r.Median.PerSecond, r.Median.PerCPU, r.Median.CPUMicros, mib(r.Median.PeakMemory))
	}
	_ = w.Flush() // into memory
	cost := func(a, b partitionsRun) int { return int(1000 * (a.Median.CPUMicros - b.Median.CPUMicros)) }
	fmt.Fprintf(&s, "\ndearest to cheapest: %.2f\n", slices.MaxFunc(p, cost).Median.CPUMicros/slices.MinFunc(p, cost).Median.CPUMicros)
	return s.String()
}
