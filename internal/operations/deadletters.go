package operations

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/terminal"
)

// lookupTimeout bounds the look-ups before the work.
const lookupTimeout = 30 * time.Second

// DeadLetters are the dead-letter topics of integrations, open for reading.
type DeadLetters struct {
	*deadletter.Reader `json:"-"`
	Topics             []string `json:"topics"`
	Missing            []string `json:"missing_topics,omitempty"`

	bar *terminal.Bar
	of  int64
	n   int64
}

// Open opens the dead-letter topics of integrations, one at least. The bar, which may be
// nil, shows how much of them is read.
func Open(ctx context.Context, cl *kafka.Client, bar *terminal.Bar, cfgs ...*config.Config) (d DeadLetters, err error) {
	looking, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	d.bar = bar
	if d.Reader, err = pipeline.OpenDeadLetters(looking, cl, cfgs...); err != nil {
		return d, err
	}
	d.of = d.Reader.Records()
	for _, t := range d.Reader.Topics() {
		d.Topics = append(d.Topics, t.Name)
		if !t.Exists {
			d.Missing = append(d.Missing, t.Name)
		}
	}
	return d, nil
}

// count counts one dead letter and shows the count, followed by more.
func (d *DeadLetters) count(more func() string) {
	d.n++
	d.bar.ShowOften(func() string {
		return fmt.Sprintf("%s  %d dead letters%s", terminal.Gauge(100*min(float64(d.n)/float64(max(d.of, 1)), 1)), d.n, more())
	})
}

// skipCounts counts the dead letters that a report leaves out.
type skipCounts struct {
	Resolved   int `json:"resolved"`                     // among those asked for
	Elsewhere  int `json:"elsewhere"`                    // of topics, groups or integrations that were not asked for
	Unverified int `json:"unverified_markers,omitempty"` // markers that are not trusted
	Older      int `json:"older_copies,omitempty"`       // of those that matched
	Uncompared int `json:"uncompared,omitempty"`         // may be copies of others
}

// skipped returns the counts of what the report leaves out.
func (d *DeadLetters) skipped(f *deadletter.Filter, older int) skipCounts {
	return skipCounts{f.Resolved, d.Elsewhere(), d.UnverifiedMarkers(), older, d.Uncompared()}
}

// writeSkipped adds what the counts leave out.
func (d *DeadLetters) writeSkipped(b *strings.Builder, s skipCounts) {
	if len(d.Missing) > 0 {
		fmt.Fprintf(b, "there is no topic %s: nothing was ever dead-lettered there\n", strings.Join(d.Missing, ", "))
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

// DeadLetterList is a list of dead letters, with counts by code and column.
type DeadLetterList struct {
	DeadLetters
	*deadletter.List
	skipCounts

	all, several bool
}

// List counts the dead letters of integrations that f selects, and keeps the newest, up
// to limit.
func List(ctx context.Context, cl *kafka.Client, f deadletter.Filter, limit int, bar *terminal.Bar, cfgs ...*config.Config) (*DeadLetterList, error) {
	d, err := Open(ctx, cl, bar, cfgs...)
	if err != nil {
		return nil, err
	}
	list := &DeadLetterList{DeadLetters: d, List: deadletter.NewList(limit, len(d.Topics)), all: f.All, several: len(cfgs) > 1}
	err = list.Each(ctx, func(l *deadletter.Record) error {
		list.count(func() string { return "" })
		if f.Match(l) {
			list.Add(l)
		}
		return nil
	})
	bar.Erase()
	if err != nil {
		return nil, err
	}
	list.Done()
	list.skipCounts = list.skipped(&f, list.List.Older)
	return list, nil
}

// cell is the first cell of a row, which a list of one integration does not have.
func (s *DeadLetterList) cell(integration string) string {
	if !s.several {
		return ""
	}
	return integration + "\t"
}

// WriteText writes the list for people.
func (s *DeadLetterList) WriteText(b *strings.Builder) {
	fmt.Fprintf(b, "%d dead letters in %s\n", s.Matched, strings.Join(s.Topics, ", "))
	s.writeSkipped(b, s.skipCounts)
	switch {
	case s.Resolved > 0 && s.all:
		fmt.Fprintf(b, "%d of them are resolved\n", s.Resolved)
	case s.Resolved > 0:
		fmt.Fprintf(b, "%d more are resolved; --all shows them\n", s.Resolved)
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
		terminal.Tabulate(b, rows...)
	}
	if len(s.List.DeadLetters) > 0 {
		rows := []string{"\n" + s.cell("INTEGRATION") + "DEAD LETTER\tSOURCE\tEVENTS\tCODE\tCOLUMN\tATTEMPTS\tCOPIES\tFAILED AT\tREASON"}
		for _, l := range s.List.DeadLetters {
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
		terminal.Tabulate(b, rows...)
		if more := s.Matched - len(s.List.DeadLetters); more > 0 {
			fmt.Fprintf(b, "... %d more; --limit shows them\n", more)
		}
	}
}
