// Package app is one process: the ops endpoints, the tracer, reloads of the
// configuration, the memory limit, and the integrations that share them.
// Integrations share nothing else: one that is blocked does not delay the others.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/group"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/reload"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/internal/webhook"
	"github.com/datafly/bridge/zerobus"
)

// Options describe a process. Deployment, Log and Version are required.
type Options struct {
	Deployment *config.Deployment
	// Range bounds the run of the only integration: the process ends with it.
	Range   pipeline.Range
	Log     *zap.Logger
	Level   *zap.AtomicLevel // of Log, set by a reload; nil: fixed
	Version string
	// Reload follows the configuration. Nil: none.
	Reload *Reload
	// DroppedLogLines counts the lines of the log that were dropped. Nil: none.
	DroppedLogLines func() int64
	// Network is that of connections to workspaces. The zero value: the system's.
	Network zerobus.Network
	// LimitMemory sets the Go runtime's soft memory limit while Run runs.
	LimitMemory bool
	// Observer, ShowProgress and Stage are those of pipeline.Deps.
	Observer     func(consumer.Observer) consumer.Observer
	ShowProgress func(ctx context.Context, progress func() consumer.Progress)
	Stage        func(what string, f func())
}

// App is one process. Call New, Listen, Run and Close in this order; the other
// methods are safe for concurrent use.
type App struct {
	o            Options
	log          *zap.Logger
	base         atomic.Pointer[config.Config]     // in force, for what is of the process
	deployment   atomic.Pointer[config.Deployment] // of files
	installed    installed
	metrics      *ops.Metrics
	histories    *ops.Histories
	budget       *consumer.Budget
	connections  *zerobus.Connections
	lookUps      *kafka.Client
	started      time.Time
	instance     string // random
	page         *live.Page
	integrations *integrations.Reconciler
	group        *group.View
	server       *ops.Server
	admin        *ops.Server     // nil without the install API
	tracer       *tracing.Tracer // nil without traces
	memory       *memoryLimit
	descriptors  descriptorWatch
	reloads      reloads
	watcher      *reload.Watcher   // nil without Options.Reload
	webhook      *webhook.Notifier // nil without webhook.url
	stopAsked    atomic.Pointer[time.Time]
}

