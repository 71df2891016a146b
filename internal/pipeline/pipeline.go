// Package pipeline is one integration at work: what lies between Kafka topics and
// a Databricks table. A pipeline has its own Kafka connections, consumer group,
// sink client and schema. It knows nothing of the process around it: what it
// shares with others is lent to it in [Deps].
package pipeline

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/zerobus"
)

// Config describes one integration.
type Config struct {
	Name string // of the integration: a label of its metrics; may be empty where there is one
	// Settings are its kafka, zerobus, mapping, delivery and rejects sections. They
	// are not changed.
	Settings *config.Config
	Range
}

// Range bounds a run; nil fields are open. A run with Until ends when everything
// before it is delivered.
type Range struct{ From, Until *kafka.Position }

// Deps is what the process owns and lends. Log, Metrics and Version are required.
type Deps struct {
	Log     *zap.Logger
	Metrics *ops.IntegrationMetrics
	Version string // of the bridge
	// Budget bounds the events that are polled and not yet durable, together with
	// those of other pipelines. Nil: delivery.max_buffered of this one alone.
	Budget *consumer.Budget
	// LookUps looks things up in Kafka, also for other pipelines; see NewLookUps.
	// Nil: this one has its own.
	LookUps *kafka.Client
	// Connections to the workspace are shared with those of other pipelines. Nil:
	// this one has its own.
	Connections *zerobus.Connections
	// Events takes a sample of the events for the live page; nil without one.
	Events *live.EventLog
	// Tracer makes spans of sampled events; nil without traces.
	Tracer *tracing.Tracer
	// Observer wraps the observer of the delivery. Nil leaves it as it is.
	Observer func(consumer.Observer) consumer.Observer
	// Resized is called with the number of brokers and assigned partitions when
	// either may have changed. It must not block. Nil is allowed.
	Resized func(brokers, partitions int)
	// ShowProgress shows how far a bounded run is until ctx ends. Nil shows nothing.
	ShowProgress func(ctx context.Context, progress func() consumer.Progress)
	// Stage calls f and names it while it runs, for a process that must end before
	// f does. Nil calls f.
	Stage func(what string, f func())
}

// Pipeline is one integration at work. Run may be called once; the other methods
// are safe for concurrent use.
type Pipeline struct {
	cfg     Config
	deps    Deps
	log     *zap.Logger
	started time.Time
	client  *zerobus.Client
	cluster *consumer.Cluster
	schema  *Schema
	kafka   consumer.Config // not changed after New

	settings atomic.Pointer[config.Config]     // in force: cfg.Settings with what Apply has changed
	group    atomic.Pointer[consumer.Group]    // nil until the start-up checks have passed
	waiting  atomic.Pointer[consumer.NotReady] // what the start-up lacks; nil when it lacks nothing
	state    atomic.Value                      // string, one of ops.State*
}

