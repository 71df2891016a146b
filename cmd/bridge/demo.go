package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/zerobus/emulator"
)

// demoOptions are the flags of `bridge demo`.
type demoOptions struct {
	events         int
	duration       time.Duration
	rate           float64
	partitions     int
	malformedEvery int
	tombstoneEvery int
	seed           uint64
	kafka          string
	topic          string
	produceOnly    bool
	latency        emulator.Latency
	transport      string
	opsAddress     string
	logLevel       string
	sets           []string
	output         *outputForm
	out, err       style // of standard output and standard error
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	latency := "20ms"
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the bridge work, without Kafka, a workspace or a configuration",
		Long: `demo runs the real bridge between an in-process Kafka and an emulated workspace,
over real sockets, and feeds it generated Signal traffic of every type, some of
it malformed on purpose. At the end it counts what went in and what came out,
each at its own end:

  produced = distinct + rejected + filtered + lost

The exit code is 1 if anything was lost. It ends after --events, after
--duration, or with Ctrl-C; without either flag after 20 seconds.`,
		Example: `  bridge demo                                     20 seconds of traffic, 2,000 events per second
  bridge demo --events 20000 --output json        as fast as it goes, one JSON object at the end
  bridge demo --kafka localhost:9092              through a real broker, on topics of its own
  bridge demo --transport grpc                    over the Zerobus stream instead of the workspace's path
  bridge demo --latency p50=150ms,p95=500ms       with the acknowledgement times Databricks publishes
  bridge demo --kafka localhost:9092 --topic events --produce-only
                                                  only write sample events to a topic`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.latency, err = emulator.ParseLatency(latency); err != nil {
				return &usageError{fmt.Errorf("--latency: %w", err)}
			}
			if err := o.complete(cmd.Flags().Changed); err != nil {
				return &usageError{err}
			}
			o.out, o.err = styleOf(cmd, cmd.OutOrStdout()), styleOf(cmd, cmd.ErrOrStderr())
			stops := stoppingOf(cmd.Context())
			stops.allow(demoEnd)
			stderr, lines := stops.log(cmd.ErrOrStderr())
			defer lines.Flush(lastWords)
			reportGaps(lines, config.Log{Format: "console"})
			return runDemo(cmd.Context(), o, cmd.OutOrStdout(), stderr)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.events, "events", 0, "stop after this many events")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time; 0 means until --events or Ctrl-C (default 20s when neither is given)")
	f.Float64Var(&o.rate, "rate", 0, "events per second; 0 is as fast as it goes (default 2000, or 0 with --events)")
	f.IntVar(&o.partitions, "partitions", 4, "partitions of the topic it creates")
	f.IntVar(&o.malformedEvery, "malformed-every", 100, "one event in so many is malformed; 0 is none")
	f.IntVar(&o.tombstoneEvery, "tombstone-every", 333, "one record in so many has no value; 0 is none")
	f.Uint64Var(&o.seed, "seed", 1, "the traffic is a function of this number")
	f.StringVar(&o.kafka, "kafka", "", "host:port of a real broker to use instead of the in-process one")
	f.StringVar(&o.topic, "topic", "", "topic to create and use (default signal-demo-<time>)")
	f.BoolVar(&o.produceOnly, "produce-only", false, "only write events to --topic on --kafka; no bridge, no emulator")
	f.StringVar(&o.transport, "transport", "workspace", "wire between bridge and emulator: workspace, grpc or rest")
	f.StringVar(&latency, "latency", latency, "how long the emulator takes to acknowledge: a duration, or p50=...,p95=...")
	f.StringVar(&o.opsAddress, "ops-address", "127.0.0.1:0", "where the bridge serves metrics, health and status")
	f.StringVar(&o.logLevel, "log-level", "error", "of the bridge's log on standard error")
	f.StringArrayVar(&o.sets, "set", nil, "set any configuration key of the bridge, as in --set delivery.max_rows=500; repeatable")
	o.output = addOutput(cmd)
	return cmd
}

// demoEnd bounds the end of an interrupted demo: what is on its way is waited for as
// long as some of it arrives, which is watched for demoQuiet at a time.
const demoEnd = 10 * time.Minute

const (
	demoDuration = 20 * time.Second
	demoRate     = 2000
)

