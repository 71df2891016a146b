package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/consumer"
)

func newDLQListCommand() *cobra.Command {
	var f letterFlags
	limit, output := 100, outputText
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Say what lies in the dead-letter topics, and why",
		Long: `list counts the dead letters by error code and column, and shows the newest of them,
newest first, without their events. Of an event that was dead-lettered several times
it shows the newest dead letter, with the attempts and copies of all. Settled letters are left out unless --all is given. It needs
the kafka section of the configuration, and READ on the dead-letter topics.`,
		Example: `  bridge dlq list --config config.yaml
  bridge dlq list --code type_mismatch --column revenue --since -2h
  bridge dlq list --limit 0 --output json                 the counts alone`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return &usageError{fmt.Errorf("--limit is %d; use 0 for the counts alone, or more", limit)}
			}
			cfg, err := f.read(cmd, false)
			if err != nil {
				return err
			}
			screen := newBar(cmd.ErrOrStderr(), styleOf(cmd, cmd.ErrOrStderr()))
			cluster, err := consumer.NewCluster(consumerConfig(cfg), commandLogger(cmd, cfg, screen))
			if err != nil {
				return &usageError{err}
			}
			defer cluster.Close()
			letters, err := openLetters(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			list := &letterList{Letters: []listedLetter{}, groups: map[groupKey]*letterGroup{}}
			list.Topics, list.Missing = letterTopics(letters)
			read := &letterCount{screen: screen, of: letters.Records()}
			defer read.erase()
			err = letters.Each(cmd.Context(), func(l *consumer.DeadLetter) error {
				read.next(nil)
				if f.match(l) {
					list.add(l, limit)
				}
				return nil
			})
			if err != nil {
				return err
			}
			list.newest(limit)
			read.erase()
			list.Settled, list.Elsewhere, list.Doubtful, list.Uncompared = f.settled, f.elsewhere, letters.UnverifiedMarkers(), letters.Uncompared()
			return list.write(cmd.OutOrStdout(), output, f.all, styleOf(cmd, cmd.OutOrStdout()))
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.all, "all", false, "settled letters, too")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many letters to show, the newest first; all are counted")
	addOutput(cmd, &output)
	return cmd
}

// codeUnreadable stands in the lists for letters without an error code.
const codeUnreadable = "unreadable"

// listedLetter is one line of the list.
type listedLetter struct {
	Letter string `json:"letter"` // what dlq show takes
	Topic  string `json:"topic"`
	Source string `json:"source"` // topic/partition/offset
	// Events are those that failed, as runs: "0,3-5".
	Events   consumer.Events `json:"events"`
	Code     string          `json:"code"`
	Column   string          `json:"column,omitempty"`
	Reason   string          `json:"reason"`
	Attempts int             `json:"attempts"`         // in all copies
	Copies   int             `json:"copies,omitempty"` // dead letters of the event
	Parts    int             `json:"parts,omitempty"`  // records the dead letter lies in, if several
	FailedAt *time.Time      `json:"failed_at,omitempty"`
	Fault    string          `json:"fault,omitempty"` // why it cannot be redriven
	Settled  bool            `json:"settled,omitempty"`
	Landed   consumer.Events `json:"landed,omitempty"`   // events that have
	Replaced bool            `json:"replaced,omitempty"` // by a newer copy

	partition int32
	offset    int64
}

type groupKey struct{ code, column string }

// letterGroup counts the letters of one code and column.
type letterGroup struct {
	Code    string     `json:"code"`
	Column  string     `json:"column,omitempty"`
	Letters int        `json:"letters"`
	First   *time.Time `json:"first,omitempty"` // failed at
	Last    *time.Time `json:"last,omitempty"`
}

type letterList struct {
	Topics     []string       `json:"topics"`
	Missing    []string       `json:"missing_topics,omitempty"`
	Matched    int            `json:"matched"`
	Settled    int            `json:"settled"`   // among those asked for
	Elsewhere  int            `json:"elsewhere"` // of topics or groups that are not configured
	Doubtful   int            `json:"doubtful_markers,omitempty"`
	Older      int            `json:"older_copies,omitempty"` // of those that matched
	Uncompared int            `json:"uncompared,omitempty"`   // may be copies of others
	Groups     []*letterGroup `json:"groups"`
	Letters    []listedLetter `json:"letters"`

	groups map[groupKey]*letterGroup
}

// maxGroups bounds what strangers' headers can make of the counts.
const maxGroups = 1000

// groupOf returns the key that a code and a column are counted under.
func groupOf[T any](groups map[groupKey]T, code, column string) groupKey {
	key := groupKey{legible(cmp.Or(code, codeUnreadable), 64), legible(column, 255)}
	if _, known := groups[key]; !known && len(groups) >= maxGroups {
		return groupKey{code: "others"}
	}
	return key
}

func (s *letterList) add(l *consumer.DeadLetter, limit int) {
	s.Matched++
	key := groupOf(s.groups, l.Code, l.Column)
	g := s.groups[key]
	if g == nil {
		g = &letterGroup{Code: key.code, Column: key.column}
		s.groups[key] = g
	}
	g.Letters++
	if at := l.FailedAt; !at.IsZero() {
		if g.First == nil || at.Before(*g.First) {
			g.First = &at
		}
		if g.Last == nil || at.After(*g.Last) {
			g.Last = &at
		}
	}
	s.Older += max(l.Copies-1, 0)
	if s.Letters = append(s.Letters, describeLetter(l, len(s.Topics))); len(s.Letters) >= 2*limit {
		s.newest(limit)
	}
}

