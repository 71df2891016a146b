package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// rowDescriptor is the descriptor_proto of a create request, resolved.
type rowDescriptor struct {
	message protoreflect.MessageDescriptor
	entries map[protoreflect.FullName]bool // nested messages that are entries of a map
}

// notSelfContained lists the fields whose type is not found in the descriptor
// by its full name.
type notSelfContained struct {
	fields []*descriptorpb.FieldDescriptorProto
}

// Error has the service's wording, one field a line.
func (e *notSelfContained) Error() string {
	lines := []string{"Proto validation error:"}
	for _, f := range e.fields[:min(len(e.fields), 20)] {
		lines = append(lines, numbered(fmt.Sprintf("Proto not self-contained for field '%s' with type name '%s'",
			printable(f.GetName()), printable(f.GetTypeName())), codeNotSelfContained, stateOfTypeName))
	}
	return strings.Join(lines, "\n  ")
}

// maxNesting bounds the messages nested in a descriptor.
const maxNesting = 100

// readDescriptor resolves the descriptor_proto of a create request. It must be
// self-contained: a type that a field names is nested in the message and named
// in full, with or without a package in front. The message's name, the package
// and the syntax it was written in mean nothing.
func readDescriptor(b []byte) (*rowDescriptor, error) {
	d := &descriptorpb.DescriptorProto{}
	if err := proto.Unmarshal(b, d); err != nil {
		return nil, errors.New("descriptor_proto is not a serialized google.protobuf.DescriptorProto")
	}
	if d.GetName() == "" {
		d.Name = proto.String("Row")
	}
	n := nested{types: map[string]bool{}, entries: map[string]bool{}}
	if !n.collect(d, d.GetName(), maxNesting) {
		return nil, fmt.Errorf("descriptor_proto nests messages deeper than %d", maxNesting)
	}
	pkg, unresolved := n.resolve(d.GetName())
	if len(unresolved) > 0 {
		return nil, &notSelfContained{unresolved}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("row.proto"), Syntax: proto.String("proto2"), MessageType: []*descriptorpb.DescriptorProto{d},
	}
	if pkg != "" {
		file.Package = proto.String(pkg)
		pkg += "."
	}
	resolved, err := protodesc.NewFile(file, nil)
	if err != nil {
		return nil, fmt.Errorf("descriptor_proto is not a valid message: %s", strings.ToValidUTF8(err.Error(), "?"))
	}
	out := &rowDescriptor{message: resolved.Messages().Get(0), entries: map[protoreflect.FullName]bool{}}
	for name := range n.entries {
		out.entries[protoreflect.FullName(pkg+name)] = true
	}
	return out, nil
}

// nested is what a descriptor holds at any depth. Names begin with that of the
// outermost message, without a package.
type nested struct {
	types   map[string]bool // messages and enums
	entries map[string]bool // messages that are entries of a map
	named   []*descriptorpb.FieldDescriptorProto
}

// collect gathers what d, called name, holds. On the way it takes out of d
// what does not change the wire form and would have protodesc refuse what
// official builders send: proto3_optional and its oneofs, which need a file in
// proto3, where no field is required; and the mark of a map's entry, which
// needs a name that protoc derives from the field's and Databricks' own
// builder does not inside a STRUCT. It reports whether depth was enough.
func (n *nested) collect(d *descriptorpb.DescriptorProto, name string, depth int) bool {
	if depth < 0 {
		return false
	}
	n.types[name] = true
	for _, e := range d.GetEnumType() {
		n.types[name+"."+e.GetName()] = true
	}
	d.OneofDecl = nil
	for _, f := range d.GetField() {
		f.Proto3Optional, f.OneofIndex = nil, nil
		switch f.GetType() {
		case descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_GROUP, descriptorpb.FieldDescriptorProto_TYPE_ENUM:
			n.named = append(n.named, f)
		default:
			if f.Type == nil && f.TypeName != nil { // the type is what the name leads to
				n.named = append(n.named, f)
			}
		}
	}
	if d.GetOptions().GetMapEntry() {
		n.entries[name] = true
		d.Options.MapEntry = nil
	}
	for _, inner := range d.GetNestedType() {
		if !n.collect(inner, name+"."+inner.GetName(), depth-1) {
			return false
		}
	}
	return true
}

// resolve finds the package with which the fields' type names lead to types of
// the descriptor, whose outermost message is root. It returns the fields for
// which no package does, or not the one that serves the most fields.
func (n *nested) resolve(root string) (pkg string, unresolved []*descriptorpb.FieldDescriptorProto) {
	unresolved = n.unresolved("")
	tried := []string{""}
	for _, f := range n.named {
		parts := strings.Split(f.GetTypeName(), ".")
		for i := 2; i < len(parts); i++ { // the first is empty: the name begins with a dot
			candidate := strings.Join(parts[1:i], ".")
			if parts[i] != root || slices.Contains(tried, candidate) || !protoreflect.FullName(candidate).IsValid() {
				continue
			}
			tried = append(tried, candidate)
			if rest := n.unresolved(candidate); len(rest) < len(unresolved) {
				pkg, unresolved = candidate, rest
			}
		}
		if len(unresolved) == 0 || len(tried) > 20 {
			break
		}
	}
	return pkg, unresolved
}

// unresolved are the fields whose type is not found in the descriptor when its
// messages are in the package pkg.
func (n *nested) unresolved(pkg string) []*descriptorpb.FieldDescriptorProto {
	prefix := "."
	if pkg != "" {
		prefix += pkg + "."
	}
	var out []*descriptorpb.FieldDescriptorProto
	for _, f := range n.named {
		if name, ok := strings.CutPrefix(f.GetTypeName(), prefix); !ok || !n.types[name] {
			out = append(out, f)
		}
	}
	return out
}

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
	return SchemaMode(max(slices.Index(schemaModes[:], text), 0)), oneOf("schema mode", text, schemaModes[:])
}

// schemaFault says why a descriptor does not go with a table.
type schemaFault struct {
	causes []string // without repeats; empty: the descriptor itself is no good
	text   string   // the problems, all of them
}

// compileRow compares a descriptor with the columns of a table. Every field
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
