package main

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/zerobus/emulator"
)

// tracePatience is what a busy machine gets.
const tracePatience = 2 * time.Minute

// traceStage is a bridge between a Kafka and a workspace.
type traceStage struct {
	t      *testing.T
	topic  string
	kafka  kafkatest.Broker
	ws     *emulator.Emulator
	client *kgo.Client
}

func newTraceStage(t *testing.T, environment ...string) *traceStage {
	t.Helper()
	ours := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ours) })
	for _, kv := range environment {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	s := &traceStage{t: t, kafka: kafkatest.StartFake(t, kafkatest.Options{})}
	s.topic = kafkatest.Topic(t, s.kafka, 1)
	var err error
	if s.ws, err = emulator.New(emulator.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ws.Close(context.WithoutCancel(t.Context())) })
	if s.client, err = kgo.NewClient(append(s.kafka.ClientOpts(), kgo.DefaultProduceTopic(s.topic), kgo.ConsumeTopics(s.topic+"-dlq"))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

// run starts a bridge that gives its spans to out; the returned func stops it.
func (s *traceStage) run(out tracing.Exporter) (b *bridge, stop func()) {
	s.t.Helper()
	cfg, err := config.Load(config.Options{File: s.t.TempDir() + "/none.yaml", Sets: []string{
		"kafka.brokers=" + strings.Join(s.kafka.Addrs(), ","), "kafka.topics=" + s.topic, "kafka.group=" + s.topic,
		"zerobus.workspace_url=" + s.ws.URL(), "zerobus.client_id=" + emulator.DefaultClientID, "zerobus.client_secret=" + emulator.DefaultClientSecret,
		"zerobus.table=" + demoTable, "tracing.enabled=true", "delivery.drain=2s",
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	if b, err = newBridge(cfg, zap.NewNop()); err != nil {
		s.t.Fatal(err)
	}
	b.spans = out
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.run(ctx) }() // ends with ctx; stop waits for it
	return b, func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
		b.close()
	}
}

// produce sends a record; parent may be empty.
func (s *traceStage) produce(value, parent string) {
	s.t.Helper()
	rec := &kgo.Record{Value: []byte(value)}
	if parent != "" {
		rec.Headers = []kgo.RecordHeader{{Key: "other", Value: []byte("x")}, {Key: "traceparent", Value: []byte(parent)}, {Key: "tracestate", Value: []byte("vendor=1")}}
	}
	if err := s.client.ProduceSync(s.t.Context(), rec).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *traceStage) eventually(what string, done func() bool) {
	s.t.Helper()
	deadline := time.After(tracePatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("not within %s: %s", tracePatience, what)
		}
	}
}

func attrsOf(s tracetest.SpanStub) map[attribute.Key]string {
	m := map[attribute.Key]string{}
	for _, kv := range s.Attributes {
		m[kv.Key] = kv.Value.String()
	}
	return m
}

// keptSpans outlives the Shutdown that ends a run.
type keptSpans struct{ *tracetest.InMemoryExporter }

func (keptSpans) Shutdown(context.Context) error { return nil }

// The trace a producer began goes on through the bridge to the write; what was
// not sampled leaves no span, and what was rejected says so.
func TestTraceGoesOn(t *testing.T) {
	const (
		row    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		quiet  = "00-11111111111111111111111111111111-b7ad6b7169203331-00"
		poison = "00-22222222222222222222222222222222-b7ad6b7169203332-01"
	)
	s := newTraceStage(t, "OTEL_TRACES_SAMPLER=parentbased_always_off", "OTEL_SERVICE_NAME=signal-bridge", "OTEL_RESOURCE_ATTRIBUTES=team=data")
	var tries atomic.Int32
	s.ws.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		if len(r.Rows) > 0 && tries.Add(1) == 1 {
			return &emulator.Fault{Effect: "status", Status: 503}
		}
		return nil
	})
	s.produce(`{"type":"track","event":"Secret Deed","message_id":"m-1","user_id":"jane@example.com"}`, row)
	s.produce(`{"type":"track","event":"Secret Deed","message_id":"m-2","user_id":"jane@example.com"}`, quiet)
	s.produce(`{"type":"track","event":"Secret Deed","message_id":"m-3","user_id":"jane@example.com"}`, "")
	s.produce(`no json of jane@example.com`, poison)
	out := keptSpans{tracetest.NewInMemoryExporter()}
	b, stop := s.run(out)
	s.eventually("three rows and a reject", func() bool {
		now := b.metrics.Totals()
		return now.RowsDelivered == 3 && now.EventsRejected == 1
	})
	stop()

	by := map[string]tracetest.SpanStub{}
	for _, span := range out.GetSpans() {
		kind, _, _ := strings.Cut(span.Name, " ")
		if kind == "process" {
			kind += " " + span.SpanContext.TraceID().String()[:2]
		}
		if _, twice := by[kind]; twice {
			t.Errorf("got two spans %q, want one", kind)
		}
		by[kind] = span
		for key, value := range attrsOf(span) {
			if strings.Contains(value, "jane") || strings.Contains(value, "Deed") {
				t.Errorf("%s: %s is %q, which is data of the event", span.Name, key, value)
			}
		}
	}
	if len(by) != 5 {
		t.Fatalf("got spans %v, want process twice, batch, map and write", by)
	}
	event, bad, batch, write := by["process 0a"], by["process 22"], by["batch"], by["write"]
	if event.Parent.SpanID().String() != "b7ad6b7169203331" || event.SpanContext.TraceState().String() != "vendor=1" || event.SpanKind != trace.SpanKindConsumer {
		t.Errorf("event: got parent %s, state %s, kind %s", event.Parent.SpanID(), event.SpanContext.TraceState(), event.SpanKind)
	}
	for _, below := range []struct {
		name         string
		span, parent tracetest.SpanStub
	}{{"batch", batch, event}, {"map", by["map"], batch}, {"write", write, batch}} {
		if below.span.Parent.SpanID() != below.parent.SpanContext.SpanID() || below.span.SpanContext.TraceID().String() != row[3:35] {
			t.Errorf("%s is not below %s in the producer's trace", below.name, below.parent.Name)
		}
	}
	if len(bad.Links) != 1 || bad.Links[0].SpanContext.SpanID() != batch.SpanContext.SpanID() || len(batch.Links) != 1 || batch.Links[0].SpanContext.SpanID() != bad.SpanContext.SpanID() {
		t.Errorf("got links %v of the reject and %v of the batch, want each other", bad.Links, batch.Links)
	}
	if bad.Status.Code != codes.Error || bad.Status.Description != "not_json" || event.Status.Code != codes.Unset {
		t.Errorf("got status %+v of the reject and %+v of the row", bad.Status, event.Status)
	}
	for key, want := range map[attribute.Key]string{
		"messaging.system": "kafka", "messaging.destination.name": s.topic, "messaging.destination.partition.id": "0", "messaging.kafka.offset": "0",
		"messaging.consumer.group.name": s.topic, "messaging.message.id": "m-1", "messaging.operation.name": "process",
	} {
		if got := attrsOf(event)[key]; got != want {
			t.Errorf("event: %s is %q, want %q", key, got, want)
		}
	}
	for key, want := range map[attribute.Key]string{"db.collection.name": demoTable, "db.operation.batch.size": "3", "bridge.attempts": "2", "bridge.outcome": "delivered"} {
		if got := attrsOf(write)[key]; got != want {
			t.Errorf("write: %s is %q, want %q", key, got, want)
		}
	}
	about := map[attribute.Key]string{}
	for _, kv := range event.Resource.Attributes() {
		about[kv.Key] = kv.Value.String()
	}
	if about["service.name"] != "signal-bridge" || about["team"] != "data" {
		t.Errorf("got resource %v, want what the environment says", about)
	}
	s.letterKeepsHeaders(poison)
}

