package main

import (
	"cmp"
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

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// replayTimeout bounds the whole command, which is a handful of requests.
const replayTimeout = time.Minute

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
			cfg, r, err := f.read(cmd, time.Now())
			if err != nil {
				return &usageError{err}
			}
			return f.run(cmd, cfg, r)
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
	} else if cfg, lerr := config.Load(o); lerr != nil {
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
		return nil, errors.New("kafka.topics is required; set it in the file, by BRIDGE_KAFKA_TOPICS or --topics")
	}
	for _, t := range selected {
		if !slices.Contains(topics, t) {
			return nil, fmt.Errorf("--topic %s is not among kafka.topics; use %s", t, strings.Join(topics, " or "))
		}
	}
	return cfgs, nil
}

const replayForms = kafka.FormEarliest | kafka.FormLatest | kafka.FormOffset

// read parses the flags and loads the configuration.
func (f *replayFlags) read(cmd *cobra.Command, now time.Time) (*config.Config, kafka.Replay, error) {
	var r kafka.Replay
	if f.to == "" {
		return nil, r, fmt.Errorf("--to is required; use %s", kafka.PositionForms(replayForms))
	}
	var err error
	if r.To, err = kafka.ParsePosition(f.to, replayForms, now); err != nil {
		return nil, r, fmt.Errorf("--to %w", err)
	}
	if r.Partitions, err = kafka.ParsePartitions(f.partitions); err != nil {
		return nil, r, err
	}
	cfgs, err := loadTopics(cmd, f.topics, true, false) // it writes nothing to the table
	if err != nil {
		return nil, r, err
	}
	cfg := cfgs[0]
	r.Group, r.Topics = cfg.Kafka.Group, cfg.Kafka.Topics
	if len(r.Partitions) > 0 && len(r.Topics) > 1 {
		return nil, r, fmt.Errorf("--partition needs one topic; add --topic %s", strings.Join(r.Topics, " or --topic "))
	}
	return cfg, r, nil
}

// stopMembers are commands that end the members of a group.
const stopMembers = `"kubectl scale deployment/bridge --replicas=0", "docker compose stop bridge" or "systemctl stop bridge"`

func (f *replayFlags) run(cmd *cobra.Command, cfg *config.Config, r kafka.Replay) error {
	log := commandLogger(cmd, cfg.Log, nil)
	defer func() { _ = log.Sync() }() // standard error cannot always be synced
	cluster, err := pipeline.NewKafkaClient(cfg, version(), log)
	if err != nil {
		return &usageError{err}
	}
	defer cluster.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), replayTimeout)
	defer cancel()

	report := &replayReport{At: time.Now().UTC(), By: operator(), Reason: f.reason, Group: r.Group, To: r.To.String(), execute: f.execute, allowSkip: f.allowSkip, integration: cfg.Rejects.Integration}
	if _, err := cluster.ID(ctx); err != nil {
		return err // ends with ctx if a broker takes connections and never answers
	}
	r.Start = cfg.Kafka.Start
	moves, err := cluster.PlanReplay(ctx, r)
	if err != nil {
		return err
	}
	report.ReplaySummary = kafka.Summarize(moves)
	if report.Members, err = cluster.Members(ctx, r.Group); err != nil {
		return err
	}

	var refused error
	switch {
	case !f.execute:
	case report.Totals.Skipped > 0 && !f.allowSkip:
		refused = fmt.Errorf("refused: %d events were never delivered and never would be; choose an earlier --to, or add --allow-skip to skip them", report.Totals.Skipped)
	default:
		err := cluster.CommitReplay(ctx, r.Group, moves)
		if active, ok := errors.AsType[*kafka.ActiveGroupError](err); ok {
			report.Members = active.Members
			refused = fmt.Errorf("refused: %w, for example with %s", active, stopMembers)
			break
		}
		if err != nil {
			log.Warn("replay: failed; its offsets may be committed", append(report.audit(), zap.Error(err))...)
			return err
		}
		report.Executed = true
		log.Info("replay: offsets committed", report.audit()...)
	}
	report.Members = append([]kafka.Member{}, report.Members...) // [] in JSON, not null
	if err := f.output.write(cmd, report, report.text); err != nil {
		return err
	}
	return suggest(refused, "") // no command of the bridge helps
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

