package tracing

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Outcomes of an event and of a write.
const (
	OutcomeDelivered = "delivered" // durable
	OutcomeRejected  = "rejected"  // can never be a row; the code says why
	OutcomeFiltered  = "filtered"  // dropped by rule
	OutcomeAbandoned = "abandoned" // given up unmarked; it will be read again
	OutcomeRefused   = "refused"   // a write: at least one of its rows can never be ingested
	OutcomeStale     = "stale"     // a write: the table's columns have changed; mapped again
)

// maxLinks bounds the events a batch's span links.
const maxLinks = 128

// Batch is a batch of events that has come to its end.
type Batch struct {
	Topic     string
	Partition int32
	Group     string
	Table     string
	Events    int
	Rows      int
	RowBytes  int // encoded
	Began     time.Time
	Mapped    time.Time
	Ended     time.Time
	Outcome   string // OutcomeDelivered or OutcomeAbandoned
	Writes    []Write
	Written   int // writes in all; Writes may hold the first ones only
}

// Write is one write of rows to the table.
type Write struct {
	Began    time.Time
	Took     time.Duration
	Rows     int
	Bytes    int
	Attempts int
	Probe    bool   // a search for rows the table refuses
	Outcome  string // OutcomeDelivered, OutcomeRefused, OutcomeStale or OutcomeAbandoned
	Code     string // of a refusal
}

// Event is one sampled record of a batch and its end. Nothing of its value is
// told but the id of the message.
type Event struct {
	Origin  Origin
	State   string // tracestate, as its header has it
	Offset  int64
	Polled  time.Time
	ID      string // may be empty
	Outcome string // OutcomeDelivered, OutcomeRejected, OutcomeFiltered or OutcomeAbandoned
	Code    string // of a reject, or why it was filtered
	Column  string // of a reject; may be empty
}

// Trace makes the spans of one batch.
type Trace struct {
	t      *Tracer
	b      *Batch
	common []attribute.KeyValue
	name   string
	span   trace.Span // of the batch; nil before the first event
	link   trace.Link // to it
	events int        // that are traced
}

// Trace begins the spans of a batch: none is made before its first Event. End
// it.
func (t *Tracer) Trace(b *Batch) *Trace {
	return &Trace{t: t, b: b, name: "process " + b.Topic, common: []attribute.KeyValue{
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(b.Topic),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(b.Partition))),
		semconv.MessagingConsumerGroupName(b.Group),
	}}
}

// Full reports that there is no room for another span and counts it as dropped.
// Ask before an Event is put together.
func (r *Trace) Full() bool {
	g := r.t.gate
	if g.held.Load() < g.most {
		return false
	}
	g.dropped.Add(1)
	return true
}

// Event makes the span of one event. The batch's own span and what lies below
// it belong to the trace of the first.
func (r *Trace) Event(e Event) {
	need := 1
	if r.span == nil {
		need += 2 + len(r.b.Writes)
	}
	if !r.t.gate.admit(need) {
		return
	}
	ctx := e.context()
	// Each attribute costs as much again when it is exported, so that what most
	// events have in common is left unsaid.
	attrs := append(make([]attribute.KeyValue, 0, len(r.common)+5), r.common...)
	attrs = append(attrs, semconv.MessagingKafkaOffset(int(e.Offset)))
	if e.Outcome != OutcomeDelivered {
		attrs = append(attrs, attribute.String("bridge.outcome", e.Outcome))
	}
	if e.ID != "" {
		attrs = append(attrs, semconv.MessagingMessageID(e.ID))
	}
	if e.Code != "" {
		attrs = append(attrs, attribute.String("bridge.code", e.Code))
	}
	if e.Column != "" {
		attrs = append(attrs, attribute.String("bridge.column", e.Column))
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(e.Polled), trace.WithAttributes(attrs...)}
	if r.span != nil {
		options = append(options, trace.WithLinks(r.link))
	}
	ctx, span := r.t.spans.Start(ctx, r.name, options...)
	switch e.Outcome {
	case OutcomeRejected:
		fail(span, e.Code)
	case OutcomeAbandoned:
		fail(span, e.Outcome)
	}
	if r.span == nil {
		r.begin(ctx)
	} else if r.events <= maxLinks {
		r.span.AddLink(trace.Link{SpanContext: span.SpanContext()})
	}
	r.events++
	span.End(trace.WithTimestamp(r.b.Ended))
}

// context is where an event's span goes.
func (e *Event) context() context.Context {
	if !e.Origin.trace.IsValid() {
		return context.Background() //nolint:forbidigo // it carries a span and ends nothing
	}
	state, err := trace.ParseTraceState(e.State)
	if err != nil {
		state = trace.TraceState{} // as if it were not there, says the recommendation
	}
	//nolint:forbidigo // it carries a span and ends nothing
	return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: e.Origin.trace, SpanID: e.Origin.span, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
	}))
}

// begin makes the spans of the batch itself, below the event's in ctx.
func (r *Trace) begin(ctx context.Context) {
	b, t := r.b, r.t
	ctx, r.span = t.spans.Start(ctx, "batch "+b.Topic, trace.WithTimestamp(b.Began), trace.WithAttributes(append(r.common[:len(r.common):len(r.common)],
		semconv.MessagingBatchMessageCount(b.Events),
		attribute.Int("bridge.rows", b.Rows),
		attribute.Int("bridge.bytes", b.RowBytes),
		attribute.Int("bridge.writes", b.Written),
		attribute.String("bridge.outcome", b.Outcome))...))
	r.link = trace.Link{SpanContext: r.span.SpanContext()}
	if b.Outcome == OutcomeAbandoned {
		fail(r.span, b.Outcome)
	}
	_, mapping := t.spans.Start(ctx, "map", trace.WithTimestamp(b.Began))
	mapping.End(trace.WithTimestamp(b.Mapped))
	for i := range b.Writes {
		w := &b.Writes[i]
		attrs := []attribute.KeyValue{
			attribute.String("db.system.name", "databricks"),
			semconv.DBOperationName("INSERT"),
			semconv.DBCollectionName(b.Table),
			semconv.DBOperationBatchSize(w.Rows),
			attribute.Int("bridge.bytes", w.Bytes),
			attribute.Int("bridge.attempts", w.Attempts),
			attribute.Bool("bridge.probe", w.Probe),
			attribute.String("bridge.outcome", w.Outcome),
		}
		if w.Code != "" {
			attrs = append(attrs, attribute.String("bridge.code", w.Code))
		}
		_, span := t.spans.Start(ctx, "write "+b.Table, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(w.Began), trace.WithAttributes(attrs...))
		switch w.Outcome {
		case OutcomeRefused:
			fail(span, w.Code)
		case OutcomeStale, OutcomeAbandoned:
			fail(span, w.Outcome)
		}
		span.End(trace.WithTimestamp(w.Began.Add(w.Took)))
	}
}

// fail says by a code, never by an error's text, that something went wrong: a
// text may quote a row.
func fail(span trace.Span, code string) {
	span.SetStatus(codes.Error, code)
	span.SetAttributes(semconv.ErrorTypeKey.String(code))
}

// End ends the batch's span, if there is one.
func (r *Trace) End() {
	if r.span == nil {
		return
	}
	r.span.SetAttributes(attribute.Int("bridge.events_traced", r.events))
	r.span.End(trace.WithTimestamp(r.b.Ended))
}
