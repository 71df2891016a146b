package emulator

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// The causes a schemaFault can have, as the service names them in ErrorInfo.
// The last two come up under SchemaExact only.
const (
	causeNotInTable   = "FIELD_NOT_IN_TABLE"
	causeMissing      = "MISSING_REQUIRED_COLUMN"
	causeIncompatible = "TYPE_INCOMPATIBLE"
	causeOutOfOrder   = "FIELD_OUT_OF_ORDER"
	causeCount        = "FIELD_COUNT_MISMATCH"
)

// SchemaMode is what a stream's descriptor must have in common with the
// table's columns.
type SchemaMode int

const (
	// SchemaByName matches fields with columns by name. Fields may come in any
	// order, and columns that may be NULL can be left out.
	SchemaByName SchemaMode = iota
	// SchemaExact also wants one field for each column, in the columns' order,
	// inside a STRUCT too. The service's early documentation asked for that.
	SchemaExact
)

var schemaModes = [...]string{"by-name", "exact"}

// String is the text that ParseSchemaMode reads.
func (m SchemaMode) String() string { return schemaModes[m] }

// ParseSchemaMode reads by-name or exact.
func ParseSchemaMode(text string) (SchemaMode, error) {
	i := slices.Index(schemaModes[:], text)
	if i < 0 {
		return 0, oneOf("schema mode", text, schemaModes[:])
	}
	return SchemaMode(i), nil
}

// schemaFault says why a descriptor does not go with a table.
type schemaFault struct {
	causes []string // without repeats; empty: the descriptor itself is no good
	text   string   // the problems, all of them
}

// compileRow holds a descriptor against the columns of a table. Every field
// must be a column of the right type, and every NOT NULL column a field.
func compileRow(d *rowDescriptor, s *schema, mode SchemaMode) (*protoMessage, *schemaFault) {
	p := planner{entries: d.entries, mode: mode}
	m := p.message(d.message, "", s.columns, s.index)
	if s.id >= 0 {
		for i, f := range m.fields {
			if f.name == idColumn && f.nested == nil && !f.repeated {
				m.id = i
			}
		}
	}
	if len(p.problems) > 0 {
		return nil, &schemaFault{causes: p.causes, text: strings.Join(p.problems, "; ")}
	}
	return m, nil
}

// planner gathers what is wrong while it compiles.
type planner struct {
	entries  map[protoreflect.FullName]bool // messages that are entries of a map
	mode     SchemaMode
	causes   []string
	problems []string
}

func (p *planner) refuse(cause, format string, args ...any) {
	if !slices.Contains(p.causes, cause) {
		p.causes = append(p.causes, cause)
	}
	if len(p.problems) < 20 { // a table may have 2,000 columns
		p.problems = append(p.problems, fmt.Sprintf(format, args...))
	}
}

func (p *planner) message(d protoreflect.MessageDescriptor, path string, columns []field, index map[string]int) *protoMessage {
	m := &protoMessage{id: -1}
	have := map[string]bool{}
	fields := d.Fields()
	if p.mode == SchemaExact && fields.Len() != len(columns) {
		p.refuse(causeCount, "%s has %d fields, expected %d", whole(path), fields.Len(), len(columns))
	}
	last := -1 // the column of the field before
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Name())
		have[name] = true
		at, ok := index[name]
		if !ok {
			p.refuse(causeNotInTable, "field '%s' is not in the table", path+name)
			continue
		}
		if p.mode == SchemaExact && at < last {
			p.refuse(causeOutOfOrder, "field '%s' is not in the order of the columns", path+name)
		}
		last = at
		f := p.field(fd, path+name, columns[at].typ)
		f.name = name
		m.add(fd.Number(), f)
		if columns[at].notNull {
			m.required = append(m.required, len(m.fields)-1)
		}
	}
	for _, c := range columns {
		if c.notNull && !have[c.name] {
			p.refuse(causeMissing, "column '%s' is NOT NULL and not in the descriptor", path+c.name)
		}
	}
	return m
}

// maxDense bounds the table from field numbers to fields; a column's number is
// its position plus one, and a table has at most 2,000.
const maxDense = 1 << 14

func (m *protoMessage) add(num protoreflect.FieldNumber, f protoField) {
	if num >= maxDense {
		return // refused by field
	}
	for int(num) >= len(m.dense) {
		m.dense = append(m.dense, -1)
	}
	m.dense[num] = int32(len(m.fields))
	m.fields = append(m.fields, f)
}

