package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Every measurement reports what it found in rows of their own.
func TestReports(t *testing.T) {
	f := figures{Rows: 100, PerSecond: 2000, PerCPU: 4000, CPUMicros: 250, PeakMemory: 64 << 20, FirstRow: time.Second}
	compared := comparisons{{
		terms: terms{Partitions: 4, Ack: emulator.Latency{P50: 20 * time.Millisecond}, Budget: "64MiB"},
		Lines: []comparedLine{{Name: "grpc", Runs: make([]steady, 2), Kept: 2, Median: steady{figures: f, PerPartition: 500, BatchRows: 50, RowBytes: 300, Ack: 0.021}}},
	}}
	took := span{Count: 8, P50: time.Second, Max: 2 * time.Second}
	for name, tc := range map[string]struct {
		report fmt.Stringer
		want   []string // in the report; runs of spaces count as one
	}{
		"throughput": {throughputResult{{Codec: "lz4", Bridge: f, Poll: f, Naive: f, Ratios: ratioPair{0.5, 7}}},
			[]string{"lz4 bridge 2000 4000 250.00 64 MiB", "lz4 poll-only 2000 4000 250.00 64 MiB 0.50x", "lz4 naive 2000 4000 250.00 64 MiB 7.0x"}},
		"latency": {latencyResult{Ack: quantiles{0.001, 0.002, 0.003}, Emulator: quantiles{0.004, 0.005, 0.006}, ToRow: quantiles{0.007, 0.008, 0.009}},
			[]string{"as the bridge counts it 1.00 2.00 3.00", "in the emulator 4.00 5.00 6.00", "to the row 7.00 8.00 9.00"}},
		"memory": {memoryResult{{Partitions: 300, Samples: make([]memorySample, 8), Budget: 16 << 20, Buffered: 15 << 20, Heap: 40 << 20, Stalled: 90 << 20, Growth: 1 << 20, Peak: 99 << 20}},
			[]string{"300 16 MiB 15 MiB 40 MiB 90 MiB +1 MiB 99 MiB", "RSS with 300 partitions"}},
		"partitions": {partitionsResult{{Partitions: 64, Median: f}}, []string{"64 2000 4000 250.00 64 MiB", "dearest to cheapest: 1.00"}},
		"transports": {compared, []string{"64MiB grpc 2000 500 4000 250.00 300 50 21 ms 64 MiB", "2 of 2"}},
		"bound":      {bound{compared}, []string{"64MiB grpc 2000 50"}},
		"scale": {scaleResult{{Kind: "classic", Partitions: 8, Members: 2, Rate: 500, Produced: 900, Restarts: []restart{{Exit: time.Second, Moved: 4}}, Takeover: took, Stood: took, KillTook: took}},
			[]string{"classic 2 8 500", "1.00 / 2.00 s", "0 of 900"}},
		"page":     {pageResult{{Name: "open", Runs: []figures{f}, Median: f, ToOff: 1.02}}, []string{"open 250.000 +2.0 %"}},
		"tracing":  {traceResult{{Name: "every event", Runs: []figures{f}, Median: f, ToOff: 1.5, Exported: 1 << 20}}, []string{"every event 250.000 +50.0 % 64 MiB 1.0 MiB"}},
		"startup":  {startupResult{Size: 30 << 20, Version: 20 * time.Millisecond, FirstRow: map[string]time.Duration{zerobus.TransportGRPC: time.Second}, Runs: 4}, []string{"30.0 MiB", "bridge version: 20 ms", "grpc: 1000 ms", "medians of 4 runs"}},
		"versions": {versionsResult{Old: []figures{f}, New: []figures{f}, Ratios: []float64{1}, Transport: "rest"}, []string{"Over rest, new to old"}},
	} {
		report := strings.Join(strings.Fields(tc.report.String()), " ")
		for _, want := range tc.want {
			if !strings.Contains(report, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", name, tc.report, want)
			}
		}
	}
}

// The rig stands: its roles start, the bridge takes the configuration it is given,
// and a row arrives over each transport. Measurements depend on what else the
// machine does; make measure takes them all.
func TestFirstRowOverEachTransport(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("bench reads /proc")
	}
	o, err := parse(strings.Fields("startup --events 1000"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r, err := newRig(t.Context(), o, &said)
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	topic, err := r.topic(t.Context(), 1, "lz4", o.events)
	if err != nil {
		t.Fatal(err)
	}
	for transport := range wires {
		if took, err := r.firstRow(t.Context(), topic, transport); err != nil || took <= 0 {
			t.Errorf("%s: got the first row after %v, %v", transport, took, err)
		}
	}
}
