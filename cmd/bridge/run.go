package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/hangup"
	"github.com/datafly/bridge/internal/ops"
)

func newRunCommand() *cobra.Command {
	var limits windowFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Carry events from Kafka to the table until told to stop",
		Long: `run joins the consumer group and delivers. SIGTERM or Ctrl-C ends it: what is in
flight may finish within delivery.drain, what is delivered is committed, the
member leaves its group, and the exit code is 0.

Settings come from the file, then BRIDGE_<SECTION>_<KEY> variables, then flags.
The file and the blueprint are followed: blueprint, log level, rate limit and
secrets take effect when they change, or on SIGHUP; the rest after a restart.
The exit code is 2 when the configuration is wrong, 1 when Kafka or the
workspace refuses for a reason that waiting cannot mend.

With --until the run is bounded: it ends by itself, with exit code 0, when its
group has delivered and committed everything before that position, and with 1
when it is stopped earlier; started again with the same --group it goes on. With
--from a group begins there. Both need a --group of their own, beside the live
one; --set zerobus.table= sends the rows to another table.

On a terminal the log is for people (log.format: auto) and one line below it says
what the bridge is doing.`,
		Example: `  bridge run --config /etc/bridge/config.yaml
  BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=/secrets/zerobus bridge run --topics delivery-int_xyz789
  bridge run --set delivery.max_rows=1000 --log-level debug
  bridge run --group shadow-1 --from 2026-11-22T06:00:00Z --until 2026-11-22T07:00:00Z --set zerobus.table=stream_shadow`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A log that is not read, or no more, is no reason to stand still or
			// to end: a write to a closed pipe fails, and does not kill.
			signal.Ignore(syscall.SIGPIPE)
			hup := hangup.Signals()
			stops := stoppingOf(cmd.Context())
			stderr, lines := stops.log(cmd.ErrOrStderr())
			defer lines.Flush(lastWords)
			cfg, span, err := limits.load(cmd)
			if err != nil {
				return err
			}
			stops.allow(cfg.Delivery.Drain + stopGrace)
			look := styleOf(cmd, stderr)
			logging := logFor(cfg.Log, stderr)
			screen := newBar(stderr, look)
			if screen != nil {
				stderr = screen
			}
			level := zap.NewAtomicLevelAt(levelOf(logging))
			log := newLoggerAt(level, logging, zapcore.AddSync(stderr))
			reportGaps(lines, logging)
			for _, i := range settingsWithoutEffect(cfg) {
				log.Warn("setting has no effect", zap.String("key", i.Key), zap.String("because", i.Why), zap.String("remedy", i.Remedy))
			}
			live := &summary{screen: screen}
			defer live.end()
			return serve(cmd.Context(), cfg, log, func(b *bridge, _ string) {
				b.window, b.screen = span, screen
				b.lines.Store(lines)
				b.keeper.Enforce()
				b.level, b.follower = level, &follower{options: config.FromFlags(cmd.Flags(), os.Environ()), signals: hup}
				if span == nil || span.until == nil { // a bounded run shows how far it is
					live.begin(cmd.Context(), b.snapshot)
				}
			})
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level", "ops-address")
	limits.add(cmd)
	return cmd
}

// loadConfig reads the configuration the command line asks for.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	cfg, err := config.Load(config.FromFlags(cmd.Flags(), os.Environ()))
	if err != nil {
		return nil, &usageError{err}
	}
	return cfg, nil
}

// opsClose bounds the last answers of the ops server.
const opsClose = 300 * time.Millisecond

// serve runs one bridge with its ops endpoints. started, if not nil, is called
// with the address of the endpoints.
func serve(ctx context.Context, cfg *config.Config, log *zap.Logger, started func(b *bridge, address string)) (err error) {
	// net/http writes what it closes a connection for to the standard logger,
	// bytes of the answer included: fit for debugging only.
	restore, err := zap.RedirectStdLogAt(log, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("redirecting the standard logger: %w", err)
	}
	defer restore()
	b, err := newBridge(cfg, log)
	if err != nil {
		return err
	}
	stops := stoppingOf(ctx)
	defer stops.during("closing the connections to Kafka and the workspace", b.close)

	opsConfig := ops.Config{Address: cfg.Ops.Address, Pprof: cfg.Ops.Pprof, Access: b.access()}
	if page := b.livePage(opsConfig.Access); page != nil {
		opsConfig.Live = page
	}
	server := ops.New(opsConfig, b.metrics, b.snapshot, log)
	if err := server.Start(ctx); err != nil {
		return advise(fmt.Errorf("starting the ops endpoints: %w", err), "bridge help config ops.address")
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), opsClose)
		defer cancel()
		var cerr error
		stops.during("closing the ops endpoints", func() { cerr = server.Close(closing) })
		if cerr != nil && !errors.Is(cerr, context.DeadlineExceeded) {
			err = errors.Join(err, cerr)
		}
	}()
	if started != nil {
		started(b, server.Addr())
	}
	if b.follower != nil {
		following, stop := context.WithCancel(ctx)
		var follow sync.WaitGroup
		follow.Go(func() { b.follow(following) })
		defer stops.during("following the configuration", follow.Wait)
		defer stop()
	}
	stops.during("delivery", func() { err = b.run(ctx) })
	return err
}

// run proves the connections, joins the group and delivers until ctx ends or,
// when the run is bounded, its group has reached the end. It returns nil then,
// and an error when a bounded run was cut.
func (b *bridge) run(ctx context.Context) error {
	defer b.state.Store(ops.StateStopped)
	defer b.keeper.Release()
	cfg := b.consumerConfig()
	cfg.SinkProblem, cfg.OnSizeChange = b.sinkTrouble, b.sized
	var ends *consumer.StopOffsets
	err := b.prove(ctx)
	if err == nil {
		ends, err = b.window.begin(ctx, b, &cfg)
	}
	if err != nil {
		if ctx.Err() == nil {
			return err
		}
		if b.window != nil && b.window.until != nil {
			return errCut
		}
		return nil // told to stop while it was waiting
	}
	tracer, err := b.startTracing(ctx)
	if err != nil {
		return err
	}
	cfg.BatchObserver = b.batchObserver(tracer)
	group := consumer.NewGroup(cfg, b.cluster, b.client, b.schema.NewMapper, b.observer, b.log)
	b.group.Store(group)
	b.state.Store(ops.StateRunning)
	var told atomic.Pointer[time.Time]
	draining := context.AfterFunc(ctx, func() {
		now := time.Now()
		told.Store(&now)
		b.state.CompareAndSwap(ops.StateRunning, ops.StateDraining)
	})
	defer draining()
	b.log.Info("joining the group", zap.String("group", b.cfg.Kafka.Group), zap.Strings("topics", b.cfg.Kafka.Topics),
		zap.String("table", b.client.Table().String()), zap.String("version", version()))
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	var watch sync.WaitGroup
	watch.Go(func() {
		b.client.Watch(watching, b.schema.OnColumnsChanged)
	})
	if ends != nil {
		group.StopAt(ends)
		watch.Go(func() { follow(watching, ends, b.screen, b.log) })
	}
	stops := stoppingOf(ctx)
	stops.during("the group and its partitions", func() { err = group.Run(ctx) })
	unwatch()
	stops.during("watching the table's columns", watch.Wait)
	if tracer != nil {
		stops.during("sending spans", func() { b.stopTracing(tracer, told.Load()) })
	}
	if err == nil && ends != nil {
		err = b.outcome(ends)
	}
	return err
}
