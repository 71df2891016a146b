package zerobus

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/setting"
)

// Settings are the target: the workspace, the service principal and the table. The
// first six keys have the names of Signal's Zerobus integration.
type Settings struct {
	// WorkspaceURL such as https://abc-12345.cloud.databricks.com. The scheme may be
	// missing; a path or query from the browser is dropped. http is accepted for
	// loopback hosts only, since the client secret travels to it.
	WorkspaceURL string `yaml:"workspace_url" required:"the address of your workspace, such as https://abc-12345.cloud.databricks.com"`
	// ClientID is the application id of the service principal.
	ClientID string `yaml:"client_id" required:"the application id of the service principal"`
	// ClientSecret is its OAuth secret, or ClientSecretFile names a file that holds
	// it. The file is read again for each token.
	ClientSecret     setting.Secret `yaml:"client_secret" required:"the service principal's OAuth secret" with:"client_id,workspace_url,token_url" or:"zerobus.token_exchange.token_file"`
	ClientSecretFile string         `yaml:"client_secret_file"`
	// TokenExchange takes the place of the secret.
	TokenExchange TokenExchange `yaml:"token_exchange"`
	// Catalog, Schema and Table name the target in Unity Catalog. Table may hold the
	// full name catalog.schema.table, and the other two may then be empty.
	Catalog string `yaml:"catalog" required:"the Unity Catalog name of the table"`
	Schema  string `yaml:"schema" required:"the schema within the catalog"`
	Table   string `yaml:"table" required:"the table that receives the events"`

	// Transport is auto (the first of the others that is served), workspace (POST to
	// the workspace, as Signal's integration page has it), grpc (Zerobus streams: the
	// least cost per row, the soonest acknowledgements) or rest (the Zerobus insert,
	// for networks that block gRPC).
	Transport string `yaml:"transport" default:"auto" choices:"auto,workspace,grpc,rest"`
	// Endpoint of Zerobus for the workspace and its region: host, host:port or
	// https://host[:port], such as 1234567890123456.zerobus.us-west-2.cloud.databricks.com.
	// Empty: the workspace names it. http is accepted for loopback hosts only.
	Endpoint string `yaml:"endpoint" when:"transport=auto,grpc,rest"`
	// WorkspaceID is what tokens for the endpoint are requested for, the number after
	// ?o= in the browser. Empty is the first label of the endpoint's host name, or what
	// the workspace names with its endpoint.
	WorkspaceID string `yaml:"workspace_id" when:"transport=auto,grpc,rest"`
	// RecordFormat is the form of rows over grpc. auto is protobuf when the table's
	// columns are known and none of them is a rescue column. Trade-off of json:
	// about a third more CPU per row.
	RecordFormat string `yaml:"record_format" default:"auto" choices:"auto,protobuf,json" when:"transport=auto,grpc"`
	// Streams is how many gRPC streams callers share, opened as they are needed. More
	// help only at the service's bound per stream (Databricks publishes 100 MB/s and
	// 15,000 to 100,000 rows/s), or when rows are refused so often that a stream's
	// end should affect fewer batches. Each costs two goroutines, MaxInFlight of
	// memory, and a token and a handshake every quarter of an hour.
	Streams int `yaml:"streams" default:"1" min:"1" max:"64" when:"transport=auto,grpc"`
	// MaxInFlight caps the bytes of rows sent and not acknowledged, per stream: rate
	// times acknowledgement latency is what it must hold. Callers beyond it wait; a
	// larger batch is sent alone.
	MaxInFlight setting.Size `yaml:"max_in_flight" default:"32MiB" min:"1MiB" max:"1GiB" when:"transport=auto,grpc"`
	// ColumnsRefresh is the time between reads of the table's columns; 0 is never.
	// Refused rows cause a read in any case. Shorter: an ALTER TABLE is noticed
	// sooner, for more requests to Unity Catalog.
	ColumnsRefresh time.Duration `yaml:"columns_refresh" default:"5m" min:"1s" max:"24h" zero:"true"`
	// OmitOperations leaves "operations" out of the authorization details of tokens
	// for the endpoint, for token endpoints that do not know the field.
	OmitOperations bool `yaml:"omit_operations" when:"transport=auto,grpc,rest"`
	// TokenURL of the OAuth token endpoint; empty is /oidc/v1/token on the workspace.
	TokenURL string `yaml:"token_url"`
	// Scope is the OAuth scope to request.
	Scope string `yaml:"scope" default:"all-apis"`
	// IngestPath is the path on the workspace that rows are posted to.
	IngestPath string `yaml:"ingest_path" default:"/api/2.0/streaming-ingestion/ingest" when:"transport=auto,workspace"`
	// Confirm is which answers confirm rows: strict, those that count the rows sent,
	// or lenient, also those without a count. A wrong count confirms under neither.
	Confirm string `yaml:"confirm" default:"strict" choices:"strict,lenient" when:"transport=auto,workspace"`
	// Timeout bounds one HTTP request, from connecting to the last byte of the
	// answer. Lower: slow answers are abandoned and their rows are duplicates.
	// Higher: a dead connection is noticed later. Streams have bounds of their own:
	// 15 s to open, 60 s without an acknowledgement.
	Timeout time.Duration `yaml:"timeout" default:"30s" min:"100ms" max:"10m"`
	// RateLimit caps rows per second over all callers, retries included. A burst of
	// one second's rows passes at once. 0 is no limit.
	RateLimit float64 `yaml:"rate_limit" default:"0" live:"true"`
	// Gzip compresses request bodies (level 1), to about a sixth for about twice the
	// CPU per row. Whether rest accepts it is not documented.
	Gzip bool `yaml:"gzip" when:"transport=auto,workspace,rest"`
	// TimestampFormat of TIMESTAMP columns: micros (integer microseconds since the
	// epoch) or rfc3339 (text).
	TimestampFormat string `yaml:"timestamp_format" default:"micros" choices:"micros,rfc3339"`
	// CAFile is a PEM file of authorities to trust besides the system's, for a proxy
	// that inspects TLS. It is read when the first connection is made.
	CAFile string `yaml:"ca_file" readable:"without it only the system's authorities are trusted"`
	// MaxRequestBytes caps one request body before compression, or one message of a
	// stream. A larger batch is refused as too_large without being sent. 10 MiB is
	// the service's own bound; over grpc it is 64 KiB less, as in Databricks' clients.
	MaxRequestBytes setting.Size `yaml:"max_request_bytes" default:"10MiB" min:"1KiB" max:"10MiB"`
}

