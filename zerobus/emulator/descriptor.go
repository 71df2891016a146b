package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/internal/delta"
)

// rowDescriptor is the descriptor_proto of a create request, resolved.
type rowDescriptor struct {
	message protoreflect.MessageDescriptor
	entries map[protoreflect.FullName]bool // nested messages that are entries of a map
}

// maxNesting bounds the messages nested in a descriptor.
const maxNesting = 100

// readDescriptor resolves the descriptor_proto of a create request. It must be
// self-contained: a type that a field names is nested in the message and named
// in full, with or without a package. The message's name, the package and the
// syntax have no meaning.
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
		lines := []string{"Proto validation error:"}
		for _, f := range unresolved[:min(len(unresolved), 20)] {
			lines = append(lines, numbered(fmt.Sprintf("Proto not self-contained for field '%s' with type name '%s'",
				printable(f.GetName()), printable(f.GetTypeName())), codeNotSelfContained, stateOfTypeName))
		}
		return nil, errors.New(strings.Join(lines, "\n  "))
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

// nested is what a descriptor contains at any depth. Names begin with that of
// the outermost message, without a package.
type nested struct {
	types   map[string]bool                      // messages and enums
	entries map[string]bool                      // messages that are entries of a map
	named   []*descriptorpb.FieldDescriptorProto // fields with a type name
}

// collect gathers what d, called name, contains, and reports whether depth was
// enough. It removes from d what does not change the encoding but makes
// protodesc refuse the output of official builders: proto3_optional and its
// oneofs, which need a proto3 file, where no field is required; and the mark of
// a map's entry, whose name protoc derives from the field's and Databricks'
// builder does not inside a STRUCT.
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
			if f.Type == nil && f.TypeName != nil { // the name determines the type
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

// resolve finds the package in which the fields' type names are types of the
// descriptor, whose outermost message is root. If none resolves all fields, it
// returns the one that resolves most, and the unresolved fields.
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
			if rest := n.unresolved(candidate + "."); len(rest) < len(unresolved) {
				pkg, unresolved = candidate, rest
			}
		}
		if len(unresolved) == 0 || len(tried) > 20 {
			break
		}
	}
	return pkg, unresolved
}

// unresolved are the fields whose type is not found if the messages are in the
// package that prefix names.
func (n *nested) unresolved(prefix string) (out []*descriptorpb.FieldDescriptorProto) {
	for _, f := range n.named {
		if name, ok := strings.CutPrefix(f.GetTypeName(), "."+prefix); !ok || !n.types[name] {
			out = append(out, f)
		}
	}
	return out
}

// The causes a schemaFault can have, as the service names them in ErrorInfo.
// The last two occur under SchemaExact only.
const (
	causeNotInTable   = "FIELD_NOT_IN_TABLE"
	causeMissing      = "MISSING_REQUIRED_COLUMN"
	causeIncompatible = "TYPE_INCOMPATIBLE"
	causeOutOfOrder   = "FIELD_OUT_OF_ORDER"
	causeCount        = "FIELD_COUNT_MISMATCH"
)

// SchemaMode is how a stream's descriptor must match the table's columns.
type SchemaMode string

// SchemaByName matches fields with columns by name, in any order; columns that
// may be NULL can be left out. SchemaExact also wants one field for each column,
// in the columns' order, inside a STRUCT too, as the service's early
// documentation did.
const (
	SchemaByName SchemaMode = "by-name"
	SchemaExact  SchemaMode = "exact"
)

// schemaFault is why a descriptor does not match a table. It gathers all
// problems while the descriptor is compiled.
type schemaFault struct {
	causes   []string // without repeats
	problems []string
}

func (f *schemaFault) add(cause, format string, args ...any) {
	if !slices.Contains(f.causes, cause) {
		f.causes = append(f.causes, cause)
	}
	if len(f.problems) < 20 { // a table may have 2,000 columns
		f.problems = append(f.problems, fmt.Sprintf(format, args...))
	}
}

