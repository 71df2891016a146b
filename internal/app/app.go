// Package app is one process: the ops endpoints, the tracer, reloads of the
// configuration, the memory limit, and the pipelines that share them. Pipelines
// share nothing else: one that is blocked does not delay the others.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/reload"
	"github.com/datafly/bridge/internal/tracing"
)

// Options describe a process. Pipelines, Log and Version are required.
type Options struct {
	// Pipelines are the integrations. The settings of the first are those of the
	// process as well: its ops, log and tracing sections.
	Pipelines []pipeline.Config
	Log       *zap.Logger
	Level     *zap.AtomicLevel // of Log, set by a reload; nil: fixed
	Version   string
	// Reload follows the configuration of the first pipeline. Nil: none.
	Reload *Reload
	// DroppedLogLines counts the lines of the log that were dropped. Nil: none.
	DroppedLogLines func() int64
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
	o           Options
	log         *zap.Logger
	metrics     *ops.Metrics
	pipelines   []*pipeline.Pipeline
	server      *ops.Server
	page        *live.Page // nil without live events
	started     time.Time
	tracer      *tracing.Tracer // nil without traces
	memory      *memoryLimit
	descriptors descriptorWatch
	reloads     reloads
	watcher     *reload.Watcher // nil without Options.Reload
	stopAsked   atomic.Pointer[time.Time]
}

// New builds the process. It does no I/O beyond reading files. An error is about
// the configuration. After New, Close has to be called.
func New(ctx context.Context, o Options) (_ *App, err error) {
	if o.Stage == nil {
		o.Stage = func(_ string, f func()) { f() }
	}
	cfg := o.Pipelines[0].Settings
	a := &App{o: o, log: o.Log, started: time.Now(), memory: newMemoryLimit(o.Log, o.Pipelines)}
	a.metrics = ops.NewMetrics(o.Version, a.Status)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close(ctx))
		}
	}()
	traces, err := TraceSettings(cfg)
	if err != nil {
		return nil, err
	}
	if traces.On {
		if a.tracer, err = tracing.Start(ctx, tracing.Config{Options: traces, Version: o.Version, Log: o.Log}); err != nil {
			return nil, err
		}
	}
	authority := a.access(cfg)
	if mode := cfg.Ops.LiveEvents; mode != "off" {
		a.page = live.New(live.Config{Mode: mode, Access: authority, DeadLetters: a.deadLetters}, a.Status, o.Log)
	}
	budget := consumer.NewBudget(int64(cfg.Delivery.MaxBuffered))
	for i, c := range o.Pipelines {
		name := cmp.Or(c.Name, config.DefaultIntegration)
		var events *live.EventLog
		if a.page != nil {
			events = a.page.Events(name)
		}
		p, err := pipeline.New(c, pipeline.Deps{
			Log: o.Log, Metrics: a.metrics.Integration(name, pipeline.KnownLabels(c.Settings)), Budget: budget, Version: o.Version, Events: events, Tracer: a.tracer, Observer: o.Observer,
			Resized: func(brokers, partitions int) { a.memory.resize(i, brokers, partitions) }, ShowProgress: o.ShowProgress, Stage: o.Stage,
		})
		if err != nil {
			return nil, err
		}
		a.pipelines = append(a.pipelines, p)
	}
	a.reloads.begin(a)
	if o.Reload != nil {
		a.watcher = a.newWatcher(*o.Reload)
	}
	c := ops.Config{Settings: cfg.Ops, Access: authority}
	if a.page != nil {
		c.Live = a.page
	}
	a.server = ops.New(c, a.metrics, a.Status, a.log)
	return a, nil
}

// access returns who may read the ops endpoints. It reads the token of the settings in
// force for each request.
func (a *App) access(cfg *config.Config) *access.Control {
	var token func() (string, error)
	if _, given := cfg.Ops.TokenSource(); given {
		token = func() (string, error) {
			token, _ := a.pipelines[0].Settings().Ops.TokenSource()
			return token.Read()
		}
	}
	return access.New(token, cfg.Ops.Loopback())
}

// deadLetters returns what reads the dead letters of an integration; nil without.
func (a *App) deadLetters(integration string) live.DeadLetters {
	for i, p := range a.pipelines {
		if cmp.Or(a.o.Pipelines[i].Name, config.DefaultIntegration) == integration {
			return p.DeadLetters()
		}
	}
	return nil
}

// TraceSettings returns what the configuration and the environment set of traces.
func TraceSettings(cfg *config.Config) (tracing.Options, error) {
	s, err := cfg.Tracing.Options(os.Getenv)
	if err != nil {
		err = fmt.Errorf("tracing: %w", err)
	}
	return s, err
}

// Listen starts the ops endpoints: they answer until Close.
func (a *App) Listen(ctx context.Context) error { return a.server.Start(ctx) }

// Addr returns where the ops endpoints listen, with the real port after Listen.
func (a *App) Addr() string { return a.server.Addr() }

// Run runs the pipelines until ctx ends or all of them have ended. An error of one
// ends the others.
func (a *App) Run(ctx context.Context) error {
	if a.o.LimitMemory {
		a.memory.keeper.Enforce()
	}
	defer a.memory.keeper.Release()
	defer context.AfterFunc(ctx, func() {
		now := time.Now()
		a.stopAsked.Store(&now)
	})()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watch errgroup.Group
	if a.watcher != nil {
		watch.Go(func() error { a.watcher.Run(watching); return nil })
	}
	var err error
	a.o.Stage("delivery", func() {
		all, running := errgroup.WithContext(ctx)
		for _, p := range a.pipelines {
			all.Go(func() error { return p.Run(running) })
		}
		err = all.Wait()
	})
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

// Close sends the last spans, ends the ops endpoints and closes the connections.
func (a *App) Close(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx)
	if a.tracer != nil {
		a.o.Stage("sending spans", func() {
			left := maxFlush
			if asked := a.stopAsked.Load(); asked != nil {
				left = max(min(left, a.o.Pipelines[0].Settings.Delivery.Drain-time.Since(*asked)), minFlush)
			}
			flushing, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			a.tracer.Stop(flushing)
		})
	}
	if a.server != nil {
		a.o.Stage("closing the ops endpoints", func() {
			closing, cancel := context.WithTimeout(ctx, closeTimeout)
			defer cancel()
			if err = a.server.Close(closing); errors.Is(err, context.DeadlineExceeded) {
				err = nil // requests were cut off
			}
		})
	}
	a.o.Stage("closing the connections to Kafka and the workspace", func() {
		for _, p := range a.pipelines {
			p.Close()
		}
	})
	return err
}

// Status returns what /status shows. A process that runs out of file descriptors is not
// ready.
func (a *App) Status() ops.Status {
	var all []ops.IntegrationStatus
	partitions := 0
	for _, p := range a.pipelines {
		all = append(all, p.Status())
		partitions += len(all[len(all)-1].Partitions)
	}
	first := a.o.Pipelines[0].Settings
	s := ops.Status{Version: a.o.Version, Started: a.started, BufferedLimit: int64(first.Delivery.MaxBuffered),
		Memory: a.memory.keeper.State(), Reload: a.reloads.now(), LogLinesDropped: a.droppedLogLines()}
	if short := a.descriptors.short(time.Now(), descriptorsNeeded(a.o.Pipelines, partitions)); short != nil {
		s.NotReady = append(s.NotReady, *short)
	}
	return ops.NewStatus(s, all)
}

func (a *App) droppedLogLines() int64 {
	if a.o.DroppedLogLines == nil {
		return 0
	}
	return a.o.DroppedLogLines()
}
