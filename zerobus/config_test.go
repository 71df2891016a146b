package zerobus_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/zerobus"
)

func TestConfigProblems(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*zerobus.Config)
		want   string
	}{
		{"no workspace", func(c *zerobus.Config) { c.WorkspaceURL = " " }, "zerobus.workspace_url is required"},
		{"clear text", func(c *zerobus.Config) { c.WorkspaceURL = "http://abc.cloud.databricks.com" }, "must be https"},
		{"clear text to a name like localhost", func(c *zerobus.Config) { c.WorkspaceURL = "http://localhost.example.com" }, "must be https"},
		{"other scheme", func(c *zerobus.Config) { c.WorkspaceURL = "ftp://abc.example" }, "must be an https URL"},
		{"no host", func(c *zerobus.Config) { c.WorkspaceURL = "https:///x" }, "must be a URL"},
		{"not a URL", func(c *zerobus.Config) { c.WorkspaceURL = "https://a b" }, "must be a URL"},
		{"password", func(c *zerobus.Config) { c.WorkspaceURL = "https://u:hunter2@abc.example" }, "must not hold a user or password"},
		{"no id", func(c *zerobus.Config) { c.ClientID = "" }, "zerobus.client_id is required"},
		{"no secret", func(c *zerobus.Config) { c.ReadCredential = nil }, "zerobus.client_secret is required"},
		{"no table", func(c *zerobus.Config) { c.Table = "" }, "zerobus.table is required"},
		{"no catalog", func(c *zerobus.Config) { c.Catalog = "" }, "zerobus.catalog is required"},
		{"dotted schema", func(c *zerobus.Config) { c.Schema = "a.b" }, "must be a Unity Catalog name"},
		{"disagreeing", func(c *zerobus.Config) { c.Table = "other.events.stream" }, "contradicts zerobus.table"},
		{"transport", func(c *zerobus.Config) { c.Transport = "carrier-pigeon" }, "must be one of auto, workspace, grpc, rest"},
		{"timeout", func(c *zerobus.Config) { c.Timeout = -time.Second }, `zerobus.timeout "-1s" must be between`},
		{"probe", func(c *zerobus.Config) { c.ProbeEvery = -1 }, "probe_every"},
		{"rate", func(c *zerobus.Config) { c.RateLimit = -1 }, `zerobus.rate_limit "-1" must be`},
		{"size", func(c *zerobus.Config) { c.MaxRequestBytes = 11 << 20 }, `zerobus.max_request_bytes "11MiB" must be between`},
		{"token address", func(c *zerobus.Config) { c.TokenURL = "http://idp.example/token" }, "token_url"},
		{"path", func(c *zerobus.Config) { c.IngestPath = "ingest" }, "ingest_path"},
		{"path escape", func(c *zerobus.Config) { c.IngestPath = "/%zz" }, "ingest_path"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config("https://abc.cloud.databricks.com")
			tt.change(&cfg)
			_, err := zerobus.New(cfg, zap.NewNop(), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want it to hold %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("New: %v holds the password", err)
			}
		})
	}
	_, err := zerobus.New(zerobus.Config{}, zap.NewNop(), nil)
	if got := strings.Count(err.Error(), "\n") + 1; got < 5 {
		t.Errorf("New of an empty config reports %d problems, want all at once: %v", got, err)
	}
}

func TestConfigForms(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*zerobus.Config)
	}{
		{"no scheme", func(c *zerobus.Config) { c.WorkspaceURL = "abc.cloud.databricks.com" }},
		{"from the address bar", func(c *zerobus.Config) { c.WorkspaceURL = " https://abc.cloud.databricks.com/browse/?o=123#x " }},
		{"loopback", func(c *zerobus.Config) { c.WorkspaceURL = "http://127.0.0.1:8090/" }},
		{"loopback v6", func(c *zerobus.Config) { c.WorkspaceURL = "http://[::1]:8090" }},
		{"localhost", func(c *zerobus.Config) { c.WorkspaceURL = "http://localhost:8090" }},
		{"full table name", func(c *zerobus.Config) { c.Catalog, c.Schema, c.Table = "", "", "datafly.events.stream" }},
		{"full and agreeing", func(c *zerobus.Config) { c.Table = "datafly.events.stream" }},
		{"token elsewhere", func(c *zerobus.Config) { c.TokenURL = "https://idp.example/token" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config("https://abc.cloud.databricks.com")
			tt.change(&cfg)
			c, err := zerobus.New(cfg, zap.NewNop(), nil)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			if got, want := c.Table().String(), "datafly.events.stream"; got != want {
				t.Errorf("table is %s, want %s", got, want)
			}
			got := c.State()
			if !strings.Contains(got.Endpoint, "://") {
				t.Errorf("rows go to %q, want the workspace", got.Endpoint)
			}
			want := zerobus.State{Name: zerobus.Ready, Table: "datafly.events.stream", Transport: zerobus.TransportWorkspace,
				Endpoint: got.Endpoint, TransportReason: "zerobus.transport is set"}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("state of a new client is %+v, want ready", got)
			}
		})
	}
}
