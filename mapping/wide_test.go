package mapping_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

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
	wire, asJSON := w.check(t, []byte(event.String()))
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(decode(t, w.desc, wire.rows[0]).Interface())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(wire.rows[0], again) {
		t.Error("the row is not what protobuf's own library writes, fields in the order of their numbers")
	}
	var row map[string]any
	if err := json.Unmarshal(asJSON.rows[0], &row); err != nil {
		t.Fatal(err)
	}
	if len(row) != columns {
		t.Errorf("got %d columns, want %d", len(row), columns)
	}
}
