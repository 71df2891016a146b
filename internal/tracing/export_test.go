package tracing

import "context"

// Flush exports what is held.
func (t *Tracer) Flush(ctx context.Context) { _ = t.provider.ForceFlush(ctx) }
