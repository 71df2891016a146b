package tracing

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
)

// gate stands before an exporter. It bounds the spans that are held, so that
// no more are made than can be kept, and turns the exporter's failures into a
// log line when they begin and one when they are over.
type gate struct {
	next sdk.SpanExporter
	log  *zap.Logger
	most int64

	held    atomic.Int64 // spans reserved and not exported yet
	dropped atomic.Int64 // spans not made for want of room

	cut   context.Context // ends when there is no more time to export
	sever context.CancelFunc
	ended chan struct{} // closed when the exporter has been shut down

	mu      sync.Mutex // guards the fields below
	failing bool
	lost    int64     // spans given to the exporter in vain
	told    time.Time // when drops or a side complaint were last logged
	counted int64     // of dropped, as last logged
}

// toldEvery is how often drops may be logged.
const toldEvery = time.Minute

func newGate(next sdk.SpanExporter, most int, log *zap.Logger) *gate {
	g := &gate{next: next, log: log, most: int64(most), ended: make(chan struct{})}
	// Not a caller's context: spans outlive what they tell of.
	g.cut, g.sever = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Stop
	return g
}

// admit reserves room for n spans; without room they are counted as dropped.
func (g *gate) admit(n int) bool {
	if g.held.Add(int64(n)) <= g.most {
		return true
	}
	g.held.Add(int64(-n))
	g.dropped.Add(int64(n))
	return false
}

// ExportSpans implements sdk.SpanExporter. It never fails: it has told.
func (g *gate) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	defer g.held.Add(int64(-len(spans)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.cut, cancel)()
	if g.cut.Err() == nil {
		g.tell(len(spans), g.next.ExportSpans(ctx, spans))
	} else {
		g.tell(len(spans), context.Cause(g.cut))
	}
	return nil
}

// Shutdown implements sdk.SpanExporter. The processor calls it once, at its end.
func (g *gate) Shutdown(context.Context) error {
	defer close(g.ended)
	return g.next.Shutdown(g.cut)
}

func (g *gate) tell(spans int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil:
		g.lost += int64(spans)
		if !g.failing {
			g.failing = true
			g.log.Warn("traces are lost until they can be exported; events are delivered all the same. See to the collector at OTEL_EXPORTER_OTLP_ENDPOINT",
				zap.String("error", short(err)))
		}
	case g.failing:
		g.failing = false
		g.log.Info("traces are exported again", zap.Int64("spans_lost", g.lost))
		g.lost = 0
	}
	if n := g.dropped.Load(); n > g.counted && time.Since(g.told) >= toldEvery {
		g.log.Warn("spans are not made, because the collector does not take them fast enough; sample less with OTEL_TRACES_SAMPLER_ARG or hold more with OTEL_BSP_MAX_QUEUE_SIZE",
			zap.Int64("spans", n-g.counted))
		g.counted, g.told = n, time.Now()
	}
}

// complain hears what the SDK cannot return, such as spans a collector refused.
func (g *gate) complain(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.told) >= toldEvery {
		g.told = time.Now()
		g.log.Warn("tracing is not whole", zap.String("error", short(err)))
	}
}

// short keeps a collector's answer from filling the log.
func short(err error) string {
	text := err.Error()
	const most = 400
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
