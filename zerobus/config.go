package zerobus

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Defaults of a Config's empty fields.
const (
	DefaultTransport       = TransportWorkspace
	DefaultScope           = "all-apis"
	DefaultTokenPath       = "/oidc/v1/token"
	DefaultIngestPath      = "/api/2.0/streaming-ingestion/ingest"
	DefaultTimeout         = 30 * time.Second
	DefaultProbeEvery      = 30 * time.Second
	DefaultMaxRequestBytes = 10 << 20
	DefaultUserAgent       = "datafly-bridge"
	DefaultRecordFormat    = FormatAuto
	DefaultConfirm         = ConfirmStrict
	DefaultStreams         = 1
	DefaultMaxInFlight     = 32 << 20
	// DefaultColumnsRefresh is for whoever fills a Config; in a Config itself 0
	// means never.
	DefaultColumnsRefresh = 5 * time.Minute
)

// Transports, as Config.Transport names them.
const (
	TransportWorkspace = "workspace" // HTTP POST to the workspace itself
	TransportGRPC      = "grpc"      // streams to the Zerobus endpoint
	TransportREST      = "rest"      // HTTP POST to the Zerobus endpoint
)

// Forms of a row, as Config.RecordFormat and Encoding.Format name them.
const (
	FormatAuto     = "auto"     // protobuf where the table's columns are known, else json
	FormatProtobuf = "protobuf" // one protobuf message
	FormatJSON     = "json"     // one JSON object
)

