package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/ops/live"
)

// content tells what a record holds and what the rules of now make of one of
// its events. It is slow and for people; it runs when somebody opens the event.
func (b *bridge) content(rec *kgo.Record, index int) live.Content {
	c := live.Content{Key: pageText(rec.Key), Value: pageValue(rec.Value), Truncated: len(rec.Value) > maxKept}
	for _, h := range rec.Headers {
		c.Headers = append(c.Headers, live.Header{Key: h.Key, Value: pageText(h.Value)})
	}
	now := b.rules.Load()
	if c.Truncated || now == nil {
		return c
	}
	all := now.NewMapper().Explain(mappingRecord(rec))
	if index >= len(all) {
		return c
	}
	x := all[index]
	c.Outcome, c.Reason, c.Section, c.Shape, c.Row = x.Outcome, x.Reason, x.Section, x.Shape, pageJSON(x.Row)
	for _, col := range x.Columns {
		c.Columns = append(c.Columns, live.Column{Name: col.Name, Type: col.Type, Value: col.Value, Source: col.Source, Why: col.Why})
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

// pageJSON indents JSON and leaves numbers as they were written; "" when it is
// none.
func pageJSON(value []byte) string {
	var out bytes.Buffer
	if !utf8.Valid(value) || json.Indent(&out, value, "", "  ") != nil {
		return ""
	}
	return out.String()
}

// pageText is text as it is, with what does not print replaced; other bytes
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
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, string(b))
}