// newest keeps so many letters, the newest first.
func (s *letterList) newest(limit int) {
	slices.SortStableFunc(s.Letters, func(a, b listedLetter) int {
		return cmp.Or(cmp.Compare(b.failedAt(), a.failedAt()), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.partition, b.partition), cmp.Compare(b.offset, a.offset))
	})
	n := min(len(s.Letters), limit)
	clear(s.Letters[n:])
	s.Letters = s.Letters[:n]
}

// failedAt is in milliseconds; what is not known is the oldest.
func (x *listedLetter) failedAt() int64 {
	if x.FailedAt == nil {
		return math.MinInt64
	}
	return x.FailedAt.UnixMilli()
}

// maxReason is how much of a reason is shown, in bytes.
const maxReason = 2000

// describeLetter is the letter without its event, its texts fit for a terminal.
func describeLetter(l *consumer.DeadLetter, topics int) listedLetter {
	x := listedLetter{Letter: letterName(l, topics), Topic: l.Topic, Source: sourceName(l), Events: l.Events,
		Code: legible(cmp.Or(l.Code, codeUnreadable), 64), Column: legible(l.Column, 255), Reason: legible(l.Reason, maxReason),
		Attempts: l.Attempts, Copies: l.Copies, Parts: l.Parts, Fault: legible(l.Fault, maxReason), Settled: l.Settled, Landed: l.Landed, Replaced: l.Replaced,
		partition: l.Partition, offset: l.Offset}
	if at := l.FailedAt; !at.IsZero() {
		x.FailedAt = &at
	}
	return x
}

func (s *letterList) write(w io.Writer, form outputForm, all bool, look style) error {
	s.Groups = sortedGroups(s.groups, func(a, b *letterGroup) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
	if form == outputJSON {
		return json.NewEncoder(w).Encode(s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d dead letters in %s\n", s.Matched, strings.Join(s.Topics, ", "))
	passedOver(&b, s.Missing, s.Elsewhere, s.Doubtful, s.Older, s.Uncompared)
	switch {
	case s.Settled > 0 && all:
		fmt.Fprintf(&b, "%d of them are settled\n", s.Settled)
	case s.Settled > 0:
		fmt.Fprintf(&b, "%d more are settled; --all shows them\n", s.Settled)
	}
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Groups) > 0 {
		fmt.Fprintf(tw, "\nCODE\tCOLUMN\tLETTERS\tFIRST FAILED\tLAST FAILED\n")
		for _, g := range s.Groups {
			fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\n", g.Code, cmp.Or(g.Column, "-"), g.Letters, timeOf(g.First), timeOf(g.Last))
		}
		tw.Flush() //nolint:errcheck // into memory
	}
	if len(s.Letters) > 0 {
		fmt.Fprintf(tw, "\nLETTER\tSOURCE\tEVENTS\tCODE\tCOLUMN\tATTEMPTS\tCOPIES\tFAILED AT\tREASON\n")
		for _, l := range s.Letters {
			reason := l.Reason
			switch {
			case l.Settled:
				reason = "[settled] " + reason
			case len(l.Landed) > 0:
				reason = fmt.Sprintf("[events %s settled] %s", eventsText(l.Landed), reason)
			case l.Fault != "":
				reason = "[cannot be redriven: " + l.Fault + "] " + reason
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", l.Letter, l.Source, cmp.Or(eventsText(l.Events), "-"), l.Code, cmp.Or(l.Column, "-"), l.Attempts, max(l.Copies, 1), timeOf(l.FailedAt), reason)
		}
		tw.Flush() //nolint:errcheck // into memory
		if more := s.Matched - len(s.Letters); more > 0 {
			fmt.Fprintf(&b, "... %d more; --limit shows them\n", more)
		}
	}
	_, err := io.WriteString(w, look.table(b.String()))
	return err
}

func sortedGroups[T any](groups map[groupKey]T, by func(a, b T) int) []T {
	all := make([]T, 0, len(groups))
	for _, g := range groups {
		all = append(all, g)
	}
	slices.SortFunc(all, by)
	return all
}

// passedOver tells what the counts leave out.
func passedOver(w io.Writer, missing []string, elsewhere, doubtful, older, uncompared int) {
	if len(missing) > 0 {
		fmt.Fprintf(w, "there is no topic %s: nothing was ever dead-lettered there\n", strings.Join(missing, ", "))
	}
	if elsewhere > 0 {
		fmt.Fprintf(w, "%d letters of other topics or consumer groups are passed over\n", elsewhere)
	}
	if older > 0 {
		fmt.Fprintf(w, "%d more are older dead letters of the same events\n", older)
	}
	if uncompared > 0 {
		fmt.Fprintf(w, "%d were not compared with the others, for want of memory: some may be of the same event\n", uncompared)
	}
	if doubtful > 0 {
		fmt.Fprintf(w, "%d markers are not believed: they cannot be read, or were copied from another topic\n", doubtful)
	}
}

func timeOf(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return timeText(*at)
}
