package mapping

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/datafly/bridge/internal/delta"
)

// encoder writes values the way Zerobus takes them. In JSON: TIMESTAMP as
// microseconds since 1970, DATE as days, DECIMAL and VARIANT as strings,
// BINARY in base64, BIGINT beyond 2^53 as a string. In protobuf: see row.go.
type encoder struct {
	scratch
	members []member // of the objects on their way into a STRUCT, the outer ones first

	rfc3339  bool // TIMESTAMP and TIMESTAMP_NTZ as text
	protobuf bool // write protobuf, not JSON
	noNulls  bool // refuse what protobuf cannot hold, also while Explain shows JSON
	verbatim bool // keys of objects are the customer's own, see spellings
}

func newEncoder(o Options) encoder {
	protobuf := o.Format == "protobuf"
	return encoder{rfc3339: o.TimestampFormat == "rfc3339", protobuf: protobuf, noNulls: protobuf}
}

// reset forgets what was made for the column before.
func (e *encoder) reset() { e.buf, e.members = e.buf[:0], e.members[:0] }

// append appends v for a column of type t. Where the type cannot hold the
// value nothing useful is appended and the refusal gives the reason.
func (e *encoder) append(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	switch t.Kind {
	case delta.String:
		return e.appendString(dst, t, v)
	case delta.Boolean:
		b, r := e.boolean(v)
		return strconv.AppendBool(dst, b), r
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt:
		return e.appendInt(dst, t, v)
	case delta.Float:
		_, text, r := e.float(v, 32)
		return append(dst, text...), r
	case delta.Double:
		_, text, r := e.float(v, 64)
		return append(dst, text...), r
	case delta.Decimal:
		return e.appendDecimal(dst, t, v)
	case delta.Date:
		days, r := e.days(v)
		return strconv.AppendInt(dst, days, 10), r
	case delta.Timestamp:
		return e.appendTimestamp(dst, v, "Z")
	case delta.TimestampNTZ:
		return e.appendTimestamp(dst, v, "")
	case delta.Binary:
		return e.appendBinary(dst, v)
	case delta.Variant:
		return e.appendVariant(dst, v), refusal{}
	case delta.Array:
		return e.appendArray(dst, t, v)
	case delta.Map:
		return e.appendMap(dst, t, v)
	}
	return e.appendStruct(dst, t, v)
}

func (e *encoder) appendString(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	if r := e.fits(t, v); r.code != "" {
		return dst, r
	}
	switch v.kind {
	case str, strEsc:
		return append(dst, v.b...), refusal{}
	case number, trueLit, falseLit:
		dst = append(dst, '"')
		dst = append(dst, v.b...)
		return append(dst, '"'), refusal{}
	}
	return appendQuoted(dst, e.text(v)), refusal{}
}

// maxExact is the largest integer every JSON reader keeps, 2^53.
const maxExact = 1 << 53

func (e *encoder) appendInt(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	n, r := e.integer(t, v)
	if n > maxExact || n < -maxExact {
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, n, 10)
		return append(dst, '"'), r
	}
	return strconv.AppendInt(dst, n, 10), r
}

func (e *encoder) appendDecimal(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	var buf [48]byte
	d, r := e.decimal(buf[:0], t, v)
	if r.code != "" {
		return dst, r
	}
	dst = append(dst, '"')
	dst = d.appendPlain(dst)
	return append(dst, '"'), refusal{}
}

func (e *encoder) appendTimestamp(dst []byte, v val, zone string) ([]byte, refusal) {
	t, r := e.instant(v)
	if r.code != "" {
		return dst, r
	}
	if e.rfc3339 {
		dst = append(dst, '"')
		dst = t.appendRFC3339(dst, zone)
		return append(dst, '"'), refusal{}
	}
	return strconv.AppendInt(dst, t.micros(), 10), refusal{}
}

func (e *encoder) appendBinary(dst []byte, v val) ([]byte, refusal) {
	dst = append(dst, '"')
	if v.kind == rawBytes {
		dst = base64.StdEncoding.AppendEncode(dst, v.b)
		return append(dst, '"'), refusal{}
	}
	text, r := e.base64(v)
	dst = append(dst, text...)
	return append(dst, '"'), r
}

// appendVariant appends the value's JSON text as a string.
func (e *encoder) appendVariant(dst []byte, v val) []byte {
	switch v.kind {
	case str, strEsc, number, trueLit, falseLit:
		return appendQuoted(dst, v.b)
	}
	return appendQuoted(dst, e.add(func(b []byte) []byte { return appendJSON(b, v) }))
}