// Config says which table a Client writes to, as whom, and how.
type Config struct {
	// WorkspaceURL is the address of the Databricks workspace, such as
	// https://abc-12345.cloud.databricks.com. The scheme may be missing (https
	// then); a path, a query or a trailing slash is dropped. Plain http is
	// accepted for loopback hosts only: anywhere else the client secret would
	// travel in clear. Required.
	WorkspaceURL string

	// ClientID is the application id of the service principal. Not a secret.
	// Required.
	ClientID string

	// ClientSecret returns the OAuth secret of the service principal. It is
	// called at each mint, and once a second while writing is blocked, so a
	// secret replaced in its file is picked up without a restart. It must be
	// safe for concurrent use. Required.
	ClientSecret func() (string, error)

	// Catalog, Schema and Table name the target table in Unity Catalog. Table
	// may hold the whole name catalog.schema.table, and the other two may then
	// be empty. Required.
	Catalog, Schema, Table string

	// Transport is the wire rows travel on: workspace, grpc or rest. grpc costs
	// the least per row and acknowledges soonest; rest is for networks that let
	// no gRPC pass; workspace is for workspaces that take rows themselves.
	// Default workspace.
	Transport string

	// Endpoint is the address of Zerobus for the workspace and its region, such
	// as 1234567890123456.zerobus.us-west-2.cloud.databricks.com: a host,
	// host:port or https://host[:port], port 443 where none is given. http://
	// is accepted for loopback hosts only. Required for grpc and rest, unused
	// otherwise.
	Endpoint string

	// WorkspaceID is the number of the workspace (after ?o= in its address in
	// a browser), which tokens for the endpoint are minted for. Default: the
	// first label of the endpoint's host name.
	WorkspaceID string

	// RecordFormat is the form of rows under grpc: protobuf, json, or auto,
	// which is protobuf where the table's columns are known and none of them
	// is a rescue column. The other transports carry json. Default auto.
	RecordFormat string

	// Streams is how many gRPC streams callers share, 1 to 64; they are opened
	// as callers need them. One carries all this client can send, so more only
	// help where the service's own bound per stream is reached (Databricks
	// publishes 100 MB/s and 15,000 to 100,000 rows/s), or where rows are
	// refused so often that a stream's end should meet fewer batches. Each
	// costs two goroutines and up to MaxInFlight of memory. Default 1.
	Streams int

	// MaxInFlight bounds the bytes of rows on their way and not acknowledged,
	// per stream: rate times ack latency is what it has to hold. Callers beyond
	// it wait. 1 MiB to 1 GiB; a single batch that is larger travels alone.
	// Default 32 MiB.
	MaxInFlight int64

	// ColumnsRefresh is the time between readings of the table's columns by
	// Watch. Shorter notices an ALTER TABLE sooner, for one more request to
	// Unity Catalog. 0 means never; refused rows lead to a reading all the same.
	ColumnsRefresh time.Duration

	// OmitOperations leaves "operations" out of the privileges that a token for
	// the endpoint is asked to carry, for token endpoints that do not know the
	// field. Default off.
	OmitOperations bool

	// TokenURL is where tokens are minted: an absolute URL, or a path on the
	// workspace. Default /oidc/v1/token.
	TokenURL string

	// Scope is the OAuth scope asked for. Default all-apis.
	Scope string

	// IngestPath is the path on the workspace that rows are posted to. Default
	// /api/2.0/streaming-ingestion/ingest.
	IngestPath string

	// Confirm says what confirms rows under workspace: ConfirmStrict demands
	// that the answer counts the rows sent, ConfirmLenient takes an answer
	// without a count, for workspaces that give none. A wrong count confirms
	// under neither. The other transports have one form and refuse the lenient
	// one. Default ConfirmStrict.
	Confirm string

	// Timeout bounds one HTTP request, from connecting to the last byte of the
	// answer. Shorter gives up on acks that would have come, and so writes
	// rows twice; longer notices a hanging service later. Streams have bounds
	// of their own: 15 s to open, 60 s without an ack. Default 30s.
	Timeout time.Duration

	// ProbeEvery is the time between tries of one waiting batch while a
	// configuration fault blocks writing. Shorter notices the mending sooner.
	// Default 30s.
	ProbeEvery time.Duration

	// RateLimit caps the rows sent per second over all callers, retries
	// included. A burst of one second's rows passes at once. Default 0: none.
	RateLimit float64

	// Gzip compresses the bodies of HTTP requests (level 1). It makes bodies
	// about six times smaller for about twice the CPU per row, and holds the
	// compressed body of each batch in memory. Whether the endpoint takes it
	// under rest is not documented. Without effect under grpc. Default off.
	Gzip bool

	// MaxRequestBytes caps one request body before compression, or one message
	// on a stream. A larger batch is refused as too_large without being sent.
	// Default and greatest value 10 MiB, the service's own bound on a message;
	// under grpc 64 KiB less, as Databricks' own clients keep to.
	MaxRequestBytes int64

	// CAFile is a PEM file of certificate authorities trusted besides the
	// system's, for workspaces behind a TLS-inspecting proxy. Read when the
	// first connection is made. Default none.
	CAFile string

	// UserAgent is sent with every request. Default datafly-bridge.
	UserAgent string
}

// settings is a Config after its defaults are filled in and its addresses are
// parsed.
type settings struct {
	Config
	base   *url.URL // scheme and host only
	table  TableName
	token  string    // absolute URL
	ingest string    // absolute URL, of the workspace's own path
	native *endpoint // nil: the workspace transport
}

