package zerobus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Write returns no error only once every row is durable in the table. A row is one
// JSON object whose keys are column names, or under grpc what Encoding said;
// rows are not kept after Write returns.
//
// Write retries what is worth retrying and waits out configuration faults for
// as long as ctx lives. It returns a *RefusedError if at least one of the rows
// can never be ingested; for a row alone only once the service has refused it
// twice, at least a second apart and the second time on another connection. Any
// other error means only that ctx ended. A row may be written twice where an ack
// was lost. Many callers may write at once.
//
// schemaVersion is what SetRowColumns returned for the columns that the rows were
// encoded for; 0 if it was never called. Rows of an older version are not sent:
// Write returns a *StaleError, also if they were refused and SetRowColumns was called
// since Write began. attempts is how many requests Write has sent.
func (c *Client) Write(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error) {
	return c.deliver(ctx, schemaVersion, rows, c.wire.send)
}

// Probe is Write for rows some of which are suspected: parts of a batch that
// was refused. A refusal among them disturbs nobody else's batches, and the
// search for the bad row may cost what delivery at large must not. Under grpc
// probes travel on streams of their own, eight at a time, each with one batch
// in flight; under workspace and rest Probe is Write.
func (c *Client) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error) {
	return c.deliver(ctx, schemaVersion, rows, c.wire.probe)
}

// deliver is Write and Probe; carry makes one attempt.
func (c *Client) deliver(ctx context.Context, schemaVersion int64, rows [][]byte, carry carrier) (attempts int, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	b := newBatch(rows, c.wire.size(rows))
	err = c.retry(ctx, schemaVersion, b, carry)
	return b.attempts, err
}

// retry is the one loop that repeats what is worth repeating.
func (c *Client) retry(ctx context.Context, schemaVersion int64, b *batch, carry carrier) error {
	rows := b.rows
	if b.size > c.set.MaxRequestBytes {
		return &RefusedError{code: RefusedTooLarge, err: fmt.Errorf(
			"%d rows make a request of %d bytes, over the bound of %d; lower delivery.max_bytes, a single row of this size cannot be ingested",
			len(rows), b.size, c.set.MaxRequestBytes)}
	}

	if c.grpc != nil {
		b.form = c.grpc.enc.Load()
	}
	if c.rowsMade.Load() != schemaVersion {
		return &StaleError{err: errOldForm}
	}
	var retries, uncompared int
	settle := func() { // this writer no longer counts as failing
		if retries > 0 {
			retries = 0
			c.gate.streak(-1)
		}
	}
	defer settle()
	for {
		p, err := c.gate.enter(ctx)
		if err != nil {
			return c.ended(ctx, len(rows))
		}
		if err = c.attempt(ctx, b, carry); err != nil && refusedFirst(b, err) && c.rowsMade.Load() == schemaVersion {
			settle()
			c.gate.delivered(p)
			b.alone = true
			if !sleep(ctx, c.seen.wait(rows[0])) {
				return c.ended(ctx, len(rows))
			}
			continue
		}
		if err != nil {
			err = c.judge(ctx, err, len(rows), &uncompared)
		}
		if err == nil {
			settle()
			c.gate.delivered(p)
			return nil
		}
		var no *RefusedError
		switch fault := asError(err); {
		case errors.Is(err, errOldForm):
			settle()
			c.gate.abandon(p)
			return &StaleError{err: err}
		case ctx.Err() != nil:
			c.gate.abandon(p)
			return c.ended(ctx, len(rows))
		case c.rowsMade.Load() != schemaVersion && (errors.As(err, &no) || fault.kind == configuration):
			settle()
			c.gate.abandon(p)
			return &StaleError{err: err}
		case errors.As(err, &no):
			settle()
			c.gate.delivered(p)
			if no.byService() {
				c.seen.note(rows)
			}
			return no
		case fault.kind == configuration:
			settle()
			c.gate.block(p, fault.Reason(), fault.Remedy)
		default:
			if retries == 0 {
				c.gate.streak(+1)
			}
			retries++
			c.gate.failed(p, fault)
			c.obs.Retried(fault.reason)
			if !sleep(ctx, delay(retries-1, fault.RetryAfter, c.jitter)) {
				return c.ended(ctx, len(rows))
			}
		}
	}
}

// judge decides what a refusal is about. A column dropped or changed in
// mid-run makes the service refuse every row, or every stream: that is a fault
// of configuration, and no row may be given up for it. So the table's columns
// are held against the expected ones first. uncompared counts the times that
// did not work out. Other errors are returned as they are.
func (c *Client) judge(ctx context.Context, no error, rows int, uncompared *int) error {
	var e *Error
	if !errors.As(no, &e) || e.kind != refused && !e.create {
		return no
	}
	if !c.columns.expects(e.column) {
		e.column = "" // keeps the label's values to the columns there are
	}
	err := c.columns.compare(ctx, c, rows)
	var misfit *SchemaError
	var hidden *ColumnsUnreadable
	switch {
	case errors.As(err, &misfit):
		return misfit.fault()
	case e.create:
		return e
	case err == nil, errors.As(err, &hidden):
		return refusal(e)
	case kindOf(err) == configuration:
		return err // such as a column that is listed twice, for which no row is given up
	case *uncompared >= 3:
		return refusal(e)
	}
	*uncompared++
	return err
}

// carrier makes one attempt of one batch: a transport's send or probe.
type carrier func(ctx context.Context, b *batch) error

// attempt sends the batch once, and once more with a fresh token if the token
// was refused. A batch the service finds too large is a *RefusedError; an
// *Error is the caller's own to complete.
func (c *Client) attempt(ctx context.Context, b *batch, carry carrier) error {
	if !c.limit.wait(ctx, len(b.rows)) {
		return context.Cause(ctx)
	}
	err := c.send(ctx, b, carry)
	if err != nil && kindOf(err) == unauthorized {
		c.obs.Retried(RetryUnauthorized)
		err = c.send(ctx, b, carry)
	}
	var shared *Error
	if !errors.As(err, &shared) {
		return err
	}
	e := *shared // a mint or the opening of a stream fails many callers at once, with one error
	switch e.kind {
	case unauthorized:
		e.kind = configuration
	case tooLarge:
		return refusal(&e)
	}
	return &e
}

// send makes one observed attempt.
func (c *Client) send(ctx context.Context, b *batch, carry carrier) error {
	b.attempts++
	start := time.Now()
	err := carry(ctx, b)
	c.obs.Request(outcome(ctx, err), time.Since(start))
	return err
}

func outcome(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return OutcomeOK
	case ctx.Err() != nil:
		return OutcomeCanceled
	}
	switch kindOf(err) {
	case refused:
		return OutcomeRefused
	case tooLarge:
		return OutcomeTooLarge
	case configuration:
		return OutcomeBlocked
	}
	return OutcomeRetry
}

// asError returns err as the *Error it is; anything else is taken for a fault
// that passes.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Op: opIngest, Err: err, kind: transient, reason: RetryNetwork,
		Meaning: "the request could not be made", Remedy: "nothing, the bridge retries"}
}

// StaleError says that rows were refused which were made for columns that have
// changed since: make them anew and write those.
type StaleError struct{ err error }

// Error names what was refused.
func (e *StaleError) Error() string {
	return "the rows were made before the table's columns changed: " + e.err.Error()
}

// Unwrap returns the refusal.
func (e *StaleError) Unwrap() error { return e.err }

// Stale is how callers that do not know this package tell the error.
func (e *StaleError) Stale() bool { return true }
