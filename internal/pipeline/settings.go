package pipeline

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// secrets are read when they are needed, so a rotated file is used without a
// restart. While a file hangs, the last secret is used: delivery does not wait
// for a new one.
type secrets struct{ password, oauth, client plaintext.Kept[string] }

// newSecrets reads secrets from the settings in force.
func newSecrets(settings func() *config.Config, log *zap.Logger) *secrets {
	s := &secrets{}
	keep := func(k *plaintext.Kept[string], source func(*config.Config) setting.SecretSource) {
		k.Read = func() (string, error) { return source(settings()).Read() }
		k.Hung = func(err error) { log.Warn("secret unreadable; the last one is used", zap.Error(err)) }
	}
	keep(&s.password, func(c *config.Config) setting.SecretSource { return c.Kafka.SASL.PasswordSource() })
	keep(&s.oauth, func(c *config.Config) setting.SecretSource { return c.Kafka.SASL.OAuth.ClientSecretSource() })
	keep(&s.client, func(c *config.Config) setting.SecretSource { return c.Zerobus.CredentialSource() })
	return s
}

func secretsOf(c *config.Config, log *zap.Logger) *secrets {
	return newSecrets(func() *config.Config { return c }, log)
}

// NewKafkaClient returns a client that looks things up in the cluster of an
// integration, for commands that run no pipeline. It does no I/O.
func NewKafkaClient(c *config.Config, version string, log *zap.Logger) (*kafka.Client, error) {
	cfg := consumerConfig(c, secretsOf(c, log), version)
	return kafka.NewClient(cfg.Connection(), log)
}

// NewLookUps returns a client that looks things up in the cluster for the pipelines of
// a process. settings returns the settings in force, for secrets. It does no I/O.
func NewLookUps(settings func() *config.Config, version string, log *zap.Logger) (*kafka.Client, error) {
	return kafka.NewClient(Connection(settings, version, log), log, kgo.RetryTimeout(10*time.Second))
}

// Connection returns how the cluster is reached. settings returns the settings in force,
// for secrets.
func Connection(settings func() *config.Config, version string, log *zap.Logger) kafka.Connection {
	cfg := consumerConfig(settings(), newSecrets(settings, log), version)
	return cfg.Connection()
}

// OpenDeadLetters opens the dead-letter topics of integrations, one at least.
func OpenDeadLetters(ctx context.Context, cl *kafka.Client, integrations ...*config.Config) (*deadletter.Reader, error) {
	cfgs := make([]consumer.Config, len(integrations))
	for i, c := range integrations {
		cfgs[i] = consumer.Config{Kafka: c.Kafka, Delivery: c.Delivery, Rejects: c.Rejects}
	}
	return deadletter.Open(ctx, cl, cfgs...)
}

// NewClient returns the sink client of an integration, for what runs no pipeline. It
// does no I/O. connections are those of NewParts.
func NewClient(c *config.Config, version string, log *zap.Logger, connections *zerobus.Connections) (*zerobus.Client, error) {
	target := zerobusConfig(c, secretsOf(c, log), version)
	target.Connections = connections
	return zerobus.New(target, log, nil)
}

// Parts are the connections and the schema of an integration, for commands that
// run no pipeline.
type Parts struct {
	Cluster *consumer.Cluster
	Client  *zerobus.Client
	Schema  *Schema

	settings *config.Config
}

// NewParts does no I/O. connections to the workspace are shared with others; nil: the
// parts have their own. An error is about the configuration.
func NewParts(c *config.Config, version string, log *zap.Logger, connections *zerobus.Connections) (*Parts, error) {
	p := &Parts{settings: c}
	var err error
	if p.Client, err = NewClient(c, version, log, connections); err != nil {
		return nil, err
	}
	if p.Schema, err = NewSchema(c, p.Client, log); err == nil {
		p.Cluster, err = consumer.NewCluster(consumerConfig(c, secretsOf(c, log), version), log)
	}
	if err != nil {
		p.Client.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the connections.
func (p *Parts) Close() {
	p.Cluster.Close()
	p.Client.Close()
}

func consumerConfig(c *config.Config, s *secrets, version string) consumer.Config {
	out := consumer.Config{Kafka: c.Kafka, Delivery: c.Delivery, Rejects: c.Rejects, Version: version}
	out.SASL.ReadPassword, out.SASL.OAuth.ReadClientSecret = s.password.Get, s.oauth.Get
	return out
}

func zerobusConfig(c *config.Config, s *secrets, version string) zerobus.Config {
	return zerobus.Config{Settings: c.Zerobus, ReadCredential: s.client.Get, UserAgent: "datafly-bridge/" + version}
}

// MappingOptions returns what the configuration sets of a mapping.
func MappingOptions(c *config.Config) mapping.Options {
	return mapping.Options{Settings: c.Mapping, TimestampFormat: c.Zerobus.TimestampFormat}
}

// MemoryPlan returns the memory plan of an integration with so many brokers and
// assigned partitions.
func MemoryPlan(c *config.Config, brokers, partitions int) memory.Plan {
	return memory.Plan{
		MaxBuffered: int64(c.Delivery.MaxBuffered), MaxBytes: int64(c.Delivery.MaxBytes), FetchMaxBytes: int64(c.Kafka.FetchMaxBytes),
		Brokers: brokers, Partitions: partitions,
	}
}

// KnownLabels lists the label values of an integration's metrics that exist
// before anything has happened.
func KnownLabels(c *config.Config) ops.Known {
	return ops.Known{
		Topics:        c.Kafka.Topics,
		RejectCodes:   append(mapping.RejectCodes(), zerobus.RefusedSchemaMismatch, zerobus.RefusedTooLarge, zerobus.RefusedOther, consumer.CodeDeadLetterLoop),
		FilterReasons: mapping.FilterReasons(),
		Outcomes:      []string{zerobus.OutcomeOK, zerobus.OutcomeRetry, zerobus.OutcomeRefused, zerobus.OutcomeTooLarge, zerobus.OutcomeBlocked, zerobus.OutcomeCanceled},
		StreamEnds:    []string{zerobus.StreamAnnounced, zerobus.StreamLeft, zerobus.StreamRefused, zerobus.StreamFailed, zerobus.StreamBlocked},
		RetryReasons:  []string{zerobus.RetryThrottled, zerobus.RetryUnavailable, zerobus.RetryTimeout, zerobus.RetryNetwork, zerobus.RetryMismatch, zerobus.RetryUnauthorized},
	}
}