// parse fills in defaults and reports every problem at once.
func (c Config) parse() (settings, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := settings{Config: c}

	base, err := parseBase(c.WorkspaceURL)
	if err != nil {
		errs = append(errs, err)
	}
	s.base = base
	if c.ClientID == "" {
		bad("client_id is empty; set the application id of the service principal")
	}
	if c.ClientSecret == nil {
		bad("client_secret is missing; set the OAuth secret of the service principal")
	}
	if s.table, err = ParseTableName(c.Catalog, c.Schema, c.Table); err != nil {
		errs = append(errs, err)
	}
	s.Transport = or(c.Transport, DefaultTransport)
	switch s.Transport {
	case TransportWorkspace:
	case TransportGRPC, TransportREST:
		var more []error
		s.native, more = s.parseNative()
		errs = append(errs, more...)
	default:
		bad("transport %q is not known; use %q, %q or %q", c.Transport, TransportWorkspace, TransportGRPC, TransportREST)
	}
	s.Confirm = or(c.Confirm, DefaultConfirm)
	switch {
	case s.Confirm != ConfirmStrict && s.Confirm != ConfirmLenient:
		bad("confirm %q is not known; use %q or %q", c.Confirm, ConfirmStrict, ConfirmLenient)
	case s.Confirm == ConfirmLenient && s.Transport != TransportWorkspace:
		bad("confirm %q is for transport %q; take it out with %q", ConfirmLenient, TransportWorkspace, s.Transport)
	}
	s.Scope = or(c.Scope, DefaultScope)
	s.UserAgent = or(c.UserAgent, DefaultUserAgent)
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.Timeout < 0 {
		bad("timeout %v is negative; set a duration such as 30s", c.Timeout)
	}
	if s.ProbeEvery == 0 {
		s.ProbeEvery = DefaultProbeEvery
	}
	if s.ProbeEvery < 0 {
		bad("probe_every %v is negative; set a duration such as 30s", c.ProbeEvery)
	}
	if c.RateLimit < 0 || c.RateLimit != c.RateLimit {
		bad("rate_limit %v is not a number of rows per second; set 0 for none", c.RateLimit)
	}
	if s.MaxRequestBytes == 0 {
		s.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if s.MaxRequestBytes < 0 || s.MaxRequestBytes > DefaultMaxRequestBytes {
		bad("max_request_bytes %d is out of range; set 1 to %d", c.MaxRequestBytes, DefaultMaxRequestBytes)
	}
	if s.Transport == TransportGRPC {
		s.MaxRequestBytes = min(s.MaxRequestBytes, maxMessage)
	}
	if c.ColumnsRefresh < 0 {
		bad("columns_refresh %v is negative; set a duration such as 5m, or 0 for never", c.ColumnsRefresh)
	}
	if base != nil {
		if s.token, err = resolve(base, or(c.TokenURL, DefaultTokenPath)); err != nil {
			bad("token_url: %w", err)
		}
		path := or(c.IngestPath, DefaultIngestPath)
		if !strings.HasPrefix(path, "/") {
			bad("ingest_path %q does not begin with a slash; set a path on the workspace", path)
		}
		if _, err := url.Parse(base.String() + path); err != nil {
			bad("ingest_path %q is not a URL path; set one such as %s", path, DefaultIngestPath)
		}
		s.ingest = base.String() + path
	}
	if len(errs) > 0 {
		return settings{}, fmt.Errorf("zerobus: %w", errors.Join(errs...))
	}
	return s, nil
}

// parseBase reduces what people paste from a browser to scheme and host.
func parseBase(raw string) (*url.URL, error) {
	text := strings.TrimSpace(raw)
	if text == "" {
		return nil, errors.New("workspace_url is empty; set the address of the workspace, such as https://abc-12345.cloud.databricks.com")
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := checkURL(text)
	if err != nil {
		return nil, fmt.Errorf("workspace_url: %w", err)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// resolve returns ref as an absolute URL on base, unless it is one already.
func resolve(base *url.URL, ref string) (string, error) {
	if strings.HasPrefix(ref, "/") {
		return base.String() + ref, nil
	}
	u, err := checkURL(ref)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// checkURL refuses addresses a secret must not be sent to. The text itself is
// not repeated in an error when it may hold a password.
func checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL; set one such as https://abc-12345.cloud.databricks.com")
	case u.User != nil:
		return nil, errors.New("it holds a user name or password; set client_id and client_secret instead")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return nil, fmt.Errorf("%q is not an https address; set one such as https://abc-12345.cloud.databricks.com", text)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%q would send the client secret in clear; use https (http is for loopback hosts only)", text)
	}
	return u, nil
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}
