package emulator_test

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/zerobus/emulator"
)

// nestedDDL and nestedText go together; TYPE( in the text is the scope that
// type names begin with.
const (
	nestedDDL  = "CREATE TABLE a.b.c (id STRING NOT NULL, ctx STRUCT<ip: STRING, geo: STRUCT<lat: INT>>, m MAP<STRING,STRUCT<x: INT>>, l ARRAY<STRUCT<y: INT>>)"
	nestedText = `name: "Row"
		field { name: "id" number: 1 type: TYPE_STRING label: LABEL_REQUIRED }
		field { name: "ctx" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL type_name: "SCOPERow.Ctx" }
		field { name: "m" number: 3 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: "SCOPERow.MEntry" }
		field { name: "l" number: 4 type: TYPE_MESSAGE label: LABEL_REPEATED type_name: "SCOPERow.L" }
		nested_type { name: "Ctx"
			field { name: "ip" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "geo" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL type_name: "SCOPERow.Ctx.Geo" }
			nested_type { name: "Geo" field { name: "lat" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } } }
		nested_type { name: "MValue" field { name: "x" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } }
		nested_type { name: "MEntry" options { map_entry: true }
			field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
			field { name: "value" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL type_name: "SCOPERow.MValue" } }
		nested_type { name: "L" field { name: "y" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } }`
)

