package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
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
	var o demo.Options
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
			o.Show, o.ShowEvery = demoProgress(&o, bar, stderr)
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
			text := func(b *strings.Builder, look terminal.Style) { demoText(b, look, report) }
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
	f.IntVar(&o.Events, "events", 0, "stop after this many events")
	f.DurationVar(&o.Duration, "duration", 0, "stop after this time; 0 means until --events or Ctrl-C (default 20s when neither is given)")
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
	demoDuration = 20 * time.Second
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
		return fmt.Errorf("--transport is %q; use workspace, grpc or rest", o.Transport)
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

// demoProgress returns what shows progress, and how often: a line that is kept on
// a terminal, and one that is printed elsewhere.
func demoProgress(o *demo.Options, bar *terminal.Bar, stderr io.Writer) (show func(demo.Progress), every time.Duration) {
	if bar == nil {
		return func(p demo.Progress) {
			line := fmt.Sprintf("events in %d   rows delivered %d   rejected %d   filtered %d   lag %d   ack p50 %s p99 %s",
				p.Produced, p.Rows, p.Rejected, p.Filtered, p.Lag(), round(p.AckP50), round(p.AckP99))
			if p.SinkProblem != "" {
				line += "   sink " + p.SinkProblem
			}
			fmt.Fprintln(stderr, line)
		}, time.Second
	}
	var pc terminal.Pace
	return func(p demo.Progress) {
		pc.Note(time.Now(), p.Done)
		part := 0.0 // of --events or --duration
		if o.Events > 0 {
			part = float64(p.Done) / float64(o.Events)
		}
		if o.Duration > 0 {
			part = max(part, p.Elapsed.Seconds()/o.Duration.Seconds())
		}
		line := terminal.Gauge(100*min(part, 1)) + fmt.Sprintf("  %.0f events/s  lag %d", pc.Rate(), p.Lag())
		if p.SinkProblem != "" {
			line += "  sink " + p.SinkProblem
		} else {
			line += fmt.Sprintf("  rows %d  rejected %d  ack p99 %s", p.Rows, p.Rejected, round(p.AckP99))
		}
		bar.Show(line)
	}, terminal.BarInterval
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func demoText(b *strings.Builder, look terminal.Style, r *demo.Report) {
	fmt.Fprintf(b, "%s\n\n", look.Strong("SELECT * FROM "+demo.Table+" ORDER BY event_timestamp DESC LIMIT 10"))
	demoRows(b, r.Newest)
	fmt.Fprintf(b, "\n%d events in %s (%.0f events/s), acknowledged in %s (p50), %s (p99)\n", r.Produced, r.Elapsed.Round(time.Millisecond), r.EventsPerSecond,
		round(seconds(r.AckP50)), round(seconds(r.AckP99)))
	fmt.Fprintf(b, "\n  produced  %9d   acknowledged by Kafka\n  distinct  %9d   message ids in the table (%d rows, %d duplicates)\n", r.Produced, r.Distinct, r.Rows, r.Duplicates)
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(r.RejectedBy)) {
		codes = append(codes, fmt.Sprintf("%s %d", code, r.RejectedBy[code]))
	}
	by := ""
	if len(codes) > 0 {
		by = ": " + strings.Join(codes, ", ")
	}
	fmt.Fprintf(b, "  rejected  %9d   in the dead-letter topic%s\n  filtered  %9d   tombstones\n", r.Rejected, by, r.Filtered)
	paint := look.Good
	if r.Lost != 0 {
		paint = look.Bad
	}
	fmt.Fprintf(b, "%s   produced - distinct - rejected - filtered\n", paint(fmt.Sprintf("  lost      %9d", r.Lost)))
	if r.Kafka != "" {
		fmt.Fprintf(b, "\nTopics %s and %s-dlq are left on %s.\n", r.Topic, r.Topic, r.Kafka)
	}
}

// demoColumns are the columns of the default blueprint and how many characters of
// each are shown.
var demoColumns = []struct {
	name  string
	width int
}{
	{"event_name", 18}, {"event_type", 10}, {"message_id", 13}, {"user_id", 10}, {"anonymous_id", 12}, {"event_timestamp", 26}, {"ip_address", 15},
	{"user_agent", 12}, {"locale", 6}, {"timezone", 14}, {"page_url", 24}, {"page_referrer", 16}, {"source_id", 10},
}

// demoRows writes rows as a SQL editor would, with values cut to the columns.
func demoRows(b *strings.Builder, rows []emulator.Row) {
	lines := make([]string, 1+len(rows))
	for _, c := range demoColumns {
		lines[0] += c.name + "\t"
		for i, row := range rows {
			text, ok := row.Value(c.name)
			var micros int64
			runes := []rune(text)
			switch {
			case !ok:
				text = "NULL"
			case c.name == "event_timestamp":
				if _, err := fmt.Sscan(text, &micros); err == nil {
					text = time.UnixMicro(micros).UTC().Format("2006-01-02 15:04:05.000")
				}
			case len(runes) > c.width:
				text = string(runes[:c.width-1]) + "~"
			}
			lines[i+1] += text + "\t"
		}
	}
	tabulate(b, lines...)
}
