package tracing_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/internal/tracing"
)

// kept is a client that keeps spans, fails, or hangs until it is cut off.
type kept struct {
	mu    sync.Mutex
	spans []*tracepb.Span
	calls int
	about *resourcepb.Resource
	fails error
	hangs chan struct{} // closed when a request hangs; nil: none does
	once  sync.Once
	asked chan struct{} // nil, or gets an element for each request that has ended
}

func (k *kept) Start(context.Context) error { return nil }
func (k *kept) Stop(context.Context) error  { return nil }

func (k *kept) UploadTraces(ctx context.Context, all []*tracepb.ResourceSpans) error {
	if k.hangs != nil {
		k.once.Do(func() { close(k.hangs) })
		<-ctx.Done()
		return ctx.Err()
	}
	if k.asked != nil {
		defer func() { k.asked <- struct{}{} }()
	}
	// What a collector would see.
	wire, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: all})
	var seen tracepb.TracesData
	if err = errors.Join(err, proto.Unmarshal(wire, &seen)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	for _, r := range seen.GetResourceSpans() {
		k.about = r.GetResource()
		for _, s := range r.GetScopeSpans() {
			if k.fails == nil {
				k.spans = append(k.spans, s.GetSpans()...)
			}
		}
	}
	return k.fails
}

// sent returns how many spans came in how many requests.
func (k *kept) sent() (spans, requests int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.spans), k.calls
}

// queued is how spans wait in tests: an hour, unless a request is full.
func queued(queue, request int) tracing.Settings {
	return tracing.Settings{On: true, Sampler: all, MaxQueue: queue, MaxExport: request, Delay: time.Hour, Timeout: time.Hour}
}

func start(t *testing.T, k *kept, s tracing.Settings) (*tracing.Tracer, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	tr, err := tracing.Start(t.Context(), tracing.Config{Settings: s, Version: "v", Client: k, Log: zap.New(core)})
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

// attrs are a span's attributes; a key that comes twice fails the test.
func attrs(t *testing.T, s *tracepb.Span) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, kv := range s.GetAttributes() {
		if _, twice := out[kv.GetKey()]; twice {
			t.Errorf("%s: attribute %s comes twice", s.GetName(), kv.GetKey())
		}
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[kv.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_BoolValue:
			out[kv.GetKey()] = strconv.FormatBool(v.BoolValue)
		default:
			t.Errorf("%s: attribute %s has a value of kind %T", s.GetName(), kv.GetKey(), v)
		}
	}
	return out
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
	const local, remote = 0x101, 0x301 // flags: sampled; parent known to be here, or elsewhere
	k := &kept{}
	tr, _ := start(t, k, queued(2048, 100))
	s := tr.Sampling()
	from, yes := s.Sample([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	if !yes {
		t.Fatal("got not sampled, want sampled as the header says")
	}
	b := batch(2)
	r := tr.Trace(b)
	polled := b.Began.Add(-time.Second)
	r.Event(tracing.Event{Origin: from, State: "vendor=1", Offset: 5, Polled: polled, Outcome: tracing.OutcomeDelivered, ID: "m-1"})
	for range 300 {
		root, yes := s.Sample(nil)
		if !yes {
			t.Fatal("got not sampled, want all")
		}
		r.Event(tracing.Event{Origin: root, Outcome: tracing.OutcomeRejected, Code: "type_mismatch", Column: "price"})
	}
	r.End()
	stop(t, tr)
	by, ids, traces := map[string][]*tracepb.Span{}, map[string]bool{}, map[string]bool{}
	for _, span := range k.spans {
		name, _, _ := strings.Cut(span.GetName(), " ")
		by[name] = append(by[name], span)
		ids[string(span.GetSpanId())], traces[string(span.GetTraceId())] = true, true
	}
	if n := len(by["process"]); n != 301 {
		t.Fatalf("got %d spans of events, want 301", n)
	}
	if len(ids) != len(k.spans) || len(traces) != 301 {
		t.Errorf("got %d ids of %d spans in %d traces, want each its own, in 301", len(ids), len(k.spans), len(traces))
	}
	first, whole := by["process"][0], by["batch"][0]
	if got := hex.EncodeToString(first.GetTraceId()); got != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("trace of the first event: got %s, want the producer's", got)
	}
	if got := hex.EncodeToString(first.GetParentSpanId()); got != "b7ad6b7169203331" || first.GetFlags() != remote {
		t.Errorf("parent of the first event: got %s, flags %#x, want the producer's span", got, first.GetFlags())
	}
	if got := first.GetTraceState(); got != "vendor=1" || whole.GetTraceState() != got {
		t.Errorf("tracestate: got %q and %q of the batch, want vendor=1", got, whole.GetTraceState())
	}
	if got := time.Unix(0, int64(first.GetStartTimeUnixNano())); !got.Equal(polled) {
		t.Errorf("start of the first event: got %s, want %s", got, polled)
	}
	if !bytes.Equal(whole.GetParentSpanId(), first.GetSpanId()) || !bytes.Equal(whole.GetTraceId(), first.GetTraceId()) {
		t.Error("the batch is not below the first event's span")
	}
	if len(whole.GetLinks()) != 128 || attrs(t, whole)["bridge.events_traced"] != "301" {
		t.Errorf("got %d links of the batch and %s events traced, want 128 and 301", len(whole.GetLinks()), attrs(t, whole)["bridge.events_traced"])
	}
	for i, s := range by["process"][1:] {
		if len(s.GetLinks()) != 1 || !bytes.Equal(s.GetLinks()[0].GetSpanId(), whole.GetSpanId()) || !bytes.Equal(s.GetLinks()[0].GetTraceId(), whole.GetTraceId()) {
			t.Fatalf("got links %v of an event, want one to the batch", s.GetLinks())
		}
		if i < 128 && (!bytes.Equal(whole.GetLinks()[i].GetSpanId(), s.GetSpanId()) || !bytes.Equal(whole.GetLinks()[i].GetTraceId(), s.GetTraceId())) {
			t.Errorf("link %d of the batch is not to its event", i)
		}
		if len(s.GetParentSpanId()) != 0 || s.GetFlags() != local || s.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || s.GetStatus().GetMessage() != "type_mismatch" {
			t.Fatalf("got parent %x, flags %#x and status %v, want a root that says type_mismatch", s.GetParentSpanId(), s.GetFlags(), s.GetStatus())
		}
		if a := attrs(t, s); a["bridge.column"] != "price" || a["error.type"] != "type_mismatch" || a["messaging.destination.name"] != "t" {
			t.Fatalf("got attributes %v of a reject", a)
		}
	}
	for _, name := range []string{"map", "write", "write"} {
		s := by[name][0]
		by[name] = by[name][1:]
		if !bytes.Equal(s.GetParentSpanId(), whole.GetSpanId()) || !bytes.Equal(s.GetTraceId(), whole.GetTraceId()) {
			t.Errorf("%s is not below the batch", name)
		}
	}
}

// Requests hold what they may and no more; what is left waits for the end.
func TestRequestsAreFilled(t *testing.T) {
	k := &kept{}
	tr, _ := start(t, k, queued(2048, 100))
	r := tr.Trace(batch(0))
	for range 448 { // and two of the batch
		r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
	}
	r.End()
	stop(t, tr)
	if k.calls != 5 || len(k.spans) != 450 {
		t.Errorf("got %d spans in %d requests, want 450 in 5", len(k.spans), k.calls)
	}
}

// Spans that fill no request are sent when they have waited long enough.
func TestFewSpansDoNotWaitForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{}
		set := queued(2048, 512)
		set.Delay = 5 * time.Second
		tr, _ := start(t, k, set)
		r := tr.Trace(batch(0))
		r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
		r.End()
		<-time.After(5*time.Second - 1)
		synctest.Wait()
		if _, n := k.sent(); n != 0 {
			t.Errorf("got %d requests before the delay, want none", n)
		}
		<-time.After(time.Nanosecond)
		synctest.Wait()
		if spans, n := k.sent(); n != 1 || spans != 3 {
			t.Errorf("got %d spans in %d requests after the delay, want 3 in one", spans, n)
		}
		stop(t, tr)
	})
}

