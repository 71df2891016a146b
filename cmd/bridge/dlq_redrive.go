package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
)

func newDLQRedriveCommand() *cobra.Command {
	var f letterFlags
	var execute bool
	var reason string
	limit, output := 0, outputText
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Map dead letters with the present blueprint and write those that are rows now",
		Long: `redrive maps the dead letters as bridge run would map their events now. Without
--execute it writes nothing and says how many would land. With --execute it writes
the rows to the table, and once they are acknowledged a marker that settles their
letters. What does not land stays as it is. Of an event that was dead-lettered several
times the newest dead letter is redriven, once, and counts for all of them.

A row keeps the identity of its event: message_id, source topic, partition, offset
and time are those of the original. Bridges may run meanwhile. Ctrl-C ends it after
the write in flight; run it again to go on. A crash between the acknowledgement and
the marker has the same rows written again by the next redrive.

The exit code is 0 when every letter asked for landed, or would, and 1 when some did
not.`,
		Example: `  bridge dlq redrive --config config.yaml                               what would land
  bridge dlq redrive --config config.yaml --execute --reason "revenue is a DECIMAL now"
  bridge dlq redrive --code type_mismatch --column revenue --limit 100 --execute`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return &usageError{fmt.Errorf("--limit is %d; use 0 for all letters, or how many", limit)}
			}
			cfg, err := f.read(cmd, true)
			if err != nil {
				return err
			}
			stoppingOf(cmd.Context()).allow(cfg.Delivery.Drain + stopGrace)
			screen := newBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			log := commandLogger(cmd, cfg, screen)
			defer func() { _ = log.Sync() }() // standard error cannot always be synced
			b, err := newBridge(cfg, log)
			if err != nil {
				return err
			}
			defer b.close()
			r := &redriveReport{By: operator(), Reason: reason, Table: b.client.Table().String(), Executed: execute,
				groups: map[groupKey]*redriveGroup{}, log: log, logged: time.Now(), read: &letterCount{screen: screen}}
			defer r.read.erase()
			if err := r.run(cmd.Context(), b, &f, limit); err != nil {
				return err
			}
			r.read.erase()
			if err := r.write(cmd.OutOrStdout(), output, styleOf(cmd, cmd.OutOrStdout())); err != nil {
				return err
			}
			if r.Error != "" {
				return errors.New(r.Error)
			}
			if r.Landed < r.Matched || r.Unmarked > 0 {
				return r.advice(cmd)
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&execute, "execute", false, "write the rows and settle the letters; without it nothing is changed")
	cmd.Flags().IntVar(&limit, "limit", limit, "at most so many letters, the oldest of each partition first; 0: all")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit line")
	addOutput(cmd, &output)
	return cmd
}

// advice ends a redrive that left letters behind: the first of them says why.
func (r *redriveReport) advice(cmd *cobra.Command) error {
	next := ""
	if len(r.Groups) > 0 {
		next = "bridge dlq show" + configArgument(cmd) + " " + shellWord(r.Groups[0].Example)
	}
	return &quietError{advise(errors.New("some letters did not land"), next)}
}

// redriveGroup counts letters that did not land for one reason.
type redriveGroup struct {
	Outcome string `json:"outcome"` // rejected, filtered or failed
	Code    string `json:"code,omitempty"`
	Column  string `json:"column,omitempty"`
	Letters int    `json:"letters"`
	Example string `json:"example"` // a letter
	Reason  string `json:"reason,omitempty"`
}

// redriveReport is what a redrive did, or would do.
type redriveReport struct {
	Executed   bool            `json:"executed"`
	By         string          `json:"by"`
	Reason     string          `json:"reason,omitempty"`
	Table      string          `json:"table"`
	Topics     []string        `json:"topics"`
	Missing    []string        `json:"missing_topics,omitempty"`
	Matched    int             `json:"matched"`  // letters
	Landed     int             `json:"landed"`   // or would
	Rows       int             `json:"rows"`     // of them, and of letters that landed in part
	Rejected   int             `json:"rejected"` // still
	Filtered   int             `json:"filtered"` // dropped by rule now
	Failed     int             `json:"failed"`
	Unmarked   int             `json:"landed_without_marker"`
	Settled    int             `json:"settled_before"`
	Elsewhere  int             `json:"elsewhere"`
	Doubtful   int             `json:"doubtful_markers,omitempty"`
	Older      int             `json:"older_copies,omitempty"` // of those that matched
	Uncompared int             `json:"uncompared,omitempty"`   // may be copies of others
	Groups     []*redriveGroup `json:"did_not_land"`
	Error      string          `json:"error,omitempty"` // why it ended early

	groups map[groupKey]*redriveGroup
	log    *zap.Logger
	logged time.Time
	read   *letterCount // in place of log lines on a terminal
}

