package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
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
	Wanted    int     `json:"wanted_events_per_second"`
	Produced  float64 `json:"produced_events_per_second"` // what the producer managed
	Delivered float64 `json:"rows_per_second"`

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

// unlimited is more than any producer reaches, in events per second.
const unlimited = 100_000_000

func latency(ctx context.Context, r *rig) (any, error) {
	rate := r.o.rate
	if rate == 0 {
		// Half of what it reads from a full topic would be too much here: the
		// producer and the broker need the same processors.
		full, err := r.loaded(ctx, unlimited, min(5*time.Second, r.o.duration))
		if err != nil {
			return nil, fmt.Errorf("finding the full load: %w", err)
		}
		rate = max(int(r.o.load*full.Delivered), 1)
		r.logf("with the producer at its maximum %.0f rows/s are delivered; the load is %d events/s", full.Delivered, rate)
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
	// To the address that times requests, which is plain HTTP.
	b, err := r.startBridge(ctx, delivery{topic: topic, transport: r.o.transport, to: r.workspace.plain()})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, b.stop(), r.drop(ctx, topic)) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()

	l, err := newLoad(r.brokers, topic, r.o.codecs[0], 2*time.Millisecond, 0)
	if err != nil {
		return out, err
	}
	loading, stopLoad := context.WithCancel(ctx)
	sent := make(chan struct{})
	go func() { // ends with loading; waited for below
		defer close(sent)
		l.steady(loading, rate, l.nextProbed)
	}()
	out, err = r.observe(ctx, b, l, lasts)
	stopLoad()
	<-sent
	if err = errors.Join(err, l.finish(ctx)); err != nil {
		return out, err
	}
	if err := r.workspace.wait(ctx, int(l.sent)); err != nil {
		return out, err
	}
	out.Wanted = rate
	return out, r.workspace.complete(ctx, int(l.sent))
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
	before, err := b.scrape(ctx)
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
	after, err := b.scrape(ctx)
	if err != nil {
		return out, err
	}
	var t timings
	if err := r.workspace.call(ctx, http.MethodGet, "/bench/timings", nil, &t); err != nil {
		return out, err
	}
	sum := func(name string) float64 { return after.sum(name) - before.sum(name) }
	const ack = "bridge_ack_latency_seconds"
	out = latencyResult{
		Produced: float64(produced) / to.at.Sub(from.at).Seconds(),
		Ack:      ofBuckets(after.since(before, ack)), Emulator: ofSorted(t.Served), ToRow: ofSorted(t.Arrivals),
		Batches: sum(ack + "_count"), Probes: len(t.Arrivals),
		Figures: newFigures(int(sum("bridge_rows_delivered_total")), from, to),
	}
	out.Delivered = out.Figures.PerSecond
	_, peak, err := memoryOf(b.pid)
	if err != nil {
		return out, err
	}
	out.Figures.PeakMemory = float64(peak)
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
	fmt.Fprintf(&s, "\n%d events/s wanted, %.0f produced, %.0f delivered; %.0f batches of %.0f rows; %d probes\n"+
		"acknowledgement minus emulator, means: %.2f ms\nbridge %.1f us/row, peak RSS %.0f MiB; %s\n",
		l.Wanted, l.Produced, l.Delivered, l.Batches, l.Figures.Rows/l.Batches, l.Probes,
		1e3*l.AddedMean, l.Figures.CPUMicros, l.Figures.PeakMemory/(1<<20), l.Figures.noise)
	if l.overloaded() {
		s.WriteString("OVERLOADED: the machine did not keep up with the rate, so these times include queues\n")
	}
	return s.String()
}

// overloaded reports whether less was produced or delivered than wanted.
func (l latencyResult) overloaded() bool {
	return min(l.Produced, l.Delivered) < 0.95*float64(l.Wanted)
}

// memoryRun is one bridge under load whose sink did not answer.
type memoryRun struct {
	Partitions int `json:"partitions"`
	// RSS over time, in bytes, from the start of the bridge.
	Samples []memorySample `json:"samples"`
	// Budget is delivery.max_buffered, Buffered what the bridge reported at the end
	// of the stall.
	Budget   int64 `json:"budget_bytes"`
	Buffered int64 `json:"buffered_bytes"`
	Heap     int64 `json:"heap_in_use_bytes"`
	Stalled  int64 `json:"rss_at_the_end_of_the_stall_bytes"`
	Growth   int64 `json:"rss_growth_in_its_second_half_bytes"`
	Peak     int64 `json:"peak_rss_bytes"` // catching up afterwards included
	Noise    noise `json:"noise"`
}

