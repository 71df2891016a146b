package zerobus

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/internal/delta"
)

const (
	columnsMax       = 2000  // of a table Zerobus writes to
	reservedFrom     = 19000 // numbers that protobuf keeps for itself
	reservedTo       = 19999 // https://protobuf.dev/programming-guides/proto2/#assigning
	mapKey, mapValue = int32(1), int32(2)
)

// identifier matches the names that protobuf takes, and Zerobus for columns.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// protobufTypes are the field types of Delta's scalar types, as Zerobus reads them: DATE is
// days since 1970, a timestamp microseconds, DECIMAL and VARIANT are text.
// https://docs.databricks.com/aws/en/ingestion/zerobus-ingest
var protobufTypes = map[delta.Kind]descriptorpb.FieldDescriptorProto_Type{
	delta.String:       descriptorpb.FieldDescriptorProto_TYPE_STRING,
	delta.TinyInt:      descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.SmallInt:     descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.Int:          descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.BigInt:       descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.Float:        descriptorpb.FieldDescriptorProto_TYPE_FLOAT,
	delta.Double:       descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
	delta.Boolean:      descriptorpb.FieldDescriptorProto_TYPE_BOOL,
	delta.Binary:       descriptorpb.FieldDescriptorProto_TYPE_BYTES,
	delta.Date:         descriptorpb.FieldDescriptorProto_TYPE_INT32,
	delta.Timestamp:    descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.TimestampNTZ: descriptorpb.FieldDescriptorProto_TYPE_INT64,
	delta.Decimal:      descriptorpb.FieldDescriptorProto_TYPE_STRING,
	delta.Variant:      descriptorpb.FieldDescriptorProto_TYPE_STRING,
}

// describe returns the protobuf message of a row, in proto2, with one field per column under
// the given numbers. A NOT NULL column is required, a STRUCT a nested message with fields
// numbered from 1, an ARRAY a repeated field, a MAP a repeated entry. The message is
// self-contained: every type is nested in it and has its full name from the message on, such
// as .EventsStream.Ctx.Geo. The service refuses relative names with error 4033.
func describe(table TableName, cols []Column, numbers map[string]int32) (*descriptorpb.DescriptorProto, error) {
	if len(cols) > columnsMax {
		return nil, fmt.Errorf("the table has %d columns, Zerobus takes at most %d", len(cols), columnsMax)
	}
	m := newMessageType("", pascal(table.Schema+"_"+table.Table))
	for _, c := range cols {
		m.types[c.Name] = true
	}
	for _, c := range cols {
		t, err := delta.Parse(c.Type)
		if err == nil {
			err = m.add(c.Name, numbers[c.Name], t, c.NotNull)
		}
		if err != nil {
			return nil, fmt.Errorf("column %q (%s): %w", clean(c.Name, 255), clean(c.Type, 80), err)
		}
	}
	return m.out, nil
}

// messageType is a message being built.
type messageType struct {
	out   *descriptorpb.DescriptorProto
	full  string          // name, qualified with the messages around it: .Row.Ctx
	names map[string]bool // of fields
	types map[string]bool // names of fields and nested messages, which share a scope
}

func newMessageType(scope, name string) *messageType {
	return &messageType{
		out: &descriptorpb.DescriptorProto{Name: &name}, full: scope + "." + name,
		names: map[string]bool{}, types: map[string]bool{},
	}
}

func (m *messageType) add(name string, number int32, t *delta.Type, notNull bool) error {
	switch {
	case !identifier.MatchString(name):
		return fmt.Errorf("protobuf cannot hold the name %q; use ASCII letters, digits and underscores", clean(name, 255))
	case m.names[name]:
		return fmt.Errorf("the name %q is a duplicate", name)
	case number >= reservedFrom && number <= reservedTo:
		return fmt.Errorf("its position %d is one of the field numbers %d to %d that protobuf reserves", number, reservedFrom, reservedTo)
	case number < 1:
		return fmt.Errorf("%d is no field number", number)
	}
	m.names[name] = true
	f := newField(name, number)
	if notNull {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum()
	}
	m.out.Field = append(m.out.Field, f)
	switch t.Kind {
	case delta.Array:
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		if t.Elem.Kind == delta.Array || t.Elem.Kind == delta.Map {
			return fmt.Errorf("protobuf cannot hold an %s inside an ARRAY; put the inner one into a STRUCT, or set zerobus.record_format to json", t.Elem.Kind)
		}
		return m.single(f, t.Elem, pascal(name))
	case delta.Map:
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		return m.entry(f, t)
	}
	return m.single(f, t, pascal(name))
}

