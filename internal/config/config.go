// Package config turns one YAML file, the environment and the command line
// into one validated Config. It knows the shape and the rules of the settings
// and nothing of what they configure: it opens no connection, and the only
// files it touches are the configuration file and, to see that they can be
// read, the files the configuration names.
//
// Sources, each overriding the one before: built-in defaults, the file, the
// environment, named flags, --set. Every problem is reported at once.
package config

import (
	"net"
	"net/netip"
	"time"
)

// Config is everything `bridge run` can be told. The yaml tags are the key
// names, dotted into paths such as kafka.tls.ca_file. A Config from Load is
// complete and consistent; treat it as read-only, it is shared.
type Config struct {
	Kafka    Kafka    `yaml:"kafka"`
	Zerobus  Zerobus  `yaml:"zerobus"`
	Mapping  Mapping  `yaml:"mapping"`
	Delivery Delivery `yaml:"delivery"`
	Rejects  Rejects  `yaml:"rejects"`
	Ops      Ops      `yaml:"ops"`
	Tracing  Tracing  `yaml:"tracing"`
	Log      Log      `yaml:"log"`
}

// Ops is the HTTP endpoint for metrics, health and status.
type Ops struct {
	// Address to listen on, host:port; an empty host is every interface, port
	// 0 any free port. Default 127.0.0.1:9400. Price of another interface:
	// topic names, offsets and error texts are readable by whoever reaches it.
	Address string `yaml:"address"`
	// Pprof serves Go profiles under /debug/pprof. Default false. Price: a
	// heap profile is cheap, but whoever reaches the address can take a CPU
	// profile or an execution trace, which slow the process.
	Pprof bool `yaml:"pprof"`
	// LiveEvents is what the page of live events shows: off is no page,
	// metadata names, ids and states but no value of a field, full the events
	// and their rows. Default metadata. Price of full: personal data on a page;
	// up to 4 MiB of memory for it; Token is required unless Address is on the
	// loopback.
	LiveEvents string `yaml:"live_events"`
	// Token is what the page of live events and /status ask for, as a bearer
	// header, and the page also in its login form. Default empty: they ask for
	// nothing. TokenFile names a file that holds it instead, read again for each
	// request.
	Token     Secret `yaml:"token"`
	TokenFile string `yaml:"token_file"`
}

// TokenSource is where the token comes from; ok is false when there is none.
func (o Ops) TokenSource() (s SecretSource, ok bool) {
	return SecretSource{Key: "ops.token", Value: o.Token, File: o.TokenFile}, o.Token != "" || o.TokenFile != ""
}

// Loopback reports whether the address is one that only this machine reaches.
// Names other than localhost are none:
// what they stand for can change.
func (o Ops) Loopback() bool {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Tracing is whether and how many OpenTelemetry spans are made. The standard
// OTEL_* variables set where they are sent and which events are sampled.
type Tracing struct {
	// Enabled makes spans of sampled events and their batches. Default false;
	// OTEL_TRACES_EXPORTER=otlp enables traces too, and none or
	// OTEL_SDK_DISABLED=true disables them. Trade-off: some ten microseconds of
	// processor time per traced event, and up to 2,048 spans of memory.
	Enabled bool `yaml:"enabled"`
	// MaxPerSecond bounds the events traced per second by this process. Default
	// 100. Trade-off: a larger number costs more processor time, a smaller one
	// leaves out more of the sampled events.
	MaxPerSecond int `yaml:"max_per_second"`
}

// Log is where and how the process speaks; always on standard error.
type Log struct {
	// Level is debug, info, warn or error. Default info. Price of debug: a
	// line per batch, and rejected values may appear in it.
	Level string `yaml:"level"`
	// Format is console for people, json for collectors, or auto: console when
	// standard error is a terminal, else json. Default auto.
	Format string `yaml:"format"`
}

// Defaults returns the configuration before any source has spoken. It does not
// pass validation: the target, the credentials and the topics have no default.
func Defaults() Config {
	return Config{
		Kafka: Kafka{
			Brokers:                []string{"localhost:9092"},
			Topics:                 []string{},
			Group:                  "zerobus-bridge",
			Start:                  "earliest",
			Isolation:              "read_committed",
			Protocol:               "classic",
			ClientID:               "zerobus-bridge",
			SessionTimeout:         45 * time.Second,
			RebalanceTimeout:       60 * time.Second,
			FetchMaxBytes:          4 * MiB,
			FetchMaxPartitionBytes: 256 * KiB,
			SASL:                   SASL{Mechanism: "none", OAuth: OAuth{Scopes: []string{}}},
		},
		Zerobus: Zerobus{
			Transport:       "workspace",
			RecordFormat:    "auto",
			Streams:         1,
			MaxInFlight:     32 * MiB,
			ColumnsRefresh:  5 * time.Minute,
			Scope:           "all-apis",
			IngestPath:      "/api/2.0/streaming-ingestion/ingest",
			Confirm:         "strict",
			Timeout:         30 * time.Second,
			TimestampFormat: "micros",
			MaxRequestBytes: 10 * MiB,
		},
		Mapping: Mapping{
			Input:             "auto",
			InvalidUTF8:       "reject",
			TimestampFallback: "none",
			OnBadTimestamp:    "reject",
			RequireConsent:    []string{},
			OnMissingConsent:  "allow",

			MaxEventsPerRecord: 10_000,
		},
		Delivery: Delivery{
			MaxRows:     5000,
			MaxBytes:    4 * MiB,
			MaxBuffered: 64 * MiB,
			Drain:       20 * time.Second,
			StuckAfter:  5 * time.Minute,
		},
		Rejects: Rejects{Policy: "dead_letter", Create: true, ReplicationFactor: -1},
		Ops:     Ops{Address: "127.0.0.1:9400", LiveEvents: "metadata"},
		Tracing: Tracing{MaxPerSecond: 100},
		Log:     Log{Level: "info", Format: "auto"},
	}
}

// choices are the closed sets, by key. Values are matched without regard to
// case, hyphens and underscores, and kept in the spelling given here.
var choices = map[string][]string{
	"kafka.start":                {"earliest", "latest"},
	"kafka.isolation":            {"read_committed", "read_uncommitted"},
	"kafka.protocol":             {"classic", "consumer"},
	"kafka.sasl.mechanism":       {"none", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer", "aws-msk-iam"},
	"zerobus.transport":          {"workspace", "grpc", "rest"},
	"zerobus.record_format":      {"auto", "protobuf", "json"},
	"zerobus.confirm":            {"strict", "lenient"},
	"zerobus.timestamp_format":   {"micros", "rfc3339"},
	"mapping.input":              {"auto", "canonical", "mapped"},
	"mapping.invalid_utf8":       {"reject", "replace"},
	"mapping.timestamp_fallback": {"none", "kafka"},
	"mapping.on_bad_timestamp":   {"reject", "next"},
	"mapping.on_missing_consent": {"allow", "drop"},
	"rejects.policy":             {"dead_letter", "skip", "stop"},
	"ops.live_events":            {"off", "metadata", "full"},
	"log.level":                  {"debug", "info", "warn", "error"},
	"log.format":                 {"auto", "json", "console"},
}
