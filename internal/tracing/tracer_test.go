package tracing

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// start starts a tracer of every event, 100 a second, with what log it writes.
func start(t *testing.T, out sdk.SpanExporter) (*Tracer, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	set, err := Settings{true, 100}.Options(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	tr, err := Start(t.Context(), Config{Options: set, Version: "v", Exporter: out, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	return tr, logs
}

// trace starts and ends n spans of events and returns how many were sampled.
func (t *Tracer) trace(n int) (sampled int) {
	for range n {
		_, span := t.tracer.Start(t.base, "process")
		if span.IsRecording() {
			sampled++
		}
		span.End()
	}
	return sampled
}

func TestEventsPerSecondAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := tracetest.NewInMemoryExporter()
		tr, _ := start(t, out)
		for second := range 3 {
			if got := tr.trace(1000); got != 100 {
				t.Errorf("second %d: got %d of 1000 sampled, want 100", second, got)
			}
			// The spans below an event's are not counted.
			ctx, span := tr.tracer.Start(t.Context(), "dropped")
			if span.IsRecording() {
				t.Error("got an event sampled beyond the bound")
			}
			_ = ctx
			<-time.After(time.Second)
		}
		ctx, event := tr.tracer.Start(tr.base, "process")
		for range 1000 {
			if _, below := tr.tracer.Start(ctx, "batch"); !below.IsRecording() {
				t.Fatal("got a span below a sampled event's dropped")
			}
		}
		event.End()
		tr.Stop(t.Context())
	})
}

// failing is an exporter whose collector is away while err is set.
type failing struct {
	tracetest.InMemoryExporter
	err error
}

func (f *failing) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if f.err != nil {
		return f.err
	}
	return f.InMemoryExporter.ExportSpans(ctx, spans)
}

func TestAnOutageIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &failing{err: errors.New("collector away")}
		tr, logs := start(t, out)
		for range 20 {
			tr.trace(30)
			<-time.After(10 * time.Second) // longer than spans wait
		}
		synctest.Wait()
		out.err = nil
		tr.trace(30)
		tr.Stop(t.Context())
		if n := logs.FilterMessageSnippet("exporting traces failed").Len(); n != 1 {
			t.Errorf("got %d lines about the beginning, want 1: %v", n, logs.All())
		}
		over := logs.FilterMessageSnippet("exported again").All()
		if len(over) != 1 || over[0].ContextMap()["spans_lost"] != int64(600) {
			t.Errorf("got %v about the end, want one line that counts 600 spans", over)
		}
	})
}

// hanging is an exporter whose collector gives no answer.
type hanging struct {
	tracetest.InMemoryExporter
	asked chan struct{}
}

func (h *hanging) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// Nobody waits for a collector that hangs: spans are dropped, and Stop returns
// with its context, its goroutine ended.
func TestAHangingCollectorHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &hanging{asked: make(chan struct{}, 1)}
		tr, logs := start(t, out)
		for range 100 {
			tr.trace(100)
			<-time.After(time.Second)
		}
		<-out.asked
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		tr.Stop(ctx)
		if took := time.Since(began); took > time.Second {
			t.Errorf("Stop took %v, want no more than the context's second", took)
		}
		if n := logs.FilterMessageSnippet("exporting traces failed").Len(); n != 1 {
			t.Errorf("got %d lines about it, want 1: %v", n, logs.All())
		}
	})
}

func TestUnsampledParents(t *testing.T) {
	const ids = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
	for parent, want := range map[string]bool{
		"00" + ids + "00": true, "00" + ids + "02": true, "00" + ids + "fe": true,
		"00" + ids + "01": false, "00" + ids + "ff": false, // sampled
		"01" + ids + "00": false, "00" + ids + "0": false, "00" + ids + "00-more": false, "": false, "00": false, // for the SDK to parse
	} {
		if got := unsampled([]byte(parent)); got != want {
			t.Errorf("%q: got %v, want %v", parent, got, want)
		}
	}
}

func TestHeadersAreRead(t *testing.T) {
	rec := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "b", Value: []byte("3")}}}
	if got := header(rec, "b"); string(got) != "2" {
		t.Errorf("got %q, want the first of that name", got)
	}
	if got := header(rec, "c"); got != nil {
		t.Errorf("got %q for a header that is missing", got)
	}
}

func TestMessageIDs(t *testing.T) {
	for value, want := range map[string]string{
		`{"type":"track","message_id":"m-1"}`:                                   "m-1",
		` { "messageId" : "m-2" , "type":"page"}`:                               "m-2",
		`{"a":"{\"message_id\":\"x\"}","message_id":"m-3"}`:                     "m-3",
		`{"properties":{"message_id":"x"},"message_id":"m-4"}`:                  "m-4",
		`{"properties":[{"message_id":"x"}],"b":["message_id","x"]}`:            "",
		`{"event":{"message_id":"x"}}`:                                          "",
		`[{"message_id":"x"}]`:                                                  "",
		`{"message_id":"` + strings.Repeat("x", maxIDBytes) + `"}`:              strings.Repeat("x", maxIDBytes),
		`{"message_id":"` + strings.Repeat("x", maxIDBytes+1) + `"}`:            "",
		`{"message_id":7}`:                                                      "",
		`{"message_id":"a b"}`:                                                  "",
		`{"message_id":"jan\u00e9"}`:                                            "",
		`{"message_id":"m-5","a":"` + strings.Repeat("x", maxEventBytes) + `"}`: "", // too large to be searched
		`{"message_id":"unended`:                                                "", ``: "", `null`: "", `"`: "",
	} {
		if got := messageID([]byte(value)); got != want {
			t.Errorf("%.60s: got %q, want %q", value, got, want)
		}
	}
}
