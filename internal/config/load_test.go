package config_test

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/mapping"
)

// complete is the shortest file that passes.
const complete = `
kafka:
  topics: [events]
zerobus:
  workspace_url: https://abc.cloud.databricks.com
  client_id: app
  client_secret: hush
  catalog: c
  schema: s
  table: t
`

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, o config.Options) *config.Config {
	t.Helper()
	c, err := config.Load(o)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func TestLoadTellsAllMissingKeysAtOnce(t *testing.T) {
	t.Chdir(t.TempDir()) // no config.yaml here, which is no problem in itself
	_, err := config.Load(config.Options{})
	var got []string
	for _, p := range config.Problems(err) {
		got = append(got, p.Key)
		if p.Rule != "is required" || !strings.Contains(p.Remedy, "BRIDGE_") {
			t.Errorf("%s: got %q, want the rule and the variable to set", p.Key, p)
		}
	}
	want := []string{"kafka.topics", "zerobus.workspace_url", "zerobus.client_id", "zerobus.client_secret",
		"zerobus.catalog", "zerobus.schema", "zerobus.table"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	file := write(t, complete+"log: {level: debug}\n")
	o := config.Options{File: file}
	steps := []struct {
		add   func()
		group string
		level string
	}{
		{func() {}, "zerobus-bridge", "debug"},
		{func() { o.Env = append(o.Env, "KAFKA_CONSUMER_GROUP=from-signal", "LOG_LEVEL=ERROR") }, "from-signal", "error"},
		{func() { o.Env = append(o.Env, "BRIDGE_KAFKA_GROUP=from-env") }, "from-env", "error"},
		{func() { o.Env = append(o.Env, "BRIDGE_LOG_LEVEL=") }, "from-env", "error"},
		{func() { o.Flags = map[string]string{"group": "from-flag", "log-level": "warn"} }, "from-flag", "warn"},
		{func() { o.Sets = []string{"kafka.group=from-set"} }, "from-set", "warn"},
		{func() { o.Sets = append(o.Sets, "kafka.group=a=b") }, "a=b", "warn"},
	}
	for i, s := range steps {
		s.add()
		c := load(t, o)
		if c.Kafka.Group != s.group || c.Log.Level != s.level {
			t.Errorf("step %d: got group %q level %q, want %q %q", i, c.Kafka.Group, c.Log.Level, s.group, s.level)
		}
	}
}

func TestEveryKeyComesFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pem")
	if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("sixteen characters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	variants := mapping.Builtins()
	chat := filepath.Join(dir, "chat")
	if err := os.WriteFile(chat, []byte("https://chat.example/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Several environments, since keys exclude one another.
	shared := map[string]string{
		"kafka.brokers": "b1,b2:9093", "kafka.topics": "t1, t2", "kafka.group": "g", "kafka.start": "latest", "kafka.isolation": "read_uncommitted", "kafka.protocol": "consumer",
		"kafka.instance_id": "pod-0", "kafka.client_id": "cl", "kafka.session_timeout": "10s", "kafka.rebalance_timeout": "2m",
		"kafka.fetch_max_bytes": "1MiB", "kafka.fetch_max_partition_bytes": "2048",
		"kafka.tls.enabled": "true", "kafka.tls.ca_file": file, "kafka.tls.cert_file": file, "kafka.tls.key_file": file, "kafka.tls.server_name": "k", "kafka.sasl.allow_plaintext": "true",
		"zerobus.workspace_url": "https://w.example", "zerobus.client_id": "id", "zerobus.catalog": "c", "zerobus.schema": "s", "zerobus.table": "t",
		"zerobus.transport": "grpc", "zerobus.endpoint": "https://z.example", "zerobus.workspace_id": "12", "zerobus.record_format": "json", "zerobus.streams": "2",
		"zerobus.max_in_flight": "8MiB", "zerobus.columns_refresh": "1m", "zerobus.omit_operations": "true", "zerobus.token_url": "https://idp.example/token", "zerobus.scope": "sc", "zerobus.ingest_path": "/in",
		"zerobus.timeout": "5s", "zerobus.rate_limit": "2.5", "zerobus.gzip": "true", "zerobus.timestamp_format": "rfc3339", "zerobus.ca_file": file,
		"zerobus.max_request_bytes": "5MiB", "mapping.input": "mapped", "mapping.invalid_utf8": "replace",
		"mapping.timestamp_fallback": "kafka", "mapping.on_bad_timestamp": "next", "mapping.require_consent": "analytics,marketing", "mapping.on_missing_consent": "drop", "mapping.max_events_per_record": "500",
		"delivery.max_rows": "7", "delivery.max_bytes": "2MiB", "delivery.max_buffered": "8MiB", "delivery.linger": "20ms", "delivery.drain": "3s", "delivery.stuck_after": "90s",
		"rejects.policy": "skip", "rejects.topic": "bad", "rejects.create": "false", "rejects.partitions": "3", "rejects.replication_factor": "2",
		"ops.address": ":9400", "ops.pprof": "true", "ops.partition_metrics": "false", "ops.live_events": "full", "ops.peers": "a,b:1", "webhook.states": "blocked,failed", "tracing.enabled": "true", "tracing.max_per_second": "7", "log.level": "debug", "log.format": "console",
		"store.enabled": "true", "store.topic": "installed", "store.keys": key, "store.allowed_hosts": "a.example,*.b.example", "store.variants_dir": "variants",
		"admin.enabled": "true", "admin.address": "127.0.0.1:1", "admin.token_file": file, "admin.tls_cert_file": file, "admin.tls_key_file": file, "admin.rate_limit": "7",
		"deployment": "dep", "integrations_dir": dir,
	}
	environments := []map[string]string{
		{"mapping.blueprint": file, "admin.jwks_file": file, "admin.jwt_audience": "console",
			"zerobus.client_secret": "v", "ops.token": "sixteen characters", "webhook.url": "https://chat.example/x", "webhook.secret": "sixteen characters", "kafka.sasl.mechanism": "SCRAM-SHA-512", "kafka.sasl.username": "u", "kafka.sasl.password": "p"},
		{"mapping.blueprint_text": "version: 2\n", "admin.jwt_secret_file": key, "admin.jwt_audience": "console",
			"zerobus.client_secret_file": file, "ops.token_file": token, "webhook.url_file": chat, "webhook.secret_file": token, "kafka.sasl.mechanism": "plain", "kafka.sasl.username": "u", "kafka.sasl.password_file": file},
		{"zerobus.client_secret": "v", "ops.token": "sixteen characters", "kafka.sasl.mechanism": "OAUTHBEARER", "kafka.sasl.oauth.token_url": "https://idp.example", "kafka.sasl.oauth.client_id": "i",
			"kafka.sasl.oauth.client_secret": "s", "kafka.sasl.oauth.scopes": "a,b"},
		{"zerobus.client_secret": "v", "ops.token": "sixteen characters", "kafka.sasl.mechanism": "oauthbearer", "kafka.sasl.oauth.token_url": "https://idp.example", "kafka.sasl.oauth.client_id": "i",
			"kafka.sasl.oauth.client_secret_file": file},
		{"mapping.variant": variants[len(variants)-1],
			"zerobus.client_secret": "v", "ops.token": "sixteen characters", "zerobus.transport": "workspace", "zerobus.confirm": "lenient"},
		{"zerobus.token_exchange.token_file": file, "zerobus.token_exchange.policy": "account", "ops.token": "sixteen characters"},
	}
	defaults := leaves(reflect.ValueOf(config.Defaults()), "")
	changed := map[string]bool{}
	for _, variant := range environments {
		var env []string
		all := maps.Clone(shared)
		maps.Copy(all, variant)
		for path, value := range all {
			env = append(env, "BRIDGE_"+strings.ToUpper(strings.ReplaceAll(path, ".", "_"))+"="+value)
		}
		c := load(t, config.Options{File: filepath.Join(dir, "none.yaml"), Env: env})
		for path, value := range leaves(reflect.ValueOf(*c), "") {
			_, given := shared[path]
			_, too := variant[path]
			if (given || too) && !reflect.DeepEqual(value, defaults[path]) {
				changed[path] = true
			}
		}
	}
	for path := range defaults {
		if !changed[path] && (path != "mapping.variant" || len(variants) > 1) {
			t.Errorf("%s did not come from the environment", path)
		}
	}
}

func TestEnvironmentThatIsNotOurs(t *testing.T) {
	file := write(t, complete)
	// What Kubernetes adds for Services named bridge and bridge-ops.
	c := load(t, config.Options{File: file, Env: []string{
		"BRIDGE_SERVICE_HOST=10.0.0.1", "BRIDGE_SERVICE_PORT=9400", "BRIDGE_SERVICE_PORT_HTTP_METRICS=9400", "BRIDGE_PORT=tcp://10.0.0.1:9400",
		"BRIDGE_PORT_9400_TCP=tcp://10.0.0.1:9400", "BRIDGE_PORT_9400_TCP_PROTO=tcp", "BRIDGE_PORT_9400_TCP_PORT=9400", "BRIDGE_PORT_9400_TCP_ADDR=10.0.0.1",
		"BRIDGE_OPS_SERVICE_HOST=10.0.0.2", "BRIDGE_OPS_PORT_80_TCP_ADDR=10.0.0.2", "PATH=/bin", "=odd", "noequals", "BRIDGE_NOTHING=",
	}})
	if c.Ops.Address != "127.0.0.1:9400" {
		t.Errorf("ops.address: got %q, want the default", c.Ops.Address)
	}
	_, err := config.Load(config.Options{File: file, Env: []string{"BRIDGE_ZEROBUS_CLIENT_SERCET=abc", "BRIDGE_WEATHER=fine"}})
	if got := err.Error(); !strings.Contains(got, "BRIDGE_ZEROBUS_CLIENT_SERCET is not a variable of the bridge; did you mean BRIDGE_ZEROBUS_CLIENT_SECRET?") ||
		!strings.Contains(got, "BRIDGE_WEATHER is not a variable") || strings.Contains(got, "abc") {
		t.Errorf("got %q, want both variables named, one with its right name, and no value", got)
	}
}

func TestFlags(t *testing.T) {
	file := write(t, complete)
	parse := func(args ...string) config.Options {
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		config.AddFlags(fs, "brokers", "topics", "topic", "group", "log-level", "ops-address")
		fs.Bool("verbose", false, "another command's flag")
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		return config.FromFlags(fs, []string{"BRIDGE_KAFKA_GROUP=env"})
	}
	if o := parse(); o.FileRequired || o.File != "" || len(o.Flags) != 0 {
		t.Errorf("no flags: got %+v, want nothing asked for", o)
	}
	c := load(t, parse("--config", file, "--verbose", "--brokers", "a:1,b:2", "--topic", "x", "--log-level=warn", "--ops-address=:0",
		"--set", "delivery.drain=10s", "--set", "kafka.sasl.mechanism=plain", "--set", "kafka.sasl.username=u", "--set", "kafka.sasl.password=p,q", "--set", "kafka.tls.enabled=true"))
	if got := c.Kafka; !reflect.DeepEqual(got.Brokers, []string{"a:1", "b:2"}) || !reflect.DeepEqual(got.Topics, []string{"x"}) || got.Group != "env" ||
		got.SASL.Password.Reveal() != "p,q" {
		t.Errorf("kafka: got %+v", got)
	}
	if c.Log.Level != "warn" || c.Ops.Address != ":0" || c.Delivery.Drain != 10*time.Second {
		t.Errorf("got level %q, address %q, drain %v", c.Log.Level, c.Ops.Address, c.Delivery.Drain)
	}
	if c := load(t, parse("--config", file, "--topics", "x,y", "--group", "flag")); len(c.Kafka.Topics) != 2 || c.Kafka.Group != "flag" {
		t.Errorf("got topics %v, group %q", c.Kafka.Topics, c.Kafka.Group)
	}
	missing := filepath.Join(t.TempDir(), "absent.yaml")
	if _, err := config.Load(parse("--config", missing)); err == nil || !strings.Contains(err.Error(), missing+": cannot be opened: no such file") {
		t.Errorf("named file missing: got %v, want it reported", err)
	}
	_, err := config.Load(parse("--config", file, "--set", "zerobus.client_secret:oops", "--set", "zerobus.client_sercet=oops", "--topic", "a", "--topics", "b"))
	for _, want := range []string{"--set must have the form section.key=value", "--set: unknown key zerobus.client_sercet; did you mean zerobus.client_secret?",
		"is the same key as"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "oops") {
		t.Errorf("a value that may be a secret is repeated: %v", err)
	}
	if _, err := config.Load(config.Options{File: file, Flags: map[string]string{"colour": "red"}}); err == nil || !strings.Contains(err.Error(), "--colour is not a flag") {
		t.Errorf("unknown flag: got %v", err)
	}
}

func TestNormalising(t *testing.T) {
	tests := []struct{ set, get, want string }{
		{"zerobus.workspace_url=abc.cloud.databricks.com", "workspace_url", "https://abc.cloud.databricks.com"},
		{"zerobus.workspace_url=https://adb-1.2.azuredatabricks.net/?o=1#notebook", "workspace_url", "https://adb-1.2.azuredatabricks.net"},
		{"zerobus.workspace_url=https://abc.gcp.databricks.com///", "workspace_url", "https://abc.gcp.databricks.com"},
		{"zerobus.workspace_url=http://127.0.0.1:8443", "workspace_url", "http://127.0.0.1:8443"},
		{"zerobus.workspace_url=http://[::1]:8443/x", "workspace_url", "http://[::1]:8443"},
		{"zerobus.workspace_url=http://LOCALHOST:1", "workspace_url", "http://LOCALHOST:1"},
		{"zerobus.table=`my-table`", "table", "my-table"},
		{"zerobus.table=c.s.other", "table", "other"},
		{"zerobus.table=`c`.`s`.`o-t`", "table", "o-t"},
	}
	file := write(t, complete)
	for _, tt := range tests {
		c := load(t, config.Options{File: file, Sets: []string{tt.set}})
		if got := c.Redacted()["zerobus"].(map[string]any)[tt.get]; got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.set, got, tt.want)
		}
	}
	full := load(t, config.Options{File: write(t, strings.Replace(strings.Replace(complete, "  catalog: c\n  schema: s\n", "", 1), "table: t", "table: a.b.d", 1))})
	if z := full.Zerobus; z.Catalog != "a" || z.Schema != "b" || z.Table != "d" {
		t.Errorf("full table name: got %q %q %q, want a b d", z.Catalog, z.Schema, z.Table)
	}
}

func TestPartialAsksForNothingButHoldsWhatIsThere(t *testing.T) {
	o := config.Options{File: write(t, "zerobus: {client_secret_file: /nowhere, table: a.b.c}\nmapping: {blueprint: /nowhere}\nkafka: {sasl: {mechanism: plain}}\n"), Partial: true}
	if c := load(t, o); c.Zerobus.Catalog != "a" {
		t.Errorf("catalog: got %q, want a", c.Zerobus.Catalog)
	}
	o.Sets = []string{"mapping.input=automatic"}
	if _, err := config.Load(o); len(config.Problems(err)) != 1 {
		t.Errorf("got %v, want one problem about mapping.input", err)
	}
}
