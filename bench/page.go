package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// pageCase is one way to have the page of live events.
type pageCase struct {
	Name   string    `json:"name"`
	Mode   string    `json:"live_events"`
	Open   int       `json:"viewers"`
	Runs   []figures `json:"runs"`
	Median figures   `json:"median"`
	// ToOff is the median over rounds of CPU per row against the page being off
	// in the same round.
	ToOff float64 `json:"cpu_per_row_to_off"`
	// Idle is processor time per second while no event passes.
	Idle time.Duration `json:"idle_cpu_per_second_ns"`
}

type pageResult []pageCase

// idleFor is how long an idle bridge is watched.
const idleFor = 5 * time.Second

// pages has the bridge deliver the same topic with the page off, closed and
// open, in turns. Every second round goes through them backwards, so that
// none always comes first.
func pages(ctx context.Context, r *rig) (any, error) {
	out := pageResult{
		{Name: "off", Mode: "off"},
		{Name: "metadata, closed", Mode: "metadata"},
		{Name: "full, closed", Mode: "full"},
		{Name: "metadata, open", Mode: "metadata", Open: 1},
		{Name: "full, open", Mode: "full", Open: 1},
		{Name: "full, open 4 times", Mode: "full", Open: 4},
	}
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	for turn := range r.o.rounds {
		for i := range out {
			at := i
			if turn%2 == 1 {
				at = len(out) - 1 - i
			}
			c := &out[at]
			f, err := r.carryBeside(ctx, topic, viewers(c.Open), "ops.live_events="+c.Mode)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			c.Runs = append(c.Runs, f)
			r.say("%s: %.3f us/row; %s", c.Name, f.CPUMicros, f.Noise)
		}
	}
	for i := range out {
		c := &out[i]
		var ratios []float64
		for n, f := range c.Runs {
			ratios = append(ratios, f.CPUMicros/out[0].Runs[n].CPUMicros)
		}
		same := func(v float64) float64 { return v }
		c.ToOff = median(ratios, same)
		var rounds []round
		for _, f := range c.Runs {
			rounds = append(rounds, round{Bridge: f})
		}
		c.Median = medianFigures(rounds, func(r round) figures { return r.Bridge })
		if c.Idle, err = r.idle(ctx, topic, *c); err != nil {
			return nil, fmt.Errorf("%s, idle: %w", c.Name, err)
		}
	}
	return out, r.drop(ctx, topic)
}

// viewers opens the page so often: it is what a browser asks for, without a
// browser's own cost.
func viewers(n int) func(ctx context.Context, ops string) (end func() error) {
	if n == 0 {
		return nil
	}
	return func(ctx context.Context, ops string) (end func() error) {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, n)
		for range n {
			go func() { done <- view(ctx, ops) }() // ends with ctx; end waits for it
		}
		return func() error {
			cancel()
			var errs []error
			for range n {
				if err := <-done; !errors.Is(err, context.Canceled) {
					errs = append(errs, fmt.Errorf("the viewer ended: %w", err))
				}
			}
			return errors.Join(errs...)
		}
	}
}

// view reads the stream of live events until ctx ends; it always returns an
// error.
func view(ctx context.Context, ops string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/live/stream", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream answered %s", resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// idle measures a bridge that has nothing left to do.
func (r *rig) idle(ctx context.Context, topic string, c pageCase) (perSecond time.Duration, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return 0, err
	}
	b, err := r.startBridge(ctx, topic, r.workspace.at, append(r.workspace.at.reached(r.o.transport), "ops.live_events="+c.Mode)...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := r.workspace.wait(ctx, r.o.events); err != nil {
		return 0, err
	}
	if beside := viewers(c.Open); beside != nil {
		end := beside(ctx, b.ops)
		defer func() { err = errors.Join(err, end()) }()
	}
	var at [2]cpuTimes
	for i := range at {
		if err := pause(ctx, idleFor/time.Duration(2-i)); err != nil { // half of it to settle
			return 0, err
		}
		if at[i], err = readCPU(b.pid); err != nil {
			return 0, err
		}
	}
	return time.Duration(float64(at[1].subject-at[0].subject) / at[1].at.Sub(at[0].at).Seconds()), nil
}

func (p pageResult) String() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "page\tus/row\tto off\tidle CPU\tother CPU\t")
	for _, c := range p {
		fmt.Fprintf(w, "%s\t%.3f\t%+.1f %%\t%.2f ms/s\t%.0f %%\t\n", c.Name, c.Median.CPUMicros, 100*(c.ToOff-1), c.Idle.Seconds()*1e3, 100*c.Median.Noise.OtherCPU)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&s, "\nMedians of %d rounds; \"to off\" is the median of the ratios within a round.\n", len(p[0].Runs))
	return s.String()
}
