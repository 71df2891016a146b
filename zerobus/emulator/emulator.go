// Package emulator emulates a Databricks workspace with Zerobus Ingest, to
// develop and test software that writes to one.
//
// It serves the OAuth token endpoint, the ingest endpoint of the Datafly
// Signal integration's page and the Unity Catalog endpoints of a table. It also
// serves the Zerobus endpoint, with gRPC streams and the REST insert. It
// validates rows strictly against the table's columns and keeps them, to be
// counted and read in Go or over HTTP. Faults make it misbehave on request.
//
// The request and response bodies of the ingest endpoint are this project's
// reading: that page names the path, and nothing public describes the bodies.
package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
)

// The defaults of Config.
const (
	DefaultClientID        = "emulator"
	DefaultClientSecret    = "emulator-secret"
	DefaultTokenLifetime   = time.Hour
	DefaultMaxRequestBytes = 10 << 20
	DefaultWorkspaceID     = "1234567890123456"
	DefaultAckInterval     = 20 * time.Millisecond
	DefaultStreamMaxAge    = 15 * time.Minute
	DefaultAdminToken      = "emulator-admin"
	DefaultCloud           = "aws"
	DefaultRegion          = "us-west-2"
)

// Config configures an Emulator. The zero value is a workspace with the table
// datafly.events.stream that keeps every row in memory.
type Config struct {
	// ClientID and ClientSecret are the credentials the token endpoint takes.
	// Empty means DefaultClientID and DefaultClientSecret.
	ClientID, ClientSecret string
	// Federation is the federation policy by which the token endpoint exchanges JWTs.
	// The zero value is none.
	Federation Federation
	// TokenLifetime is at least a second. 0 means an hour, as with the service;
	// short ones exercise refreshing.
	TokenLifetime time.Duration
	// DDL is a SQL script whose CREATE TABLE statements make the tables. Empty
	// means DefaultDDL.
	DDL string
	// MaxRequestBytes bounds a request's body, before and after decompression.
	// 0 means 10 MiB, the service's limit.
	MaxRequestBytes int64
	// MaxRows is how many rows each table keeps for browsing; the oldest leave
	// first. 0 keeps all. Counts and the index of message_id cover all rows in
	// any case, at about 40 bytes of memory per row.
	MaxRows int
	// MaxIDs bounds that index. A table with more different message ids has none
	// until it is cleared, as with NoIndex. 0 is no bound.
	MaxIDs int
	// NoIndex disables the index of message_id, to save memory in long runs:
	// Distinct and Duplicates then cover only the rows still kept.
	NoIndex bool
	// JSONL is the path of a file that rows are appended to and reloaded from;
	// empty for none. Rows are written before they are acknowledged.
	JSONL string
	// TLS serves HTTPS with a certificate signed by a CA made for this Emulator;
	// see CAPEM. It covers localhost, 127.0.0.1, ::1, EndpointHost and Names.
	TLS bool
	// Names are more host names that the certificate covers, for clients that
	// reach the emulator through a proxy or a hosts file.
	Names []string
	// AdminToken is the bearer token of AdminPrincipal for the workspace's APIs.
	// Empty means DefaultAdminToken.
	AdminToken string
	// Cloud (aws, azure or gcp) and Region are those of the metastore. Empty
	// means DefaultCloud and DefaultRegion.
	Cloud, Region string
	// NoCreate leaves the service principal without CREATE CATALOG, CREATE SCHEMA
	// and CREATE TABLE.
	NoCreate bool
	// Warehouses are the SQL warehouses. Nil means one that runs, DefaultWarehouse.
	Warehouses []Warehouse
	// NoIngestAPI starts without the ingest endpoint; see SetIngestAPI.
	NoIngestAPI bool
	// NoWorkspaceHeader leaves WorkspaceHeader out of the workspace's answers.
	NoWorkspaceHeader bool
	// NoEndpointURL leaves the emulator's own zerobus_endpoint out of the metastore
	// summary, so that clients derive EndpointHost.
	NoEndpointURL bool
	// AcceptTextTimestamps accepts RFC 3339 text in TIMESTAMP columns, besides
	// the microseconds the service takes.
	AcceptTextTimestamps bool
	// VisibleAfter is how long a stored row takes to be visible to SQL. 0 is at
	// once; the service takes about 5 s.
	VisibleAfter time.Duration
	// Latency is waited before the answer to each ingest request, when its
	// rows are stored, and before a gRPC message may be acknowledged.
	Latency Latency

	// The fields below concern the Zerobus endpoint, gRPC and REST.

	// WorkspaceID is what tokens for the endpoint must name in their resource.
	// Empty means DefaultWorkspaceID.
	WorkspaceID string
	// NoHTTP2 starts with an endpoint that serves HTTP/1.1 only; see SetHTTP2.
	NoHTTP2 bool
	// Auth is what the endpoint asks of a token. Empty means AuthStrict.
	Auth AuthMode
	// AckInterval is the least time between two acks of a stream. 0 means
	// 20 ms. An idle stream's first ack does not wait for it.
	AckInterval time.Duration
	// AckEvery sends an ack before AckInterval is over once so many messages
	// wait; 1 acknowledges each message. 0 uses AckInterval alone.
	AckEvery int
	// StreamMaxAge is when a stream gets its close signal. 0 means 15 minutes,
	// about the service's; below 0 means never.
	StreamMaxAge time.Duration
	// CloseWindow is how long after the signal the stream ends with
	// UNAVAILABLE. 0 means a tenth of StreamMaxAge, at most 10 s.
	CloseWindow time.Duration
	// OversizeCode ends a stream with a message above MaxRequestBytes. 0 means
	// OUT_OF_RANGE, the answer of the official mock server's library. RESOURCE_EXHAUSTED
	// is that of gRPC for Go, INVALID_ARGUMENT that of a service with its own
	// check. What the service answers is not known.
	OversizeCode codes.Code
	// Schema is how a stream's descriptor must match the columns. Empty means
	// SchemaByName.
	Schema SchemaMode
	// AnyOffsets accepts gaps in offset_id, which are otherwise refused.
	AnyOffsets bool

	// Log receives what an operator should see; nil logs nothing. It gets no
	// secrets, tokens or rows.
	Log *zap.Logger
}

