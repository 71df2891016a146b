package zerobus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/databricks"
	"github.com/datafly/bridge/internal/setting"
)

// route is how rows reach the table: the transport, the endpoint, and what depends on the two.
// It embeds what all routes of a client share, and shadows the settings and remedies. Only its
// atomic fields change. A client has one route at a time.
type route struct {
	*Client
	choice
	set       settings // with the transport and the endpoint of the choice
	rem       remedies
	tokens    *tokenSource // for writing rows
	transport transport    // nil: not decided yet
	grpc      *grpcTransport
	fixed     bool // by the configuration, so it is never looked at again

	unserved atomic.Bool  // it is to be decided again before the next attempt
	failing  atomic.Int64 // when the network began to fail, in Unix nanoseconds; 0: it does not
}

// choice is what Decide finds, and Connections remember.
type choice struct {
	transport   string // TransportWorkspace, TransportGRPC or TransportREST
	endpoint    string // scheme://host[:port] of Zerobus; empty under workspace
	workspaceID string // given or found; empty: the first label of the endpoint
	found       bool   // the workspace named the endpoint, the configuration does not
	because     string
}

func (c choice) same(other choice) bool {
	return c.transport == other.transport && c.endpoint == other.endpoint && c.workspaceID == other.workspaceID
}

// choiceKey is what a choice depends on.
type choiceKey struct {
	transport, workspace, endpoint, workspaceID, ingest, token, scope, clientID, caFile string

	ascii bool // the table's name is
}

func (c *Client) choiceKey() choiceKey {
	s := c.set
	return choiceKey{s.Transport, s.base.String(), s.Endpoint, s.WorkspaceID, s.ingest, s.token, s.Scope, s.ClientID, s.CAFile, inASCII(s.table.String())}
}

// known returns the choice that a client of the process has made; nil: none.
func (c *Connections) known(key choiceKey) *choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.choices[key]
}

// remember stores next, unless another client has replaced seen meanwhile, and returns what
// is stored.
func (c *Connections) remember(key choiceKey, seen *choice, next choice) choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.choices[key]; now != seen {
		return *now
	}
	c.choices[key] = &next
	return next
}

// newRoute returns the route of a choice. It does no I/O.
func (c *Client) newRoute(by choice) *route {
	r := &route{Client: c, choice: by, set: c.set.toward(by), tokens: c.catalog}
	r.rem = newRemedies(r.set, by.found)
	if r.set.native != nil {
		r.tokens = c.newTokens(r, r.set.tokenParams())
	}
	switch by.transport {
	case TransportGRPC:
		r.grpc = newGRPCTransport(r)
		r.transport = r.grpc
	case TransportREST:
		r.transport = newREST(r)
	case TransportWorkspace:
		r.transport = newWorkspace(r)
	}
	return r
}

// newFirstRoute returns the route that the configuration fixes, or one that is not decided.
func (c *Client) newFirstRoute() *route {
	if c.set.Transport == TransportWorkspace || c.set.Transport != TransportAuto && c.set.Endpoint != "" {
		r := c.newRoute(choice{transport: c.set.Transport, endpoint: c.set.Endpoint, workspaceID: c.set.WorkspaceID, because: "zerobus.transport is set"})
		r.fixed = true
		return r
	}
	return &route{Client: c, set: c.set, rem: c.rem, tokens: c.catalog}
}

// toward returns the settings with the transport and the endpoint of a choice.
func (s settings) toward(by choice) settings {
	s.Transport, s.native = by.transport, nil
	if by.endpoint == "" || by.transport == TransportWorkspace {
		return s
	}
	u, _ := url.Parse(by.endpoint) // it was checked
	label, _, _ := strings.Cut(u.Hostname(), ".")
	s.native = &endpoint{base: u, clear: u.Scheme == "http", target: hostPort(u), workspaceID: cmp.Or(by.workspaceID, label)}
	if by.transport == TransportGRPC {
		s.MaxRequestBytes = min(s.MaxRequestBytes, maxMessage)
	}
	return s
}

