package mapping_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/datafly/bridge/mapping"
)

// seeds are JSON texts good and bad, in the manner of the JSONTestSuite: each
// grammar rule from both sides.
var seeds = []string{
	`{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `"a"`, ` {} `, "\t{}\r\n", `{"a":1}`, `[1,2]`, `{"a":{"b":[{}]}}`,
	`{"a":1e10}`, `{"a":1E+2}`, `{"a":1e-2}`, `{"a":0.5}`, `{"a":-0.0e0}`, `{"a":1e400}`, `{"a":9223372036854775808}`,
	`{"a":01}`, `{"a":-}`, `{"a":-01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":1e+}`, `{"a":0x1}`, `{"a":1_0}`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":-Infinity}`,
	`{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{:1}`, `{"a":1 "b":2}`, `{"a":1;"b":2}`, `{'a':1}`, `{a:1}`, `{"a":1}}`, `{"a":1}{}`, `{"a":1} x`, `{"a":1`, `{"a":`, `{"a"`, `{"a`, `{`, `}`,
	`[1,]`, `[,1]`, `[1 2]`, `[1`, `[`, `]`, `[1]]`, `[[[[]]]]`, `[null,true,false]`, `nul`, `nulll`, `tru`, `truE`, `True`, `fals`, ``, ` `, "\n",
	`"`, `"\"`, `"\\"`, `"\n"`, `"\x"`, `"\u00e9"`, `"\u00E9"`, `"\u00g9"`, `"\u00"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\ude00\ud83d"`, `"\ud83d\u0041"`, `"\ud83d\uffff"`, `"\ud83d\ue000"`, `"\ude00\ude00"`, `"\udfff\udfff"`, `"\ud83dx"`, `"\ud83d\`, `"\ud83d\ud83d\ude00"`, `"\u0000"`, `"\uFFFF"`, `"\uDBFF\uDFFF"`,
	"\"\x00\"", "\"\x1f\"", "\"\x7f\"", "\"a\tb\"", "\"a\nb\"", "\"\x80\"", "\"\xff\"", "\"\xc3\"", "\"\xc3\xa9\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"1234567\xff\"", "\"12345678\"", "\"1234567\"", "\"123456\\n\"", "\"1234567\x1f8\"",
	"\xef\xbb\xbf{}", "\xff", "\x00", "{}\x00", "{\"\xff\":1}", `{"\ud800":1}`, `{"a":1,"a":2}`, `{"x":1,"x":2}`, `/**/{}`, `{}//`, `#`, `{"a":"b"}` + "\v", "\f{}", "\u00a0{}", "{\"a\"\u2028:1}",
	`{"batch":[{"x":1},{"x":"\ud800"}]}`, `[{"x":1},"\ud800"]`, `{"payload":{"x":1}}`, `{"event":{"event":{"x":1}}}`, `{"event_name":"a","x":2}`, `{"batch":[1],"batch":[2]}`, `{"x":"y","type":"t"}`,
	strings.Repeat(`[`, 999) + strings.Repeat(`]`, 999), strings.Repeat(`{"a":`, 1001) + `1` + strings.Repeat(`}`, 1001), strings.Repeat(`[`, 1500),
}

// FuzzScannerAccepts holds what the scanner accepts against jsontext, which
// refuses all that RFC 8259 refuses, invalid UTF-8 and lone surrogates.
func FuzzScannerAccepts(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
		f.Add([]byte(`{"properties":{"k":[` + s + `]},"x":` + s + `}`))
	}
	mapper := mustCompile(f, "version: 2\nglobal: {mappings: [{source: [x, context.page_url, 'y[0]'], target: x}]}\n", mapping.Options{}).NewMapper()
	f.Fuzz(func(t *testing.T, data []byte) {
		if data == nil {
			return
		}
		out := mapOne(mapper, data)
		if len(out.codes) == 0 {
			t.Fatalf("%q: no outcome", data)
		}
		got := true
		for _, c := range out.codes {
			switch c {
			case mapping.CodeTooDeep:
				if depth(data) <= 1000 {
					t.Fatalf("%q: refused as too deep", data)
				}
				return
			case mapping.CodeNotJSON, mapping.CodeInvalidUTF8:
				got = false
			case mapping.CodeEmpty:
				got = got && len(bytes.Trim(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n")) > 0
			}
		}
		if want := accepts(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))); got != want {
			t.Fatalf("%q: got accepted %v, want %v\n%s", data, got, want, strings.Join(out.lines, "\n"))
		}
		for _, row := range out.rows {
			if !accepts(row) {
				t.Fatalf("%q: row %q is not JSON", data, row)
			}
		}
	})
}

// accepts is the oracle. jsontext stops at 10,000 levels; deeper texts do not
// get here, because the scanner stops before.
func accepts(data []byte) bool {
	return jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true))
}

// depth counts the deepest nesting of brackets outside strings.
func depth(data []byte) int {
	deep, now, inside := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			now++
			deep = max(deep, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deep
}

// FuzzValues puts one JSON value through columns of several types and compares
// the results with encoding/json.
func FuzzValues(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	for _, s := range []string{`"2026-03-04T09:15:27Z"`, `1772615727482`, `12.50`, `-1e-3`, `"12"`, `["a",1,null]`, `{"a":"b","c":null}`, `"aGk="`, `"\u00e9 \"x\" \\ \/ \b\f\n\r\t"`, `"TRUE"`} {
		f.Add(s)
	}
	types := []string{"STRING", "VARIANT", "BOOLEAN", "TINYINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(12,3)", "DATE", "TIMESTAMP", "BINARY", "ARRAY<STRING>", "ARRAY<INT>", "MAP<STRING,STRING>", "VARCHAR(5)", "MAP<BIGINT,DATE>", "ARRAY<ARRAY<DOUBLE>>", "STRUCT<a:STRING,b_c:ARRAY<INT>>"}
	mappers := map[string]*mapping.Mapper{}
	for _, typ := range types {
		m := mustCompile(f, fmt.Sprintf("version: 2\nglobal: {mappings: [{source: v, target: v, type: '%s'}, %s]}\n", typ, known), mapping.Options{Settings: mapping.Settings{Input: "canonical"}})
		mappers[typ] = m.NewMapper()
	}
	for _, tr := range []string{"snake_case", "lower", "upper", "trim", "json", "hash_sha256", "to_string", "to_int", "to_float", "to_bool", "split", "join", "date_format"} {
		m := mustCompile(f, "version: 2\nglobal: {mappings: [{source: v, target: v, transform: "+tr+"}, "+known+"]}\n", mapping.Options{Settings: mapping.Settings{Input: "canonical"}})
		mappers[tr] = m.NewMapper()
	}
	f.Fuzz(func(t *testing.T, value string) {
		event := []byte(`{"v":` + value + `}`)
		if !accepts(event) || depth(event) > 1000 {
			return
		}
		var in struct{ V json.RawMessage }
		if err := json.Unmarshal(event, &in); err != nil || !json.Valid([]byte(value)) {
			return // the value closed the object and opened something else
		}
		for name, mapper := range mappers {
			out := mapOne(mapper, event)
			if len(out.rows) != 1 {
				continue
			}
			if !accepts(out.rows[0]) {
				t.Fatalf("%s: %q: row %q is not JSON", name, value, out.rows[0])
			}
			checkValue(t, name, value, out.rows[0])
		}
		if out := mapOne(mappers["STRING"], event); len(out.rows) != 1 {
			t.Fatalf("%q does not fit STRING: %q", value, out.lines)
		}
	})
}

// checkValue compares a column with what encoding/json makes of its source.
func checkValue(t *testing.T, name, value string, row []byte) {
	t.Helper()
	var got struct{ V any }
	if err := json.Unmarshal(row, &got); err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal([]byte(value), &want); err != nil {
		return // 1e400 and the like: encoding/json has no number for them
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(value)); err != nil {
		t.Fatal(err)
	}
	switch name {
	case "STRING", "to_string":
		text, isText := want.(string)
		if !isText {
			text = compact.String()
		}
		if want == nil {
			if got.V != nil {
				t.Fatalf("%q: got %q, want NULL", value, got.V)
			}
			return
		}
		if got.V != text {
			t.Fatalf("%s of %q: got %q, want %q", name, value, got.V, text)
		}
	case "VARIANT":
		if want == nil {
			return
		}
		if got.V != compact.String() {
			t.Fatalf("VARIANT of %q: got %q, want %q", value, got.V, compact.String())
		}
	case "DOUBLE", "BOOLEAN", "TINYINT", "INT":
		if text, ok := want.(string); ok {
			if err := json.Unmarshal([]byte(strings.ToLower(text)), &want); err != nil {
				t.Fatalf("%s took %q", name, value)
			}
		}
		if got.V != want {
			t.Fatalf("%s of %q: got %v, want %v", name, value, got.V, want)
		}
	case "lower", "upper", "trim":
		if text, ok := want.(string); ok {
			apply := map[string]func(string) string{"lower": strings.ToLower, "upper": strings.ToUpper, "trim": strings.TrimSpace}
			if w := apply[name](text); got.V != w {
				t.Fatalf("%s of %q: got %q, want %q", name, value, got.V, w)
			}
		}
	}
}

// FuzzReplace holds mapping.invalid_utf8: replace against encoding/json, which
// puts U+FFFD in the same places.
func FuzzReplace(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	m := mustCompile(f, "version: 2\nglobal: {mappings: [{source: v, target: v}]}\n", mapping.Options{Settings: mapping.Settings{Input: "canonical", InvalidUTF8: "replace"}}).NewMapper()
	f.Fuzz(func(t *testing.T, text []byte) {
		event := append(append([]byte(`{"v":"`), text...), `"}`...)
		var want struct{ V string }
		valid := json.Unmarshal(event, &want) == nil
		out := mapOne(m, event)
		if !valid {
			if len(out.rows) > 0 {
				t.Fatalf("%q: got %q, want a reject", event, out.lines)
			}
			return
		}
		if len(out.rows) != 1 {
			if out.codes[0] == mapping.CodeDuplicateKey {
				return
			}
			t.Fatalf("%q: got %q, want a row", event, out.lines)
		}
		var got struct{ V string }
		if err := json.Unmarshal(out.rows[0], &got); err != nil || !utf8.Valid(out.rows[0]) {
			t.Fatalf("%q: row %q is not JSON: %v", event, out.rows[0], err)
		}
		if got != want && bytes.Count(event, []byte(`"`)) == 4 {
			t.Fatalf("%q: got %q, want %q", event, got.V, want.V)
		}
	})
}

func TestLimitsOfSize(t *testing.T) {
	mapper := defaultMapper(t)
	nested := func(n int) string {
		return `{"message_id":"m","properties":` + strings.Repeat(`[`, n-1) + strings.Repeat(`]`, n-1) + `}`
	}
	for name, tc := range map[string]struct{ value, want string }{
		"1,000 levels":       {nested(1000), "row"},
		"1,001 levels":       {nested(1001), mapping.CodeTooDeep},
		"1,500 levels":       {nested(1500), mapping.CodeTooDeep},
		"200,000 brackets":   {strings.Repeat("[", 200_000), mapping.CodeTooDeep},
		"2,000 siblings":     {`{"message_id":"m","properties":[` + strings.Repeat(`{},[],{"a":[1]},`, 2000) + `0]}`, "row"},
		"9 MiB in a column":  {`{"message_id":"m","user_id":"` + strings.Repeat("é", 9<<19) + `"}`, "row"},
		"9 MiB passed over":  {`{"message_id":"m","properties":{"x":"` + strings.Repeat("x", 9<<20) + `"}}`, "row"},
		"9 MiB, last broken": {`{"message_id":"m","properties":{"x":"` + strings.Repeat("x", 9<<20) + "\x01\"}}", mapping.CodeNotJSON},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mapOne(mapper, []byte(tc.value)).codes; len(got) != 1 || got[0] != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTombstoneEmptyAndBOM(t *testing.T) {
	mapper := defaultMapper(t)
	for name, tc := range map[string]struct {
		value []byte
		want  string
	}{
		"tombstone": {nil, "filter " + mapping.FilterTombstone},
		"no bytes":  {[]byte{}, mapping.CodeEmpty},
		"BOM alone": {[]byte("\xef\xbb\xbf"), mapping.CodeEmpty},
		"BOM":       {[]byte("\xef\xbb\xbf{\"type\":\"x\"}"), "row"},
		"two BOMs":  {[]byte("\xef\xbb\xbf\xef\xbb\xbf{}"), mapping.CodeNotJSON},
		"a NUL":     {[]byte("\x00"), mapping.CodeNotJSON},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mapOne(mapper, tc.value).codes; len(got) != 1 || got[0] != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestInvalidUTF8IsRejectedWhereverItStands(t *testing.T) {
	mapper := defaultMapper(t)
	for _, value := range []string{"{\"user_id\":\"a\xffb\"}", "{\"unread\":\"\xc3\"}", "{\"\xff\":1}", "{\"properties\":{\"a\":[\"\xed\xa0\x80\"]}}", "{\"payload\":{\"type\":\"x\",\"u\":\"\xfe\"}}", "\"\xff\""} {
		if got := mapOne(mapper, []byte(value)).codes; len(got) != 1 || got[0] != mapping.CodeInvalidUTF8 {
			t.Errorf("%q: got %q, want %q", value, got, mapping.CodeInvalidUTF8)
		}
	}
	// In a batch it condemns one event.
	got := mapOne(mapper, []byte("[{\"user_id\":\"\xff\"},{\"user_id\":\"fine\"}]")).codes
	if len(got) != 2 || got[0] != mapping.CodeInvalidUTF8 || got[1] != "row" {
		t.Errorf("got %q, want the first rejected and the second a row", got)
	}
}

// Keys are compared as numbers up to 16 bytes and as text beyond; a key that
// differs in one byte is another key.
func TestKeysOfEveryLength(t *testing.T) {
	for n := 1; n <= 70; n++ {
		key := strings.Repeat("abcdefghijklmnopqrstuvwxyz", 3)[:n]
		m := mustCompile(t, "version: 2\nglobal: {mappings: [{source: properties."+key+", target: v}, "+known+"]}\n", mapping.Options{}).NewMapper()
		event := func(key string) []byte { return []byte(`{"properties":{"` + key + `":"x"}}`) }
		for _, tc := range []struct{ key, want string }{
			{key, `row {"v":"x"}`},
			{fmt.Sprintf(`\u%04x`, key[0]) + key[1:], `row {"v":"x"}`},
			{key + "a", "row {}"},
			{key[1:], "row {}"},
		} {
			if got := mapOne(m, event(tc.key)).lines[0]; got != tc.want {
				t.Errorf("key %s, event %s: got %s, want %s", key, event(tc.key), got, tc.want)
			}
		}
		for i := range key {
			other := key[:i] + "_" + key[i+1:]
			if got := mapOne(m, event(other)).lines[0]; got != "row {}" {
				t.Errorf("key %s, event %s: got %s, want another key", key, event(other), got)
			}
		}
	}
}
