package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/hangup"
	"github.com/datafly/bridge/internal/terminal"
)

// wrapObserver is nil except in a build for tests: see panic_hook.go.
var wrapObserver func(consumer.Observer) consumer.Observer

func newRunCommand() *cobra.Command {
	var limits rangeFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Carry events from Kafka to the table until terminated",
		Long: `run joins the consumer group and delivers. SIGTERM or Ctrl-C ends it: what is in
flight may finish within delivery.drain, what is delivered is committed, the
member leaves its group, and the exit code is 0.

Settings come from the file, then BRIDGE_<SECTION>_<KEY> variables, then flags.
The file, integrations_dir and the blueprints are watched, and read on SIGHUP. A
changed blueprint, log level, rate limit or secret takes effect at once. Another
changed key of an integration makes that one drain and start again; keys of the
process take effect after a restart.
The exit code is 2 when the configuration is wrong, 1 when Kafka or the
workspace refuses for a reason that waiting cannot resolve.

With --until the run is bounded: it ends with exit code 0 when its
group has delivered and committed everything before that position, and with 1
when it is stopped earlier; started again with the same --group it resumes. With
--from a group begins there. Both need a --group of their own, beside the live
one; --set zerobus.table= sends the rows to another table. Of several integrations,
--integration names the one that runs, and --set integrations.NAME.zerobus.table=
its other table.

On a terminal the log is for people (log.format: auto), and one line below it shows
the state of the bridge.`,
		Example: `  bridge run --config /etc/bridge/config.yaml
  BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=/secrets/zerobus bridge run --topics delivery-int_xyz789
  bridge run --set delivery.max_rows=1000 --log-level debug
  bridge run --group shadow-1 --from 2026-11-22T06:00:00Z --until 2026-11-22T07:00:00Z --set zerobus.table=stream_shadow
  bridge run --integration orders --group orders-shadow --from -1h --until now --set integrations.orders.zerobus.table=orders_shadow`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A log that nobody reads must not stop or end the delivery: a write to a
			// closed pipe fails, and does not kill.
			signal.Ignore(syscall.SIGPIPE)
			hup := hangup.Signals()
			stops := stoppingOf(cmd.Context())
			stderr, lines := stops.log(cmd.ErrOrStderr())
			defer lines.Flush(lastFlush)
			deployment, bounds, err := limits.load(cmd)
			if err != nil {
				return err
			}
			cfg := deployment.Base
			stops.allow(cfg.Delivery.Drain + stopGrace)
			look := styleOf(cmd, stderr)
			logging := logFor(cfg.Log, stderr)
			screen := terminal.NewBar(stderr, look)
			if screen != nil {
				stderr = screen
			}
			level := zap.NewAtomicLevelAt(app.LogLevel(logging))
			log := newLoggerAt(level, logging, zapcore.AddSync(stderr))
			reportGaps(lines, logging)
			for _, i := range settingsWithoutEffect(deployment) {
				of := zap.Skip()
				if i.Integration != "" {
					of = zap.String("integration", i.Integration)
				}
				log.Warn("setting has no effect", of, zap.String("key", i.Key), zap.String("because", i.Why), zap.String("remedy", i.Remedy))
			}
			live := &summary{screen: screen}
			defer live.end()
			return serve(cmd.Context(), app.Options{
				Deployment: deployment, Range: bounds, Log: log, Level: &level, LimitMemory: true, DroppedLogLines: lines.Dropped,
				Reload:       &app.Reload{Options: config.FromFlags(cmd.Flags(), os.Environ()), Signals: hup},
				ShowProgress: func(ctx context.Context, progress func() consumer.Progress) { follow(ctx, progress, screen, log) },
				Observer:     wrapObserver,
			}, func(a *app.App) {
				if bounds.Until == nil { // a bounded run shows its progress
					live.begin(cmd.Context(), a.Status)
				}
			})
		},
	}
	config.AddFlags(cmd.Flags(), "brokers", "topics", "topic", "group", "log-level", "ops-address", "integration")
	limits.add(cmd)
	return cmd
}

// serve runs an app until ctx ends. listening is called when its ops endpoints
// answer, before delivery begins.
func serve(ctx context.Context, o app.Options, listening func(*app.App)) (err error) {
	// net/http writes why it closes a connection to the standard logger, bytes of
	// the answer included: for debugging only.
	restore, err := zap.RedirectStdLogAt(o.Log, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("redirecting the standard logger: %w", err)
	}
	defer restore()
	o.Version, o.Stage = version(), stoppingOf(ctx).during
	a, err := app.New(ctx, o)
	if err != nil {
		return &usageError{err}
	}
	defer func() { err = errors.Join(err, a.Close(ctx)) }()
	if err := a.Listen(ctx); err != nil {
		return suggest(err, "bridge help config ops.address")
	}
	listening(a)
	return a.Run(ctx)
}
