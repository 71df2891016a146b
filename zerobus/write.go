package zerobus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// transport carries one batch to the service.
type transport interface {
	// size returns the bytes that rows make in a request, before compression.
	size(rows [][]byte) int64
	// send makes one attempt and returns nil only once every row is durable. Its errors
	// are *Error, or the context's own. After an unauthorized one the next send uses a
	// fresh token. Once it returns, the batch's rows are no longer used. A batch without
	// rows checks the way and writes nothing. Safe for concurrent use.
	send(ctx context.Context, b *batch) error
	// probe is send for a batch that may hold a row the service refuses: it keeps apart
	// from other batches, where a refusal would affect them.
	probe(ctx context.Context, b *batch) error
	// close closes connections, and waits for goroutines that the transport started.
	close()
}

// Write returns no error only once every row is durable in the table. A row is one JSON
// object whose keys are column names, or under grpc what Encoding returned. Rows are not
// kept after Write returns.
//
// Write retries what is worth retrying and waits out configuration faults until ctx ends.
// It returns a *RefusedError if at least one of the rows can never be ingested; for a
// single row only once the service has refused it twice, at least a second apart and the
// second time on another connection. Any other error means only that ctx ended. A row may
// be written twice if an ack was lost. Many callers may write at once.
//
// schemaVersion is what SetRowColumns returned for the columns that the rows were encoded
// for; 0 if it was never called. Rows of an older version are not sent: Write returns a
// *StaleError, also if they were refused and SetRowColumns was called since Write began, or if
// Decide has changed the transport: call Encoding and SetRowColumns then.
// attempts is how many requests Write has sent.
func (c *Client) Write(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error) {
	return c.deliver(ctx, schemaVersion, rows, transport.send)
}

// Probe is Write for rows that may be bad: parts of a refused batch. A refusal among them
// does not affect the batches of others. Under grpc probes use up to eight streams of
// their own, each with one batch in flight; under workspace and rest Probe is Write.
func (c *Client) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error) {
	return c.deliver(ctx, schemaVersion, rows, transport.probe)
}

// sendFunc makes one attempt of one batch: a transport's send or probe.
type sendFunc func(t transport, ctx context.Context, b *batch) error

func (c *Client) deliver(ctx context.Context, schemaVersion int64, rows [][]byte, send sendFunc) (attempts int, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	b := newBatch(rows, 0)
	err = c.retry(ctx, schemaVersion, b, send)
	return b.attempts, err
}

// fits returns a *RefusedError if b is over the bound of one request.
func (b *batch) fits(bound int64) error {
	if b.size <= bound {
		return nil
	}
	return &RefusedError{code: RefusedTooLarge, err: fmt.Errorf(
		"%d rows make a request of %d bytes, over the bound of %d; lower delivery.max_bytes, a single row of this size cannot be ingested",
		len(b.rows), b.size, bound)}
}

// take prepares b for a route.
func (r *route) take(b *batch) error {
	b.size, b.packed, b.encoding = r.transport.size(b.rows), nil, nil
	if r.grpc != nil {
		b.encoding = r.grpc.encoding.Load()
	}
	return b.fits(int64(r.set.MaxRequestBytes))
}

// retry is the only loop that repeats attempts.
func (c *Client) retry(ctx context.Context, schemaVersion int64, b *batch, send sendFunc) error {
	stale := func() bool { return c.schemaVersion.Load() != schemaVersion }
	r := c.current.Load()
	var no error
	if r.decided() {
		no = r.take(b)
	}
	if stale() { // looked at after the route
		return c.returnStale(ctx, len(b.rows))
	}
	if no != nil {
		return no
	}
	var retries, uncompared int
	resetFailing := func() { // this writer no longer counts as failing
		if retries > 0 {
			retries = 0
			c.breaker.countFailing(-1)
		}
	}
	defer resetFailing()
	for {
		p, err := c.breaker.acquire(ctx)
		if err != nil {
			return c.abandoned(ctx, len(b.rows))
		}
		next, err := c.servedRoute(ctx, p)
		if next != r && next.decided() {
			r = next
			if no := r.take(b); no != nil || stale() {
				c.breaker.abandon(p)
				if stale() {
					return c.returnStale(ctx, len(b.rows))
				}
				return no
			}
		}
		if err == nil {
			err = c.attempt(ctx, r, b, send)
		}
		if err != nil && refusedFirst(b, err) && !stale() {
			resetFailing()
			c.breaker.delivered(p)
			b.ownConn = true
			if !sleep(ctx, c.refusals.note(b.rows[0])) {
				return c.abandoned(ctx, len(b.rows))
			}
			continue
		}
		if err != nil {
			err = c.classifyRefusal(ctx, err, len(b.rows), &uncompared)
		}
		if err == nil {
			resetFailing()
			r.works()
			c.breaker.delivered(p)
			return nil
		}
		no, isRefused := errors.AsType[*RefusedError](err)
		switch fault := asError(err); {
		case errors.Is(err, errOldEncoding):
			c.breaker.abandon(p)
			return &StaleError{err: err}
		case ctx.Err() != nil:
			c.breaker.abandon(p)
			return c.abandoned(ctx, len(b.rows))
		case stale() && (isRefused || fault.kind == configuration):
			c.breaker.abandon(p)
			if isRefused {
				err = no.err // callers that look for a refusal must not find one
			}
			return &StaleError{err: err}
		case isRefused:
			resetFailing()
			c.breaker.delivered(p)
			if no.byService() {
				c.refusals.note(b.rows...)
			}
			return no
		case fault.kind == configuration:
			resetFailing()
			r.failed(fault)
			c.breaker.block(p, fault.Reason(), fault.Remedy)
		default:
			if retries == 0 {
				c.breaker.countFailing(+1)
			}
			retries++
			r.failed(fault)
			c.breaker.failed(p, fault)
			c.obs.Retried(fault.reason)
			if !sleep(ctx, delay(retries-1, fault.RetryAfter, c.jitter)) {
				return c.abandoned(ctx, len(b.rows))
			}
		}
	}
}

