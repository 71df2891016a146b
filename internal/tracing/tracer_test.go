package tracing_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/tracing"
)

// kept is an exporter that keeps spans, fails, or hangs until it is cut off.
type kept struct {
	mu    sync.Mutex
	spans tracetest.SpanStubs
	fails error
	hangs chan struct{} // closed when an export hangs; nil: none does
	once  sync.Once
}

func (k *kept) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if k.hangs != nil {
		k.once.Do(func() { close(k.hangs) })
		<-ctx.Done()
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails == nil {
		k.spans = append(k.spans, tracetest.SpanStubsFromReadOnlySpans(spans)...)
	}
	return k.fails
}

func (k *kept) Shutdown(context.Context) error { return nil }

func start(t *testing.T, k *kept, s tracing.Sampler, queue int) (*tracing.Tracer, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	tr, err := tracing.Start(t.Context(), tracing.Config{Settings: tracing.Settings{On: true, Sampler: s, MaxQueue: queue}, Version: "v", Exporter: k, Log: zap.New(core)})
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return tr, logs
}

func stop(t *testing.T, tr *tracing.Tracer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	tr.Stop(ctx)
}

var all = tracing.Sampler{ByParent: true, Ratio: 1}

func batch(writes int) *tracing.Batch {
	now := time.Now()
	b := &tracing.Batch{Topic: "t", Group: "g", Table: "c.s.t", Events: 9, Rows: 8, RowBytes: 800, Began: now, Mapped: now.Add(1), Ended: now.Add(9), Outcome: tracing.OutcomeDelivered, Written: writes}
	for range writes {
		b.Writes = append(b.Writes, tracing.Write{Began: now.Add(2), Took: 3, Rows: 8, Bytes: 800, Attempts: 2, Outcome: tracing.OutcomeDelivered})
	}
	return b
}

