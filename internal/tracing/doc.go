// Package tracing makes OpenTelemetry spans of what the delivery did, after it
// did it: an event's span continues the trace in its record's headers, and a
// batch's span hangs together with those of its sampled events.
//
// Spans are written as the messages of OTLP, for OpenTelemetry's own clients to
// send: when a batch has ended, all that its spans tell is known, and starting,
// filling and ending one by one what nobody looks at meanwhile costs several
// times as much.
//
// Which events are sampled is decided here before anything is built, so that
// the others cost next to nothing. Spans are held up to a bound and dropped
// beyond it: whatever exports them can never hold up a delivery.
package tracing
