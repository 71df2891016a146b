package ops

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus"
)

// WriteText prints the status for people. A sole integration is printed in full; of
// several it prints a table, and the reasons of those that do not deliver. Ages are
// relative to the status's own time, so clocks of two machines may differ. Characters
// that do not print are replaced by spaces.
func (s Status) WriteText(w io.Writer) error { return s.write(w, &text{now: s.Time}) }

// WriteSince prints what WriteText prints, and the rows per second of each integration
// since an earlier status of the same process.
func (s Status) WriteSince(w io.Writer, before Status) error {
	return s.write(w, &text{now: s.Time, rates: s.rowsPerSecond(before)})
}

// WriteLines prints one line for each integration, for an output that cannot be erased.
func (s Status) WriteLines(b *strings.Builder, before Status) {
	rates := s.rowsPerSecond(before)
	for _, i := range s.Integrations {
		fmt.Fprintf(b, "%s  %s  %s  %s  lag %s  oldest %s  rows %d  rows/s %s  dead letters %d", s.Time.UTC().Format(time.RFC3339), oneLine(i.Integration), i.health(), orDash(i.State),
			i.lagText(), oldest(i.Oldest()), i.Totals.RowsDelivered, rates.of(i), i.Totals.DeadLetters)
		for _, r := range i.NotReady {
			fmt.Fprintf(b, "  %s: %s", oneLine(r.Code), oneLine(r.Text))
		}
		b.WriteByte('\n')
	}
}

// rates are the rows per second of integrations; nil prints none.
type rates map[string]float64

func (r rates) of(i IntegrationStatus) string {
	if rate, known := r[i.Integration]; known {
		return strconv.FormatFloat(rate, 'f', 0, 64)
	}
	return "-"
}

// rowsPerSecond compares the totals with those of an earlier status.
func (s Status) rowsPerSecond(before Status) rates {
	found := rates{}
	seconds := s.Time.Sub(before.Time).Seconds()
	for _, i := range s.Integrations {
		for _, was := range before.Integrations {
			if rows := i.Totals.RowsDelivered - was.Totals.RowsDelivered; was.Integration == i.Integration && seconds > 0 && rows >= 0 {
				found[i.Integration] = float64(rows) / seconds
			}
		}
	}
	return found
}

func (s Status) write(w io.Writer, t *text) error {
	if len(s.Integrations) == 1 {
		t.sole(s, s.Integrations[0])
	} else {
		t.process(s, "deployment "+orDash(s.Deployment), t.since("up %s", s.Started))
		t.integrations(s)
	}
	_, err := w.Write(t.Bytes())
	return err
}

// WriteText prints the answer of /readyz for people.
func (r Readiness) WriteText(w io.Writer) error {
	var t text
	t.line(health(r.Ready), orDash(r.State))
	t.reasons(r)
	_, err := w.Write(t.Bytes())
	return err
}

// health is that of an integration; a disabled one has none.
func (i *IntegrationStatus) health() string {
	if i.State == StateDisabled {
		return "-"
	}
	return health(i.Ready)
}

func health(ready bool) string {
	if ready {
		return "ready"
	}
	return "NOT READY"
}

// process prints what belongs to the process, with the health first.
func (t *text) process(s Status, about ...string) {
	t.line(health(s.Ready), append([]string{orDash(s.State), "version " + orDash(s.Version)}, about...)...)
	t.reasons(s.readiness())
	if !s.Live {
		t.line("NOT ALIVE", orDash(s.LiveReason))
	}
	t.reload(s.Reload)
	if st := s.Store; st != nil {
		t.line("store", orDash(st.Topic), fmt.Sprintf("%d installed, %d ignored", st.Integrations, st.Ignored))
		if st.Problem != nil {
			t.detail(oneLine(st.Problem.Code), st.Problem.Text)
			t.detail("remedy", st.Problem.Remedy)
		}
	}
	if s.LeftOut > 0 {
		t.line("left out", fmt.Sprintf("%d disabled or blocked integrations; --integration shows one", s.LeftOut))
	}
	buffer := size(s.BufferedBytes)
	if s.BufferedLimit > 0 {
		buffer += fmt.Sprintf(" of %s (%d %%)", size(s.BufferedLimit), s.BufferedBytes*100/s.BufferedLimit)
	}
	t.line("buffer", buffer)
	if m := s.Memory; m.Bound > 0 {
		t.line("memory", "at most "+size(m.Bound)+" planned", t.size("soft limit %s", m.SoftLimit), t.size("limit of the control group %s", m.Cgroup))
		t.detail("warning", m.Warning)
	}
	if s.LogLinesDropped > 0 {
		t.line("log", fmt.Sprintf("%d lines dropped: standard error was not read in time, or could not be written", s.LogLinesDropped))
	}
	n := s.Totals
	t.line("totals", fmt.Sprintf("%d events read, %d rows delivered, %d rejected, %d filtered, %d dead letters, %d retries",
		n.EventsRead, n.RowsDelivered, n.EventsRejected, n.EventsFiltered, n.DeadLetters, n.SinkRetries))
}

