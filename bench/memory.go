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

// memoryRun is one bridge under load whose sink stood still.
type memoryRun struct {
	Partitions int `json:"partitions"`
	// RSS over time, in bytes, from the start of the bridge.
	Samples []memorySample `json:"samples"`
	// Budget is delivery.max_buffered, Buffered what the bridge said it held
	// at the end of the stall.
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

func memory(ctx context.Context, r *rig) (any, error) {
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
		r.say("%d partitions: %.0f MiB at the end of the stall, peak %.0f MiB", partitions, mib(m.Stalled), mib(m.Peak))
		if err := r.drop(ctx, topic); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// hang has the sink never answer a request that carries rows, and never read on
// from a stream once a message has come; the empty request that proves the
// table at the start is answered.
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

// stalled runs the bridge against a sink that hangs, samples its memory, then
// mends the sink and waits until every row is there.
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
	b, err := r.startBridge(ctx, topic, r.workspace.at, r.workspace.at.reached(r.o.transport)...)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := m.watch(ctx, b.pid, r.o.stall); err != nil {
		return m, err
	}
	said, err := scrape(ctx, b)
	if err != nil {
		return m, err
	}
	m.Budget, m.Buffered = int64(said.sums["bridge_buffered_limit_bytes"]), int64(said.sums["bridge_buffered_bytes"])
	m.Heap = int64(said.sums["go_memstats_heap_inuse_bytes"])
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