// letterKeepsHeaders: a dead letter has the trace context its event had.
func (s *traceStage) letterKeepsHeaders(parent string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), tracePatience)
	defer cancel()
	got := s.client.PollRecords(ctx, 1).Records()
	if len(got) != 1 || string(header(got[0], "traceparent")) != parent || string(header(got[0], "tracestate")) != "vendor=1" {
		s.t.Errorf("got dead letter %v, want one with the headers of its event", got)
	}
}

// hung is a collector that takes nothing and gives no answer.
type hung struct{ asked atomic.Int32 }

func (h *hung) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	h.asked.Add(1)
	<-ctx.Done()
	return ctx.Err()
}
func (h *hung) Shutdown(context.Context) error { return nil }

// A collector that hangs delays neither a row nor, beyond the drain, the end.
func TestHangingCollectorDelaysNothing(t *testing.T) {
	s := newTraceStage(t, "OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_MAX_QUEUE_SIZE=128", "OTEL_BSP_SCHEDULE_DELAY=10")
	out := &hung{}
	b, stop := s.run(out)
	s.produce(`{"type":"track","event":"a","message_id":"first"}`, "")
	s.eventually("the collector to hang", func() bool { return out.asked.Load() > 0 })
	const events = 500
	for range events {
		s.client.Produce(t.Context(), &kgo.Record{Value: []byte(`{"type":"track","event":"a","message_id":"m"}`)}, nil)
	}
	s.eventually("every row while it hangs", func() bool { return b.metrics.Totals().RowsDelivered == events+1 })
	stop()
}

