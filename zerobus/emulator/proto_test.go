package emulator_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/datafly/bridge/zerobus/emulator"
)

// everyProtoType is a table all of whose columns protobuf can hold.
const everyProtoType = `CREATE TABLE t.s.types (
  s STRING, vc VARCHAR(3), i8 TINYINT, i16 SMALLINT, i32 INT, i64 BIGINT, f FLOAT, d DOUBLE, b BOOLEAN, bin BINARY,
  dt DATE, ts TIMESTAMP, ntz TIMESTAMP_NTZ, dec DECIMAL(5,2), v VARIANT, arr ARRAY<BIGINT>, words ARRAY<STRING>, m MAP<INT,STRING>,
  st STRUCT<ip: STRING, port: INT NOT NULL>, list ARRAY<STRUCT<k: STRING, n: ARRAY<INT>>>, named MAP<STRING,STRUCT<x: DOUBLE>>
)`

var (
	tString = descriptorpb.FieldDescriptorProto_TYPE_STRING
	tInt32  = descriptorpb.FieldDescriptorProto_TYPE_INT32
	tInt64  = descriptorpb.FieldDescriptorProto_TYPE_INT64
	tFloat  = descriptorpb.FieldDescriptorProto_TYPE_FLOAT
	tDouble = descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	tBool   = descriptorpb.FieldDescriptorProto_TYPE_BOOL
	tBytes  = descriptorpb.FieldDescriptorProto_TYPE_BYTES
	tMsg    = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	tEnum   = descriptorpb.FieldDescriptorProto_TYPE_UINT32 // one that no column takes
	many    = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	single  = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
)

func fieldOf(name string, number int32, t descriptorpb.FieldDescriptorProto_Type, l descriptorpb.FieldDescriptorProto_Label, message string) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{Name: &name, JsonName: &name, Number: &number, Type: &t, Label: &l}
	if message != "" {
		f.TypeName = &message
	}
	return f
}

func entryOf(name string, key, value descriptorpb.FieldDescriptorProto_Type, message string) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{
		Name: &name, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
		Field: []*descriptorpb.FieldDescriptorProto{fieldOf("key", 1, key, single, ""), fieldOf("value", 2, value, single, message)},
	}
}

// typesDescriptor is the descriptor that goes with everyProtoType.
func typesDescriptor() *descriptorpb.DescriptorProto {
	d := &descriptorpb.DescriptorProto{
		Name: proto.String("STypes"),
		NestedType: []*descriptorpb.DescriptorProto{
			entryOf("MEntry", tInt32, tString, ""),
			{Name: proto.String("St"), Field: []*descriptorpb.FieldDescriptorProto{fieldOf("ip", 1, tString, single, ""), fieldOf("port", 2, tInt32, single, "")}},
			{Name: proto.String("List"), Field: []*descriptorpb.FieldDescriptorProto{fieldOf("k", 1, tString, single, ""), fieldOf("n", 2, tInt32, many, "")}},
			{Name: proto.String("Named"), Field: []*descriptorpb.FieldDescriptorProto{fieldOf("x", 1, tDouble, single, "")}},
			entryOf("NamedEntry", tString, tMsg, ".STypes.Named"),
		},
	}
	types := []descriptorpb.FieldDescriptorProto_Type{
		tString, tString, tInt32, tInt32, tInt32, tInt64, tFloat, tDouble, tBool, tBytes, tInt32, tInt64, tInt64, tString, tString,
	}
	for i, name := range strings.Fields("s vc i8 i16 i32 i64 f d b bin dt ts ntz dec v") {
		d.Field = append(d.Field, fieldOf(name, int32(i+1), types[i], single, ""))
	}
	d.Field = append(d.Field,
		fieldOf("arr", 16, tInt64, many, ""), fieldOf("words", 17, tString, many, ""), fieldOf("m", 18, tMsg, many, ".STypes.MEntry"),
		fieldOf("st", 19, tMsg, single, ".STypes.St"), fieldOf("list", 20, tMsg, many, ".STypes.List"), fieldOf("named", 21, tMsg, many, ".STypes.NamedEntry"))
	return d
}

