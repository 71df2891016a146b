package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/plaintext"
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

// loadBlueprint reads the blueprint the configuration names.
func loadBlueprint(file string) (*mapping.Blueprint, error) {
	plan, _, err := readBlueprint(file)
	return plan, err
}

// readBlueprint is loadBlueprint with a digest of the text, by which blueprints
// are told apart.
func readBlueprint(file string) (plan *mapping.Blueprint, digest string, err error) {
	if file == "" {
		return mapping.Default(), "", nil
	}
	data, err := plaintext.ReadFile(file, plaintext.MaxText)
	if err != nil {
		return nil, "", fmt.Errorf("reading mapping.blueprint: %w; name a readable file, or leave the key empty for the built-in blueprint", err)
	}
	plan, err = mapping.Parse(file, data)
	sum := sha256.Sum256(data)
	return plan, hex.EncodeToString(sum[:]), err
}

// mappingOptions says in mapping's words what the configuration says.
func mappingOptions(c *config.Config) mapping.Options {
	m := c.Mapping
	return mapping.Options{
		Input: m.Input, InvalidUTF8: m.InvalidUTF8, TimestampFallback: m.TimestampFallback, OnBadTimestamp: m.OnBadTimestamp,
		TimestampFormat: c.Zerobus.TimestampFormat, RequireConsent: m.RequireConsent, OnMissingConsent: m.OnMissingConsent,
		MaxEvents: m.MaxEventsPerRecord,
	}
}

// compile fits a blueprint to the table; columns is nil when they are not
// known.
func (b *bridge) compile(plan *mapping.Blueprint, clusterID string, columns []zerobus.Column) (*mapping.Mapping, error) {
	return compileFor(b.client, b.cfg, plan, clusterID, columns)
}

// compileFor is compile for a command without a bridge: its columns are those that
// bridge run makes of the blueprint and the table.
func compileFor(client *zerobus.Client, cfg *config.Config, plan *mapping.Blueprint, clusterID string, columns []zerobus.Column) (*mapping.Mapping, error) {
	form, err := client.Encoding(columns)
	if err != nil {
		return nil, err
	}
	o := mappingOptions(cfg)
	o.ClusterID = clusterID
	o.TableName = client.Table().Quoted()
	o.Format = form.Format
	for _, col := range columns {
		o.Table = append(o.Table, mapping.Column{Name: col.Name, Type: col.Type, NotNull: col.NotNull, Number: form.Numbers[col.Name]})
	}
	m, err := plan.Compile(o)
	if err != nil {
		return nil, &misfit{err}
	}
	return m, nil
}

// rowColumns says in zerobus's words which columns rows carry.
func rowColumns(m *mapping.Mapping) []zerobus.Column {
	var columns []zerobus.Column
	for i, col := range m.Columns() {
		columns = append(columns, zerobus.Column{Name: col.Name, Type: col.Type, NotNull: col.NotNull, Position: i})
	}
	return columns
}

// rules are a compiled mapping and the sink's number for rows made by it.
type rules struct {
	*mapping.Mapping
	made int64
}

// newMapper makes consumer.Mappers over mapping.Mappers of their own. Rules
// stored later are taken up with the next batch.
func newMapper(current *atomic.Pointer[rules]) func() consumer.Mapper {
	return func() consumer.Mapper {
		var by *rules
		var mapper *mapping.Mapper
		var headers bool
		var in mapping.Record // reused: a mapper keeps nothing of it
		return func(rec *kgo.Record, out *consumer.Batch) {
			if out.Empty() {
				if now := current.Load(); now != by {
					by, mapper, headers = now, now.NewMapper(), now.UsesHeaders()
				}
				out.Made(by.made)
			}
			in.TopicID = out.TopicID()
			in.Topic, in.Partition, in.Offset, in.Timestamp, in.Key, in.Value = rec.Topic, rec.Partition, rec.Offset, rec.Timestamp, rec.Key, rec.Value
			if headers {
				in.Headers = in.Headers[:0]
				for _, h := range rec.Headers {
					in.Headers = append(in.Headers, mapping.Header{Key: h.Key, Value: h.Value})
				}
			}
			mapper.Map(&in, out)
			// What it points to may be part of a whole fetch answer, and the
			// partition's next record may be a day away.
			in.Key, in.Value = nil, nil
			if headers {
				clear(in.Headers)
			}
		}
	}
}

// What happens to streams is optional for an observer, so the compiler is asked.
var _ zerobus.StreamObserver = (*ops.Metrics)(nil)

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
	// observer hears the delivery; metrics unless the demo listens in.
	observer consumer.Observer
	client   *zerobus.Client
	cluster  *consumer.Cluster
	started  time.Time
	keeper   *memory.Keeper
	feed     *live.Feed // nil when ops.live_events is off
	tracing  tracing.Settings
	window   *window // of a bounded run; else nil
	screen   *bar    // shows a bounded run's progress; nil without a terminal

	book     rulebook
	secrets  secrets
	handles  descriptorWatch
	lines    atomic.Pointer[logwriter.Writer] // what log goes to, where it may drop lines
	settings atomic.Pointer[config.Config]    // in force: cfg with what reloads have brought
	reloads  reloads
	level    zap.AtomicLevel // of log, where it may change
	follower *follower       // brings reloads; nil without

	rules   atomic.Pointer[rules]          // fit the table as last seen
	group   atomic.Pointer[consumer.Group] // nil until everything is proven
	waiting atomic.Pointer[ops.Reason]     // what start-up waits for
	state   atomic.Value                   // string, one of ops.State*
}

// newBridge assembles what needs no connection.
func newBridge(cfg *config.Config, log *zap.Logger) (*bridge, error) {
	b := &bridge{cfg: cfg, log: log, metrics: ops.NewMetrics(known(cfg)), started: time.Now(), level: zap.NewAtomicLevel(), keeper: memory.NewKeeper()}
	b.observer = b.metrics
	b.state.Store(ops.StateStarting)
	if mode := cfg.Ops.LiveEvents; mode != "off" {
		b.feed = live.NewFeed(mode)
	}
	var err error
	if b.tracing, err = traceSettings(cfg); err != nil {
		return nil, err
	}
	if b.book.plan, b.book.text, err = readBlueprint(cfg.Mapping.Blueprint); err != nil {
		return nil, &usageError{err}
	}
	// Compiled once without the table, so that a fault of the blueprint is
	// told before anything is connected.
	if _, err := b.book.plan.Compile(mappingOptions(cfg)); err != nil {
		return nil, &usageError{err}
	}
	b.settings.Store(cfg)
	b.keepSecrets()
	b.keeper.Keep(memoryPlan(cfg, 0, 0))
	b.reloads.begin(b.metrics, b.digest(), b.started)
	if b.client, err = zerobus.New(b.zerobusConfig(), log, observed{b.metrics}); err != nil {
		return nil, &usageError{err}
	}
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

// sink is the client as consumer wants it.
type sink struct{ client *zerobus.Client }

// Write implements consumer.Sink.
func (s sink) Write(ctx context.Context, made int64, rows [][]byte) error {
	return s.client.WriteMade(ctx, made, rows)
}

// Probe implements consumer.Sink.
func (s sink) Probe(ctx context.Context, made int64, rows [][]byte) error {
	return s.client.ProbeMade(ctx, made, rows)
}
