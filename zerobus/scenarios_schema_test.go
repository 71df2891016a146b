package zerobus_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// schemaScenarios are about the columns in Unity Catalog, the descriptor
// that is made of them, and rows that do not fit.
func schemaScenarios(t *testing.T) {
	// What one side sends the other checks: the emulator opens no
	// stream for a descriptor that does not go with its columns, and reads the
	// rows by it.
	for _, tt := range []struct{ name, ddl, row string }{
		{"scalars", `s STRING NOT NULL, v VARCHAR(9), c CHAR(3), ti TINYINT, si SMALLINT, i INT, l BIGINT, f FLOAT, d DOUBLE,
			b BOOLEAN, bin BINARY, dt DATE, ts TIMESTAMP, tz TIMESTAMP_NTZ, de DECIMAL(10,2), va VARIANT`,
			`{"s":"text","v":"nine","c":"abc","ti":-1,"si":300,"i":70000,"l":"9007199254740993","f":1.5,"d":0.1,
			"b":true,"bin":"AAEC","dt":20000,"ts":"1760000000000000","tz":"1760000000000000","de":"12.34","va":"{\"a\":[1]}"}`},
		{"nested", `id STRING, ctx STRUCT<ip: STRING, geo: STRUCT<lat: DOUBLE NOT NULL, tags: ARRAY<STRING>>>, items ARRAY<STRUCT<sku: STRING, n: INT>>, xs ARRAY<BIGINT>`,
			`{"id":"x","ctx":{"ip":"::1","geo":{"lat":1.5,"tags":["a","b"]}},"items":[{"sku":"q","n":1},{"n":2}],"xs":["1","2"]}`},
		{"maps", `m MAP<STRING,STRING>, counts MAP<STRING,BIGINT>, things MAP<INT,STRUCT<v: STRING>>`,
			`{"m":{"a":"b"},"counts":{"x":"3"},"things":{"7":{"v":"w"}}}`},
	} {
		scenario(t, "descriptor_from_columns/"+tt.name, func(t *testing.T) {
			s := staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (" + tt.ddl + ") USING DELTA;"}, nil)
			write(t, s.bench, [][]byte{encoded(t, s, tt.row)})
			s.opened(t, "PROTO")
			s.same(t, tt.row)
		})
	}
	for _, tt := range []struct{ name, columns, want string }{
		{"reserved_numbers", `{"name":"a","position":0,"type_text":"string"},{"name":"b","position":18999,"type_text":"string"}`, "19000 to 19999"},
		{"duplicate_positions", `{"name":"a","position":0,"type_text":"string"},{"name":"b","position":0,"type_text":"string"}`, "both at position 0"},
		{"bad_names", `{"name":"page title","position":0,"type_text":"string"}`, "page title"},
	} {
		for format, err := range map[string]string{zerobus.FormatProtobuf: tt.want, zerobus.FormatAuto: ""} {
			scenario(t, "descriptor_from_columns/"+tt.name+"/"+format, func(t *testing.T) {
				s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.RecordFormat = format })
				s.fault(t, emulator.Fault{Endpoint: emulator.EndpointColumns, Effect: emulator.EffectStatus, Status: 200, Body: new(`{"columns":[` + tt.columns + `]}`)})
				cols, read := s.Columns(t.Context())
				if read != nil {
					t.Fatalf("Columns: %v", read)
				}
				got, no := s.Encoding(cols)
				switch {
				case err == "" && (no != nil || got.Format != zerobus.FormatJSON):
					t.Errorf("Encoding = %+v, %v, want json", got, no)
				case err != "" && (!zerobus.IsPermanent(no) || !strings.Contains(no.Error(), err)):
					t.Errorf("Encoding: %v, want a permanent fault that holds %q", no, err)
				}
			})
		}
	}
	scenario(t, "descriptor_from_columns/gaps_and_columns_that_are_none", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointColumns, Effect: emulator.EffectStatus, Status: 200, Body: new(
			`{"columns":[{"name":"late","position":7,"type_text":"bigint"},{"name":"_metadata","position":-1,"type_text":"string"},{"name":"early","position":2,"type_text":"string"}]}`)})
		cols, err := s.Columns(t.Context())
		if err != nil {
			t.Fatalf("Columns: %v", err)
		}
		got, err := s.Encoding(cols)
		if want := map[string]int32{"early": 3, "late": 8}; err != nil || !reflect.DeepEqual(got.Numbers, want) {
			t.Errorf("Encoding = %+v, %v, want the numbers %v", got, err, want)
		}
	})
	// Turning events into rows is not the client's: what a converter would
	// refuse is refused by the service, alone, and its neighbours are kept.
	for _, tt := range []struct{ name, row string }{
		{"missing_required", `{"message_id":"bad"}`},
		{"unknown_keys", `{"message_id":"bad","n":1,"zz":1}`},
		{"nulls_in_arrays", `{"message_id":"bad","n":1,"tags":["a",null]}`},
		{"nulls_in_maps", `{"message_id":"bad","n":1,"props":{"a":null}}`},
		{"trailing_text", `{"message_id":"bad","n":1} x`},
		{"not_json", `{"message_id":`},
	} {
		scenario(t, "json_to_proto/"+tt.name, func(t *testing.T) {
			s := staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (message_id STRING, n BIGINT NOT NULL, tags ARRAY<STRING>, props MAP<STRING,STRING>) USING DELTA;"}, nil)
			s.refusesOne(t, row(0), []byte(tt.row), row(1))
		})
	}
	scenario(t, "json_to_proto/missing_required_in_protobuf", func(t *testing.T) {
		s := formatted(t, zerobus.FormatProtobuf)
		s.refusesOne(t, protoRow(0), protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "bad"), protoRow(1))
	})
}