// pageDescriptor goes with the default table.
func pageDescriptor() *descriptorpb.DescriptorProto {
	d := &descriptorpb.DescriptorProto{Name: proto.String("EventsStream")}
	names := strings.Fields("event_name event_type message_id user_id anonymous_id event_timestamp ip_address user_agent locale timezone page_url page_referrer source_id")
	for i, name := range names {
		t := tString
		if name == "event_timestamp" {
			t = tInt64
		}
		d.Field = append(d.Field, fieldOf(name, int32(i+1), t, single, ""))
	}
	return d
}

// resolve makes a descriptor usable with dynamicpb.
func resolve(t testing.TB, d *descriptorpb.DescriptorProto) protoreflect.MessageDescriptor {
	t.Helper()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{d},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// encode makes a record of its JSON form.
func encode(t testing.TB, d protoreflect.MessageDescriptor, text string) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProtobufRowsOfEachType(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: everyProtoType})
	d := resolve(t, typesDescriptor())
	for text, want := range map[string]string{
		`{}`:                                           `{}`,
		`{"s":"\"é😀\n"}`:                               `{"s":"\"é😀\n"}`,
		`{"vc":"äöü","i8":-128}`:                       `{"vc":"äöü","i8":-128}`,
		`{"i16":32767,"i32":-1}`:                       `{"i16":32767,"i32":-1}`,
		`{"i64":"-9223372036854775808"}`:               `{"i64":-9223372036854775808}`,
		`{"f":1.5,"d":1e300,"b":false}`:                `{"f":1.5,"d":1e+300,"b":false}`,
		`{"f":"NaN","d":"-Infinity"}`:                  `{"f":"NaN","d":"-Infinity"}`,
		`{"bin":"AAEC","dt":20000}`:                    `{"bin":"AAEC","dt":20000}`,
		`{"ts":"1760000000000000","ntz":"-1"}`:         `{"ts":1760000000000000,"ntz":-1}`,
		`{"dec":"-123.45","v":"{\"a\":[1]}"}`:          `{"dec":"-123.45","v":"{\"a\":[1]}"}`,
		`{"arr":["1","-2"],"words":["a",""]}`:          `{"arr":[1,-2],"words":["a",""]}`,
		`{"m":{"7":"x"}}`:                              `{"m":{"7":"x"}}`,
		`{"st":{"ip":"::1","port":80}}`:                `{"st":{"ip":"::1","port":80}}`,
		`{"list":[{"k":"a","n":[1,2]},{}],"named":{}}`: `{"list":[{"k":"a","n":[1,2]},{}]}`,
		`{"named":{"a":{"x":0.5}}}`:                    `{"named":{"a":{"x":0.5}}}`,
	} {
		s := z.open(protoCreate(t, "t.s.types", typesDescriptor()))
		s.send(protoBatch(0, encode(t, d, text)))
		s.ack(0)
		got := string(z.Table("t.s.types").Newest(1)[0].JSON)
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
		// The same row is one by JSON, too.
		if r := z.ingest(`{"table":"t.s.types","records":[` + got + `]}`); r.status != 200 {
			t.Errorf("%s as JSON: got %d %s, want it taken", got, r.status, r.body)
		}
		s.cancel()
	}
}