func descriptorOf(t *testing.T, text string) *descriptorpb.DescriptorProto {
	t.Helper()
	d := &descriptorpb.DescriptorProto{}
	if err := prototext.Unmarshal([]byte(text), d); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

// nestedRow fills every column of nestedDDL.
func nestedRow() []byte {
	in := func(b []byte, number protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
	}
	seven := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	row := in(nil, 1, []byte("r"))
	row = in(row, 2, in(in(nil, 1, []byte("::1")), 2, seven))
	row = in(row, 3, in(in(nil, 1, []byte("k")), 2, seven))
	return in(row, 4, seven)
}

const nestedJSON = `{"id":"r","ctx":{"ip":"::1","geo":{"lat":7}},"m":{"k":{"x":7}},"l":[{"y":7}]}`

// A type that a field names is found in the descriptor whatever package it was
// compiled in, and whatever syntax.
func TestSelfContainedDescriptorsAreAccepted(t *testing.T) {
	optional := func(field string) func(string) string {
		return func(text string) string {
			return strings.Replace(text, `name: "`+field+`"`, `name: "`+field+`" proto3_optional: true oneof_index: 0`, 1) + ` oneof_decl { name: "_` + field + `" }`
		}
	}
	for name, c := range map[string]struct {
		scope  string
		change func(string) string
	}{
		"no package":                  {".", nil},
		"a package":                   {".zerobus.", nil},
		"a package of several parts":  {".com.example.events.v1.", nil},
		"a package named as the root": {".Row.", nil},
		"proto3_optional":             {".p.", optional("ctx")},
		"proto3_optional, no oneof": {".p.", func(text string) string {
			return strings.Replace(text, `name: "ctx"`, `name: "ctx" proto3_optional: true`, 1)
		}},
		"proto3_optional beside false": {".", func(text string) string {
			return strings.ReplaceAll(strings.Replace(text, `name: "ctx"`, `name: "ctx" proto3_optional: true`, 1), `name: "ip"`, `name: "ip" proto3_optional: false`)
		}},
		"an entry of another name":  {".", func(text string) string { return strings.ReplaceAll(text, "MEntry", "CtxMEntry") }},
		"a type left to its name":   {".", func(text string) string { return strings.Replace(text, `number: 4 type: TYPE_MESSAGE`, `number: 4`, 1) }},
		"a name that is not needed": {".", func(text string) string { return text + ` enum_type { name: "E" value { name: "E0" number: 0 } }` }},
	} {
		t.Run(name, func(t *testing.T) {
			z := startZerobus(t, emulator.Config{DDL: nestedDDL})
			text := strings.ReplaceAll(nestedText, "SCOPE", c.scope)
			if c.change != nil {
				text = c.change(text)
			}
			s := z.open(protoCreate(t, "a.b.c", descriptorOf(t, text)))
			s.send(protoBatch(0, nestedRow()))
			s.ack(0)
			if got := string(z.Table("a.b.c").Newest(1)[0].JSON); got != nestedJSON {
				t.Errorf("row: got %s, want %s", got, nestedJSON)
			}
		})
	}
}

// Relative and foreign names are refused as the service does it.
func TestDescriptorsThatAreNotSelfContained(t *testing.T) {
	full := strings.ReplaceAll(nestedText, "SCOPE", ".")
	lines := func(pairs ...string) string {
		out := "Proto validation error:"
		for i := 0; i < len(pairs); i += 2 {
			out += "\n  Proto not self-contained for field '" + pairs[i] + "' with type name '" + pairs[i+1] + "'. Error Code: 4033, Error State: 4."
		}
		return out
	}
	for name, c := range map[string]struct{ text, want string }{
		"relative": {
			strings.ReplaceAll(strings.ReplaceAll(nestedText, "SCOPERow.Ctx.", ""), "SCOPERow.", ""),
			lines("ctx", "Ctx", "m", "MEntry", "l", "L", "geo", "Geo", "value", "MValue"),
		},
		"no dot in front":    {strings.ReplaceAll(nestedText, "SCOPE", ""), lines("ctx", "Row.Ctx", "m", "Row.MEntry", "l", "Row.L", "geo", "Row.Ctx.Geo", "value", "Row.MValue")},
		"one of them":        {strings.Replace(full, `".Row.L"`, `"L"`, 1), lines("l", "L")},
		"a well-known type":  {strings.Replace(full, `".Row.L"`, `".google.protobuf.Timestamp"`, 1), lines("l", ".google.protobuf.Timestamp")},
		"another message":    {strings.Replace(full, `".Row.L"`, `".Other.L"`, 1), lines("l", ".Other.L")},
		"not nested in it":   {strings.Replace(full, `".Row.L"`, `".Row.Nowhere"`, 1), lines("l", ".Row.Nowhere")},
		"two packages":       {strings.Replace(full, `".Row.L"`, `".p.Row.L"`, 1), lines("l", ".p.Row.L")},
		"one scope too deep": {strings.Replace(full, `".Row.Ctx.Geo"`, `".Row.Geo"`, 1), lines("geo", ".Row.Geo")},
		"no name":            {strings.Replace(full, `type_name: ".Row.L"`, ``, 1), lines("l", "")},
		"no package at all":  {strings.Replace(full, `".Row.L"`, `"..Row.L"`, 1), lines("l", "..Row.L")},
	} {
		t.Run(name, func(t *testing.T) {
			z := startZerobus(t, emulator.Config{DDL: nestedDDL})
			st := z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", descriptorOf(t, c.text)))
			if st.Code() != codes.InvalidArgument || st.Message() != c.want || len(st.Details()) != 0 {
				t.Errorf("got %v %q %v, want INVALID_ARGUMENT %q", st.Code(), st.Message(), st.Details(), c.want)
			}
		})
	}
}

func TestDescriptorsNestedTooDeepAreRefused(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: nestedDDL})
	text := strings.Repeat(`nested_type { name: "N" `, 101) + strings.Repeat("}", 101)
	st := z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", descriptorOf(t, `name: "Row" `+text)))
	wantStatus(t, "101 levels", st, codes.InvalidArgument, "nests messages deeper than 100")
}

