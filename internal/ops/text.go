package ops

import (
	"bytes"
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

// WriteText prints the snapshot for people: health with reasons and remedies
// first, then sink, buffer, totals and partitions. Ages are counted to the
// snapshot's own time, so the clocks of the two machines need not agree.
// Characters that do not print are replaced by spaces.
func (s Snapshot) WriteText(w io.Writer) error {
	var b bytes.Buffer
	writeHealth(&b, s)
	writeSink(&b, s.Sink, s.Time)
	writeReload(&b, s.Reload, s.Time)
	writeCounts(&b, s)
	writePartitions(&b, s.Partitions)
	_, err := w.Write(b.Bytes())
	return err
}

// WriteReady prints what WriteText begins with, as far as /readyz knows it.
func (s Snapshot) WriteReady(w io.Writer) error {
	var b bytes.Buffer
	health := "ready"
	if !s.Ready {
		health = "NOT READY"
	}
	fmt.Fprintf(&b, "%-10s %s\n", health, orDash(s.State))
	writeReasons(&b, s.NotReady)
	_, err := w.Write(b.Bytes())
	return err
}

func writeReasons(b *bytes.Buffer, reasons []consumer.NotReady) {
	for _, r := range reasons {
		detail(b, r.Code, r.Text)
		detail(b, "remedy", r.Remedy)
	}
}

func writeHealth(b *bytes.Buffer, s Snapshot) {
	health := "ready"
	if !s.Ready {
		health = "NOT READY"
	}
	fmt.Fprintf(b, "%-10s %s, version %s, group %s", health, orDash(s.State), orDash(s.Version), orDash(s.Group))
	if s.MemberID != "" {
		fmt.Fprintf(b, ", member %s", oneLine(s.MemberID))
	}
	if !s.Started.IsZero() {
		fmt.Fprintf(b, ", up %s", age(s.Time.Sub(s.Started)))
	}
	b.WriteByte('\n')
	writeReasons(b, s.NotReady)
	if !s.Live {
		fmt.Fprintf(b, "%-10s %s\n", "NOT ALIVE", orDash(s.LiveReason))
	}
}

func writeSink(b *bytes.Buffer, s zerobus.State, now time.Time) {
	fmt.Fprintf(b, "%-10s %s", "sink", orDash(s.Name))
	if !s.Since.IsZero() {
		fmt.Fprintf(b, " for %s", age(now.Sub(s.Since)))
	}
	fmt.Fprintf(b, ", table %s, transport %s", orDash(s.Table), orDash(s.Transport))
	if len(s.Streams) > 0 {
		fmt.Fprintf(b, ", streams %s", orDash(strings.Join(s.Streams, " ")))
	}
	if !s.TokenMintedAt.IsZero() {
		fmt.Fprintf(b, ", token minted %s ago", age(now.Sub(s.TokenMintedAt)))
	}
	if !s.TokenExpiresAt.IsZero() {
		if left := s.TokenExpiresAt.Sub(now); left > 0 {
			fmt.Fprintf(b, ", token expires in %s", age(left))
		} else {
			fmt.Fprintf(b, ", token expired %s ago", age(-left))
		}
	}
	b.WriteByte('\n')
	detail(b, "reason", s.Reason)
	detail(b, "remedy", s.Remedy)
}

func writeCounts(b *bytes.Buffer, s Snapshot) {
	fmt.Fprintf(b, "%-10s %s", "buffer", size(s.BufferedBytes))
	if s.BufferedLimit > 0 {
		fmt.Fprintf(b, " of %s (%d %%)", size(s.BufferedLimit), s.BufferedBytes*100/s.BufferedLimit)
	}
	b.WriteByte('\n')
	writeMemory(b, s.Memory)
	t := s.Totals
	fmt.Fprintf(b, "%-10s %d events read, %d rows delivered, %d rejected, %d filtered, %d dead letters, %d retries\n",
		"totals", t.EventsRead, t.RowsDelivered, t.EventsRejected, t.EventsFiltered, t.DeadLetters, t.SinkRetries)
	if s.LogLinesDropped > 0 {
		fmt.Fprintf(b, "%-10s %d lines dropped: standard error was not read in time, or could not be written\n", "log", s.LogLinesDropped)
	}
	writeLedger(b, s.Conservation)
}

func writeMemory(b *bytes.Buffer, m MemoryStatus) {
	if m.BoundBytes == 0 {
		return
	}
	fmt.Fprintf(b, "%-10s at most %s planned", "memory", size(m.BoundBytes))
	if m.SoftLimitBytes > 0 {
		fmt.Fprintf(b, ", soft limit %s", size(m.SoftLimitBytes))
	}
	if m.CgroupBytes > 0 {
		fmt.Fprintf(b, ", limit of the control group %s", size(m.CgroupBytes))
	}
	b.WriteByte('\n')
	detail(b, "warning", m.Warning)
}

// writeLedger prints the equation that tells whether an event got lost.
func writeLedger(b *bytes.Buffer, l consumer.LedgerStatus) {
	verdict := "balanced"
	if l.Imbalance != 0 {
		verdict = fmt.Sprintf("OUT BY %d: a fault of the bridge, please report it", l.Imbalance)
	}
	fmt.Fprintf(b, "%-10s read %d = delivered %d + dead-lettered %d + skipped %d + filtered %d + in flight %d + dropped to be read again %d; %s\n",
		"events", l.Read, l.Delivered, l.DeadLettered, l.Skipped, l.Filtered, l.InFlight, l.Dropped, verdict)
	fmt.Fprintf(b, "%-10s passed %d = records %d + lost %d + skipped %d", "offsets", l.Offsets, l.Records, l.Lost, l.SkippedOffsets)
	if l.Lost > 0 {
		fmt.Fprint(b, "; LOST: kafka removed events before they were delivered, see the log for the ranges")
	}
	b.WriteByte('\n')
}

func writePartitions(b *bytes.Buffer, partitions []consumer.PartitionStatus) {
	if len(partitions) == 0 {
		b.WriteString("partitions none assigned\n")
		return
	}
	partitions = slices.Clone(partitions)
	slices.SortFunc(partitions, func(x, y consumer.PartitionStatus) int {
		if c := strings.Compare(x.Topic, y.Topic); c != 0 {
			return c
		}
		return int(x.Partition) - int(y.Partition)
	})
	b.WriteByte('\n')
	tab := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "PARTITION\tSTATE\tCOMMITTED\tEND\tLAG\tPENDING\tBUFFERED\tOLDEST\tROWS")
	for _, p := range partitions {
		state := orDash(p.State)
		if p.Paused {
			state += ", paused"
		}
		oldest := "-"
		if p.Oldest != 0 {
			oldest = age(time.Duration(p.Oldest))
		}
		fmt.Fprintf(tab, "%s/%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d",
			oneLine(p.Topic), p.Partition, state, offset(p.Committed), offset(p.End), offset(p.Lag),
			p.Pending, size(p.Buffered), oldest, p.Rows)
		if p.Reason != "" {
			fmt.Fprint(tab, "\t", oneLine(p.Reason))
		}
		fmt.Fprintln(tab)
	}
	_ = tab.Flush() // a bytes.Buffer takes everything
}

// detail prints one indented line, or nothing when there is nothing to say.
func detail(b *bytes.Buffer, label, text string) {
	if text != "" {
		fmt.Fprintf(b, "  %s: %s\n", oneLine(label), oneLine(text))
	}
}

// oneLine keeps what others wrote, a sink's error say, from moving the
// terminal's cursor or breaking the table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
}

// offset prints an offset or a distance; -1 is unknown.
func offset(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// age prints a duration with as many digits as help.
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
