// Package admin serves the install API: it installs, changes and removes integrations,
// and does the operations on them. See docs/admin-api.md.
//
// One table of routes is behind the router, the roles and the OpenAPI document.
package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
)

// Prefix is the path of the API.
const Prefix = "/v1/admin"

// DefaultRateLimit is how many requests a minute one identity may send.
const DefaultRateLimit = 100

const (
	maxIdentities = 1000 // with rate limiters
	// requestTimeout bounds a request, operationTimeout one that reads or writes events.
	requestTimeout   = 2 * time.Minute
	operationTimeout = 11 * time.Minute
)

// Manager is what the API uses of a *manage.Manager.
type Manager interface {
	Catalog() ([]catalog.Vendor, error)
	List(context.Context) ([]manage.Integration, error)
	Get(ctx context.Context, id string) (manage.Integration, error)
	Install(ctx context.Context, r manage.Request, w manage.Who, dryRun bool) (manage.Result, error)
	Update(ctx context.Context, id string, p manage.Patch, revision int64, w manage.Who, dryRun bool) (manage.Result, error)
	Remove(ctx context.Context, id string, revision int64, w manage.Who, dryRun bool) (manage.Result, error)
	Check(ctx context.Context, id string, p *manage.Patch, step func(pipeline.CheckStep)) error
	CheckRequest(ctx context.Context, r manage.Request, step func(pipeline.CheckStep)) error
	Prepare(ctx context.Context, r manage.PrepareRequest, w manage.Who, dryRun bool, step func(setup.Item)) (manage.Prepared, error)
	Revisions(ctx context.Context, id string) ([]store.Entry, error)
	Audit(ctx context.Context, before string, limit int) ([]store.Entry, error)
}

// Config of the API. Manager, Operations, Access, Group and Log are required.
type Config struct {
	Manager    Manager
	Operations Operations
	Access     *access.Control // see NewAccess
	Group      ops.GroupSource
	// Live serves the paths below ops.LivePath, on this listener; its stream is also that of
	// the events of an integration. Default nil: none.
	Live http.Handler
	// Console serves all other paths. Default nil: they do not exist.
	Console http.Handler
	// RateLimit is how many requests to the API one identity may send in a minute. Default
	// DefaultRateLimit.
	RateLimit int
	Log       *zap.Logger
}

// NewAccess returns the access control of a listener with the API. Without files with
// tokens, everybody who reaches the loopback is an administrator, and another address is
// refused. Files that cannot be read are an error, and later a log line.
func NewAccess(files access.Files, loopback bool, log *zap.Logger) (*access.Control, error) {
	lookup := files.Lookup()
	if lookup == nil {
		if !loopback {
			return nil, errors.New("admin.address is not on the loopback, and there are no tokens; set admin.token_file, admin.jwt_secret_file or admin.jwks_file, or use 127.0.0.1:8084")
		}
		return access.NewControl(nil, access.Identity{Name: "local", Role: access.Admin}, true), nil
	}
	if err := files.Check(); err != nil {
		return nil, fmt.Errorf("tokens of the install API: %w", err)
	}
	unreadable := rate.Sometimes{Interval: time.Minute}
	return access.NewControl(func(token string) (access.Identity, error) {
		who, err := lookup(token)
		if err != nil && !errors.Is(err, access.ErrUnknown) && !errors.Is(err, access.ErrExpired) && !errors.Is(err, access.ErrNoRole) {
			unreadable.Do(func() { log.Error("nobody can use the install API, since its tokens cannot be read", zap.Error(err)) })
		}
		return who, err
	}, access.Identity{}, loopback), nil
}

// API is the handler of the listener. It is safe for concurrent use.
type API struct {
	cfg    Config
	mux    *http.ServeMux
	csrf   *http.CrossOriginProtection
	active context.Context // ends with Stop
	stop   context.CancelFunc

	mu     sync.Mutex // guards limits
	limits map[string]*rate.Limiter
}