func (r *route) decided() bool { return r.transport != nil }

func (r *route) close() {
	if r.decided() {
		r.transport.close()
	}
}

// address returns where rows go; empty before that is decided.
func (r *route) address() string {
	switch {
	case !r.decided():
		return ""
	case r.set.native != nil:
		return r.set.native.base.String()
	}
	return r.set.base.String()
}

// networkPatience is how long the network of a route may fail before it is decided again.
const networkPatience = 2 * time.Minute

// failed records what may mean that the route is no longer served: an answer that only
// another address or transport can change, or a network that has failed for networkPatience.
func (r *route) failed(e *Error) {
	if r.fixed {
		return
	}
	switch {
	case notServed(e), r.found && e.Op == opInsert && (e.Status == http.StatusNotImplemented || e.foreignHost):
		r.unserved.Store(true)
	case e.Op == opToken || e.Status != 0 || e.kind != transient || e.reason != RetryNetwork && e.reason != RetryTimeout:
	case !r.failing.CompareAndSwap(0, time.Now().UnixNano()) && time.Since(time.Unix(0, r.failing.Load())) >= networkPatience:
		r.unserved.Store(true)
	}
}

// works records an answer to rows.
func (r *route) works() {
	if r.failing.Load() != 0 {
		r.failing.Store(0)
	}
}

// unchanged records that looking again changed nothing.
func (r *route) unchanged() {
	r.failing.Store(0)
	r.unserved.Store(false)
}

// notServed reports whether the workspace does not serve the path of the workspace transport.
func notServed(e *Error) bool {
	return e.Op == opIngest && e.Status == http.StatusNotFound && e.Code == "ENDPOINT_NOT_FOUND"
}

// Decide makes sure that transport and endpoint are known. Where zerobus.transport and
// zerobus.endpoint leave a choice, it asks the workspace and the endpoint with an empty batch,
// which writes nothing. It does nothing once that is decided, and decides again if the
// client has found since that the choice is no longer served. Its errors name what is
// missing and what to set by hand. Call it before Encoding.
func (c *Client) Decide(ctx context.Context) error {
	for {
		if r := c.current.Load(); r.decided() && !r.unserved.Load() {
			return nil
		}
		c.rows.mu.Lock()
		deciding, mine := join(&c.rows.deciding)
		c.rows.mu.Unlock()
		if mine {
			c.decideShared(ctx, deciding)
		}
		if _, again, err := deciding.wait(ctx, mine); !again {
			return err
		}
	}
}

// decideShared decides and publishes the result in deciding.
func (c *Client) decideShared(ctx context.Context, deciding *call[struct{}]) {
	err := errInterrupted
	defer func() {
		c.rows.mu.Lock()
		defer c.rows.mu.Unlock()
		defer close(deciding.done)
		c.rows.deciding = nil
		deciding.err, deciding.abandoned = err, err != nil && ctx.Err() != nil
	}()
	err = c.choose(ctx)
}

// choose adopts what another client has chosen, or chooses.
func (c *Client) choose(ctx context.Context) error {
	key, old := c.choiceKey(), c.current.Load()
	seen := c.set.Connections.known(key)
	var next *route
	if seen != nil && !(old.decided() && old.same(*seen)) {
		next = c.newRoute(*seen)
	} else {
		var err error
		if next, err = c.find(ctx); err != nil {
			return err
		}
		if kept := c.set.Connections.remember(key, seen, next.choice); !kept.same(next.choice) {
			next.close()
			next = c.newRoute(kept)
		}
	}
	if old.decided() && old.same(next.choice) {
		next.close()
		old.unchanged()
		return nil
	}
	_, _, cols := c.watch.columns()
	c.findRescue(ctx, next, cols) // before anybody encodes rows for it
	return c.use(next)
}

