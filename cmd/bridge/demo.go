package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/demo"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/zerobus/emulator"
)

func newDemoCommand() *cobra.Command {
	o := demo.Options{MaxEvents: 5_000_000}
	var produceOnly bool
	var output *outputForm
	latency := "20ms"
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the bridge work, without Kafka, a workspace or a configuration",
		Long: `demo runs the real bridge between an in-process Kafka and an emulated workspace, over
real sockets. It produces Signal events of every type, some of them malformed on
purpose. At the end it counts what went in and what came out, each at its own end:

  produced = distinct + rejected + filtered + lost

The console and the install API are at 127.0.0.1:8084: the call of Signal's
integration page, as it is printed, installs a second integration, whose rows the
report shows apart.

The exit code is 1 if anything was lost. The demo ends after --events, after
--duration, or with Ctrl-C; without either flag after 10 minutes.`,
		Example: `  bridge demo                                     2,000 events per second, for 10 minutes or until Ctrl-C
  bridge demo --events 20000 --output json        as fast as it goes, one JSON object at the end
  bridge demo --kafka localhost:9092              through a real broker, on topics of its own
  bridge demo --transport grpc                    over the Zerobus stream instead of the workspace's path
  bridge demo --latency p50=150ms,p95=500ms       with the acknowledgement times Databricks publishes
  bridge demo --kafka localhost:9092 --topic events --produce-only
                                                  only write sample events to a topic`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Latency, err = emulator.ParseLatency(latency); err != nil {
				return &usageError{fmt.Errorf("--latency: %w", err)}
			}
			if err := completeDemo(&o, produceOnly, cmd.Flags().Changed); err != nil {
				return &usageError{err}
			}
			stops := stoppingOf(cmd.Context())
			stops.allow(demoEnd)
			stderr, lines := stops.log(cmd.ErrOrStderr())
			defer lines.Flush(lastFlush)
			bar := terminal.NewBar(stderr, styleOf(cmd, cmd.ErrOrStderr()))
			defer bar.End()
			stderr = bar.Above(stderr)
			reportGaps(lines, config.Log{Format: "console"})
			o.Log = func(cfg config.Log) *zap.Logger {
				reportGaps(lines, cfg)
				return newLogger(cfg, zapcore.AddSync(stderr))
			}
			o.Serve = serve
			o.Message = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
			o.Show, o.ShowEvery = o.ProgressOn(bar, stderr)
			if produceOnly {
				return produceDemo(cmd, o, output)
			}
			report, err := demo.Run(cmd.Context(), o)
			bar.End()
			if bad, ok := errors.AsType[*demo.ConfigError](err); ok {
				return &usageError{bad.Err}
			}
			if err != nil {
				return err
			}
			lines.Flush(lastFlush) // the report comes last
			text := func(b *strings.Builder, look terminal.Style) { report.WriteText(b, look) }
			if err := output.write(cmd, report, text); err != nil {
				return err
			}
			if report.Lost != 0 {
				return fmt.Errorf("%d of %d events are not accounted for: this is a bug in the bridge; please report it with --seed %d", report.Lost, report.Produced, o.Seed)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Events, "events", 0, "stop after this many events; 0 is 5,000,000 at most")
	f.DurationVar(&o.Duration, "duration", 0, "stop after this time; 0 means until --events or Ctrl-C (default 10m when neither is given)")
	f.Float64Var(&o.Rate, "rate", 0, "events per second; 0 is as fast as possible (default 2000, or 0 with --events)")
	f.IntVar(&o.Partitions, "partitions", 4, "partitions of the topic it creates")
	f.IntVar(&o.MalformedEvery, "malformed-every", 100, "one event in so many is malformed; 0 is none")
	f.IntVar(&o.TombstoneEvery, "tombstone-every", 333, "one record in so many has no value; 0 is none")
	f.Uint64Var(&o.Seed, "seed", 1, "determines the events")
	f.StringVar(&o.Kafka, "kafka", "", "host:port of a real broker to use instead of the in-process one")
	f.StringVar(&o.Topic, "topic", "", "topic to create and use (default signal-demo-<time>)")
	f.BoolVar(&produceOnly, "produce-only", false, "only write events to --topic on --kafka; no bridge, no emulator")
	f.StringVar(&o.Transport, "transport", "workspace", "wire between bridge and emulator: workspace, grpc or rest")
	f.StringVar(&latency, "latency", latency, "how long the emulator takes to acknowledge: a duration, or p50=...,p95=...")
	f.StringVar(&o.OpsAddress, "ops-address", "127.0.0.1:0", "where the bridge serves metrics, health and status")
	f.StringVar(&o.LogLevel, "log-level", "error", "of the bridge's log on standard error")
	f.StringArrayVar(&o.Sets, "set", nil, "set any configuration key of the bridge, as in --set delivery.max_rows=500; repeatable")
	output = addOutput(cmd)
	return cmd
}

const (
	// demoEnd bounds the end of an interrupted demo, which waits for the events in
	// flight as long as some of them arrive.
	demoEnd      = 10 * time.Minute
	demoDuration = 10 * time.Minute
	demoRate     = 2000
)

// completeDemo validates the flags and fills in what depends on those given.
func completeDemo(o *demo.Options, produceOnly bool, given func(string) bool) error {
	for flag, value := range map[string]any{"events": o.Events, "duration": o.Duration, "rate": o.Rate, "malformed-every": o.MalformedEvery, "tombstone-every": o.TombstoneEvery} {
		if text := fmt.Sprint(value); strings.HasPrefix(text, "-") {
			return fmt.Errorf("--%s is %s; use 0 or more", flag, text)
		}
	}
	switch {
	case o.Partitions < 1:
		return fmt.Errorf("--partitions is %d; a topic has at least 1", o.Partitions)
	case !slices.Contains(choicesOf("zerobus.transport"), o.Transport):
		return fmt.Errorf("--transport is %q; use auto, workspace, grpc or rest", o.Transport)
	case produceOnly && (o.Kafka == "" || o.Topic == ""):
		return errors.New("--produce-only writes to a broker of yours; give --kafka host:port and --topic name")
	}
	if !given("events") && !given("duration") {
		o.Duration = demoDuration
	}
	if !given("rate") && !given("events") {
		o.Rate = demoRate
	}
	if o.Topic == "" {
		o.Topic = "signal-demo-" + time.Now().UTC().Format("20060102-150405.000")
	}
	return nil
}

func produceDemo(cmd *cobra.Command, o demo.Options, output *outputForm) error {
	produced, err := demo.Produce(cmd.Context(), o)
	if err != nil {
		return err
	}
	return output.write(cmd, map[string]int64{"produced": produced}, func(b *strings.Builder, _ terminal.Style) {
		fmt.Fprintf(b, "produced %d events to %s\n", produced, o.Topic)
	})
}
