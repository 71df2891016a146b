package main

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// newLogger writes to w, standard error outside tests.
func newLogger(cfg config.Log, w zapcore.WriteSyncer) *zap.Logger {
	return newLoggerAt(levelOf(cfg), cfg, w)
}

func levelOf(cfg config.Log) zapcore.Level {
	level := zap.InfoLevel
	_ = level.Set(cfg.Level) // config has held it against the same words
	return level
}

// newLoggerAt is newLogger with a level that may change.
func newLoggerAt(level zapcore.LevelEnabler, cfg config.Log, w zapcore.WriteSyncer) *zap.Logger {
	return zap.New(zapcore.NewCore(newEncoder(cfg), zapcore.Lock(zapcore.AddSync(logLines{w})), level))
}

func newEncoder(cfg config.Log) zapcore.Encoder {
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey = "time"
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	if cfg.Format == "console" {
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(enc)
	}
	return zapcore.NewJSONEncoder(enc)
}

// reportGaps has a line of the log say where lines of it are missing.
func reportGaps(w *logwriter.Writer, cfg config.Log) {
	encoder := newEncoder(cfg)
	w.ReportGaps(func(lost int64) []byte {
		line, err := encoder.EncodeEntry(zapcore.Entry{Level: zap.WarnLevel, Time: time.Now(),
			Message: "log lines were dropped: the log was not read or could not be written; see what reads standard error, and how fast"},
			[]zap.Field{zap.Int64("lines", lost)})
		if err != nil {
			return nil
		}
		return line.Bytes()
	})
}

// consumerConfig says in consumer's words what the configuration says.
func consumerConfig(c *config.Config) consumer.Config {
	k := c.Kafka
	out := consumer.Config{
		Kafka: consumer.Kafka{
			Brokers: k.Brokers, ClientID: k.ClientID,
			SASL: consumer.SASL{
				Mechanism: k.SASL.Mechanism, Username: k.SASL.Username, Password: k.SASL.PasswordSource().Read,
				OAuth: consumer.OAuth{TokenURL: k.SASL.OAuth.TokenURL, ClientID: k.SASL.OAuth.ClientID,
					ClientSecret: k.SASL.OAuth.ClientSecretSource().Read, Scopes: k.SASL.OAuth.Scopes},
			},
		},
		Topics: k.Topics, Group: k.Group, Start: k.Start, Isolation: k.Isolation, Protocol: k.Protocol, InstanceID: k.InstanceID,
		SessionTimeout: k.SessionTimeout, RebalanceTimeout: k.RebalanceTimeout,
		FetchMaxBytes: int32(k.FetchMaxBytes), FetchMaxPartitionBytes: int32(k.FetchMaxPartitionBytes),
		MaxRows: c.Delivery.MaxRows, MaxBytes: int64(c.Delivery.MaxBytes), MaxBuffered: int64(c.Delivery.MaxBuffered),
		Linger: c.Delivery.Linger, Drain: c.Delivery.Drain, StuckAfter: c.Delivery.StuckAfter,
		Rejects: consumer.Rejects{Policy: c.Rejects.Policy, Topic: c.Rejects.Topic, Create: c.Rejects.Create,
			Partitions: int32(c.Rejects.Partitions), ReplicationFactor: int16(c.Rejects.ReplicationFactor)},
		Version: version(),
	}
	if k.TLS.Enabled {
		out.Kafka.TLS = &consumer.TLS{CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile, ServerName: k.TLS.ServerName}
	}
	return out
}

// zerobusConfig says in zerobus's words what the configuration says.
func zerobusConfig(c *config.Config) zerobus.Config {
	z := c.Zerobus
	return zerobus.Config{
		WorkspaceURL: z.WorkspaceURL, ClientID: z.ClientID, ClientSecret: z.ClientSecretSource().Read,
		Catalog: z.Catalog, Schema: z.Schema, Table: z.Table,
		Transport: z.Transport, Endpoint: z.Endpoint, WorkspaceID: z.WorkspaceID, RecordFormat: z.RecordFormat,
		Streams: z.Streams, MaxInFlight: int64(z.MaxInFlight), ColumnsRefresh: z.ColumnsRefresh, OmitOperations: z.OmitOperations,
		TokenURL: z.TokenURL, Scope: z.Scope, IngestPath: z.IngestPath,
		Confirm: z.Confirm, Timeout: z.Timeout, RateLimit: z.RateLimit, Gzip: z.Gzip, MaxRequestBytes: int64(z.MaxRequestBytes),
		CAFile: z.CAFile, UserAgent: "datafly-bridge/" + version(),
	}
}

