package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// Each row breaks one rule by --set. The problem must name the key and hold the text.
// manyPeers is one more than are allowed.
func manyPeers() string {
	var all []string
	for i := range 257 {
		all = append(all, fmt.Sprint("bridge-", i))
	}
	return strings.Join(all, ",")
}

func TestRules(t *testing.T) {
	dir := t.TempDir()
	empty, some, huge := filepath.Join(dir, "empty"), filepath.Join(dir, "some"), filepath.Join(dir, "huge")
	for path, text := range map[string]string{empty: "\n \n", some: "x\n", huge: strings.Repeat("x", 70_000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := []string{"kafka.sasl.mechanism=plain", "kafka.sasl.username=u"}
	tests := []struct {
		key  string
		sets []string
		want string
	}{
		{"kafka.brokers", []string{"kafka.brokers="}, "at least one broker"},
		{"kafka.brokers", []string{"kafka.brokers=a:9092,,b"}, "empty item"},
		{"kafka.brokers", []string{"kafka.brokers=kafka://a:9092"}, "without a scheme; write a:9092"},
		{"kafka.brokers", []string{"kafka.brokers=a:0"}, "port from 1 to 65535"},
		{"kafka.brokers", []string{"kafka.brokers=a:65536"}, "port from 1 to 65535"},
		{"kafka.brokers", []string{"kafka.brokers=a:http"}, "port from 1 to 65535"},
		{"kafka.brokers", []string{"kafka.brokers=:9092"}, "must be host:port"},
		{"kafka.brokers", []string{"kafka.brokers=2001:db8::1"}, "for IPv6"},
		{"kafka.topics", []string{"kafka.topics="}, "is required"},
		{"kafka.topics", []string{"kafka.topics=a,a"}, "listed twice"},
		{"kafka.topics", []string{"kafka.topics=events.*"}, "patterns are not understood"},
		{"kafka.topics", []string{"kafka.topics=.."}, "more than dots"},
		{"kafka.topics", []string{"kafka.topics=" + strings.Repeat("a", 250)}, "249 characters"},
		{"kafka.group", []string{"kafka.group="}, "must not be empty"},
		{"kafka.group", []string{"kafka.group=event-processor"}, "Signal's own Event Processor"},
		{"kafka.start", []string{"kafka.start=earlist"}, "did you mean earliest?"},
		{"kafka.start", []string{"kafka.start=whenever"}, "must be one of earliest, latest; choose one of them"},
		{"kafka.isolation", []string{"kafka.isolation=committed"}, "read_committed"},
		{"kafka.protocol", []string{"kafka.protocol=consumers"}, "did you mean consumer?"},
		{"kafka.instance_id", []string{"kafka.instance_id=a b"}, "letters, digits"},
		{"kafka.session_timeout", []string{"kafka.session_timeout=45ms"}, "between 1s and 30m"},
		{"kafka.session_timeout", []string{"kafka.session_timeout=2m"}, "not be longer than kafka.rebalance_timeout (1m)"},
		{"kafka.session_timeout", []string{"kafka.session_timeout=45"}, "duration with its unit"},
		{"kafka.rebalance_timeout", []string{"kafka.rebalance_timeout=1h"}, "between 1s and 30m"},
		{"kafka.fetch_max_bytes", []string{"kafka.fetch_max_bytes=1GiB"}, "between 1KiB and 100MiB"},
		{"kafka.fetch_max_bytes", []string{"kafka.fetch_max_bytes=4M"}, "one of the units KiB"},
		{"kafka.fetch_max_partition_bytes", []string{"kafka.fetch_max_partition_bytes=10"}, "between 1KiB and 100MiB"},
		{"kafka.fetch_max_partition_bytes", []string{"kafka.fetch_max_partition_bytes=5MiB"}, "not be larger than kafka.fetch_max_bytes (4MiB)"},
		{"kafka.tls.enabled", []string{"kafka.tls.enabled=yes"}, "true or false"},
		{"kafka.tls.ca_file", []string{"kafka.tls.ca_file=" + some}, "no effect while kafka.tls.enabled is false"},
		{"kafka.tls.server_name", []string{"kafka.tls.server_name=x"}, "no effect while kafka.tls.enabled is false"},
		{"kafka.tls.ca_file", []string{"kafka.tls.enabled=true", "kafka.tls.ca_file=/nowhere"}, "cannot be read: no such file"},
		{"kafka.tls.ca_file", []string{"kafka.tls.enabled=true", "kafka.tls.ca_file=" + dir}, "it is a folder"},
		{"kafka.tls.cert_file", []string{"kafka.tls.enabled=true", "kafka.tls.cert_file=" + some}, "needs kafka.tls.key_file"},
		{"kafka.tls.key_file", []string{"kafka.tls.enabled=true", "kafka.tls.key_file=" + some}, "needs kafka.tls.cert_file"},
		{"kafka.sasl.mechanism", []string{"kafka.sasl.mechanism=SCRAM-SHA-215"}, "did you mean scram-sha-256?"},
		{"kafka.sasl.mechanism", []string{"kafka.sasl.mechanism=AWS_MSK_IAM"}, "needs TLS"},
		{"kafka.sasl.mechanism", append(plain, "kafka.sasl.password=p", "kafka.brokers=localhost:9092,kafka-0.example:9092"), "would send the password readable to kafka-0.example:9092"},
		{"kafka.sasl.mechanism", []string{"kafka.sasl.mechanism=oauthbearer", "kafka.sasl.oauth.token_url=https://i", "kafka.sasl.oauth.client_id=i", "kafka.sasl.oauth.client_secret=s", "kafka.brokers=10.0.0.1"},
			"would send the token readable to 10.0.0.1"},
		{"kafka.sasl.username", []string{"kafka.sasl.username=u"}, "no effect with kafka.sasl.mechanism none"},
		{"kafka.sasl.username", []string{"kafka.sasl.mechanism=scram-sha-256", "kafka.sasl.password=p"}, "is required with kafka.sasl.mechanism scram-sha-256"},
		{"kafka.sasl.password", plain, "set kafka.sasl.password_file to a file that holds the user's password, or the secret itself as BRIDGE_KAFKA_SASL_PASSWORD"},
		{"kafka.sasl.password_file", append(plain, "kafka.sasl.password=p", "kafka.sasl.password_file="+some), "together with kafka.sasl.password"},
		{"kafka.sasl.password_file", append(plain, "kafka.sasl.password_file="+empty), "is empty"},
		{"kafka.sasl.oauth.scopes", append(plain, "kafka.sasl.password=p", "kafka.sasl.oauth.scopes=a"), "no effect with kafka.sasl.mechanism plain"},
		{"kafka.sasl.oauth.token_url", []string{"kafka.sasl.mechanism=oauthbearer", "kafka.sasl.oauth.client_id=i", "kafka.sasl.oauth.client_secret=s"}, "is required"},
		{"kafka.sasl.oauth.token_url", []string{"kafka.sasl.mechanism=oauthbearer", "kafka.sasl.oauth.client_id=i", "kafka.sasl.oauth.client_secret=s",
			"kafka.sasl.oauth.token_url=http://idp.example/token"}, "must be https"},
		{"kafka.sasl.oauth.client_id", []string{"kafka.sasl.mechanism=oauthbearer", "kafka.sasl.oauth.token_url=https://i", "kafka.sasl.oauth.client_secret=s"}, "is required"},
		{"kafka.sasl.oauth.client_secret", []string{"kafka.sasl.mechanism=oauthbearer", "kafka.sasl.oauth.token_url=https://i", "kafka.sasl.oauth.client_id=i"}, "is required"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=http://abc.cloud.databricks.com"}, "must be https"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=ftp://abc"}, "must be an https URL"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=https://"}, "must be a URL"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=https://abc:99999"}, "valid host and port"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=https://<workspace>.cloud.databricks.com"}, "must"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=https://me:hunter2@abc.example"}, "must not hold a user or password"},
		{"zerobus.workspace_url", []string{"zerobus.workspace_url=https://me:hunter2@a b.example"}, `"...@a b.example" must be a URL`},
		{"zerobus.client_secret_file", []string{"zerobus.client_secret=", "zerobus.client_secret_file=" + dir}, "is a directory"},
		{"zerobus.client_secret_file", []string{"zerobus.client_secret_file=" + some}, "together with zerobus.client_secret"},
		{"zerobus.client_secret_file", []string{"zerobus.client_secret=", "zerobus.client_secret_file=/nowhere"}, "cannot be used: no such file"},
		{"zerobus.client_secret_file", []string{"zerobus.client_secret=", "zerobus.client_secret_file=" + huge}, "is larger than"},
		{"zerobus.token_exchange.token_file", []string{"zerobus.token_exchange.token_file=" + some}, "must not be set together with zerobus.client_secret; keep one of the two"},
		{"zerobus.token_exchange.token_file", []string{"zerobus.client_secret=", "zerobus.client_secret_file=" + some, "zerobus.token_exchange.token_file=" + some}, "together with zerobus.client_secret_file"},
		{"zerobus.token_exchange.token_file", []string{"zerobus.client_secret=", "zerobus.token_exchange.token_file=/nowhere"}, "cannot be used: no such file"},
		{"zerobus.token_exchange.token_file", []string{"zerobus.client_secret=", "zerobus.token_exchange.token_file=" + huge}, "is larger than"},
		{"zerobus.token_exchange.policy", []string{"zerobus.client_secret=", "zerobus.token_exchange.token_file=" + some, "zerobus.token_exchange.policy=workspace"}, "must be one of service_principal, account"},
		{"zerobus.catalog", []string{"zerobus.catalog=a.b"}, "Unity Catalog name"},
		{"zerobus.schema", []string{"zerobus.schema=a b"}, "Unity Catalog name"},
		{"zerobus.table", []string{"zerobus.table=s.t"}, "or all of catalog.schema.table"},
		{"zerobus.table", []string{"zerobus.table=" + strings.Repeat("t", 256)}, "at most 255 characters"},
		{"zerobus.catalog", []string{"zerobus.table=other.s.t"}, "contradicts zerobus.table (other.s.t)"},
		{"zerobus.schema", []string{"zerobus.table=c.other.t"}, "contradicts zerobus.table (c.other.t)"},
		{"zerobus.transport", []string{"zerobus.transport=carrier-pigeon"}, "must be one of auto, workspace, grpc, rest"},
		{"zerobus.endpoint", []string{"zerobus.transport=rest", "zerobus.endpoint=http://z.example"}, "must be https"},
		{"zerobus.endpoint", []string{"zerobus.endpoint=z.example:99999"}, "valid host and port"},
		{"zerobus.workspace_id", []string{"zerobus.workspace_id=a b"}, "after ?o="},
		{"zerobus.record_format", []string{"zerobus.record_format=proto"}, "must be one of auto, protobuf, json"},
		{"zerobus.streams", []string{"zerobus.streams=0"}, "between 1 and 64"},
		{"zerobus.max_in_flight", []string{"zerobus.max_in_flight=1KiB"}, "between 1MiB and 1GiB"},
		{"zerobus.columns_refresh", []string{"zerobus.columns_refresh=1ms"}, "between 1s and 24h"},
		{"zerobus.omit_operations", []string{"zerobus.omit_operations=perhaps"}, "true or false"},
		{"zerobus.token_url", []string{"zerobus.token_url=/oidc/v1/token"}, "must be a URL"},
		{"zerobus.scope", []string{"zerobus.scope="}, "must not be empty"},
		{"zerobus.ingest_path", []string{"zerobus.ingest_path=https://abc/ingest"}, "begins with one slash"},
		{"zerobus.ingest_path", []string{"zerobus.ingest_path=//abc/ingest"}, "begins with one slash"},
		{"zerobus.ingest_path", []string{"zerobus.ingest_path=/a?b=c"}, "without a query"},
		{"zerobus.confirm", []string{"zerobus.confirm=perhaps"}, "must be one of strict, lenient"},
		{"zerobus.timeout", []string{"zerobus.timeout=0s"}, "between 100ms and 10m"},
		{"zerobus.rate_limit", []string{"zerobus.rate_limit=-1"}, "0 or more"},
		{"zerobus.rate_limit", []string{"zerobus.rate_limit=NaN"}, "0 or more"},
		{"zerobus.rate_limit", []string{"zerobus.rate_limit=fast"}, "must be a number"},
		{"zerobus.gzip", []string{"zerobus.gzip=on"}, "true or false"},
		{"zerobus.timestamp_format", []string{"zerobus.timestamp_format=micro"}, "did you mean micros?"},
		{"zerobus.ca_file", []string{"zerobus.ca_file=/nowhere"}, "cannot be read"},
		{"zerobus.max_request_bytes", []string{"zerobus.max_request_bytes=100MiB"}, "between 1KiB and 10MiB"},
		{"mapping.blueprint", []string{"mapping.blueprint=/nowhere"}, "cannot be read"},
		{"mapping.input", []string{"mapping.input=json"}, "must be one of auto, canonical, mapped"},
		{"mapping.invalid_utf8", []string{"mapping.invalid_utf8=replaced"}, "did you mean replace?"},
		{"mapping.timestamp_fallback", []string{"mapping.timestamp_fallback=now"}, "must be one of none, kafka"},
		{"mapping.on_bad_timestamp", []string{"mapping.on_bad_timestamp=null"}, "must be one of reject, next"},
		{"mapping.require_consent", []string{"mapping.require_consent=analytics,analytics"}, "listed twice"},
		{"mapping.on_missing_consent", []string{"mapping.on_missing_consent=deny"}, "must be one of allow, drop"},
		{"mapping.max_events_per_record", []string{"mapping.max_events_per_record=0"}, "between 1 and 1048576"},
		{"delivery.max_rows", []string{"delivery.max_rows=0"}, "between 1 and 1000000"},
		{"delivery.max_rows", []string{"delivery.max_rows=5k"}, "whole number"},
		{"delivery.max_bytes", []string{"delivery.max_bytes=1"}, "between 1KiB and 1GiB"},
		{"delivery.max_bytes", []string{"delivery.max_bytes=11MiB"}, "not be larger than zerobus.max_request_bytes (10MiB)"},
		{"delivery.max_buffered", []string{"delivery.max_buffered=2TiB"}, "must be a whole number of bytes"},
		{"delivery.max_buffered", []string{"delivery.max_buffered=2000GiB"}, "between 1KiB and 1024GiB"},
		{"delivery.max_buffered", []string{"delivery.max_buffered=3MiB"}, "not be smaller than delivery.max_bytes (4MiB)"},
		{"delivery.linger", []string{"delivery.linger=-1s"}, "between 0s and 1m"},
		{"delivery.linger", []string{"delivery.linger=20s"}, "shorter than delivery.drain (20s)"},
		{"delivery.drain", []string{"delivery.drain=0s"}, "between 100ms and 10m"},
		{"delivery.stuck_after", []string{"delivery.stuck_after=25h"}, "between 0s and 24h"},
		{"delivery.drain", []string{"delivery.drain=60s"}, "shorter than kafka.rebalance_timeout (1m)"},
		{"rejects.policy", []string{"rejects.policy=dead-leter"}, "did you mean dead_letter?"},
		{"rejects.topic", []string{"rejects.topic=events"}, "must not be one of kafka.topics"},
		{"rejects.topic", []string{"kafka.topics=a,a-dlq"}, "must not be one of kafka.topics"},
		{"rejects.topic", []string{"rejects.topic=a/b"}, "letters, digits"},
		{"rejects.create", []string{"rejects.create=maybe"}, "true or false"},
		{"rejects.partitions", []string{"rejects.partitions=-1"}, "between 0 and 10000"},
		{"rejects.replication_factor", []string{"rejects.replication_factor=0"}, "must be -1"},
		{"tracing.max_per_second", []string{"tracing.max_per_second=0"}, "between 1 and 10000"},
		{"webhook.url", []string{"webhook.url=chat"}, "must be an http or https URL"},
		{"webhook.states", []string{"webhook.states=fine"}, "is not a state"},
		{"ops.live_events", []string{"ops.live_events=on"}, "must be one of off, metadata, full"},
		{"ops.live_events", []string{"ops.live_events=full", "ops.address=:9400"}, "must not be full without ops.token"},
		{"ops.live_events", []string{"ops.live_events=full", "ops.address=bridge.example:9400"}, "must not be full without ops.token"},
		{"ops.token", []string{"ops.token=too short"}, "at least 16 characters"},
		{"ops.token_file", []string{"ops.token_file=" + some}, "at least 16 characters"},
		{"ops.token_file", []string{"ops.token_file=" + empty}, "is empty"},
		{"ops.token_file", []string{"ops.token_file=" + some, "ops.token=0123456789abcdef"}, "must not be set together"},
		{"ops.address", []string{"ops.address=9400"}, "must be host:port"},
		{"ops.address", []string{"ops.address=:70000"}, "port from 0 to 65535"},
		{"ops.address", []string{"ops.address="}, "must be host:port"},
		{"mapping.variant", []string{"mapping.variant=retial"}, "must be one of default, retail; did you mean retail?"},
		{"mapping.blueprint_text", []string{"mapping.blueprint_text=version: 2", "mapping.blueprint=" + some}, "must not be set together with mapping.blueprint; keep one"},
		{"store.topic", []string{"store.enabled=true", "store.topic=a b"}, "at most 243 characters"},
		{"store.topic", []string{"store.enabled=true", "store.topic=.."}, "at most 243 characters"},
		{"store.topic", []string{"store.enabled=true", "store.topic=" + strings.Repeat("t", 244)}, "at most 243 characters"},
		{"kafka.topics", []string{"store.enabled=true", "store.topic=events"}, "is a topic of the store"},
		{"kafka.topics", []string{"store.enabled=true", "store.topic=x", "kafka.topics=events,x-audit"}, "is a topic of the store"},
		{"rejects.topic", []string{"admin.enabled=true", "rejects.topic=x", "store.topic=x"}, "is a topic of the store"},
		{"rejects.topic", []string{"admin.enabled=true", "rejects.topic=x-audit", "store.topic=x"}, "is a topic of the store"},
		{"store.keys", []string{"store.enabled=true", "store.keys=" + some}, "it has 2 bytes instead of 32; make a key with: openssl rand"},
		{"store.keys", []string{"store.enabled=true", "store.keys=/nowhere"}, "cannot be used: no such file"},
		{"store.allowed_hosts", []string{"store.enabled=true", "store.allowed_hosts=a.example,https://b.example"}, "without scheme, port and path"},
		{"store.allowed_hosts", []string{"store.enabled=true", "store.allowed_hosts=*"}, "without scheme, port and path"},
		{"admin.address", []string{"admin.enabled=true", "admin.address=8084"}, "must be host:port"},
		{"admin.address", []string{"admin.enabled=true", "admin.address=:8084"}, "can be reached from other machines, and no token is required; set admin.token_file"},
		{"admin.address", []string{"admin.enabled=true", "admin.address=127.0.0.1:9400"}, "must not be that of ops.address"},
		{"admin.token_file", []string{"admin.enabled=true", "admin.token_file=/nowhere"}, "cannot be read: no such file"},
		{"admin.jwt_secret_file", []string{"admin.enabled=true", "admin.jwt_secret_file=/nowhere"}, "cannot be used: no such file"},
		{"admin.jwt_secret_file", []string{"admin.enabled=true", "admin.jwt_secret_file=" + some}, "at least 32 characters"},
		{"admin.jwks_file", []string{"admin.enabled=true", "admin.jwt_secret_file=" + some, "admin.jwks_file=" + some}, "must not be set together with admin.jwt_secret_file"},
		{"admin.jwt_audience", []string{"admin.enabled=true", "admin.jwks_file=" + some}, "made for another program would be accepted; set it to the client id"},
		{"admin.jwt_audience", []string{"admin.enabled=true", "admin.jwt_audience=x"}, "has no effect without JSON Web Tokens"},
		{"admin.tls_key_file", []string{"admin.enabled=true", "admin.tls_key_file=" + some}, "needs admin.tls_cert_file beside it"},
		{"admin.tls_cert_file", []string{"admin.enabled=true", "admin.tls_cert_file=" + some}, "needs admin.tls_key_file beside it"},
		{"admin.rate_limit", []string{"admin.enabled=true", "admin.rate_limit=0"}, "between 1 and 1000000"},
		{"ops.peers", []string{"ops.peers=a,b:0"}, "port from 1 to 65535"},
		{"ops.peers", []string{"ops.peers=a/b"}, "must be host or host:port"},
		{"ops.peers", []string{"ops.peers=user@a"}, "must be host or host:port"},
		{"ops.peers", []string{"ops.peers=a:b:c"}, "must be host or host:port"},
		{"ops.peers", []string{"ops.peers=:9400"}, "must be host or host:port"},
		{"ops.peers", []string{"ops.peers=http://a:9400"}, "write a:9400"},
		{"ops.peers", []string{"ops.peers=a,a"}, "listed twice"},
		{"ops.peers", []string{"ops.peers=" + manyPeers()}, "more than 256"},
		{"log.level", []string{"log.level=warning"}, "did you mean warn?"},
		{"log.format", []string{"log.format=text"}, "must be one of auto, json, console"},
		{"kafka.group_id", []string{"kafka.group_id=g"}, "did you mean kafka.group?"},
		{"workspace_url", []string{"workspace_url=x"}, "did you mean zerobus.workspace_url?"},
		{"zerobus.max_rows", []string{"zerobus.max_rows=5"}, "did you mean delivery.max_rows?"},
		{"kafka.rebalence_timout", []string{"kafka.rebalence_timout=1s"}, "did you mean kafka.rebalance_timeout?"},
		{"warehouse.client_id", []string{"warehouse.client_id=x"}, "unknown key warehouse.client_id; see config.example.yaml"},
		{strings.Repeat("k", 120) + "...", []string{strings.Repeat("k", 4000) + "=x"}, "see config.example.yaml"},
		{"kafka", []string{"kafka=x"}, "is a section, not a key"},
		{"entirely.elsewhere", []string{"entirely.elsewhere=x"}, "unknown key entirely.elsewhere; see config.example.yaml"},
	}
	file := write(t, complete)
	for _, tt := range tests {
		t.Run(tt.key+" "+tt.want, func(t *testing.T) {
			c, err := config.Load(config.Options{File: file, Sets: tt.sets})
			problems := config.Problems(err)
			if c != nil || len(problems) != 1 {
				t.Fatalf("%v: got %d problems, want one: %v", tt.sets, len(problems), err)
			}
			p := problems[0]
			if p.Key != tt.key || !strings.Contains(p.Error(), tt.want) || p.Remedy == "" {
				t.Errorf("%v: got %q, want key %s and %q", tt.sets, p, tt.key, tt.want)
			}
			if strings.Contains(p.Error(), "hunter2") || strings.Contains(p.Error(), "\n") {
				t.Errorf("%v: got %q, want no secret and one line", tt.sets, p)
			}
		})
	}
}

func TestFileProblems(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"misspelt key", "zerobus:\n  client_sercet: xyzzy\n", ":2: unknown key zerobus.client_sercet; did you mean zerobus.client_secret?"},
		{"misspelt section", "\n\nzerobuss:\n  table: t\n", ":3: unknown key zerobuss; did you mean zerobus?"},
		{"wrong case", "Kafka:\n  Group: g\n", ":1: unknown key Kafka; did you mean kafka?"},
		{"hyphens", "kafka:\n  session-timeout: 3s\n", ":2: unknown key kafka.session-timeout; did you mean kafka.session_timeout?"},
		{"bad value", "log:\n  level: verbose\n", `:2: log.level "verbose" must be one of`},
		{"cross rule", "delivery:\n\n  drain: 3m\n", `:3: delivery.drain "3m" must be shorter than`},
		{"duplicate key", "log:\n  level: info\n  level: warn\n", ":3: log.level is given twice, first on line 2; keep one of them"},
		{"duplicate section", "log: {level: info}\nops: {}\nlog: {}\n", ":3: log is given twice, first on line 1"},
		{"two spellings", "kafka:\n  topic: a\n  topics: [b]\n", ":3: kafka.topics is the same key as kafka.topic"},
		{"section is a value", "zerobus: xyzzy\n", ":1: zerobus must be a section"},
		{"section is a list", "log:\n- level\n", ":2: log must be a section"},
		{"value is a section", "log:\n  level: {a: b}\n", ":2: log.level must be a plain value"},
		{"value is a list", "log:\n  level: [info]\n", `:2: log.level "info" must be a single value`},
		{"list of lists", "kafka:\n  topics: [[a]]\n", ":2: kafka.topics must be a plain value"},
		{"list with a gap", "kafka:\n  topics:\n  - a\n  -\n", `:2: kafka.topics "a," must not hold an empty item`},
		{"key is a list", "log:\n  ? [a]\n  : b\n", ":2: log holds a key that is not a plain name"},
		{"file is a list", "- a\n- b\n", ":1: must hold sections"},
		{"file is a word", "hello\n", ":1: must hold sections"},
		{"merge key", "log:\n  <<: {level: info}\n", ":2: unknown key log.<<"},
		{"syntax", "log:\n  level: info\n format: json\n", "not valid YAML"},
		{"syntax line", "log:\n  level: 'info\n", ":2: not valid YAML"},
		{"second document", "log: {}\n---\nops: {}\n", ": a second YAML document is not read"},
		{"second document broken", "log: {}\n---\nlog: [\n", "not valid YAML"},
		{"secret read as an anchor", "zerobus:\n  client_secret: *xyzzy\n", "unknown anchor (not shown)"},
		{"secret read as a list", "zerobus:\n  client_secret: [xyzzy]\n", ":2: zerobus.client_secret must be a single value"},
		{"secret read as a section", "zerobus:\n  client_secret: {xyzzy: xyzzy}\n", ":2: zerobus.client_secret must be a plain value"},
		{"too large", "#" + strings.Repeat("x", 1<<20) + "\n", "is larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			_, err := config.Load(config.Options{File: file, Partial: true})
			problems := config.Problems(err)
			if len(problems) != 1 {
				t.Fatalf("got %d problems, want one: %v", len(problems), err)
			}
			if got := problems[0].Error(); !strings.HasPrefix(got, file) || !strings.Contains(got, tt.want) || strings.Contains(got, "xyzzy") {
				t.Errorf("got %q, want the file, %q and no secret", got, tt.want)
			}
		})
	}
}