// appendArray appends a JSON array whose elements fit the element type. A null
// inside has no place in a Zerobus array, and leaving it out would move its
// neighbours, so it is refused.
func (e *encoder) appendArray(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	dst = append(dst, '[')
	it, r := elements(v)
	for first := true; r.code == "" && it.next(); first = false {
		if it.value.kind == null {
			return dst, nullInArray
		}
		if !first {
			dst = append(dst, ',')
		}
		if dst, r = e.append(dst, t.elem, it.value); r.code != "" {
			return dst, r.inside("an element")
		}
	}
	return append(dst, ']'), r
}

// appendMap appends a JSON object whose values fit the value type. A member
// that is null is left out, like a column that is null.
func (e *encoder) appendMap(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	dst = append(dst, '{')
	it, r := pairs(v)
	for first := true; r.code == "" && it.nextPair(); {
		if it.value.kind == null {
			if e.noNulls {
				return dst, nullInMap
			}
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		from := len(dst)
		if dst, r = e.append(dst, t.key, e.mapKey(t.key, it.key)); r.code != "" {
			return dst, r.inside("a key")
		}
		if dst[from] != '"' {
			dst = append(slices.Insert(dst, from, '"'), '"')
		}
		dst = append(dst, ':')
		if dst, r = e.append(dst, t.elem, it.value); r.code != "" {
			return dst, r.inside("a value")
		}
	}
	return append(dst, '}'), r
}

// appendStruct appends a JSON object with the fields that have a value.
func (e *encoder) appendStruct(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	from, r := e.open(t, v)
	if r.code != "" {
		return dst, r
	}
	dst = append(dst, '{')
	comma := false
	for i := range t.fields {
		f := &t.fields[i]
		value, r := e.fieldValue(f, v, from+i)
		if r.code != "" {
			return dst, r
		}
		if value.kind <= null {
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = append(dst, f.key...)
		outer := e.verbatim
		e.verbatim = outer || f.verbatim
		if dst, r = e.append(dst, f.typ, value); r.code != "" {
			return dst, r.inside("a field " + f.name)
		}
		e.verbatim = outer
	}
	e.members = e.members[:from]
	return append(dst, '}'), refusal{}
}

// Rows in protobuf are messages of proto2: every scalar that is not NULL is
// written, also where it is zero, and repeated scalars are not packed. Delta
// types travel as the Databricks documentation maps them for Zerobus Ingest:
// DATE as int32 days, TIMESTAMP as int64 microseconds, DECIMAL and VARIANT as
// strings, STRUCT as a message, ARRAY as a repeated field, MAP as a map.
// https://protobuf.dev/programming-guides/encoding/

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2 // length-delimited
	wireFixed32 = 5
)

// maxNumber is the largest field number; reservedFrom to reservedTo are
// protobuf's own.
const (
	maxNumber    = 1<<29 - 1
	reservedFrom = 19000
	reservedTo   = 19999
)

// wireTag returns the tag of a field of type t. For an ARRAY it is the tag of
// every element.
func wireTag(number int32, t *deltaType) uint64 {
	if t.Kind == delta.Array {
		t = t.elem
	}
	wireType := wireBytes
	switch t.Kind {
	case delta.Boolean, delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt, delta.Date, delta.Timestamp, delta.TimestampNTZ:
		wireType = wireVarint
	case delta.Float:
		wireType = wireFixed32
	case delta.Double:
		wireType = wireFixed64
	}
	return uint64(number)<<3 | uint64(wireType)
}

// appendField appends v as a field of type t: the tag and the value, for ARRAY
// and MAP as often as they have elements. Where the type cannot hold the value
// nothing useful is appended and the refusal gives the reason.
func (e *encoder) appendField(dst []byte, tag uint64, t *deltaType, v val) ([]byte, refusal) {
	switch t.Kind {
	case delta.Array:
		return e.appendRepeated(dst, tag, t, v)
	case delta.Map:
		return e.appendEntries(dst, tag, t, v)
	case delta.Struct:
		return e.appendMessage(dst, tag, t, v)
	}
	dst = appendTag(dst, tag)
	switch t.Kind {
	case delta.String:
		r := e.fits(t, v)
		return appendTextField(dst, v), r
	case delta.Boolean:
		b, r := e.boolean(v)
		if b {
			return append(dst, 1), r
		}
		return append(dst, 0), r
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt:
		n, r := e.integer(t, v)
		return binary.AppendUvarint(dst, uint64(n)), r // negative ones as ten bytes, int32 too
	case delta.Float:
		f, _, r := e.float(v, 32)
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(f))), r
	case delta.Double:
		f, _, r := e.float(v, 64)
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), r
	case delta.Decimal:
		var buf [48]byte
		d, r := e.decimal(buf[:0], t, v)
		if r.code != "" {
			return dst, r
		}
		dst = append(dst, 0)
		from := len(dst)
		return closeLength(d.appendPlain(dst), from), refusal{}
	case delta.Date:
		n, r := e.days(v)
		return binary.AppendUvarint(dst, uint64(n)), r
	case delta.Timestamp, delta.TimestampNTZ:
		at, r := e.instant(v)
		return binary.AppendUvarint(dst, uint64(at.micros())), r
	case delta.Binary:
		return e.appendBytes(dst, v)
	}
	dst = append(dst, 0) // VARIANT
	from := len(dst)
	return closeLength(appendJSON(dst, v), from), refusal{}
}

