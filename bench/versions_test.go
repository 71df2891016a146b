package main

import (
	"strings"
	"testing"
)

func TestVersionsReport(t *testing.T) {
	us := func(v ...float64) (runs []figures) {
		for _, f := range v {
			runs = append(runs, figures{CPUMicros: f, PeakMemory: 100 << 20})
		}
		return runs
	}
	v := versionsResult{Old: us(4, 4, 5), New: us(4.4, 4, 4), Ratios: []float64{1.1, 1, 0.8}, Transport: "grpc"}
	got := v.String()
	for _, want := range []string{"old   4.000  4.000  5.000   100 MiB", "new   4.000  4.000  4.400   100 MiB",
		"Over grpc, new to old, CPU per row: median of 3 ratios +0.0 %, from -20.0 to +10.0 %."} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", got, want)
		}
	}
}

func TestVersionsNeedsAnotherBridge(t *testing.T) {
	if _, err := versions(t.Context(), &rig{o: &options{what: "versions"}}); err == nil || !strings.Contains(err.Error(), "--against") {
		t.Errorf("got %v, want the missing flag named", err)
	}
}
