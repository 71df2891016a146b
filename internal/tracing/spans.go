package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/datafly/bridge/consumer"
)

// Outcomes of an event and of a write.
const (
	OutcomeDelivered = "delivered" // durable
	OutcomeRejected  = "rejected"  // can never be a row; the code is the reason
	OutcomeFiltered  = "filtered"  // dropped by rule
	OutcomeAbandoned = "abandoned" // released for redelivery
	OutcomeRefused   = "refused"   // a write: at least one of its rows can never be ingested
	OutcomeStale     = "stale"     // a write: the table's columns have changed; mapped again
)

// BatchObserver returns an observer that traces the batches of a group.
func (t *Tracer) BatchObserver(group, table string) consumer.BatchObserver {
	return &batchObserver{t, group, table}
}

type batchObserver struct {
	*Tracer
	group, table string
}

// BatchMapped implements consumer.BatchObserver.
func (t *batchObserver) BatchMapped(*consumer.BatchView) {}

// BatchDone implements consumer.BatchObserver.
func (t *batchObserver) BatchDone(p *consumer.BatchView) {
	b := batchSpans{batchObserver: t, p: p}
	for i, rec := range p.Records {
		if t.limit.Tokens() < 1 {
			break // the sampler would drop the rest
		}
		parent := header(rec, "traceparent")
		if t.byParent && unsampled(parent) {
			continue
		}
		from := t.base
		if parent != nil {
			carrier := propagation.MapCarrier{"traceparent": string(parent), "tracestate": string(header(rec, "tracestate"))}
			from = propagation.TraceContext{}.Extract(t.base, carrier)
		}
		ctx, span := t.tracer.Start(from, "process "+p.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(p.Polled(i)))
		if span.IsRecording() {
			b.event(ctx, span, i)
		}
	}
	b.end()
}

// unsampled reports whether a traceparent of version 00 has its trace not sampled. Every event is asked, so it does not parse the ids.
func unsampled(parent []byte) bool {
	const flags = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0")
	return len(parent) == flags+1 && bytes.HasPrefix(parent, []byte("00-")) && strings.IndexByte("02468ace", parent[flags]) >= 0
}

// header returns the value of a record's first header of that name; nil if it
// has none.
func header(rec *kgo.Record, key string) []byte {
	for i := range rec.Headers {
		if rec.Headers[i].Key == key {
			return rec.Headers[i].Value
		}
	}
	return nil
}

// batchSpans are the spans of one batch; there are none before its first sampled
// event.
type batchSpans struct {
	*batchObserver
	p      *consumer.BatchView
	batch  trace.Span
	events int
}

// event completes the span of the i-th record.
func (b *batchSpans) event(ctx context.Context, span trace.Span, i int) {
	rec := b.p.Records[i]
	span.SetAttributes(b.source()...)
	span.SetAttributes(semconv.MessagingKafkaOffset(int(rec.Offset)))
	if id := messageID(rec.Value); id != "" {
		span.SetAttributes(semconv.MessagingMessageID(id))
	}
	outcome, code, column := outcomeOf(b.p, i)
	for _, kv := range []attribute.KeyValue{attribute.String("bridge.outcome", outcome), attribute.String("bridge.code", code), attribute.String("bridge.column", column)} {
		if kv.Value.AsString() != "" {
			span.SetAttributes(kv)
		}
	}
	switch outcome {
	case OutcomeRejected:
		fail(span, code)
	case OutcomeAbandoned:
		fail(span, outcome)
	}
	if b.events++; b.batch == nil {
		b.begin(ctx)
	} else {
		span.AddLink(trace.Link{SpanContext: b.batch.SpanContext()})
		b.batch.AddLink(trace.Link{SpanContext: span.SpanContext()}) // the SDK keeps the last 128
	}
	span.End(trace.WithTimestamp(b.p.Mapped.Add(b.p.Duration)))
}

// begin makes the spans of the batch itself, below that of its first event.
func (b *batchSpans) begin(ctx context.Context) {
	p := b.p
	ctx, b.batch = b.tracer.Start(ctx, "batch "+p.Topic, trace.WithTimestamp(p.Began), trace.WithAttributes(b.source()...))
	_, mapped := b.tracer.Start(ctx, "map", trace.WithTimestamp(p.Began))
	mapped.End(trace.WithTimestamp(p.Mapped))
	for _, w := range p.Writes {
		b.write(ctx, w)
	}
}