func newField(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: &name, JsonName: &name, Number: &number,
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}

// single sets the type of one value. A STRUCT is nested in m under the name wanted, with a
// number appended if that is taken.
func (m *messageType) single(f *descriptorpb.FieldDescriptorProto, t *delta.Type, wanted string) error {
	if t.Kind == delta.Struct {
		inner := newMessageType(m.full, m.unique(wanted))
		for _, field := range t.Fields {
			inner.types[field.Name] = true
		}
		for i, field := range t.Fields {
			if err := inner.add(field.Name, int32(i+1), field.Type, field.NotNull); err != nil {
				return fmt.Errorf("field %q: %w", clean(field.Name, 255), err)
			}
		}
		m.nest(f, inner)
		return nil
	}
	scalar, ok := protobufTypes[t.Kind]
	if !ok {
		return fmt.Errorf("the type %s is none that Zerobus writes", clean(cmp.Or(t.Kind.String(), t.Name), 80))
	}
	f.Type = &scalar
	return nil
}

// entry sets the type of a MAP.
func (m *messageType) entry(f *descriptorpb.FieldDescriptorProto, t *delta.Type) error {
	switch key, ok := protobufTypes[t.Key.Kind]; {
	case !ok, key == descriptorpb.FieldDescriptorProto_TYPE_FLOAT, key == descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
		key == descriptorpb.FieldDescriptorProto_TYPE_BYTES:
		return fmt.Errorf("protobuf cannot hold a MAP with %s keys; set zerobus.record_format to json", clean(cmp.Or(t.Key.Kind.String(), t.Key.Name), 80))
	}
	if t.Elem.Kind == delta.Array || t.Elem.Kind == delta.Map {
		return fmt.Errorf("protobuf cannot hold an %s inside a MAP; put it into a STRUCT, or set zerobus.record_format to json", t.Elem.Kind)
	}
	// The name is not free: protobuf's own compilers derive it from the field's.
	name := pascal(f.GetName()) + "Entry"
	if m.types[name] {
		return fmt.Errorf("protobuf calls the entries of this MAP %s, and that name is taken by another; rename one of the two", name)
	}
	m.types[name] = true
	inner := newMessageType(m.full, name)
	inner.out.Options = &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}
	key, value := newField("key", mapKey), newField("value", mapValue)
	inner.out.Field = []*descriptorpb.FieldDescriptorProto{key, value}
	if err := inner.single(key, t.Key, ""); err != nil {
		return err
	}
	// An entry holds key and value only, so a STRUCT is nested beside it.
	if err := m.single(value, t.Elem, pascal(f.GetName())+"Value"); err != nil {
		return err
	}
	m.nest(f, inner)
	return nil
}

func (m *messageType) nest(f *descriptorpb.FieldDescriptorProto, inner *messageType) {
	f.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
	f.TypeName = &inner.full
	m.out.NestedType = append(m.out.NestedType, inner.out)
}

// unique returns a name that nothing in m has yet.
func (m *messageType) unique(name string) string {
	for i, base := 2, name; m.types[name]; i++ {
		name = fmt.Sprint(base, i)
	}
	m.types[name] = true
	return name
}

// pascal turns snake_case into PascalCase, with an M in front if it begins with a digit or is empty.
func pascal(name string) string {
	var out strings.Builder
	up := true
	for _, r := range name {
		switch {
		case r > 'z' || !identifier.MatchString("a"+string(r)) || r == '_':
			up = true
			continue
		case up && r >= 'a' && r <= 'z':
			r -= 'a' - 'A'
		}
		up = false
		out.WriteRune(r)
	}
	if text := out.String(); text != "" && (text[0] < '0' || text[0] > '9') {
		return text
	}
	return "M" + out.String()
}