// complete fills in what depends on which flags were given.
func (o *demoOptions) complete(given func(string) bool) error {
	for _, n := range []struct {
		flag  string
		below bool
		value any
	}{
		{"events", o.events < 0, o.events}, {"duration", o.duration < 0, o.duration}, {"rate", o.rate < 0, o.rate},
		{"malformed-every", o.malformedEvery < 0, o.malformedEvery}, {"tombstone-every", o.tombstoneEvery < 0, o.tombstoneEvery},
	} {
		if n.below {
			return fmt.Errorf("--%s is %v; use 0 or more", n.flag, n.value)
		}
	}
	switch {
	case o.partitions < 1:
		return fmt.Errorf("--partitions is %d; a topic has at least 1", o.partitions)
	case !slices.Contains([]string{"workspace", "grpc", "rest"}, o.transport):
		return fmt.Errorf("--transport is %q; use workspace, grpc or rest", o.transport)
	case o.produceOnly && (o.kafka == "" || o.topic == ""):
		return errors.New("--produce-only writes to a broker of yours; give --kafka host:port and --topic name")
	}
	if !given("events") && !given("duration") {
		o.duration = demoDuration
	}
	if !given("rate") && !given("events") {
		o.rate = demoRate
	}
	if o.topic == "" {
		o.topic = "signal-demo-" + time.Now().UTC().Format("20060102-150405.000")
	}
	return nil
}

// config is the bridge's configuration, made as a user would make it.
func (o *demoOptions) config(brokers string, workspace *emulator.Emulator) (*config.Config, error) {
	return config.Load(config.Options{
		File: os.DevNull,
		Env: []string{
			"BRIDGE_KAFKA_BROKERS=" + brokers, "BRIDGE_KAFKA_TOPICS=" + o.topic, "BRIDGE_KAFKA_GROUP=" + o.topic,
			"BRIDGE_ZEROBUS_WORKSPACE_URL=" + workspace.URL(), "BRIDGE_ZEROBUS_TRANSPORT=" + o.transport,
			"BRIDGE_ZEROBUS_ENDPOINT=" + workspace.ZerobusURL(), "BRIDGE_ZEROBUS_WORKSPACE_ID=" + emulator.DefaultWorkspaceID,
			"BRIDGE_ZEROBUS_TABLE=" + demoTable,
			"BRIDGE_ZEROBUS_CLIENT_ID=" + emulator.DefaultClientID, "BRIDGE_ZEROBUS_CLIENT_SECRET=" + emulator.DefaultClientSecret,
			"BRIDGE_LOG_FORMAT=console",
		},
		Flags: map[string]string{"ops-address": o.opsAddress, "log-level": o.logLevel},
		Sets:  o.sets,
	})
}

// runDemo runs the whole of it and prints the report.
func runDemo(ctx context.Context, o demoOptions, stdout, stderr io.Writer) error {
	screen := newLiveLine(stderr, o.err)
	if o.produceOnly {
		return produceOnly(ctx, o, stdout, screen)
	}
	d := &demo{o: o, screen: screen, log: zapcore.AddSync(screen.w)}
	lines, queued := bare(stderr).(*logwriter.Writer)
	if queued {
		d.logging = func(cfg config.Log) { reportGaps(lines, cfg) }
	}
	report, err := d.run(ctx)
	if err != nil {
		return err
	}
	if queued {
		lines.Flush(lastWords) // the report comes last
	}
	if err := report.write(stdout, o.output, o.out); err != nil {
		return err
	}
	if report.Lost != 0 {
		return fmt.Errorf("%d of %d events are not accounted for: this is a bug in the bridge; please report it with --seed %d", report.Lost, report.Produced, o.seed)
	}
	return nil
}

// liveLine is the one line of progress: kept below the log on a terminal,
// printed now and then elsewhere.
type liveLine struct {
	w   io.Writer
	bar *bar // nil without a terminal
}

func newLiveLine(w io.Writer, s style) *liveLine {
	l := &liveLine{w: w, bar: newBar(w, s)}
	if l.bar != nil {
		l.w = l.bar
	}
	return l
}

// show puts the short form on a terminal and the long one elsewhere.
func (l *liveLine) show(short, long string) {
	if l.bar != nil {
		l.bar.show(short)
		return
	}
	fmt.Fprintln(l.w, long)
}

// end leaves the last line where it is.
func (l *liveLine) end() {
	if l.bar != nil {
		l.bar.end()
	}
}

// say prints a line that stays.
func (l *liveLine) say(format string, args ...any) { fmt.Fprintf(l.w, format+"\n", args...) }
