package zerobus

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
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
	// DefaultColumnsRefresh is for the code that fills a Config; in a Config itself
	// 0 means never.
	DefaultColumnsRefresh = 5 * time.Minute
)

const (
	streamsMax     = 64
	maxInFlightMin = 1 << 20
	maxInFlightMax = 1 << 30
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

// Config sets which table a Client writes to, with which identity, and how.
type Config struct {
	// WorkspaceURL is the address of the Databricks workspace, such as
	// https://abc-12345.cloud.databricks.com. The scheme defaults to https; a path
	// or query is dropped. Plain http is accepted for loopback hosts only, since the
	// client secret would travel in clear text. Required.
	WorkspaceURL string
	// ClientID is the application id of the service principal. Not a secret.
	// Required.
	ClientID string
	// ClientSecret returns the OAuth secret of the service principal. It is called
	// for each token request, and once a second while writing is blocked, so a
	// rotated secret needs no restart. It must be safe for concurrent use. Required.
	ClientSecret func() (string, error)
	// Catalog, Schema and Table name the target table in Unity Catalog. Table may
	// hold the full name catalog.schema.table; the others may then be empty. Required.
	Catalog, Schema, Table string
	// Transport carries the rows: workspace, grpc or rest. grpc costs the least per
	// row and has the lowest latency; rest is for networks without gRPC; workspace is
	// for workspaces that take rows themselves. Default workspace.
	Transport string
	// Endpoint is the Zerobus address for the workspace and its region, such as
	// 1234567890123456.zerobus.us-west-2.cloud.databricks.com: a host, host:port or
	// https://host[:port]. The default port is 443; http:// is accepted for loopback
	// hosts only. Required for grpc and rest, else unused.
	Endpoint string
	// WorkspaceID is the workspace's number (after ?o= in its address in a browser),
	// which tokens for the endpoint are bound to. Default: the first label of the
	// endpoint's host name.
	WorkspaceID string
	// RecordFormat is the form of rows under grpc: protobuf, json or auto. auto is
	// protobuf if the table's columns are known and none is a rescue column. The
	// other transports use json. Default auto.
	RecordFormat string
	// Streams is how many gRPC streams callers share, 1 to 64, opened on demand. More
	// than one helps only beyond the service's own limit per stream (Databricks
	// publishes 100 MB/s and 15,000 to 100,000 rows/s), or if rows are refused often.
	// Each costs two goroutines and up to MaxInFlight of memory. Default 1.
	Streams int
	// MaxInFlight bounds the unacknowledged bytes per stream: it has to hold rate
	// times ack latency. Further callers wait. 1 MiB to 1 GiB; a larger batch travels
	// alone. Default 32 MiB.
	MaxInFlight int64
	// ColumnsRefresh is the time between reads of the table's columns by Watch. Lower
	// values notice an ALTER TABLE sooner, for more requests to Unity Catalog. 0 means
	// never; refused rows always trigger a read.
	ColumnsRefresh time.Duration
	// OmitOperations leaves "operations" out of the privileges in token requests, for
	// token endpoints that reject the field. Default off.
	OmitOperations bool
	// TokenURL is the token endpoint: an absolute URL, or a path on the workspace.
	// Default /oidc/v1/token.
	TokenURL string
	// Scope is the OAuth scope of token requests. Default all-apis.
	Scope string
	// IngestPath is the path on the workspace that rows are posted to. Default
	// /api/2.0/streaming-ingestion/ingest.
	IngestPath string
	// Confirm sets what confirms rows under workspace: with ConfirmStrict the answer
	// must count the rows, with ConfirmLenient the count may be missing. A wrong count
	// never confirms. The other transports only know the strict form. Default
	// ConfirmStrict.
	Confirm string
	// Timeout bounds one HTTP request, from connecting to the last byte of the answer.
	// Lower values write more rows twice, higher ones notice a hanging service later.
	// Streams have fixed bounds: 15 s to open, 60 s without an ack. Default 30s.
	Timeout time.Duration
	// ProbeEvery is the time between attempts while a configuration fault blocks
	// writing. Lower values notice the fix sooner. Default 30s.
	ProbeEvery time.Duration
	// RateLimit caps the rows sent per second by all callers, retries included. The
	// burst is one second's rows. Default 0: none.
	RateLimit float64
	// Gzip compresses the bodies of HTTP requests (level 1): about six times smaller
	// for about twice the CPU per row and a compressed copy of each batch in memory.
	// Databricks does not document it for rest. No effect under grpc. Default off.
	Gzip bool
	// MaxRequestBytes caps one request body before compression, or one message on a
	// stream. A larger batch is refused as too_large unsent. Default and maximum
	// 10 MiB, the service's limit; under grpc 64 KiB less, as in Databricks' clients.
	MaxRequestBytes int64
	// CAFile is a PEM file of additional certificate authorities, for a TLS-inspecting
	// proxy. It is read for the first connection. Default none.
	CAFile string
	// UserAgent is sent with every request. Default datafly-bridge.
	UserAgent string
}

// settings is a Config with defaults applied and addresses parsed.
type settings struct {
	Config
	base   *url.URL // of the workspace: scheme and host only
	table  TableName
	token  string    // absolute URL
	ingest string    // absolute URL
	native *endpoint // of Zerobus itself; nil under workspace
}

// endpoint is the Zerobus endpoint and the workspace that its tokens are bound to.
type endpoint struct {
	base        *url.URL // scheme and host, the port only if given
	target      string   // host:port
	clear       bool     // no TLS: a loopback host
	workspaceID string
}

var plainID = regexp.MustCompile(`^[0-9A-Za-z-]{1,63}$`)

const (
	suchWorkspace = "such as https://abc-12345.cloud.databricks.com"
	suchEndpoint  = "such as 1234567890123456.zerobus.us-west-2.cloud.databricks.com"
)

// problems collects every problem of a Config.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

func (p *problems) oneOf(key, value string, known ...string) {
	if !slices.Contains(known, value) {
		quoted := make([]string, len(known))
		for i, k := range known {
			quoted[i] = fmt.Sprintf("%q", k)
		}
		last := len(quoted) - 1
		p.add("%s %q is not known; use %s or %s", key, value, strings.Join(quoted[:last], ", "), quoted[last])
	}
}

func (p *problems) inRange(key string, value, least, most int64, unit string) {
	if value < least || value > most {
		p.add("%s %d is out of range; set %d to %d%s", key, value, least, most, unit)
	}
}

// parse reports every problem at once.
func (c Config) parse() (settings, error) {
	s := settings{Config: c}
	s.Transport = cmp.Or(c.Transport, DefaultTransport)
	s.Confirm = cmp.Or(c.Confirm, DefaultConfirm)
	s.Scope = cmp.Or(c.Scope, DefaultScope)
	s.UserAgent = cmp.Or(c.UserAgent, DefaultUserAgent)
	s.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	s.ProbeEvery = cmp.Or(c.ProbeEvery, DefaultProbeEvery)
	s.MaxRequestBytes = cmp.Or(c.MaxRequestBytes, DefaultMaxRequestBytes)
	s.RecordFormat = cmp.Or(c.RecordFormat, DefaultRecordFormat)
	s.Streams = cmp.Or(c.Streams, DefaultStreams)
	s.MaxInFlight = cmp.Or(c.MaxInFlight, DefaultMaxInFlight)

	var bad problems
	var err error
	if c.ClientID == "" {
		bad.add("client_id is empty; set the application id of the service principal")
	}
	if c.ClientSecret == nil {
		bad.add("client_secret is missing; set the OAuth secret of the service principal")
	}
	if s.table, err = ParseTableName(c.Catalog, c.Schema, c.Table); err != nil {
		bad = append(bad, err)
	}
	s.parseWorkspace(&bad)
	bad.oneOf("transport", s.Transport, TransportWorkspace, TransportGRPC, TransportREST)
	if s.Transport == TransportGRPC || s.Transport == TransportREST {
		s.parseNative(&bad)
	}
	if bad.oneOf("confirm", s.Confirm, ConfirmStrict, ConfirmLenient); s.Confirm == ConfirmLenient && s.Transport != TransportWorkspace {
		bad.add("confirm %q is for transport %q; take it out with %q", ConfirmLenient, TransportWorkspace, s.Transport)
	}
	if s.Timeout < 0 {
		bad.add("timeout %v is negative; set a duration such as 30s", c.Timeout)
	}
	if s.ProbeEvery < 0 {
		bad.add("probe_every %v is negative; set a duration such as 30s", c.ProbeEvery)
	}
	if c.ColumnsRefresh < 0 {
		bad.add("columns_refresh %v is negative; set a duration such as 5m, or 0 for never", c.ColumnsRefresh)
	}
	if c.RateLimit < 0 || c.RateLimit != c.RateLimit {
		bad.add("rate_limit %v is not a number of rows per second; set 0 for none", c.RateLimit)
	}
	bad.inRange("max_request_bytes", s.MaxRequestBytes, 1, DefaultMaxRequestBytes, "")
	if s.Transport == TransportGRPC {
		s.MaxRequestBytes = min(s.MaxRequestBytes, maxMessage)
	}
	if len(bad) > 0 {
		return settings{}, fmt.Errorf("zerobus: %w", errors.Join(bad...))
	}
	return s, nil
}

// parseWorkspace parses the addresses on the workspace.
func (s *settings) parseWorkspace(bad *problems) {
	if strings.TrimSpace(s.WorkspaceURL) == "" {
		bad.add("workspace_url is empty; set the address of the workspace, " + suchWorkspace)
		return
	}
	u, err := checkURL(withScheme(s.WorkspaceURL), suchWorkspace, "client secret")
	if err != nil {
		bad.add("workspace_url: %w", err)
		return
	}
	s.base = &url.URL{Scheme: u.Scheme, Host: u.Host} // without what people paste from a browser
	if path := cmp.Or(s.TokenURL, DefaultTokenPath); strings.HasPrefix(path, "/") {
		s.token = s.base.String() + path
	} else if u, err := checkURL(path, suchWorkspace, "client secret"); err != nil {
		bad.add("token_url: %w", err)
	} else {
		s.token = u.String()
	}
	path := cmp.Or(s.IngestPath, DefaultIngestPath)
	if !strings.HasPrefix(path, "/") {
		bad.add("ingest_path %q does not begin with a slash; set a path on the workspace", path)
	}
	s.ingest = s.base.String() + path
	if _, err := url.Parse(s.ingest); err != nil {
		bad.add("ingest_path %q is not a URL path; set one such as %s", path, DefaultIngestPath)
	}
}

// parseNative parses and checks what only grpc and rest use.
func (s *settings) parseNative(bad *problems) {
	var err error
	if s.native, err = parseEndpoint(s.Endpoint); err != nil {
		bad.add("endpoint: %w", err)
	} else {
		label, _, _ := strings.Cut(s.native.base.Hostname(), ".")
		if s.native.workspaceID = cmp.Or(s.WorkspaceID, label); !plainID.MatchString(s.native.workspaceID) {
			bad.add("workspace_id %q is no workspace id; set the number after ?o= in the workspace's address", s.native.workspaceID)
		}
	}
	bad.oneOf("record_format", s.RecordFormat, FormatAuto, FormatProtobuf, FormatJSON)
	bad.inRange("streams", int64(s.Streams), 1, streamsMax, "")
	bad.inRange("max_in_flight", s.MaxInFlight, maxInFlightMin, maxInFlightMax, " bytes")
	if name := s.table.String(); s.Transport == TransportGRPC && !inASCII(name) {
		bad.add("table %q holds characters that gRPC metadata cannot carry; use transport rest, or a name in ASCII", name)
	}
}

// parseEndpoint takes a host, host:port or URL.
func parseEndpoint(raw string) (*endpoint, error) {
	if strings.TrimSpace(raw) == "" {
		return nil, errors.New("it is empty; set the Zerobus endpoint of the workspace's region, " + suchEndpoint)
	}
	text := withScheme(raw)
	u, err := checkURL(text, suchEndpoint, "token")
	if err != nil {
		return nil, err
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q holds more than a host and a port; set one %s", text, suchEndpoint)
	}
	return &endpoint{base: &url.URL{Scheme: u.Scheme, Host: u.Host}, clear: u.Scheme == "http", target: hostPort(u)}, nil
}

func withScheme(raw string) string {
	text := strings.TrimSpace(raw)
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	return text
}

// checkURL refuses addresses that secrets must not be sent to. Its errors do not
// repeat a text that may hold a password.
func checkURL(text, such, secret string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL; set an address " + such)
	case u.User != nil:
		return nil, errors.New("it holds a user name or password; set client_id and client_secret instead")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return nil, fmt.Errorf("%q is not an https address; set one %s", text, such)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("%q would send the %s in clear; use https (http is for loopback hosts only)", text, secret)
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// hostPort returns host:port of a URL, with the default port of its scheme.
func hostPort(u *url.URL) string {
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80"}[u.Scheme], "443"))
}

func inASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > '~' })
}

