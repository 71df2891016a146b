package tracing

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// schemaURL says where the attributes' names are defined.
const schemaURL = semconv.SchemaURL

// Flags of spans and links: sampled, and known whether the parent is remote.
const (
	flagsLocal  = uint32(trace.FlagsSampled) | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
	flagsRemote = flagsLocal | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
)

// eventSpan is the span of an event and what it points to, made at once: these
// are nearly all spans there are, and one object costs a third of a dozen.
type eventSpan struct {
	tracepb.Span

	traceID          trace.TraceID
	spanID, parentID trace.SpanID
	offset           intAttribute
	message          textAttribute
	attributes       [6]*commonpb.KeyValue
}

type intAttribute struct {
	kv    commonpb.KeyValue
	any   commonpb.AnyValue
	value commonpb.AnyValue_IntValue
}

func (a *intAttribute) set(key attribute.Key, v int64) *commonpb.KeyValue {
	a.value.IntValue = v
	a.any.Value = &a.value
	a.kv.Key, a.kv.Value = string(key), &a.any
	return &a.kv
}

type textAttribute struct {
	kv    commonpb.KeyValue
	any   commonpb.AnyValue
	value commonpb.AnyValue_StringValue
}

func (a *textAttribute) set(key attribute.Key, v string) *commonpb.KeyValue {
	a.value.StringValue = v
	a.any.Value = &a.value
	a.kv.Key, a.kv.Value = string(key), &a.any
	return &a.kv
}

// below makes a span below parent, in its trace.
func below(parent *tracepb.Span, name string, kind tracepb.Span_SpanKind, began, ended time.Time) *tracepb.Span {
	id := newSpanID()
	return &tracepb.Span{
		TraceId: parent.TraceId, TraceState: parent.TraceState, SpanId: id[:], ParentSpanId: parent.SpanId, Flags: flagsLocal,
		Name: name, Kind: kind, StartTimeUnixNano: nanos(began), EndTimeUnixNano: nanos(ended),
	}
}

// linkTo makes a link to a span.
func linkTo(s *tracepb.Span) *tracepb.Span_Link {
	return &tracepb.Span_Link{TraceId: s.TraceId, SpanId: s.SpanId, Flags: flagsLocal}
}

// fail says by a code, never by an error's text, that something went wrong: a
// text may quote a row.
func fail(s *tracepb.Span, code string) {
	s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: code}
	s.Attributes = append(s.Attributes, keyValue(semconv.ErrorTypeKey.String(code)))
}

func nanos(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }

func newTraceID() (id trace.TraceID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// encoded returns attributes as they stand on the wire in a span, for
// SetUnknown: bytes that a message does not know are sent as they are, so that
// what all spans of a batch say is encoded once and not for each. It returns
// nothing where that fails, which it cannot.
func encoded(attrs ...attribute.KeyValue) []byte {
	wire, _ := proto.Marshal(&tracepb.Span{Attributes: keyValues(attrs...)}) // no required fields, valid UTF-8
	return wire
}

func keyValues(attrs ...attribute.KeyValue) []*commonpb.KeyValue {
	out := make([]*commonpb.KeyValue, 0, len(attrs)+2) // room for what fail adds
	for _, kv := range attrs {
		out = append(out, keyValue(kv))
	}
	return out
}

// keyValue translates the kinds of values that are used here and in
// OTEL_RESOURCE_ATTRIBUTES; others become text.
func keyValue(kv attribute.KeyValue) *commonpb.KeyValue {
	switch kv.Value.Type() {
	case attribute.INT64:
		return new(intAttribute).set(kv.Key, kv.Value.AsInt64())
	case attribute.BOOL:
		return &commonpb.KeyValue{Key: string(kv.Key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: kv.Value.AsBool()}}}
	}
	return new(textAttribute).set(kv.Key, kv.Value.String())
}