// sole prints the process and its only integration.
func (t *text) sole(s Status, i IntegrationStatus) {
	name := ""
	if i.Integration != defaultIntegration {
		name = i.Integration
	}
	t.process(s, t.optional("integration %s", name), "group "+orDash(i.Group), t.optional("member %s", i.MemberID), t.since("up %s", s.Started))
	if !i.NextTry.IsZero() {
		t.line("next try", "in "+age(max(i.NextTry.Sub(t.now), 0)))
	}
	if t.rates != nil {
		t.line("rows/s", t.rates.of(i))
	}
	if i.State == StateDisabled || i.State == StateBlocked { // it has neither sink nor partitions
		t.line("table", orDash(i.Table))
		return
	}
	t.sink(i.Sink)
	t.ledger(i.Ledger)
	t.partitions(i.Partitions)
}

// integrations prints one row for each integration.
func (t *text) integrations(s Status) {
	if len(s.Integrations) == 0 {
		return
	}
	t.WriteByte('\n')
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	rate := func(string) string { return "" }
	if t.rates != nil {
		rate = func(text string) string { return "\t" + text }
	}
	fmt.Fprintf(tab, "INTEGRATION\tHEALTH\tSTATE\tSINK\tTABLE\tLAG\tOLDEST\tROWS%s\tDEAD LETTERS\tPARTITIONS\n", rate("ROWS/S"))
	for _, i := range s.Integrations {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d%s\t%d\t%d\n", oneLine(i.Integration), i.health(), orDash(i.State), orDash(i.Sink.Name), orDash(i.Table),
			i.lagText(), oldest(i.Oldest()), i.Totals.RowsDelivered, rate(t.rates.of(i)), i.Totals.DeadLetters, len(i.Partitions))
	}
	_ = tab.Flush() // a bytes.Buffer accepts everything
}

// lagText prints the lag: - is unknown, and a + stands behind a sum in which that of a
// partition is missing.
func (i *IntegrationStatus) lagText() string {
	switch lag, known := i.Lag(); {
	case known:
		return strconv.FormatInt(lag, 10)
	case lag > 0:
		return strconv.FormatInt(lag, 10) + "+"
	default:
		return "-"
	}
}

// text builds the output of WriteText.
type text struct {
	bytes.Buffer
	now   time.Time
	rates rates // nil: none
}

// line prints a label and the parts that are not empty.
func (t *text) line(label string, parts ...string) {
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	fmt.Fprintf(t, "%-10s %s\n", label, strings.Join(parts, ", "))
}

// detail prints one indented line, unless text is empty.
func (t *text) detail(label, text string) {
	if text != "" {
		fmt.Fprintf(t, "  %s: %s\n", oneLine(label), oneLine(text))
	}
}

// optional formats a part of a line; empty stays empty.
func (t *text) optional(format, value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf(format, oneLine(value))
}

func (t *text) since(format string, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf(format, age(t.now.Sub(at)))
}

func (t *text) size(format string, bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf(format, size(bytes))
}

func (t *text) reasons(all Readiness) {
	for _, r := range all.Reasons {
		t.detail(all.label(r), r.Text)
		t.detail("remedy", r.Remedy)
	}
}