// use has rows take the next route. Rows are stale if they have another form there.
func (c *Client) use(next *route) error {
	c.rows.mu.Lock()
	if c.rows.closed {
		c.rows.mu.Unlock()
		next.close()
		return next.rem.network(opInsert, errClosed)
	}
	old := c.current.Load()
	switch {
	case old.grpc == nil && next.grpc == nil: // rows are JSON over both
		if c.rows.encodedFor == old {
			c.rows.encodedFor = next
		}
	case c.schemaVersion.Load() > 0 || c.rows.encodedFor != nil:
		// Counted before the route changes, so that whoever meets the new route also finds
		// older rows stale.
		c.schemaVersion.Add(1)
		if c.rows.awaited == nil {
			c.rows.awaited = make(chan struct{})
		}
		select {
		case c.rerouted <- struct{}{}:
		default:
		}
	}
	c.current.Store(next)
	c.rows.mu.Unlock()
	c.log.Info("transport decided", zap.String("transport", next.choice.transport), zap.String("endpoint", next.address()), zap.String("because", next.because))
	old.close()
	c.breaker.probeNow()
	return nil
}

// blockUnencoded blocks writing if rows are not encoded for the present route.
func (c *Client) blockUnencoded() {
	c.rows.mu.Lock()
	defer c.rows.mu.Unlock()
	if c.rows.awaited != nil && len(c.rerouted) == 0 { // else they are about to be
		c.breaker.hold("rows cannot be encoded for the transport "+c.current.Load().choice.transport+", which the bridge has changed to",
			"look in the log for the cause, and change the blueprint or zerobus.record_format, or set zerobus.transport")
	}
}

// staleWait bounds how long a Write of stale rows waits for those of the new route.
const staleWait = time.Second

// returnStale waits until rows are encoded for the present route, staleWait at most, and
// returns a *StaleError: a caller that encodes stale rows again at once would find the old
// encoding. A caller whose context has ended must not encode them again.
func (c *Client) returnStale(ctx context.Context, rows int) error {
	c.rows.mu.Lock()
	awaited := c.rows.awaited
	c.rows.mu.Unlock()
	if awaited != nil {
		timer := time.NewTimer(staleWait)
		defer timer.Stop()
		select {
		case <-awaited:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return c.abandoned(ctx, rows)
	}
	return &StaleError{err: errOldEncoding}
}

const (
	decideMax  = time.Minute     // for one decision, beside the caller's deadline
	grpcTries  = 3               // before gRPC counts as blocked
	failedFast = 2 * time.Second // an attempt that failed sooner is repeated
	retryPause = time.Second
)

// find finds a route that is served. See docs/architecture.md, "Which transport".
func (c *Client) find(ctx context.Context) (*route, error) {
	ctx, cancel := context.WithTimeout(ctx, decideMax)
	defer cancel()
	at := choice{endpoint: c.set.Endpoint, workspaceID: c.set.WorkspaceID}
	because := "zerobus.endpoint is set"
	if at.endpoint == "" {
		because = "zerobus.transport is set, and the workspace named its endpoint"
		if c.set.Transport == TransportAuto {
			r := c.newRoute(choice{transport: TransportWorkspace, because: "the workspace serves " + c.set.IngestPath})
			err := c.reach(ctx, r)
			if err == nil {
				return r, nil
			}
			if !notServed(asError(err)) {
				return nil, err
			}
			because = "the workspace does not serve " + c.set.IngestPath + " and named its endpoint"
		}
		var err error
		if at, err = c.discover(ctx); err != nil {
			return nil, err
		}
	}
	as := func(transport, why string) *route {
		at.transport, at.because = transport, because+why
		return c.newRoute(at)
	}
	switch {
	case c.set.Transport != TransportAuto:
		return as(c.set.Transport, ""), nil
	case !inASCII(c.set.table.String()):
		return as(TransportREST, "; gRPC metadata cannot carry the table's name"), nil
	}
	overGRPC := as(TransportGRPC, "")
	fault := c.reachGRPC(ctx, overGRPC)
	if fault == nil {
		return overGRPC, nil
	}
	overGRPC.close()
	if e := asError(fault); e.Op == opToken || e.local() { // which is not about gRPC
		return nil, fault
	}
	reason := fault.Error()
	if e, ok := errors.AsType[*Error](fault); ok {
		reason = e.Reason()
	}
	overREST := as(TransportREST, "; gRPC does not pass: "+reason)
	err := c.reach(ctx, overREST)
	if e := asError(err); err == nil || e.Code != "" && e.Op == opInsert && e.kind != transient && e.Status != http.StatusNotImplemented {
		return overREST, nil
	}
	return nil, fault
}

// reach sends an empty batch. A refusal of it is an answer of the service to a batch.
func (c *Client) reach(ctx context.Context, r *route) error {
	err := c.attempt(ctx, r, newBatch(nil, r.transport.size(nil)), transport.send)
	if kind := kindOf(err); kind == refused || kind == tooLarge {
		return nil
	}
	return err
}

// reachGRPC returns no error if the service answers over gRPC, whatever it answers. It leaves
// half of the time to REST.
func (c *Client) reachGRPC(ctx context.Context, r *route) error {
	if _, err := r.tokens.get(ctx); err != nil && !asError(err).decides() {
		return err
	}
	deadline, _ := ctx.Deadline() // of find at least
	share, cancel := context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/2))
	defer cancel()
	for try := 1; ; try++ {
		began := time.Now()
		err := c.reach(share, r)
		e, ok := errors.AsType[*Error](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ok && e.Op == opToken && e.decides():
			r.because += "; gRPC was not tried, since no token came for the table"
			return nil
		case err == nil, ok && e.decides():
			r.because += "; it answers over gRPC"
			return nil
		case !ok:
			return r.rem.silent(errUnconfirmed)
		case try == grpcTries || time.Since(began) > failedFast || !sleep(share, retryPause):
			return err
		}
	}
}

