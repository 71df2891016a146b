package tracing_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/tracing"
)

// What one traced event costs, exporting included: an operation is a batch of
// 5,000 events of which 50 are traced.
func BenchmarkBatch(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	set := sampling(tracing.Sampler{ByParent: true, Ratio: 0.01})
	set.Protocol = tracing.ProtocolHTTP
	tr, err := tracing.Start(b.Context(), tracing.Config{Settings: set, Version: "v", Log: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Stop(b.Context())
	now := time.Now()
	for b.Loop() {
		r := tr.Trace(batch(1))
		s := tr.Sampling()
		for i := range 5000 {
			if from, yes := s.Sample(nil); yes {
				r.Event(tracing.Event{Origin: from, Offset: int64(i), Polled: now, ID: "0af7651916cd43dd8448eb211c80319c", Outcome: tracing.OutcomeDelivered})
			}
		}
		r.End()
	}
	b.ReportMetric(float64(tr.Dropped())/float64(b.N), "dropped/op")
}