// Emulator is an emulated workspace. Its methods are safe for concurrent use.
type Emulator struct {
	*catalog
	cfg     Config
	log     *zap.Logger
	handler http.Handler
	tls     *identity // nil without TLS

	tokens   tokens
	faults   faultSet
	sql      sqlService
	scripts  scripts
	stats    *stats
	hook     atomic.Pointer[func(IngestRequest) *Fault]
	apiOff   atomic.Bool
	http2Off atomic.Bool
	active   requests

	zerobus atomic.Pointer[endpointServer] // set while mu is held

	mu     sync.Mutex // held by Start, ServeZerobus and Close
	server *http.Server
	url    string
	served chan struct{} // closed when the server's accept loop has ended
	idle   connSet       // connections without a request yet
}

// New makes an Emulator. It starts nothing and opens nothing: call Start, or
// mount Handler (after Open, if Config.JSONL is set).
func New(cfg Config) (*Emulator, error) {
	cfg.ClientID = cmp.Or(cfg.ClientID, DefaultClientID)
	cfg.ClientSecret = cmp.Or(cfg.ClientSecret, DefaultClientSecret)
	cfg.TokenLifetime = cmp.Or(cfg.TokenLifetime, DefaultTokenLifetime)
	cfg.MaxRequestBytes = cmp.Or(cfg.MaxRequestBytes, DefaultMaxRequestBytes)
	cfg.WorkspaceID = cmp.Or(cfg.WorkspaceID, DefaultWorkspaceID)
	cfg.AdminToken = cmp.Or(cfg.AdminToken, DefaultAdminToken)
	cfg.Cloud, cfg.Region = cmp.Or(cfg.Cloud, DefaultCloud), cmp.Or(cfg.Region, DefaultRegion)
	if cfg.Warehouses == nil {
		cfg.Warehouses = []Warehouse{{ID: DefaultWarehouse}}
	}
	cfg.Auth = cmp.Or(cfg.Auth, AuthStrict)
	cfg.AckInterval = cmp.Or(cfg.AckInterval, DefaultAckInterval)
	cfg.StreamMaxAge = cmp.Or(cfg.StreamMaxAge, DefaultStreamMaxAge)
	cfg.CloseWindow = cmp.Or(cfg.CloseWindow, min(max(cfg.StreamMaxAge, 0)/10, 10*time.Second))
	cfg.OversizeCode = cmp.Or(cfg.OversizeCode, codes.OutOfRange)
	cfg.Schema = cmp.Or(cfg.Schema, SchemaByName)
	cfg.DDL = cmp.Or(cfg.DDL, DefaultDDL)
	cfg.Log = cmp.Or(cfg.Log, zap.NewNop())
	e := &Emulator{
		cfg: cfg, log: cfg.Log, stats: newStats(), tokens: newTokens(cfg),
		active: requests{stop: make(chan struct{})},
	}
	e.catalog = &catalog{cfg: &e.cfg, journal: &journal{path: cfg.JSONL}, tables: map[string]*Table{}, securables: map[string]*securable{}}
	e.add("", AdminPrincipal, true)
	_, err := e.CreateTable(cfg.DDL)
	if err = errors.Join(cfg.validate(), cfg.Federation.validate(), err, e.SetWarehouses(cfg.Warehouses...)); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	if cfg.TLS {
		if e.tls, err = newIdentity(append(cfg.Names, e.EndpointHost())); err != nil {
			return nil, fmt.Errorf("emulator: %w", err)
		}
	}
	e.apiOff.Store(cfg.NoIngestAPI)
	e.http2Off.Store(cfg.NoHTTP2)
	e.handler = e.routes()
	return e, nil
}