// Check implements the rules about addresses and names. It brings the addresses to
// the form scheme://host[:port], and splits a full table name over its three keys.
func (s *Settings) Check(c *setting.Check) {
	s.WorkspaceURL = c.BaseURL("zerobus.workspace_url", s.WorkspaceURL)
	s.Endpoint = c.BaseURL("zerobus.endpoint", s.Endpoint)
	c.URL("zerobus.token_url", s.TokenURL)
	s.checkTable(c)
	if c.OK("zerobus.scope") && s.Scope == "" {
		c.Fail("zerobus.scope", "must not be empty", "leave it out for all-apis")
	}
	if p := s.IngestPath; c.OK("zerobus.ingest_path") && !validPath(p) {
		c.Fail("zerobus.ingest_path", "must be a path on the workspace that begins with one slash, without a query",
			"leave it out for /api/2.0/streaming-ingestion/ingest")
	}
	if n := s.RateLimit; c.OK("zerobus.rate_limit") && (math.IsNaN(n) || math.IsInf(n, 0) || n < 0) {
		c.Fail("zerobus.rate_limit", "must be a number of rows per second, 0 or more", "write 0 for no limit")
	}
	if c.OK("zerobus.workspace_id") && strings.ContainsFunc(s.WorkspaceID, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		c.Fail("zerobus.workspace_id", "must be the id after ?o= in the workspace's address",
			"leave it out to take it from zerobus.endpoint")
	}
}

func validPath(path string) bool {
	_, err := url.Parse("https://host" + path)
	return err == nil && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && !strings.ContainsAny(path, "?# ")
}

// checkTable applies Unity Catalog's rules for names: no period, space, slash or
// control character, at most 255 characters
// (https://docs.databricks.com/en/sql/language-manual/sql-ref-names.html).
func (s *Settings) checkTable(c *setting.Check) {
	const table, rule = "zerobus.table", "must be a Unity Catalog name: at most 255 characters, no period, space, slash or control character"
	names := []struct {
		key  string
		name *string
	}{{"zerobus.catalog", &s.Catalog}, {"zerobus.schema", &s.Schema}, {table, &s.Table}}
	full := s.Table
	parts := strings.Split(full, ".")
	badTable := func() {
		c.Fail(table, rule, "write the table's own name, or all of catalog.schema.table")
		c.Faulty["zerobus.catalog"], c.Faulty["zerobus.schema"] = true, true // the value may be meant to set these
	}
	for i, to := range names {
		*to.name = unquoted(*to.name)
		if len(parts) != 3 || !c.OK(to.key, table) {
			continue
		}
		part := unquoted(parts[i])
		if !validName(part) {
			badTable()
			return
		}
		if to.key != table && *to.name != "" && *to.name != part {
			c.Fail(to.key, fmt.Sprintf("contradicts zerobus.table (%s)", full), "let zerobus.table hold the table's own name only, or take this key out")
		}
		*to.name = part
	}
	for _, of := range names {
		switch {
		case *of.name == "" || validName(*of.name) || !c.OK(of.key):
		case of.key == table:
			badTable()
		default:
			c.Fail(of.key, rule, "write the plain name, without quotes")
		}
	}
}

func validName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool {
		return r == '.' || r == ' ' || r == '/' || r == '`' || r < ' ' || r == 0x7f
	})
}

// unquoted returns a name without the backticks that SQL writes around it.
func unquoted(name string) string {
	if len(name) > 2 && name[0] == '`' && name[len(name)-1] == '`' {
		return name[1 : len(name)-1]
	}
	return name
}
