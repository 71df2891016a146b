// Package zerobus writes rows to one Databricks table through Zerobus Ingest.
// It is the only package that knows Databricks: tokens, wire, statuses, grants.
// It keeps no rows after Write returns, orders nothing between callers and
// never gives a row up: what cannot be delivered now is retried or waits for as
// long as the caller's context lives. The only goroutines it starts are two per
// open gRPC stream; Close waits for them.
package zerobus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/oauthtoken"
)

// Observer is told what happens, for metrics. Its methods are called from many
// goroutines and must not block. Labels come from the closed sets below; none
// holds data.
type Observer interface {
	// Request ends one attempt to write a batch. d runs from sending to the
	// last byte of the answer, waiting for a token included.
	Request(outcome string, d time.Duration)
	// Retried counts an attempt that will be repeated, except for the one that
	// repeats the refusal of a single row.
	Retried(reason string)
	// TokenMinted ends one request for a token; err is nil if it brought one.
	TokenMinted(err error)
}

// StreamObserver is what an Observer may be besides, to hear of gRPC streams.
// Each stream that was confirmed ends once.
type StreamObserver interface {
	StreamOpened()
	StreamEnded(why string)
}

// Ends of a stream, as StreamObserver.StreamEnded names them.
const (
	StreamAnnounced = "announced" // by the service, in order: streams have a greatest age
	StreamLeft      = "left"      // by us: idle, for changed columns, or at Close
	StreamRefused   = "refused"   // for a row that can never be ingested
	StreamFailed    = "failed"    // lost, silent or broken
	StreamBlocked   = "blocked"   // for a fault of configuration, or a token
)

// Outcomes of an attempt, as Observer.Request names them.
const (
	OutcomeOK       = "ok"        // every row is durable
	OutcomeRetry    = "retry"     // no answer, or one that asks for another try
	OutcomeRefused  = "refused"   // 400 or 422: a row can never be ingested
	OutcomeTooLarge = "too_large" // 413: over the size bound
	OutcomeBlocked  = "blocked"   // a configuration fault
	OutcomeCanceled = "canceled"  // the caller's context ended
)

// Reasons of a retry, as Observer.Retried names them.
const (
	RetryThrottled    = "throttled"    // 429
	RetryUnavailable  = "unavailable"  // 408, 425, 5xx
	RetryTimeout      = "timeout"      // no answer in time
	RetryNetwork      = "network"      // no connection, or it broke
	RetryMismatch     = "mismatch"     // an answer that is not the service's, or does not confirm the rows
	RetryUnauthorized = "unauthorized" // 401, repeated with a fresh token
)

// Client writes rows to one table. All methods are safe for concurrent use.
type Client struct {
	set    settings
	log    *zap.Logger
	obs    Observer
	http   *http.Client
	tokens *tokens // for writing rows
	plain  *tokens // for Unity Catalog, which takes no token that is bound to a table; may be the same
	wire   transport
	grpc   *wire // wire, where it is gRPC; else nil
	gate   *gate
	limit  *throttle
	advice adviser
	seen   *refusals
	jitter func(time.Duration) time.Duration

	columns    *columnCheck
	rowsMade   atomic.Int64 // how often SetRowColumns was called: rows are made in another way since
	drift      *drift
	unreadOnce sync.Once // says once that columns cannot be read
}

// New checks cfg and returns a Client. It does no I/O. obs may be nil.
func New(cfg Config, log *zap.Logger, obs Observer) (*Client, error) {
	return newClient(cfg, log, obs, &roundTripper{caFile: cfg.CAFile}, nil)
}

// newClient takes what the sockets are replaced by in tests; a nil dial is the
// network.
func newClient(cfg Config, log *zap.Logger, obs Observer, rt http.RoundTripper, dial dialer) (*Client, error) {
	set, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if obs == nil {
		obs = deaf{}
	}
	log = log.With(zap.String("table", set.table.String()))
	c := &Client{set: set, log: log, obs: obs, http: newHTTPClient(rt), advice: newAdviser(set), jitter: fullJitter,
		limit: newThrottle(set.RateLimit), seen: newRefusals(), columns: newColumnCheck(), drift: newDrift()}
	mint := func(params url.Values) *tokens {
		return &tokens{id: set.ClientID, secret: set.ClientSecret, url: set.token, scope: set.Scope, params: params,
			timeout: set.Timeout, http: newHTTPClient(oauthtoken.Tolerant(rt)), advice: c.advice, obs: obs, log: log}
	}
	c.plain = mint(nil)
	c.tokens = c.plain
	if set.native != nil {
		c.tokens = mint(set.tokenParams())
	}
	c.gate = newGate(log, set.ProbeEvery, c.tokens.replaced)
	switch set.Transport {
	case TransportGRPC:
		c.grpc = newWire(set, c.tokens, c.advice, log, dial, func(d time.Duration) time.Duration { return c.jitter(d) })
		c.grpc.obs, _ = obs.(StreamObserver)
		c.wire = c.grpc
	case TransportREST:
		c.wire = newREST(set, c.tokens, c.http, c.advice)
	default:
		c.wire = newWorkspace(set, c.tokens, c.http, c.advice)
	}
	return c, nil
}

// deaf stands in for a missing Observer.
type deaf struct{}

func (deaf) Request(string, time.Duration) {}
func (deaf) Retried(string)                {}
func (deaf) TokenMinted(error)             {}

// Table returns the target table's name.
func (c *Client) Table() TableName { return c.set.table }

// State returns the condition of the way to the table. It takes no I/O.
func (c *Client) State() State {
	s := c.gate.now()
	s.Table, s.Transport = c.set.table.String(), c.set.Transport
	s.TokenMintedAt, s.TokenExpiresAt = c.tokens.times()
	if c.grpc != nil {
		s.Streams = c.grpc.streamIDs()
	}
	if p, ok := c.wire.(*poster); ok {
		s.Confirmation, _ = p.form.Load().(string)
	}
	return s
}

// Close ends the streams, waiting half a second for acks that are on their way,
// and lets go of connections. Writes in flight are not ended by it: their
// contexts do that.
func (c *Client) Close() {
	c.wire.close()
	c.http.CloseIdleConnections()
}

// Token makes sure that there is a token, minting one if need be, once.
func (c *Client) Token(ctx context.Context) error {
	_, err := c.tokens.get(ctx)
	return err
}

// Reachable proves address, token, grants and the table's name without writing:
// it posts an empty batch, or opens a stream. A service that refuses a batch
// for being empty was reached all the same, so that is no error.
func (c *Client) Reachable(ctx context.Context) error {
	err := c.attempt(ctx, newBatch(nil, c.wire.size(nil)), c.wire.send)
	if err != nil && kindOf(err) == refused {
		return nil
	}
	return err
}

// Preflight proves all that can be proven without writing a row: token, ingest,
// and the table's columns where they may be read. IsPermanent tells whether
// waiting could help.
func (c *Client) Preflight(ctx context.Context) error {
	if err := c.Token(ctx); err != nil {
		return err
	}
	if err := c.Reachable(ctx); err != nil {
		return err
	}
	err := c.CheckColumns(ctx)
	var hidden *ColumnsUnreadable
	if errors.As(err, &hidden) {
		c.unreadOnce.Do(func() {
			c.log.Info("the table's columns are not checked", zap.String("reason", hidden.Err.Reason()), zap.String("remedy", hidden.Err.Remedy))
		})
		return nil
	}
	return err
}

// ended is the error of a Write whose context ended.
func (c *Client) ended(ctx context.Context, rows int) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("writing %d rows to %s was given up, they may or may not be in the table: %w", rows, c.set.table, err)
}