func TestABlankSecretIsNoSecret(t *testing.T) {
	text := strings.Replace(complete, "client_secret: ", "client_id_of_old: ", 1)
	if text == complete {
		t.Fatal("the complete configuration has no client_secret")
	}
	text = strings.Replace(text, "client_id_of_old: ", "client_secret: \"  \" # ", 1)
	_, err := config.Load(config.Options{File: write(t, text)})
	if got := config.Problems(err); len(got) != 1 || !strings.Contains(err.Error(), "zerobus.client_secret is blank; give the secret") {
		t.Errorf("got %v, want the blank secret reported", err)
	}
}

// A file that cannot be read is one problem: that all it would have set is
// missing follows from it, and hides it.
func TestAFileThatCannotBeReadIsOneProblem(t *testing.T) {
	for name, file := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "absent.yaml"),
		"folder":  t.TempDir(),
		"syntax":  write(t, "kafka:\n  topics: [a\n"),
		"large":   write(t, "#"+strings.Repeat("x", 1<<20)+"\n"),
	} {
		// What was given otherwise is held to its form all the same.
		for want, sets := range map[int][]string{1: {"kafka.group=g"}, 2: {"delivery.drain=soon"}} {
			_, err := config.Load(config.Options{File: file, FileRequired: true, Sets: sets})
			if got := config.Problems(err); len(got) != want {
				t.Errorf("%s, with %v: got %d problems, want %d: %v", name, sets, len(got), want, err)
			}
		}
	}
}

