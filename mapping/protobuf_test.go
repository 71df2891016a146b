package mapping_test

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

func TestProtobufProblems(t *testing.T) {
	number := func(n int32, typ string) []mapping.Column {
		return []mapping.Column{{Name: "a", Type: typ, Number: n}, {Name: "b", Type: "INT", Number: 7}}
	}
	for _, tc := range []struct {
		name, want string
		opts       mapping.Options
	}{
		{"format", "did you mean protobuf", mapping.Options{Format: "protobuff"}},
		{"table not known", "need the columns of the table", mapping.Options{}},
		{"times as text", "zerobus.timestamp_format rfc3339 has no place in protobuf", mapping.Options{Table: number(1, "STRING"), TimestampFormat: "rfc3339"}},
		{"no number", "t.yaml:2:21: column a: its number in protobuf would be 0", mapping.Options{Table: number(0, "STRING")}},
		{"reserved number", "would be 19000, but the numbers are 1 to 536870911 without 19000 to 19999", mapping.Options{Table: number(19000, "STRING")}},
		{"large number", "would be 536870912", mapping.Options{Table: number(1<<29, "STRING")}},
		{"number twice", "columns a and b of the table are both number 7", mapping.Options{Table: number(7, "STRING")}},
		{"array in array", "t.yaml:2:21: column a: protobuf cannot hold ARRAY inside an ARRAY (ARRAY<ARRAY<INT>>); make it VARIANT", mapping.Options{Table: number(1, "ARRAY<ARRAY<INT>>")}},
		{"map in array", "cannot hold MAP inside an ARRAY", mapping.Options{Table: number(1, "ARRAY<MAP<STRING,INT>>")}},
		{"array in map", "cannot hold ARRAY inside a MAP", mapping.Options{Table: number(1, "MAP<STRING,ARRAY<INT>>")}},
		{"map in map", "cannot hold MAP inside a MAP", mapping.Options{Table: number(1, "MAP<STRING,MAP<STRING,INT>>")}},
		{"key of floats", "cannot hold a MAP with DOUBLE keys", mapping.Options{Table: number(1, "MAP<DOUBLE,INT>")}},
		{"key of bytes", "cannot hold a MAP with BINARY keys", mapping.Options{Table: number(1, "MAP<BINARY,INT>")}},
		{"deep inside", "column a: field x: field y: protobuf cannot hold ARRAY inside a MAP", mapping.Options{Table: number(1, "STRUCT<x:ARRAY<STRUCT<y:MAP<STRING,ARRAY<INT>>>>>")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := mapping.Parse("t.yaml", []byte("version: 2\nglobal: {mappings: [{source: a, target: a}]}\n"))
			if err != nil {
				t.Fatal(err)
			}
			if tc.opts.Format == "" {
				tc.opts.Format = "protobuf"
			}
			_, err = b.Compile(tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

// A column that no protobuf field can hold does no harm while nothing fills it.
func TestColumnsProtobufCannotHoldStayNull(t *testing.T) {
	m := mustCompile(t, "version: 2\nglobal: {mappings: [{source: a, target: a}]}\n", mapping.Options{Format: "protobuf", Table: []mapping.Column{
		{Name: "a", Type: "STRING", Number: 1}, {Name: "event_type", Type: "STRING", Number: 2}, {Name: "x", Type: "ARRAY<ARRAY<INT>>", Number: 3}, {Name: "y", Type: "INT", Number: 19001}, {Name: "z", Type: "INTERVAL DAY", Number: 5}}})
	got := mapOne(m.NewMapper(), []byte(`{"event_type":"t","a":"b","x":[[1]],"y":2,"z":3}`))
	if want := "\x0a\x01b\x12\x01t"; len(got.rows) != 1 || string(got.rows[0]) != want {
		t.Errorf("got %q, want %q", got.lines, want)
	}
}

// Explain shows JSON whatever the format, and rejects what the format rejects.
func TestExplainOfProtobuf(t *testing.T) {
	w := twinsOf(t, "version: 2\nglobal: {mappings: [{source: a, target: a}, {source: m, target: m, type: 'MAP<STRING,INT>'}]}\n", mapping.Options{})
	got := w.protobuf.Explain(recordAt([]byte(`[{"a":"x","m":{"k":1}},{"m":{"k":null}}]`)))
	if len(got) != 2 || string(got[0].Row) != `{"a":"x","m":{"k":1}}` || got[0].Columns[1].Value != `{"k":1}` {
		t.Errorf("got %+v, want the row in JSON", got)
	}
	if got[1].Code != mapping.CodeTypeMismatch || got[1].Column != "m" {
		t.Errorf("got %+v, want the null in m refused", got[1])
	}
	if wire := mapOne(w.protobuf, []byte(`{"a":"x"}`)); string(wire.rows[0]) != "\x0a\x01x" {
		t.Errorf("got %q after Explain, want protobuf again", wire.rows[0])
	}
}
