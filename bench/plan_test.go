package main

import "testing"

// The bound is a page's promise: it must not be below what was measured for
// that page.
func TestBoundCoversWhatWasMeasured(t *testing.T) {
	for _, m := range []struct {
		budget     float64
		partitions int
		peak       float64 // MiB
	}{
		{16, 4, 115}, {16, 300, 171}, {64, 4, 239}, {64, 16, 313}, {64, 64, 297}, {64, 256, 356}, {64, 300, 298},
		{128, 4, 318}, {128, 300, 419}, {256, 4, 441}, {256, 16, 727}, {256, 300, 671},
	} {
		if got := boundOf(m.budget, m.partitions); got < m.peak || got > 1.75*m.peak {
			t.Errorf("%.0f MiB, %d partitions: got a bound of %.0f MiB, measured %.0f; want it above and not far", m.budget, m.partitions, got, m.peak)
		}
	}
}
