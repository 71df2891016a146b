package mapping_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/mapping"
)

func TestBlueprintProblems(t *testing.T) {
	const head = "version: 2\n"
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "b.yaml:1:1: is empty"},
		{"only a comment", "# nothing\n", "b.yaml:1:1: is empty"},
		{"null", "~\n", "is empty"},
		{"a list", "- a\n", "b.yaml:1:1: the blueprint should be a mapping"},
		{"not YAML", "version: 2\n\tx: [\n", "b.yaml:2:1: not valid YAML: "},
		{"two documents", "version: 2\nextends: default\n---\nversion: 2\n", "second document"},
		{"no version", "extends: default\n", "version is missing; write version: 2"},
		{"old version", "version: 1\nextends: default\n", `b.yaml:1:10: version "1" is not read`},
		{"misspelt key", head + "globl: {}\n", `b.yaml:2:1: unknown key "globl" in the blueprint; did you mean global?`},
		{"strange key", head + "zzzzzzzz: {}\n", "the keys are defaults, delivery_mode, description, events, extends, filter, global, name, parameters, version"},
		{"key twice", head + "extends: default\nextends: default\n", `b.yaml:3:1: "extends" is a duplicate`},
		{"unknown base", head + "extends: travel\n", `extends "travel" is not known; a blueprint extends default or retail`},
		{"no name", head + "extends: default\nname: [a]\n", "name should be text"},
		{"no description", head + "extends: default\ndescription:\n", "description should be text"},
		{"client side", head + "extends: default\ndelivery_mode: client_side\n", "only server_side does"},
		{"action", head + "extends: default\ndefaults: {action: dorp}\n", `b.yaml:3:20: action "dorp" is not known; it is forward or drop`},
		{"no column", head, "maps no column"},
		{"mappings not a list", head + "global: {mappings: {a: b}}\n", "global.mappings should be a list"},
		{"item key", head + "global: {mappings: [{sorce: a, target: a}]}\n", `unknown key "sorce" in global.mappings[0]; did you mean source`},
		{"no target", head + "global: {mappings: [{source: a}]}\n", "target is missing"},
		{"no source", head + "global: {mappings: [{target: a}]}\n", "column a has none of source, expression and default_value"},
		{"nested target", head + "global: {mappings: [{source: a, target: consent.ads}]}\n", `target "consent.ads" is nested; name one column`},
		{"target with blank", head + "global: {mappings: [{source: a, target: 'a b'}]}\n", "cannot be a column"},
		{"target twice", head + "global: {mappings: [{source: a, target: x}, {source: b, target: X}]}\n", "column X is mapped twice"},
		{"transform", head + "global: {mappings: [{source: a, target: a, transform: snakecase}]}\n", "did you mean snake_case"},
		{"transform in list", head + "global: {mappings: [{source: a, target: a, transform: [trim, uper]}]}\n", "did you mean upper"},
		{"format", head + "global: {mappings: [{source: a, target: a, transform: date_format, format: epoch_micro}]}\n", "did you mean epoch_micros"},
		{"format alone", head + "global: {mappings: [{source: a, target: a, format: date}]}\n", "format belongs to transform: date_format"},
		{"separator alone", head + "global: {mappings: [{source: a, target: a, separator: x}]}\n", "separator belongs to transform: split or join"},
		{"type", head + "global: {mappings: [{source: a, target: a, type: STRNG}]}\n", "did you mean STRING?"},
		{"struct without fields", head + "global: {mappings: [{source: a, target: a, type: 'STRUCT<>'}]}\n", "a field of the STRUCT has no name"},
		{"struct without types", head + "global: {mappings: [{source: a, target: a, type: STRUCT}]}\n", "STRUCT needs types in angle brackets"},
		{"struct field twice", head + "global: {mappings: [{source: a, target: a, type: 'STRUCT<a:INT,A:INT>'}]}\n", "field A occurs twice"},
		{"struct field name", head + "global: {mappings: [{source: a, target: a, type: 'STRUCT<`a b`:INT>'}]}\n", `"a b" cannot be a field for Zerobus`},
		{"struct field type", head + "global: {mappings: [{source: a, target: a, type: 'STRUCT<a:ARRAY<STRNG>>'}]}\n", "STRNG is not one of"},
		{"open struct", head + "global: {mappings: [{source: a, target: a, type: 'STRUCT<a:INT'}]}\n", "STRUCT is not closed where it should be, at character 13"},
		{"more after the type", head + "global: {mappings: [{source: a, target: a, type: 'INT NOT NULL'}]}\n", "nothing should follow INT"},
		{"too deep", head + "global: {mappings: [{source: a, target: a, type: '" + strings.Repeat("ARRAY<", 17) + "INT" + strings.Repeat(">", 17) + "'}]}\n", "nested deeper than 16"},
		{"map key", head + "global: {mappings: [{source: a, target: a, type: 'MAP<STRUCT<a:INT>,INT>'}]}\n", "the key of a MAP cannot be STRUCT"},
		{"map of one", head + "global: {mappings: [{source: a, target: a, type: 'MAP<STRING>'}]}\n", "MAP is not closed where it should be"},
		{"decimal", head + "global: {mappings: [{source: a, target: a, type: 'DECIMAL(39,2)'}]}\n", "precision of 1 to 38"},
		{"varchar", head + "global: {mappings: [{source: a, target: a, type: 'VARCHAR(x)'}]}\n", "is not VARCHAR(length)"},
		{"kafka source", head + "global: {mappings: [{source: $kafka.topics, target: a}]}\n", "did you mean $kafka.topic"},
		{"other source", head + "global: {mappings: [{source: $env.HOME, target: a}]}\n", "is not one of $kafka.topic"},
		{"bad path", head + "global: {mappings: [{source: a..b, target: a}]}\n", "empty step"},
		{"open path", head + "global: {mappings: [{source: 'a[0', target: a}]}\n", "[ without ]"},
		{"index first", head + "global: {mappings: [{source: '[0].a', target: a}]}\n", "begins with an index"},
		{"path too wide", head + "global: {mappings: [{source: a_b.a_b.a_b.a_b.a_b.a_b.a_b, target: a}]}\n", "more than 64 ways"},
		{"literal", head + "global: {mappings: [{target: a, default_value: [1]}]}\n", "default_value should be one text"},
		{"odd number", head + "global: {mappings: [{target: a, default_value: 0x10}]}\n", "is not a number JSON can carry"},
		{"value_map", head + "global: {mappings: [{source: a, target: a, value_map: x}]}\n", "value_map should map values"},
		{"value_map without source", head + "global: {mappings: [{target: a, default_value: 1, value_map: {a: b}}]}\n", "value_map needs a source"},
		{"removed with default", head + "extends: default\nglobal: {mappings: [{source: null, target: a, default_value: 1}]}\n", "leave source out for a constant"},
		{"optional", head + "global: {mappings: [{source: a, target: a, optional: maybe}]}\n", "optional should be true or false"},
		{"event key", head + "extends: default\nevents: {page: {enable: false}}\n", `unknown key "enable" in events.page; did you mean enabled`},
		{"vendor name", head + "extends: default\nevents: {page: {vendor_event_name: page_view}}\n", "{target: event_name, default_value: page_view}"},
		{"enrichments", head + "extends: default\nglobal: {enrichments: [{a: b}]}\n", "global.enrichments is not read"},
		{"merge key", head + "x: &x {a: 1}\nglobal:\n  <<: *x\n", "merge keys (<<) are not read"},
		{"filter with one equals sign", head + "extends: default\nfilter: type = 1\n", "at character 6 of the expression; to compare, write =="},
		{"filter syntax", head + "extends: default\nfilter: type ==\n", "b.yaml:3:9: filter: unexpected token EOF"},
		{"filter kind", head + "extends: default\nfilter: true\n", "filter should be an expression in text"},
		{"filter not boolean", head + "extends: default\nfilter: len(event)\n", "filter: expected bool"},
		{"filter reads nothing", head + "extends: default\nfilter: 1 == 1\n", "reads nothing of the event"},
		{"filter function", head + "extends: default\nfilter: system(type)\n", "system"},
		{"filter event twice", head + "extends: default\nfilter: event == 'x' and event.type == 'y'\n", "write the paths without event"},
		{"filter now", head + "extends: default\nfilter: now().Unix() > timestamp\n", "now"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := mapping.Parse("b.yaml", []byte(tc.text))
			if err == nil {
				t.Fatalf("got no error, want %q", tc.want)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want %q in it", err, tc.want)
			}
			var p *mapping.Problem
			if !errors.As(err, &p) || p.Line < 1 || p.Col < 1 || p.File != "b.yaml" {
				t.Errorf("got %#v, want a place in the file", p)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := mapping.Parse("b.yaml", []byte(`version: 3
globl: {}
global:
  mappings:
    - {source: a, target: a, transform: nope}
    - {source: b, target: b.c}
`))
	for _, want := range []string{"b.yaml:1:10: ", "b.yaml:2:1: ", "b.yaml:5:41: ", "b.yaml:6:27: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got\n%v\nwant a problem at %s", err, want)
		}
	}
}

