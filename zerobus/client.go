// Package zerobus writes rows to one Databricks table through Zerobus Ingest. It is the
// only package that knows Databricks: tokens, transports, statuses, grants. It keeps no
// rows after Write returns, does not order callers and never drops a row. It retries, or
// waits, until the caller's context ends. It starts two goroutines per open gRPC stream;
// Close waits for them.
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
	"golang.org/x/time/rate"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/oauthtoken"
)

// Observer receives events for metrics. Its methods are called from many goroutines and
// must not block. Labels come from the closed sets below; none holds data.
type Observer interface {
	// Request ends one attempt to write a batch. d runs from sending to the last byte of
	// the answer, and includes waiting for a token.
	Request(outcome string, d time.Duration)
	// Retried counts an attempt that will be repeated, except for the repetition that
	// confirms the refusal of a single row.
	Retried(reason string)
	// TokenMinted ends one token request; err is nil if it succeeded.
	TokenMinted(err error)
	// StreamOpened and StreamEnded count gRPC streams. Each opened stream ends once.
	StreamOpened()
	StreamEnded(why string)
}

// Ends of a stream, as Observer.StreamEnded names them.
const (
	StreamAnnounced = "announced" // by the service, in order: streams have a maximum age
	StreamLeft      = "left"      // by the client: idle, for changed columns, or at Close
	StreamRefused   = "refused"   // for a row that can never be ingested
	StreamFailed    = "failed"    // lost, silent or broken
	StreamBlocked   = "blocked"   // for a configuration fault, or a token
)

// Outcomes of an attempt, as Observer.Request names them.
const (
	OutcomeOK       = "ok"        // every row is durable
	OutcomeRetry    = "retry"     // no answer, or one that asks for a retry
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
	set      settings
	log      *zap.Logger
	obs      Observer
	http     *http.Client
	rt       http.RoundTripper // of http
	catalog  *tokenSource      // for the workspace's APIs, which take no token that is bound to a table
	breaker  *breaker
	throttle *throttle
	rem      remedies // of the workspace's APIs
	refusals *refusals
	jitter   func(time.Duration) time.Duration

	current        atomic.Pointer[route]
	rerouted       chan struct{} // holds an element when rows are to be encoded for another route
	schemaVersion  atomic.Int64  // counts SetRowColumns calls and changes of the route
	rows           rowsState
	check          columnCheck
	watch          columnWatch
	unreadableOnce sync.Once  // logs once that columns cannot be read
	crashed        chan error // holds the first panic of a goroutine that no caller waits for
}

// rowsState is what the encoding of rows and the route have in common.
type rowsState struct {
	mu         sync.Mutex      // guards the fields below, and every change of current and schemaVersion
	encodedFor *route          // at the last call of Encoding; nil: there was none
	awaited    chan struct{}   // closed when rows are encoded for the present route; nil: they are
	deciding   *call[struct{}] // nil: nothing is being decided
	closed     bool
}

// panicked keeps the error of a panic for Watch.
func (c *Client) panicked(err error) {
	select {
	case c.crashed <- err:
	default:
	}
}

// New checks cfg and returns a Client. It does no I/O. obs may be nil.
func New(cfg Config, log *zap.Logger, obs Observer) (*Client, error) {
	return newClient(cfg, log, obs, nil)
}

// newClient takes a replacement of the network for tests; nil is the network.
func newClient(cfg Config, log *zap.Logger, obs Observer, rt http.RoundTripper) (*Client, error) {
	set, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	if rt == nil {
		rt = &roundTripper{all: set.Connections, caFile: set.CAFile}
	}
	if obs == nil {
		obs = nopObserver{}
	}
	log = log.With(zap.String("table", set.table.String()))
	c := &Client{set: set, log: log, obs: obs, http: newHTTPClient(rt), rt: rt, rem: newRemedies(set, false), jitter: fullJitter, rerouted: make(chan struct{}, 1),
		throttle: newThrottle(set.RateLimit), refusals: newRefusals(), watch: columnWatch{news: make(chan struct{}, 1)}, crashed: make(chan error, 1),
		check: columnCheck{turn: make(chan struct{}, 1), limit: rate.NewLimiter(10, 10)}}
	c.catalog = c.newTokens(&route{Client: c, set: set, rem: c.rem}, nil)
	c.breaker = newBreaker(log, set.ProbeEvery, func() bool { return c.current.Load().tokens.secretReplaced() })
	c.current.Store(c.newFirstRoute())
	return c, nil
}

