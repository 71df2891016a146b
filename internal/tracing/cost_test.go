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

// What traced events cost, sending and the collector's reading included: an
// operation is a batch of 5,000 events of which 50 are traced, in one request.
func BenchmarkBatch(b *testing.B) {
	taken := make(chan struct{}, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
		taken <- struct{}{}
	}))
	defer collector.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	set := queued(2048, 53)                                             // the batch's own span, the mapping's and the write's besides
	set.Protocol, set.Sampler = tracing.ProtocolHTTP, tracing.Sampler{} // none: the loop picks
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
			if i%100 > 0 && s.Skip() {
				continue
			}
			r.Event(tracing.Event{Offset: int64(i), Polled: now, ID: "0af7651916cd43dd8448eb211c80319c", Outcome: tracing.OutcomeDelivered})
		}
		r.End()
		<-taken
	}
}