func TestJSONBlueprint(t *testing.T) {
	m := mustCompile(t, "{\n\t\"version\": 2,\n\t\"global\": {\"mappings\": [\n\t\t{\"source\": \"a\", \"target\": \"a\"}\n\t]}\n}\n", mapping.Options{})
	if got := mapOne(m.NewMapper(), []byte(`{"a":"b"}`)).lines; !slices.Equal(got, []string{`row {"a":"b"}`}) {
		t.Errorf("got %q", got)
	}
}

// Signal's own form of the default blueprint, with the keys the bridge takes
// note of and does not need.
func TestSignalForm(t *testing.T) {
	m := mustCompile(t, `version: 2
delivery_mode: server_side
parameters: {catalog: datafly, schema: events}
global:
  mappings:
    - {source: event, target: event_name}
    - {source: event.user_id, target: user_id}
    - {source: timestamp, target: event_timestamp, transform: date_format, format: epoch_micros}
  enrichments: []
  transforms: []
defaults: {action: pass, mappings: []}
events:
  page: {enabled: true, mappings: [{source: context.page.title, target: page_title}]}
`, mapping.Options{})
	got := mapOne(m.NewMapper(), []byte(`{"type":"page","event":"Page Viewed","userId":"u","timestamp":1772615727,"context":{"page":{"title":"T"}}}`)).lines
	want := `row {"event_name":"Page Viewed","user_id":"u","event_timestamp":1772615727000000,"page_title":"T"}`
	if !slices.Equal(got, []string{want}) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDefaultColumns(t *testing.T) {
	m := mustCompile(t, "", mapping.Options{})
	var got []string
	for _, c := range m.Columns() {
		got = append(got, c.Name+" "+c.Type)
	}
	want := []string{"event_name STRING", "event_type STRING", "message_id STRING", "user_id STRING", "anonymous_id STRING", "event_timestamp TIMESTAMP", "ip_address STRING",
		"user_agent STRING", "locale STRING", "timezone STRING", "page_url STRING", "page_referrer STRING", "source_id STRING"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := m.OmittedColumns(); !slices.Equal(got, []string{"page_title", "search_query"}) {
		t.Errorf("got omitted %q, want page_title and search_query", got)
	}
	if m.UsesHeaders() {
		t.Error("the built-in blueprint reads no headers")
	}
	if !mustCompile(t, "version: 2\nglobal: {mappings: [{source: $kafka.headers.a, target: a}]}\n", mapping.Options{}).UsesHeaders() {
		t.Error("a blueprint with $kafka.headers reads headers")
	}
}

// Optional columns follow the table where it is known; AllOptional is for tools
// that have none.
func TestOptionalColumns(t *testing.T) {
	b, err := mapping.Parse("t.yaml", []byte("version: 2\nglobal: {mappings: [{source: a, target: a}, {source: b, target: b, optional: true}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	has, lacks := []mapping.Column{{Name: "a", Type: "STRING"}, {Name: "B", Type: "INT"}}, []mapping.Column{{Name: "a", Type: "STRING"}}
	for _, tc := range []struct {
		name, want string
		opts       mapping.Options
	}{
		{"unknown", "a", mapping.Options{}},
		{"unknown, all", "a b", mapping.Options{AllOptional: true}},
		{"has it", "a B", mapping.Options{Table: has}},
		{"lacks it", "a", mapping.Options{Table: lacks}},
		{"lacks it, all", "a", mapping.Options{Table: lacks, AllOptional: true}},
	} {
		m, err := b.Compile(tc.opts)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var names []string
		for _, c := range m.Columns() {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%s: got columns %s, want %s", tc.name, got, tc.want)
		}
		if got := len(m.OmittedColumns()); got != 2-len(names) {
			t.Errorf("%s: got %d columns omitted, want %d", tc.name, got, 2-len(names))
		}
	}
}

func TestCompileProblems(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		opts       mapping.Options
		want       string
	}{
		{"input", "", mapping.Options{Settings: mapping.Settings{Input: "canonicl"}}, `mapping.input "canonicl" must be one of auto, canonical, mapped; did you mean canonical?`},
		{"utf8", "", mapping.Options{Settings: mapping.Settings{InvalidUTF8: "ignore"}}, "mapping.invalid_utf8"},
		{"fallback", "", mapping.Options{Settings: mapping.Settings{TimestampFallback: "now"}}, "mapping.timestamp_fallback"},
		{"bad timestamp", "", mapping.Options{Settings: mapping.Settings{OnBadTimestamp: "null"}}, "mapping.on_bad_timestamp"},
		{"format", "", mapping.Options{TimestampFormat: "millis"}, "mapping.timestamp_format"},
		{"consent", "", mapping.Options{Settings: mapping.Settings{OnMissingConsent: "deny"}}, "mapping.on_missing_consent"},
		{"category", "", mapping.Options{Settings: mapping.Settings{RequireConsent: []string{""}}}, "empty category"},
		{"default of wrong type", "version: 2\nglobal: {mappings: [{source: a, target: a, type: INT, default_value: none}]}\n", mapping.Options{}, "t.yaml:2:70: default_value: a string for column a (INT) holds no number"},
		{"value of wrong type", "version: 2\nglobal: {mappings: [{source: a, target: a, type: TINYINT, value_map: {x: 300}}]}\n", mapping.Options{}, "value_map: a number for column a (TINYINT) is beyond"},
		{"two types", "version: 2\nglobal: {mappings: [{source: a, target: a, type: INT}]}\nevents: {x: {mappings: [{source: a, target: a, type: DATE}]}}\n", mapping.Options{}, "column a is DATE here and INT in line 2"},
		{"two implied types", "version: 2\nglobal: {mappings: [{source: a, target: a, transform: to_int}]}\nevents: {x: {mappings: [{source: a, target: a}]}}\n", mapping.Options{}, "comes out as STRING here and as BIGINT in line 2"},
		{"struct differs", "version: 2\nglobal: {mappings: [{source: a, target: a, type: 'STRUCT<x:INT,y:INT>'}]}\n", mapping.Options{Table: []mapping.Column{{Name: "a", Type: "STRUCT<x:INT>"}}}, "column a is STRUCT<x:INT,y:INT> here and STRUCT<x:INT> in the table; write type: STRUCT<x:INT>"},
		{"unknown type in table", "version: 2\nglobal: {mappings: [{source: a, target: a}]}\n", mapping.Options{Table: []mapping.Column{{Name: "a", Type: "INTERVAL DAY"}}}, "column a of the table: type \"INTERVAL DAY\": INTERVAL DAY is not one of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := mapping.Default()
			if tc.text != "" {
				var err error
				if b, err = mapping.Parse("t.yaml", []byte(tc.text)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := b.Compile(tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	m := mustCompile(t, `version: 2
extends: default
global:
  mappings:
    - {target: pipeline, default_value: web}
    - {source: plan, target: plan, value_map: {none: null}}
    - {source: n, target: n, type: INT}
`, mapping.Options{})
	got := m.NewMapper().Explain(recordAt([]byte(`[{"type":"page","userId":"u","user_id":null,"context":{"userAgent":"UA","ip":null},"plan":"none"},{"n":"x"},7]`)))
	if len(got) != 3 || got[0].Outcome != "row" || got[1].Outcome != "reject" || got[2].Outcome != "reject" {
		t.Fatalf("got %+v, want a row and two rejects", got)
	}
	if got[0].Section != "page" || got[0].Shape != "event" || !strings.Contains(string(got[0].Row), `"user_id":"u"`) {
		t.Errorf("got %+v", got[0])
	}
	columns := map[string]mapping.ExplainedColumn{}
	for _, c := range got[0].Columns {
		columns[c.Name] = c
	}
	for name, want := range map[string]mapping.ExplainedColumn{
		"user_id":    {Name: "user_id", Type: "STRING", Value: `"u"`, Source: "userId"},
		"user_agent": {Name: "user_agent", Type: "STRING", Value: `"UA"`, Source: "context.userAgent"},
		"ip_address": {Name: "ip_address", Type: "STRING", Why: "explicit null at context.ip"},
		"source_id":  {Name: "source_id", Type: "STRING", Why: "no source present: source_id, sourceId, context.source_id, context.sourceId, pipeline_id, pipelineId"},
		"pipeline":   {Name: "pipeline", Type: "STRING", Value: `"web"`, Source: "default_value"},
		"plan":       {Name: "plan", Type: "STRING", Source: "plan", Why: "value_map makes it NULL"},
	} {
		if columns[name] != want {
			t.Errorf("got %+v, want %+v", columns[name], want)
		}
	}
	if got[1].Code != mapping.CodeTypeMismatch || got[1].Column != "n" || got[1].Reason == "" {
		t.Errorf("got %+v, want a mismatch in n", got[1])
	}
	if got[2].Code != mapping.CodeNotObject {
		t.Errorf("got %+v, want not_object", got[2])
	}
	if filtered := m.NewMapper().Explain(recordAt(nil)); len(filtered) != 1 || filtered[0].Outcome != "filter" || filtered[0].Code != mapping.FilterTombstone {
		t.Errorf("got %+v, want a tombstone", filtered)
	}
}

// A Mapping is shared; each goroutine has its own Mapper. Run with -race.
func TestMappersShareAMapping(t *testing.T) {
	m := mustCompile(t, "version: 2\nextends: default\nfilter: properties.skip != true\n", mapping.Options{})
	events := benchEvents(20)
	var wg sync.WaitGroup
	results := make([]*outcomes, 4)
	for i := range results {
		wg.Go(func() {
			mapper, out := m.NewMapper(), &outcomes{}
			for _, e := range events {
				mapper.Map(recordAt(e), out)
			}
			results[i] = out
		})
	}
	wg.Wait()
	for i, r := range results {
		if !slices.Equal(r.lines, results[0].lines) {
			t.Errorf("mapper %d differs from the first", i)
		}
	}
}

// Codes and reasons are metric labels: what Map hands out must be listed.
func TestEveryOutcomeIsListed(t *testing.T) {
	m := mustCompile(t, "version: 2\nextends: default\nfilter: (drop ?? 1) > 0\nglobal: {mappings: [{source: n, target: n, type: INT}]}\nevents: {off: {enabled: false}}\n", mapping.Options{Settings: mapping.Settings{RequireConsent: []string{"analytics"}}}).NewMapper()
	required := mustCompile(t, "version: 2\nglobal: {mappings: [{source: n, target: n}, {source: m, target: m}]}\n", mapping.Options{Table: []mapping.Column{{Name: "n", Type: "INT", NotNull: true}, {Name: "m", Type: "INT"}}}).NewMapper()
	seen := map[string]bool{}
	for _, s := range []string{" ", "x", "1", strings.Repeat("[", 2000), `{"a":"\ud800"}`, `{"type":1,"type":2}`, `{"n":true}`, `{"n":1e30}`, `{"timestamp":"x"}`, `{"drop":"x"}`, `{"drop":0}`, `{"event":"off"}`, `{"context":{"consent":{"analytics":false}}}`} {
		seen[mapOne(m, []byte(s)).codes[0]] = true
	}
	seen[mapOne(m, nil).codes[0]] = true
	seen[mapOne(required, []byte(`{"m":1}`)).codes[0]] = true
	seen[mapOne(m, []byte("{}")).codes[0]] = true
	seen[mapOne(m, []byte("["+strings.Repeat("1,", 10_000)+"1]")).codes[0]] = true
	expressed := mustCompile(t, "version: 2\nglobal: {mappings: [{expression: n + 1, target: n}]}\n", mapping.Options{}).NewMapper()
	seen[mapOne(expressed, []byte(`{"n":"x"}`)).codes[0]] = true
	for _, c := range mapping.RejectCodes() {
		if !seen[c] {
			t.Errorf("code %s is listed and never handed out", c)
		}
		delete(seen, c)
	}
	for _, c := range mapping.FilterReasons() {
		if !seen["filter "+c] {
			t.Errorf("reason %s is listed and never handed out", c)
		}
		delete(seen, "filter "+c)
	}
	for c := range seen {
		t.Errorf("%s is handed out and not listed", c)
	}
}

// FuzzBlueprint holds Parse, and Compile and Map after it, to not panicking.
func FuzzBlueprint(f *testing.F) {
	for _, name := range mapping.Builtins() {
		text, _ := mapping.Builtin(name)
		f.Add(text)
	}
	for _, s := range []string{"version: 2\nextends: default\n", "a: &a [*a]\n", "version: 2\nglobal: {mappings: [{source: ['a.b[0]', $kafka.key], target: a, type: 'MAP<STRING,DECIMAL(3,1)>', default_value: null}]}\n",
		"version: 2\nfilter: a.b?.c['d'] in [1, 2] or any(items, .x > 1)\nglobal: {mappings: [{source: a, target: a, transform: [split, join], separator: ''}]}\n",
		"version: 2\nevents: {a: {mappings: [{source: a, target: a, value_map: {x: 1, '*': null}}]}}\ndefaults: {action: drop}\n", "!!binary x", "? {a: b}\n: c\n", "{\"version\":2}", "version: 2\n<<: {a: b}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := mapping.Parse("fuzz.yaml", text)
		if err != nil {
			return
		}
		m, err := b.Compile(mapping.Options{})
		if err != nil {
			return
		}
		for _, event := range []string{`{"type":"page","event":"a","a":{"b":[{"c":1}]},"x":"y"}`, `{"event_name":"a","a":[1,"2",null]}`} {
			out := mapOne(m.NewMapper(), []byte(event))
			for _, row := range out.rows {
				if !accepts(row) {
					t.Fatalf("%q: row %q is not JSON", text, row)
				}
			}
		}
	})
}
