// Package tracing makes OpenTelemetry spans of delivered batches and of their
// sampled events. An event's span continues the trace in its record's headers. The
// batch's span is a child of the first sampled event's span, with links to the others.
//
// Spans are made when a batch has ended, so that nothing is kept while it is
// written. tracing.max_per_second bounds how many events are traced, and with
// them the cost. OpenTelemetry's SDK queues and exports the spans; its queue is
// bounded and drops what does not fit, so an exporter never delays a delivery.
package tracing
