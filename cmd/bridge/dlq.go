package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
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

// skipCounts counts the dead letters that a report leaves out.
type skipCounts struct {
	Resolved   int `json:"resolved"`                     // among those asked for
	Elsewhere  int `json:"elsewhere"`                    // of topics, groups or integrations that were not asked for
	Unverified int `json:"unverified_markers,omitempty"` // markers that are not trusted
	Older      int `json:"older_copies,omitempty"`       // of those that matched
	Uncompared int `json:"uncompared,omitempty"`         // may be copies of others
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
	cfgs, err := loadTopics(cmd, f.topics, !table, all)
	if err != nil {
		return nil, &usageError{err}
	}
	return cfgs, nil
}

// deadLetterReader is the dead-letter topics of the configuration, and a bar that
// shows how much of them is read.
type deadLetterReader struct {
	*deadletter.Reader `json:"-"`
	Topics             []string `json:"topics"`
	Missing            []string `json:"missing_topics,omitempty"`

	bar *terminal.Bar
	of  int64
	n   int64
}

func (r *deadLetterReader) open(ctx context.Context, cl *kafka.Client, cfgs ...*config.Config) (err error) {
	looking, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if r.Reader, err = pipeline.OpenDeadLetters(looking, cl, cfgs...); err != nil {
		return err
	}
	r.of = r.Reader.Records()
	for _, t := range r.Reader.Topics() {
		r.Topics = append(r.Topics, t.Name)
		if !t.Exists {
			r.Missing = append(r.Missing, t.Name)
		}
	}
	return nil
}

// count counts one dead letter and shows the count, followed by more.
func (r *deadLetterReader) count(more func() string) {
	r.n++
	r.bar.ShowOften(func() string {
		return fmt.Sprintf("%s  %d dead letters%s", terminal.Gauge(100*min(float64(r.n)/float64(max(r.of, 1)), 1)), r.n, more())
	})
}

// skipped returns the counts of what the report leaves out.
func (r *deadLetterReader) skipped(f *deadLetterFlags, older int) skipCounts {
	return skipCounts{f.Resolved, r.Elsewhere(), r.UnverifiedMarkers(), older, r.Uncompared()}
}

// writeSkipped adds what the counts leave out.
func (r *deadLetterReader) writeSkipped(b *strings.Builder, s skipCounts) {
	if len(r.Missing) > 0 {
		fmt.Fprintf(b, "there is no topic %s: nothing was ever dead-lettered there\n", strings.Join(r.Missing, ", "))
	}
	for _, line := range []struct {
		n    int
		text string
	}{
		{s.Elsewhere, "dead letters of other topics, consumer groups or integrations are left out"},
		{s.Older, "more are older dead letters of the same events"},
		{s.Uncompared, "were not compared with the others, for lack of memory: some may be of the same event"},
		{s.Unverified, "markers are ignored: they cannot be read, or were copied from another topic"},
	} {
		if line.n > 0 {
			fmt.Fprintf(b, "%d %s\n", line.n, line.text)
		}
	}
}

// commandLogger logs to standard error, above the bar if there is one.
func commandLogger(cmd *cobra.Command, cfg config.Log, above *terminal.Bar) *zap.Logger {
	stderr := cmd.ErrOrStderr()
	return newLogger(logFor(cfg, stderr), zapcore.AddSync(above.Above(stderr)))
}

// timeText is a time in UTC; otherwise if it is not known.
func timeText(at time.Time, otherwise string) string {
	if at.IsZero() {
		return otherwise
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
			list := &deadLetterList{all: f.All, several: len(cfgs) > 1}
			list.bar = terminal.NewBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			cl, err := pipeline.NewKafkaClient(cfgs[0], version(), commandLogger(cmd, cfgs[0].Log, list.bar))
			if err != nil {
				return &usageError{err}
			}
			defer cl.Close()
			if err := list.open(cmd.Context(), cl, cfgs...); err != nil {
				return err
			}
			list.List = deadletter.NewList(limit, len(list.Topics))
			err = list.Each(cmd.Context(), func(l *deadletter.Record) error {
				list.count(func() string { return "" })
				if f.Match(l) {
					list.Add(l)
				}
				return nil
			})
			list.bar.Erase()
			if err != nil {
				return err
			}
			list.Done()
			list.skipCounts = list.skipped(&f, list.List.Older)
			return output.write(cmd, list, list.text)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.All, "all", false, "include resolved dead letters")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many dead letters to show, the newest first; all are counted")
	output = addOutput(cmd)
	return cmd
}

// deadLetterList is the answer of bridge dlq list.
type deadLetterList struct {
	deadLetterReader
	*deadletter.List
	skipCounts

	all, several bool
}

// cell is the first cell of a row, which a list of one integration does not have.
func (s *deadLetterList) cell(integration string) string {
	if !s.several {
		return ""
	}
	return integration + "\t"
}

