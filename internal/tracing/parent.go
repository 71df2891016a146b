package tracing

import (
	"go.opentelemetry.io/otel/trace"
)

// Header keys of the W3C trace context, as instrumented Kafka producers set
// them; https://www.w3.org/TR/trace-context/.
const (
	ParentHeader = "traceparent"
	StateHeader  = "tracestate"
)

// parent is what a traceparent says.
type parent struct {
	trace trace.TraceID
	span  trace.SpanID
}

// Places within a traceparent of version 00, which later versions keep:
// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
const (
	traceAt, spanAt, flagsAt = 3, 36, 53
	parentLen                = 55
)

// parseParent reads a traceparent. ok is false for what is none; such an event
// is treated as one without the header.
func parseParent(v []byte) (p parent, ok bool) {
	version, ok := hexByte(v, 0)
	if !ok || version == 0xff || !shaped(v) {
		return parent{}, false
	}
	if version == 0 && len(v) != parentLen || len(v) > parentLen && v[parentLen] != '-' {
		return parent{}, false
	}
	for i := range p.trace {
		if p.trace[i], ok = hexByte(v, traceAt+2*i); !ok {
			return parent{}, false
		}
	}
	for i := range p.span {
		if p.span[i], ok = hexByte(v, spanAt+2*i); !ok {
			return parent{}, false
		}
	}
	if _, ok := hexByte(v, flagsAt); !ok {
		return parent{}, false
	}
	return p, p.trace.IsValid() && p.span.IsValid()
}

func shaped(v []byte) bool {
	return len(v) >= parentLen && v[traceAt-1] == '-' && v[spanAt-1] == '-' && v[flagsAt-1] == '-'
}

// unsampled reports whether v looks like a traceparent that says not to sample.
// It is asked of every event there is, so it does not read the ids.
func unsampled(v []byte) bool {
	if !shaped(v) {
		return false
	}
	flags, ok := hexByte(v, flagsAt)
	return ok && flags&1 == 0
}

// hexByte reads two lower-case hexadecimal digits, the only ones allowed.
func hexByte(v []byte, at int) (byte, bool) {
	if len(v) < at+2 {
		return 0, false
	}
	hi, lo := digits[v[at]], digits[v[at+1]]
	return hi<<4 | lo, hi|lo < 16
}

// digits has the value of each hexadecimal digit, and 255 for other bytes.
var digits = func() (d [256]byte) {
	for i := range d {
		d[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		d[c] = byte(i)
	}
	return d
}()