// New returns the handler. It does no I/O and starts no goroutine.
func New(cfg Config) *API {
	if cfg.RateLimit == 0 {
		cfg.RateLimit = DefaultRateLimit
	}
	a := &API{cfg: cfg, mux: http.NewServeMux(), csrf: http.NewCrossOriginProtection(), limits: make(map[string]*rate.Limiter)}
	// Not a request's context: it ends all requests when the listener closes.
	a.active, a.stop = context.WithCancel(context.Background()) //nolint:forbidigo // bounded by Stop
	for _, r := range routes {
		a.mux.Handle(r.method+" "+Prefix+r.pattern, a.serve(r))
	}
	return a
}

// Stop ends the requests that are being served, streams among them. They answer that the
// bridge is stopping, as do those that follow.
func (a *API) Stop() { a.stop() }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := requestID(r)
	out := &recorder{ResponseWriter: w}
	out.Header().Set("X-Request-Id", id)
	out.Header().Set("X-Content-Type-Options", "nosniff")
	began := time.Now()
	defer func() {
		a.cfg.Log.Debug("request", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Int("status", out.status),
			zap.Duration("took", time.Since(began)), zap.String("by", out.by), zap.String("request_id", id))
	}()
	defer panics.Catch(func(err error) {
		a.cfg.Log.Error("request panicked", zap.String("path", r.URL.Path), zap.String("request_id", id), zap.Error(err), zap.String("stack", panics.Stack(err)))
		if out.status == 0 {
			a.fail(out, failed(http.StatusInternalServerError, manage.OutcomeUnexpected, "the bridge failed; its log has the reason under the request id "+id))
		}
	})
	if err != nil {
		a.fail(out, err)
		return
	}
	if err := a.csrf.Check(r); err != nil {
		a.fail(out, failed(http.StatusForbidden, "CROSS_ORIGIN", "the request comes from a page of another site; a proxy in between must pass on the Host header"))
		return
	}
	switch {
	case r.URL.Path == Prefix || strings.HasPrefix(r.URL.Path, Prefix+"/"):
		a.serveAPI(out, r.WithContext(context.WithValue(r.Context(), requestKey{}, id)))
	case a.cfg.Live != nil && strings.HasPrefix(r.URL.Path, ops.LivePath):
		a.cfg.Live.ServeHTTP(out, r)
	case a.cfg.Console != nil:
		a.cfg.Console.ServeHTTP(out, r)
	default:
		a.fail(out, notFound("there is no such page; the API is below "+Prefix))
	}
}

