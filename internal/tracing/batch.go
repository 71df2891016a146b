package tracing

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
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

// Trace makes the spans of one batch. It is for one goroutine.
type Trace struct {
	q      *queue
	b      *Batch
	name   string // of events' spans
	common []byte // attributes of events' spans and the batch's; see encoded
	spans  []*tracepb.Span
	batch  *tracepb.Span        // nil before the first event
	link   []*tracepb.Span_Link // to it
	events int                  // that are traced
}

// Trace begins the spans of a batch: none is made before its first Event. End
// it.
func (t *Tracer) Trace(b *Batch) *Trace {
	return &Trace{q: t.queue, b: b, name: "process " + b.Topic, common: encoded(
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(b.Topic),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(b.Partition))),
		semconv.MessagingConsumerGroupName(b.Group),
	)}
}

// Full reports that there is no room for another span and counts it as dropped.
// Ask before an Event is put together.
func (r *Trace) Full() bool { return r.q.full() }

// Event makes the span of one event. The batch's own span and what lies below
// it belong to the trace of the first.
func (r *Trace) Event(e Event) {
	need := 1
	if r.batch == nil {
		need += 2 + len(r.b.Writes)
	}
	if !r.q.admit(need) {
		return
	}
	s := r.event(&e)
	if r.batch == nil {
		r.begin(s)
	} else {
		s.Links = r.link
		if r.events <= maxLinks {
			r.batch.Links = append(r.batch.Links, linkTo(s))
		}
	}
	r.events++
}

func (r *Trace) event(e *Event) *tracepb.Span {
	m := &eventSpan{spanID: newSpanID()}
	s := &m.Span
	s.Name, s.Kind, s.Flags = r.name, tracepb.Span_SPAN_KIND_CONSUMER, flagsLocal
	s.StartTimeUnixNano, s.EndTimeUnixNano = nanos(e.Polled), nanos(r.b.Ended)
	if from := e.Origin.parent; from.trace.IsValid() {
		m.traceID, m.parentID = from.trace, from.span
		s.ParentSpanId, s.Flags = m.parentID[:], flagsRemote
		if state, err := trace.ParseTraceState(e.State); err == nil { // else as if it were not there, says the recommendation
			s.TraceState = state.String()
		}
	} else {
		m.traceID = newTraceID()
	}
	s.TraceId, s.SpanId = m.traceID[:], m.spanID[:]
	// Each attribute costs as much again when it is sent, so that what most
	// events have in common is left unsaid.
	s.ProtoReflect().SetUnknown(r.common)
	s.Attributes = append(m.attributes[:0], m.offset.set(semconv.MessagingKafkaOffsetKey, e.Offset))
	if e.ID != "" {
		s.Attributes = append(s.Attributes, m.message.set(semconv.MessagingMessageIDKey, e.ID))
	}
	if e.Outcome != OutcomeDelivered {
		s.Attributes = append(s.Attributes, keyValue(attribute.String("bridge.outcome", e.Outcome)))
	}
	if e.Code != "" {
		s.Attributes = append(s.Attributes, keyValue(attribute.String("bridge.code", e.Code)))
	}
	if e.Column != "" {
		s.Attributes = append(s.Attributes, keyValue(attribute.String("bridge.column", e.Column)))
	}
	switch e.Outcome {
	case OutcomeRejected:
		fail(s, e.Code)
	case OutcomeAbandoned:
		fail(s, e.Outcome)
	}
	r.spans = append(r.spans, s)
	return s
}

// begin makes the spans of the batch itself, below that of its first event.
func (r *Trace) begin(first *tracepb.Span) {
	b := r.b
	r.batch = below(first, "batch "+b.Topic, tracepb.Span_SPAN_KIND_INTERNAL, b.Began, b.Ended)
	r.batch.ProtoReflect().SetUnknown(r.common)
	r.batch.Attributes = keyValues(
		semconv.MessagingBatchMessageCount(b.Events),
		attribute.Int("bridge.rows", b.Rows),
		attribute.Int("bridge.bytes", b.RowBytes),
		attribute.Int("bridge.writes", b.Written),
		attribute.String("bridge.outcome", b.Outcome))
	if b.Outcome == OutcomeAbandoned {
		fail(r.batch, b.Outcome)
	}
	r.link = []*tracepb.Span_Link{linkTo(r.batch)}
	r.spans = append(r.spans, r.batch, below(r.batch, "map", tracepb.Span_SPAN_KIND_INTERNAL, b.Began, b.Mapped))
	for i := range b.Writes {
		r.write(&b.Writes[i])
	}
}

func (r *Trace) write(w *Write) {
	s := below(r.batch, "write "+r.b.Table, tracepb.Span_SPAN_KIND_CLIENT, w.Began, w.Began.Add(w.Took))
	s.Attributes = keyValues(
		attribute.String("db.system.name", "databricks"),
		semconv.DBOperationName("INSERT"),
		semconv.DBCollectionName(r.b.Table),
		semconv.DBOperationBatchSize(w.Rows),
		attribute.Int("bridge.bytes", w.Bytes),
		attribute.Int("bridge.attempts", w.Attempts),
		attribute.Bool("bridge.probe", w.Probe),
		attribute.String("bridge.outcome", w.Outcome),
	)
	if w.Code != "" {
		s.Attributes = append(s.Attributes, keyValue(attribute.String("bridge.code", w.Code)))
	}
	switch w.Outcome {
	case OutcomeRefused:
		fail(s, w.Code)
	case OutcomeStale, OutcomeAbandoned:
		fail(s, w.Outcome)
	}
	r.spans = append(r.spans, s)
}

// End hands the batch's spans over, if there are any.
func (r *Trace) End() {
	if r.batch == nil {
		return
	}
	r.batch.Attributes = append(r.batch.Attributes, keyValue(attribute.Int("bridge.events_traced", r.events)))
	r.q.add(r.spans)
}
