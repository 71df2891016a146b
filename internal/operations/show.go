package operations

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/mapping"
)

// ShownDeadLetter is one dead letter with its event, as a redrive would map it.
type ShownDeadLetter struct {
	deadletter.Listed
	SourceTime  string              `json:"source_timestamp,omitempty"`
	Version     string              `json:"bridge_version,omitempty"`
	Headers     []shownHeader       `json:"headers"` // of the original
	Key         plaintext.Bytes     `json:"key"`
	Value       plaintext.Bytes     `json:"value"`
	Bytes       int                 `json:"value_bytes"`
	NoTable     string              `json:"without_table,omitempty"`     // why the table's columns are not known
	NoTransport string              `json:"without_transport,omitempty"` // why the form of the rows is not known
	Now         []mapping.Explained `json:"now"`                         // of each event that failed

	record  *deadletter.Record
	indexes []int // of the events in Now, where they are those of the dead letter
}

type shownHeader struct {
	Key   string          `json:"key"`
	Value plaintext.Bytes `json:"value"`
}

// Show describes a dead letter of one of so many dead-letter topics. Its events are
// mapped with the present blueprint and, where they can be read, the table's columns.
func Show(ctx context.Context, l *deadletter.Record, topics int, b *pipeline.Parts) *ShownDeadLetter {
	s := &ShownDeadLetter{Listed: l.Listed(topics), record: l, SourceTime: timeText(l.Original.Timestamp, ""), Version: plaintext.ShortLine(l.Version, 64),
		Headers: []shownHeader{}, Key: l.Original.Key, Value: l.Original.Value, Bytes: len(l.Original.Value), Now: []mapping.Explained{}}
	for _, h := range l.Original.Headers {
		s.Headers = append(s.Headers, shownHeader{h.Key, h.Value})
	}
	if l.Fault == "" {
		s.explain(ctx, b)
	}
	return s
}

// explain maps the events that failed.
func (s *ShownDeadLetter) explain(ctx context.Context, b *pipeline.Parts) {
	l := s.record
	fitting, cancel := context.WithTimeout(ctx, pipeline.CheckTimeout)
	defer cancel()
	clusterID, err := b.Cluster.ID(fitting)
	undecided := pipeline.DecideFirst(fitting, b.Client)
	if err == nil {
		err = b.Schema.ReadTable(fitting, clusterID)
	}
	m := b.Schema.Current()
	if m == nil {
		s.NoTable = err.Error()
		alone, cerr := b.Schema.CompileWithoutTable(clusterID)
		if cerr != nil {
			s.NoTable = cerr.Error()
			return
		}
		m = &pipeline.Compiled{Mapping: alone}
	} else if undecided != nil {
		s.NoTransport = undecided.Error()
	}
	now := m.Explain(l.Original, l.TopicID)
	if l.EventCount > 0 && l.EventCount != len(now) {
		s.Now = now
		return
	}
	for e := range l.Events.All() {
		if e >= len(now) {
			break
		}
		s.Now, s.indexes = append(s.Now, now[e]), append(s.indexes, e)
	}
}

// WriteText writes the dead letter for people.
func (s *ShownDeadLetter) WriteText(b *strings.Builder) {
	l := s.record
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(b, "%-11s %s\n", name, text)
		}
	}
	line("dead letter", fmt.Sprintf("%s/%d/%d", l.Topic, l.Partition, l.Offset))
	line("integration", s.Integration)
	line("code", s.Code)
	line("column", s.Column)
	line("reason", s.Reason)
	line("source", s.Source+" "+s.SourceTime)
	line("events", eventsText(l.Events))
	if l.Parts > 0 {
		line("parts", fmt.Sprintf("%d records", l.Parts))
	}
	line("failed at", fmt.Sprintf("%s, attempt %d, by bridge %s", timeText(l.FailedAt, "unknown"), l.Attempts, cmp.Or(s.Version, "unknown")))
	state := "open"
	switch {
	case l.Fault != "":
		state = "cannot be redriven: " + s.Fault
	case l.Resolved:
		state = "resolved: a redrive delivered it"
	case l.Replaced:
		state = "replaced by a newer dead letter of the same event, which bridge dlq list shows"
	case len(l.Delivered) > 0:
		state = "open; a redrive delivered its events " + eventsText(l.Delivered)
	}
	line("state", state)
	for _, h := range s.Headers {
		line("header", plaintext.ShortLine(h.Key, 255)+" = "+h.Value.Short())
	}
	line("key", s.Key.Short())
	line("value", fmt.Sprintf("%d bytes\n%s", s.Bytes, s.Value.Long()))
	if l.Fault != "" {
		return
	}
	b.WriteString("\nnow")
	if s.NoTable != "" {
		fmt.Fprintf(b, " (by the blueprint alone: %s)", s.NoTable)
	} else if s.NoTransport != "" {
		fmt.Fprintf(b, " (%s)", s.NoTransport)
	}
	b.WriteString("\n")
	for i, e := range s.Now {
		title := "event"
		if i < len(s.indexes) {
			title = fmt.Sprintf("event %d", s.indexes[i])
		}
		WriteExplained(b, title, e)
	}
}

// WriteExplained writes the outcome of one event and its columns, for people.
func WriteExplained(b *strings.Builder, title string, e mapping.Explained) {
	outcome := e.Outcome
	for _, part := range []string{e.Code, e.Reason} {
		if part != "" {
			outcome += ", " + part
		}
	}
	if e.Section != "" {
		outcome += ", section " + e.Section
	}
	rows := []string{title + ": " + plaintext.VisibleLine(outcome)}
	for _, c := range e.Columns {
		value, from := "NULL", c.Why
		if c.Value != "" {
			value, from = c.Value, "from "+c.Source
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s\t%s", c.Name, c.Type, plaintext.VisibleLine(value), plaintext.VisibleLine(from)))
	}
	terminal.Tabulate(b, rows...)
}
