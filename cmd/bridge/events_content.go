package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/plaintext"
)

// content tells what a record holds and what the rules of now make of one of
// its events. It is slow and for people; it runs when somebody opens the event.
func (b *bridge) content(rec *kgo.Record, topicID [16]byte, index int) live.Content {
	c := live.Content{Key: pageText(rec.Key), Value: pageValue(rec.Value), Truncated: len(rec.Value) > maxKept}
	for _, h := range rec.Headers {
		c.Headers = append(c.Headers, live.Header{Key: pageText([]byte(h.Key)), Value: pageText(h.Value)})
	}
	now := b.schema.Current()
	if c.Truncated || now == nil {
		return c
	}
	all := now.NewMapper().Explain(mappingRecord(rec, topicID))
	if index >= len(all) {
		return c
	}
	x := all[index]
	c.Outcome, c.Reason, c.Section, c.Shape, c.Row = x.Outcome, plaintext.Visible(x.Reason), x.Section, x.Shape, pageJSON(x.Row)
	for _, col := range x.Columns {
		c.Columns = append(c.Columns, live.Column{Name: col.Name, Type: col.Type, Value: plaintext.Visible(col.Value), Source: plaintext.Visible(col.Source), Why: plaintext.Visible(col.Why)})
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

// pageText is text as it is, with what does not print escaped; other bytes
// in hexadecimal.
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
