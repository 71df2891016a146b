package tracing

import (
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const whole = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParents(t *testing.T) {
	for _, tc := range []struct {
		value     string
		ok, quiet bool // quiet: says not to sample
	}{
		{whole, true, false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true, true},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", true, false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02", true, true},
		{"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true, false},
		{"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more", false, false},
		{"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false, false},
		{whole + "-more", false, false},
		{"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false, false},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01", false, false},
		{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false, false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", false, false},
		{"00-0af7651916cd43dd8448eb211c80319c+b7ad6b7169203331-01", false, false},
		{whole[:54], false, false}, {"", false, false}, {"00", false, false},
	} {
		p, ok := parseParent([]byte(tc.value))
		if ok != tc.ok {
			t.Errorf("%q: got valid %v, want %v", tc.value, ok, tc.ok)
		}
		if ok && (p.trace.String() != "0af7651916cd43dd8448eb211c80319c" || p.span.String() != "b7ad6b7169203331") {
			t.Errorf("%q: got %s %s", tc.value, p.trace, p.span)
		}
		if got := unsampled([]byte(tc.value)); got != tc.quiet {
			t.Errorf("%q: got unsampled %v, want %v", tc.value, got, tc.quiet)
		}
	}
}

// OpenTelemetry's own reader takes no more than ours, and means the same by it.
func FuzzParent(f *testing.F) {
	for _, v := range []string{whole, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-x", "", "--"} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		p, ok := parseParent(v)
		quiet := unsampled(v)
		theirs := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{ParentHeader: string(v)}))
		if !theirs.IsValid() {
			return
		}
		if !ok || p.trace != theirs.TraceID() || p.span != theirs.SpanID() || quiet == theirs.IsSampled() {
			t.Errorf("%q: got %v %s %s unsampled %v, want %s %s sampled %v", v, ok, p.trace, p.span, quiet, theirs.TraceID(), theirs.SpanID(), theirs.IsSampled())
		}
	})
}

// What is not sampled costs a look.
func TestDecisionsAllocateNothing(t *testing.T) {
	d := Sampler{ByParent: true, Ratio: 0.01}.decider()
	headers := [][]byte{nil, []byte(whole), []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), []byte("junk")}
	if n := testing.AllocsPerRun(1000, func() {
		for _, h := range headers {
			d.sample(h)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func BenchmarkDecision(b *testing.B) {
	d := Sampler{ByParent: true, Ratio: 0.01}.decider()
	for name, header := range map[string][]byte{"none": nil, "unsampled": []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), "sampled": []byte(whole)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				d.sample(header)
			}
		})
	}
}