func (t *text) sink(s zerobus.State) {
	expires := t.since("token expired %s ago", s.TokenExpiresAt)
	if left := s.TokenExpiresAt.Sub(t.now); left > 0 {
		expires = "token expires in " + age(left)
	}
	t.line("sink", orDash(s.Name)+t.since(" for %s", s.Since), "table "+orDash(s.Table), "transport "+orDash(s.Transport)+t.optional(" to %s", s.Endpoint),
		t.optional("streams %s", strings.Join(s.Streams, " ")), t.since("token minted %s ago", s.TokenMintedAt), expires)
	t.detail("transport", s.TransportReason)
	t.detail("reason", s.Reason)
	t.detail("remedy", s.Remedy)
}

// reload prints the state of the configuration, unless it is the one of the start.
func (t *text) reload(r ReloadStatus) {
	if r.State == "" || r.State == ReloadOK && r.Generation <= 1 && len(r.PendingRestart) == 0 {
		return
	}
	state := "reloaded" + t.since(" %s ago", r.At)
	if r.State != ReloadOK {
		state = "NOT RELOADED, the previous one stays in force; tried" + t.since(" %s ago", r.At)
	}
	t.line("config", state, fmt.Sprintf("generation %d", r.Generation), "hash "+orDash(r.Hash))
	t.detail("error", r.Error)
	t.detail("after a restart", strings.Join(r.PendingRestart, ", "))
}

// ledger prints the outcomes of all events that were read.
func (t *text) ledger(l consumer.LedgerStatus) {
	verdict := "all accounted for"
	if l.Unaccounted != 0 {
		verdict = fmt.Sprintf("%d UNACCOUNTED FOR: a bug in the bridge, please report it", l.Unaccounted)
	}
	t.line("events", fmt.Sprintf("read %d = delivered %d + dead-lettered %d + skipped %d + filtered %d + in flight %d + released for redelivery %d; %s",
		l.Read, l.Delivered, l.DeadLettered, l.Skipped, l.Filtered, l.InFlight, l.Released, verdict))
	lost := ""
	if l.Lost > 0 {
		lost = "; LOST: kafka removed events before they were delivered, see the log for the ranges"
	}
	t.line("offsets", fmt.Sprintf("passed %d = records %d + lost %d + skipped %d%s", l.Offsets, l.Records, l.Lost, l.SkippedOffsets, lost))
}

func (t *text) partitions(partitions []consumer.PartitionStatus) {
	if len(partitions) == 0 {
		t.line("partitions", "none assigned")
		return
	}
	partitions = slices.SortedFunc(slices.Values(partitions), func(x, y consumer.PartitionStatus) int {
		return cmp.Or(strings.Compare(x.Topic, y.Topic), int(x.Partition)-int(y.Partition))
	})
	t.WriteByte('\n')
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "PARTITION\tSTATE\tCOMMITTED\tEND\tLAG\tPENDING\tBUFFERED\tOLDEST\tROWS")
	for _, p := range partitions {
		state := orDash(p.State)
		if p.Paused {
			state += ", paused"
		}
		fmt.Fprintf(tab, "%s/%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d",
			oneLine(p.Topic), p.Partition, state, offset(p.Committed), offset(p.End), offset(p.Lag),
			p.Pending, size(p.Buffered), oldest(time.Duration(p.Oldest)), p.Rows)
		if p.Reason != "" {
			fmt.Fprint(tab, "\t", oneLine(p.Reason))
		}
		fmt.Fprintln(tab)
	}
	_ = tab.Flush() // a bytes.Buffer accepts everything
}

// oneLine replaces what could move the cursor of a terminal or break the table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func orDash(s string) string { return cmp.Or(oneLine(s), "-") }

// offset prints an offset or a distance; -1 is unknown.
func offset(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// oldest prints the age of an unacknowledged event; 0 is none.
func oldest(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return age(d)
}

// age prints a duration with a useful number of digits.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
}

// size prints bytes in binary units.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, names := float64(n)/unit, "KMGTPE"
	for v >= unit && len(names) > 1 {
		v, names = v/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %ciB", v, names[0])
}