// A request that gets no answer is given up when its time is over.
func TestRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kept{hangs: make(chan struct{})}
		set := queued(128, 3)
		set.Timeout = 30 * time.Second
		tr, logs := start(t, k, set)
		r := tr.Trace(batch(0))
		r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
		r.End()
		<-k.hangs
		<-time.After(30 * time.Second)
		synctest.Wait()
		if n := logs.FilterMessageSnippet("traces are lost").Len(); n != 1 {
			t.Errorf("got %d lines about lost traces, want 1: %v", n, logs.All())
		}
		stop(t, tr)
	})
}

func sampling(s tracing.Sampler) tracing.Settings {
	set := queued(2048, 512)
	set.Sampler = s
	return set
}

func TestRatioHoldsForEventsWithoutHeader(t *testing.T) {
	tr, _ := start(t, &kept{}, sampling(tracing.Sampler{ByParent: true, Ratio: 0.1}))
	defer stop(t, tr)
	s := tr.Sampling()
	sampled := 0
	for i := range 100_000 {
		if i%2 == 0 && s.Skip() {
			continue
		}
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
	tr, _ := start(t, &kept{}, sampling(tracing.Sampler{Ratio: 0.5}))
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
	k := &kept{hangs: make(chan struct{})}
	tr, logs := start(t, k, queued(128, 64))
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
	k := &kept{fails: errors.New("collector away"), asked: make(chan struct{})}
	tr, logs := start(t, k, queued(128, 30))
	deliver := func() {
		for range 10 {
			r := tr.Trace(batch(0))
			r.Event(tracing.Event{Outcome: tracing.OutcomeDelivered})
			r.End()
		}
		<-k.asked // 30 spans are a request
	}
	for range 20 { // more in all than the bound: what failed leaves room again
		deliver()
	}
	k.mu.Lock()
	k.fails = nil
	k.mu.Unlock()
	deliver()
	stop(t, tr)
	if n := logs.FilterMessageSnippet("traces are lost").Len(); n != 1 {
		t.Errorf("got %d lines about the beginning, want 1", n)
	}
	over := logs.FilterMessageSnippet("exported again").All()
	if len(over) != 1 || over[0].ContextMap()["spans_lost"] != int64(600) {
		t.Errorf("got %v about the end, want one line that counts 600 spans", over)
	}
	if len(k.spans) != 30 || tr.Dropped() != 0 {
		t.Errorf("got %d spans and %d dropped, want 30 and 0", len(k.spans), tr.Dropped())
	}
}
