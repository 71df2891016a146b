package tracing

import (
	"context"
	"fmt"
	"runtime"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"go.uber.org/zap"
)

// ServiceName is service.name where OTEL_SERVICE_NAME says nothing else.
const ServiceName = "datafly-bridge"

// library names what makes the spans.
const library = "github.com/datafly/bridge"

// Client sends finished spans to a collector; it is OpenTelemetry's.
type Client = otlptrace.Client

// Config is what a Tracer needs.
type Config struct {
	Settings
	Version string // of the bridge
	// Client sends the spans. Nil is the one the environment describes.
	Client Client
	Log    *zap.Logger
}

// Tracer makes spans. Its methods are safe for concurrent use, but for Stop.
type Tracer struct {
	sampler Sampler
	queue   *queue
}

// Start begins the goroutine that sends spans; Stop ends it. It connects to
// nothing: a collector that is away is none of its errors.
func Start(ctx context.Context, cfg Config) (*Tracer, error) {
	client := cfg.Client
	if client == nil {
		if client = otlptracehttp.NewClient(); cfg.Protocol == ProtocolGRPC {
			client = otlptracegrpc.NewClient()
		}
	}
	t := &Tracer{sampler: cfg.Sampler, queue: newQueue(client, cfg.Settings, cfg.Log)}
	if cfg.Client == nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(t.queue.complain))
	}
	if err := client.Start(ctx); err != nil {
		return nil, fmt.Errorf("preparing to export traces: %w; correct the OTEL_EXPORTER_OTLP_* variables, or set OTEL_TRACES_EXPORTER=none", err)
	}
	t.queue.tellOf(ctx, cfg.Version)
	go t.queue.run() // ends with Stop, which waits for it
	return t, nil
}

// tellOf sets who the spans come from. What the environment says comes last
// and wins. A part of it that cannot be read is told, and the rest holds.
func (q *queue) tellOf(ctx context.Context, version string) {
	about, err := resource.New(ctx,
		resource.WithAttributes(
			// The convention wants a name of one's own from what is not the SDK.
			semconv.TelemetrySDKName(library), semconv.TelemetrySDKLanguageGo, semconv.TelemetrySDKVersion(version),
			semconv.ServiceName(ServiceName), semconv.ServiceVersion(version), attribute.String("process.runtime.version", runtime.Version())),
		resource.WithHost(),
		resource.WithFromEnv(),
	)
	if err != nil {
		q.complain(err)
	}
	q.about, q.schema = &resourcepb.Resource{Attributes: keyValues(about.Attributes()...)}, about.SchemaURL()
	q.scope = &commonpb.InstrumentationScope{Name: library, Version: version}
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

// Skip is Sample for an event without headers that is not traced, as nearly all
// are: it costs no call. Where it returns false, Sample decides.
func (s *Sampling) Skip() bool {
	if s.skip > 0 {
		s.skip--
		return true
	}
	return false
}

// Origin is where an event's trace comes from, as Sample found it.
type Origin struct{ parent }

// Dropped returns how many spans were not made because too many were waiting
// to be exported.
func (t *Tracer) Dropped() int64 { return t.queue.dropped.Load() }

// Stop exports what is held until ctx ends, then gives the rest up, and waits
// for the goroutine.
func (t *Tracer) Stop(ctx context.Context) { t.queue.stop(ctx) }
