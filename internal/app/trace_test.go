package app

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/twmb/franz-go/pkg/kgo"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/zerobus/emulator"
)

// attrsOf are attributes as texts.
func attrsOf(attrs []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range attrs {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		}
	}
	return m
}

// collector takes spans as OpenTelemetry's own does.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	about *resourcepb.Resource
	scope *commonpb.InstrumentationScope
	spans []*tracepb.Span
}

// Export implements the service of OTLP over gRPC.
func (c *collector) Export(_ context.Context, r *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, all := range r.GetResourceSpans() {
		c.about = all.GetResource()
		for _, s := range all.GetScopeSpans() {
			c.scope = s.GetScope()
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is the service of OTLP over HTTP.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request coltracepb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "no request of OTLP", http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), &request)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// listen serves until the test has ended, and returns the endpoint.
func (c *collector) listen(t *testing.T, protocol string) string {
	t.Helper()
	if protocol == tracing.ProtocolHTTP {
		server := httptest.NewServer(c)
		t.Cleanup(server.Close)
		return server.URL
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, c)
	ended := make(chan struct{})
	go func() { // ends with Stop, which the cleanup waits for
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return "http://" + l.Addr().String()
}

// The trace of a producer continues through the bridge to the write. Events that
// were not sampled have no span, and rejected ones have an error.
func TestTraceContinues(t *testing.T) {
	for _, protocol := range []string{tracing.ProtocolHTTP, tracing.ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) { traceContinues(t, protocol) })
	}
}

func traceContinues(t *testing.T, protocol string) {
	t.Helper()
	const (
		row    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		quiet  = "00-11111111111111111111111111111111-b7ad6b7169203331-00"
		poison = "00-22222222222222222222222222222222-b7ad6b7169203332-01"
	)
	s := newStage(t)
	out := &collector{}
	for _, kv := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + out.listen(t, protocol), "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
		"OTEL_TRACES_SAMPLER=parentbased_always_off", "OTEL_SERVICE_NAME=signal-bridge", "OTEL_RESOURCE_ATTRIBUTES=team=data"} {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
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
	b, stop := s.run(s.integration("default", s.topic, tableName, "tracing.enabled=true"))
	s.eventually("three rows and a reject", func() bool {
		now := b.Status().Totals
		return now.RowsDelivered == 3 && now.EventsRejected == 1
	})
	stop()

	by := map[string]*tracepb.Span{}
	for _, span := range out.spans {
		kind, _, _ := strings.Cut(span.GetName(), " ")
		if kind == "process" {
			kind += " " + hex.EncodeToString(span.GetTraceId())[:2]
		}
		if _, twice := by[kind]; twice {
			t.Errorf("got two spans %q, want one", kind)
		}
		by[kind] = span
		for key, value := range attrsOf(span.GetAttributes()) {
			if strings.Contains(value, "jane") || strings.Contains(value, "Deed") {
				t.Errorf("%s: %s is %q, which is data of the event", span.GetName(), key, value)
			}
		}
	}
	if len(by) != 5 {
		t.Fatalf("got spans %v, want process twice, batch, map and write", by)
	}
	event, bad, batch, write := by["process 0a"], by["process 22"], by["batch"], by["write"]
	if got := hex.EncodeToString(event.GetParentSpanId()); got != "b7ad6b7169203331" || event.GetTraceState() != "vendor=1" || event.GetKind() != tracepb.Span_SPAN_KIND_CONSUMER {
		t.Errorf("event: got parent %s, state %s, kind %s", got, event.GetTraceState(), event.GetKind())
	}
	for _, below := range []struct {
		name         string
		span, parent *tracepb.Span
	}{{"batch", batch, event}, {"map", by["map"], batch}, {"write", write, batch}} {
		if !bytes.Equal(below.span.GetParentSpanId(), below.parent.GetSpanId()) || hex.EncodeToString(below.span.GetTraceId()) != row[3:35] {
			t.Errorf("%s is not below %s in the producer's trace", below.name, below.parent.GetName())
		}
	}
	if len(bad.GetLinks()) != 1 || !bytes.Equal(bad.GetLinks()[0].GetSpanId(), batch.GetSpanId()) || len(batch.GetLinks()) != 1 || !bytes.Equal(batch.GetLinks()[0].GetSpanId(), bad.GetSpanId()) {
		t.Errorf("got links %v of the reject and %v of the batch, want each other", bad.GetLinks(), batch.GetLinks())
	}
	if bad.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || bad.GetStatus().GetMessage() != "not_json" || event.GetStatus().GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("got status %v of the reject and %v of the row", bad.GetStatus(), event.GetStatus())
	}
	for key, want := range map[string]string{
		"messaging.system": "kafka", "messaging.destination.name": s.topic, "messaging.destination.partition.id": "0", "messaging.kafka.offset": "0",
		"messaging.consumer.group.name": s.topic, "messaging.message.id": "m-1", "messaging.operation.name": "process",
	} {
		if got := attrsOf(event.GetAttributes())[key]; got != want {
			t.Errorf("event: %s is %q, want %q", key, got, want)
		}
	}
	for key, want := range map[string]string{"db.collection.name": tableName, "db.operation.batch.size": "3", "bridge.attempts": "2", "bridge.outcome": "delivered"} {
		if got := attrsOf(write.GetAttributes())[key]; got != want {
			t.Errorf("write: %s is %q, want %q", key, got, want)
		}
	}
	about := attrsOf(out.about.GetAttributes())
	if about["service.name"] != "signal-bridge" || about["team"] != "data" || about["service.version"] == "" || about["host.name"] == "" || out.scope.GetName() != "github.com/datafly/bridge" {
		t.Errorf("got resource %v and scope %v, want those of the environment", about, out.scope)
	}
	s.deadLetterKeepsHeaders(poison)
}

// deadLetterKeepsHeaders: a dead letter has the trace context its event had.
func (s *stage) deadLetterKeepsHeaders(parent string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), await.Patience)
	defer cancel()
	got := s.client.PollRecords(ctx, 1).Records()
	if len(got) != 1 || header(got[0], "traceparent") != parent || header(got[0], "tracestate") != "vendor=1" {
		s.t.Errorf("got dead letter %v, want one with the headers of its event", got)
	}
}

// A collector that gives no answer delays neither a row nor, beyond the drain,
// the end.
func TestHangingCollectorDelaysNothing(t *testing.T) {
	s := newStage(t)
	asked, over := make(chan struct{}, 1000), make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-over
	}))
	t.Cleanup(func() { close(over); hung.Close() })
	for k, v := range map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": hung.URL, "OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_MAX_QUEUE_SIZE": "128", "OTEL_BSP_SCHEDULE_DELAY": "10"} {
		t.Setenv(k, v)
	}
	b, stop := s.run(s.integration("default", s.topic, tableName, "tracing.enabled=true"))
	s.produce(`{"type":"track","event":"a","message_id":"first"}`, "")
	<-asked
	const events = 500
	for range events {
		s.client.Produce(t.Context(), &kgo.Record{Value: []byte(`{"type":"track","event":"a","message_id":"m"}`)}, nil)
	}
	s.eventually("every row while it hangs", func() bool { return b.Status().Totals.RowsDelivered == events+1 })
	stop()
}

// header returns the value of a record's first header of that name.
func header(rec *kgo.Record, key string) string {
	for _, h := range rec.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