func TestProtobufRowsThatAreRefused(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: everyProtoType})
	d := resolve(t, typesDescriptor())
	raw := func(num protowire.Number, wire protowire.Type, rest ...byte) []byte {
		return append(protowire.AppendTag(nil, num, wire), rest...)
	}
	for name, c := range map[string]struct {
		record []byte
		want   string
	}{
		"VARCHAR too long":          {encode(t, d, `{"vc":"abcd"}`), "field 'vc': is longer than varchar(3)"},
		"TINYINT out of range":      {encode(t, d, `{"i8":128}`), "field 'i8': is out of range for tinyint"},
		"INT beyond 32 bits":        {raw(5, protowire.VarintType, protowire.AppendVarint(nil, 1<<40)...), "field 'i32': is out of range for int"},
		"DECIMAL that does not fit": {encode(t, d, `{"dec":"1.234"}`), "field 'dec': does not fit in decimal(5,2)"},
		"VARIANT that is no JSON":   {encode(t, d, `{"v":"{"}`), "field 'v': got a string that is not JSON text"},
		"invalid UTF-8":             {raw(1, protowire.BytesType, 1, 0xff), "field 's': invalid UTF-8"},
		"wrong wire type":           {raw(1, protowire.VarintType, 1), "field 's': invalid wire type: Varint, expected LengthDelimited"},
		"unknown number":            {raw(99, protowire.VarintType, 1), "unknown field number 99"},
		"a column twice":            {append(encode(t, d, `{"s":"a"}`), encode(t, d, `{"s":"b"}`)...), "field 's': the field occurs twice"},
		"cut short":                 {raw(1, protowire.BytesType, 5, 'a'), "invalid wire format"},
		"no tag":                    {[]byte{0}, "invalid wire format"},
		"NOT NULL inside a STRUCT":  {encode(t, d, `{"st":{"ip":"a"}}`), `field 'st': lacks the NOT NULL field "port"`},
		"group":                     {raw(1, protowire.StartGroupType), "invalid wire type: group"},
	} {
		s := z.open(protoCreate(t, "t.s.types", typesDescriptor()))
		s.send(protoBatch(0, encode(t, d, `{}`), c.record))
		st := s.end()
		wantStatus(t, name, st, codes.InvalidArgument, c.want)
		if !strings.HasPrefix(st.Message(), "Record decoder/encoder error: ") || !strings.HasSuffix(st.Message(), " Error Code: 4044, Error State: 3.") {
			t.Errorf("%s: got %q, want the service's frame around it", name, st.Message())
		}
	}
	if got := z.Table("t.s.types").Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none of the batches", got)
	}
}

