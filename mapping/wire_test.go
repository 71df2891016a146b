package mapping_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/datafly/bridge/mapping"
)

// deltaType is a type as these tests read it, apart from the package's reader.
type deltaType struct {
	name   string // in upper case, without (…)
	args   []*deltaType
	fields []string
}

// readType reads a type in the form Columns gives it.
func readType(text string) (t *deltaType, rest string) {
	end := strings.IndexAny(text, "<>,( ")
	if end < 0 {
		end = len(text)
	}
	t = &deltaType{name: text[:end]}
	rest = text[end:]
	switch {
	case strings.HasPrefix(rest, "("):
		_, rest, _ = strings.Cut(rest, ")")
	case strings.HasPrefix(rest, "<"):
		for more := true; more; {
			rest = rest[1:]
			if t.name == "STRUCT" {
				var field string
				field, rest, _ = strings.Cut(rest, ":")
				t.fields = append(t.fields, field)
			}
			var arg *deltaType
			arg, rest = readType(rest)
			t.args = append(t.args, arg)
			rest = strings.TrimPrefix(rest, " NOT NULL")
			more = rest[0] == ','
		}
		rest = rest[1:]
	}
	return t, rest
}

var protoTypes = map[string]descriptorpb.FieldDescriptorProto_Type{
	"STRING": descriptorpb.FieldDescriptorProto_TYPE_STRING, "VARCHAR": descriptorpb.FieldDescriptorProto_TYPE_STRING, "CHAR": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"BOOLEAN": descriptorpb.FieldDescriptorProto_TYPE_BOOL,
	"TINYINT": descriptorpb.FieldDescriptorProto_TYPE_INT32, "SMALLINT": descriptorpb.FieldDescriptorProto_TYPE_INT32, "INT": descriptorpb.FieldDescriptorProto_TYPE_INT32,
	"BIGINT": descriptorpb.FieldDescriptorProto_TYPE_INT64,
	"FLOAT":  descriptorpb.FieldDescriptorProto_TYPE_FLOAT, "DOUBLE": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
	"DECIMAL": descriptorpb.FieldDescriptorProto_TYPE_STRING, "VARIANT": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"DATE": descriptorpb.FieldDescriptorProto_TYPE_INT32, "TIMESTAMP": descriptorpb.FieldDescriptorProto_TYPE_INT64, "TIMESTAMP_NTZ": descriptorpb.FieldDescriptorProto_TYPE_INT64,
	"BINARY": descriptorpb.FieldDescriptorProto_TYPE_BYTES, "STRUCT": descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, "MAP": descriptorpb.FieldDescriptorProto_TYPE_MESSAGE,
}