// validate reports every problem of a Config with its defaults at once.
func (cfg *Config) validate() error {
	var p problems
	p.want(cfg.TokenLifetime >= time.Second, "token lifetime %s: want at least 1s", cfg.TokenLifetime)
	id, err := strconv.ParseUint(cfg.WorkspaceID, 10, 64)
	p.want(err == nil && strconv.FormatUint(id, 10) == cfg.WorkspaceID, "workspace id %q: want a number", cfg.WorkspaceID)
	p.want(cfg.VisibleAfter >= 0, "visible after %s: want 0 or more", cfg.VisibleAfter)
	p.want(cfg.MaxRows >= 0 && cfg.MaxIDs >= 0 && cfg.MaxRequestBytes >= 0, "max rows %d, max ids %d, max request bytes %d: want 0 (default) or more", cfg.MaxRows, cfg.MaxIDs, cfg.MaxRequestBytes)
	p.want(cfg.AckInterval >= 0 && cfg.AckEvery >= 0 && cfg.CloseWindow >= 0,
		"ack interval %s, ack every %d, close window %s: want 0 (default) or more", cfg.AckInterval, cfg.AckEvery, cfg.CloseWindow)
	_, err = ParseOversizeCode(codeName(cfg.OversizeCode))
	p.add(err, cfg.Latency.validate(),
		oneOf("cloud", cfg.Cloud, slices.Sorted(maps.Keys(domains))...),
		oneOf("auth mode", string(cfg.Auth), string(AuthStrict), string(AuthPresence), string(AuthOff)),
		oneOf("schema mode", string(cfg.Schema), string(SchemaByName), string(SchemaExact)))
	return errors.Join(p...)
}

// Handler serves the workspace and the admin API.
func (e *Emulator) Handler() http.Handler { return e.handler }

// CAPEM is the certificate a client must trust, in PEM; nil without TLS. The
// CA's key exists only in this Emulator's memory.
func (e *Emulator) CAPEM() []byte {
	if e.tls == nil {
		return nil
	}
	return e.tls.caPEM
}

