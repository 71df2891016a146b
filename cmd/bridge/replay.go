package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/pipeline"
)

// replayFlags is the command line of bridge replay.
type replayFlags struct {
	to, reason         string
	topics, partitions []string
	execute, allowSkip bool
	output             *outputForm
}

func newReplayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Set the group's offsets back, to deliver events again",
		Long: `replay sets the committed offsets of the group (kafka.group) to a position. The
bridge delivers from there when it is started again. Without --execute, replay only
shows which offsets would change, how many events would be delivered again, and
whether the group still has members.

With --execute it refuses while the group has members, which would commit over it,
and names them. It reads the offsets back after committing, and logs one audit line:
who, when, why, from where to where. It skips events that were never delivered only
with --allow-skip.

A time means the first event with that timestamp or a later one. Only the kafka
section of the configuration is required. The exit code is 1 when it refuses.`,
		Example: `  bridge replay --config config.yaml --to -2h                         what would happen
  bridge replay --config config.yaml --to 2026-11-22T06:00:00Z --execute --reason "blueprint fix"
  bridge replay --to earliest --topic delivery-int_xyz789 --partition 0,3-5
  bridge replay --to -2h --integration orders
  bridge replay --to 1200 --partition 7 --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.read(time.Now())
			if err != nil {
				return &usageError{err}
			}
			cfgs, err := loadTopics(cmd, f.topics, true, false) // it writes nothing to the table
			if err != nil {
				return err
			}
			r.Group, r.Topics = cfgs[0].Kafka.Group, cfgs[0].Kafka.Topics
			if len(r.Partitions) > 0 && len(r.Topics) > 1 {
				return &usageError{fmt.Errorf("--partition needs one topic; add --topic %s", strings.Join(r.Topics, " or --topic "))}
			}
			return f.run(cmd, cfgs[0], r)
		},
	}
	addTopic(cmd, &f.topics, "only this one of kafka.topics; repeatable")
	cmd.Flags().StringVar(&f.to, "to", "", "the position: earliest, latest, an RFC 3339 time, a time before now (-2h), or an offset")
	cmd.Flags().StringArrayVar(&f.partitions, "partition", nil, "only these partitions of the topic, as in 0,3-5; repeatable")
	cmd.Flags().BoolVar(&f.execute, "execute", false, "commit the offsets; the group must have no members")
	cmd.Flags().BoolVar(&f.allowSkip, "allow-skip", false, "let --execute skip events that were never delivered")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit line")
	f.output = addOutput(cmd)
	return cmd
}

// addTopic adds the flags of the configuration that concern a topic's readers, and
// --topic, which here selects some of kafka.topics.
func addTopic(cmd *cobra.Command, topics *[]string, usage string) {
	config.AddFlags(cmd.Flags(), "brokers", "topics", "group", "log-level", "integration")
	cmd.Flags().StringArrayVar(topics, "topic", nil, usage)
}

// loadTopics loads the configuration with kafka.topics reduced to the selected
// ones, if any: of one integration, or with all of every one that has some of them.
// partial is config.Options.Partial. The log level is at least info, since the audit
// line must not be suppressed.
func loadTopics(cmd *cobra.Command, selected []string, partial, all bool) (cfgs []*config.Config, err error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	delete(o.Flags, "topic")
	o.Partial = partial
	var found *config.Deployment
	if all {
		found, err = chosen(cmd, o)
	} else if cfg, lerr := ofOne(cmd, o); lerr != nil {
		err = lerr
	} else {
		found = config.Single(cfg)
	}
	if err != nil {
		return nil, err
	}
	var topics []string
	for _, i := range found.Integrations {
		cfg := i.Config
		topics = append(topics, cfg.Kafka.Topics...)
		if len(selected) > 0 {
			cfg.Kafka.Topics = slices.DeleteFunc(slices.Clone(cfg.Kafka.Topics), func(t string) bool { return !slices.Contains(selected, t) })
		}
		if cfg.Log.Level != "debug" {
			cfg.Log.Level = "info"
		}
		if len(cfg.Kafka.Topics) > 0 {
			cfgs = append(cfgs, cfg)
		}
	}
	if len(topics) == 0 {
		return nil, &usageError{errors.New("kafka.topics is required; set it in the file, by BRIDGE_KAFKA_TOPICS or --topics")}
	}
	for _, t := range selected {
		if !slices.Contains(topics, t) {
			return nil, &usageError{fmt.Errorf("--topic %s is not among kafka.topics; use %s", t, strings.Join(topics, " or "))}
		}
	}
	return cfgs, nil
}

// read parses the flags.
func (f *replayFlags) read(now time.Time) (r kafka.Replay, err error) {
	if f.to == "" {
		return r, fmt.Errorf("--to is required; use %s", kafka.PositionForms(operations.ReplayForms))
	}
	if r.To, err = kafka.ParsePosition(f.to, operations.ReplayForms, now); err != nil {
		return r, fmt.Errorf("--to %w", err)
	}
	r.Partitions, err = kafka.ParsePartitions(f.partitions)
	return r, err
}

func (f *replayFlags) run(cmd *cobra.Command, cfg *config.Config, r kafka.Replay) error {
	log := commandLogger(cmd, cfg.Log, nil)
	defer func() { _ = log.Sync() }() // standard error cannot always be synced
	cluster, err := pipeline.NewKafkaClient(cfg, version(), log)
	if err != nil {
		return &usageError{err}
	}
	defer cluster.Close()
	r.Start = cfg.Kafka.Start
	report, err := operations.Replay(cmd.Context(), cluster, operations.ReplayOptions{Replay: r, Integration: cfg.Rejects.Integration, By: operator(), Reason: f.reason, Execute: f.execute, AllowSkip: f.allowSkip}, log)
	if report != nil {
		if werr := f.output.writeTable(cmd, report, report.WriteText); werr != nil {
			return werr
		}
	}
	if refused, ok := errors.AsType[*pipeline.Refused](err); ok {
		err = suggest(fmt.Errorf("refused: %s; %s", refused.Reason, strings.Replace(refused.Remedy, "allow to skip them", "add --allow-skip to skip them", 1)), "") // no command of the bridge helps
	}
	return err
}

// operator names who runs the command.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid()) // a container's user may have no entry
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}
