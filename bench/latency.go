package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// quantiles of a time, in seconds.
type quantiles struct {
	P50 float64 `json:"p50_seconds"`
	P90 float64 `json:"p90_seconds"`
	P99 float64 `json:"p99_seconds"`
}

func (q quantiles) String() string {
	return fmt.Sprintf("%.2f\t%.2f\t%.2f", 1e3*q.P50, 1e3*q.P90, 1e3*q.P99)
}

func ofBuckets(b []bucket) quantiles {
	return quantiles{quantile(b, 0.5), quantile(b, 0.9), quantile(b, 0.99)}
}

func ofSorted(all []time.Duration) quantiles {
	at := func(q float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return all[min(int(q*float64(len(all))), len(all)-1)].Seconds()
	}
	return quantiles{at(0.5), at(0.9), at(0.99)}
}

type latencyResult struct {
	Wanted   int     `json:"wanted_events_per_second"`
	Produced float64 `json:"produced_events_per_second"` // what the producer managed
	Landed   float64 `json:"rows_per_second"`

	Ack      quantiles `json:"ack"`      // Write begins until its rows are acknowledged, by the bridge's own histogram
	Emulator quantiles `json:"emulator"` // the part of it spent in the emulator's handler
	ToRow    quantiles `json:"produce_to_row"`
	// AddedMean is the mean of ack minus the mean of emulator, in seconds:
	// client, sockets and scheduling on both sides.
	AddedMean float64 `json:"added_mean_seconds"`
	Batches   float64 `json:"batches"`
	Probes    int     `json:"probes"`
	Figures   figures `json:"figures"`
}

// lead is the longest the load runs before it counts; a shorter measurement has
// a shorter one.
const lead = 3 * time.Second

// flatOut is more than any producer manages, in events per second.
const flatOut = 100_000_000

func latency(ctx context.Context, r *rig) (any, error) {
	rate := r.o.rate
	if rate == 0 {
		// Half of what it reads from a full topic would be too much here: the
		// producer and the broker need the same processors.
		full, err := r.loaded(ctx, flatOut, min(5*time.Second, r.o.duration))
		if err != nil {
			return nil, fmt.Errorf("finding the full load: %w", err)
		}
		rate = max(int(r.o.load*full.Landed), 1)
		r.say("with the producer going flat out %.0f rows/s land; the load is %d events/s", full.Landed, rate)
	}
	return r.loaded(ctx, rate, r.o.duration)
}

// loaded measures the bridge while events are produced at a rate.
func (r *rig) loaded(ctx context.Context, rate int, lasts time.Duration) (out latencyResult, err error) {
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], 0)
	if err != nil {
		return out, err
	}
	if err := r.workspace.reset(ctx); err != nil {
		return out, err
	}
	// Through the door with the clock, which speaks plain HTTP only.
	b, err := r.startBridge(ctx, topic, atEmulator{URL: r.workspace.at.Control})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, b.stop(), r.drop(ctx, topic)) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()

	l, err := newLoad(r.brokers, topic, r.o.codecs[0], 2*time.Millisecond)
	if err != nil {
		return out, err
	}
	loading, stopLoad := context.WithCancel(ctx)
	sent := make(chan int64, 1)
	go func() { sent <- l.steady(loading, rate) }() // ends with loading; waited for below
	out, err = r.observe(ctx, b, l, lasts)
	stopLoad()
	produced := <-sent
	if err = errors.Join(err, l.finish(ctx)); err != nil {
		return out, err
	}
	if err := r.workspace.wait(ctx, int(produced)); err != nil {
		return out, err
	}
	out.Wanted = rate
	return out, r.workspace.complete(ctx, int(produced))
}

// observe waits until the load is steady and then measures for a while.
func (r *rig) observe(ctx context.Context, b *running, l *load, lasts time.Duration) (out latencyResult, err error) {
	if err := r.workspace.wait(ctx, 1); err != nil {
		return out, err
	}
	if err := pause(ctx, min(lead, lasts)); err != nil {
		return out, err
	}
	var old timings
	if err := r.workspace.call(ctx, http.MethodGet, "/bench/timings", nil, &old); err != nil {
		return out, err
	}
	before, err := scrape(ctx, b)
	if err != nil {
		return out, err
	}
	from, err := readCPU(b.pid)
	if err != nil {
		return out, err
	}
	produced := l.acked.Load()
	if err := pause(ctx, lasts); err != nil {
		return out, err
	}
	to, err := readCPU(b.pid)
	if err != nil {
		return out, err
	}
	produced = l.acked.Load() - produced
	after, err := scrape(ctx, b)
	if err != nil {
		return out, err
	}
	var t timings
	if err := r.workspace.call(ctx, http.MethodGet, "/bench/timings", nil, &t); err != nil {
		return out, err
	}
	sum := func(name string) float64 { return after.sums[name] - before.sums[name] }
	const ack = "bridge_ack_latency_seconds"
	out = latencyResult{
		Produced: float64(produced) / to.at.Sub(from.at).Seconds(),
		Ack:      ofBuckets(after.since(before, ack)), Emulator: ofSorted(t.Served), ToRow: ofSorted(t.Arrivals),
		Batches: sum(ack + "_count"), Probes: len(t.Arrivals),
		Figures: newFigures(int(sum("bridge_rows_delivered_total")), from, to),
	}
	out.Landed = out.Figures.PerSecond
	if _, out.Figures.PeakMemory, err = memoryOf(b.pid); err != nil {
		return out, err
	}
	if out.Batches == 0 || len(t.Served) == 0 {
		return out, fmt.Errorf("nothing was delivered in %s; raise --rate or --duration", lasts)
	}
	var served time.Duration
	for _, d := range t.Served {
		served += d
	}
	out.AddedMean = sum(ack+"_sum")/out.Batches - served.Seconds()/float64(len(t.Served))
	return out, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l latencyResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "milliseconds\tp50\tp90\tp99\t")
	fmt.Fprintf(w, "acknowledgement, as the bridge counts it\t%s\t\n", l.Ack)
	fmt.Fprintf(w, "of this in the emulator\t%s\t\n", l.Emulator)
	fmt.Fprintf(w, "from producing to the row\t%s\t\n", l.ToRow)
	_ = w.Flush() // into memory
	fmt.Fprintf(&s, "\n%d events/s wanted, %.0f produced, %.0f landed; %.0f batches of %.0f rows; %d probes\n"+
		"acknowledgement minus emulator, means: %.2f ms\nbridge %.1f us/row, peak RSS %.0f MiB; %s\n",
		l.Wanted, l.Produced, l.Landed, l.Batches, float64(l.Figures.Rows)/l.Batches, l.Probes,
		1e3*l.AddedMean, l.Figures.CPUMicros, mib(l.Figures.PeakMemory), l.Figures.Noise)
	if l.overloaded() {
		s.WriteString("OVERLOADED: the machine did not keep up with the rate, so these are times spent in queues\n")
	}
	return s.String()
}

// overloaded tells whether less was produced or landed than wanted.
func (l latencyResult) overloaded() bool { return min(l.Produced, l.Landed) < 0.95*float64(l.Wanted) }