func (s *deadLetterList) text(b *strings.Builder, look terminal.Style) {
	var out strings.Builder
	fmt.Fprintf(&out, "%d dead letters in %s\n", s.Matched, strings.Join(s.Topics, ", "))
	s.writeSkipped(&out, s.skipCounts)
	switch {
	case s.Resolved > 0 && s.all:
		fmt.Fprintf(&out, "%d of them are resolved\n", s.Resolved)
	case s.Resolved > 0:
		fmt.Fprintf(&out, "%d more are resolved; --all shows them\n", s.Resolved)
	}
	timeOf := func(at *time.Time) string {
		if at == nil {
			return "-"
		}
		return timeText(*at, "-")
	}
	if len(s.Groups) > 0 {
		rows := []string{"\n" + s.cell("INTEGRATION") + "CODE\tCOLUMN\tDEAD LETTERS\tFIRST FAILED\tLAST FAILED"}
		for _, g := range s.Groups {
			rows = append(rows, s.cell(g.Integration)+fmt.Sprintf("%s\t%s\t%d\t%s\t%s", g.Code, cmp.Or(g.Column, "-"), g.Count, timeOf(g.First), timeOf(g.Last)))
		}
		terminal.Tabulate(&out, rows...)
	}
	if len(s.DeadLetters) > 0 {
		rows := []string{"\n" + s.cell("INTEGRATION") + "DEAD LETTER\tSOURCE\tEVENTS\tCODE\tCOLUMN\tATTEMPTS\tCOPIES\tFAILED AT\tREASON"}
		for _, l := range s.DeadLetters {
			reason := l.Reason
			switch {
			case l.Resolved:
				reason = "[resolved] " + reason
			case len(l.Delivered) > 0:
				reason = fmt.Sprintf("[events %s delivered] %s", eventsText(l.Delivered), reason)
			case l.Fault != "":
				reason = "[cannot be redriven: " + l.Fault + "] " + reason
			}
			rows = append(rows, s.cell(l.Integration)+fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s", l.Name, l.Source, cmp.Or(eventsText(l.Events), "-"), l.Code, cmp.Or(l.Column, "-"), l.Attempts, max(l.Copies, 1), timeOf(l.FailedAt), reason))
		}
		terminal.Tabulate(&out, rows...)
		if more := s.Matched - len(s.DeadLetters); more > 0 {
			fmt.Fprintf(&out, "... %d more; --limit shows them\n", more)
		}
	}
	b.WriteString(look.Table(out.String()))
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
			r := &redriveReport{Integration: cfg.Rejects.Name(), By: operator(), Reason: reason, Executed: execute, groups: deadletter.Groups{}, logged: time.Now()}
			r.bar = terminal.NewBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			r.log = commandLogger(cmd, cfg.Log, r.bar)
			defer func() { _ = r.log.Sync() }() // standard error cannot always be synced
			b, err := pipeline.NewParts(cfg, version(), r.log, nil)
			if err != nil {
				return &usageError{err}
			}
			defer b.Close()
			r.Table = b.Client.Table().String()
			err = r.run(cmd.Context(), cfg, b, &f, limit)
			r.bar.Erase()
			if err != nil {
				return err
			}
			if err := output.write(cmd, r, r.text); err != nil {
				return err
			}
			if r.Error != "" {
				return errors.New(r.Error)
			}
			if r.Delivered == r.Matched && r.Unmarked == 0 {
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

// redriveReport is the answer of bridge dlq redrive: what it did, or would do.
type redriveReport struct {
	deadLetterReader
	Integration string `json:"integration"`
	Executed    bool   `json:"executed"`
	By          string `json:"by"`
	Reason      string `json:"reason,omitempty"`
	Table       string `json:"table"`
	Matched     int    `json:"matched"`
	Delivered   int    `json:"delivered"` // or would be
	Rows        int    `json:"rows"`
	Rejected    int    `json:"rejected"`
	Filtered    int    `json:"filtered"`
	Failed      int    `json:"failed"`
	Unmarked    int    `json:"unmarked"` // delivered, and written again by the next redrive
	skipCounts
	Groups []*deadletter.Group `json:"not_delivered"`
	Error  string              `json:"error,omitempty"` // why it ended early

	groups deadletter.Groups
	log    *zap.Logger
	logged time.Time
}

// run redrives the dead letters. It returns errors before the first of them; later
// ones are in the report.
func (r *redriveReport) run(ctx context.Context, cfg *config.Config, b *pipeline.Parts, f *deadLetterFlags, limit int) error {
	if err := r.open(ctx, b.Cluster.Client, cfg); err != nil {
		return err
	}
	fitting, cancel := context.WithTimeout(ctx, pipeline.CheckTimeout)
	defer cancel()
	clusterID, err := b.Cluster.ID(fitting)
	if err != nil {
		return err
	}
	if err := b.Schema.CheckTable(fitting, clusterID); err != nil {
		return fmt.Errorf("checking the table before the redrive: %w", err)
	}
	o := deadletter.RedriveOptions{Limit: limit, Mapper: b.Schema.NewMapper(), By: r.By, OnResult: r.add,
		Match: func(l *deadletter.Record) bool {
			r.count(func() string {
				return fmt.Sprintf("  %d delivered  %d rejected  %d failed", r.Delivered, r.Rejected, r.Failed)
			})
			return f.Match(l)
		}}
	if r.Executed {
		o.Sink = b.Client
	}
	err = r.Redrive(ctx, o)
	r.skipCounts = r.skipped(f, r.Older)
	r.Groups = r.groups.Sorted()
	switch {
	case err != nil && ctx.Err() != nil:
		r.Error = "stopped before the end; the delivered dead letters are resolved, redrive again for the rest"
	case err != nil:
		r.Error = err.Error()
	}
	if r.Executed {
		r.log.Info("redrive ended", zap.String("by", r.By), zap.String("reason", r.Reason), zap.String("integration", r.Integration), zap.Strings("dead_letter_topics", r.Topics), zap.String("table", r.Table),
			zap.Int("matched", r.Matched), zap.Int("delivered", r.Delivered), zap.Int("rows", r.Rows), zap.Int("rejected", r.Rejected), zap.Int("filtered", r.Filtered), zap.Int("failed", r.Failed))
	}
	return nil
}

// redriveLogEvery is the time between progress lines.
const redriveLogEvery = 5 * time.Second

// add counts the outcome of one dead letter.
func (r *redriveReport) add(result *deadletter.RedriveResult) {
	r.Matched++
	r.Older += max(result.Record.Copies-1, 0)
	r.Rows += result.Rows
	switch result.Outcome {
	case deadletter.Delivered:
		r.Delivered++
	case deadletter.Rejected:
		r.Rejected++
		first := result.Rejects[0]
		r.explain(result, first.Code, first.Column, first.Reason)
	case deadletter.Filtered:
		r.Filtered++
		r.explain(result, "-", "", "the configuration or the blueprint drops the event now")
	default:
		r.Failed++
		r.explain(result, result.Record.Code, "", result.Err.Error())
	}
	if result.Rows > 0 && result.Err != nil && result.Outcome != deadletter.Failed {
		r.Unmarked++
	}
	if r.bar == nil && time.Since(r.logged) >= redriveLogEvery {
		r.logged = time.Now()
		r.log.Info("redriving", zap.Int("dead_letters", r.Matched), zap.Int("delivered", r.Delivered), zap.Int("rejected", r.Rejected), zap.Int("failed", r.Failed))
	}
}

func (r *redriveReport) explain(result *deadletter.RedriveResult, code, column, reason string) {
	if g, added := r.groups.Count(result.Record.Integration, result.Outcome, code, column); added {
		g.Example, g.Reason = result.Record.Name(len(r.Topics)), plaintext.ShortLine(reason, deadletter.MaxReason)
	}
}

func (r *redriveReport) text(b *strings.Builder, look terminal.Style) {
	var out strings.Builder
	fmt.Fprintf(&out, "%s -> %s\n\n", strings.Join(r.Topics, ", "), r.Table)
	r.writeSkipped(&out, r.skipCounts)
	delivered := "would be delivered"
	if r.Executed {
		delivered = "delivered"
	}
	for _, line := range []struct {
		n      int
		text   string
		always bool
	}{
		{r.Matched, "dead letters", true},
		{r.Delivered, fmt.Sprintf("%s, %d rows", delivered, r.Rows), true},
		{r.Rejected, "still rejected", true},
		{r.Filtered, "filtered: dropped by rule now", false},
		{r.Failed, "failed", true},
		{r.Resolved, "more were resolved before", false},
		{r.Unmarked, "delivered and could not be marked: the next redrive writes them again", false},
	} {
		if line.always || line.n > 0 {
			fmt.Fprintf(&out, "%8d %s\n", line.n, line.text)
		}
	}
	if len(r.Groups) > 0 {
		rows := []string{"\nNOT DELIVERED\tCODE\tCOLUMN\tDEAD LETTERS\tEXAMPLE\tREASON"}
		for _, g := range r.Groups {
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s", g.Outcome, g.Code, cmp.Or(g.Column, "-"), g.Count, g.Example, g.Reason))
		}
		terminal.Tabulate(&out, rows...)
	}
	if !r.Executed && r.Delivered > 0 {
		out.WriteString("\nNothing was changed. Add --execute to write the rows.\n")
	}
	b.WriteString(look.Table(out.String()))
}
