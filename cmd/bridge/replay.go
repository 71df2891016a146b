package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
)

// replayTimeout bounds the whole command: a handful of requests.
const replayTimeout = time.Minute

func newReplayCommand() *cobra.Command {
	var f replayFlags
	output := outputText
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Set the group's offsets back, to deliver events again",
		Long: `replay sets the committed offsets of the group (kafka.group) to a position, so that
the bridge delivers from there when it is started again. Without --execute it only
shows what would move, how many events would be delivered again, and whether the
group still has members.

With --execute it refuses while the group has members, since they would commit over
it, and names them; it reads the offsets back after committing; and it logs one line
for the audit: who, when, why, from where to where. Events that were never delivered
are passed over only with --allow-skip.

A time stands for the first event with that timestamp or a later one. Only the kafka
section of the configuration is needed. The exit code is 1 when it refuses.`,
		Example: `  bridge replay --config config.yaml --to -2h                         what would happen
  bridge replay --config config.yaml --to 2026-11-22T06:00:00Z --execute --reason "blueprint fix"
  bridge replay --to earliest --topic delivery-int_xyz789 --partition 0,3-5
  bridge replay --to 1200 --partition 7 --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, r, err := f.read(cmd, time.Now())
			if err != nil {
				return &usageError{err}
			}
			return f.run(cmd, cfg, r, output)
		},
	}
	addTopic(cmd, &f.topics, "only this one of kafka.topics; repeatable")
	cmd.Flags().StringVar(&f.to, "to", "", "where to: earliest, latest, an RFC 3339 time, a time before now (-2h), or an offset")
	cmd.Flags().StringArrayVar(&f.partitions, "partition", nil, "only these partitions of the topic, as in 0,3-5; repeatable")
	cmd.Flags().BoolVar(&f.execute, "execute", false, "commit the offsets; the group must have no members")
	cmd.Flags().BoolVar(&f.allowSkip, "allow-skip", false, "let --execute pass over events that were never delivered")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit line")
	addOutput(cmd, &output)
	return cmd
}

// addTopic adds the flags of the configuration that concern a topic's readers,
// and --topic, which here is one of kafka.topics and not another name of that
// key.
func addTopic(cmd *cobra.Command, topics *[]string, usage string) {
	config.AddFlags(cmd.Flags(), "brokers", "topics", "group", "log-level")
	cmd.Flags().StringArrayVar(topics, "topic", nil, usage)
}

// loadTopics loads the configuration that the flags of addTopic ask for, and
// holds topics to it. partial is config.Options.Partial.
func loadTopics(cmd *cobra.Command, topics []string, partial bool) (*config.Config, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	delete(o.Flags, "topic")
	o.Partial = partial
	cfg, err := config.Load(o)
	if err != nil {
		return nil, err
	}
	if len(cfg.Kafka.Topics) == 0 {
		return nil, errors.New("kafka.topics is required; set it in the file, by BRIDGE_KAFKA_TOPICS or --topics")
	}
	for _, t := range topics {
		if !slices.Contains(cfg.Kafka.Topics, t) {
			return nil, fmt.Errorf("--topic %s is not among kafka.topics; use %s", t, strings.Join(cfg.Kafka.Topics, " or "))
		}
	}
	return cfg, nil
}

type replayFlags struct {
	to, reason         string
	topics, partitions []string
	execute, allowSkip bool
}

// read makes sense of the command line and the configuration.
func (f *replayFlags) read(cmd *cobra.Command, now time.Time) (*config.Config, consumer.Replay, error) {
	var r consumer.Replay
	if f.to == "" {
		return nil, r, fmt.Errorf("--to is required; use %s", positionForms(replayForms))
	}
	var err error
	if r.To, err = parsePosition(f.to, replayForms, now); err != nil {
		return nil, r, fmt.Errorf("--to %w", err)
	}
	if r.Partitions, err = parsePartitions(f.partitions); err != nil {
		return nil, r, err
	}
	cfg, err := loadTopics(cmd, f.topics, true) // nothing is written to the table
	if err != nil {
		return nil, r, err
	}
	if cfg.Log.Level != "debug" {
		cfg.Log.Level = "info" // the audit line is not to be silenced
	}
	r.Group, r.Topics = cfg.Kafka.Group, cfg.Kafka.Topics
	if len(f.topics) > 0 {
		r.Topics = slices.Compact(slices.Sorted(slices.Values(f.topics)))
	}
	if len(r.Partitions) > 0 && len(r.Topics) > 1 {
		return nil, r, fmt.Errorf("--partition needs one topic; add --topic %s", strings.Join(r.Topics, " or --topic "))
	}
	return cfg, r, nil
}

const replayForms = formEarliest | formLatest | formOffset

// parsePartitions reads lists like 0,3-5.
func parsePartitions(lists []string) ([]int32, error) {
	const most = 100_000
	var ids []int32
	for _, part := range strings.Split(strings.Join(lists, ","), ",") {
		if len(lists) == 0 {
			break
		}
		first, last, many := strings.Cut(strings.TrimSpace(part), "-")
		lo, err := strconv.ParseInt(first, 10, 32)
		hi := lo
		if err == nil && many {
			hi, err = strconv.ParseInt(last, 10, 32)
		}
		switch {
		case err != nil || lo < 0 || hi < 0:
			return nil, fmt.Errorf("--partition %q is not a list of partitions; use the form 0,3-5", part)
		case hi < lo:
			return nil, fmt.Errorf("--partition %q ends before it begins; use the form 3-5", part)
		case hi-lo >= most:
			return nil, fmt.Errorf("--partition %q names more than %d partitions; leave the flag away for all", part, most)
		}
		for id := lo; id <= hi; id++ {
			ids = append(ids, int32(id))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (f *replayFlags) run(cmd *cobra.Command, cfg *config.Config, r consumer.Replay, output outputForm) error {
	log := newLogger(logFor(cfg.Log, cmd.ErrOrStderr()), zapcore.AddSync(cmd.ErrOrStderr()))
	defer func() { _ = log.Sync() }() // standard error cannot always be synced
	cluster, err := consumer.NewCluster(consumerConfig(cfg), log)
	if err != nil {
		return &usageError{err}
	}
	defer cluster.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), replayTimeout)
	defer cancel()

	report := &replayReport{At: time.Now().UTC(), By: operator(), Reason: f.reason, Group: r.Group, To: r.To.String(), execute: f.execute, allowSkip: f.allowSkip}
	if _, err := cluster.ID(ctx); err != nil {
		return err // of a broker that takes connections and never answers, it ends with ctx
	}
	moves, err := cluster.PlanReplay(ctx, r)
	if err != nil {
		return err
	}
	report.add(moves)
	if report.members, err = cluster.Members(ctx, r.Group); err != nil {
		return err
	}
	report.addMembers()

	var refused error
	switch {
	case !f.execute:
	case report.Totals.Skipped > 0 && !f.allowSkip:
		refused = fmt.Errorf("refused: %d events were never delivered and never would be; choose an earlier --to, or add --allow-skip if they are to be passed over", report.Totals.Skipped)
	default:
		err := cluster.CommitReplay(ctx, r.Group, moves)
		var active *consumer.ActiveGroupError
		if errors.As(err, &active) {
			report.members = active.Members
			report.addMembers()
			refused = fmt.Errorf("refused: %w, for example with %s", active, standDown)
			break
		}
		if err != nil {
			log.Warn("replay: failed; its offsets may be committed", append(report.audit(), zap.Error(err))...)
			return err
		}
		report.Executed = true
		log.Info("replay: offsets committed", report.audit()...)
	}
	if err := report.write(cmd.OutOrStdout(), output, styleOf(cmd, cmd.OutOrStdout())); err != nil {
		return err
	}
	return advise(refused, "") // what helps is no command of ours
}

// standDown is how a group loses its members.
const standDown = `"kubectl scale deployment/bridge --replicas=0", "docker compose stop bridge" or "systemctl stop bridge"`

// audit is what the audit line says.
func (r *replayReport) audit() []zap.Field {
	return []zap.Field{
		zap.String("by", r.By), zap.String("reason", r.Reason), zap.String("group", r.Group), zap.String("to", r.To),
		zap.Int64("delivered_again", r.Totals.Again), zap.Int64("skipped", r.Totals.Skipped), zap.Strings("offsets", r.offsets()),
	}
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