// replayReport is the answer of bridge replay.
type replayReport struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"` // OS user@host
	Reason   string    `json:"reason,omitempty"`
	Group    string    `json:"group"`
	To       string    `json:"to"` // a relative time made absolute
	Executed bool      `json:"executed"`

	kafka.ReplaySummary
	Members []kafka.Member `json:"members"` // of the group; --execute refuses while there is one

	execute     bool // asked for
	allowSkip   bool
	integration string
}

// audit is the fields of the audit line.
func (r *replayReport) audit() []zap.Field {
	return []zap.Field{
		zap.String("by", r.By), zap.String("reason", r.Reason), zap.String("group", r.Group), zap.String("to", r.To),
		zap.Int64("delivered_again", r.Totals.Again), zap.Int64("skipped", r.Totals.Skipped), zap.Strings("offsets", r.Offsets()),
	}
}

func (r *replayReport) text(out *strings.Builder, look terminal.Style) {
	var b strings.Builder
	mode := "dry run, nothing is changed"
	switch {
	case r.Executed:
		mode = "done, and read back"
	case r.execute:
		mode = "refused, nothing is changed"
	}
	fmt.Fprintf(&b, "group %s to %s: %s\n\n", r.Group, r.To, mode)
	rows := []string{"TOPIC\tPARTITION\tCOMMITTED\tTARGET\tLOG END\tTO READ\tAGAIN\tSKIPPED\tNOTE"}
	for _, p := range r.Partitions {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s", p.Topic, p.Partition, p.CommittedText(), p.Target, p.LogEnd, p.ToRead, p.Again, p.Skipped, p.Note))
	}
	terminal.Tabulate(&b, append(rows, fmt.Sprintf("total\t\t\t\t\t%d\t%d\t%d\t", r.Totals.ToRead, r.Totals.Again, r.Totals.Skipped))...)
	b.WriteByte('\n')
	switch {
	case r.Totals.Again > 0:
		fmt.Fprintf(&b, "Up to %d rows will be written to the table again, with the message_id they have there already;\nthe view of bridge ddl --dedupe-view shows each once.\n", r.Totals.Again)
	case r.Totals.Changed > 0:
		b.WriteString("No event is delivered twice.\n")
	default:
		b.WriteString("Every partition is there already.\n")
	}
	if r.Totals.Skipped > 0 {
		fmt.Fprintf(&b, "WARNING: %d events that were never delivered are SKIPPED: they will not reach the table.\n", r.Totals.Skipped)
		if !r.Executed && !r.allowSkip {
			b.WriteString("--execute refuses this without --allow-skip.\n")
		}
	}
	switch {
	case r.Executed:
		b.WriteString("Start the group's members again: they continue from these offsets.\n")
	case len(r.Members) > 0:
		r.membersText(&b)
	case r.Totals.Changed > 0 && !r.execute:
		b.WriteString("The group has no members: repeat this with --execute to act.\n")
	}
	out.WriteString(look.Table(b.String()))
}

// maxMemberName is how many bytes of a member's names are shown, which it chose itself.
const maxMemberName = 100

// membersText lists the members of the group and how to stop them.
func (r *replayReport) membersText(b *strings.Builder) {
	count := "1 member"
	if len(r.Members) > 1 {
		count = fmt.Sprintf("%d members", len(r.Members))
	}
	fmt.Fprintf(b, "\nThe group has %s; --execute requires that it has none:\n\n", count)
	rows := []string{"MEMBER\tCLIENT\tHOST\tINSTANCE\tPARTITIONS"}
	static := false
	for _, m := range r.Members {
		static = static || m.InstanceID != ""
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%d", plaintext.ShortLine(m.ID, maxMemberName), plaintext.ShortLine(m.ClientID, maxMemberName), plaintext.ShortLine(m.Host, maxMemberName), plaintext.ShortLine(cmp.Or(m.InstanceID, "-"), maxMemberName), m.Partitions))
	}
	terminal.Tabulate(b, rows...)
	b.WriteString("\nStop them in the way they were started:\n  kubectl scale deployment/bridge --replicas=0\n  docker compose stop bridge\n  systemctl stop bridge\n")
	if r.integration != config.DefaultIntegration {
		fmt.Fprintf(b, "Or set enabled: false in %s alone: it leaves its group, and the other integrations continue.\n", plaintext.ShortLine(r.integration, maxMemberName))
	}
	if static {
		b.WriteString("A member with an instance id may stay listed until kafka.session_timeout has passed after its end.\n")
	}
}
