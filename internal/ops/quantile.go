package ops

import (
	"math"

	dto "github.com/prometheus/client_model/go"
)

// AckTimes is what is known of acknowledgement times since the start: counts
// that only rise, so that the difference of two is a histogram of what was
// between.
type AckTimes struct {
	bounds []float64 // seconds; upper bounds
	counts []uint64  // cumulative, one for each bound
	total  uint64
}

// AckTimes returns the present counts. It is cheap enough for once a second.
func (m *Metrics) AckTimes() AckTimes {
	var d dto.Metric
	if err := m.ackLatency.Write(&d); err != nil {
		return AckTimes{}
	}
	h := d.GetHistogram()
	a := AckTimes{total: h.GetSampleCount()}
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		a.bounds = append(a.bounds, b.GetUpperBound())
		a.counts = append(a.counts, b.GetCumulativeCount())
	}
	return a
}

// Count returns how many writes were acknowledged since before.
func (a AckTimes) Count(before AckTimes) uint64 { return a.total - before.total }

// Quantile returns the time in seconds within which the share q, from 0 to 1,
// of the writes since before were acknowledged, interpolated within a bucket as
// Prometheus does; false when there were none.
func (a AckTimes) Quantile(q float64, before AckTimes) (seconds float64, ok bool) {
	n := a.Count(before)
	if n == 0 || len(a.counts) == 0 {
		return 0, false
	}
	rank, low, below := q*float64(n), 0.0, 0.0
	for i, bound := range a.bounds {
		upTo := float64(a.counts[i])
		if i < len(before.counts) {
			upTo -= float64(before.counts[i])
		}
		if upTo >= rank && upTo > below {
			return low + (bound-low)*(rank-below)/(upTo-below), true
		}
		low, below = bound, upTo
	}
	return low, true // beyond the last bound
}
