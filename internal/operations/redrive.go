package operations

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// RedriveOptions describe a redrive.
type RedriveOptions struct {
	Filter     deadletter.Filter
	Limit      int // at most so many dead letters; 0: all
	Execute    bool
	By, Reason string        // for the markers and the audit line
	Bar        *terminal.Bar // nil: progress goes to the log
}

// RedriveReport is what a redrive did, or would do, with what it left out.
type RedriveReport struct {
	pipeline.RedriveReport
	Missing []string `json:"missing_topics,omitempty"`
	skipCounts

	from   DeadLetters
	groups deadletter.Groups
	log    *zap.Logger
	logged time.Time
}

// tableError is why no row can be written now.
type tableError struct{ error }

func (e *tableError) Unwrap() error { return e.error }

// Redrive maps the dead letters of an integration as its pipeline would, and with
// Execute writes their rows and resolves them. It returns errors before the first of
// them; later ones are in the report. When ctx ends, a write in flight may continue for
// delivery.drain.
func Redrive(ctx context.Context, cfg *config.Config, parts *pipeline.Parts, o RedriveOptions, log *zap.Logger) (*RedriveReport, error) {
	r := &RedriveReport{RedriveReport: pipeline.RedriveReport{Integration: cfg.Rejects.Name(), By: o.By, Reason: o.Reason, Executed: o.Execute, Table: parts.Client.Table().String()},
		groups: deadletter.Groups{}, log: log, logged: time.Now()}
	defer o.Bar.Erase()
	var err error
	if r.from, err = Open(ctx, parts.Cluster.Client, o.Bar, cfg); err != nil {
		return nil, err
	}
	r.Topics, r.Missing = r.from.Topics, r.from.Missing
	fitting, cancel := context.WithTimeout(ctx, pipeline.CheckTimeout)
	defer cancel()
	clusterID, err := parts.Cluster.ID(fitting)
	if err != nil {
		return nil, err
	}
	if err := parts.Schema.CheckTable(fitting, clusterID); err != nil {
		return nil, &tableError{fmt.Errorf("checking the table before the redrive: %w", err)}
	}
	options := deadletter.RedriveOptions{Limit: o.Limit, Mapper: parts.Schema.NewMapper(), By: r.By, OnResult: r.add,
		Match: func(l *deadletter.Record) bool {
			r.from.count(func() string {
				return fmt.Sprintf("  %d delivered  %d rejected  %d failed", r.Delivered, r.Rejected, r.Failed)
			})
			return o.Filter.Match(l)
		}}
	if r.Executed {
		options.Sink = parts.Client
	}
	err = r.from.Redrive(ctx, options)
	r.skipCounts = r.from.skipped(&o.Filter, r.Older)
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
	return r, nil
}

// Complete reports whether every selected dead letter was delivered, or would be.
func (r *RedriveReport) Complete() bool { return r.Delivered == r.Matched && r.Unmarked == 0 }

// redriveLogEvery is the time between progress lines.
const redriveLogEvery = 5 * time.Second

// add counts the outcome of one dead letter.
func (r *RedriveReport) add(result *deadletter.RedriveResult) {
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
	if r.from.bar == nil && time.Since(r.logged) >= redriveLogEvery {
		r.logged = time.Now()
		r.log.Info("redriving", zap.Int("dead_letters", r.Matched), zap.Int("delivered", r.Delivered), zap.Int("rejected", r.Rejected), zap.Int("failed", r.Failed))
	}
}

func (r *RedriveReport) explain(result *deadletter.RedriveResult, code, column, reason string) {
	if g, added := r.groups.Count(result.Record.Integration, result.Outcome, code, column); added {
		g.Example, g.Reason = result.Record.Name(len(r.Topics)), plaintext.ShortLine(reason, deadletter.MaxReason)
	}
}

// WriteText writes the report for people.
func (r *RedriveReport) WriteText(b *strings.Builder) {
	fmt.Fprintf(b, "%s -> %s\n\n", strings.Join(r.Topics, ", "), r.Table)
	r.from.writeSkipped(b, r.skipCounts)
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
			fmt.Fprintf(b, "%8d %s\n", line.n, line.text)
		}
	}
	if len(r.Groups) > 0 {
		rows := []string{"\nNOT DELIVERED\tCODE\tCOLUMN\tDEAD LETTERS\tEXAMPLE\tREASON"}
		for _, g := range r.Groups {
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s", g.Outcome, g.Code, cmp.Or(g.Column, "-"), g.Count, g.Example, g.Reason))
		}
		terminal.Tabulate(b, rows...)
	}
	if !r.Executed && r.Delivered > 0 {
		b.WriteString("\nNothing was changed. Add --execute to write the rows.\n")
	}
}