func (f *schemaFault) status() *status.Status {
	text := numbered("Schema validation failed: "+strings.Join(f.problems, "; "), codeSchema, 0)
	return withInfo(status.New(codes.InvalidArgument, text), &ErrorInfo{
		Reason: "SCHEMA_VALIDATION_FAILED", Domain: errorDomain,
		Metadata: map[string]string{"causes": strings.Join(f.causes, ","), "error_code": strconv.Itoa(codeSchema)},
	})
}

// compileRow compiles a descriptor for the columns of a table. Every field must
// be a column of the right type, and every NOT NULL column a field.
func compileRow(d *rowDescriptor, s *schema, mode SchemaMode) (*protoMessage, *schemaFault) {
	c := compiler{entries: d.entries, exact: mode == SchemaExact}
	m := c.message(d.message, "", s.columns, s.index)
	m.row = d
	if s.id >= 0 {
		m.id = slices.IndexFunc(m.fields, func(f protoField) bool { return f.name == idColumn && f.nested == nil && !f.repeated })
	}
	if len(c.fault.problems) > 0 {
		return nil, &c.fault
	}
	return m, nil
}

type compiler struct {
	entries map[protoreflect.FullName]bool // messages that are entries of a map
	exact   bool
	fault   schemaFault
}

func (c *compiler) message(d protoreflect.MessageDescriptor, path string, columns []field, index map[string]int) *protoMessage {
	m := &protoMessage{id: -1}
	have := map[string]bool{}
	fields := d.Fields()
	if c.exact && fields.Len() != len(columns) {
		what := "the message"
		if path != "" {
			what = "field '" + strings.TrimSuffix(path, ".") + "'"
		}
		c.fault.add(causeCount, "%s has %d fields, expected %d", what, fields.Len(), len(columns))
	}
	last := -1 // the column of the previous field
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Name())
		have[name] = true
		at, ok := index[name]
		if !ok {
			c.fault.add(causeNotInTable, "field '%s' is not in the table", path+name)
			continue
		}
		if c.exact && at < last {
			c.fault.add(causeOutOfOrder, "field '%s' is not in the order of the columns", path+name)
		}
		last = at
		m.add(fd.Number(), c.field(fd, path+name, columns[at].typ))
		if columns[at].notNull {
			m.required = append(m.required, len(m.fields)-1)
		}
	}
	for _, col := range columns {
		if col.notNull && !have[col.name] {
			c.fault.add(causeMissing, "column '%s' is NOT NULL and not in the descriptor", path+col.name)
		}
	}
	return m
}

// maxDense bounds the table from field numbers to fields. Usually a column's
// number is its position plus one, and a table has at most 2,000.
const maxDense = 1 << 14

func (m *protoMessage) add(num protoreflect.FieldNumber, f protoField) {
	if num >= maxDense {
		return // refused by compiler.field
	}
	for int(num) >= len(m.dense) {
		m.dense = append(m.dense, -1)
	}
	m.dense[num] = int32(len(m.fields))
	m.fields = append(m.fields, f)
}

// protoTypes are the protobuf types that the service reads a column from, and
// their encodings.
var protoTypes = map[delta.Kind]struct {
	kind protoreflect.Kind
	wire protowire.Type
}{
	delta.String:       {protoreflect.StringKind, protowire.BytesType},
	delta.Decimal:      {protoreflect.StringKind, protowire.BytesType},
	delta.Variant:      {protoreflect.StringKind, protowire.BytesType},
	delta.Binary:       {protoreflect.BytesKind, protowire.BytesType},
	delta.Struct:       {protoreflect.MessageKind, protowire.BytesType},
	delta.TinyInt:      {protoreflect.Int32Kind, protowire.VarintType},
	delta.SmallInt:     {protoreflect.Int32Kind, protowire.VarintType},
	delta.Int:          {protoreflect.Int32Kind, protowire.VarintType},
	delta.Date:         {protoreflect.Int32Kind, protowire.VarintType},
	delta.BigInt:       {protoreflect.Int64Kind, protowire.VarintType},
	delta.Timestamp:    {protoreflect.Int64Kind, protowire.VarintType},
	delta.TimestampNTZ: {protoreflect.Int64Kind, protowire.VarintType},
	delta.Boolean:      {protoreflect.BoolKind, protowire.VarintType},
	delta.Float:        {protoreflect.FloatKind, protowire.Fixed32Type},
	delta.Double:       {protoreflect.DoubleKind, protowire.Fixed64Type},
}