// decides reports whether an error over gRPC proves that the service can be reached with it:
// an answer to a stream or a token request that only the service gives. What lies between
// may answer that it is busy, or does not know the method.
func (e *Error) decides() bool {
	if e.foreign || e.local() {
		return false
	}
	return e.kind != transient && e.Status != http.StatusNotImplemented || e.Op == opInsert && (e.Code != "" && e.kind == transient || e.reason == RetryThrottled)
}

// local reports whether the fault is on this machine, such as a file that cannot be read.
func (e *Error) local() bool { return e.kind == configuration && e.Status == 0 }

// discover asks the workspace for its endpoint.
func (c *Client) discover(ctx context.Context) (choice, error) {
	space, by := c.Workspace(), choice{workspaceID: c.set.WorkspaceID, found: true}
	m, id, err := space.Metastore(ctx)
	if err != nil {
		return by, c.discovery(err, by.workspaceID)
	}
	if by.workspaceID = cmp.Or(by.workspaceID, id); by.workspaceID == "" {
		if by.workspaceID, err = space.WorkspaceID(ctx); err != nil {
			return by, c.discovery(err, "")
		}
	}
	if m.Endpoint != "" && setting.Loopback(c.set.base.Hostname()) {
		by.endpoint, err = emulated(m.Endpoint)
	} else if by.endpoint, err = databricks.EndpointHost(by.workspaceID, m.Region, m.Cloud); err == nil {
		by.endpoint = "https://" + by.endpoint
	}
	if err != nil {
		return by, c.discovery(err, by.workspaceID)
	}
	return by, nil
}

// emulated returns the endpoint that an emulator names, on a loopback address as itself.
func emulated(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || !setting.Loopback(u.Hostname()) {
		return "", fmt.Errorf("the emulator's endpoint %q is no address of this machine", databricks.Clean(text, 100))
	}
	return u.Scheme + "://" + u.Host, nil
}
