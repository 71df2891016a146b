package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// traceCase is one bound on the events that are traced.
type traceCase struct {
	Name   string    `json:"name"`
	Most   string    `json:"max_per_second"` // empty: traces are off
	Runs   []figures `json:"runs"`
	Median figures   `json:"median"`
	// ToOff is the median over rounds of CPU per row against traces being off
	// in the same round.
	ToOff float64 `json:"cpu_per_row_to_off"`
	// Exported is what the collector took, in all rounds.
	Exported int64 `json:"exported_bytes"`
}

type traceResult []traceCase

// traced has the bridge deliver the same topic without traces and with, in
// turns; every second round goes through them backwards. The events carry no
// trace context, so that each is sampled until the bound is reached.
func traced(ctx context.Context, r *rig) (_ any, err error) {
	out := traceResult{{Name: "off"}, {Name: "100 a second, the default", Most: "100"}, {Name: "10,000 a second", Most: "10000"}}
	c, err := startCollector()
	if err != nil {
		return nil, err
	}
	defer c.stop()
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	defer func() { r.env = nil }()
	for turn := range r.o.rounds {
		for i := range out {
			at := i
			if turn%2 == 1 {
				at = len(out) - 1 - i
			}
			one := &out[at]
			r.env = nil
			if one.Most != "" {
				r.env = []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url,
					"BRIDGE_TRACING_MAX_PER_SECOND=" + one.Most}
			}
			before := c.bytes.Load()
			f, err := r.carryAll(ctx, topic)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", one.Name, err)
			}
			one.Exported += c.bytes.Load() - before
			one.Runs = append(one.Runs, f)
			r.say("%s: %.3f us/row; %s", one.Name, f.CPUMicros, f.Noise)
		}
	}
	same := func(v float64) float64 { return v }
	for i := range out {
		one := &out[i]
		if (one.Exported > 0) != (one.Most != "") {
			return nil, fmt.Errorf("%s: the collector was sent %d bytes", one.Name, one.Exported)
		}
		var ratios []float64
		var rounds []round
		for n, f := range one.Runs {
			ratios = append(ratios, f.CPUMicros/out[0].Runs[n].CPUMicros)
			rounds = append(rounds, round{Bridge: f})
		}
		one.ToOff = median(ratios, same)
		one.Median = medianFigures(rounds, func(r round) figures { return r.Bridge })
	}
	return out, r.drop(ctx, topic)
}

// collector takes spans over OTLP and looks at none of them.
type collector struct {
	url    string
	server *http.Server
	bytes  atomic.Int64
	done   chan struct{}
}

func startCollector() (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the collector: %w", err)
	}
	c := &collector{url: "http://" + l.Addr().String(), done: make(chan struct{})}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		c.bytes.Add(n)
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty answer: all taken
	})}
	go func() { // ends with stop, which waits for it
		defer close(c.done)
		_ = c.server.Serve(l)
	}()
	return c, nil
}

func (c *collector) stop() {
	_ = c.server.Close() // nobody is in the middle of anything
	<-c.done
}

func (t traceResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "traces\tus/row\tto off\tpeak RSS\texported\tother CPU\t")
	for _, c := range t {
		fmt.Fprintf(w, "%s\t%.3f\t%+.1f %%\t%.0f MiB\t%.1f MiB\t%.0f %%\t\n", c.Name, c.Median.CPUMicros, 100*(c.ToOff-1), mib(c.Median.PeakMemory), mib(c.Exported), 100*c.Median.Noise.OtherCPU)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&s, "\nMedians of %d rounds; \"to off\" is the median of the ratios within a round.\n", len(t[0].Runs))
	return s.String()
}