// refusesOne delivers three rows as a partition does and fails unless the
// second is refused, the others are kept, and nothing else happens.
func (s stage) refusesOne(t *testing.T, batch ...[]byte) {
	t.Helper()
	l := live{Client: s.Client}
	if bad, err := l.deliver(t.Context(), batch); err != nil || fmt.Sprint(bad) != "[1]" {
		t.Errorf("deliver: %v, bad rows %v, want [1]", err, bad)
	}
	s.stored(t, string(row(0)), string(row(1)))
	if len(s.obs.retries) != 0 || s.State().Name != zerobus.Ready {
		t.Errorf("retries are %v and the state %q, want none and ready", s.obs.retries, s.State().Name)
	}
}

// encoded does what start-up does and returns a row, given in the JSON of
// protobuf, in the form the client asks for: protobuf's own encoding of it.
func encoded(t *testing.T, s stage, text string) []byte {
	t.Helper()
	cols, err := s.Columns(t.Context())
	if err != nil {
		t.Fatalf("Columns: %v", err)
	}
	form, err := s.Encoding(cols)
	if err != nil || form.Format != zerobus.FormatProtobuf {
		t.Fatalf("Encoding = %+v, %v, want protobuf", form, err)
	}
	s.SetRowColumns(cols)
	descriptor, err := s.Descriptor(cols)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(resolve(t, descriptor))
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same fails unless the table's only row reads as want, which writes integers
// of 64 bits as protobuf does, in quotes.
func (s stage) same(t *testing.T, want string) {
	t.Helper()
	rows := s.rows()
	if len(rows) != 1 {
		t.Fatalf("%d rows stored, want 1", len(rows))
	}
	if got, want := plain(t, string(rows[0].JSON)), plain(t, want); !reflect.DeepEqual(got, want) {
		t.Errorf("the row reads %v, want %v", got, want)
	}
}

// plain reads JSON with numbers as their text.
func plain(t *testing.T, text string) any {
	t.Helper()
	var v any
	in := json.NewDecoder(strings.NewReader(text))
	in.UseNumber()
	if err := in.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var walk func(any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				v[k] = walk(e)
			}
		case []any:
			for i, e := range v {
				v[i] = walk(e)
			}
		case json.Number:
			return v.String()
		}
		return v
	}
	return walk(v)
}

// stringsRow is a row of STRING columns, all with the same text.
func stringsRow(numbers map[string]int32, text string) []byte {
	var out []byte
	for _, number := range slices.Sorted(maps.Values(numbers)) {
		out = protowire.AppendString(protowire.AppendTag(out, protowire.Number(number), protowire.BytesType), text)
	}
	return out
}
