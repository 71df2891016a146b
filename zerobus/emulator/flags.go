package emulator

import (
	"flag"
	"strings"
)

// Flags registers the settings with a set of flags, each with its default. The tables
// (DDL) and the log are the caller's.
func (cfg *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&cfg.ClientID, "client-id", DefaultClientID, "OAuth client `id` that is accepted")
	fs.StringVar(&cfg.ClientSecret, "client-secret", DefaultClientSecret, "OAuth client `secret` that is accepted")
	fs.Var(&cfg.Federation, "federation", "exchange JWTs of `issuer=URL,audience=NAME,subject=NAME` for tokens; signatures are not checked (default none)")
	fs.StringVar(&cfg.AdminToken, "admin-token", DefaultAdminToken, "bearer `token` of the metastore admin")
	fs.DurationVar(&cfg.TokenLifetime, "token-lifetime", DefaultTokenLifetime, "how long a token is valid")
	fs.StringVar(&cfg.JSONL, "jsonl", "", "`file` that rows are appended to and reloaded from (default none)")
	fs.IntVar(&cfg.MaxRows, "max-rows", 100_000, "`rows` per table kept in memory for browsing; 0 keeps all")
	fs.IntVar(&cfg.MaxIDs, "max-ids", 10_000_000, "message `ids` per table kept in memory for counting, 40 bytes each; 0 keeps all")
	fs.StringVar(&cfg.WorkspaceID, "workspace-id", DefaultWorkspaceID, "workspace `id` that tokens for the Zerobus endpoint must name")
	fs.StringVar(&cfg.Cloud, "cloud", DefaultCloud, "`cloud` of the metastore: aws, azure or gcp")
	fs.StringVar(&cfg.Region, "region", DefaultRegion, "`region` of the metastore")
	fs.StringVar((*string)(&cfg.Auth), "auth", string(AuthStrict), "what the Zerobus endpoint asks of a token: `strict`, presence or off")
	fs.DurationVar(&cfg.AckInterval, "ack-interval", DefaultAckInterval, "least time between two acknowledgements of a gRPC stream")
	fs.DurationVar(&cfg.StreamMaxAge, "stream-max-age", DefaultStreamMaxAge, "when a gRPC stream gets its close signal; below 0 never")
	fs.Func("oversize-status", "how a gRPC stream ends with a message above 10 MiB: `OUT_OF_RANGE`, RESOURCE_EXHAUSTED or INVALID_ARGUMENT (default OUT_OF_RANGE)", func(text string) (err error) {
		cfg.OversizeCode, err = ParseOversizeCode(text)
		return err
	})
	fs.StringVar((*string)(&cfg.Schema), "schema", string(SchemaByName), "how a stream's descriptor must match the columns: `by-name`, or exact (one field for each, in their order)")
	fs.BoolVar(&cfg.TLS, "tls", false, "serve HTTPS, with a certificate for localhost, 127.0.0.1, ::1, *."+LocalDomain+" and the host name of the metastore's Zerobus endpoint")
	fs.Func("tls-name", "one more host `name` that the certificate covers; repeatable", func(text string) error {
		cfg.Names = append(cfg.Names, text)
		return nil
	})
	fs.TextVar(&cfg.Latency, "latency", Latency{}, "wait before each acknowledgement: `20ms` or p50=150ms,p95=500ms")
	fs.BoolVar(&cfg.AcceptTextTimestamps, "accept-text-timestamps", false, "accept RFC 3339 text in TIMESTAMP columns")
	fs.DurationVar(&cfg.VisibleAfter, "visible-after", 0, "how long a row takes to be visible to SQL; about 5s in live workspaces")
	fs.Func("warehouse", "SQL warehouse, or none: `id,state=stopped,start=3s,name=text,no-use`, all but the id optional; repeatable (default "+DefaultWarehouse+", running)", func(text string) error {
		if text == "none" {
			cfg.Warehouses = []Warehouse{}
			return nil
		}
		w, err := ParseWarehouse(text)
		cfg.Warehouses = append(cfg.Warehouses, w)
		return err
	})
	for name, to := range map[string]struct {
		off  *bool
		what string
	}{
		"no-create":           {&cfg.NoCreate, "leave the service principal without CREATE CATALOG, CREATE SCHEMA and CREATE TABLE"},
		"no-ingest-api":       {&cfg.NoIngestAPI, "answer 404 ENDPOINT_NOT_FOUND on the ingest endpoint, as live workspaces do"},
		"no-http2":            {&cfg.NoHTTP2, "serve HTTP/1.1 only on the Zerobus endpoint, as behind a proxy that gRPC cannot pass"},
		"no-workspace-header": {&cfg.NoWorkspaceHeader, "leave " + strings.ToLower(WorkspaceHeader) + " out of the answers"},
		"no-endpoint-url":     {&cfg.NoEndpointURL, "leave the emulator's own zerobus_endpoint out of the metastore summary"},
	} {
		fs.BoolVar(to.off, name, false, to.what)
	}
}
