package mapping_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/datafly/bridge/mapping"
)

// twins is one blueprint compiled for rows in JSON and for rows in protobuf.
type twins struct {
	json, protobuf *mapping.Mapper
	cols           []mapping.Column
	desc           protoreflect.MessageDescriptor
}

// numbered gives columns that have no number those of their places.
func numbered(cols []mapping.Column) []mapping.Column {
	cols = slices.Clone(cols)
	for i := range cols {
		if cols[i].Number == 0 {
			cols[i].Number = int32(i + 1)
		}
		cols[i].Optional = false
	}
	return cols
}

// compileTwins compiles a blueprint twice against the same table: that of the
// options, or the one with the columns the blueprint makes.
func compileTwins(tb testing.TB, b *mapping.Blueprint, o mapping.Options) (*twins, error) {
	tb.Helper()
	if o.Table == nil {
		m, err := b.Compile(o)
		if err != nil {
			return nil, err
		}
		o.Table = m.Columns()
	}
	o.Table = numbered(o.Table)
	asJSON, err := b.Compile(o)
	if err != nil {
		return nil, err
	}
	o.Format = "protobuf"
	asWire, err := b.Compile(o)
	if err != nil {
		return nil, err
	}
	cols := asWire.Columns()
	return &twins{json: asJSON.NewMapper(), protobuf: asWire.NewMapper(), cols: cols, desc: descriptor(tb, cols)}, nil
}

func twinsOf(tb testing.TB, blueprint string, o mapping.Options) *twins {
	tb.Helper()
	b := mapping.Default()
	if blueprint != "" {
		var err error
		if b, err = mapping.Parse("test.yaml", []byte(blueprint)); err != nil {
			tb.Fatal(err)
		}
	}
	w, err := compileTwins(tb, b, o)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

const nullInMap = "has a null inside, which a MAP column cannot hold in protobuf"

// check maps a record both ways: the outcomes must be the same, rows hold the
// same values. It returns the outcomes in protobuf and in JSON.
func (w *twins) check(tb testing.TB, value []byte) (wire, asJSON *outcomes) {
	tb.Helper()
	wire, asJSON = mapOne(w.protobuf, value), mapOne(w.json, value)
	if len(wire.lines) != len(asJSON.lines) {
		tb.Fatalf("%q: got %q, want %q", value, wire.lines, asJSON.lines)
	}
	wireRow, jsonRow := 0, 0
	for i := range wire.lines {
		switch {
		case wire.codes[i] == "row" && asJSON.codes[i] == "row":
			msg := decode(tb, w.desc, wire.rows[wireRow])
			compareRow(tb, w.cols, msg, asJSON.rows[jsonRow])
			wireRow, jsonRow = wireRow+1, jsonRow+1
		case strings.Contains(wire.lines[i], nullInMap): // in JSON the member is left out
			if asJSON.codes[i] == "row" {
				jsonRow++
			}
		case wire.lines[i] != asJSON.lines[i]:
			tb.Errorf("%q: got %s, want %s", value, wire.lines[i], asJSON.lines[i])
		}
	}
	if tb.Failed() {
		tb.Fatalf("%q: got %q, want %q", value, wire.lines, asJSON.lines)
	}
	return wire, asJSON
}

// FuzzProtoRow puts the same event through both formats; what protobuf's own
// library reads from one must be what stands in the other.
func FuzzProtoRow(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	for _, e := range benchEvents(3) {
		f.Add(e)
	}
	for _, s := range []string{`"2026-03-04T09:15:27Z"`, `1772615727482`, `12.50`, `-1e-3`, `"12"`, `-129`, `9007199254740993`, `["a",1,null]`, `["",0,false]`, `[[1,2],[]]`, `{"a":"b","c":null}`, `{"1":2,"-3":"4"}`, `{"true":true}`,
		`"aGk="`, `"\u00e9 \"x\" \\ \/ \b\f\n\r\t"`, `"TRUE"`, `{"n":1,"user_id":"x","inner":{"when":0,"list":[{"k":1},{}]}}`, `{"userId":"\u0061","n":"-1"}`, `{"userId":null,"user_id":"b"}`, `{"n":1,"n":2}`, `{"zz":1}`,
		`{"` + strings.Repeat("k", 200) + `":"` + strings.Repeat("v", 20000) + `"}`, `"` + strings.Repeat(`\n`, 300) + `"`, `[` + strings.Repeat(`"x",`, 200) + `"x"]`} {
		f.Add([]byte(s))
		f.Add([]byte(`[{"x":` + s + `},{"event_name":` + s + `}]`))
	}
	whole := twinsOf(f, "version: 2\nextends: default\nglobal: {mappings: [{source: x, target: x, type: BIGINT, default_value: -1}, {source: x, target: y}]}\n", mapping.Options{ClusterID: "c"})
	single := map[string]*twins{}
	for _, typ := range append([]string{"VARCHAR(5)", "STRUCT<n:INT,user_id:STRING NOT NULL,inner:STRUCT<when:TIMESTAMP,list:ARRAY<STRUCT<k:INT>>>,traits:STRUCT<a_b:STRING>>",
		"MAP<STRING,STRUCT<n:INT,user_id:STRING>>", "MAP<BIGINT,STRING>", "MAP<BOOLEAN,BOOLEAN>", "MAP<DATE,DATE>", "MAP<VARCHAR(3),BINARY>", "MAP<DECIMAL(5,1),DOUBLE>", "ARRAY<STRUCT<k:INT>>", "ARRAY<VARIANT>", "ARRAY<BOOLEAN>", "ARRAY<DOUBLE>", "ARRAY<BINARY>"}, scalarTypes...) {
		single[typ] = twinsOf(f, "version: 2\nglobal: {mappings: [{source: v, target: v, type: '"+typ+"'}]}\n", mapping.Options{Settings: mapping.Settings{Input: "canonical"}})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if data == nil {
			return
		}
		whole.check(t, data)
		event := slices.Concat([]byte(`{"v":`), data, []byte(`}`))
		for _, w := range single {
			w.check(t, event)
		}
	})
}

var scalarTypes = []string{"STRING", "BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(12,3)", "DATE", "TIMESTAMP", "TIMESTAMP_NTZ", "BINARY", "VARIANT"}

// The rows of every golden case in JSON are the rows in protobuf.
func TestGoldenInProtobuf(t *testing.T) {
	rows := 0
	goldenCases(t, func(t *testing.T, c goldenCase) {
		if c.err != nil || c.opts.TimestampFormat == "rfc3339" {
			t.Skip("no rows to compare")
		}
		w, err := compileTwins(t, c.blueprint, c.opts)
		if err != nil {
			t.Skip("no rows to compare: ", err)
		}
		for _, r := range c.records {
			wire, _ := w.check(t, r)
			rows += len(wire.rows)
		}
	})
	if rows < 50 {
		t.Errorf("got %d rows compared, want 50 and more", rows)
	}
}

// A row is appended behind what is in the buffer; a row of NULLs has no bytes.
func TestMessageWithoutFields(t *testing.T) {
	w := twinsOf(t, "version: 2\nglobal: {mappings: [{source: a, target: a}, "+known+"]}\n", mapping.Options{})
	wire, _ := w.check(t, []byte(`{"type":"x"}`))
	if len(wire.rows) != 1 || len(wire.rows[0]) != 0 {
		t.Errorf("got %x, want one row of no bytes", wire.rows)
	}
	if wire, _ = w.check(t, []byte(`{"a":""}`)); !bytes.Equal(wire.rows[0], []byte{0x0a, 0x00}) {
		t.Errorf("got %x, want an empty string that is present", wire.rows[0])
	}
}
