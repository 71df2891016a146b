package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
)

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Carry events from Kafka to the table until told to stop",
		Long: `run joins the consumer group and delivers. SIGTERM or Ctrl-C ends it: what is in
flight may finish within delivery.drain, what is delivered is committed, the
member leaves its group, and the exit code is 0.

Settings come from the file, then BRIDGE_<SECTION>_<KEY> variables, then flags.
The exit code is 2 when the configuration is wrong, 1 when Kafka or the
workspace refuses for a reason that waiting cannot mend.`,
		Example: `  bridge run --config /etc/bridge/config.yaml
  BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=/secrets/zerobus bridge run --topics delivery-int_xyz789
  bridge run --set delivery.max_rows=1000 --log-level debug`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			log := newLogger(cfg.Log, zapcore.AddSync(cmd.ErrOrStderr()))
			defer func() { _ = log.Sync() }() // standard error cannot always be synced
			return serve(cmd.Context(), cfg, log, nil)
		},
	}
	config.AddFlags(cmd.Flags())
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
	b, err := newBridge(cfg, log)
	if err != nil {
		return err
	}
	defer b.close()

	opsConfig := ops.Config{Address: cfg.Ops.Address, Pprof: cfg.Ops.Pprof}
	if page := b.livePage(); page != nil {
		opsConfig.Live = page
	}
	server := ops.New(opsConfig, b.metrics, b.snapshot, log)
	if err := server.Start(ctx); err != nil {
		return fmt.Errorf("starting the ops endpoints: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), opsClose)
		defer cancel()
		if cerr := server.Close(closing); cerr != nil && !errors.Is(cerr, context.DeadlineExceeded) {
			err = errors.Join(err, cerr)
		}
	}()
	if started != nil {
		started(b, server.Addr())
	}
	return b.run(ctx)
}