func TestDescriptorsAreComparedWithTheColumns(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: `CREATE TABLE a.b.c (id STRING NOT NULL, n INT, tags ARRAY<STRING>, m MAP<STRING,INT>, st STRUCT<x: INT>, aa ARRAY<ARRAY<INT>>)`})
	message := func(fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: proto.String("Row"), Field: fields}
	}
	id := fieldOf("id", 1, tString, single, "")
	for name, c := range map[string]struct {
		d      *descriptorpb.DescriptorProto
		text   string
		causes string
	}{
		"extra field":            {message(id, fieldOf("nope", 2, tString, single, "")), "field 'nope' is not in the table", "FIELD_NOT_IN_TABLE"},
		"other case":             {message(fieldOf("ID", 1, tString, single, "")), "'ID' is not in the table", "FIELD_NOT_IN_TABLE,MISSING_REQUIRED_COLUMN"},
		"NOT NULL missing":       {message(fieldOf("n", 2, tInt32, single, "")), "column 'id' is NOT NULL", "MISSING_REQUIRED_COLUMN"},
		"wrong type":             {message(id, fieldOf("n", 2, tInt64, single, "")), "field 'n' is int64, expected int32 for int", "TYPE_INCOMPATIBLE"},
		"a type no column takes": {message(id, fieldOf("n", 2, tEnum, single, "")), "field 'n' is uint32", "TYPE_INCOMPATIBLE"},
		"repeated scalar":        {message(id, fieldOf("n", 2, tInt32, many, "")), "field 'n' must not be repeated", "TYPE_INCOMPATIBLE"},
		"single array":           {message(id, fieldOf("tags", 3, tString, single, "")), "field 'tags' must be repeated", "TYPE_INCOMPATIBLE"},
		"list for a map":         {message(id, fieldOf("m", 4, tString, many, "")), "field 'm' must be a map", "TYPE_INCOMPATIBLE"},
		"scalar for a struct":    {message(id, fieldOf("st", 5, tString, single, "")), "field 'st' is string, expected message", "TYPE_INCOMPATIBLE"},
		"nested array":           {message(id, fieldOf("aa", 6, tInt32, many, "")), "protobuf cannot hold array<array<int>>", "TYPE_INCOMPATIBLE"},
		"number too high":        {message(id, fieldOf("n", 1<<20, tInt32, single, "")), "has the number 1048576", "TYPE_INCOMPATIBLE"},
		"number twice":           {message(id, fieldOf("n", 1, tInt32, single, "")), "is not a valid message", ""},
	} {
		st := z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", c.d))
		wantStatus(t, name, st, codes.InvalidArgument, c.text)
		var info *errdetails.ErrorInfo
		for _, d := range st.Details() {
			info, _ = d.(*errdetails.ErrorInfo)
		}
		if c.causes == "" {
			if info != nil {
				t.Errorf("%s: got %v, want no ErrorInfo", name, info)
			}
			continue
		}
		want := map[string]string{"causes": c.causes, "error_code": "8001"}
		if info.GetReason() != "SCHEMA_VALIDATION_FAILED" || info.GetDomain() != "zerobus.databricks.com" || !maps.Equal(info.GetMetadata(), want) {
			t.Errorf("%s: got ErrorInfo %v, want causes %s", name, info, c.causes)
		}
	}
	c := jsonCreate("a.b.c")
	c.RecordType = nil // which means PROTO
	wantStatus(t, "no descriptor", z.dialStream("a.b.c").refused(c), codes.InvalidArgument, "descriptor_proto is required")
	c.DescriptorProto = []byte{0xff}
	wantStatus(t, "no descriptor at all", z.dialStream("a.b.c").refused(c), codes.InvalidArgument, "not a serialized")
	// Any part of the columns will do, in any order and under any number.
	s := z.open(protoCreate(t, "a.b.c", message(fieldOf("n", 9, tInt32, single, ""), fieldOf("id", 700, tString, single, ""))))
	s.send(protoBatch(0, encode(t, resolve(t, message(fieldOf("id", 700, tString, single, ""))), `{"id":"x"}`)))
	s.ack(0)
	s.send(protoBatch(1, nil))
	wantStatus(t, "NOT NULL missing from a record", s.end(), codes.InvalidArgument, "field 'id': is NOT NULL and missing")
}

func TestProtobufRowsAreIndexedAndPersisted(t *testing.T) {
	path := t.TempDir() + "/rows.jsonl"
	cfg := emulator.Config{DDL: "CREATE TABLE a.b.c (message_id STRING, n INT); CREATE TABLE a.b.d (message_id BIGINT)", JSONL: path}
	z := startZerobus(t, cfg)
	d := &descriptorpb.DescriptorProto{Name: proto.String("R"), Field: []*descriptorpb.FieldDescriptorProto{fieldOf("message_id", 1, tString, single, ""), fieldOf("n", 2, tInt32, single, "")}}
	s := z.open(protoCreate(t, "a.b.c", d))
	r := resolve(t, d)
	s.send(protoBatch(0, encode(t, r, `{"message_id":"a"}`), encode(t, r, `{"message_id":"b","n":7}`), encode(t, r, `{"message_id":"a"}`)))
	s.ack(0)
	numbers := &descriptorpb.DescriptorProto{Name: proto.String("R"), Field: []*descriptorpb.FieldDescriptorProto{fieldOf("message_id", 1, tInt64, single, "")}}
	s2 := z.open(protoCreate(t, "a.b.d", numbers))
	s2.send(protoBatch(0, encode(t, resolve(t, numbers), `{"message_id":"42"}`), encode(t, resolve(t, numbers), `{"message_id":"42"}`)))
	s2.ack(0)
	check := func(e *emulator.Emulator) {
		t.Helper()
		c, d := e.Table("a.b.c"), e.Table("a.b.d")
		if got := [...]int{c.Count(), c.Distinct("message_id"), d.Distinct("message_id")}; got != [...]int{3, 2, 1} {
			t.Errorf("count, distinct, distinct numbers: got %v, want 3 2 1", got)
		}
		want := [][]emulator.Duplicate{{{Value: "a", Count: 2}}, {{Value: "42", Count: 2}}}
		if got := [][]emulator.Duplicate{c.Duplicates("message_id"), d.Duplicates("message_id")}; !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("duplicates: got %v, want %v", got, want)
		}
		if row := c.Rows(nil)[1]; string(row.JSON) != `{"message_id":"b","n":7}` || row.StreamID != s.id || row.Transport != "grpc" {
			t.Errorf("row: got %+v, want b of stream %s", row, s.id)
		}
	}
	check(z.Emulator)
	s.cancel()
	s2.cancel()
	stop(t, z.workspace)
	check(start(t, cfg).Emulator)
}

