package emulator

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// protoMessage reads the protobuf messages of one descriptor as rows, or
// STRUCT values, of a table. It is compiled once per stream and schema, and
// immutable.
type protoMessage struct {
	fields   []protoField
	dense    []int32 // field number -> position in fields, or -1
	required []int   // fields that have to occur
	id       int     // position of message_id, or -1
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
	bits      []uint64 // which fields the messages being read have had, innermost last
	field     string   // the column to blame
}

// row reads one row. It returns what is wrong with it, or "".
func (r *protoReader) row(m *protoMessage, src []byte) string {
	r.rows = append(r.rows, newRow{raw: src})
	r.bits = r.bits[:0]
	r.field = ""
	return r.message(m, src, true)
}

// plain is what a scalar value reads as, without quotes.
func (f *protoField) plain(v []byte) []byte {
	if f.wire == protowire.BytesType {
		return v
	}
	return f.appendValue(nil, v)
}

const notProtobuf = "failed to decode Protobuf message: invalid wire format"

// message reads b: a row with top, else a value of a column.
func (r *protoReader) message(m *protoMessage, b []byte, top bool) string {
	mine := len(r.bits)
	for range (len(m.fields) + 63) / 64 {
		r.bits = append(r.bits, 0)
	}
	for pos := 0; pos < len(b); {
		num, wire, n := protowire.ConsumeTag(b[pos:])
		if n < 0 {
			return notProtobuf
		}
		pos += n
		i := m.field(num)
		if i < 0 {
			return "unknown field number " + strconv.Itoa(int(num)) + ", which the stream's descriptor does not have"
		}
		f := &m.fields[i]
		if top {
			r.field = f.name
		}
		bit := &r.bits[mine+i/64]
		if *bit&(1<<(i%64)) != 0 && !f.repeated && f.typ.kind != kindMap {
			return "the field occurs twice"
		}
		*bit |= 1 << (i % 64)
		if wire != f.wire {
			if wire != protowire.BytesType || !f.repeated {
				return "invalid wire type: " + wireName(wire) + ", expected " + wireName(f.wire)
			}
			var packed []byte
			if packed, n = protowire.ConsumeBytes(b[pos:]); n < 0 {
				return notProtobuf
			}
			for len(packed) > 0 {
				k, problem := r.scalar(f.typ, f.wire, packed)
				if problem != "" {
					return problem
				}
				packed = packed[k:]
			}
			pos += n
			continue
		}
		if wire != protowire.BytesType {
			n, problem := r.scalar(f.typ, wire, b[pos:])
			if problem != "" {
				return problem
			}
			if top && i == m.id {
				r.rows[len(r.rows)-1].id = f.plain(b[pos : pos+n])
			}
			pos += n
			continue
		}
		v, n := protowire.ConsumeBytes(b[pos:])
		if n < 0 {
			return notProtobuf
		}
		pos += n
		if f.nested != nil {
			if problem := r.message(f.nested, v, false); problem != "" {
				return problem
			}
			continue
		}
		if problem := r.bytes(f.typ, v); problem != "" {
			return problem
		}
		if top && i == m.id {
			r.rows[len(r.rows)-1].id = f.plain(v)
		}
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

func (m *protoMessage) field(num protowire.Number) int {
	if int(num) < len(m.dense) {
		return int(m.dense[num])
	}
	return -1
}

// scalar consumes a value that is not length-delimited.
func (r *protoReader) scalar(t *dataType, wire protowire.Type, b []byte) (n int, problem string) {
	switch wire {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, notProtobuf
		}
		low, high := int64(math.MinInt64), int64(math.MaxInt64)
		switch t.kind {
		case kindByte:
			low, high = math.MinInt8, math.MaxInt8
		case kindShort:
			low, high = math.MinInt16, math.MaxInt16
		case kindInt, kindDate:
			low, high = math.MinInt32, math.MaxInt32
		}
		if int64(v) < low || int64(v) > high {
			return 0, "is out of range for " + t.text()
		}
		return n, ""
	case protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(b)
	default:
		_, n = protowire.ConsumeFixed64(b)
	}
	if n < 0 {
		return 0, notProtobuf
	}
	return n, ""
}

// bytes validates a length-delimited value against a type.
func (r *protoReader) bytes(t *dataType, v []byte) string {
	if t.kind == kindBinary {
		return ""
	}
	if !utf8.Valid(v) {
		return "invalid UTF-8 in a string"
	}
	if t.kind == kindString {
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

// eachValue walks the values of a message that has passed validation: i is a
// position in fields, v a value without its length, of packed ones each.
func (m *protoMessage) eachValue(b []byte, each func(i int, v []byte)) {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		b = b[n:]
		n = protowire.ConsumeFieldValue(num, wire, b)
		i, v := m.field(num), b[:n]
		b = b[n:]
		if wire == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(v)
		}
		if wire == m.fields[i].wire {
			each(i, v)
			continue
		}
		for len(v) > 0 { // packed
			n := protowire.ConsumeFieldValue(num, m.fields[i].wire, v)
			each(i, v[:n])
			v = v[n:]
		}
	}
}

// appendJSON writes a message that has passed validation as a JSON object, its
// columns in the order of the descriptor.
func (m *protoMessage) appendJSON(dst, b []byte) []byte {
	values := make([][][]byte, len(m.fields))
	m.eachValue(b, func(i int, v []byte) { values[i] = append(values[i], v) })
	dst = append(dst, '{')
	for i := range m.fields {
		f := &m.fields[i]
		if len(values[i]) == 0 {
			continue
		}
		dst = appendName(dst, []byte(f.name))
		switch {
		case f.repeated:
			dst = append(dst, '[')
			for k, v := range values[i] {
				if k > 0 {
					dst = append(dst, ',')
				}
				dst = f.appendValue(dst, v)
			}
			dst = append(dst, ']')
		case f.typ.kind == kindMap:
			dst = f.nested.appendMap(dst, values[i])
		default:
			dst = f.appendValue(dst, values[i][0])
		}
	}
	return append(dst, '}')
}

// appendMap writes the entries of a MAP. As protobuf has it, the last entry of
// a key counts, and a part that is missing is its type's zero.
func (m *protoMessage) appendMap(dst []byte, entries [][]byte) []byte {
	var keys []string
	last := map[string][]byte{}
	for _, e := range entries {
		parts := [2][]byte{m.fields[0].zero(), m.fields[1].zero()}
		m.eachValue(e, func(i int, v []byte) { parts[i] = v })
		key := string(m.fields[0].plain(parts[0]))
		if _, again := last[key]; !again {
			keys = append(keys, key)
		}
		last[key] = parts[1]
	}
	dst = append(dst, '{')
	for _, key := range keys {
		dst = m.fields[1].appendValue(appendName(dst, []byte(key)), last[key])
	}
	return append(dst, '}')
}

// zero is the wire form of the value of a field that is not there.
func (f *protoField) zero() []byte {
	switch f.wire {
	case protowire.VarintType:
		return []byte{0}
	case protowire.Fixed32Type:
		return make([]byte, 4)
	case protowire.Fixed64Type:
		return make([]byte, 8)
	}
	return nil
}

func (f *protoField) appendValue(dst, v []byte) []byte {
	switch f.wire {
	case protowire.VarintType:
		n, _ := protowire.ConsumeVarint(v)
		if f.typ.kind == kindBoolean {
			return strconv.AppendBool(dst, n != 0)
		}
		return strconv.AppendInt(dst, int64(n), 10)
	case protowire.Fixed32Type:
		n, _ := protowire.ConsumeFixed32(v)
		return appendFloat(dst, float64(math.Float32frombits(n)), 32)
	case protowire.Fixed64Type:
		n, _ := protowire.ConsumeFixed64(v)
		return appendFloat(dst, math.Float64frombits(n), 64)
	}
	switch {
	case f.nested != nil:
		return f.nested.appendJSON(dst, v)
	case f.typ.kind == kindBinary:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, '"')
	}
	return appendQuoted(dst, v)
}

func appendFloat(dst []byte, v float64, size int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, size)
}
