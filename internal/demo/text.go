package demo

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/zerobus/emulator"
)

// ProgressOn returns Show and ShowEvery for a terminal: a line that is kept on
// a terminal, and one that is printed elsewhere.
func (o *Options) ProgressOn(bar *terminal.Bar, stderr io.Writer) (show func(Progress), every time.Duration) {
	if bar == nil {
		return func(p Progress) {
			line := fmt.Sprintf("events in %d   rows delivered %d   rejected %d   filtered %d   lag %d   ack p50 %s p99 %s",
				p.Produced, p.Rows, p.Rejected, p.Filtered, p.Lag(), round(p.AckP50), round(p.AckP99))
			if p.SinkProblem != "" {
				line += "   sink " + p.SinkProblem
			}
			fmt.Fprintln(stderr, line)
		}, time.Second
	}
	var pc terminal.Pace
	return func(p Progress) {
		pc.Note(time.Now(), p.Done)
		part := 0.0 // of --events or --duration
		if o.Events > 0 {
			part = float64(p.Done) / float64(o.Events)
		}
		if o.Duration > 0 {
			part = max(part, p.Elapsed.Seconds()/o.Duration.Seconds())
		}
		line := terminal.Gauge(100*min(part, 1)) + fmt.Sprintf("  %.0f events/s  lag %d", pc.Rate(), p.Lag())
		if p.SinkProblem != "" {
			line += "  sink " + p.SinkProblem
		} else {
			line += fmt.Sprintf("  rows %d  rejected %d  ack p99 %s", p.Rows, p.Rejected, round(p.AckP99))
		}
		bar.Show(line)
	}, terminal.BarInterval
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// WriteText writes the report for people.
func (r *Report) WriteText(b *strings.Builder, look terminal.Style) {
	fmt.Fprintf(b, "%s\n\n", look.Strong("SELECT * FROM "+Table+" ORDER BY event_timestamp DESC LIMIT 10"))
	writeRows(b, r.Newest)
	fmt.Fprintf(b, "\n%d events in %s (%.0f events/s), acknowledged in %s (p50), %s (p99)\n", r.Produced, r.Elapsed.Round(time.Millisecond), r.EventsPerSecond,
		round(seconds(r.AckP50)), round(seconds(r.AckP99)))
	fmt.Fprintf(b, "\n  produced  %9d   acknowledged by Kafka\n  distinct  %9d   message ids in the table (%d rows, %d duplicates)\n", r.Produced, r.Distinct, r.Rows, r.Duplicates)
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(r.RejectedBy)) {
		codes = append(codes, fmt.Sprintf("%s %d", code, r.RejectedBy[code]))
	}
	by := ""
	if len(codes) > 0 {
		by = ": " + strings.Join(codes, ", ")
	}
	fmt.Fprintf(b, "  rejected  %9d   in the dead-letter topic%s\n  filtered  %9d   tombstones\n", r.Rejected, by, r.Filtered)
	paint := look.Good
	if r.Lost != 0 {
		paint = look.Bad
	}
	fmt.Fprintf(b, "%s   produced - distinct - rejected - filtered\n", paint(fmt.Sprintf("  lost      %9d", r.Lost)))
	for i, table := range slices.Sorted(maps.Keys(r.Others)) {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%d more rows of installed integrations are in %s.\n", r.Others[table], table)
	}
	if r.Kafka != "" {
		fmt.Fprintf(b, "\nTopics and groups whose names begin with %s are left on %s.\n", r.Topic, r.Kafka)
	}
}

// shownColumns are the columns of the default blueprint and how many characters of
// each are shown.
var shownColumns = []struct {
	name  string
	width int
}{
	{"event_name", 18}, {"event_type", 10}, {"message_id", 13}, {"user_id", 10}, {"anonymous_id", 12}, {"event_timestamp", 26}, {"ip_address", 15},
	{"user_agent", 12}, {"locale", 6}, {"timezone", 14}, {"page_url", 24}, {"page_referrer", 16}, {"source_id", 10},
}

// writeRows writes rows as a SQL editor would, with values cut to the columns.
func writeRows(b *strings.Builder, rows []emulator.Row) {
	lines := make([]string, 1+len(rows))
	for _, c := range shownColumns {
		lines[0] += c.name + "\t"
		for i, row := range rows {
			text, ok := row.Value(c.name)
			var micros int64
			runes := []rune(text)
			switch {
			case !ok:
				text = "NULL"
			case c.name == "event_timestamp":
				if _, err := fmt.Sscan(text, &micros); err == nil {
					text = time.UnixMicro(micros).UTC().Format("2006-01-02 15:04:05.000")
				}
			case len(runes) > c.width:
				text = string(runes[:c.width-1]) + "~"
			}
			lines[i+1] += text + "\t"
		}
	}
	terminal.Tabulate(b, lines...)
}
