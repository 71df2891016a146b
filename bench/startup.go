package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/zerobus"
)

type startupResult struct {
	Size    int64         `json:"binary_bytes"`
	Version time.Duration `json:"version_ns"` // bridge version, from start to exit
	// FirstRow is from the start of the process to the first row in the
	// table, by transport.
	FirstRow map[string]time.Duration `json:"first_row_ns"`
	Runs     int                      `json:"runs"`
}

// startup measures the binary as make build builds it.
func startup(ctx context.Context, r *rig) (any, error) {
	out := startupResult{FirstRow: map[string]time.Duration{}, Runs: 4 * r.o.rounds}
	released := filepath.Join(r.dir, "released")
	if err := buildtest.Build(ctx, released, "-trimpath", "-ldflags", "-s -w"); err != nil {
		return nil, err
	}
	info, err := os.Stat(released)
	if err != nil {
		return nil, err
	}
	out.Size = info.Size()
	topic, err := r.topic(ctx, 1, r.o.codecs[0], 1000)
	if err != nil {
		return nil, err
	}
	measured := *r
	measured.bridge = released
	var versions []time.Duration
	firsts := map[string][]time.Duration{}
	for range out.Runs {
		began := time.Now()
		if text, err := exec.CommandContext(ctx, released, "version").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("bridge version: %w\n%s", err, text)
		}
		versions = append(versions, time.Since(began))
		for transport := range wires {
			first, err := measured.firstRow(ctx, topic, transport)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", transport, err)
			}
			firsts[transport] = append(firsts[transport], first)
		}
	}
	of := func(d time.Duration) float64 { return float64(d) }
	out.Version = time.Duration(median(versions, of))
	for transport, all := range firsts {
		out.FirstRow[transport] = time.Duration(median(all, of))
	}
	r.runs = measured.runs
	return out, r.drop(ctx, topic)
}

// firstRow starts the bridge and waits for its first row.
func (r *rig) firstRow(ctx context.Context, topic, transport string) (d time.Duration, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return 0, err
	}
	began := time.Now()
	b, err := r.startBridge(ctx, topic, r.workspace.at, r.workspace.at.reached(transport)...)
	if err != nil {
		return 0, err
	}
	alive, cancel := b.alive(ctx)
	defer cancel()
	if err = r.workspace.wait(alive, 1); err == nil {
		d = time.Since(began)
	}
	if stopped := b.stop(); err == nil {
		err = stopped
	}
	return d, err
}

func (s startupResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "binary (CGO_ENABLED=0 -trimpath -ldflags '-s -w'): %.1f MiB\nbridge version: %.0f ms\n", mib(s.Size), ms(s.Version))
	for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST, zerobus.TransportGRPC} {
		fmt.Fprintf(&b, "from the start to the first row, %s: %.0f ms\n", transport, ms(s.FirstRow[transport]))
	}
	fmt.Fprintf(&b, "medians of %d runs\n", s.Runs)
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
