package config

import (
	"fmt"
	"slices"
)

// A use names keys that have an effect only beside certain values of others.
// Every key is in one, or in always: see TestEveryKeyIsUsed.
type use struct {
	keys    []string
	depends []string // the keys that idle looks at
	// idle returns what takes the effect away, as a clause that follows "has no
	// effect"; "" where the keys have one.
	idle   func(c *Config) string
	remedy string
	// refuse makes it an error: what was meant is a connection that is encrypted or
	// logged in, and a plain one would be made by mistake.
	refuse bool
}

var uses = []use{
	{
		keys:    []string{"zerobus.endpoint", "zerobus.workspace_id", "zerobus.omit_operations"},
		depends: []string{"zerobus.transport"}, idle: transportIsNot("grpc", "rest"),
		remedy: "take it out, or set zerobus.transport to grpc or rest",
	},
	{
		keys:    []string{"zerobus.record_format", "zerobus.streams", "zerobus.max_in_flight"},
		depends: []string{"zerobus.transport"}, idle: transportIsNot("grpc"),
		remedy: "take it out, or set zerobus.transport to grpc",
	},
	{
		keys:    []string{"zerobus.ingest_path", "zerobus.confirm"},
		depends: []string{"zerobus.transport"}, idle: transportIsNot("workspace"),
		remedy: "take it out, or set zerobus.transport to workspace",
	},
	{
		keys:    []string{"zerobus.gzip"},
		depends: []string{"zerobus.transport"}, idle: transportIsNot("workspace", "rest"),
		remedy: "take it out, or set zerobus.transport to workspace or rest",
	},
	{
		keys: []string{"kafka.tls.ca_file", "kafka.tls.cert_file", "kafka.tls.key_file", "kafka.tls.server_name"}, depends: []string{"kafka.tls.enabled"},
		idle:   func(c *Config) string { return clause(!c.Kafka.TLS.Enabled, "while kafka.tls.enabled is false") },
		remedy: "set kafka.tls.enabled to true, or take this key out", refuse: true,
	},
	{
		keys: []string{"kafka.sasl.username", "kafka.sasl.password", "kafka.sasl.password_file"}, depends: []string{"kafka.sasl.mechanism"},
		idle: mechanismIsNot("plain", "scram-sha-256", "scram-sha-512"), remedy: otherMechanism, refuse: true,
	},
	{
		keys: []string{"kafka.sasl.oauth.token_url", "kafka.sasl.oauth.client_id", "kafka.sasl.oauth.client_secret",
			"kafka.sasl.oauth.client_secret_file", "kafka.sasl.oauth.scopes"}, depends: []string{"kafka.sasl.mechanism"},
		idle: mechanismIsNot("oauthbearer"), remedy: otherMechanism, refuse: true,
	},
	{
		keys: []string{"kafka.sasl.allow_plaintext"}, depends: []string{"kafka.sasl.mechanism", "kafka.tls.enabled"},
		idle: func(c *Config) string {
			if c.Kafka.TLS.Enabled {
				return "while kafka.tls.enabled is true"
			}
			return mechanismIsNot("plain", "oauthbearer")(c)
		},
		remedy: "take it out",
	},
	{
		keys: []string{"kafka.session_timeout"}, depends: []string{"kafka.protocol"},
		idle: func(c *Config) string {
			return clause(c.Kafka.Protocol == "consumer", "with kafka.protocol consumer, where the broker sets it")
		},
		remedy: "take it out, and set group.consumer.session.timeout.ms on the brokers",
	},
	{
		keys: []string{"mapping.on_missing_consent"}, depends: []string{"mapping.require_consent"},
		idle: func(c *Config) string {
			return clause(len(c.Mapping.RequireConsent) == 0, "without mapping.require_consent")
		},
		remedy: "list the categories in mapping.require_consent, or take it out",
	},
	{
		keys: []string{"rejects.topic", "rejects.create"}, depends: []string{"rejects.policy"}, idle: noDeadLetters,
		remedy: "take it out, or set rejects.policy to dead_letter",
	},
	{
		keys: []string{"rejects.partitions", "rejects.replication_factor"}, depends: []string{"rejects.policy", "rejects.create"},
		idle: func(c *Config) string {
			if why := noDeadLetters(c); why != "" {
				return why
			}
			return clause(!c.Rejects.Create, "while rejects.create is false")
		},
		remedy: "take it out, or let the bridge create the topic with rejects.policy dead_letter and rejects.create true",
	},
	{
		keys: []string{"tracing.max_per_second"}, depends: []string{"tracing.enabled"},
		idle:   func(c *Config) string { return clause(!c.Tracing.Enabled, "while traces are off") },
		remedy: "take it out, or set tracing.enabled to true",
	},
}