type memorySample struct {
	At  time.Duration `json:"at_ns"`
	RSS int64         `json:"rss_bytes"`
}

type memoryResult []memoryRun

func stalledSink(ctx context.Context, r *rig) (any, error) {
	var out memoryResult
	for _, partitions := range []int{r.o.partitions, r.o.wide} {
		topic, err := r.topic(ctx, partitions, r.o.codecs[0], r.o.events)
		if err != nil {
			return nil, err
		}
		m, err := r.stalled(ctx, topic)
		if err != nil {
			return nil, err
		}
		m.Partitions = partitions
		out = append(out, m)
		r.logf("%d partitions: %.0f MiB at the end of the stall, peak %.0f MiB", partitions, mib(m.Stalled), mib(m.Peak))
		if err := r.drop(ctx, topic); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hang has the sink never answer a request with rows, and stop reading a stream after
// its first message; the empty request that checks the table at the start is answered.
func hang(transport string) emulator.Fault {
	f := emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectHang, Rows: &emulator.RowMatch{Regexp: "^{"}}
	switch transport {
	case zerobus.TransportREST:
		f.Endpoint = emulator.EndpointInsert
	case zerobus.TransportGRPC:
		f.Endpoint, f.Rows = emulator.EndpointStream, nil
	}
	return f
}

// stalled runs the bridge against a sink that hangs, samples its memory, then lets the
// sink answer and waits until every row is there.
func (r *rig) stalled(ctx context.Context, topic string) (m memoryRun, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return m, err
	}
	if err := r.workspace.call(ctx, http.MethodPost, "/emulator/faults", hang(r.o.transport), nil); err != nil {
		return m, err
	}
	from, err := readCPU(0)
	if err != nil {
		return m, err
	}
	b, err := r.startBridge(ctx, r.full(topic))
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := m.watch(ctx, b.pid, r.o.stall); err != nil {
		return m, err
	}
	scraped, err := b.scrape(ctx)
	if err != nil {
		return m, err
	}
	m.Budget, m.Buffered = int64(scraped.sum("bridge_buffered_limit_bytes")), int64(scraped.sum("bridge_buffered_bytes"))
	m.Heap = int64(scraped.sum("go_memstats_heap_inuse_bytes"))
	to, err := readCPU(b.pid)
	if err != nil {
		return m, err
	}
	m.Noise = noiseBetween(from, to)
	if err := r.workspace.call(ctx, http.MethodDelete, "/emulator/faults", nil, nil); err != nil {
		return m, err
	}
	if err := r.workspace.wait(ctx, r.o.events); err != nil {
		return m, err
	}
	if _, m.Peak, err = memoryOf(b.pid); err != nil {
		return m, err
	}
	return m, r.workspace.complete(ctx, r.o.events)
}

// watch samples the memory of a process for a while.
func (m *memoryRun) watch(ctx context.Context, pid int, lasts time.Duration) error {
	began := time.Now()
	tick := time.NewTicker(max(lasts/80, 10*time.Millisecond))
	defer tick.Stop()
	for time.Since(began) < lasts {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		rss, _, err := memoryOf(pid)
		if err != nil {
			return err
		}
		m.Samples = append(m.Samples, memorySample{time.Since(began), rss})
	}
	m.Stalled = m.Samples[len(m.Samples)-1].RSS
	m.Growth = m.Stalled - m.Samples[len(m.Samples)/2].RSS
	return nil
}

func (m memoryResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partitions\tbudget\tbuffered\theap\tRSS, stalled\tgrowth in 2nd half\tpeak RSS\t")
	for _, r := range m {
		fmt.Fprintf(w, "%d\t%.0f MiB\t%.0f MiB\t%.0f MiB\t%.0f MiB\t%+.0f MiB\t%.0f MiB\t\n", r.Partitions,
			mib(r.Budget), mib(r.Buffered), mib(r.Heap), mib(r.Stalled), mib(r.Growth), mib(r.Peak))
	}
	_ = w.Flush() // into memory
	s.WriteString("\nThe peak includes catching up once the sink answered again; all rows arrived.\n")
	for _, r := range m {
		fmt.Fprintf(&s, "RSS with %d partitions, MiB over seconds:", r.Partitions)
		for i, x := range r.Samples {
			if i%8 == 7 {
				fmt.Fprintf(&s, "  %.0fs %.0f", x.At.Seconds(), mib(x.RSS))
			}
		}
		fmt.Fprintf(&s, "  (%s)\n", r.Noise)
	}
	return s.String()
}