// mapKeys are the protobuf types that a map's key can have.
var mapKeys = []protoreflect.Kind{protoreflect.StringKind, protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.BoolKind}

// field compiles one field for a column's type.
func (c *compiler) field(fd protoreflect.FieldDescriptor, path string, t *dataType) protoField {
	f := protoField{name: string(fd.Name()), typ: t, wire: protowire.BytesType}
	bad := func(format string, args ...any) protoField {
		c.fault.add(causeIncompatible, "field '%s'"+format, append([]any{path}, args...)...)
		return f
	}
	isEntry := fd.Kind() == protoreflect.MessageKind && c.entries[fd.Message().FullName()]
	isMap := fd.IsList() && isEntry
	switch {
	case fd.Number() >= maxDense:
		return bad(" has the number %d; the emulator takes numbers below %d", fd.Number(), maxDense)
	case t.Kind == delta.Map && !isMap:
		return bad(" must be a map for %s", t.text())
	case t.Kind == delta.Map:
		f.nested = c.entry(fd, path, t)
		return f
	case t.Kind == delta.Array && (!fd.IsList() || isMap):
		return bad(" must be repeated for %s", t.text())
	case t.Kind == delta.Array && (t.elem.Kind == delta.Array || t.elem.Kind == delta.Map):
		return bad(": protobuf cannot hold %s", t.text())
	case t.Kind == delta.Array:
		f.repeated, f.typ = true, t.elem
	case fd.IsList():
		return bad(" must not be repeated for %s", t.text())
	}
	want := protoTypes[f.typ.Kind]
	if fd.Kind() != want.kind || isEntry {
		return bad(" is %s, expected %s for %s", fd.Kind(), want.kind, t.text())
	}
	f.wire = want.wire
	if f.typ.Kind == delta.Struct {
		f.nested = c.message(fd.Message(), path+".", f.typ.fields, f.typ.index)
	}
	return f
}

// entry compiles the entry message of a MAP: its key, then its value.
func (c *compiler) entry(fd protoreflect.FieldDescriptor, path string, t *dataType) *protoMessage {
	m := &protoMessage{id: -1}
	key, value := fd.Message().Fields().ByNumber(1), fd.Message().Fields().ByNumber(2)
	switch k := t.elem.Kind; {
	case k == delta.Map, k == delta.Array, !slices.Contains(mapKeys, protoTypes[t.key.Kind].kind):
		c.fault.add(causeIncompatible, "field '%s': protobuf cannot hold %s", path, t.text())
		return m
	case key == nil || value == nil || fd.Message().Fields().Len() != 2:
		c.fault.add(causeIncompatible, "field '%s': an entry of a map has the fields 1, key, and 2, value", path)
		return m
	}
	for i, part := range []struct {
		fd protoreflect.FieldDescriptor
		t  *dataType
	}{{key, t.key}, {value, t.elem}} {
		f := c.field(part.fd, path+"."+string(part.fd.Name()), part.t)
		m.add(part.fd.Number(), f)
		// A missing part is its type's zero, which these do not have.
		if k := part.t.Kind; k == delta.Decimal || k == delta.Variant || f.nested != nil && len(f.nested.required) > 0 {
			m.required = append(m.required, i)
		}
	}
	return m
}
