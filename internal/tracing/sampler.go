package tracing

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Sampler decides which events are traced.
type Sampler struct {
	// ByParent has a valid traceparent decide for its event.
	ByParent bool
	// Ratio is the share, 0 to 1, of the events nothing else decides for: of
	// those without a traceparent, or of all when ByParent is false.
	Ratio float64
}

// decider is a Sampler ready for use, by one goroutine at a time.
type decider struct {
	byParent bool
	ratio    float64
	bound    uint64 // ratio of 1<<63
	// skip is how many events are not sampled before the next one is. Drawing
	// the gap instead of drawing for each event costs next to nothing for
	// those in it.
	skip int64
}

func (s Sampler) decider() decider {
	d := decider{byParent: s.ByParent, ratio: s.Ratio, bound: uint64(s.Ratio * (1 << 63))}
	d.skip = d.gap()
	return d
}

// gap draws how many events pass before one is sampled, each being so with
// probability ratio: that number has a geometric distribution.
func (d *decider) gap() int64 {
	switch {
	case d.ratio >= 1:
		return 0
	case d.ratio <= 0:
		return math.MaxInt64
	}
	return int64(min(math.Log(1-rand.Float64())/math.Log1p(-d.ratio), 1<<62))
}

// sample decides for one event, by the value of its traceparent, nil if there
// is none. It allocates nothing. from is where the trace comes from; it is not
// valid when the event begins a trace of its own.
func (d *decider) sample(traceparent []byte) (from parent, yes bool) {
	if traceparent == nil || d.byParent && unsampled(traceparent) {
		return from, traceparent == nil && d.root()
	}
	from, ok := parseParent(traceparent)
	switch {
	case !ok:
		return parent{}, d.root()
	case d.byParent:
		return from, true
	}
	// The decision of OpenTelemetry's own ratio sampler, so that all services
	// of a trace come to the same.
	return from, binary.BigEndian.Uint64(from.trace[8:])>>1 < d.bound
}

// root decides for an event that begins a trace.
func (d *decider) root() bool {
	if d.skip > 0 {
		d.skip--
		return false
	}
	d.skip = d.gap()
	return d.ratio > 0
}