// addField adds a field of type t to msg. Messages it needs are nested in
// home, whose full name is in: msg itself, or for the entry of a map, which may
// have none, the message around it.
func addField(msg, home *descriptorpb.DescriptorProto, in, name string, number int32, notNull bool, t *deltaType) {
	label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
	if notNull {
		label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED
	}
	if t.name == "ARRAY" {
		label, t = descriptorpb.FieldDescriptorProto_LABEL_REPEATED, t.args[0]
	}
	f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: protoTypes[t.name].Enum(), JsonName: &name}
	switch t.name {
	case "MAP":
		label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		entry := &descriptorpb.DescriptorProto{Name: proto.String(camel(name) + "Entry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}}
		f.TypeName = proto.String(in + "." + entry.GetName())
		home.NestedType = append(home.NestedType, entry)
		addField(entry, home, in, "key", 1, false, t.args[0])
		addField(entry, home, in, "value", 2, false, t.args[1])
	case "STRUCT":
		nested := &descriptorpb.DescriptorProto{Name: proto.String("Struct" + strconv.Itoa(len(home.NestedType)))}
		home.NestedType = append(home.NestedType, nested)
		f.TypeName = proto.String(in + "." + nested.GetName())
		for i, field := range t.fields {
			addField(nested, nested, f.GetTypeName(), field, int32(i+1), false, t.args[i])
		}
	}
	f.Label = label.Enum()
	msg.Field = append(msg.Field, f)
}

// camel is how protobuf derives the name of a map's entry from its field.
func camel(name string) string {
	var sb strings.Builder
	for _, part := range strings.Split(name, "_") {
		if part != "" {
			sb.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return sb.String()
}

// descriptor makes the message of a table's rows.
func descriptor(tb testing.TB, cols []mapping.Column) protoreflect.MessageDescriptor {
	tb.Helper()
	row := &descriptorpb.DescriptorProto{Name: proto.String("Row")}
	for _, c := range cols {
		t, rest := readType(c.Type)
		if rest != "" {
			tb.Fatalf("type %s: %q is left over", c.Type, rest)
		}
		addField(row, row, ".test.Row", c.Name, c.Number, c.NotNull, t)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("row.proto"), Package: proto.String("test"),
		Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{row}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return file.Messages().ByName("Row")
}

// decode reads a row with the official library; bytes that are no field of the
// message are an error.
func decode(tb testing.TB, desc protoreflect.MessageDescriptor, row []byte) protoreflect.Message {
	tb.Helper()
	msg := dynamicpb.NewMessage(desc)
	if err := proto.Unmarshal(row, msg); err != nil {
		tb.Fatalf("row %x: %v", row, err)
	}
	return msg
}

// compareRow holds a row in protobuf against the same row in JSON.
func compareRow(tb testing.TB, cols []mapping.Column, msg protoreflect.Message, row []byte) {
	tb.Helper()
	var want map[string]any
	dec := json.NewDecoder(bytes.NewReader(row))
	dec.UseNumber()
	if err := dec.Decode(&want); err != nil {
		tb.Fatalf("row %s: %v", row, err)
	}
	t := &deltaType{name: "STRUCT"}
	for _, c := range cols {
		arg, _ := readType(c.Type)
		t.fields, t.args = append(t.fields, c.Name), append(t.args, arg)
	}
	compareStruct(tb, "row", t, msg, want)
}

func compareStruct(tb testing.TB, at string, t *deltaType, msg protoreflect.Message, want map[string]any) {
	tb.Helper()
	if unknown := msg.GetUnknown(); len(unknown) > 0 {
		tb.Errorf("%s: bytes %x belong to no field", at, unknown)
	}
	for i, name := range t.fields {
		field := msg.Descriptor().Fields().ByName(protoreflect.Name(name))
		w, ok := want[name]
		delete(want, name)
		switch has := msg.Has(field); {
		case !ok && has:
			tb.Errorf("%s.%s: got %v, want NULL", at, name, msg.Get(field))
		case ok && !has && (!field.IsList() && !field.IsMap() || !isEmpty(w)):
			tb.Errorf("%s.%s: got NULL, want %v", at, name, w)
		case ok && has:
			compareValue(tb, at+"."+name, t.args[i], msg.Get(field), w)
		}
	}
	for name := range want {
		tb.Errorf("%s has %s in JSON, which is no field", at, name)
	}
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// compareValue compares a value with the one in JSON.
func compareValue(tb testing.TB, at string, t *deltaType, got protoreflect.Value, want any) {
	tb.Helper()
	switch t.name {
	case "ARRAY":
		list, wants := got.List(), want.([]any)
		if list.Len() != len(wants) {
			tb.Errorf("%s: got %d elements, want %v", at, list.Len(), wants)
			return
		}
		for i, w := range wants {
			compareValue(tb, at+"[]", t.args[0], list.Get(i), w)
		}
	case "MAP":
		wants := want.(map[string]any)
		if got.Map().Len() != len(wants) {
			tb.Errorf("%s: got %d entries, want %v", at, got.Map().Len(), wants)
		}
		got.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			w, ok := wants[k.String()]
			if !ok {
				tb.Errorf("%s: got key %q, want %v", at, k, wants)
				return true
			}
			compareValue(tb, at+"{}", t.args[1], v, w)
			return true
		})
	case "STRUCT":
		compareStruct(tb, at, t, got.Message(), want.(map[string]any))
	default:
		if g, w := scalarText(tb, t, got), wantText(tb, t, want); g != w {
			tb.Errorf("%s (%s): got %s, want %s", at, t.name, g, w)
		}
	}
}

func scalarText(tb testing.TB, t *deltaType, v protoreflect.Value) string {
	tb.Helper()
	switch t.name {
	case "BINARY":
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case "FLOAT", "DOUBLE":
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	}
	return v.String()
}

func wantText(tb testing.TB, t *deltaType, v any) string {
	tb.Helper()
	switch v := v.(type) {
	case string:
		if t.name == "BINARY" {
			raw, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				tb.Errorf("%s is not base64: %v", v, err)
			}
			return base64.StdEncoding.EncodeToString(raw) // with the unused bits cleared
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		bits := map[string]int{"FLOAT": 32, "DOUBLE": 64}[t.name]
		if bits == 0 {
			return v.String()
		}
		f, err := strconv.ParseFloat(v.String(), bits)
		if err != nil {
			tb.Errorf("%s: %v", v, err)
		}
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	tb.Errorf("got %T in JSON for %s", v, t.name)
	return ""
}