// New builds the process. It does no I/O beyond reading files. An error is about
// the configuration. After New, Close has to be called.
func New(ctx context.Context, o Options) (_ *App, err error) {
	if o.Stage == nil {
		o.Stage = func(_ string, f func()) { f() }
	}
	cfg, wanted := o.Deployment.Base, o.Deployment.Integrations
	a := &App{o: o, log: o.Log, started: time.Now(), instance: rand.Text()[:12], memory: newMemoryLimit(o.Log), budget: consumer.NewBudget(int64(cfg.Delivery.MaxBuffered)), histories: ops.NewHistories(),
		connections: o.Network.Connections()}
	a.base.Store(cfg)
	a.deployment.Store(o.Deployment)
	bounded := o.Range != pipeline.Range{}
	a.installed.signal = make(chan struct{}, 1)
	if cfg.Store.Enabled && !bounded {
		a.installed.store = newStore(a.base.Load, o.Version, o.Log)
	}
	a.installed.manager = manage.New(manage.Options{Store: a.installed.store, Files: a.deployment.Load, Runtime: managed{a}, Connections: a.connections, Version: o.Version})
	a.metrics = ops.NewMetrics(o.Version, a.Status, cfg.Ops.PartitionMetrics)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close(ctx))
		}
	}()
	if a.lookUps, err = pipeline.NewLookUps(a.base.Load, o.Version, o.Log); err != nil {
		return nil, err
	}
	traces, err := TraceSettings(cfg)
	if err != nil {
		return nil, err
	}
	if traces.On {
		if a.tracer, err = tracing.Start(ctx, tracing.Config{Options: traces, Version: o.Version, Log: o.Log}); err != nil {
			return nil, err
		}
	}
	token := a.token(cfg)
	a.group = group.New(group.Config{
		Peers: cfg.Ops.Peers, Token: token, Self: a.Status, Address: a.Addr, Integrations: a.enabled, Kafka: a.lookUps,
	})
	endpoints := ops.Config{Settings: cfg.Ops, Access: access.New(token, cfg.Ops.Loopback()), Group: a.group.Status}
	a.page = live.New(live.Config{Mode: cfg.Ops.LiveEvents, Group: a.group.Status, DeadLetters: a.deadLetters}, a.Status, o.Log)
	if cfg.Ops.LiveEvents != live.ModeOff {
		endpoints.Live = a.page.Handler(endpoints.Access)
		endpoints.Console = console.New(console.Config{Access: endpoints.Access, Facts: a.facts})
	}
	a.integrations = integrations.New(integrations.Options{New: a.build, Removed: a.removed, Bounded: bounded, Store: a.installed.store != nil, Log: o.Log}, wanted)
	a.plan(wanted)
	if len(wanted) == 1 && a.installed.store == nil {
		// What is wrong with one of several is its own matter.
		one, err := a.build(wanted[0])
		if err != nil {
			return nil, err
		}
		one.Close()
	}
	a.reloads.begin(a)
	if o.Reload != nil {
		a.watcher = a.newWatcher(*o.Reload)
	}
	if _, given := cfg.Webhook.URLSource(); given && !bounded {
		a.webhook = webhook.New(webhook.Config{Settings: func() webhook.Settings { return a.base.Load().Webhook },
			Deployment: cfg.Deployment, Instance: a.instance, States: a.states, Log: o.Log})
	}
	a.server = ops.New(endpoints, a.metrics, a.Status, o.Log)
	if cfg.Admin.Enabled && !bounded {
		if a.admin, err = a.newAdmin(cfg); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// plan adapts what the process keeps of each integration to those that are wanted.
func (a *App) plan(wanted []config.Integration) {
	for _, i := range wanted {
		if i.Enabled { // a thousand disabled ones would have 100,000 series
			a.metrics.Integration(i.Name, pipeline.KnownLabels(i.Config))
		}
	}
	a.budget.Reserve(a.memory.plan(wanted))
}

// removed forgets an integration.
func (a *App) removed(name string) {
	a.metrics.Remove(name)
	a.page.Forget(name)
}

// build returns the pipeline of an integration.
func (a *App) build(i config.Integration) (integrations.Runner, error) {
	p, err := pipeline.New(pipeline.Config{Name: i.Name, Settings: i.Config, Range: a.o.Range}, pipeline.Deps{
		Log: a.log.With(zap.String("integration", i.Name)), Metrics: a.metrics.Integration(i.Name, pipeline.KnownLabels(i.Config)),
		Budget: a.budget, Connections: a.connections, LookUps: a.lookUps, Version: a.o.Version, Events: a.page.Events(i.Name), Tracer: a.tracer, Observer: a.o.Observer,
		Resized: func(brokers, partitions int) { a.memory.resize(i.Name, brokers, partitions) }, ShowProgress: a.o.ShowProgress, Stage: a.o.Stage,
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// token returns what reads the token of the ops endpoints from the settings in force;
// nil without one.
func (a *App) token(cfg *config.Config) func() (string, error) {
	if _, given := cfg.Ops.TokenSource(); !given {
		return nil
	}
	return func() (string, error) {
		token, _ := a.base.Load().Ops.TokenSource()
		return token.Read()
	}
}

// TraceSettings returns what the configuration and the environment set of traces.
func TraceSettings(cfg *config.Config) (tracing.Options, error) {
	s, err := cfg.Tracing.Options(os.Getenv)
	if err != nil {
		err = fmt.Errorf("tracing: %w", err)
	}
	return s, err
}

// Listen starts the ops endpoints and the install API: they answer until Close.
func (a *App) Listen(ctx context.Context) error {
	if err := a.server.Start(ctx); err != nil {
		return fmt.Errorf("starting the ops endpoints: %w", err)
	}
	if a.admin == nil {
		return nil
	}
	if err := a.admin.Start(ctx); err != nil {
		return fmt.Errorf("starting the install API: %w", err)
	}
	a.log.Info("install API listening", zap.String("address", a.admin.Addr()))
	return nil
}

// AdminAddr returns where the install API listens, with the real port after Listen;
// empty without one.
func (a *App) AdminAddr() string {
	if a.admin == nil {
		return ""
	}
	return a.admin.Addr()
}

// Addr returns where the ops endpoints listen, with the real port after Listen.
func (a *App) Addr() string { return a.server.Addr() }

// Run runs the integrations until ctx ends, or one of them ends the process: see
// integrations.Reconciler.
func (a *App) Run(ctx context.Context) error {
	if a.o.LimitMemory {
		a.memory.keeper.Enforce()
	}
	defer a.memory.keeper.Release()
	defer a.memory.end()
	defer context.AfterFunc(ctx, func() {
		now := time.Now()
		a.stopAsked.Store(&now)
	})()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watch errgroup.Group
	watch.Go(func() error { a.histories.Run(watching, a.Status); return nil })
	if a.watcher != nil {
		watch.Go(func() error { a.watcher.Run(watching); return nil })
	}
	if a.installed.store != nil {
		watch.Go(func() error { a.followStore(watching); return nil })
	}
	if a.webhook != nil {
		watch.Go(func() error { a.webhook.Run(watching); return nil })
	}
	var err error
	a.o.Stage("delivery", func() { err = a.integrations.Run(ctx) })
	stop()
	a.o.Stage("following the configuration", func() { _ = watch.Wait() }) // it returns nil
	return err
}

const (
	// closeTimeout bounds the last answers of the ops endpoints.
	closeTimeout = 300 * time.Millisecond
	// maxFlush and minFlush bound the time for the last spans; what is left of
	// delivery.drain lies between.
	maxFlush, minFlush = 5 * time.Second, 500 * time.Millisecond
)

// Close sends the last spans and ends the ops endpoints.
func (a *App) Close(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx)
	if a.tracer != nil {
		a.o.Stage("sending spans", func() {
			left := maxFlush
			if asked := a.stopAsked.Load(); asked != nil {
				left = max(min(left, a.base.Load().Delivery.Drain-time.Since(*asked)), minFlush)
			}
			flushing, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			a.tracer.Stop(flushing)
		})
	}
	closing := func(what string, server *ops.Server) {
		if server == nil {
			return
		}
		a.o.Stage("closing the "+what, func() {
			ctx, cancel := context.WithTimeout(ctx, closeTimeout)
			defer cancel()
			if failed := server.Close(ctx); !errors.Is(failed, context.DeadlineExceeded) { // requests were cut off
				err = errors.Join(err, failed)
			}
		})
	}
	closing("install API", a.admin)
	closing("ops endpoints", a.server)
	if a.installed.store != nil {
		a.o.Stage("closing the store of integrations", a.installed.store.Close)
	}
	if a.lookUps != nil {
		a.lookUps.Close() // which ends the look-ups that wait for a broker
	}
	if a.group != nil {
		a.o.Stage("ending the look-ups of the group", a.group.Close)
	}
	return err
}

func (a *App) droppedLogLines() int64 {
	if a.o.DroppedLogLines == nil {
		return 0
	}
	return a.o.DroppedLogLines()
}
