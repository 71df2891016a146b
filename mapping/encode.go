package mapping

import (
	"encoding/base64"
	"slices"
	"strconv"

	"github.com/datafly/bridge/internal/delta"
)

// encoder writes values the way Zerobus takes them. In JSON: TIMESTAMP as
// microseconds since 1970, DATE as days, DECIMAL and VARIANT as strings,
// BINARY in base64, BIGINT beyond 2^53 as a string. In protobuf: see wire.go.
type encoder struct {
	scratch
	members []member // of the objects on their way into a STRUCT, the outer ones first

	rfc3339  bool // TIMESTAMP and TIMESTAMP_NTZ as text
	wire     bool // write protobuf
	noNulls  bool // refuse what protobuf cannot hold, also while Explain shows JSON
	verbatim bool // keys of objects are the customer's own, see spellings
}

func newEncoder(o Options) encoder {
	protobuf := o.Format == "protobuf"
	return encoder{rfc3339: o.TimestampFormat == "rfc3339", wire: protobuf, noNulls: protobuf}
}

// reset forgets what was made for the column before.
func (e *encoder) reset() { e.buf, e.members = e.buf[:0], e.members[:0] }

// append appends v for a column of type t. Where the type cannot hold the
// value nothing useful is appended and the refusal says why.
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
