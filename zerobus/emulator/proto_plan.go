package emulator

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The causes a schemaFault can have, as the service names them in ErrorInfo.
const (
	causeNotInTable   = "FIELD_NOT_IN_TABLE"
	causeMissing      = "MISSING_REQUIRED_COLUMN"
	causeIncompatible = "TYPE_INCOMPATIBLE"
)

// schemaFault says why a descriptor does not go with a table.
type schemaFault struct {
	causes []string // without repeats; empty: the descriptor itself is no good
	text   string   // the problems, all of them
}

// readDescriptor resolves the descriptor_proto of a create request. The
// message's name means nothing.
func readDescriptor(b []byte) (protoreflect.MessageDescriptor, error) {
	d := &descriptorpb.DescriptorProto{}
	if err := proto.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("descriptor_proto is not a serialized google.protobuf.DescriptorProto")
	}
	if d.GetName() == "" {
		d.Name = proto.String("Row")
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Package: proto.String("zerobus.emulator"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{d},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("descriptor_proto does not stand by itself: %s", strings.ToValidUTF8(err.Error(), "?"))
	}
	return file.Messages().Get(0), nil
}

// compileRow holds a descriptor against the columns of a table. Every field
// must be a column of the right type, and every NOT NULL column a field.
func compileRow(d protoreflect.MessageDescriptor, s *schema) (*protoMessage, *schemaFault) {
	var p planner
	m := p.message(d, "", s.columns, s.index)
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
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Name())
		have[name] = true
		at, ok := index[name]
		if !ok {
			p.refuse(causeNotInTable, "field '%s' is not in the table", path+name)
			continue
		}
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
	switch {
	case t.kind == kindMap:
		if !fd.IsMap() {
			p.refuse(causeIncompatible, "field '%s' must be a map for %s", path, t.text())
			return f
		}
		f.nested = p.entry(fd, path, t)
		return f
	case t.kind == kindArray:
		if !fd.IsList() {
			p.refuse(causeIncompatible, "field '%s' must be repeated for %s", path, t.text())
			return f
		}
		if k := t.elem.kind; k == kindArray || k == kindMap {
			p.refuse(causeIncompatible, "field '%s': protobuf cannot hold %s", path, t.text())
			return f
		}
		f.repeated, f.typ = true, t.elem
	case fd.IsList() || fd.IsMap():
		p.refuse(causeIncompatible, "field '%s' must not be repeated for %s", path, t.text())
		return f
	}
	want := protoKinds[f.typ.kind]
	if fd.Kind() != want {
		p.refuse(causeIncompatible, "field '%s' is %s, expected %s for %s", path, fd.Kind(), want, t.text())
		return f
	}
	f.wire = wireTypes[want]
	if f.typ.kind == kindStruct {
		f.nested = p.message(fd.Message(), path+".", f.typ.fields, f.typ.index)
	}
	return f
}

// entry compiles the entry message of a MAP: its key, then its value.
func (p *planner) entry(fd protoreflect.FieldDescriptor, path string, t *dataType) *protoMessage {
	m := &protoMessage{id: -1}
	if k := t.elem.kind; k == kindMap || k == kindArray {
		p.refuse(causeIncompatible, "field '%s': protobuf cannot hold %s", path, t.text())
		return m
	}
	for i, part := range []struct {
		fd protoreflect.FieldDescriptor
		t  *dataType
	}{{fd.MapKey(), t.key}, {fd.MapValue(), t.elem}} {
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