// run redrives the letters. What fails before the first of them is returned;
// later it is in the report.
func (r *redriveReport) run(ctx context.Context, b *bridge, f *letterFlags, limit int) error {
	letters, err := openLetters(ctx, b.cluster)
	if err != nil {
		return err
	}
	r.Topics, r.Missing = letterTopics(letters)
	fitting, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	clusterID, err := b.cluster.ID(fitting)
	if err != nil {
		return err
	}
	if err := b.fit(fitting, clusterID); err != nil {
		return fmt.Errorf("proving the table before the redrive: %w", err)
	}
	cancel()

	r.read.of = letters.Records()
	match := func(l *consumer.DeadLetter) bool {
		r.read.next(func() string { return fmt.Sprintf("%d landed  %d rejected  %d failed", r.Landed, r.Rejected, r.Failed) })
		return f.match(l)
	}
	o := consumer.RedriveOptions{Match: match, Limit: limit, Mapper: b.schema.NewMapper(), By: r.By, OnResult: r.add}
	if r.Executed {
		o.Sink = b.client
	}
	err = letters.Redrive(ctx, o)
	r.Settled, r.Elsewhere, r.Doubtful, r.Uncompared = f.settled, f.elsewhere, letters.UnverifiedMarkers(), letters.Uncompared()
	switch {
	case err != nil && ctx.Err() != nil:
		r.Error = "stopped before the end; what landed is settled, redrive again for the rest"
	case err != nil:
		r.Error = err.Error()
	}
	if r.Executed {
		r.log.Info("redrive ended", zap.String("by", r.By), zap.String("reason", r.Reason), zap.Strings("dead_letter_topics", r.Topics), zap.String("table", r.Table),
			zap.Int("matched", r.Matched), zap.Int("landed", r.Landed), zap.Int("rows", r.Rows), zap.Int("rejected", r.Rejected), zap.Int("filtered", r.Filtered), zap.Int("failed", r.Failed))
	}
	return nil
}

// redriveLogEvery is the pace of progress lines.
const redriveLogEvery = 5 * time.Second

// add counts one dead letter.
func (r *redriveReport) add(result *consumer.RedriveResult) {
	r.Matched++
	r.Older += max(result.DeadLetter.Copies-1, 0)
	r.Rows += result.Rows
	switch result.Outcome {
	case consumer.RedriveLanded:
		r.Landed++
	case consumer.RedriveRejected:
		r.Rejected++
		first := result.Rejects[0]
		r.count(result, first.Code, first.Column, first.Reason)
	case consumer.RedriveFiltered:
		r.Filtered++
		r.count(result, "-", "", "the configuration or the blueprint drops the event now")
	default:
		r.Failed++
		r.count(result, cmp.Or(result.DeadLetter.Code, codeUnreadable), "", result.Err.Error())
	}
	if result.Rows > 0 && result.Err != nil && result.Outcome != consumer.RedriveFailed {
		r.Unmarked++
	}
	if r.read.screen == nil && time.Since(r.logged) >= redriveLogEvery {
		r.logged = time.Now()
		r.log.Info("redriving", zap.Int("letters", r.Matched), zap.Int("landed", r.Landed), zap.Int("rejected", r.Rejected), zap.Int("failed", r.Failed))
	}
}

func (r *redriveReport) count(result *consumer.RedriveResult, code, column, reason string) {
	key := groupOf(r.groups, result.Outcome+" "+code, column)
	g := r.groups[key]
	if g == nil {
		g = &redriveGroup{Outcome: result.Outcome, Code: legible(code, 64), Column: key.column,
			Example: letterName(result.DeadLetter, len(r.Topics)), Reason: legible(reason, maxReason)}
		r.groups[key] = g
	}
	g.Letters++
}

func (r *redriveReport) write(w io.Writer, form outputForm, look style) error {
	r.Groups = sortedGroups(r.groups, func(a, b *redriveGroup) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
	if form == outputJSON {
		return json.NewEncoder(w).Encode(r)
	}
	would := "would land"
	if r.Executed {
		would = "landed"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s\n\n", strings.Join(r.Topics, ", "), r.Table)
	passedOver(&b, r.Missing, r.Elsewhere, r.Doubtful, r.Older, r.Uncompared)
	fmt.Fprintf(&b, "%8d dead letters\n%8d %s, %d rows\n%8d still rejected\n", r.Matched, r.Landed, would, r.Rows, r.Rejected)
	if r.Filtered > 0 {
		fmt.Fprintf(&b, "%8d filtered: dropped by rule now\n", r.Filtered)
	}
	fmt.Fprintf(&b, "%8d failed\n", r.Failed)
	if r.Settled > 0 {
		fmt.Fprintf(&b, "%8d more were settled before\n", r.Settled)
	}
	if r.Unmarked > 0 {
		fmt.Fprintf(&b, "%8d landed and could not be marked: the next redrive writes them again\n", r.Unmarked)
	}
	if len(r.Groups) > 0 {
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "\nDID NOT LAND\tCODE\tCOLUMN\tLETTERS\tSUCH AS\tBECAUSE\n")
		for _, g := range r.Groups {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\n", g.Outcome, g.Code, cmp.Or(g.Column, "-"), g.Letters, g.Example, g.Reason)
		}
		tw.Flush() //nolint:errcheck // into memory
	}
	if !r.Executed && r.Landed > 0 {
		b.WriteString("\nNothing was changed. Add --execute to write the rows.\n")
	}
	_, err := io.WriteString(w, look.table(b.String()))
	return err
}