// Open loads the rows of Config.JSONL and opens it for appending. Start calls
// it. Without JSONL, or when called again, it does nothing.
func (e *Emulator) Open() error {
	skipped := 0
	err := e.journal.open(func(l *journalLine) {
		t := e.Table(l.Table)
		switch {
		case t == nil:
			skipped++
		case l.Cleared:
			t.mu.Lock()
			t.forget()
			t.mu.Unlock()
		default:
			t.restore(l.Row, l.batch())
		}
	})
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	if skipped > 0 {
		e.log.Warn("rows file names tables that do not exist; their rows are not loaded", zap.Int("lines", skipped))
	}
	return nil
}

// Start listens on addr (host:port; port 0 takes a free one) and serves until
// Close. Call it once.
func (e *Emulator) Start(addr string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return errors.New("emulator: started already")
	}
	if err := e.Open(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("emulator: %w; give a free address", err)
	}
	e.server = e.newHTTP(e.handler)
	e.server.ConnState = e.idle.track
	e.url = "http://" + reachable(ln)
	serve := e.server.Serve
	if e.tls != nil {
		e.url = "https://" + reachable(ln)
		e.server.TLSConfig = e.tls.config()
		serve = func(ln net.Listener) error { return e.server.ServeTLS(ln, "", "") }
	}
	e.served = make(chan struct{})
	go func() { // Close waits for served
		defer close(e.served)
		if err := serve(ln); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("emulator stopped serving", zap.Error(err))
		}
	}()
	return nil
}

// URL is the workspace_url to configure, such as http://127.0.0.1:41234; ""
// before Start.
func (e *Emulator) URL() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.url
}

// Close lets active requests finish until ctx ends, then cuts them off. Hangs
// and delays end at once. When it returns, all goroutines of the Emulator have
// ended; its rows can still be read in Go.
func (e *Emulator) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active.close()
	var err error
	if s := e.zerobus.Load(); s != nil {
		err = s.close(ctx)
	}
	if e.server != nil {
		e.idle.close()
		if serr := e.server.Shutdown(ctx); serr != nil {
			err = errors.Join(err, fmt.Errorf("emulator: requests cut off: %w", serr), e.server.Close())
		}
		<-e.served
	}
	e.active.all.Wait()
	if cerr := e.journal.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("emulator: close rows file: %w", cerr))
	}
	return err
}

// Reset removes all rows, faults and figures and grants the service principal its
// privileges on what Config.DDL and the admin API have made. The
// ingest API and HTTP/2 are as Config has them. Tables, their columns, tokens
// and the secret stay.
func (e *Emulator) Reset() error {
	e.ClearFaults()
	e.regrant()
	err := e.SetWarehouses(e.cfg.Warehouses...) // nil: New has checked them
	e.apiOff.Store(e.cfg.NoIngestAPI)
	e.SetHTTP2(!e.cfg.NoHTTP2)
	for _, name := range e.Tables() {
		if t := e.Table(name); t != nil {
			err = errors.Join(err, t.clear(false))
		}
	}
	e.stats.reset()
	return err
}

// SetIngestAPI enables or disables the ingest endpoint. Disabled, it answers
// 404 ENDPOINT_NOT_FOUND, as a workspace that does not have it.
func (e *Emulator) SetIngestAPI(on bool) { e.apiOff.Store(!on) }

// SetHTTP2 enables or disables HTTP/2 on the Zerobus endpoint, and with it gRPC.
// Disabled, the endpoint is like an edge or a proxy that speaks HTTP/1.1 only: TLS
// does not negotiate h2, HTTP/2 with prior knowledge is answered by HTTP/1.1 with
// 400, and open HTTP/2 connections are cut.
func (e *Emulator) SetHTTP2(on bool) {
	e.http2Off.Store(!on)
	if s := e.zerobus.Load(); s != nil && !on {
		s.http2.cut()
	}
}

// domains are those of the clouds' workspaces.
var domains = map[string]string{"aws": "cloud.databricks.com", "azure": "azuredatabricks.net", "gcp": "gcp.databricks.com"}

// EndpointHost is the host name that the Zerobus endpoint of a live workspace with
// this id, region and cloud has.
func (e *Emulator) EndpointHost() string {
	return e.cfg.WorkspaceID + ".zerobus." + e.cfg.Region + "." + domains[e.cfg.Cloud]
}