// servedRoute returns the route for the next attempt. It decides first if none is decided, or
// if the present one is no longer served. Without a result a client that is not blocked
// keeps the route that it has: its own errors show.
func (c *Client) servedRoute(ctx context.Context, p permit) (*route, error) {
	r := c.current.Load()
	if r.decided() && !r.unserved.Load() {
		return r, nil
	}
	err := c.Decide(ctx)
	if err != nil && r.decided() && !p.probe && ctx.Err() == nil {
		r.unchanged()
		err = nil
	}
	return c.current.Load(), err
}

// refusedFirst reports whether err refuses a single row for the first time: one refusal
// gives no row up.
func refusedFirst(b *batch, err error) bool {
	return len(b.rows) == 1 && !b.ownConn && (is[*RefusedError](err) || kindOf(err) == refused)
}

// classifyRefusal decides what a refusal is about. A column dropped or changed makes the service
// refuse every row, or every stream: that is a configuration fault, and no row may be given
// up for it. It first compares the table's columns with those of the rows. uncompared
// counts the comparisons that failed. Other errors are returned as they are.
func (c *Client) classifyRefusal(ctx context.Context, err error, rows int, uncompared *int) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.kind != refused && !e.create {
		return err
	}
	if !c.check.carries(e.column) {
		e.column = "" // keeps the label's values to the columns there are
	}
	err = c.check.compare(ctx, c, rows)
	mismatch, mismatched := errors.AsType[*SchemaError](err)
	switch {
	case mismatched:
		return mismatch.fault()
	case e.create:
		return e
	case err == nil, is[*ColumnsUnreadable](err):
		return refusal(e)
	case kindOf(err) == configuration:
		return err // such as a column that is listed twice, for which no row is given up
	case *uncompared >= 3:
		return refusal(e)
	}
	*uncompared++
	return err
}

// attempt sends the batch once, and again with a fresh token if the token was refused. A
// batch that the service finds too large is a *RefusedError. The caller may change an
// *Error, since it is a copy.
func (c *Client) attempt(ctx context.Context, r *route, b *batch, send sendFunc) error {
	if !c.throttle.wait(ctx, len(b.rows)) {
		return context.Cause(ctx)
	}
	err := c.sendOnce(ctx, r, b, send)
	if err != nil && kindOf(err) == unauthorized {
		c.obs.Retried(RetryUnauthorized)
		err = c.sendOnce(ctx, r, b, send)
	}
	shared, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	e := *shared // a failed token request or stream is one error for many callers
	switch e.kind {
	case unauthorized:
		e.kind = configuration
	case tooLarge:
		return refusal(&e)
	}
	return &e
}

// sendOnce makes one observed attempt.
func (c *Client) sendOnce(ctx context.Context, r *route, b *batch, send sendFunc) error {
	b.attempts++
	start := time.Now()
	err := send(r.transport, ctx, b)
	outcome := OutcomeRetry
	switch kind := kindOf(err); {
	case err == nil:
		outcome = OutcomeOK
	case ctx.Err() != nil:
		outcome = OutcomeCanceled
	case kind == refused:
		outcome = OutcomeRefused
	case kind == tooLarge:
		outcome = OutcomeTooLarge
	case kind == configuration:
		outcome = OutcomeBlocked
	}
	c.obs.Request(outcome, time.Since(start))
	return err
}

// asError returns err as an *Error; other errors become transient ones.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Op: opIngest, Err: err, kind: transient, reason: RetryNetwork,
		Meaning: "the request could not be made", Remedy: "nothing, the bridge retries"}
}
