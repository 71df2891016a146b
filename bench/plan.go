package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/internal/config"
	planned "github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus/emulator"
)

// acks measures what one partition carries at several acknowledgement times:
// the figure that topics are sized by.
func acks(ctx context.Context, r *rig) (any, error) {
	var out comparisons
	for _, ack := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond} {
		c, err := r.compare(ctx, terms{1, emulator.Latency{P50: ack}, budget}, []variant{{name: r.o.transport, transport: r.o.transport}})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// bound is the memory of one bridge with many busy partitions and slow
// acknowledgements, which is what takes the most of it.
type bound struct {
	comparisons
}

func bounds(ctx context.Context, r *rig) (any, error) {
	var out bound
	for _, t := range []terms{{4, r.o.ack, budget}, {16, r.o.ack, budget}, {64, r.o.ack, budget}, {256, r.o.ack, budget}, {16, r.o.ack, wideBudget}, {64, r.o.ack, wideBudget}} {
		c, err := r.compare(ctx, t, []variant{{name: r.o.transport, transport: r.o.transport}})
		if err != nil {
			return nil, err
		}
		out.comparisons = append(out.comparisons, c)
	}
	return out, nil
}

const mebi = 1 << 20

// boundOf is the resident memory to plan with for one broker, given
// delivery.max_buffered, both in MiB.
func boundOf(budget float64, partitions int) float64 {
	c := config.Defaults()
	return mib(planned.Plan{
		MaxBuffered: int64(budget * mebi), MaxBytes: int64(c.Delivery.MaxBytes), FetchMaxBytes: int64(c.Kafka.FetchMaxBytes),
		Brokers: 1, Partitions: partitions,
	}.Bound())
}

func (b bound) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partitions\tmax_buffered\tvariant\trows/s\trows/write\tpeak RSS, highest\tbound\tof it\tother CPU\t")
	for _, c := range b.comparisons {
		size, err := strconv.ParseFloat(strings.TrimSuffix(c.Budget, "MiB"), 64)
		if err != nil {
			continue // the budgets are written here
		}
		most := boundOf(size, c.Partitions)
		for _, l := range c.Lines {
			var peak int64
			for _, run := range l.Runs {
				peak = max(peak, run.PeakMemory)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%.0f\t%.0f\t%.0f MiB\t%.0f MiB\t%.2f\t%.0f %%\t\n", c.Partitions, c.Budget, l.Name, l.Median.PerSecond, l.Median.BatchRows,
				mib(peak), most, mib(peak)/most, 100*l.Median.Noise.OtherCPU)
		}
	}
	_ = w.Flush() // into memory
	return s.String()
}
