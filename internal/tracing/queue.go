package tracing

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
)

// queue holds finished spans, up to a bound, until one goroutine has sent them
// to the collector. What is beyond the bound is dropped: nobody waits for it.
// The client's failures become a log line when they begin and one when they
// are over.
type queue struct {
	client Client
	log    *zap.Logger
	set    Settings
	about  *resourcepb.Resource
	schema string // of about
	scope  *commonpb.InstrumentationScope

	held    atomic.Int64 // spans reserved and not sent yet
	dropped atomic.Int64 // spans not made for want of room

	waiting struct {
		sync.Mutex
		spans []*tracepb.Span
	}
	enough chan struct{} // holds one element when a whole request is waiting
	ending chan struct{} // closed when no more spans will come
	ended  chan struct{} // closed when the goroutine has ended

	cut   context.Context // ends when there is no more time to send
	sever context.CancelFunc

	told struct {
		sync.Mutex
		failing bool
		lost    int64     // spans sent in vain
		at      time.Time // when drops or a side complaint were last logged
		dropped int64     // as last logged
	}
}

// toldEvery is how often drops may be logged.
const toldEvery = time.Minute

func newQueue(client Client, set Settings, log *zap.Logger) *queue {
	q := &queue{client: client, set: set, log: log, enough: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{})}
	// Not a caller's context: spans outlive what they tell of.
	q.cut, q.sever = context.WithCancel(context.Background()) //nolint:forbidigo // ended by stop
	return q
}

// full reports that there is no room for another span and counts it as dropped.
func (q *queue) full() bool {
	if q.held.Load() < int64(q.set.MaxQueue) {
		return false
	}
	q.dropped.Add(1)
	return true
}

// admit reserves room for n spans; without room they are counted as dropped.
func (q *queue) admit(n int) bool {
	if q.held.Add(int64(n)) <= int64(q.set.MaxQueue) {
		return true
	}
	q.held.Add(int64(-n))
	q.dropped.Add(int64(n))
	return false
}

// add takes spans that were admitted.
func (q *queue) add(spans []*tracepb.Span) {
	q.waiting.Lock()
	q.waiting.spans = append(q.waiting.spans, spans...)
	n := len(q.waiting.spans)
	q.waiting.Unlock()
	if n >= q.set.MaxExport {
		select {
		case q.enough <- struct{}{}:
		default:
		}
	}
}

// run sends what is waiting: whole requests at once, the rest when it has
// waited long enough or when the queue is at its end.
func (q *queue) run() {
	defer close(q.ended)
	due := time.NewTicker(q.set.Delay)
	defer due.Stop()
	request := make([]*tracepb.Span, 0, q.set.MaxExport)
	for {
		least := 1
		select {
		case <-q.enough:
			least = q.set.MaxExport
		case <-due.C:
		case <-q.ending:
			for request = q.take(request, 1); len(request) > 0; request = q.take(request, 1) {
				q.send(request)
			}
			_ = q.client.Stop(q.cut) // nothing is lost by it any more
			return
		}
		for request = q.take(request, least); len(request) > 0; request = q.take(request, least) {
			q.send(request)
		}
	}
}

// take moves the oldest waiting spans into request, as many as one may hold;
// none if fewer than least are waiting.
func (q *queue) take(request []*tracepb.Span, least int) []*tracepb.Span {
	clear(request)
	q.waiting.Lock()
	defer q.waiting.Unlock()
	spans := q.waiting.spans
	if len(spans) < least {
		return request[:0]
	}
	n := min(len(spans), q.set.MaxExport)
	request = append(request[:0], spans[:n]...)
	rest := copy(spans, spans[n:])
	clear(spans[rest:])
	q.waiting.spans = spans[:rest]
	return request
}

// errTooLate is why spans are given up at the end.
var errTooLate = errors.New("the bridge stops and its time for sending is over")

func (q *queue) send(spans []*tracepb.Span) {
	defer q.held.Add(int64(-len(spans)))
	if q.cut.Err() != nil {
		q.tell(len(spans), errTooLate)
		return
	}
	ctx, cancel := context.WithTimeout(q.cut, q.set.Timeout)
	defer cancel()
	q.tell(len(spans), q.client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource: q.about, SchemaUrl: q.schema,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: q.scope, SchemaUrl: schemaURL, Spans: spans}},
	}}))
}

// stop sends what is held until ctx ends, then gives the rest up, and waits
// for the goroutine. No span may be added after it.
func (q *queue) stop(ctx context.Context) {
	defer q.sever()
	defer context.AfterFunc(ctx, q.sever)()
	close(q.ending)
	<-q.ended
}

// tell logs where sending begins to fail, where it works again, and spans that
// were dropped meanwhile.
func (q *queue) tell(spans int, err error) {
	t := &q.told
	t.Lock()
	defer t.Unlock()
	switch {
	case err != nil:
		t.lost += int64(spans)
		if !t.failing {
			t.failing = true
			q.log.Warn("traces are lost until they can be exported; events are delivered all the same. See to the collector at OTEL_EXPORTER_OTLP_ENDPOINT",
				zap.String("error", short(err)))
		}
	case t.failing:
		t.failing = false
		q.log.Info("traces are exported again", zap.Int64("spans_lost", t.lost))
		t.lost = 0
	}
	if n := q.dropped.Load(); n > t.dropped && time.Since(t.at) >= toldEvery {
		q.log.Warn("spans are not made, because the collector does not take them fast enough; sample less with OTEL_TRACES_SAMPLER_ARG or hold more with OTEL_BSP_MAX_QUEUE_SIZE",
			zap.Int64("spans", n-t.dropped))
		t.dropped, t.at = n, time.Now()
	}
}

// complain hears what OpenTelemetry's packages cannot return, such as a
// resource that could not be read whole.
func (q *queue) complain(err error) {
	t := &q.told
	t.Lock()
	defer t.Unlock()
	if time.Since(t.at) >= toldEvery {
		t.at = time.Now()
		q.log.Warn("tracing is not whole", zap.String("error", short(err)))
	}
}

// short keeps a collector's answer from filling the log.
func short(err error) string {
	text := err.Error()
	const most = 400
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