// source is where the events come from.
func (b *batchSpans) source() []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationName("process"),
		semconv.MessagingDestinationName(b.p.Topic),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(b.p.Partition))),
		semconv.MessagingConsumerGroupName(b.group),
	}
}

func (b *batchSpans) write(ctx context.Context, w consumer.SinkWrite) {
	outcome, code := writeOutcome(w.Err)
	_, span := b.tracer.Start(ctx, "write "+b.table, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(w.Began), trace.WithAttributes(
		attribute.String("db.system.name", "databricks"),
		semconv.DBOperationName("INSERT"),
		semconv.DBCollectionName(b.table),
		semconv.DBOperationBatchSize(w.Rows),
		attribute.Int("bridge.bytes", w.Bytes),
		attribute.Int("bridge.attempts", w.Attempts),
		attribute.Bool("bridge.probe", w.Probe),
		attribute.String("bridge.outcome", outcome),
	))
	switch outcome {
	case OutcomeRefused:
		span.SetAttributes(attribute.String("bridge.code", code))
		fail(span, code)
	case OutcomeStale, OutcomeAbandoned:
		fail(span, outcome)
	}
	span.End(trace.WithTimestamp(w.Began.Add(w.Duration)))
}

func (b *batchSpans) end() {
	if b.batch == nil {
		return
	}
	p, outcome := b.p, OutcomeDelivered
	if p.Err != nil {
		outcome = OutcomeAbandoned
		fail(b.batch, outcome)
	}
	b.batch.SetAttributes(
		semconv.MessagingBatchMessageCount(len(p.Records)),
		attribute.Int("bridge.rows", p.Rows()),
		attribute.Int("bridge.bytes", p.RowBytes),
		attribute.Int("bridge.writes", p.WriteCount),
		attribute.Int("bridge.events_traced", b.events),
		attribute.String("bridge.outcome", outcome))
	b.batch.End(trace.WithTimestamp(p.Mapped.Add(p.Duration)))
}

// fail marks a span by a code, never by an error's text: that may quote a row.
func fail(span trace.Span, code string) {
	span.SetStatus(codes.Error, code)
	span.SetAttributes(semconv.ErrorTypeKey.String(code))
}

// writeOutcome classifies a write's error as the sink's contract does.
func writeOutcome(err error) (outcome, code string) {
	var no interface{ Refused() (code, column string) }
	var old interface{ Stale() bool }
	switch {
	case err == nil:
		return OutcomeDelivered, ""
	case errors.As(err, &no):
		code, _ = no.Refused()
		return OutcomeRefused, code
	case errors.As(err, &old) && old.Stale():
		return OutcomeStale, ""
	}
	return OutcomeAbandoned, ""
}

// outcomeOf returns how the i-th record ended. Of a record that holds several
// events, the first that did not become a row decides.
func outcomeOf(p *consumer.BatchView, i int) (outcome, code, column string) {
	if p.Err != nil {
		return OutcomeAbandoned, "", ""
	}
	for at := range p.Rejects() {
		if e, r := p.Reject(at); e.Record == i {
			return OutcomeRejected, r.Code, r.Column
		}
	}
	for at := range p.Filtered() {
		if e, reason := p.FilteredEvent(at); e.Record == i {
			return OutcomeFiltered, reason, ""
		}
	}
	return OutcomeDelivered, "", ""
}

// maxIDBytes and maxEventBytes bound a message id and the event it is looked up
// in: a larger event's span has no id.
const maxIDBytes, maxEventBytes = 100, 64 << 10

// messageID returns the message id at the top of an event, if it looks like one.
func messageID(value []byte) string {
	var event struct {
		Snake string `json:"message_id"`
		Camel string `json:"messageId"`
	}
	if len(value) > maxEventBytes || json.Unmarshal(value, &event) != nil {
		return ""
	}
	id := event.Snake
	if id == "" {
		id = event.Camel
	}
	if len(id) > maxIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return id
}