func TestMessageIDs(t *testing.T) {
	for value, want := range map[string]string{
		`{"type":"track","message_id":"m-1"}`:                        "m-1",
		` { "messageId" : "m-2" , "type":"page"}`:                    "m-2",
		`{"a":"{\"message_id\":\"x\"}","message_id":"m-3"}`:          "m-3",
		`{"properties":{"message_id":"x"},"message_id":"m-4"}`:       "m-4",
		`{"properties":[{"message_id":"x"}],"b":["message_id","x"]}`: "",
		`{"event":{"message_id":"x"}}`:                               "",
		`[{"message_id":"x"}]`:                                       "",
		`{"name":"message_id","message_id":"a\"b"}`:                  "",
		`{"name":"message_id","other":"x"}`:                          "",
		`{"message_id":"` + strings.Repeat("x", maxTraceID) + `"}`:   strings.Repeat("x", maxTraceID),
		`{"message_id":"` + strings.Repeat("x", maxTraceID+1) + `"}`: "",
		`{"message_id":7}`:                                           "",
		`{"message_id":"a b"}`:                                       "",
		`{"message_id"`:                                              "",
		`{"message_id":"unended`:                                     "",
		`{"x\\":"y","message_id":"m-5"}`:                             "m-5",
		``:                                                           "", `null`: "", `"`: "",
	} {
		if got := messageID([]byte(value)); got != want {
			t.Errorf("%.60s: got %q, want %q", value, got, want)
		}
	}
}

func FuzzMessageID(f *testing.F) {
	f.Add([]byte(`{"type":"track","message_id":"m-1"}`))
	f.Add([]byte(`{"a":"\\\"","messageId":"\u0041"}`))
	f.Add([]byte(`}}{"message_id":"x"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		id := messageID(value)
		if len(id) > maxTraceID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			t.Errorf("got %q, want at most %d printable characters", id, maxTraceID)
		}
		if id != "" && !strings.Contains(string(value), `"`+id+`"`) {
			t.Errorf("got %q, which is no text of the event", id)
		}
	})
}

func BenchmarkMessageID(b *testing.B) {
	value := []byte(`{"type":"track","context":{"page":{"url":"https://shop.example/a?b=c","title":"` + strings.Repeat("long ", 150) + `"}},"message_id":"m-1"}`)
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		messageID(value)
	}
}