// always are the keys that have an effect whatever the others are.
var always = []string{
	"kafka.brokers", "kafka.topics", "kafka.group", "kafka.start", "kafka.isolation", "kafka.protocol", "kafka.instance_id", "kafka.client_id",
	"kafka.rebalance_timeout", "kafka.fetch_max_bytes", "kafka.fetch_max_partition_bytes", "kafka.tls.enabled", "kafka.sasl.mechanism",
	"zerobus.workspace_url", "zerobus.client_id", "zerobus.client_secret", "zerobus.client_secret_file", "zerobus.catalog", "zerobus.schema", "zerobus.table",
	"zerobus.transport", "zerobus.columns_refresh", "zerobus.token_url", "zerobus.scope", "zerobus.timeout", "zerobus.rate_limit",
	"zerobus.timestamp_format", "zerobus.ca_file", "zerobus.max_request_bytes",
	"mapping.blueprint", "mapping.input", "mapping.invalid_utf8", "mapping.timestamp_fallback", "mapping.on_bad_timestamp", "mapping.require_consent",
	"mapping.max_events_per_record",
	"delivery.max_rows", "delivery.max_bytes", "delivery.max_buffered", "delivery.linger", "delivery.drain", "delivery.stuck_after",
	"rejects.policy", "ops.address", "ops.pprof", "ops.live_events", "ops.token", "ops.token_file", "tracing.enabled", "log.level", "log.format",
}

const otherMechanism = "set kafka.sasl.mechanism to the one it belongs to, or take this key out"

func clause(idle bool, why string) string {
	if !idle {
		return ""
	}
	return why
}

func transportIsNot(these ...string) func(*Config) string {
	return func(c *Config) string {
		return clause(!slices.Contains(these, c.Zerobus.Transport), "with zerobus.transport "+c.Zerobus.Transport)
	}
}

func mechanismIsNot(these ...string) func(*Config) string {
	return func(c *Config) string {
		return clause(!slices.Contains(these, c.Kafka.SASL.Mechanism), "with kafka.sasl.mechanism "+c.Kafka.SASL.Mechanism)
	}
}

func noDeadLetters(c *Config) string {
	return clause(c.Rejects.Policy != "dead_letter", "with rejects.policy "+c.Rejects.Policy)
}

// Ignored is a key that was set and has no effect beside the values of others.
type Ignored struct {
	Key    string // dotted path
	Why    string // a clause that follows "has no effect"
	Remedy string
}

// String says so in one line that ends with the remedy.
func (i Ignored) String() string {
	return fmt.Sprintf("%s has no effect %s; %s", i.Key, i.Why, i.Remedy)
}

// Ignored returns the keys of a loaded configuration that are set to something
// other than their default and have no effect, in the order of the structs.
func (c *Config) Ignored() []Ignored {
	var all []Ignored
	defaults := Defaults()
	for _, f := range keys {
		for _, u := range uses {
			if !slices.Contains(u.keys, f.path) || !f.differs(c, &defaults) {
				continue
			}
			if why := u.idle(c); why != "" {
				all = append(all, Ignored{Key: f.path, Why: why, Remedy: u.remedy})
			}
		}
	}
	return all
}

// differs reports whether the key has another value in a than in b.
func (f *field) differs(a, b *Config) bool {
	return f.text(a) != f.text(b) || f.secret() && f.of(a).String() != f.of(b).String()
}

// unused refuses the keys that have no effect and would leave a connection
// unprotected.
func (v *checker) unused() {
	defaults := Defaults()
	for _, u := range uses {
		if !u.refuse || !v.ok(u.depends...) {
			continue
		}
		why := u.idle(v.c)
		for _, key := range u.keys {
			if why != "" && v.ok(key) && byPath[key].differs(v.c, &defaults) {
				v.fail(key, "has no effect "+why, u.remedy)
			}
		}
	}
}