// New builds a pipeline. It does no I/O and starts no goroutine. An error is
// about the configuration.
func New(cfg Config, deps Deps) (*Pipeline, error) {
	if deps.Stage == nil {
		deps.Stage = func(_ string, f func()) { f() }
	}
	p := &Pipeline{cfg: cfg, deps: deps, log: deps.Log, started: time.Now()}
	p.state.Store(ops.StateStarting)
	p.settings.Store(cfg.Settings)
	s := newSecrets(p.Settings, p.log)
	p.kafka = consumerConfig(cfg.Settings, s, deps.Version)
	p.kafka.Budget, p.kafka.LookUps, p.kafka.SinkProblem, p.kafka.OnSizeChange = deps.Budget, deps.LookUps, p.sinkProblem, deps.Resized
	if cfg.From != nil {
		p.kafka.Start = "earliest"
		if cfg.From.Kind == kafka.AtTime {
			p.kafka.StartAt = cfg.From.Time
		}
	}
	var err error
	target := zerobusConfig(cfg.Settings, s, deps.Version)
	target.Connections = deps.Connections
	if p.client, err = zerobus.New(target, p.log, deps.Metrics); err != nil {
		return nil, err
	}
	p.kafka.BatchObserver = p.batchObserver()
	if p.schema, err = NewSchema(cfg.Settings, p.client, p.log); err == nil {
		p.cluster, err = consumer.NewCluster(p.kafka, p.log)
	}
	if err != nil {
		p.client.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the connections. Run must have returned.
func (p *Pipeline) Close() {
	p.cluster.Close()
	p.client.Close()
}

// Settings returns the settings in force.
func (p *Pipeline) Settings() *config.Config { return p.settings.Load() }

// BlueprintDigest returns the digest of the blueprint in force; empty for the
// built-in one.
func (p *Pipeline) BlueprintDigest() string { return p.schema.Digest() }

// Table returns the name of the table.
func (p *Pipeline) Table() string { return p.client.Table().String() }

// Run checks the connections, joins the group and delivers until ctx ends or,
// when the run is bounded, its group has reached the end. It returns nil then,
// and ErrIncomplete when a bounded run was stopped earlier. Other errors are
// those that waiting cannot resolve, and panics of the pipeline's goroutines.
func (p *Pipeline) Run(ctx context.Context) (err error) {
	defer p.state.Store(ops.StateStopped)
	defer panics.To(&err)
	ends, err := p.start(ctx)
	if err != nil {
		switch {
		case ctx.Err() == nil:
			return err
		case p.cfg.Until != nil:
			return ErrIncomplete
		}
		return nil // stopped while it was waiting
	}
	obs := consumer.Observer(p.deps.Metrics)
	if p.deps.Observer != nil {
		obs = p.deps.Observer(obs)
	}
	group := consumer.NewGroup(p.kafka, p.cluster, p.client, p.schema.NewMapper, obs, p.log)
	p.group.Store(group)
	p.state.Store(ops.StateRunning)
	defer context.AfterFunc(ctx, func() { p.state.CompareAndSwap(ops.StateRunning, ops.StateDraining) })()
	p.log.Info("joining the group", zap.String("group", p.kafka.Group), zap.Strings("topics", p.kafka.Topics),
		zap.String("table", p.Table()), zap.String("version", p.deps.Version))
	watch, delivering := errgroup.WithContext(ctx) // an error of what runs beside the group ends it
	watching, stop := context.WithCancel(delivering)
	defer stop()
	beside := func(f func() error) {
		watch.Go(func() (err error) {
			defer panics.To(&err)
			return f()
		})
	}
	// Until the group has drained: rows may be for another transport or other columns by then.
	columns, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	beside(func() error { return p.client.Watch(columns, p.schema.OnColumnsChanged) })
	if ends != nil {
		group.StopAt(ends)
		if p.deps.ShowProgress != nil {
			beside(func() error { p.deps.ShowProgress(watching, ends.Progress); return nil })
		}
	}
	p.deps.Stage("the group and its partitions", func() { err = group.Run(delivering) })
	stop()
	unwatch()
	p.deps.Stage("watching the table's columns", func() { err = cmp.Or(err, watch.Wait()) })
	if err == nil && ends != nil {
		err = p.finishBounded(ends)
	}
	return err
}

// Keys of the blueprint.
const (
	blueprintKey     = "mapping.blueprint"
	blueprintTextKey = "mapping.blueprint_text"
	variantKey       = "mapping.variant"
)

// Apply activates next, and the blueprint that it names, as far as that needs no
// restart: all of it, or nothing and an error. changed are the keys that have a
// new value now, pending those that need a restart. With reread, a table that a
// new blueprint does not fit is read again first. One call at a time.
func (p *Pipeline) Apply(ctx context.Context, next *config.Config, reread bool) (changed, pending []string, err error) {
	now, changed, pending := p.Settings().Follow(next)
	blueprint, digest, err := ReadBlueprint(now.Mapping)
	if err != nil {
		return nil, nil, err
	}
	if digest != p.schema.Digest() {
		if err := p.schema.SetBlueprint(ctx, blueprint, digest, reread); err != nil {
			return nil, nil, err
		}
		ofBlueprint := func(key string) bool { return key == blueprintKey || key == blueprintTextKey || key == variantKey }
		if !slices.ContainsFunc(changed, ofBlueprint) { // another content of the file
			changed = append(changed, blueprintKey)
		}
	}
	p.settings.Store(now)
	p.client.SetRateLimit(now.Zerobus.RateLimit)
	return changed, pending, nil
}
