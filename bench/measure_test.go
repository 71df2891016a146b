//go:build measure && linux

package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The whole program, small: every measurement ends, and what it prints holds
// together. It takes minutes, as measurements do, so make measure runs it.
func TestMeasurements(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := bench(t.Context(), []string{"--events", "12000", "--rounds", "1", "--rate", "500", "--duration", "1s", "--stall", "2s",
		"--wide", "8", "--partitions", "2", "--timeout", "25m", "--output", "json", "--tls", "--across", "8", "--members", "2", "--groups", "classic", "--codec", "lz4,none", "--ack", "5ms",
		// The topic is small: read little ahead, and give hung requests up soon.
		"--set", "delivery.max_rows=500", "--set", "delivery.max_buffered=4MiB", "--set", "zerobus.timeout=2s"}, &stdout, &stderr)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, &stderr)
	}
	var got struct {
		Throughput throughputResult
		Latency    latencyResult
		Memory     memoryResult
		Partitions partitionsResult
		Transports comparisons
		Streams    comparisons
		Startup    startupResult
		Scale      scaleResult
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, &stdout)
	}
	if len(got.Throughput) != 2 {
		t.Fatalf("got %d topics in throughput, want lz4 and none", len(got.Throughput))
	}
	for _, c := range got.Throughput {
		for name, f := range map[string]figures{"bridge": c.Bridge, "poll-only": c.Poll, "naive": c.Naive} {
			if f.Rows <= 0 || f.PerCPU <= 0 || f.PeakMemory < 1<<20 {
				t.Errorf("%s, %s: got %+v, want rows, a rate and memory", c.Codec, name, f)
			}
		}
		if c.Ratios.ToPoll <= 0 || c.Ratios.ToNaive <= 0 || c.Bridge.FirstRow <= 0 {
			t.Errorf("%s: got ratios %+v, first row after %s, want all above 0", c.Codec, c.Ratios, c.Bridge.FirstRow)
		}
	}
	if l := got.Latency; l.Batches == 0 || l.Probes == 0 || l.Ack.P99 < l.Ack.P50 || l.ToRow.P50 < l.Emulator.P50 {
		t.Errorf("latency does not hold together: %+v", l)
	}
	if len(got.Memory) != 2 || got.Memory[0].Budget != 4<<20 || got.Memory[0].Buffered == 0 || len(got.Memory[0].Samples) == 0 {
		t.Errorf("memory does not hold together: %+v", got.Memory)
	}
	if len(got.Partitions) != 4 {
		t.Errorf("got %d widths, want 4", len(got.Partitions))
	}
	for what, all := range map[string]comparisons{"transports": got.Transports, "streams": got.Streams} {
		if len(all) < 3 {
			t.Errorf("got %d comparisons of %s, want 3 or more", len(all), what)
		}
		for _, c := range all {
			if len(c.Lines) < 4 {
				t.Errorf("%s on %d partitions: got %d variants, want 4 or more", what, c.Partitions, len(c.Lines))
			}
			for _, l := range c.Lines {
				m := l.Median
				if m.PerSecond <= 0 || m.PerCPU <= 0 || m.BatchRows <= 0 || m.PeakMemory < 1<<20 || m.Ack < c.Ack.P50.Seconds() {
					t.Errorf("%s, %s on %d partitions, ack %s: got %+v, want rows, a rate, memory and acks no sooner", what, l.Name, c.Partitions, c.Ack, m)
				}
			}
		}
	}
	if len(got.Scale) != 1 {
		t.Fatalf("got %d kinds of groups, want 1", len(got.Scale))
	}
	if s := got.Scale[0]; s.Produced == 0 || len(s.Restarts) != 2 || s.Takeover.Count != 8 || s.Takeover.P50 <= 0 || s.KillTook.Count == 0 || s.KillTook.Max < s.KillTook.P50 || s.Commits <= 0 || s.PeakMemory < 1<<20 {
		t.Errorf("scale does not hold together: %+v", s)
	}
	if s := got.Startup; s.Size < 1<<20 || s.Version <= 0 || len(s.FirstRow) != 3 {
		t.Errorf("start-up does not hold together: %+v", s)
	}
}
