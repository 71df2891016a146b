package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/terminal"
)

func newDLQCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show and redrive dead letters",
		Long: `dlq works on the dead-letter topics of an integration: rejects.topic, or for each of
kafka.topics its name with -dlq and the name of the integration, which default leaves
out. It reads what is in them when the command begins, without a group.

A replay or a restart can write the dead letter of an event again. Only the newest
one counts: an event of an older one that it does not name was delivered since.

Dead letters whose events a redrive delivered are resolved, and left out. Kafka
removes nothing from the middle of a topic, so a marker, which is a record behind
the dead letters, names those that are resolved.`,
		Example: `  bridge dlq list --config config.yaml                    what is there, and why
  bridge dlq show --config config.yaml 0/17               one dead letter, mapped with the present blueprint
  bridge dlq redrive --config config.yaml                 what would be delivered now
  bridge dlq redrive --config config.yaml --execute`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDLQListCommand(), newDLQShowCommand(), newDLQRedriveCommand())
	return cmd
}

// deadLetterFlags select dead letters.
type deadLetterFlags struct {
	deadletter.Filter
	topics, partitions []string
	since, until       string
}

func (f *deadLetterFlags) addTopics(cmd *cobra.Command) {
	addTopic(cmd, &f.topics, "only dead letters from this one of kafka.topics; repeatable")
}

func (f *deadLetterFlags) add(cmd *cobra.Command) {
	f.addTopics(cmd)
	cmd.Flags().StringArrayVar(&f.Codes, "code", nil, "only dead letters with this error code; repeatable")
	cmd.Flags().StringVar(&f.Column, "column", "", "only dead letters with this column at fault")
	cmd.Flags().StringVar(&f.since, "since", "", "only dead letters that failed then or later: an RFC 3339 time, or a time before now (-2h)")
	cmd.Flags().StringVar(&f.until, "until", "", "only dead letters that failed before then")
	cmd.Flags().StringArrayVar(&f.partitions, "partition", nil, "only dead letters from these partitions of the source topic, as in 0,3-5; repeatable")
}

// read parses the flags and loads the configuration. Without a table only its
// kafka and rejects sections are required.
// list is for all integrations unless one is named.
func (f *deadLetterFlags) read(cmd *cobra.Command, table, all bool) ([]*config.Config, error) {
	now := time.Now()
	for _, bound := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", f.since, &f.From}, {"--until", f.until, &f.To}} {
		if bound.text == "" {
			continue
		}
		p, err := kafka.ParsePosition(bound.text, kafka.FormNow, now)
		if err != nil {
			return nil, &usageError{fmt.Errorf("%s %w", bound.flag, err)}
		}
		if *bound.at = p.Time; p.Kind == kafka.Latest {
			*bound.at = now
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return nil, &usageError{fmt.Errorf("--until %s is not after --since %s; exchange them", f.until, f.since)}
	}
	var err error
	if f.Partitions, err = kafka.ParsePartitions(f.partitions); err != nil {
		return nil, &usageError{err}
	}
	return loadTopics(cmd, f.topics, !table, all)
}

// commandLogger logs to standard error, above the bar if there is one.
func commandLogger(cmd *cobra.Command, cfg config.Log, above *terminal.Bar) *zap.Logger {
	stderr := cmd.ErrOrStderr()
	return newLogger(logFor(cfg, stderr), zapcore.AddSync(above.Above(stderr)))
}

func newDLQListCommand() *cobra.Command {
	var f deadLetterFlags
	limit := 100
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the dead letters and why they failed",
		Long: `list counts the dead letters by error code and column, and shows the newest of them,
newest first, without their events. Of an event that was dead-lettered several times
it shows the newest dead letter, with the attempts and copies of all. It leaves out
resolved dead letters unless --all is given. Without --integration it lists the dead
letters of all integrations. It needs the kafka section of the configuration, and READ
on the dead-letter topics.`,
		Example: `  bridge dlq list --config config.yaml
  bridge dlq list --integration orders
  bridge dlq list --code type_mismatch --column revenue --since -2h
  bridge dlq list --limit 0 --output json                 the counts alone`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return &usageError{fmt.Errorf("--limit is %d; use 0 for the counts alone, or more", limit)}
			}
			cfgs, err := f.read(cmd, false, true)
			if err != nil {
				return err
			}
			bar := terminal.NewBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			cl, err := pipeline.NewKafkaClient(cfgs[0], version(), commandLogger(cmd, cfgs[0].Log, bar))
			if err != nil {
				return &usageError{err}
			}
			defer cl.Close()
			list, err := operations.List(cmd.Context(), cl, f.Filter, limit, bar, cfgs...)
			if err != nil {
				return err
			}
			return output.writeTable(cmd, list, list.WriteText)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.All, "all", false, "include resolved dead letters")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many dead letters to show, the newest first; all are counted")
	output = addOutput(cmd)
	return cmd
}

func newDLQRedriveCommand() *cobra.Command {
	var f deadLetterFlags
	var execute bool
	var reason string
	limit := 0
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Map dead letters with the present blueprint and write their rows",
		Long: `redrive maps the dead letters as bridge run would map their events now. Without
--execute it writes nothing and shows how many would be delivered. With --execute it
writes the rows to the table. Once they are acknowledged, it writes a marker that
resolves their dead letters. Those that cannot be delivered stay as they are. Of an
event that was dead-lettered several times it redrives the newest dead letter, once,
which counts for all of them.

A row keeps the identity of its event: message_id, source topic, partition, offset
and time are those of the original. Bridges may run meanwhile. Ctrl-C ends it after
the write in flight; run it again to continue. After a crash between the
acknowledgement and the marker, the next redrive writes the same rows again.

The exit code is 0 when every selected dead letter was delivered, or would be, and 1
when one was not.`,
		Example: `  bridge dlq redrive --config config.yaml                               what would be delivered
  bridge dlq redrive --config config.yaml --execute --reason "revenue is a DECIMAL now"
  bridge dlq redrive --integration orders --execute
  bridge dlq redrive --code type_mismatch --column revenue --limit 100 --execute`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return &usageError{fmt.Errorf("--limit is %d; use 0 for all dead letters, or how many", limit)}
			}
			cfgs, err := f.read(cmd, true, false)
			if err != nil {
				return err
			}
			cfg := cfgs[0]
			stoppingOf(cmd.Context()).allow(cfg.Delivery.Drain + stopGrace)
			bar := terminal.NewBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			log := commandLogger(cmd, cfg.Log, bar)
			defer func() { _ = log.Sync() }() // standard error cannot always be synced
			b, err := pipeline.NewParts(cfg, version(), log, nil)
			if err != nil {
				return &usageError{err}
			}
			defer b.Close()
			r, err := operations.Redrive(cmd.Context(), cfg, b, operations.RedriveOptions{Filter: f.Filter, Limit: limit, Execute: execute, By: operator(), Reason: reason, Bar: bar}, log)
			if err != nil {
				return err
			}
			if err := output.writeTable(cmd, r, r.WriteText); err != nil {
				return err
			}
			if r.Error != "" {
				return errors.New(r.Error)
			}
			if r.Complete() {
				return nil
			}
			next := "" // the first dead letter that was not delivered shows why
			if len(r.Groups) > 0 {
				next = "bridge dlq show" + configArgument(cmd) + " " + shellWord(r.Groups[0].Example)
			}
			return &quietError{suggest(errors.New("some dead letters were not delivered"), next)}
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&execute, "execute", false, "write the rows and resolve the dead letters; without it nothing is changed")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many dead letters, the oldest of each partition first; 0: all")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit line")
	output = addOutput(cmd)
	return cmd
}
