package tracing

import (
	"context"
	"fmt"
	"runtime"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// ServiceName is service.name where OTEL_SERVICE_NAME says nothing else.
const ServiceName = "datafly-bridge"

// Exporter takes finished spans; it is OpenTelemetry's.
type Exporter = sdk.SpanExporter

// Config is what a Tracer needs.
type Config struct {
	Settings
	Version string // of the bridge
	// Exporter takes the spans. Nil is the one the environment describes.
	Exporter Exporter
	Log      *zap.Logger
}

// Tracer makes spans. Its methods are safe for concurrent use, but for Stop.
type Tracer struct {
	sampler  Sampler
	gate     *gate
	provider *sdk.TracerProvider
	spans    trace.Tracer
}

// Start begins the goroutine that exports spans; Stop ends it. It connects to
// nothing: a collector that is away is none of its errors.
func Start(ctx context.Context, cfg Config) (*Tracer, error) {
	out := cfg.Exporter
	if out == nil {
		var err error
		if out, err = exporter(ctx, cfg.Protocol); err != nil {
			return nil, fmt.Errorf("preparing to export traces: %w; correct the OTEL_EXPORTER_OTLP_* variables, or set OTEL_TRACES_EXPORTER=none", err)
		}
	}
	t := &Tracer{sampler: cfg.Sampler, gate: newGate(out, cfg.MaxQueue, cfg.Log)}
	// What the environment says comes last and wins. A part of it that cannot
	// be read is told, and the rest holds.
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(ServiceName), semconv.ServiceVersion(cfg.Version), attribute.String("process.runtime.version", runtime.Version())),
		resource.WithHost(),
		resource.WithFromEnv(),
	)
	if err != nil {
		t.gate.complain(err)
	}
	if cfg.Exporter == nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(t.gate.complain))
	}
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(about),
		sdk.WithSampler(sdk.AlwaysSample()), // what is not sampled does not get so far
		sdk.WithBatcher(t.gate, sdk.WithMaxQueueSize(cfg.MaxQueue)),
	)
	t.spans = t.provider.Tracer("github.com/datafly/bridge", trace.WithInstrumentationVersion(cfg.Version), trace.WithSchemaURL(semconv.SchemaURL))
	return t, nil
}

func exporter(ctx context.Context, protocol string) (Exporter, error) {
	if protocol == ProtocolGRPC {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// Sampling decides for the events of one batch. It is for one goroutine.
type Sampling struct{ decider }

// Sampling begins the decisions for a batch.
func (t *Tracer) Sampling() Sampling { return Sampling{t.sampler.decider()} }

// Sample decides whether an event is traced, by the value of its traceparent
// header, nil if it has none. It allocates nothing.
func (s *Sampling) Sample(traceparent []byte) (Origin, bool) {
	from, yes := s.sample(traceparent)
	return Origin{from}, yes
}

// Origin is where an event's trace comes from, as Sample found it.
type Origin struct{ parent }

// Dropped returns how many spans were not made because too many were waiting
// to be exported.
func (t *Tracer) Dropped() int64 { return t.gate.dropped.Load() }

// Stop exports what is held until ctx ends, then gives the rest up, and waits
// for the goroutine.
func (t *Tracer) Stop(ctx context.Context) {
	defer t.gate.sever()
	defer context.AfterFunc(ctx, t.gate.sever)()
	// Not with ctx: the SDK would leave its goroutine behind when that ends,
	// and with one that has ended not stop at all. The gate ends the exports.
	_ = t.provider.Shutdown(context.WithoutCancel(ctx)) // the gate has told
	<-t.gate.ended
}
