package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// content returns what a record holds and what the schema in force makes of one of
// its events. It is slow: it runs when somebody opens the event.
func (p *Pipeline) content(rec *kgo.Record, topicID [16]byte, index int) live.Content {
	c := live.Content{Key: pageText(rec.Key), Value: pageValue(rec.Value), Truncated: len(rec.Value) > maxKept}
	for _, h := range rec.Headers {
		c.Headers = append(c.Headers, live.Header{Key: pageText([]byte(h.Key)), Value: pageText(h.Value)})
	}
	now := p.schema.Current()
	if c.Truncated || now == nil {
		return c
	}
	all := now.Explain(rec, topicID)
	if index >= len(all) {
		return c
	}
	x := all[index]
	c.Outcome, c.Reason, c.Section, c.Shape, c.Row = x.Outcome, plaintext.Visible(x.Reason), x.Section, x.Shape, pageJSON(x.Row)
	for _, col := range x.Columns {
		c.Columns = append(c.Columns, live.Column{Name: col.Name, Type: col.Type, Value: plaintext.Visible(col.Value),
			Source: plaintext.Visible(col.Source), Why: plaintext.Visible(col.Why)})
	}
	return c
}

// pageValue is a record's value for people: indented JSON, text, or bytes.
func pageValue(value []byte) string {
	if len(value) > maxKept {
		return pageText(value[:maxKept])
	}
	if text := pageJSON(value); text != "" {
		return text
	}
	return pageText(value)
}

// maxIndented bounds what indenting may make of a value, in bytes: a few
// kilobytes of brackets within brackets would become gigabytes.
const maxIndented = 4 * maxKept

// pageJSON indents JSON, leaves numbers as they were written, and escapes what
// does not print; "" when it is none. What would grow too much stays on one line.
func pageJSON(value []byte) string {
	if !utf8.Valid(value) || !json.Valid(value) {
		return ""
	}
	var out bytes.Buffer
	if value = bytes.TrimSpace(value); indentedSize(value) <= maxIndented {
		_ = json.Indent(&out, value, "", "  ") // it is valid
	} else {
		_ = json.Compact(&out, value)
	}
	return plaintext.Visible(out.String())
}

// indentedSize is how large valid JSON may get by being indented.
func indentedSize(value []byte) int {
	size, depth, quoted := len(value), 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			size += 1 + 2*depth
		case c == '}' || c == ']':
			depth--
			size += 1 + 2*depth
		case c == ',':
			size += 1 + 2*depth
		case c == ':':
			size++
		}
	}
	return size
}

// pageText returns text with what does not print escaped; other bytes in
// hexadecimal.
func pageText(b []byte) string {
	for cut := 1; !utf8.Valid(b) && cut < utf8.UTFMax && cut <= len(b); cut++ {
		if utf8.Valid(b[:len(b)-cut]) {
			b = b[:len(b)-cut] // it was cut within a character
		}
	}
	if !utf8.Valid(b) {
		return hex.Dump(b[:min(len(b), 1<<10)])
	}
	return plaintext.Visible(string(b))
}

// DeadLetters reads the dead-letter topics for the live page; nil where rejects
// are not kept in topics.
func (p *Pipeline) DeadLetters() live.DeadLetters {
	if p.kafka.Rejects.Policy != consumer.PolicyDeadLetter {
		return nil
	}
	return deadLetters{p}
}

type deadLetters struct{ p *Pipeline }

// Bounds of what a list shows of one dead letter: of its value in bytes, of each
// of the bridge's headers in characters. Anybody who may write to the topic may
// have written those.
const maxListedValue, maxHeaderText = 8 << 10, 500

func (d deadLetters) newest(ctx context.Context, limit int) (found []*deadletter.Record, complete bool, err error) {
	all, err := deadletter.Open(ctx, d.p.cluster.Client, d.p.kafka)
	if err != nil {
		return nil, false, err
	}
	found, err = all.Newest(ctx, limit)
	return found, !all.Partial(), err
}