// What only maps can be is one, and nothing else is.
func TestMapsAndTheirEntries(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: "CREATE TABLE a.b.c (m MAP<STRING,INT>, l ARRAY<STRUCT<key: STRING, value: INT>>, st STRUCT<key: STRING, value: INT>, f MAP<FLOAT,INT>)"})
	const entry = `nested_type { name: "E" options { map_entry: true }
		field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } field { name: "value" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL } }`
	field := func(name, label string) string {
		return `name: "R" field { name: "` + name + `" number: 1 type: TYPE_MESSAGE label: LABEL_` + label + ` type_name: ".R.E" } `
	}
	for name, c := range map[string]struct{ text, want string }{
		"a list for a map":       {field("m", "REPEATED") + strings.Replace(entry, "options { map_entry: true }", "", 1), "field 'm' must be a map"},
		"a map for a list":       {field("l", "REPEATED") + entry, "field 'l' must be repeated"},
		"an entry for a STRUCT":  {field("st", "OPTIONAL") + entry, "field 'st' is message, expected message"},
		"an entry with more":     {field("m", "REPEATED") + strings.Replace(entry, "} }", `} field { name: "x" number: 3 type: TYPE_INT32 label: LABEL_OPTIONAL } }`, 1), "field 'm': an entry of a map has"},
		"an entry without value": {field("m", "REPEATED") + strings.Replace(entry, "number: 2", "number: 3", 1), "field 'm': an entry of a map has"},
		"a key of another type":  {field("m", "REPEATED") + strings.Replace(entry, "TYPE_STRING", "TYPE_INT32", 1), "field 'm.key' is int32"},
		"a key that cannot be":   {field("f", "REPEATED") + strings.Replace(entry, "TYPE_STRING", "TYPE_FLOAT", 1), "protobuf cannot hold map<float,int>"},
	} {
		st := z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", descriptorOf(t, c.text)))
		wantStatus(t, name, st, codes.InvalidArgument, c.want)
	}
}

// The 1:1 form has two causes that matching by name does not.
func TestExactSchemas(t *testing.T) {
	z := startZerobus(t, emulator.Config{DDL: "CREATE TABLE a.b.c (id STRING NOT NULL, n INT, st STRUCT<x: INT, y: INT>)", Schema: emulator.SchemaExact})
	const (
		id    = `field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } `
		n     = `field { name: "n" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL } `
		st    = `field { name: "st" number: 3 type: TYPE_MESSAGE label: LABEL_OPTIONAL type_name: ".R.St" } `
		x     = `field { name: "x" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL } `
		y     = `field { name: "y" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL } `
		extra = `field { name: "extra" number: 4 type: TYPE_INT32 label: LABEL_OPTIONAL } `
	)
	nested := func(fields string) string { return `nested_type { name: "St" ` + fields + `} ` }
	for name, c := range map[string]struct{ text, causes, want string }{
		"one left out":              {id + st + nested(x+y), "FIELD_COUNT_MISMATCH", "the message has 2 fields, expected 3"},
		"one left out of a STRUCT":  {id + n + st + nested(y), "FIELD_COUNT_MISMATCH", "field 'st' has 1 fields, expected 2"},
		"one too many":              {id + n + st + extra + nested(x+y), "FIELD_COUNT_MISMATCH,FIELD_NOT_IN_TABLE", "the message has 4 fields, expected 3; field 'extra' is not in the table"},
		"NOT NULL left out":         {n + st + nested(x+y), "FIELD_COUNT_MISMATCH,MISSING_REQUIRED_COLUMN", "column 'id' is NOT NULL"},
		"another order":             {n + id + st + nested(x+y), "FIELD_OUT_OF_ORDER", "field 'id' is not in the order of the columns"},
		"another order in a STRUCT": {id + n + st + nested(y+x), "FIELD_OUT_OF_ORDER", "field 'st.x' is not in the order of the columns"},
		"another type":              {id + strings.Replace(n, "INT32", "INT64", 1) + st + nested(x+y), "TYPE_INCOMPATIBLE", "field 'n' is int64"},
	} {
		st := z.dialStream("a.b.c").refused(protoCreate(t, "a.b.c", descriptorOf(t, `name: "R" `+c.text)))
		wantStatus(t, name, st, codes.InvalidArgument, c.want)
		got := ""
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				got = info.GetMetadata()["causes"]
			}
		}
		if got != c.causes {
			t.Errorf("%s: got causes %q, want %q", name, got, c.causes)
		}
	}
	z.open(protoCreate(t, "a.b.c", descriptorOf(t, `name: "R" `+id+n+st+nested(x+y))))
}

func TestSchemaModes(t *testing.T) {
	if _, err := emulator.New(emulator.Config{Schema: "loose"}); err == nil || !strings.Contains(err.Error(), "by-name, exact") {
		t.Errorf("New: got %v, want the modes named", err)
	}
}