// serveAPI authenticates the request, and finds its route.
func (a *API) serveAPI(w *recorder, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if !a.cfg.Access.Enabled() && !a.cfg.Access.AllowsHost(r) {
		a.fail(w, failed(http.StatusMisdirectedRequest, "UNKNOWN_HOST", "without tokens the API answers to localhost or an address only; use http://localhost, or set admin.token_file"))
		return
	}
	who, err := a.identify(w, r)
	if err != nil {
		a.fail(w, err)
		return
	}
	w.by = who.Name
	if escaped := r.URL.EscapedPath(); path.Clean(escaped) != escaped {
		a.fail(w, notFound("there is no such call; "+Prefix+"/openapi.json lists them"))
		return
	}
	handler, pattern := a.mux.Handler(r)
	if pattern == "" {
		none := &recorder{ResponseWriter: discard{h}}
		handler.ServeHTTP(none, r) // sets Allow, if only the method is wrong
		h.Del("Content-Type")
		if none.status == http.StatusMethodNotAllowed {
			a.fail(w, failed(none.status, "METHOD_NOT_ALLOWED", "the call has another method; use "+h.Get("Allow")))
			return
		}
		a.fail(w, notFound("there is no such call; "+Prefix+"/openapi.json lists them"))
		return
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
}

type (
	requestKey struct{}
	whoKey     struct{}
)

// identify returns who sends the request, unless it is one too many.
func (a *API) identify(w *recorder, r *http.Request) (access.Identity, error) {
	who, v := a.cfg.Access.Identify(r)
	if v != access.Granted {
		status, why := v.Refusal(w.Header())
		switch v {
		case access.TooMany:
			return who, failed(status, "RATE_LIMITED", "too many wrong tokens from this address; wait a minute")
		case access.Unreadable:
			w.Header().Set("Retry-After", "5")
			return who, failed(status, "TOKENS_UNREADABLE", "the tokens cannot be read; the log of the bridge has the reason")
		case access.Expired:
			return who, failed(status, "EXPIRED_TOKEN", "the token has expired; get a new one")
		case access.NoRole:
			return who, failed(status, "FORBIDDEN", why)
		case access.WrongToken:
			return who, failed(status, "INVALID_TOKEN", "the token is not valid; send another")
		}
		return who, failed(status, "UNAUTHORIZED", "a token is required; send it as Authorization: Bearer TOKEN, or sign in at /login")
	}
	if wait := a.wait(who.Name); wait > 0 {
		w.by = who.Name
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return who, failed(http.StatusTooManyRequests, "RATE_LIMITED", fmt.Sprintf("more than %d requests in a minute; wait, or raise admin.rate_limit", a.cfg.RateLimit))
	}
	return who, nil
}

// wait returns how long an identity has to wait; 0: it may proceed.
func (a *API) wait(name string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	limit := a.limits[name]
	if limit == nil {
		if len(a.limits) >= maxIdentities {
			clear(a.limits)
		}
		limit = rate.NewLimiter(rate.Limit(float64(a.cfg.RateLimit)/60), a.cfg.RateLimit)
		a.limits[name] = limit
	}
	now := time.Now()
	next := limit.ReserveN(now, 1)
	wait := next.DelayFrom(now)
	if wait > 0 {
		next.CancelAt(now)
	}
	return wait
}

// call is one request of a route.
type call struct {
	*API
	w      *recorder
	r      *http.Request
	who    access.Identity
	id     string          // of the request
	stream context.Context // of the request, without a deadline
	route  *route
	params map[string]string
	dryRun bool
}

// serve serves a route.
func (a *API) serve(t *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timeout := requestTimeout
		if t.operation {
			timeout = operationTimeout
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		defer context.AfterFunc(a.active, cancel)()
		out := w.(*recorder)                                                                        // of ServeHTTP
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + answerTimeout)) // a test's writer may have none
		c := &call{API: a, w: out, r: r.WithContext(ctx), stream: r.Context(), route: t}
		c.who, _ = r.Context().Value(whoKey{}).(access.Identity)
		c.id, _ = r.Context().Value(requestKey{}).(string)
		answer, err := c.run()
		switch {
		case out.status != 0: // a stream
		case err != nil:
			a.fail(out, c.explain(err))
		default:
			a.write(out, c.success(), answer)
		}
	})
}

// run checks what all routes have in common, and calls the handler.
func (c *call) run() (any, error) {
	if !c.who.May(c.route.role) {
		return nil, &failure{Status: http.StatusForbidden, Code: "FORBIDDEN", Message: fmt.Sprintf("this needs the role %s, and %s has the role %s", c.route.role, c.who.Name, c.who.Role), Remedy: "ask an administrator of the bridge for another token"}
	}
	if err := c.readParams(); err != nil {
		return nil, err
	}
	if err := c.active.Err(); err != nil {
		return nil, err
	}
	return c.route.do(c)
}

// success is the status of an answer that is no error.
func (c *call) success() int {
	if c.route.created && !c.dryRun {
		return http.StatusCreated
	}
	return http.StatusOK
}

// request returns who asks for a change, and why.
func (c *call) request() manage.Who {
	return manage.Who{By: c.who.Name, RequestID: c.id, Reason: c.params["reason"]}
}

// changed logs a change.
func (c *call) changed(action string, slug string, fields ...zap.Field) {
	if !c.dryRun {
		c.cfg.Log.Info(action, append(fields, zap.String("integration", slug), zap.String("by", c.who.Name), zap.String("role", c.who.Role), zap.String("request_id", c.id))...)
	}
}

// safeID is a request id that is used as it is.
var safeID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// requestID returns the id of a request: that of the caller, or one that is made.
func requestID(r *http.Request) (string, error) {
	if keys := r.Header.Values("Idempotency-Key"); len(keys) == 1 && safeID.MatchString(keys[0]) {
		return keys[0], nil
	} else if len(keys) > 0 {
		return newID(), failed(http.StatusBadRequest, "INVALID_HEADER", "Idempotency-Key has 1 to 128 letters, digits or . _ : -; send another")
	}
	if id := r.Header.Get("X-Request-Id"); safeID.MatchString(id) {
		return id, nil
	}
	return newID(), nil
}