// protoKinds are the protobuf types that the service reads a column from.
var protoKinds = map[kind]protoreflect.Kind{
	kindString: protoreflect.StringKind, kindVarchar: protoreflect.StringKind, kindChar: protoreflect.StringKind,
	kindByte: protoreflect.Int32Kind, kindShort: protoreflect.Int32Kind, kindInt: protoreflect.Int32Kind, kindLong: protoreflect.Int64Kind,
	kindFloat: protoreflect.FloatKind, kindDouble: protoreflect.DoubleKind, kindBoolean: protoreflect.BoolKind,
	kindBinary: protoreflect.BytesKind, kindDate: protoreflect.Int32Kind, kindTimestamp: protoreflect.Int64Kind,
	kindTimestampNTZ: protoreflect.Int64Kind, kindDecimal: protoreflect.StringKind, kindVariant: protoreflect.StringKind,
	kindStruct: protoreflect.MessageKind,
}

var wireTypes = map[protoreflect.Kind]protowire.Type{
	protoreflect.StringKind: protowire.BytesType, protoreflect.BytesKind: protowire.BytesType, protoreflect.MessageKind: protowire.BytesType,
	protoreflect.Int32Kind: protowire.VarintType, protoreflect.Int64Kind: protowire.VarintType, protoreflect.BoolKind: protowire.VarintType,
	protoreflect.FloatKind: protowire.Fixed32Type, protoreflect.DoubleKind: protowire.Fixed64Type,
}

// field compiles one field for a column's type.
func (p *planner) field(fd protoreflect.FieldDescriptor, path string, t *dataType) protoField {
	f := protoField{typ: t, wire: protowire.BytesType}
	if fd.Number() >= maxDense {
		p.refuse(causeIncompatible, "field '%s' has the number %d; the emulator takes numbers below %d", path, fd.Number(), maxDense)
		return f
	}
	isMap := fd.IsList() && p.isEntry(fd)
	switch {
	case t.kind == kindMap:
		if !isMap {
			p.refuse(causeIncompatible, "field '%s' must be a map for %s", path, t.text())
			return f
		}
		f.nested = p.entry(fd, path, t)
		return f
	case t.kind == kindArray:
		if !fd.IsList() || isMap {
			p.refuse(causeIncompatible, "field '%s' must be repeated for %s", path, t.text())
			return f
		}
		if k := t.elem.kind; k == kindArray || k == kindMap {
			p.refuse(causeIncompatible, "field '%s': protobuf cannot hold %s", path, t.text())
			return f
		}
		f.repeated, f.typ = true, t.elem
	case fd.IsList():
		p.refuse(causeIncompatible, "field '%s' must not be repeated for %s", path, t.text())
		return f
	}
	want := protoKinds[f.typ.kind]
	if fd.Kind() != want || p.isEntry(fd) {
		p.refuse(causeIncompatible, "field '%s' is %s, expected %s for %s", path, fd.Kind(), want, t.text())
		return f
	}
	f.wire = wireTypes[want]
	if f.typ.kind == kindStruct {
		f.nested = p.message(fd.Message(), path+".", f.typ.fields, f.typ.index)
	}
	return f
}

// isEntry reports whether a field's message is the entry of a map.
func (p *planner) isEntry(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.MessageKind && p.entries[fd.Message().FullName()]
}

// whole names what a path leads to: the row, or a field of it.
func whole(path string) string {
	if path == "" {
		return "the message"
	}
	return "field '" + strings.TrimSuffix(path, ".") + "'"
}

// entry compiles the entry message of a MAP: its key, then its value.
func (p *planner) entry(fd protoreflect.FieldDescriptor, path string, t *dataType) *protoMessage {
	m := &protoMessage{id: -1}
	key, value := fd.Message().Fields().ByNumber(1), fd.Message().Fields().ByNumber(2)
	switch k := t.elem.kind; {
	case k == kindMap, k == kindArray, !mapKeys[protoKinds[t.key.kind]]:
		p.refuse(causeIncompatible, "field '%s': protobuf cannot hold %s", path, t.text())
		return m
	case key == nil || value == nil || fd.Message().Fields().Len() != 2:
		p.refuse(causeIncompatible, "field '%s': an entry of a map has the fields 1, key, and 2, value", path)
		return m
	}
	for i, part := range []struct {
		fd protoreflect.FieldDescriptor
		t  *dataType
	}{{key, t.key}, {value, t.elem}} {
		f := p.field(part.fd, path+"."+string(part.fd.Name()), part.t)
		f.name = string(part.fd.Name())
		m.add(part.fd.Number(), f)
		// A part left out is its type's zero, which these do not have.
		if k := part.t.kind; k == kindDecimal || k == kindVariant || f.nested != nil && len(f.nested.required) > 0 {
			m.required = append(m.required, i)
		}
	}
	return m
}

// mapKeys are the protobuf types that a map's key can have.
var mapKeys = map[protoreflect.Kind]bool{
	protoreflect.StringKind: true, protoreflect.Int32Kind: true, protoreflect.Int64Kind: true, protoreflect.BoolKind: true,
}
