// Package emulator stands in for a Databricks workspace with Zerobus Ingest,
// so that software that writes to it can be developed and tested without one.
//
// It serves the OAuth token endpoint, the ingest endpoint of the Datafly
// Signal integration's page, and the Unity Catalog endpoint that describes a
// table. Rows are validated strictly against the table's columns, kept, and can be
// counted and read back in Go or over HTTP. Faults make it misbehave on
// request: error statuses, delays, lost acknowledgements, hangs.
//
// The request and response bodies of the ingest endpoint are this project's
// reading: that page names the path, and nothing public describes its body.
package emulator

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
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
)

// Config is what an Emulator needs. The zero value is a workspace with the
// table datafly.events.stream that keeps every row in memory.
type Config struct {
	// ClientID and ClientSecret are the credentials the token endpoint takes.
	// Empty means DefaultClientID and DefaultClientSecret.
	ClientID, ClientSecret string
	// TokenLifetime is how long a token is good, in whole seconds or more.
	// 0 means an hour, as the service has it; short ones exercise refreshing.
	TokenLifetime time.Duration
	// DDL is a SQL script whose CREATE TABLE statements make the tables. Empty
	// means DefaultDDL.
	DDL string
	// MaxRequestBytes bounds a request's body, before and after decompression.
	// 0 means 10 MiB, the service's limit.
	MaxRequestBytes int64
	// MaxRows is how many rows each table keeps for browsing; the oldest leave
	// first. Counts and the index of message_id go on beyond it, at about 40
	// bytes of memory per row. 0 keeps all rows in memory.
	MaxRows int
	// NoIndex leaves message_id out of the index, for runs too long for its
	// memory: Distinct and Duplicates then cover the rows still kept only.
	NoIndex bool
	// JSONL is the path of a file that rows are appended to and reloaded from;
	// empty for none. Rows are written before they are acknowledged.
	JSONL string
	// TLS serves HTTPS with a certificate for localhost, 127.0.0.1 and ::1,
	// signed by a CA made for this Emulator; see CAPEM.
	TLS bool
	// AcceptTextTimestamps lets RFC 3339 text pass in TIMESTAMP columns, beside
	// the microseconds the service takes.
	AcceptTextTimestamps bool
	// Latency is waited before the answer to each ingest request, when its
	// rows are already kept, and before a gRPC message may be acknowledged.
	// Zero is none.
	Latency Latency

	// What follows concerns the Zerobus endpoint, gRPC and REST.

	// WorkspaceID is what tokens for the endpoint must name in their resource.
	// Empty means DefaultWorkspaceID.
	WorkspaceID string
	// Auth is what the endpoint asks of a token; the zero value is AuthStrict.
	Auth AuthMode
	// AckInterval is the least time between two acks of a stream; 0 means
	// 20 ms, and an idle stream's first ack does not wait for it.
	AckInterval time.Duration
	// AckEvery sends an ack before AckInterval is over once so many messages
	// wait; 1 acknowledges each message. 0 uses AckInterval alone.
	AckEvery int
	// StreamMaxAge is when a stream gets its close signal. 0 means 15 minutes,
	// about what the service has been seen to do; below 0 is never.
	StreamMaxAge time.Duration
	// CloseWindow is how long after the signal the stream ends with
	// UNAVAILABLE. 0 means a tenth of StreamMaxAge, at most 10 s.
	CloseWindow time.Duration
	// OversizeCode ends a stream with a message above MaxRequestBytes. 0 means
	// OUT_OF_RANGE, the answer of the server library that the official mock
	// server is built on. RESOURCE_EXHAUSTED is that of gRPC for Go, and
	// INVALID_ARGUMENT that of a service with a check of its own. What the
	// service answers is not known.
	OversizeCode codes.Code
	// Schema is what a stream's descriptor must have in common with the
	// columns; the zero value is SchemaByName.
	Schema SchemaMode
	// AnyOffsets lets offset_id jump, which is otherwise refused.
	AnyOffsets bool

	// Log receives what an operator should see; nil logs nothing. No secrets,
	// tokens or rows are logged.
	Log *zap.Logger
}

