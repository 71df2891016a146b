package tracing

import (
	"encoding/binary"
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

// decider is a Sampler ready for use.
type decider struct {
	byParent bool
	bound    uint64 // of 1<<63
}

func (s Sampler) decider() decider {
	return decider{s.ByParent, uint64(s.Ratio * (1 << 63))}
}

// sample decides for one event, by the value of its traceparent, nil if there
// is none. It allocates nothing. from is where the trace comes from; it is not
// valid when the event begins a trace of its own.
func (d decider) sample(traceparent []byte) (from parent, yes bool) {
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
func (d decider) root() bool { return d.bound > 0 && rand.Uint64()>>1 < d.bound }
