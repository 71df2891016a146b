package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"

	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// sketch is what the page tells of an event without showing it.
type sketch struct{ kind, name, id string }

// maxSketched bounds the records whose names are read: it is done for a few a
// second, on the goroutine that delivers.
const maxSketched = maxKept

// outline has the places where an event keeps its names, in either spelling, or
// where an object around it keeps the event.
type outline struct {
	Type       json.RawMessage `json:"type"`
	Event      json.RawMessage `json:"event"` // a name, or an event
	Name       json.RawMessage `json:"name"`
	ID         json.RawMessage `json:"message_id"`
	CamelID    json.RawMessage `json:"messageId"`
	EventName  json.RawMessage `json:"event_name"` // of a row
	EventType  json.RawMessage `json:"event_type"` // of a row
	Batch      json.RawMessage `json:"batch"`
	Payload    json.RawMessage `json:"payload"`
	Data       json.RawMessage `json:"data"`
	OriginalEv json.RawMessage `json:"original_event"`
}

// sketchOf finds the names of event index of a record; empty where there are none.
func sketchOf(value []byte, index int) sketch {
	if len(value) > maxSketched {
		return sketch{}
	}
	value = bytes.TrimPrefix(value, []byte("\xef\xbb\xbf"))
	for range 5 { // wrappers around wrappers
		if value = bytes.TrimSpace(value); len(value) == 0 {
			return sketch{}
		}
		if value[0] == '[' {
			var all []json.RawMessage
			if json.Unmarshal(value, &all) != nil || index >= len(all) {
				return sketch{}
			}
			value = all[index]
			continue
		}
		var o outline
		if json.Unmarshal(value, &o) != nil {
			return sketch{}
		}
		if inner := o.inner(); inner != nil {
			value = inner
			continue
		}
		return o.sketch()
	}
	return sketch{}
}

// inner returns what the object wraps, or nil.
func (o *outline) inner() json.RawMessage {
	if isKind(o.Event, '{') {
		return o.Event
	}
	if o.Type != nil || o.Event != nil || o.EventName != nil {
		return nil
	}
	if isKind(o.Batch, '[') {
		return o.Batch
	}
	for _, w := range []json.RawMessage{o.Payload, o.Data, o.OriginalEv} {
		if isKind(w, '{') {
			return w
		}
	}
	return nil
}

func isKind(v json.RawMessage, first byte) bool { return len(v) > 0 && v[0] == first }

func (o *outline) sketch() sketch {
	return sketch{kind: oneOf(o.Type, o.EventType), name: oneOf(o.Event, o.EventName, o.Name), id: oneOf(o.ID, o.CamelID)}
}

// maxName bounds a name that is shown, in characters.
const maxName = 120

// oneOf returns the first that is a text, on one line.
func oneOf(all ...json.RawMessage) string {
	for _, v := range all {
		var text string
		if isKind(v, '"') && json.Unmarshal(v, &text) == nil && text != "" {
			return pageLine(text, maxName)
		}
	}
	return ""
}

// pageLine is text on one line, of at most limit characters.
func pageLine(text string, limit int) string {
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

// meanings says in words what rejects and filters are called by.
var meanings = map[string]string{
	mapping.CodeEmpty:            "the record holds no event",
	mapping.CodeNotJSON:          "the record is not JSON",
	mapping.CodeNotObject:        "the record is JSON, but not an object",
	mapping.CodeTooDeep:          "the event is nested too deeply",
	mapping.CodeTooManyEvents:    "the record holds more events than mapping.max_events_per_record",
	mapping.CodeInvalidUTF8:      "the event holds bytes that are no Unicode text",
	mapping.CodeDuplicateKey:     "a key the blueprint reads stands twice in the event",
	mapping.CodeTypeMismatch:     "the column's type cannot hold this kind of value",
	mapping.CodeOutOfRange:       "the number is outside the range of the column's type",
	mapping.CodeBadTimestamp:     "the value is not a point in time",
	mapping.CodeMissingRequired:  "the column is NOT NULL and the event has no value for it",
	mapping.CodeUnrecognized:     "no source of any column is in the event: its row would hold nothing of it",
	mapping.CodeFilterFailed:     "the blueprint's filter could not be evaluated for this event",
	mapping.CodeExpressionFailed: "an expression of the blueprint could not be evaluated for this event, or gave what the column cannot hold",

	zerobus.RefusedSchemaMismatch: "the table refuses the row: a column it lacks, or a value of another type",
	zerobus.RefusedTooLarge:       "the row is larger than one request may be",
	zerobus.RefusedOther:          "the table refuses the row",

	mapping.FilterTombstone:  "the record has no value: a tombstone",
	mapping.FilterConsent:    "the event lacks a consent that mapping.require_consent asks for",
	mapping.FilterDrop:       "the blueprint drops events of this name",
	mapping.FilterExpression: "the blueprint's filter says no to this event",
}
