package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// codecResult is the throughput measured on one topic.
type codecResult struct {
	Codec  string    `json:"codec"`
	Rounds []round   `json:"rounds"`
	Kept   int       `json:"rounds_kept"` // quiet enough to count, or all when too few were
	Quiet  bool      `json:"quiet"`       // whether every round that counts was quiet
	Bridge figures   `json:"bridge_median"`
	Poll   figures   `json:"poll_only_median"`
	Naive  figures   `json:"naive_median"`
	Ratios ratioPair `json:"median_of_ratios"`
}

// round is one turn of the three subjects, one after the other.
type round struct {
	Bridge figures   `json:"bridge"`
	Poll   figures   `json:"poll_only"`
	Naive  figures   `json:"naive"`
	Ratios ratioPair `json:"ratios"`
}

// ratioPair compares rows per processor second.
type ratioPair struct {
	ToPoll  float64 `json:"bridge_to_poll_only"`
	ToNaive float64 `json:"bridge_to_naive"`
}

func (r round) quiet() bool {
	return max(r.Bridge.Noise.OtherCPU, r.Poll.Noise.OtherCPU, r.Naive.Noise.OtherCPU) <= noisy
}

type throughputResult []codecResult

func throughput(ctx context.Context, r *rig) (any, error) {
	var out throughputResult
	for _, codec := range r.o.codecs {
		c, err := r.throughputOf(ctx, codec)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (r *rig) throughputOf(ctx context.Context, codec string) (c codecResult, err error) {
	c.Codec = codec
	topic, err := r.topic(ctx, r.o.partitions, codec, r.o.events)
	if err != nil {
		return c, err
	}
	for i := range r.o.rounds {
		var one round
		if one.Poll, err = r.pollAll(ctx, topic); err != nil {
			return c, fmt.Errorf("poll-only: %w", err)
		}
		if one.Bridge, err = r.carryAll(ctx, topic); err != nil {
			return c, fmt.Errorf("bridge: %w", err)
		}
		if one.Naive, err = r.plodAll(ctx, topic); err != nil {
			return c, fmt.Errorf("naive: %w", err)
		}
		one.Ratios = ratioPair{one.Bridge.PerCPU / one.Poll.PerCPU, one.Bridge.PerCPU / one.Naive.PerCPU}
		c.Rounds = append(c.Rounds, one)
		r.say("round %d: poll-only %.2f, bridge %.2f, naive %.2f us/row; bridge %s", i+1, one.Poll.CPUMicros, one.Bridge.CPUMicros, one.Naive.CPUMicros, one.Bridge.Noise)
	}
	c.summarise()
	if r.o.profile != "" {
		if err := r.profiled(ctx, topic, r.o.profile, c.Bridge.Wall); err != nil {
			return c, err
		}
	}
	return c, r.drop(ctx, topic)
}

// summarise takes medians over the quiet rounds, or over all when fewer than
// three of them, or than all, were quiet.
func (c *codecResult) summarise() {
	kept := slices.DeleteFunc(slices.Clone(c.Rounds), func(r round) bool { return !r.quiet() })
	c.Quiet = len(kept) >= min(3, len(c.Rounds))
	if !c.Quiet {
		kept = c.Rounds
	}
	c.Kept = len(kept)
	c.Bridge = medianFigures(kept, func(r round) figures { return r.Bridge })
	c.Poll = medianFigures(kept, func(r round) figures { return r.Poll })
	c.Naive = medianFigures(kept, func(r round) figures { return r.Naive })
	c.Ratios.ToPoll = median(kept, func(r round) float64 { return r.Ratios.ToPoll })
	c.Ratios.ToNaive = median(kept, func(r round) float64 { return r.Ratios.ToNaive })
}

func medianFigures(rounds []round, of func(round) figures) figures {
	of64 := func(get func(figures) float64) float64 {
		return median(rounds, func(r round) float64 { return get(of(r)) })
	}
	return figures{
		Rows:       of(rounds[0]).Rows,
		Wall:       time.Duration(of64(func(f figures) float64 { return float64(f.Wall) })),
		CPU:        time.Duration(of64(func(f figures) float64 { return float64(f.CPU) })),
		PerSecond:  of64(func(f figures) float64 { return f.PerSecond }),
		PerCPU:     of64(func(f figures) float64 { return f.PerCPU }),
		CPUMicros:  of64(func(f figures) float64 { return f.CPUMicros }),
		PeakMemory: int64(of64(func(f figures) float64 { return float64(f.PeakMemory) })),
		FirstRow:   time.Duration(of64(func(f figures) float64 { return float64(f.FirstRow) })),
		Noise: noise{
			OtherCPU: of64(func(f figures) float64 { return f.Noise.OtherCPU }),
			Steal:    of64(func(f figures) float64 { return f.Noise.Steal }),
		},
	}
}

// median of values of a list that is not empty.
func median[T any](list []T, of func(T) float64) float64 {
	var all []float64
	for _, v := range list {
		all = append(all, of(v))
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

func (t throughputResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "topic\tsubject\trows/s\trows/CPU s\tus/row\tpeak RSS\tbridge is\tother CPU\tsteal\t")
	for _, c := range t {
		for _, subject := range []struct {
			name  string
			f     figures
			ratio string
		}{
			{"bridge", c.Bridge, ""},
			{"poll-only", c.Poll, fmt.Sprintf("%.2fx", c.Ratios.ToPoll)},
			{"naive", c.Naive, fmt.Sprintf("%.1fx", c.Ratios.ToNaive)},
		} {
			f := subject.f
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.2f\t%.0f MiB\t%s\t%.0f %%\t%.0f %%\t\n", c.Codec, subject.name, f.PerSecond, f.PerCPU, f.CPUMicros,
				mib(f.PeakMemory), subject.ratio, 100*f.Noise.OtherCPU, 100*f.Noise.Steal)
		}
	}
	_ = w.Flush() // into memory
	for _, c := range t {
		fmt.Fprintf(&s, "\n%s: medians of %d of %d rounds; first row %.2f s after the start", c.Codec, c.Kept, len(c.Rounds), c.Bridge.FirstRow.Seconds())
		if !c.Quiet {
			fmt.Fprintf(&s, "; TOO NOISY: fewer than 3 rounds had other CPU below %.0f %%, so all count", 100*noisy)
		}
	}
	s.WriteString("\nEvery run of the bridge left as many rows and message ids in the table as events were produced.\n")
	return s.String()
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