// tokenParams returns the parameters that bind a token to the endpoint: an audience,
// and the privileges on one table (RFC 9396). Form and names are those of Databricks'
// open Zerobus SDKs: https://github.com/databricks/zerobus-sdk
func (s *settings) tokenParams() url.Values {
	type grant struct {
		Type       string   `json:"type"`
		Privileges []string `json:"privileges"`
		ObjectType string   `json:"object_type"`
		ObjectPath string   `json:"object_full_path"`
		Operations []string `json:"operations,omitempty"`
	}
	const kind = "unity_catalog_privileges"
	t := s.table
	grants := []grant{
		{kind, []string{"USE CATALOG"}, "CATALOG", t.Catalog, nil},
		{kind, []string{"USE SCHEMA"}, "SCHEMA", t.Catalog + "." + t.Schema, nil},
		{kind, []string{"SELECT", "MODIFY"}, "TABLE", t.String(), []string{"zerobuswrite"}},
	}
	if s.OmitOperations {
		grants[2].Operations = nil
	}
	text, err := json.Marshal(grants)
	if err != nil {
		panic(err) // strings always marshal
	}
	return url.Values{
		"resource":              {"api://databricks/workspaces/" + s.native.workspaceID + "/zerobusDirectWriteApi"},
		"authorization_details": {string(text)},
	}
}
