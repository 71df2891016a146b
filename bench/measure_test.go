//go:build measure && linux

package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The whole program, small: every scenario ends, and its figures are consistent. It
// takes minutes, so make measure runs it and make test does not.
func TestMeasurements(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := bench(t.Context(), []string{"--events", "12000", "--rounds", "1", "--rate", "500", "--duration", "1s", "--stall", "2s",
		"--wide", "8", "--partitions", "2", "--timeout", "25m", "--output", "json", "--tls", "--across", "8", "--members", "2", "--groups", "classic", "--codec", "lz4,none", "--ack", "5ms", "--rates", "200,400", "--acks", "1ms,5ms", "--integrations", "1,3",
		// The topic is small: read little ahead, and give hung requests up soon.
		"--set", "delivery.max_rows=500", "--set", "delivery.max_buffered=4MiB", "--set", "zerobus.timeout=2s"}, &stdout, &stderr)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, &stderr)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, &stdout)
	}
	into := func(name string, v any) {
		if err := json.Unmarshal(got[name], v); err != nil {
			t.Fatalf("%s: %v in %s", name, err, got[name])
		}
	}
	for name, want := range map[string]struct{ comparisons, subjects int }{
		"throughput": {2, 3}, "partitions": {1, 4}, "transports": {4, 4}, "streams": {3, 5}, "acks": {4, 1}, "bound": {6, 1},
		"page": {1, 6}, "tracing": {1, 3}, "startup": {1, 4},
	} {
		var all comparisons
		into(name, &all)
		if len(all) != want.comparisons {
			t.Errorf("%s: got %d comparisons, want %d", name, len(all), want.comparisons)
		}
		for _, c := range all {
			if len(c.Series) != want.subjects {
				t.Errorf("%s %s: got %d subjects, want %d", name, c.Name, len(c.Series), want.subjects)
			}
			for _, s := range c.Series {
				if m := s.Median; name == "startup" && m.FirstRow <= 0 || name != "startup" && (m.Rows <= 0 || m.PerCPU <= 0 || m.PeakMemory < 1<<20 || s.Ratio[0] <= 0) {
					t.Errorf("%s %s, %s: got %+v, want rows, a rate, memory and a ratio", name, c.Name, s.Name, m)
				}
			}
		}
	}
	var p peersResult
	if into("peers", &p); len(p.Series)+len(p.LeftOut) != 3+4 {
		t.Errorf("peers: got %d subjects and %v left out, want seven in all", len(p.Series), p.LeftOut)
	}
	for _, s := range p.Series {
		if m := s.Median; m.Rows <= 0 || m.PerCPU <= 0 || m.PeakMemory < 1<<20 || m.FirstRow <= 0 {
			t.Errorf("peers %s: got %+v, want rows, a rate, memory and a first row", s.Name, m)
		}
	}
	var costs costsResult
	if into("costs", &costs); costs.FirstRow == nil || len(costs.Lines) != len(costLines)-1 {
		t.Errorf("costs: got %d lines, want %d and the first row", len(costs.Lines), len(costLines)-1)
	}
	for _, c := range costs.Lines {
		if len(c.Series) != 2 || c.Series[1].Median.Rows <= 0 || c.Series[1].Median.PerCPU <= 0 || c.Series[1].Runs[0].EventBytes <= 0 || c.Series[1].Ratio[0] <= 0 {
			t.Errorf("costs %s: got %+v, want rows, a rate, a size and a ratio", c.Name, c.Series)
		}
	}
	var l latencyResult
	if into("latency", &l); l.Batches == 0 || l.Probes == 0 || l.Ack.P99 < l.Ack.P50 || l.ToRow.P50 < l.Emulator.P50 {
		t.Errorf("latency is not consistent: %+v", l)
	}
	var m memoryResult
	if into("memory", &m); len(m) != 2 || m[0].Budget != 4<<20 || m[0].Buffered == 0 || len(m[0].Samples) == 0 {
		t.Errorf("memory is not consistent: %+v", m)
	}
	var i integrationsResult
	if into("integrations", &i); len(i.Idle) != 2 || i.Idle[0].Kafka == 0 || i.Idle[1].Goroutines <= i.Idle[0].Goroutines || i.OneMore.CPU <= 0 || len(i.Added) != 1 || i.Added[0].With <= 0 || i.Added[0].Started <= 0 {
		t.Errorf("integrations is not consistent: %+v", i)
	}
	var n neighboursResult
	if into("neighbours", &n); len(n.Alone) != 1 || n.Alone[0] <= 0 || len(n.Beside) != 1 || n.Beside[0] <= 0 {
		t.Errorf("neighbours is not consistent: %+v", n)
	}
	var crashed crashResult
	if into("crash", &crashed); len(crashed) != 4 { // two sizes at two times
		t.Errorf("crash: got %d lines, want 4", len(crashed))
	}
	for _, c := range crashed {
		if run := c.Runs[0]; run.PerSecond <= 0 || run.Duplicates < 0 || run.Uncommitted+run.InFlight != run.Duplicates {
			t.Errorf("crash is not consistent: %+v", c)
		}
	}
	var rates ratesResult
	if into("rates", &rates); len(rates) != 12 { // two transports, open at the first of two times only, at two rates
		t.Errorf("got %d lines of rates, want 12", len(rates))
	}
	for _, c := range rates {
		if f := c.Runs[0]; f.CPUMicros <= 0 || f.Requests <= 0 || f.Fetches <= 0 || f.RSS < 1<<20 || f.ToRow.P99 < f.ToRow.P50 {
			t.Errorf("rates are not consistent: %+v", c)
		}
	}
	var all scaleResult
	if into("scale", &all); len(all) != 1 {
		t.Fatalf("got %d kinds of groups, want 1", len(all))
	}
	if s := all[0]; s.Produced == 0 || len(s.Restarts) != 2 || s.Takeover.Count != 8 || s.Takeover.P50 <= 0 || s.KillTook.Count == 0 || s.KillTook.Max < s.KillTook.P50 || s.Commits <= 0 || s.PeakMemory < 1<<20 {
		t.Errorf("scale is not consistent: %+v", s)
	}
}