// The first event's trace holds the batch; the others are tied to it by links,
// of which there are 128 at most.
func TestBatchHangsTogether(t *testing.T) {
	k := &kept{}
	tr, _ := start(t, k, all, 2048)
	s := tr.Sampling()
	from, yes := s.Sample([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	if !yes {
		t.Fatal("got not sampled, want sampled as the header says")
	}
	r := tr.Trace(batch(2))
	r.Event(tracing.Event{Origin: from, State: "vendor=1", Offset: 5, Outcome: tracing.OutcomeDelivered, ID: "m-1"})
	for range 300 {
		root, yes := s.Sample(nil)
		if !yes {
			t.Fatal("got not sampled, want all")
		}
		r.Event(tracing.Event{Origin: root, Outcome: tracing.OutcomeRejected, Code: "type_mismatch"})
	}
	r.End()
	stop(t, tr)
	by := map[string][]tracetest.SpanStub{}
	for _, span := range k.spans {
		name, _, _ := strings.Cut(span.Name, " ")
		by[name] = append(by[name], span)
	}
	if n := len(by["process"]); n != 301 {
		t.Fatalf("got %d spans of events, want 301", n)
	}
	first, whole := by["process"][0], by["batch"][0]
	if got := first.SpanContext.TraceID().String(); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("trace of the first event: got %s, want the producer's", got)
	}
	if got := first.Parent.SpanID().String(); got != "b7ad6b7169203331" || !first.Parent.IsRemote() {
		t.Errorf("parent of the first event: got %s, remote %v, want the producer's span", got, first.Parent.IsRemote())
	}
	if got := first.SpanContext.TraceState().String(); got != "vendor=1" {
		t.Errorf("tracestate: got %q, want vendor=1", got)
	}
	if whole.Parent.SpanID() != first.SpanContext.SpanID() || whole.SpanContext.TraceID() != first.SpanContext.TraceID() {
		t.Error("the batch is not below the first event's span")
	}
	if len(whole.Links) != 128 {
		t.Errorf("got %d links of the batch, want 128", len(whole.Links))
	}
	for _, s := range by["process"][1:] {
		if len(s.Links) != 1 || s.Links[0].SpanContext.SpanID() != whole.SpanContext.SpanID() {
			t.Fatalf("got links %v of an event, want one to the batch", s.Links)
		}
		if s.Parent.IsValid() || s.Status.Description != "type_mismatch" {
			t.Fatalf("got parent %v and status %+v, want a root that says type_mismatch", s.Parent.SpanID(), s.Status)
		}
	}
	for _, name := range []string{"map", "write", "write"} {
		s := by[name][0]
		by[name] = by[name][1:]
		if s.Parent.SpanID() != whole.SpanContext.SpanID() {
			t.Errorf("%s is not below the batch", name)
		}
	}
}

func TestRatioHoldsForEventsWithoutHeader(t *testing.T) {
	tr, _ := start(t, &kept{}, tracing.Sampler{ByParent: true, Ratio: 0.1}, 2048)
	defer stop(t, tr)
	s := tr.Sampling()
	sampled := 0
	for range 100_000 {
		if _, yes := s.Sample(nil); yes {
			sampled++
		}
	}
	if sampled < 9_000 || sampled > 11_000 {
		t.Errorf("got %d of 100000 sampled, want about 10000", sampled)
	}
	if _, yes := s.Sample([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")); yes {
		t.Error("got sampled, want not: the header says so")
	}
}

// Without the parent's say the ratio decides by the trace's id, for all
// services alike.
func TestRatioGoesByTheTrace(t *testing.T) {
	tr, _ := start(t, &kept{}, tracing.Sampler{Ratio: 0.5}, 2048)
	defer stop(t, tr)
	s := tr.Sampling()
	for id, want := range map[string]bool{"0af7651916cd43dd0448eb211c80319c": true, "0af7651916cd43ddf448eb211c80319c": false} {
		for _, flags := range []string{"-00", "-01"} {
			if _, got := s.Sample([]byte("00-" + id + "-b7ad6b7169203331" + flags)); got != want {
				t.Errorf("trace %s%s: got sampled %v, want %v", id, flags, got, want)
			}
		}
	}
}

// A collector that hangs: spans beyond the bound are not made, nobody waits, and
// Stop comes back when its time is over.
func TestHangingExporterHoldsNobodyUp(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds
	k := &kept{hangs: make(chan struct{})}
	tr, logs := start(t, k, all, 128)
	r := tr.Trace(batch(1))
	for range 10_000 {
		r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
	}
	r.End()
	// The batch's span and its parts take 3 of the 128.
	if got := tr.Dropped(); got != 10_000-125 {
		t.Errorf("got %d spans dropped, want %d", got, 10_000-125)
	}
	<-k.hangs
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr.Stop(ctx)
	if n := logs.FilterMessageSnippet("traces are lost").Len(); n != 1 {
		t.Errorf("got %d lines about lost traces, want 1: %v", n, logs.All())
	}
}

// An outage of the collector is one line at its beginning and one at its end.
func TestOutageIsToldOnce(t *testing.T) {
	k := &kept{fails: errors.New("collector away")}
	tr, logs := start(t, k, all, 128)
	for range 20 { // more in all than the bound: what failed leaves room again
		for range 10 {
			r := tr.Trace(batch(0))
			r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
			r.End()
		}
		tr.Flush(t.Context())
	}
	k.mu.Lock()
	k.fails = nil
	k.mu.Unlock()
	r := tr.Trace(batch(0))
	r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
	r.End()
	stop(t, tr)
	if n := logs.FilterMessageSnippet("traces are lost").Len(); n != 1 {
		t.Errorf("got %d lines about the beginning, want 1", n)
	}
	over := logs.FilterMessageSnippet("exported again").All()
	if len(over) != 1 || over[0].ContextMap()["spans_lost"] != int64(600) {
		t.Errorf("got %v about the end, want one line that counts 600 spans", over)
	}
	if len(k.spans) != 3 || tr.Dropped() != 0 {
		t.Errorf("got %d spans and %d dropped, want 3 and 0", len(k.spans), tr.Dropped())
	}
}