// Newest implements live.DeadLetters.
func (d deadLetters) Newest(ctx context.Context, limit int) ([]live.DeadLetter, bool, error) {
	found, complete, err := d.newest(ctx, limit)
	if err != nil {
		return nil, false, err
	}
	all := make([]live.DeadLetter, 0, len(found))
	for _, f := range found {
		all = append(all, pageDeadLetter(f))
	}
	return all, complete, nil
}

// pageDeadLetter returns what a list shows of a dead letter.
func pageDeadLetter(f *deadletter.Record) live.DeadLetter {
	o := f.Original
	index := 0 // without headers: the first event
	if len(f.Events) > 0 {
		index = f.Events[0].First
	}
	about := summaryOf(o.Value, index)
	entry := live.DeadLetter{
		Topic: f.Topic, Partition: f.Partition, Offset: f.Offset, Source: fmt.Sprintf("%s/%d/%d", headerText(o.Topic), o.Partition, o.Offset), From: o.Partition,
		Events: headerText(f.Events.Without(f.Delivered).String()), Code: headerText(f.Code), Column: headerText(f.Column),
		Meaning: codeMeanings[f.Code], Reason: headerText(f.Reason), Attempts: f.Attempts,
		FailedAt: f.FailedAt, Type: about.Kind, Name: about.Name, MessageID: about.ID, Size: len(o.Value),
		Content: func() string { return pageValue(o.Value[:min(len(o.Value), maxListedValue)]) },
	}
	if o.Topic == "" {
		entry.From = -1
	}
	if f.Fault != "" {
		entry.Meaning = "the headers of this dead letter are incomplete, so it cannot be redriven"
	}
	return entry
}

// DryRun implements live.DeadLetters: the record of each dead letter is restored and
// mapped by the schema in force. Nothing is written, so a refusal by the table
// itself is not found.
func (d deadLetters) DryRun(ctx context.Context, limit int, selected live.DeadLetterFilter) (t live.DryRun, err error) {
	now := d.p.schema.Current()
	if now == nil {
		return t, errors.New("the blueprint has not been compiled for the table yet; wait until the bridge has started")
	}
	found, complete, err := d.newest(ctx, limit)
	if err != nil {
		return t, err
	}
	t.Read, t.Complete = len(found), complete
	mapper, still := now.NewMapper(), map[live.RejectedAgain]int{}
	for _, f := range found {
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		if about := pageDeadLetter(f); !selected.Match(&about) {
			continue
		}
		t.DeadLetters++
		if f.Fault != "" {
			t.Damaged++
			continue
		}
		var in mapping.Record
		in.TopicID = f.TopicID
		fill(&in, f.Original, true)
		out := outcomesOut{}
		mapper.Map(&in, &out)
		for i, x := range out.events {
			if !f.Events.Has(i) || f.Delivered.Has(i) {
				continue // it was delivered
			}
			t.Events++
			switch x.status {
			case live.Delivered:
				t.Rows++
			case live.Filtered:
				t.Dropped++
			default:
				still[live.RejectedAgain{Code: x.code, Column: x.column, Meaning: codeMeanings[x.code]}]++
			}
		}
	}
	for code, n := range still {
		code.Events = n
		t.Still = append(t.Still, code)
	}
	slices.SortFunc(t.Still, func(a, b live.RejectedAgain) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
	return t, nil
}

// outcomesOut is a mapping.Out that keeps the outcome of each event and no row: a
// record may hold thousands of events.
type outcomesOut struct {
	events []eventOutcome
	buf    []byte
}

type eventOutcome struct{ status, code, column string }

// Buf implements mapping.Out.
func (o *outcomesOut) Buf() []byte { return o.buf[:0] }

// Row implements mapping.Out.
func (o *outcomesOut) Row(row []byte) {
	o.buf, o.events = row, append(o.events, eventOutcome{status: live.Delivered})
}

// Reject implements mapping.Out.
func (o *outcomesOut) Reject(code, column, _ string) {
	o.events = append(o.events, eventOutcome{live.Rejected, code, column})
}

// Filter implements mapping.Out.
func (o *outcomesOut) Filter(reason string) {
	o.events = append(o.events, eventOutcome{status: live.Filtered, code: reason})
}

// eventSummary is what the page shows of an event in a list.
type eventSummary struct {
	Kind string `json:"event_type"`
	Name string `json:"event_name"`
	ID   string `json:"message_id"`
}

// summaryMapping maps an event to its names. So batches and wrappers are those of
// the mapping.
var summaryMapping = sync.OnceValues(func() (*mapping.Mapping, error) {
	blueprint, err := mapping.Parse("summary", []byte(`version: 2
global:
  mappings:
    - {source: [type, event_type], target: event_type, type: STRING}
    - {source: [event, event_name, name], target: event_name, type: STRING}
    - {source: [message_id, event_id, id], target: message_id, type: STRING}
`))
	if err != nil {
		return nil, err
	}
	return blueprint.Compile(mapping.Options{Settings: mapping.Settings{Input: "auto", InvalidUTF8: "replace"}})
})

// maxName bounds a name in a list, in characters.
const maxName = 120

// summaryOf finds the names of event index of a record; empty where there are none.
// Long records are left out: it runs on the goroutine that delivers.
func summaryOf(value []byte, index int) (s eventSummary) {
	m, err := summaryMapping()
	if err != nil || len(value) > maxKept {
		return s
	}
	out := summaryOut{skip: index}
	m.NewMapper().Map(&mapping.Record{Value: value}, &out)
	if json.Unmarshal(out.row, &s) != nil {
		return eventSummary{}
	}
	return eventSummary{singleLine(s.Kind, maxName), singleLine(s.Name, maxName), singleLine(s.ID, maxName)}
}

// summaryOut is a mapping.Out that keeps the row of one event.
type summaryOut struct {
	skip int // events before it
	row  []byte
}

// Buf implements mapping.Out.
func (o *summaryOut) Buf() []byte { return nil }

// Row implements mapping.Out.
func (o *summaryOut) Row(row []byte) {
	if o.skip == 0 {
		o.row = row
	}
	o.skip--
}

// Reject implements mapping.Out.
func (o *summaryOut) Reject(_, _, _ string) { o.skip-- }

// Filter implements mapping.Out.
func (o *summaryOut) Filter(string) { o.skip-- }

// singleLine is text on one line, of at most limit characters.
func singleLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit-1]) + "…"
	}
	return text
}

