package live_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
)

// hundred is a process with a hundred busy integrations and 15 minutes of history.
func hundred() ops.Source {
	var all []ops.IntegrationStatus
	for n := range 100 {
		i := integration(fmt.Sprintf("integration-%03d", n))
		steps := func(v float32) ops.Series { return slices.Repeat(ops.Series{v + float32(n)/7}, 180) }
		i.History = &ops.History{End: time.Now(), StepSeconds: 5, Rows: steps(377), Outcomes: steps(380), Rejected: steps(0), Lag: steps(12345), Oldest: steps(0.1), P50: steps(0.1), P99: steps(0.2), DeadLetters: steps(0)}
		i.Verdict = &ops.Verdict{State: "delivering", Level: "ok", Text: "keeping up"}
		all = append(all, i)
	}
	return func() ops.Status { return ops.NewStatus(ops.Status{Deployment: "prod-eu"}, all) }
}

// BenchmarkSummary is the work of one second for the list of a hundred integrations, and
// of one request for it.
func BenchmarkSummary(b *testing.B) {
	source := hundred()
	ask := func(p *live.Page) {
		w := httptest.NewRecorder()
		p.Handler(access.New(nil, false)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/live/summary", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		b.SetBytes(int64(w.Body.Len()))
	}
	b.Run("compute", func(b *testing.B) {
		for b.Loop() {
			ask(live.New(live.Config{Mode: live.ModeMetadata}, source, zap.NewNop()))
		}
	})
	b.Run("request", func(b *testing.B) {
		p := live.New(live.Config{Mode: live.ModeMetadata}, source, zap.NewNop())
		for b.Loop() {
			ask(p)
		}
	})
}