// What happens to streams is optional for an observer, so the compiler is asked.
var _ zerobus.StreamObserver = (*ops.IntegrationMetrics)(nil)

// integrationName is the label of the one integration's metrics.
const integrationName = "default"

// known lists the label values that exist before anything has happened.
func known(c *config.Config) ops.Known {
	return ops.Known{
		Topics:        c.Kafka.Topics,
		RejectCodes:   append(mapping.RejectCodes(), zerobus.RefusedSchemaMismatch, zerobus.RefusedTooLarge, zerobus.RefusedOther, consumer.CodeDeadLetterLoop),
		FilterReasons: mapping.FilterReasons(),
		Outcomes:      []string{zerobus.OutcomeOK, zerobus.OutcomeRetry, zerobus.OutcomeRefused, zerobus.OutcomeTooLarge, zerobus.OutcomeBlocked, zerobus.OutcomeCanceled},
		StreamEnds:    []string{zerobus.StreamAnnounced, zerobus.StreamLeft, zerobus.StreamRefused, zerobus.StreamFailed, zerobus.StreamBlocked},
		RetryReasons:  []string{zerobus.RetryThrottled, zerobus.RetryUnavailable, zerobus.RetryTimeout, zerobus.RetryNetwork, zerobus.RetryMismatch, zerobus.RetryUnauthorized},
	}
}

// bridge is one assembled pipeline: a cluster, a table and the group between
// them.
type bridge struct {
	cfg     *config.Config
	log     *zap.Logger
	metrics *ops.Metrics
	counts  *ops.IntegrationMetrics
	// observer receives what the delivery reports: counts, unless the demo listens in.
	observer consumer.Observer
	client   *zerobus.Client
	cluster  *consumer.Cluster
	started  time.Time
	keeper   *memory.Keeper
	feed     *live.Feed // nil when ops.live_events is off
	tracing  tracing.Settings
	window   *window // of a bounded run; else nil
	screen   *bar    // shows a bounded run's progress; nil without a terminal

	schema   *pipeline.Schema
	secrets  secrets
	handles  descriptorWatch
	lines    atomic.Pointer[logwriter.Writer] // what log goes to, where it may drop lines
	settings atomic.Pointer[config.Config]    // in force: cfg with what reloads have brought
	reloads  reloads
	level    zap.AtomicLevel // of log, where it may change
	follower *follower       // brings reloads; nil without

	group   atomic.Pointer[consumer.Group] // nil until everything is proven
	waiting atomic.Pointer[ops.Reason]     // what start-up waits for
	state   atomic.Value                   // string, one of ops.State*
}

// newBridge assembles what needs no connection.
func newBridge(cfg *config.Config, log *zap.Logger) (*bridge, error) {
	b := &bridge{cfg: cfg, log: log, started: time.Now(), level: zap.NewAtomicLevel(), keeper: memory.NewKeeper()}
	b.metrics = ops.NewMetrics(ops.Process{Version: version(), BufferedLimit: int64(cfg.Delivery.MaxBuffered), LogLinesDropped: b.logLinesDropped})
	b.counts = b.metrics.Integration(integrationName, known(cfg), b.snapshot)
	b.observer = b.counts
	b.state.Store(ops.StateStarting)
	if mode := cfg.Ops.LiveEvents; mode != "off" {
		b.feed = live.NewFeed(mode)
	}
	var err error
	if b.tracing, err = traceSettings(cfg); err != nil {
		return nil, err
	}
	b.settings.Store(cfg)
	b.keepSecrets()
	b.keeper.SetPlan(memoryPlan(cfg, 0, 0))
	if b.client, err = zerobus.New(b.zerobusConfig(), log, b.counts); err != nil {
		return nil, &usageError{err}
	}
	if b.schema, err = pipeline.NewSchema(cfg, b.client, log); err != nil {
		b.client.Close()
		return nil, &usageError{err}
	}
	b.reloads.begin(b.metrics, b.digest(), b.started)
	if b.cluster, err = consumer.NewCluster(b.consumerConfig(), log); err != nil {
		b.client.Close()
		return nil, &usageError{err}
	}
	return b, nil
}

func (b *bridge) close() {
	b.cluster.Close()
	b.client.Close()
}
