package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// versionsResult compares two binaries of the bridge.
type versionsResult struct {
	Old       []figures `json:"old"`
	New       []figures `json:"new"`
	Ratios    []float64 `json:"cpu_per_row_new_to_old"` // by round
	Transport string    `json:"transport"`
}

// versions has the bridge of --against and this one deliver the same topic in
// turns; every second round begins with the other one.
func versions(ctx context.Context, r *rig) (any, error) {
	if r.o.against == "" {
		if r.o.what == "all" {
			return versionsResult{}, nil
		}
		return nil, errors.New("versions compares two binaries: name the other one with --against FILE")
	}
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	out := versionsResult{Transport: r.o.transport}
	ours := r.bridge
	defer func() { r.bridge = ours }()
	for turn := range r.o.rounds {
		order := []string{r.o.against, ours}
		if turn%2 == 1 {
			slices.Reverse(order)
		}
		for _, binary := range order {
			r.bridge = binary
			f, err := r.carryAll(ctx, topic)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", binary, err)
			}
			if binary == ours {
				out.New = append(out.New, f)
			} else {
				out.Old = append(out.Old, f)
			}
		}
		was, is := out.Old[turn], out.New[turn]
		out.Ratios = append(out.Ratios, is.CPUMicros/was.CPUMicros)
		r.say("round %d: old %.3f, new %.3f us/row, %+.1f %%; %s", turn+1, was.CPUMicros, is.CPUMicros, 100*(out.Ratios[turn]-1), is.Noise)
	}
	return out, r.drop(ctx, topic)
}

func (v versionsResult) String() string {
	if len(v.Ratios) == 0 {
		return "versions: left out, since --against names no other bridge\n"
	}
	cpu := func(f figures) float64 { return f.CPUMicros }
	memory := func(f figures) float64 { return mib(f.PeakMemory) }
	same := func(f float64) float64 { return f }
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "bridge\tus/row\tleast\tmost\tpeak RSS\t")
	for _, side := range []struct {
		name string
		runs []figures
	}{{"old", v.Old}, {"new", v.New}} {
		all := make([]float64, 0, len(side.runs))
		for _, f := range side.runs {
			all = append(all, f.CPUMicros)
		}
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.3f\t%.0f MiB\t\n", side.name, median(side.runs, cpu), slices.Min(all), slices.Max(all), median(side.runs, memory))
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&s, "\nOver %s, new to old, CPU per row: median of %d ratios %+.1f %%, from %+.1f to %+.1f %%.\n", v.Transport,
		len(v.Ratios), 100*(median(v.Ratios, same)-1), 100*(slices.Min(v.Ratios)-1), 100*(slices.Max(v.Ratios)-1))
	return s.String()
}
