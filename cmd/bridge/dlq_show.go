package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

func newDLQShowCommand() *cobra.Command {
	var f letterFlags
	output := outputText
	cmd := &cobra.Command{
		Use:   "show [<dead-letter topic>/]<partition>/<offset>",
		Short: "Show one dead letter, and what the blueprint makes of it now",
		Long: `show prints a dead letter whole, its event included, and maps it as bridge run would
now: for each event that failed, which source fed each column, or why it is still no
row. The letter is named as dlq list names it. Where the table cannot be asked for
its columns, the blueprint alone is gone by, which is said.`,
		Example: `  bridge dlq show --config config.yaml 0/17
  bridge dlq show delivery-int_xyz789-dlq/0/17 --set mapping.blueprint=new.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, partition, offset, err := parseLetterName(args[0])
			if err != nil {
				return &usageError{err}
			}
			cfg, err := f.read(cmd, true)
			if err != nil {
				return err
			}
			b, err := newBridge(cfg, commandLogger(cmd, cfg, nil))
			if err != nil {
				return err
			}
			defer b.close()
			ctx := cmd.Context()
			letters, err := openLetters(ctx, b.cluster)
			if err != nil {
				return err
			}
			names, _ := letterTopics(letters)
			switch {
			case topic == "" && len(names) > 1:
				return &usageError{fmt.Errorf("there are several dead-letter topics; put one in front, as in %s/%s", names[0], args[0])}
			case topic == "":
				topic = names[0]
			case !slices.Contains(names, topic):
				return &usageError{fmt.Errorf("%s is not the dead-letter topic of a configured topic; use %s", legible(topic, 249), strings.Join(names, " or "))}
			}
			l, err := letters.At(ctx, topic, partition, offset)
			if err != nil {
				return err
			}
			if l == nil {
				return advise(fmt.Errorf("there is no dead letter at %s/%d/%d: it was removed by the topic's retention, is a marker, or was never there; bridge dlq list shows what is", topic, partition, offset),
					"bridge dlq list --all"+configArgument(cmd))
			}
			s := &shownLetter{listedLetter: describeLetter(l, len(names)), letter: l}
			s.mapNow(ctx, b)
			return s.write(cmd.OutOrStdout(), output)
		},
	}
	f.addTopics(cmd)
	addOutput(cmd, &output)
	return cmd
}

// parseLetterName is the reverse of letterName.
func parseLetterName(name string) (topic string, partition int32, offset int64, err error) {
	parts := strings.Split(name, "/")
	if len(parts) == 3 {
		topic, parts = parts[0], parts[1:]
	}
	if len(parts) == 2 {
		p, perr := strconv.ParseInt(parts[0], 10, 32)
		o, oerr := strconv.ParseInt(parts[1], 10, 64)
		if perr == nil && oerr == nil && p >= 0 && o >= 0 {
			return topic, int32(p), o, nil
		}
	}
	return "", 0, 0, fmt.Errorf("%q names no letter; use partition/offset as in 0/17, or topic/0/17 where there are several dead-letter topics", legible(name, 300))
}

// shownLetter is a letter with its event.
type shownLetter struct {
	listedLetter
	SourceTime string              `json:"source_timestamp,omitempty"`
	Version    string              `json:"bridge_version,omitempty"`
	Headers    []shownHeader       `json:"headers"` // of the original
	Key        any                 `json:"key"`
	Value      any                 `json:"value"`
	Bytes      int                 `json:"value_bytes"`
	Blind      string              `json:"without_table,omitempty"` // why the table's columns are not known
	Now        []mapping.Explained `json:"now"`                     // of each event that failed

	letter *consumer.DeadLetter
	shown  []int // the events of Now, where they are those of the letter
}

type shownHeader struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// mapNow explains the events that failed by the present blueprint.
func (s *shownLetter) mapNow(ctx context.Context, b *bridge) {
	l := s.letter
	s.Now = []mapping.Explained{}
	s.SourceTime, s.Version, s.Bytes = timeText(l.Original.Timestamp), legible(l.Version, 64), len(l.Original.Value)
	if l.Fault != "" {
		return
	}
	fitting, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	clusterID, err := b.cluster.ID(fitting)
	if err == nil {
		err = b.fitQuietly(fitting, clusterID)
	}
	m := b.schema.Current()
	if m == nil {
		s.Blind = "the table could not be asked for its columns"
		if err != nil {
			s.Blind = err.Error()
		}
		alone, cerr := b.schema.CompileWithoutTable(clusterID)
		if cerr != nil {
			s.Blind = cerr.Error()
			return
		}
		m = &pipeline.Compiled{Mapping: alone}
	}
	now := m.NewMapper().Explain(mappingRecord(l.Original, l.TopicID))
	if l.EventCount > 0 && l.EventCount != len(now) {
		s.Now = now
		return
	}
	for e := range l.Events.All() {
		if e >= len(now) {
			break
		}
		s.Now, s.shown = append(s.Now, now[e]), append(s.shown, e)
	}
}

// fitQuietly fits the blueprint to the table's columns, without proving that
// rows may be written.
func (b *bridge) fitQuietly(ctx context.Context, clusterID string) error {
	table, _, err := pipeline.ReadColumns(ctx, b.client)
	if err != nil {
		return err
	}
	_, err = b.schema.SetTable(clusterID, table)
	return err
}

// mappingRecord returns the record of a topic with this id as mapping takes it.
func mappingRecord(rec *kgo.Record, topicID [16]byte) *mapping.Record {
	in := &mapping.Record{Topic: rec.Topic, TopicID: topicID, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp, Key: rec.Key, Value: rec.Value}
	for _, h := range rec.Headers {
		in.Headers = append(in.Headers, mapping.Header{Key: h.Key, Value: h.Value})
	}
	return in
}

const (
	maxShown    = 64 << 10 // bytes of a value, as text
	maxShownHex = 1 << 10  // bytes of a value that is no text
)

func (s *shownLetter) write(w io.Writer, form outputForm) error {
	l := s.letter
	s.Headers = []shownHeader{}
	if form == outputJSON {
		for _, h := range l.Original.Headers {
			s.Headers = append(s.Headers, shownHeader{h.Key, jsonBytes(h.Value)})
		}
		s.Key, s.Value = jsonBytes(l.Original.Key), jsonBytes(l.Original.Value)
		return json.NewEncoder(w).Encode(s)
	}
	var b strings.Builder
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-10s %s\n", name, text)
		}
	}
	line("letter", fmt.Sprintf("%s/%d/%d", l.Topic, l.Partition, l.Offset))
	line("code", s.Code)
	line("column", s.Column)
	line("reason", s.Reason)
	line("source", s.Source+" "+s.SourceTime)
	line("events", eventsText(l.Events))
	if l.Parts > 0 {
		line("parts", fmt.Sprintf("%d records", l.Parts))
	}
	line("failed at", strings.TrimSpace(fmt.Sprintf("%s, attempt %d, by bridge %s", cmp.Or(timeText(l.FailedAt), "unknown"), l.Attempts, cmp.Or(s.Version, "unknown"))))
	switch {
	case l.Fault != "":
		line("state", "cannot be redriven: "+s.Fault)
	case l.Settled:
		line("state", "settled: it landed in a redrive")
	case l.Replaced:
		line("state", "replaced by a newer dead letter of the same event, which bridge dlq list shows")
	case len(l.Landed) > 0:
		line("state", "open; its events "+eventsText(l.Landed)+" landed in a redrive")
	default:
		line("state", "open")
	}
	for _, h := range l.Original.Headers {
		line("header", legible(h.Key, 255)+" = "+shownBytes(h.Value))
	}
	line("key", shownBytes(l.Original.Key))
	fmt.Fprintf(&b, "value      %d bytes\n%s\n", s.Bytes, shownValue(l.Original.Value))
	if l.Fault == "" {
		b.WriteString("\nnow")
		if s.Blind != "" {
			fmt.Fprintf(&b, " (by the blueprint alone: %s)", s.Blind)
		}
		b.WriteString("\n")
		for i, e := range s.Now {
			title := "event"
			if i < len(s.shown) {
				title = fmt.Sprintf("event %d", s.shown[i])
			}
			if err := writeExplained(&b, title, e); err != nil {
				return err
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// jsonBytes is JSON as it is, text as a string, and anything else as
// {"hex": ...}; nil stays null.
func jsonBytes(b []byte) any {
	switch {
	case b == nil:
		return nil
	case json.Valid(b):
		return json.RawMessage(b)
	case utf8.Valid(b):
		return string(b)
	}
	return map[string]string{"hex": hex.EncodeToString(b)}
}

// shownBytes is text in quotes, or hexadecimal, cut to maxShownHex bytes.
func shownBytes(b []byte) string {
	if b == nil {
		return "null"
	}
	more := ""
	if len(b) > maxShownHex {
		more = fmt.Sprintf(" ... %d bytes more", len(b)-maxShownHex)
		b = b[:maxShownHex]
	}
	if text := strings.ToValidUTF8(string(b), ""); len(text) >= len(b)-utf8.UTFMax && more != "" || utf8.Valid(b) {
		return strconv.Quote(text) + more
	}
	return "0x" + hex.EncodeToString(b) + more
}

var errTooMuch = errors.New("more than is shown")

// bounded keeps what is written to it up to a size.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.most - b.Len(); len(p) > room {
		b.Buffer.Write(p[:room])
		return room, errTooMuch
	}
	return b.Buffer.Write(p)
}

// shownValue is JSON laid out, text as it is, or a hex dump, cut.
func shownValue(value []byte) string {
	if value == nil {
		return "null"
	}
	var out bounded
	var err error
	var laid bytes.Buffer
	switch {
	case json.Indent(&laid, value, "", "  ") == nil && printable(laid.Bytes()):
		out.most = maxShown
		_, err = out.Write(laid.Bytes())
	case printable(value):
		out.most = maxShown
		_, err = out.Write(value)
	default:
		out.most = 5 * maxShownHex
		dump := hex.Dumper(&out)
		_, err = dump.Write(value)
	}
	text := strings.ToValidUTF8(strings.TrimRight(out.String(), "\n"), "")
	if err != nil {
		text += "\n... cut here; --output json shows all"
	}
	return text
}

// printable tells text that a terminal shows and does not obey.
func printable(b []byte) bool { return plaintext.Visible(string(b)) == string(b) }
