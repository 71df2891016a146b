package emulator

import (
	"encoding/base64"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/datafly/bridge/internal/delta"
)

// protoMessage validates the protobuf messages of one descriptor as rows, or
// STRUCT values, of a table. It is compiled once per stream and schema, and
// immutable.
type protoMessage struct {
	fields   []protoField
	dense    []int32        // field number -> position in fields, or -1
	required []int          // fields that have to occur
	id       int            // position of message_id, or -1
	row      *rowDescriptor // of a row
}

// protoField is a field of the descriptor and the column it fills.
type protoField struct {
	name     string
	typ      *dataType
	wire     protowire.Type
	repeated bool          // an ARRAY: typ is its element
	nested   *protoMessage // of a STRUCT: its fields; of a MAP: key and value
}

// protoReader validates the protobuf rows of one message in a single pass. It
// is reused from message to message.
type protoReader struct {
	rows      []newRow
	textTimes bool
	bits      []uint64 // which fields have occurred in the messages being read, innermost last
	field     string   // the column with the problem
}

// row reads one row. It returns what is wrong with it, or "".
func (r *protoReader) row(m *protoMessage, src []byte) string {
	r.rows = append(r.rows, newRow{raw: src})
	r.bits = r.bits[:0]
	r.field = ""
	problem := r.message(m, src, true)
	if problem == "" && m.id >= 0 && m.fields[m.id].wire != protowire.BytesType {
		r.rows[len(r.rows)-1].id, _ = columnText(m.appendJSON(nil, src), idColumn)
	}
	return problem
}

const notProtobuf = "failed to decode Protobuf message: invalid wire format"

// message reads b: a row with top, else a value of a column.
func (r *protoReader) message(m *protoMessage, b []byte, top bool) string {
	mine := len(r.bits)
	for range (len(m.fields) + 63) / 64 {
		r.bits = append(r.bits, 0)
	}
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return notProtobuf
		}
		b = b[n:]
		i := -1
		if int(num) < len(m.dense) {
			i = int(m.dense[num])
		}
		if i < 0 {
			return "unknown field number " + strconv.Itoa(int(num)) + ", which the stream's descriptor does not have"
		}
		f := &m.fields[i]
		if top {
			r.field = f.name
		}
		bit := &r.bits[mine+i/64]
		if *bit&(1<<(i%64)) != 0 && !f.repeated && f.typ.Kind != delta.Map {
			return "the field occurs twice"
		}
		*bit |= 1 << (i % 64)
		var v []byte
		if wire == protowire.BytesType {
			if v, n = protowire.ConsumeBytes(b); n < 0 {
				return notProtobuf
			}
		}
		problem := ""
		switch {
		case wire != f.wire && (wire != protowire.BytesType || !f.repeated):
			return "invalid wire type: " + wireName(wire) + ", expected " + wireName(f.wire)
		case wire != f.wire: // packed
			for len(v) > 0 && problem == "" {
				var size int
				size, problem = scalar(f.typ, f.wire, v)
				v = v[size:]
			}
		case wire != protowire.BytesType:
			n, problem = scalar(f.typ, wire, b)
		case f.nested != nil:
			problem = r.message(f.nested, v, false)
		default:
			if problem = r.bytes(f.typ, v); top && i == m.id {
				r.rows[len(r.rows)-1].id = v
			}
		}
		if problem != "" {
			return problem
		}
		b = b[n:]
	}
	for _, i := range m.required {
		if r.bits[mine+i/64]&(1<<(i%64)) == 0 {
			if top {
				r.field = m.fields[i].name
				return "is NOT NULL and missing"
			}
			return "lacks the NOT NULL field " + strconv.Quote(m.fields[i].name)
		}
	}
	r.bits = r.bits[:mine]
	return ""
}

// scalar reads a value that is not length-delimited. n is its length, 0 if it
// has a problem.
func scalar(t *dataType, wire protowire.Type, b []byte) (n int, problem string) {
	switch wire {
	case protowire.VarintType:
		var v uint64
		v, n = protowire.ConsumeVarint(b)
		problem = rangeProblem(t, int64(v))
	case protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(b)
	default:
		_, n = protowire.ConsumeFixed64(b)
	}
	if n < 0 {
		return 0, notProtobuf
	}
	return n, problem
}

// bytes validates a length-delimited value against a type.
func (r *protoReader) bytes(t *dataType, v []byte) string {
	switch {
	case t.Kind == delta.Binary:
		return ""
	case !utf8.Valid(v):
		return "invalid UTF-8 in a string"
	case t.plainString():
		return ""
	}
	return textProblem(t, v, r.textTimes)
}

func wireName(t protowire.Type) string {
	switch t {
	case protowire.VarintType:
		return "Varint"
	case protowire.Fixed32Type:
		return "ThirtyTwoBit"
	case protowire.Fixed64Type:
		return "SixtyFourBit"
	case protowire.BytesType:
		return "LengthDelimited"
	}
	return "group"
}

// appendJSON writes a valid row as a JSON object, its columns in the order of
// the descriptor.
func (m *protoMessage) appendJSON(dst, b []byte) []byte {
	row := dynamicpb.NewMessage(m.row.message)
	_ = proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(b, row) // the row is valid
	return m.row.appendMessage(dst, row)
}

func (d *rowDescriptor) appendMessage(dst []byte, m protoreflect.Message) []byte {
	dst = append(dst, '{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		dst = appendName(dst, []byte(fd.Name()))
		switch {
		case !fd.IsList():
			dst = d.appendValue(dst, fd, m.Get(fd))
		case fd.Kind() == protoreflect.MessageKind && d.entries[fd.Message().FullName()]:
			dst = d.appendMap(dst, m.Get(fd).List())
		default:
			dst = append(dst, '[')
			for k := range m.Get(fd).List().Len() {
				if k > 0 {
					dst = append(dst, ',')
				}
				dst = d.appendValue(dst, fd, m.Get(fd).List().Get(k))
			}
			dst = append(dst, ']')
		}
	}
	return append(dst, '}')
}

// appendMap writes the entries of a MAP. As in protobuf, the last entry of a
// key counts, and a missing part is its type's zero.
func (d *rowDescriptor) appendMap(dst []byte, entries protoreflect.List) []byte {
	var keys []string
	last := map[string]protoreflect.Message{}
	for i := range entries.Len() {
		e := entries.Get(i).Message()
		key := e.Get(e.Descriptor().Fields().ByNumber(1)).String()
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
		last[key] = e
	}
	dst = append(dst, '{')
	for _, key := range keys {
		fd := last[key].Descriptor().Fields().ByNumber(2)
		dst = d.appendValue(appendName(dst, []byte(key)), fd, last[key].Get(fd))
	}
	return append(dst, '}')
}

func (d *rowDescriptor) appendValue(dst []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(dst, v.Bool())
	case protoreflect.FloatKind:
		return appendFloat(dst, v.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(dst, v.Float(), 64)
	case protoreflect.StringKind:
		return appendQuoted(dst, []byte(v.String()))
	case protoreflect.BytesKind:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes()), '"')
	case protoreflect.MessageKind:
		return d.appendMessage(dst, v.Message())
	}
	return strconv.AppendInt(dst, v.Int(), 10)
}
