package config

import (
	"reflect"
	"slices"
)

// live are the keys whose new values take effect while the bridge runs.
var live = []string{"mapping.blueprint", "zerobus.rate_limit", "log.level"}

// A liveSecret takes effect while the bridge runs, too, but only for the party
// it was given for: where one of its companions has changed, the old party
// would be shown the new one's secret. Nor does one take effect that there was
// none of before, or is none of now.
type liveSecret struct {
	key        string // its file is key_file
	companions []string
}

var liveSecrets = []liveSecret{
	{"zerobus.client_secret", []string{"zerobus.client_id", "zerobus.workspace_url", "zerobus.token_url"}},
	{"kafka.sasl.password", []string{"kafka.sasl.username", "kafka.sasl.mechanism", "kafka.brokers"}},
	{"kafka.sasl.oauth.client_secret", []string{"kafka.sasl.oauth.client_id", "kafka.sasl.oauth.token_url", "kafka.sasl.mechanism"}},
	{"ops.token", nil},
}

// afterRestart are the keys whose new values take effect only when the bridge
// is started again: connections, the group, sizes of what is made once.
var afterRestart = []string{
	"kafka.brokers", "kafka.topics", "kafka.group", "kafka.start", "kafka.isolation", "kafka.protocol", "kafka.instance_id", "kafka.client_id",
	"kafka.session_timeout", "kafka.rebalance_timeout", "kafka.fetch_max_bytes", "kafka.fetch_max_partition_bytes",
	"kafka.tls.enabled", "kafka.tls.ca_file", "kafka.tls.cert_file", "kafka.tls.key_file", "kafka.tls.server_name",
	"kafka.sasl.mechanism", "kafka.sasl.username", "kafka.sasl.allow_plaintext",
	"kafka.sasl.oauth.token_url", "kafka.sasl.oauth.client_id", "kafka.sasl.oauth.scopes",
	"zerobus.workspace_url", "zerobus.client_id", "zerobus.catalog", "zerobus.schema", "zerobus.table",
	"zerobus.transport", "zerobus.endpoint", "zerobus.workspace_id", "zerobus.record_format", "zerobus.streams", "zerobus.max_in_flight",
	"zerobus.columns_refresh", "zerobus.omit_operations", "zerobus.token_url", "zerobus.scope", "zerobus.ingest_path", "zerobus.confirm", "zerobus.timeout",
	"zerobus.gzip", "zerobus.timestamp_format", "zerobus.ca_file", "zerobus.max_request_bytes",
	"mapping.input", "mapping.invalid_utf8", "mapping.timestamp_fallback", "mapping.on_bad_timestamp", "mapping.require_consent", "mapping.on_missing_consent",
	"mapping.max_events_per_record",
	"delivery.max_rows", "delivery.max_bytes", "delivery.max_buffered", "delivery.linger", "delivery.drain", "delivery.stuck_after",
	"rejects.policy", "rejects.topic", "rejects.create", "rejects.partitions", "rejects.replication_factor",
	"ops.address", "ops.pprof", "ops.live_events", "tracing.enabled", "tracing.max_per_second", "log.format",
}

// Follow says what becomes of the configuration c, which is in force, when next
// has been loaded while the bridge runs: now is c with those of next's values
// that take effect at once, taken lists their keys, and waiting those that
// differ and need a restart. Both are in the order of the structs. c and next
// are not changed.
func (c *Config) Follow(next *Config) (now *Config, taken, waiting []string) {
	at := slices.Clone(live)
	for _, s := range liveSecrets {
		if s.follows(c, next) {
			at = append(at, s.key, s.key+"_file")
		}
	}
	merged := *c
	for _, f := range keys {
		if same(f, c, next) {
			continue
		}
		if !slices.Contains(at, f.path) {
			waiting = append(waiting, f.path)
			continue
		}
		taken = append(taken, f.path)
		f.of(&merged).Set(f.of(next))
	}
	return &merged, taken, waiting
}

func same(f *field, a, b *Config) bool {
	return reflect.DeepEqual(f.of(a).Interface(), f.of(b).Interface())
}

func (s liveSecret) follows(c, next *Config) bool {
	for _, path := range s.companions {
		if !same(byPath[path], c, next) {
			return false
		}
	}
	return s.given(c) && s.given(next)
}

func (s liveSecret) given(c *Config) bool {
	return byPath[s.key].of(c).Len() > 0 || byPath[s.key+"_file"].of(c).Len() > 0
}
