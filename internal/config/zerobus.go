package config

import "time"

// Zerobus is the target: the workspace, who we are there, and the table. The
// first six keys carry the names of Signal's Zerobus integration.
type Zerobus struct {
	// WorkspaceURL such as https://abc-12345.cloud.databricks.com. The scheme
	// may be left out; a path or query copied from the browser is dropped.
	// http is accepted to loopback hosts only, since the client secret
	// travels with it. Required. After Load: scheme://host[:port].
	WorkspaceURL string `yaml:"workspace_url"`
	// ClientID is the service principal's application id. Required.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the service principal's OAuth secret, or
	// ClientSecretFile: a file that holds it and is read anew at each token
	// request, so it can be rotated while the bridge runs. One is required.
	ClientSecret     Secret `yaml:"client_secret"`
	ClientSecretFile string `yaml:"client_secret_file"`
	// Catalog, Schema and Table name the target in Unity Catalog. Table may
	// hold the full name catalog.schema.table; Load then fills the other two.
	// Required.
	Catalog string `yaml:"catalog"`
	Schema  string `yaml:"schema"`
	Table   string `yaml:"table"`

	// Transport is the wire rows travel on: workspace (POST to the workspace,
	// as Signal's integration page has it), grpc (the Zerobus stream, what a
	// real workspace serves) or rest (the Zerobus insert, where gRPC cannot
	// pass). Default workspace.
	Transport string `yaml:"transport"`
	// Endpoint of Zerobus Ingest, host, host:port or https://host, as the
	// workspace's region has it. Required for grpc and rest, not used by
	// workspace. http is accepted to loopback hosts only.
	Endpoint string `yaml:"endpoint"`
	// WorkspaceID that tokens are asked for. Default empty, the first label
	// of Endpoint's host name.
	WorkspaceID string `yaml:"workspace_id"`
	// RecordFormat of rows over grpc: protobuf, json, or auto, which is
	// protobuf when the table's columns can be read and json when not, or
	// when a column has the tag zerobus-rescue. Default auto. Price of json:
	// about a third more CPU per row.
	RecordFormat string `yaml:"record_format"`
	// Streams over grpc that the partitions share. Default 1. Price of more:
	// a token and a handshake each, every quarter of an hour.
	Streams int `yaml:"streams"`
	// MaxInFlight caps the bytes one grpc stream has sent and not yet had
	// acknowledged. Default 32MiB. Price: that much memory per stream.
	MaxInFlight Size `yaml:"max_in_flight"`
	// ColumnsRefresh is how often the table's columns are read again while
	// the bridge runs; 0 is never. Default 5m. Price of a shorter one: a
	// request to Unity Catalog each time.
	ColumnsRefresh time.Duration `yaml:"columns_refresh"`
	// OmitOperations leaves "operations" out of the authorization details of
	// grpc and rest tokens, for token endpoints that do not know it. Default
	// false.
	OmitOperations bool `yaml:"omit_operations"`
	// TokenURL of the OAuth token endpoint. Default empty, which is
	// /oidc/v1/token on the workspace.
	TokenURL string `yaml:"token_url"`
	// Scope asked for. Default all-apis.
	Scope string `yaml:"scope"`
	// IngestPath on the workspace that batches are posted to. Default
	// /api/2.0/streaming-ingestion/ingest.
	IngestPath string `yaml:"ingest_path"`
	// Confirm says what confirms rows over workspace: strict, an answer that
	// counts the rows sent, or lenient, an answer without a count too. Default
	// strict. Price of lenient: a gateway that answers with any JSON object
	// passes for the service. Only with workspace.
	Confirm string `yaml:"confirm"`
	// Timeout of one request, from connecting to the last byte of the answer.
	// Default 30s. Lower: a slow answer is given up sooner, and its rows may
	// land twice. Higher: a dead connection is noticed later.
	Timeout time.Duration `yaml:"timeout"`
	// RateLimit caps rows per second over all partitions of this process; 0
	// is no limit. Default 0. Price: lag, once events arrive faster.
	RateLimit float64 `yaml:"rate_limit"`
	// Gzip compresses requests. Default false. Price: about one CPU second
	// per few hundred megabytes, for a tenth of the bandwidth.
	Gzip bool `yaml:"gzip"`
	// TimestampFormat of TIMESTAMP columns in requests: micros (integer
	// microseconds since the epoch) or rfc3339 (text). Default micros.
	TimestampFormat string `yaml:"timestamp_format"`
	// CAFile is a PEM file of the authorities to trust instead of the
	// system's, for workspaces behind an intercepting proxy. Default empty.
	CAFile string `yaml:"ca_file"`
	// MaxRequestBytes caps one request body before compression. Default
	// 10MiB. A row that alone is larger is rejected.
	MaxRequestBytes Size `yaml:"max_request_bytes"`
}

// ClientSecretSource returns where the service principal's secret comes from.
func (z Zerobus) ClientSecretSource() SecretSource {
	return SecretSource{Key: "zerobus.client_secret", Value: z.ClientSecret, File: z.ClientSecretFile}
}