func TestFileIsAFolder(t *testing.T) {
	dir := t.TempDir()
	_, err := config.Load(config.Options{File: dir, Partial: true})
	if err == nil || !strings.Contains(err.Error(), dir+": cannot be read: is a directory") {
		t.Errorf("got %v, want the folder named", err)
	}
}

func TestFileForms(t *testing.T) {
	tests := []struct{ name, text string }{
		{"empty", ""},
		{"comments only", "# nothing\n"},
		{"empty document", "---\n"},
		{"byte order mark", "\ufefflog: {level: info}\n"},
		{"empty sections and values", "log:\n  level:\nkafka: ~\nzerobus: {table: null}\n"},
		{"anchors", "kafka:\n  client_id: &name bridge\n  group: *name\n"},
		{"aliased section", "kafka: &k\n  sasl:\n    oauth:\n      client_id: x\n  tls: {}\n  \n"},
		{"crlf", "log:\r\n  level: info\r\n"},
		{"carriage of all scalar types", "kafka: {group: 123, client_id: true, topic: 1.5}\nzerobus: {rate_limit: 1e3}\n"},
	}
	for _, tt := range tests {
		if _, err := config.Load(config.Options{File: write(t, tt.text), Partial: true}); err != nil && tt.name != "aliased section" {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestManyProblemsAtOnceEachOnItsLine(t *testing.T) {
	_, err := config.Load(config.Options{
		File: write(t, "log:\n  levle: info\nkafka:\n  start: soon\n"),
		Env:  []string{"BRIDGE_DELIVERY_MAX_ROWS=many"},
		Sets: []string{"zerobus.timeout=1"},
	})
	lines := strings.Split(err.Error(), "\n")
	if want := 4 + 7; len(lines) != want { // the four above and the seven required
		t.Errorf("got %d lines, want %d:\n%v", len(lines), want, err)
	}
	if got := len(config.Problems(err)); got != len(lines) {
		t.Errorf("got %d problems in %d lines, want as many", got, len(lines))
	}
	if got := config.Problems(errors.New("another")); got != nil {
		t.Errorf("problems of another error: got %v, want none", got)
	}
}

// A fault of the mechanism or of the brokers hides nothing that is missing beside it.
func TestALoginHasAllItsProblemsAtOnce(t *testing.T) {
	for _, tc := range []struct{ sets, want []string }{
		{[]string{"kafka.brokers=far:9092", "kafka.sasl.mechanism=plain"}, []string{"kafka.sasl.username", "kafka.sasl.password", "kafka.sasl.mechanism"}},
		{[]string{"kafka.brokers=far:9092", "kafka.sasl.mechanism=oauthbearer"},
			[]string{"kafka.sasl.oauth.token_url", "kafka.sasl.oauth.client_id", "kafka.sasl.oauth.client_secret", "kafka.sasl.mechanism"}},
		{[]string{"kafka.brokers=far:0", "kafka.sasl.mechanism=aws-msk-iam"}, []string{"kafka.brokers", "kafka.sasl.mechanism"}},
	} {
		_, err := config.Load(config.Options{File: write(t, complete), Sets: tc.sets})
		var got []string
		for _, p := range config.Problems(err) {
			got = append(got, p.Key)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v: got problems of %v, want %v", tc.sets, got, tc.want)
		}
	}
}

// A misspelled required key is reported once, not again as missing.
func TestMisspelledRequiredKeyIsReportedOnce(t *testing.T) {
	_, err := config.Load(config.Options{File: write(t, strings.Replace(complete, "client_secret", "client_sercet", 1))})
	if got := config.Problems(err); len(got) != 1 || got[0].Line != 7 {
		t.Errorf("got %v, want one problem on line 7", err)
	}
}

func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, s := range []string{complete, "", "a: &a [*a]", "kafka: &k {tls: *k}", "? {a: b}\n: c", "---\n---\n", "kafka.group: g", "%YAML 1.1\n---\nlog: {level: !!binary aGk=}", "\xff\xfe", "log: {level: >\n x}"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Options{File: path})
		if (c == nil) == (err == nil) {
			t.Fatalf("got config %v and error %v, want one of them", c, err)
		}
		if err == nil {
			return
		}
		problems := config.Problems(err)
		if len(problems) == 0 {
			t.Fatalf("got an error that is no problem: %v", err)
		}
		for _, p := range problems {
			if p.Remedy == "" || p.Rule == "" {
				t.Errorf("got %+v, want a rule and a remedy", p)
			}
		}
	})
}

// Readable credentials are sent without TLS over the loopback, or where the operator
// allows it.
func TestPasswordsWithoutTLS(t *testing.T) {
	login := func(mechanism string, sets ...string) []string {
		return append([]string{"kafka.sasl.mechanism=" + mechanism, "kafka.sasl.username=u", "kafka.sasl.password=p"}, sets...)
	}
	for name, sets := range map[string][]string{
		"over TLS":    login("plain", "kafka.brokers=kafka-0.example:9093", "kafka.tls.enabled=true"),
		"to loopback": login("plain", "kafka.brokers=127.0.0.1:9092,[::1]:9092,localhost"),
		"allowed":     login("plain", "kafka.brokers=kafka-0.example:9092", "kafka.sasl.allow_plaintext=true"),
		"scram":       login("scram-sha-256", "kafka.brokers=kafka-0.example:9092"),
	} {
		if _, err := config.Load(config.Options{File: write(t, complete), Sets: sets}); err != nil {
			t.Errorf("%s: got %v, want it accepted", name, err)
		}
	}
}
