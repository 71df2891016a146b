package tracing_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/datafly/bridge/internal/tracing"
)

// collector takes spans as OpenTelemetry's own does.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all []*tracepb.ResourceSpans
}

func (c *collector) Export(_ context.Context, r *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, r.GetResourceSpans()...)
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

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

// A collector understands what it is sent, over either protocol.
func TestCollectorUnderstands(t *testing.T) {
	for _, protocol := range []string{tracing.ProtocolHTTP, tracing.ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{}
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.listen(t, protocol))
			set := queued(2048, 512)
			set.Protocol = protocol
			tr, err := tracing.Start(t.Context(), tracing.Config{Settings: set, Version: "v1", Log: zap.NewNop()})
			if err != nil {
				t.Fatalf("Start: %v", err)
			}
			r := tr.Trace(batch(1))
			r.Event(tracing.Event{Offset: 7, ID: "m-7", Outcome: tracing.OutcomeDelivered})
			r.End()
			stop(t, tr)
			if len(c.all) != 1 {
				t.Fatalf("got %d requests, want one", len(c.all))
			}
			got := c.all[0].GetScopeSpans()[0]
			if got.GetScope().GetName() != "github.com/datafly/bridge" || got.GetScope().GetVersion() != "v1" || got.GetSchemaUrl() == "" {
				t.Errorf("got scope %v with schema %q", got.GetScope(), got.GetSchemaUrl())
			}
			names := ""
			for _, s := range got.GetSpans() {
				names += s.GetName() + "; "
			}
			if want := "process t; batch t; map; write c.s.t; "; names != want {
				t.Fatalf("got spans %q, want %q", names, want)
			}
			if a := attrs(t, got.GetSpans()[0]); a["messaging.kafka.offset"] != "7" || a["messaging.message.id"] != "m-7" || a["messaging.system"] != "kafka" {
				t.Errorf("got attributes %v", a)
			}
			if a := attrs(t, got.GetSpans()[3]); a["bridge.attempts"] != "2" || a["bridge.probe"] != "false" || a["db.collection.name"] != "c.s.t" {
				t.Errorf("got attributes %v of the write", a)
			}
		})
	}
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
