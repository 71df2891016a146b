package mapping

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// encoder writes values the way Zerobus takes them in JSON: TIMESTAMP as
// microseconds since 1970, DATE as days, DECIMAL and VARIANT as strings,
// BINARY in base64, BIGINT beyond 2^53 as a string.
type encoder struct {
	scratch
	rfc3339 bool // TIMESTAMP and TIMESTAMP_NTZ as text
}

// append appends v for a column of type t. Where the type cannot hold the
// value nothing useful is appended and the refusal says why.
func (e *encoder) append(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	switch t.base {
	case stringType:
		return e.appendString(dst, t, v)
	case booleanType:
		return e.appendBoolean(dst, v)
	case tinyintType:
		return e.appendInt(dst, v, -1<<7, 1<<7-1)
	case smallintType:
		return e.appendInt(dst, v, -1<<15, 1<<15-1)
	case intType:
		return e.appendInt(dst, v, -1<<31, 1<<31-1)
	case bigintType:
		return e.appendInt(dst, v, -1<<63, 1<<63-1)
	case floatType:
		return e.appendFloat(dst, v, 32)
	case doubleType:
		return e.appendFloat(dst, v, 64)
	case decimalType:
		return e.appendDecimal(dst, t, v)
	case dateType:
		return e.appendDate(dst, v)
	case timestampType:
		return e.appendTimestamp(dst, v, "Z")
	case timestampNTZType:
		return e.appendTimestamp(dst, v, "")
	case binaryType:
		return e.appendBinary(dst, v)
	case variantType:
		return e.appendVariant(dst, v), refusal{}
	case arrayType:
		return e.appendArray(dst, t, v)
	}
	return e.appendMap(dst, t, v)
}

func (e *encoder) appendString(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	if t.length > 0 && utf8.RuneCount(e.text(v)) > t.length {
		return dst, refusal{CodeOutOfRange, "is longer than the column"}
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

func (e *encoder) appendBoolean(dst []byte, v val) ([]byte, refusal) {
	switch v.kind {
	case trueLit, falseLit:
		return append(dst, v.b...), refusal{}
	case str, strEsc, plainText:
		switch text := e.text(v); {
		case equalFold(text, "true"):
			return append(dst, "true"...), refusal{}
		case equalFold(text, "false"):
			return append(dst, "false"...), refusal{}
		}
		return dst, mismatch("is neither true nor false")
	}
	return dst, mismatch("is neither true nor false; add transform: to_bool where 0 and 1 are meant")
}

// equalFold compares text with lower-case ASCII regardless of case.
func equalFold(text []byte, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// maxExact is the largest integer every JSON reader keeps, 2^53.
const maxExact = 1 << 53

func (e *encoder) appendInt(dst []byte, v val, low, high int64) ([]byte, refusal) {
	var n int64
	if v.kind == pointInTime {
		n = v.t.millis() // as Kafka counts time
	} else {
		text, r := e.number(v)
		if r.code != "" {
			return dst, r
		}
		var buf [48]byte
		d, ok := parseDecimal(buf[:0], text)
		if !ok {
			return dst, refusal{CodeOutOfRange, "is beyond the type's range"}
		}
		var whole, fits bool
		if n, whole, fits = d.int64(); !whole {
			return dst, mismatch("is not a whole number")
		} else if !fits {
			return dst, refusal{CodeOutOfRange, "is beyond the type's range"}
		}
	}
	if n < low || n > high {
		return dst, refusal{CodeOutOfRange, "is beyond the type's range"}
	}
	if n > maxExact || n < -maxExact {
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, n, 10)
		return append(dst, '"'), refusal{}
	}
	return strconv.AppendInt(dst, n, 10), refusal{}
}

func (e *encoder) appendFloat(dst []byte, v val, bitSize int) ([]byte, refusal) {
	text, r := e.number(v)
	if r.code != "" {
		return dst, r
	}
	if !fitsFloat(text, bitSize) {
		return dst, refusal{CodeOutOfRange, "is beyond the type's range"}
	}
	return append(dst, text...), refusal{}
}

func (e *encoder) appendDecimal(dst []byte, t *deltaType, v val) ([]byte, refusal) {
	text, r := e.number(v)
	if r.code != "" {
		return dst, r
	}
	var buf [48]byte
	d, ok := parseDecimal(buf[:0], text)
	if !ok || len(d.digits)-d.scale > t.precision-t.scale {
		return dst, refusal{CodeOutOfRange, "has more digits before the point than the type"}
	}
	if d.scale > t.scale {
		return dst, refusal{CodeOutOfRange, "has more digits after the point than the type"}
	}
	dst = append(dst, '"')
	dst = d.appendPlain(dst)
	return append(dst, '"'), refusal{}
}

// lastDay is 9999-12-31 in days; whole numbers up to it are days already,
// larger ones are epoch times (a table row that is mapped already has days).
const lastDay = 2932896

func (e *encoder) appendDate(dst []byte, v val) ([]byte, refusal) {
	if v.kind == number {
		var buf [48]byte
		if d, ok := parseDecimal(buf[:0], v.b); ok {
			if n, whole, fits := d.int64(); whole && fits && -719162 <= n && n <= lastDay {
				return strconv.AppendInt(dst, n, 10), refusal{}
			}
		}
	}
	t, r := e.instant(v)
	if r.code != "" {
		return dst, r
	}
	return strconv.AppendInt(dst, t.days(), 10), refusal{}
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
	if v.kind == rawBytes {
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.b)
		return append(dst, '"'), refusal{}
	}
	if !v.isText() {
		return dst, mismatch("is not a base64 string")
	}
	text := e.text(v)
	if !isBase64(text) {
		return dst, mismatch("is not standard base64 with padding")
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"'), refusal{}
}

// isBase64 reports whether text is base64 as RFC 4648 section 4 has it.
func isBase64(text []byte) bool {
	if len(text)%4 != 0 {
		return false
	}
	body := text
	for n := 0; n < 2 && len(body) > 0 && body[len(body)-1] == '='; n++ {
		body = body[:len(body)-1]
	}
	for _, c := range body {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// appendVariant appends the value's JSON text as a string.
func (e *encoder) appendVariant(dst []byte, v val) []byte {
	switch v.kind {
	case str, strEsc, number, trueLit, falseLit:
		return appendQuoted(dst, v.b)
	case object, array:
		return appendQuoted(dst, e.text(v))
	}
	text := e.text(v)
	return appendQuoted(dst, e.add(func(b []byte) []byte { return appendQuoted(b, text) }))
}