// Emulator is an emulated workspace. Its methods are safe for concurrent use.
type Emulator struct {
	cfg     Config
	log     *zap.Logger
	handler http.Handler
	tls     *identity // nil without TLS

	catalog    catalog
	journal    *journal
	tokens     tokens
	privileges privileges
	faults     faultSet
	stats      stats
	hook       atomic.Pointer[func(IngestRequest) *Fault]
	apiOff     atomic.Bool

	active  requests
	streams streams
	scripts scripts

	mu      sync.Mutex // Start, StartZerobus and Close
	zerobus *endpointServer

	server   *http.Server
	url      string
	served   chan struct{} // closed when the server's accept loop has ended
	newConns connSet
}

// New makes an Emulator. It starts nothing and opens nothing: call Start, or
// mount Handler (after Open, where Config.JSONL is set).
func New(cfg Config) (*Emulator, error) {
	cfg.ClientID = cmp.Or(cfg.ClientID, DefaultClientID)
	cfg.ClientSecret = cmp.Or(cfg.ClientSecret, DefaultClientSecret)
	cfg.TokenLifetime = cmp.Or(cfg.TokenLifetime, DefaultTokenLifetime)
	cfg.MaxRequestBytes = cmp.Or(cfg.MaxRequestBytes, DefaultMaxRequestBytes)
	cfg.WorkspaceID = cmp.Or(cfg.WorkspaceID, DefaultWorkspaceID)
	cfg.AckInterval = cmp.Or(cfg.AckInterval, DefaultAckInterval)
	cfg.StreamMaxAge = cmp.Or(cfg.StreamMaxAge, DefaultStreamMaxAge)
	cfg.CloseWindow = cmp.Or(cfg.CloseWindow, min(max(cfg.StreamMaxAge, 0)/10, 10*time.Second))
	cfg.OversizeCode = cmp.Or(cfg.OversizeCode, codes.OutOfRange)
	cfg.DDL = cmp.Or(cfg.DDL, DefaultDDL)
	cfg.Log = cmp.Or(cfg.Log, zap.NewNop())
	e := &Emulator{
		cfg: cfg, log: cfg.Log,
		catalog:    catalog{tables: map[string]*Table{}, noIndex: cfg.NoIndex},
		journal:    &journal{path: cfg.JSONL},
		tokens:     newTokens(cfg),
		privileges: privileges{revoked: map[string]bool{}},
		active:     requests{stop: make(chan struct{}), idle: make(chan struct{})},
	}
	e.stats.reset()
	e.streams = streams{stats: &e.stats, open: map[*liveStream]struct{}{}}
	_, err := e.CreateTable(cfg.DDL)
	if err = errors.Join(cfg.validate(), err); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	if cfg.TLS {
		if e.tls, err = newIdentity(); err != nil {
			return nil, fmt.Errorf("emulator: %w", err)
		}
	}
	e.handler = e.routes()
	return e, nil
}

// validate reports every problem of a Config with its defaults at once.
func (cfg *Config) validate() error {
	errs := []error{cfg.Latency.validate()}
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(cfg.TokenLifetime >= time.Second, "token lifetime %s: want at least 1s", cfg.TokenLifetime)
	want(cfg.MaxRows >= 0 && cfg.MaxRequestBytes >= 0, "max rows %d, max request bytes %d: want 0 (default) or more", cfg.MaxRows, cfg.MaxRequestBytes)
	want(cfg.AckInterval >= 0 && cfg.AckEvery >= 0 && cfg.CloseWindow >= 0,
		"ack interval %s, ack every %d, close window %s: want 0 (default) or more", cfg.AckInterval, cfg.AckEvery, cfg.CloseWindow)
	want(cfg.Auth >= AuthStrict && cfg.Auth <= AuthOff, "auth mode %d: want AuthStrict, AuthPresence or AuthOff", cfg.Auth)
	want(cfg.Schema >= SchemaByName && cfg.Schema <= SchemaExact, "schema mode %d: want SchemaByName or SchemaExact", cfg.Schema)
	_, err := ParseOversizeCode(codeName(cfg.OversizeCode))
	return errors.Join(append(errs, err)...)
}

// Handler serves the workspace and the admin API.
func (e *Emulator) Handler() http.Handler { return e.handler }

