// Package tracing makes OpenTelemetry spans of delivered batches and of their
// sampled events. An event's span continues the trace in its record's headers. The
// batch's span is a child of the first sampled event's span, with links to the others.
//
// Spans are made when a batch has ended, so that nothing is kept while it is
// written. tracing.max_per_second bounds how many events are traced, and with
// them the cost. OpenTelemetry's SDK queues and exports the spans; its queue is
// bounded and drops what does not fit, so an exporter never delays a delivery.
package tracing

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// ServiceName is service.name when OTEL_SERVICE_NAME is not set.
const ServiceName = "datafly-bridge"

// library is the instrumentation scope.
const library = "github.com/datafly/bridge"

// Config is what a Tracer needs.
type Config struct {
	Options
	Version string // of the bridge
	// Exporter sends the spans. Nil is the one the environment describes.
	Exporter sdk.SpanExporter
	Log      *zap.Logger
}

// Tracer makes spans. Its methods are safe for concurrent use, but for Stop.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
	limit    *rate.Limiter
	byParent bool
	base     context.Context // parent of the spans that begin a trace; never ends
}

// Start starts the goroutine that exports spans; Stop ends it. A collector that
// cannot be reached is not an error.
func Start(ctx context.Context, cfg Config) (*Tracer, error) {
	out := cfg.Exporter
	if out == nil {
		complaints := rate.Sometimes{Interval: time.Minute}
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			complaints.Do(func() { cfg.Log.Warn("tracing is degraded", zap.String("cause", short(err))) })
		}))
		client := otlptracehttp.NewClient()
		if cfg.Protocol == ProtocolGRPC {
			client = otlptracegrpc.NewClient()
		}
		var err error
		if out, err = otlptrace.New(ctx, client); err != nil {
			return nil, fmt.Errorf("preparing to export traces: %w; correct the OTEL_EXPORTER_OTLP_* variables, or set OTEL_TRACES_EXPORTER=none", err)
		}
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(ServiceName), semconv.ServiceVersion(cfg.Version), attribute.String("process.runtime.version", runtime.Version())),
		resource.WithHost(),
		resource.WithFromEnv(), // last: the environment wins
	)
	if err != nil {
		cfg.Log.Warn("a part of the traces' resource is missing; correct OTEL_RESOURCE_ATTRIBUTES", zap.String("cause", short(err)))
	}
	t := &Tracer{
		exporter: newExporter(out, cfg.Log), byParent: cfg.ByParent, base: context.WithoutCancel(ctx),
		limit: rate.NewLimiter(rate.Limit(cfg.MaxPerSecond), cfg.MaxPerSecond),
	}
	t.provider = sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithSampler(limited{cfg.Sampler, t.limit}), sdk.WithBatcher(t.exporter))
	t.tracer = t.provider.Tracer(library, trace.WithInstrumentationVersion(cfg.Version), trace.WithSchemaURL(semconv.SchemaURL))
	return t, nil
}

// Stop exports what is queued until ctx ends, then drops the rest, and waits for
// the goroutine.
func (t *Tracer) Stop(ctx context.Context) {
	defer t.exporter.cancel()
	defer context.AfterFunc(ctx, t.exporter.cancel)()
	// Without the end of ctx, or the SDK would return before its goroutine does.
	_ = t.provider.Shutdown(context.WithoutCancel(ctx)) // export errors are logged by the exporter
}

// limited is a Sampler with a bound on the spans of events: the spans of a batch,
// whose parents are local, follow those.
type limited struct {
	sdk.Sampler
	limit *rate.Limiter
}

// ShouldSample implements sdk.Sampler.
func (l limited) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	r := l.Sampler.ShouldSample(p)
	parent := trace.SpanContextFromContext(p.ParentContext)
	if local := parent.IsValid() && !parent.IsRemote(); !local && r.Decision == sdk.RecordAndSample && !l.limit.Allow() {
		r.Decision = sdk.Drop
	}
	return r
}

// exporter logs an outage of the collector when it begins and when it is over,
// and can be cancelled as a whole. The SDK calls ExportSpans from one goroutine
// at a time.
type exporter struct {
	sdk.SpanExporter
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelFunc
	lost   int // spans, in this outage
}

func newExporter(to sdk.SpanExporter, log *zap.Logger) *exporter {
	e := &exporter{SpanExporter: to, log: log}
	// Not a caller's context: spans outlive the delivery they describe.
	e.ctx, e.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Stop
	return e
}

// ExportSpans implements sdk.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(errStopped) })()
	if e.ctx.Err() != nil {
		cancel(errStopped)
	}
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && e.lost == 0:
		e.log.Warn("exporting traces failed; deliveries continue, spans are lost", zap.String("cause", short(err)),
			zap.String("remedy", "check OTEL_EXPORTER_OTLP_ENDPOINT and the collector behind it, or set tracing.enabled to false"))
	case err == nil && e.lost > 0:
		e.log.Info("traces are exported again", zap.Int("spans_lost", e.lost))
		e.lost = 0
	}
	if err != nil {
		e.lost += len(spans)
	}
	return nil // it is reported
}

var errStopped = fmt.Errorf("the bridge stops and its time for exporting spans is over")

// short keeps a collector's answer from filling the log.
func short(err error) string {
	text := err.Error()
	const most = 400
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