func headerText(text string) string { return singleLine(text, maxHeaderText) }

// codeMeanings describes the codes of rejects and the reasons of filters.
var codeMeanings = map[string]string{
	mapping.CodeEmpty:            "the record holds no event",
	mapping.CodeNotJSON:          "the record is not JSON",
	mapping.CodeNotObject:        "the record is JSON, but not an object",
	mapping.CodeTooDeep:          "the event is nested too deeply",
	mapping.CodeTooManyEvents:    "the record holds more events than mapping.max_events_per_record",
	mapping.CodeInvalidUTF8:      "the event holds bytes that are not valid UTF-8",
	mapping.CodeDuplicateKey:     "a key that the blueprint reads is duplicate in the event",
	mapping.CodeTypeMismatch:     "the column's type cannot hold this kind of value",
	mapping.CodeOutOfRange:       "the number is outside the range of the column's type",
	mapping.CodeBadTimestamp:     "the value is not a timestamp",
	mapping.CodeMissingRequired:  "the column is NOT NULL and the event has no value for it",
	mapping.CodeUnrecognized:     "the event has no source of any column: its row would be empty",
	mapping.CodeFilterFailed:     "the blueprint's filter could not be evaluated for this event",
	mapping.CodeExpressionFailed: "an expression of the blueprint could not be evaluated for this event, or gave what the column cannot hold",

	zerobus.RefusedSchemaMismatch: "the table refuses the row: a column it lacks, or a value of another type",
	zerobus.RefusedTooLarge:       "the row is larger than one request may be",
	zerobus.RefusedOther:          "the table refuses the row",

	mapping.FilterTombstone:  "the record has no value: a tombstone",
	mapping.FilterConsent:    "the event lacks a consent that mapping.require_consent requires",
	mapping.FilterDrop:       "the blueprint drops events of this name",
	mapping.FilterExpression: "the blueprint's filter excludes this event",
}