// CAPEM is the certificate a client must trust, in PEM; nil without TLS. The
// CA's key exists nowhere but in this Emulator's memory.
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
	err := e.journal.open(func(l journalLine) {
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
// Close. It may be called once.
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
	e.server = &http.Server{
		Handler:           e.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ConnState:         e.newConns.track,
		ErrorLog:          zap.NewStdLog(e.log),
	}
	host := reachable(ln)
	e.url = "http://" + host
	serve := e.server.Serve
	if e.tls != nil {
		e.url = "https://" + host
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

// reachable is an address that a client on this machine can connect to.
func reachable(ln net.Listener) string {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return ln.Addr().String()
}

// URL is the workspace_url to configure, such as http://127.0.0.1:41234; ""
// before Start.
func (e *Emulator) URL() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.url
}

// Close lets requests under way finish until ctx ends, then cuts them off.
// Hangs and delays end at once. When it returns, nothing of the Emulator runs
// any more; what it kept can still be read in Go.
func (e *Emulator) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active.shut()
	var err error
	if e.zerobus != nil {
		err = e.zerobus.close(ctx)
	}
	if e.server != nil {
		e.newConns.close()
		if serr := e.server.Shutdown(ctx); serr != nil {
			err = errors.Join(err, fmt.Errorf("emulator: requests cut off: %w", serr), e.server.Close())
		}
		<-e.served
	}
	<-e.active.idle
	if cerr := e.journal.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("emulator: close rows file: %w", cerr))
	}
	return err
}

// Reset forgets all rows, faults and figures, gives back every privilege and
// switches the ingest API on. Tables, their columns, tokens and the secret
// stay as they are.
func (e *Emulator) Reset() error {
	e.ClearFaults()
	e.privileges.mu.Lock()
	clear(e.privileges.revoked)
	e.privileges.mu.Unlock()
	e.apiOff.Store(false)
	var err error
	for _, name := range e.Tables() {
		if t := e.Table(name); t != nil {
			err = errors.Join(err, t.clear())
		}
	}
	e.streams.mu.Lock()
	defer e.streams.mu.Unlock()
	e.streams.ended = nil
	e.stats.reset()
	return err
}

// SetIngestAPI switches the ingest endpoint on or off. Off, it answers 404
// ENDPOINT_NOT_FOUND, as a workspace that does not have it.
func (e *Emulator) SetIngestAPI(on bool) { e.apiOff.Store(!on) }

// identity is a CA and the server certificate it has signed. Neither key is
// ever written down.
type identity struct {
	caPEM []byte
	leaf  tls.Certificate
}

// LocalDomain is the domain below which the server certificate holds for any
// one label: clients take the first label of the Zerobus endpoint's host for
// the workspace's id.
const LocalDomain = "zerobus.local.cloud.databricks.com"

// identityLifetime is short enough that nobody builds on it, long enough for
// a stand-alone emulator that is left running.
const identityLifetime = 365 * 24 * time.Hour

func newIdentity() (*identity, error) {
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Zerobus emulator CA"}, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey, err := issue(ca, ca, nil)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost", "*." + LocalDomain},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, leafKey, err := issue(leaf, ca, caKey)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	return &identity{
		caPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf:  tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: leafKey},
	}, nil
}

// issue makes a key and a certificate for it, signed with parentKey or, where
// that is nil, with the key itself.
func issue(c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (der []byte, key *ecdsa.PrivateKey, err error) {
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	c.NotBefore, c.NotAfter, c.BasicConstraintsValid = now.Add(-time.Hour), now.Add(identityLifetime), true
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, cmp.Or(parentKey, key))
	return der, key, err
}

func (i *identity) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.leaf}, MinVersion: tls.VersionTLS12}
}

// endpointConfig is for the port that gRPC and REST share. A client that knows
// HTTP/1.1 is no gRPC client, and gets it.
func (i *identity) endpointConfig() *tls.Config {
	both := i.config()
	h1, h2 := i.config(), i.config()
	h1.NextProtos, h2.NextProtos = []string{"http/1.1"}, []string{"h2"}
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, "http/1.1") {
			return h1, nil
		}
		return h2, nil
	}
	return both
}
