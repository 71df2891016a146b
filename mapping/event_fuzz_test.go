package mapping_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/datafly/bridge/mapping"
)

// FuzzRecord maps a whole record, key and header included, by blueprints that
// read all of it. Every event has one outcome, the same each time.
// A row is strict JSON of a bounded size, and no reason repeats event data.
func FuzzRecord(f *testing.F) {
	for _, e := range benchEvents(2) {
		f.Add("events", []byte("key"), "tenant", []byte("acme"), e)
	}
	for _, s := range seeds {
		f.Add("events", []byte(nil), "", []byte(nil), []byte(s))
	}
	f.Add("t", []byte{0xff, 0xfe}, "tenant", []byte{0xed, 0xa0, 0x80}, []byte(`{"type":"page","extra":{"a":[1,"2"]}}`))
	f.Add("t", []byte(`"\`), "tenant", []byte("line\nbreak\x00"), []byte(`{"batch":[{"type":"x"},1,{"event":"y"}]}`))
	f.Add("t", []byte(nil), "", []byte(nil), []byte(`{"context":{"ip":"1","page":{"url":"u"},"consent":{"analytics":true}},"batch":[{"type":"x","context":{"page":{"title":"\u00e9"},"ip":null}},{"payload":{"type":"y"},"context":{"consent":"denied"}}]}`))
	const wide = "version: 2\nextends: default\nglobal: {mappings: [{source: $kafka.key, target: k}, {source: $kafka.headers.tenant, target: h}, " +
		"{source: $kafka.topic, target: t}, {source: $kafka.timestamp, target: at, type: TIMESTAMP}, {source: extra, target: extra, transform: json}, {source: context, target: context, type: VARIANT}, " +
		"{source: [$kafka.headers.tenant, user_id], target: id, transform: [trim, lower, hash_sha256]}]}\n"
	mappers := map[string][2]*mapping.Mapper{}
	for name, o := range map[string]mapping.Options{"reject": {ClusterID: "c"}, "replace": {ClusterID: "c", Settings: mapping.Settings{InvalidUTF8: "replace"}}, "mapped": {Settings: mapping.Settings{Input: "mapped"}}, "consent": {Settings: mapping.Settings{RequireConsent: []string{"analytics"}}}} {
		m := mustCompile(f, wide, o)
		mappers[name] = [2]*mapping.Mapper{m.NewMapper(), m.NewMapper()}
	}
	legal := regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`) // brokers hold topics to it
	f.Fuzz(func(t *testing.T, topic string, key []byte, header string, headerValue, value []byte) {
		if !legal.MatchString(topic) {
			return
		}
		rec := &mapping.Record{Topic: topic, Partition: 1, Offset: 7, Timestamp: time.Unix(1772615727, 0), Key: key, Value: value,
			Headers: []mapping.Header{{Key: header, Value: headerValue}}}
		before := slices.Clone(value)
		for name, pair := range mappers {
			var first, second outcomes
			pair[0].Map(rec, &first)
			pair[1].Map(rec, &second)
			if !slices.Equal(first.lines, second.lines) {
				t.Fatalf("%s: got %q, and then %q", name, first.lines, second.lines)
			}
			if len(first.codes) == 0 {
				t.Fatalf("%s: the record has no outcome", name)
			}
			for i, row := range first.rows {
				if !accepts(row) || !utf8.Valid(row) || row[0] != '{' {
					t.Errorf("%s: row %d is not a strict JSON object: %q", name, i, row)
				}
				// Escapes may grow a byte sixfold, and a text may stand in
				// several columns.
				if most := 8<<10 + 64*(len(value)+len(key)+len(headerValue)+len(topic)); len(row) > most {
					t.Errorf("%s: a row of %d bytes from an event of %d", name, len(row), len(value))
				}
			}
			rows := 0
			for i, line := range first.lines {
				switch code := first.codes[i]; {
				case code == "row":
					rows++
				case strings.HasPrefix(code, "filter "):
					if !slices.Contains(mapping.FilterReasons(), strings.TrimPrefix(code, "filter ")) {
						t.Errorf("%s: %s is not a reason", name, code)
					}
				case !slices.Contains(mapping.RejectCodes(), code):
					t.Errorf("%s: %s is not a code", name, code)
				case len(line) > 600 || !utf8.ValidString(line):
					t.Errorf("%s: got %q, want a short reason in UTF-8", name, line)
				default:
					repeats(t, name, line, value)
				}
			}
			if rows != len(first.rows) {
				t.Errorf("%s: %d rows in %d outcomes", name, len(first.rows), rows)
			}
		}
		if !bytes.Equal(before, value) {
			t.Errorf("the event was written to: %q is now %q", before, value)
		}
	})
}

// repeats fails if a reason holds a word of the event that is long enough to be
// somebody's, and that a reason would not have anyway.
func repeats(t *testing.T, name, reason string, event []byte) {
	t.Helper()
	for _, word := range bytes.FieldsFunc(event, func(r rune) bool { return strings.ContainsRune("\"{}[]:, \t\n\r\\/._-", r) }) {
		if len(word) >= 24 && strings.Contains(reason, string(word)) {
			t.Errorf("%s: %q of the event is in the reason %q", name, word, reason)
		}
	}
}