func (c *Client) newTokens(r *route, params url.Values) *tokenSource {
	return &tokenSource{c: r, params: params, http: newHTTPClient(oauthtoken.Tolerant(c.rt))}
}

type nopObserver struct{}

func (nopObserver) Request(string, time.Duration) {}
func (nopObserver) Retried(string)                {}
func (nopObserver) TokenMinted(error)             {}
func (nopObserver) StreamOpened()                 {}
func (nopObserver) StreamEnded(string)            {}

// Table returns the target table's name.
func (c *Client) Table() TableName { return c.set.table }

// State returns the condition of the sink. It does no I/O.
func (c *Client) State() State {
	s, r := c.breaker.now(), c.current.Load()
	s.Table, s.Transport, s.Endpoint, s.TransportReason = c.set.table.String(), r.set.Transport, r.address(), r.because
	s.TokenMintedAt, s.TokenExpiresAt = r.tokens.times()
	if r.grpc != nil {
		s.Streams = r.grpc.streamIDs()
	}
	if p, ok := r.transport.(*httpTransport); ok {
		s.Confirmation, _ = p.confirmation.Load().(string)
	}
	return s
}

// Close ends the streams, waits half a second for the last acks, and closes connections
// that no other client uses. It does not end Writes in flight: their contexts do.
func (c *Client) Close() {
	c.rows.mu.Lock()
	c.rows.closed = true
	r := c.current.Load()
	c.rows.mu.Unlock()
	r.close()
	c.http.CloseIdleConnections()
}

// Workspace returns a client of the workspace's own APIs. Its tokens are the service
// principal's, bound to no table. It is safe for concurrent use, and of no use after Close.
func (c *Client) Workspace() *databricks.Client {
	return &databricks.Client{URL: c.set.base.String(), HTTP: c.http, Token: c.catalog.get, Refused: c.catalog.drop,
		Secrets: func() []string { return c.catalog.secrets() }, UserAgent: c.set.UserAgent, Timeout: min(catalogTimeout, c.set.Timeout)}
}

// Token makes sure that there is a token, with one request at most.
func (c *Client) Token(ctx context.Context) error {
	_, err := c.current.Load().tokens.get(ctx)
	return err
}

// Reachable checks address, token, grants and the table's name without writing: it posts
// an empty batch, or opens a stream. A service that refuses a batch for being empty was
// reached, so that is no error. It calls Decide first.
func (c *Client) Reachable(ctx context.Context) error {
	if err := c.Decide(ctx); err != nil {
		return err
	}
	return c.reach(ctx, c.current.Load())
}

// Preflight checks all that can be checked without writing a row: token, transport, ingest, and the
// table's columns where they may be read. IsPermanent reports whether waiting could help.
func (c *Client) Preflight(ctx context.Context) error {
	if err := c.Token(ctx); err != nil {
		return err
	}
	if err := c.Reachable(ctx); err != nil {
		return err
	}
	err := c.CheckColumns(ctx)
	if hidden, ok := errors.AsType[*ColumnsUnreadable](err); ok {
		c.unreadableOnce.Do(func() {
			c.log.Info("the table's columns are not checked", zap.String("reason", hidden.Err.Reason()), zap.String("remedy", hidden.Err.Remedy))
		})
		return nil
	}
	return err
}

// abandoned is the error of a Write whose context ended.
func (c *Client) abandoned(ctx context.Context, rows int) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("writing %d rows to %s was given up, they may or may not be in the table: %w", rows, c.set.table, err)
}
