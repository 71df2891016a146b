package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/mapping"
)

func newDLQShowCommand() *cobra.Command {
	var f deadLetterFlags
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "show [<dead-letter topic>/]<partition>/<offset>",
		Short: "Show one dead letter, mapped with the present blueprint",
		Long: `show prints a whole dead letter with its event, and maps the event as bridge run
would now: for each event that failed, the source of each column, or why it still is
no row. Name the dead letter as dlq list does. If the columns of the table cannot be
read, show maps with the blueprint alone and reports that.`,
		Example: `  bridge dlq show --config config.yaml 0/17
  bridge dlq show --integration orders 0/17
  bridge dlq show delivery-int_xyz789-dlq/0/17 --set mapping.blueprint=new.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, partition, offset, err := deadletter.ParseName(args[0])
			if err != nil {
				return &usageError{err}
			}
			cfgs, err := f.read(cmd, true, false)
			if err != nil {
				return err
			}
			cfg := cfgs[0]
			b, err := pipeline.NewParts(cfg, version(), commandLogger(cmd, cfg.Log, nil), nil)
			if err != nil {
				return &usageError{err}
			}
			defer b.Close()
			var r deadLetterReader
			if err := r.open(cmd.Context(), b.Cluster.Client, cfg); err != nil {
				return err
			}
			switch {
			case topic == "" && len(r.Topics) > 1:
				return &usageError{fmt.Errorf("there are several dead-letter topics; put one in front, as in %s/%s", r.Topics[0], args[0])}
			case topic == "":
				topic = r.Topics[0]
			case !slices.Contains(r.Topics, topic):
				return &usageError{fmt.Errorf("%s is not the dead-letter topic of a configured topic; use %s", plaintext.ShortLine(topic, 249), strings.Join(r.Topics, " or "))}
			}
			l, err := r.At(cmd.Context(), topic, partition, offset)
			if err != nil {
				return err
			}
			if l == nil {
				return suggest(fmt.Errorf("there is no dead letter at %s/%d/%d: the topic's retention removed it, it is a marker, or it never existed; run bridge dlq list", topic, partition, offset),
					"bridge dlq list --all"+configArgument(cmd))
			}
			s := newShownDeadLetter(l, len(r.Topics))
			s.mapNow(cmd.Context(), b)
			return output.write(cmd, s, s.text)
		},
	}
	f.addTopics(cmd)
	output = addOutput(cmd)
	return cmd
}

// shownDeadLetter is the answer of bridge dlq show.
type shownDeadLetter struct {
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

func newShownDeadLetter(l *deadletter.Record, topics int) *shownDeadLetter {
	s := &shownDeadLetter{Listed: l.Listed(topics), record: l, SourceTime: timeText(l.Original.Timestamp, ""), Version: plaintext.ShortLine(l.Version, 64),
		Headers: []shownHeader{}, Key: l.Original.Key, Value: l.Original.Value, Bytes: len(l.Original.Value), Now: []mapping.Explained{}}
	for _, h := range l.Original.Headers {
		s.Headers = append(s.Headers, shownHeader{h.Key, h.Value})
	}
	return s
}

// mapNow explains the events that failed by the present blueprint.
func (s *shownDeadLetter) mapNow(ctx context.Context, b *pipeline.Parts) {
	l := s.record
	if l.Fault != "" {
		return
	}
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

func (s *shownDeadLetter) text(b *strings.Builder, _ terminal.Style) {
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
		writeExplained(b, title, e)
	}
}
