package mapping_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// TestTwoThousandColumns fills as many columns as a table for Zerobus may have,
// of every type, with numbers of one to five bytes, and reads them back.
func TestTwoThousandColumns(t *testing.T) {
	kinds := []struct{ typ, value string }{
		{"STRING", `"v\u00e9"`}, {"BOOLEAN", `true`}, {"TINYINT", `-8`}, {"SMALLINT", `300`}, {"INT", `-70000`}, {"BIGINT", `9007199254740993`}, {"FLOAT", `0.1`}, {"DOUBLE", `-2.5e-3`},
		{"DECIMAL(10,2)", `12.50`}, {"DATE", `"2026-03-04"`}, {"TIMESTAMP", `"2026-03-04T09:15:27.482Z"`}, {"TIMESTAMP_NTZ", `0`}, {"BINARY", `"aGk="`}, {"VARIANT", `{"a":[1]}`},
		{"ARRAY<STRING>", `["a","b"]`}, {"MAP<STRING,BIGINT>", `{"a":1,"b":2}`}, {"STRUCT<a:STRING,b:ARRAY<INT>>", `{"a":"x","b":[1,2]}`}, {"ARRAY<STRUCT<a:INT>>", `[{"a":1},{}]`},
	}
	const columns = 2000
	var blueprint, event strings.Builder
	blueprint.WriteString("version: 2\nglobal:\n  mappings:\n")
	event.WriteString(`{"type":"x","properties":{`)
	var table []mapping.Column
	for i := range columns {
		k := kinds[i%len(kinds)]
		fmt.Fprintf(&blueprint, "    - {source: properties.c%d, target: c%d}\n", i, i)
		if i > 0 {
			event.WriteByte(',')
		}
		fmt.Fprintf(&event, `"c%d":%s`, i, k.value)
		number := int32(i + 1)
		switch {
		case i >= 1900:
			number = 1<<29 - 1 - int32(i-1900) // what remains after many dropped columns, and more
		case i >= 1000:
			number = 19999 + int32(i-999)
		}
		table = append(table, mapping.Column{Name: fmt.Sprintf("c%d", i), Type: k.typ, Number: number})
	}
	event.WriteString("}}")
	w := twinsOf(t, blueprint.String(), mapping.Options{Table: table})
	_, asJSON := w.check(t, []byte(event.String()))
	var row map[string]any
	if err := json.Unmarshal(asJSON.rows[0], &row); err != nil {
		t.Fatal(err)
	}
	if len(row) != columns {
		t.Errorf("got %d columns, want %d", len(row), columns)
	}
}

// FuzzTypes holds the reader of types to not panicking, and to reading again
// what it writes.
func FuzzTypes(f *testing.F) {
	for _, s := range []string{"STRING", "decimal(10, 2)", "DEC", "numeric(3)", "varchar(5)", "char( 2 )", "array<struct<a:int,b:map<string,double>>>", "STRUCT<`a`: STRING NOT NULL COMMENT 'it\\'s', b INT>", "map<date , array<binary>>",
		"STRUCT<>", "ARRAY<", "MAP<STRING>", "INT>", "STRUCT<a:INT,A:INT>", "(", "DECIMAL(", "STRUCT<a:INT COMMENT 'x>", strings.Repeat("ARRAY<", 20) + "INT" + strings.Repeat(">", 20), "STRUCT<not:INT NOT NULL NOT NULL>", "STRUCT<comment:INT>", ""} {
		f.Add(s)
	}
	b, err := mapping.Parse("t.yaml", []byte("version: 2\nglobal: {mappings: [{source: v, target: v}]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := func(typ string) (string, error) {
			m, err := b.Compile(mapping.Options{Table: []mapping.Column{{Name: "v", Type: typ, Number: 1}}})
			if err != nil {
				return "", err
			}
			return m.Columns()[0].Type, nil
		}
		typ, err := read(text)
		if err != nil {
			if !strings.Contains(err.Error(), "type ") || len(err.Error()) > 600 {
				t.Fatalf("%q: got %q, want the type named", text, err)
			}
			return
		}
		again, err := read(typ)
		if err != nil || again != typ {
			t.Fatalf("%q: read as %q, which is read as %q, %v", text, typ, again, err)
		}
		m, err := b.Compile(mapping.Options{Format: "protobuf", Table: []mapping.Column{{Name: "v", Type: typ, Number: 1}}})
		if err != nil {
			if !strings.Contains(err.Error(), "protobuf cannot hold") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if strings.Contains(typ, "_") || strings.Contains(typ, "Struct") || strings.Contains(typ, "Entry") {
			return // names the test's descriptor may give twice
		}
		descriptor(t, m.Columns())
	})
}
