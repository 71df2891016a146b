package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
)

func newDLQCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "List, show and redrive dead letters",
		Long: `dlq works on the dead-letter topics of kafka.topics (rejects.topic, or each topic's
name with -dlq): what lies there when the command begins, read without a group.

A replay or a restart can write the dead letter of an event again. The newest one
counts, the older ones are left out: what it does not name was delivered since.

Letters that a redrive brought into the table are settled and left out. Kafka
removes nothing from the middle of a topic: a marker behind the letters says which
they are.`,
		Example: `  bridge dlq list --config config.yaml                    what is there, and why
  bridge dlq show --config config.yaml 0/17               one letter, and what the blueprint makes of it now
  bridge dlq redrive --config config.yaml                 what would land now
  bridge dlq redrive --config config.yaml --execute`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{newDLQListCommand(), newDLQShowCommand(), newDLQRedriveCommand()} {
		misuse(sub)
		cmd.AddCommand(sub)
	}
	return cmd
}

// letterFlags say which letters are meant.
type letterFlags struct {
	topics, codes, partitions   []string
	column, since, until, group string
	all                         bool
	from, to                    time.Time
	parts                       []int32
	elsewhere, settled          int // letters passed over
}

func (f *letterFlags) addTopics(cmd *cobra.Command) {
	addTopic(cmd, &f.topics, "only letters from this one of kafka.topics; repeatable")
}

func (f *letterFlags) add(cmd *cobra.Command) {
	f.addTopics(cmd)
	cmd.Flags().StringArrayVar(&f.codes, "code", nil, "only letters with this error code; repeatable")
	cmd.Flags().StringVar(&f.column, "column", "", "only letters with this column at fault")
	cmd.Flags().StringVar(&f.since, "since", "", "only letters that failed then or later: an RFC 3339 time, or a time before now (-2h)")
	cmd.Flags().StringVar(&f.until, "until", "", "only letters that failed before then")
	cmd.Flags().StringArrayVar(&f.partitions, "partition", nil, "only letters from these partitions of the source topic, as in 0,3-5; repeatable")
}

// read makes sense of the command line and the configuration. Without a table
// only the kafka and rejects sections are needed.
func (f *letterFlags) read(cmd *cobra.Command, table bool) (*config.Config, error) {
	now := time.Now()
	for _, bound := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", f.since, &f.from}, {"--until", f.until, &f.to}} {
		if bound.text == "" {
			continue
		}
		p, err := parsePosition(bound.text, formNow, now)
		if err != nil {
			return nil, &usageError{fmt.Errorf("%s %w", bound.flag, err)}
		}
		if *bound.at = p.Time; p.Kind == consumer.Latest {
			*bound.at = now
		}
	}
	if !f.from.IsZero() && !f.to.IsZero() && !f.from.Before(f.to) {
		return nil, &usageError{fmt.Errorf("--until %s is not after --since %s; exchange them", f.until, f.since)}
	}
	var err error
	if f.parts, err = parsePartitions(f.partitions); err != nil {
		return nil, &usageError{err}
	}
	cfg, err := loadTopics(cmd, f.topics, !table)
	if err != nil {
		return nil, &usageError{err}
	}
	f.group = cfg.Kafka.Group
	if len(f.topics) > 0 {
		cfg.Kafka.Topics = slices.Compact(slices.Sorted(slices.Values(f.topics)))
	} else {
		f.topics = cfg.Kafka.Topics
	}
	return cfg, nil
}

// match tells whether the letter is meant, and counts those that are not ours
// or have landed. A dead-letter topic may be shared with bridges that write to
// other tables, so letters of topics and groups that are not configured are passed over.
func (f *letterFlags) match(l *consumer.DeadLetter) bool {
	if l.Original.Topic != "" && !slices.Contains(f.topics, l.Original.Topic) || !l.OfGroup(f.group) {
		f.elsewhere++
		return false
	}
	switch {
	case len(f.codes) > 0 && !slices.Contains(f.codes, l.Code),
		f.column != "" && f.column != l.Column,
		!f.from.IsZero() && l.FailedAt.Before(f.from),
		!f.to.IsZero() && (l.FailedAt.IsZero() || !l.FailedAt.Before(f.to)),
		len(f.parts) > 0 && (l.Original.Topic == "" || !slices.Contains(f.parts, l.Original.Partition)):
		return false
	}
	if l.Settled {
		f.settled++
		return f.all
	}
	return true
}

// commandLogger logs what the command does, whatever a deployment's level is:
// above the bar where there is one.
func commandLogger(cmd *cobra.Command, cfg *config.Config, screen *bar) *zap.Logger {
	if cfg.Log.Level != "debug" {
		cfg.Log.Level = "info"
	}
	stderr := cmd.ErrOrStderr()
	logging := logFor(cfg.Log, stderr)
	if screen != nil {
		stderr = screen
	}
	return newLogger(logging, zapcore.AddSync(stderr))
}

// letterCount shows on a terminal how far the reading of letters is.
type letterCount struct {
	screen *bar // nil without a terminal
	of     int64
	seen   int64
	shown  time.Time
}

// next counts one letter. said, if not nil, adds what came of the letters.
func (c *letterCount) next(said func() string) {
	if c.seen++; c.screen == nil || time.Since(c.shown) < barInterval {
		return
	}
	c.shown = time.Now()
	line := fmt.Sprintf("%s  %d letters", gauge(100*min(float64(c.seen)/float64(max(c.of, 1)), 1)), c.seen)
	if said != nil {
		line += "  " + said()
	}
	c.screen.show(line)
}

// erase takes the line away: what follows says more.
func (c *letterCount) erase() {
	if c.screen != nil {
		c.screen.erase()
	}
}

// lookTimeout bounds the look-ups before letters are read.
const lookTimeout = 30 * time.Second

// openLetters looks the dead-letter topics up.
func openLetters(ctx context.Context, cluster *consumer.Cluster) (*consumer.DeadLetterReader, error) {
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return cluster.OpenDeadLetters(looking)
}

// letterTopics are the dead-letter topics by name; missing ones with the fact.
func letterTopics(letters *consumer.DeadLetterReader) (names, missing []string) {
	for _, t := range letters.Topics() {
		names = append(names, t.Name)
		if !t.Exists {
			missing = append(missing, t.Name)
		}
	}
	return names, missing
}

// letterName is what `bridge dlq show` takes: partition/offset, with the
// dead-letter topic in front where there are several.
func letterName(l *consumer.DeadLetter, topics int) string {
	name := fmt.Sprintf("%d/%d", l.Partition, l.Offset)
	if topics > 1 {
		name = l.Topic + "/" + name
	}
	return name
}

// sourceName is where the event came from.
func sourceName(l *consumer.DeadLetter) string {
	if l.Original.Topic == "" {
		return "unknown"
	}
	return fmt.Sprintf("%s/%d/%d", legible(l.Original.Topic, 249), l.Original.Partition, l.Original.Offset)
}

// legible is text from a topic as it may be shown on a terminal: on one line,
// without control characters, and cut to so many bytes.
func legible(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return plaintext.VisibleLine(text)
}

// timeText is a time in UTC; empty if it is not known.
func timeText(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02T15:04:05.000Z")
}

// eventsText is the list of events as headers have it, cut to so many runs.
func eventsText(events consumer.Events) string {
	const most = 20
	if len(events) <= most {
		return events.String()
	}
	return fmt.Sprintf("%s,... %d more", events[:most], events[most:].Count())
}