// FuzzProtobufRow compares the decoder with google.golang.org/protobuf's
// dynamic messages: they read what it accepts, to the same row.
func FuzzProtobufRow(f *testing.F) {
	z := startZerobus(f, emulator.Config{DDL: everyProtoType, MaxRows: 10, AckEvery: 1})
	d := resolve(f, typesDescriptor())
	for _, text := range []string{
		`{"s":"x","i64":"7","f":1.5,"d":-0.5,"b":true,"bin":"AA=="}`, `{"arr":["1","2"],"words":["a"],"m":{"1":"x","2":"y"}}`,
		`{"st":{"ip":"a","port":1},"list":[{"k":"a","n":[1]}],"named":{"k":{"x":1}}}`, `{"dec":"1.5","v":"[]","ts":"1","dt":-5}`,
	} {
		f.Add(encode(f, d, text))
	}
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 16, protowire.BytesType), []byte{1, 2, 0x80, 1})) // packed
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 18, protowire.BytesType), nil))                   // an entry without its parts
	f.Fuzz(func(t *testing.T, record []byte) {
		z := z.on(t)
		s := z.open(protoCreate(t, "t.s.types", typesDescriptor()))
		defer s.cancel()
		before := z.Table("t.s.types").Count()
		s.send(protoBatch(0, record))
		if r, err := s.Recv(); err != nil {
			if got := z.Table("t.s.types").Count(); got != before {
				t.Fatalf("%x: refused with %v and kept", record, err)
			}
			return
		} else if r.GetIngestRecordResponse() == nil {
			t.Fatalf("got %v, want an ack", r)
		}
		m := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(record, m); err != nil {
			t.Fatalf("%x: accepted, and protobuf returns %v", record, err)
		}
		row := z.Table("t.s.types").Newest(1)[0].JSON
		again := dynamicpb.NewMessage(d)
		if err := protojson.Unmarshal(row, again); err != nil {
			t.Fatalf("%x: its JSON %s: %v", record, row, err)
		}
		got, _ := json.Marshal(plain(again))
		want, _ := json.Marshal(plain(m))
		if string(got) != string(want) {
			t.Fatalf("%x: got %s, want %s", record, got, want)
		}
	})
}

// plain is a message as values that print alike when they are alike; empty
// lists and maps are as good as none, and NaN is equal to itself.
func plain(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		one := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
			if fd.Kind() == protoreflect.MessageKind {
				return plain(v.Message())
			}
			return fmt.Sprintf("%v", v.Interface())
		}
		switch {
		case fd.IsList():
			var list []any
			for i := range v.List().Len() {
				list = append(list, one(fd, v.List().Get(i)))
			}
			out[string(fd.Name())] = list
		case fd.IsMap():
			entries := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entries[k.String()] = one(fd.MapValue(), v)
				return true
			})
			out[string(fd.Name())] = entries
		default:
			out[string(fd.Name())] = one(fd, v)
		}
		return true
	})
	return out
}