func appendTag(dst []byte, tag uint64) []byte {
	if tag < 1<<7 {
		return append(dst, byte(tag))
	}
	if tag < 1<<14 {
		return append(dst, byte(tag)|1<<7, byte(tag>>7))
	}
	return binary.AppendUvarint(dst, tag)
}

// appendLengthed appends the length and the body of text that stands as it is.
func appendLengthed(dst, text []byte) []byte {
	if n := len(text); n < 1<<7 {
		dst = append(dst, byte(n))
	} else {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return append(dst, text...)
}

// appendTextField appends the text of v behind its length.
func appendTextField(dst []byte, v val) []byte {
	if v.kind == str {
		return appendLengthed(dst, v.b[1:len(v.b)-1])
	}
	dst = append(dst, 0)
	from := len(dst)
	return closeLength(appendText(dst, v), from)
}

// closeLength puts the length of dst[from:] before it, where one byte has been
// kept for it. What is longer than 127 bytes moves up to make room.
func closeLength(dst []byte, from int) []byte {
	n := len(dst) - from
	if n < 1<<7 {
		dst[from-1] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[:size-1]...) // makes room; the bytes are written over
	copy(dst[from+size-1:], dst[from:from+n])
	copy(dst[from-1:], length[:size])
	return dst
}

func (e *encoder) appendBytes(dst []byte, v val) ([]byte, refusal) {
	if v.kind == rawBytes {
		return appendLengthed(dst, v.b), refusal{}
	}
	text, r := e.base64(v)
	if r.code != "" {
		return dst, r
	}
	dst = append(dst, 0)
	from := len(dst)
	dst, err := base64.StdEncoding.AppendDecode(dst, text)
	if err != nil {
		return dst, mismatch("is not standard base64 with padding")
	}
	return closeLength(dst, from), refusal{}
}

// appendRepeated appends a field for every element.
func (e *encoder) appendRepeated(dst []byte, tag uint64, t *deltaType, v val) ([]byte, refusal) {
	it, r := elements(v)
	for r.code == "" && it.next() {
		if it.value.kind == null {
			return dst, nullInArray
		}
		if dst, r = e.appendField(dst, tag, t.elem, it.value); r.code != "" {
			return dst, r.inside("an element")
		}
	}
	return dst, r
}

// appendEntries appends for every member a message with the key as field 1 and
// the value as field 2. A null has no place there, and a member without a
// value would come out as zero, so it is refused.
func (e *encoder) appendEntries(dst []byte, tag uint64, t *deltaType, v val) ([]byte, refusal) {
	keyTag, valueTag := wireTag(1, t.key), wireTag(2, t.elem)
	it, r := pairs(v)
	for r.code == "" && it.nextPair() {
		if it.value.kind == null {
			return dst, nullInMap
		}
		dst = append(appendTag(dst, tag), 0)
		from := len(dst)
		if dst, r = e.appendField(dst, keyTag, t.key, e.mapKey(t.key, it.key)); r.code != "" {
			return dst, r.inside("a key")
		}
		if dst, r = e.appendField(dst, valueTag, t.elem, it.value); r.code != "" {
			return dst, r.inside("a value")
		}
		dst = closeLength(dst, from)
	}
	return dst, r
}

// appendMessage appends a message with the fields that have a value.
func (e *encoder) appendMessage(dst []byte, tag uint64, t *deltaType, v val) ([]byte, refusal) {
	first, r := e.open(t, v)
	if r.code != "" {
		return dst, r
	}
	dst = append(appendTag(dst, tag), 0)
	from := len(dst)
	for i := range t.fields {
		f := &t.fields[i]
		value, r := e.fieldValue(f, v, first+i)
		if r.code != "" {
			return dst, r
		}
		if value.kind <= null {
			continue
		}
		outer := e.verbatim
		e.verbatim = outer || f.verbatim
		if dst, r = e.appendField(dst, f.tag, f.typ, value); r.code != "" {
			return dst, r.inside("a field " + f.name)
		}
		e.verbatim = outer
	}
	e.members = e.members[:first]
	return closeLength(dst, from), refusal{}
}
