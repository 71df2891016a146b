package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"
)

// profiled runs the bridge once more with its profiles switched on and writes
// its processor profile to file and what it allocated to file.allocs. lasts is
// how long a run is expected to take.
func (r *rig) profiled(ctx context.Context, topic, file string, lasts time.Duration) (err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return err
	}
	b, err := r.startBridge(ctx, topic, r.workspace.at, append(r.workspace.at.reached(r.o.transport), "ops.pprof=true")...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	ctx, cancel := b.alive(ctx)
	defer cancel()
	if err := r.workspace.wait(ctx, warm(r.o.events)); err != nil {
		return err
	}
	seconds := max(int(math.Ceil(lasts.Seconds())), 1) // 0 would be the default of half a minute
	for path, name := range map[string]string{fmt.Sprintf("profile?seconds=%d", seconds): file, "allocs": file + ".allocs"} {
		text, err := request(ctx, http.MethodGet, "http://"+b.ops+"/debug/pprof/"+path, nil)
		if err == nil {
			err = os.WriteFile(name, text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("profiling the bridge: %w", err)
		}
	}
	r.say("profiles written to %s and %s.allocs; read them with go tool pprof", file, file)
	return nil
}
