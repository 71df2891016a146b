package mapping

import (
	"unicode/utf8"

	"github.com/datafly/bridge/internal/delta"
)

// What a scalar type takes is settled here, once for rows in JSON and in
// protobuf; how it is written is the business of encode.go and wire.go.

// fits reports whether the value as text is within VARCHAR(n) or CHAR(n).
func (e *encoder) fits(t *deltaType, v val) refusal {
	if t.Length > 0 && utf8.RuneCount(e.text(v)) > t.Length {
		return refusal{CodeOutOfRange, "is longer than the column"}
	}
	return refusal{}
}

func (e *encoder) boolean(v val) (bool, refusal) {
	switch v.kind {
	case trueLit, falseLit:
		return v.kind == trueLit, refusal{}
	case str, strEsc, plainText:
		switch text := e.text(v); {
		case equalFold(text, "true"):
			return true, refusal{}
		case equalFold(text, "false"):
			return false, refusal{}
		}
		return false, mismatch("is neither true nor false")
	}
	return false, mismatch("is neither true nor false; add transform: to_bool where 0 and 1 are meant")
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

// integer reads a whole number within the range of t.
func (e *encoder) integer(t *deltaType, v val) (int64, refusal) {
	var n int64
	if v.kind == pointInTime {
		n = v.t.millis() // as Kafka counts time
	} else {
		text, r := e.number(v)
		if r.code != "" {
			return 0, r
		}
		var buf [48]byte
		d, ok := parseDecimal(buf[:0], text)
		if !ok {
			return 0, refusal{CodeOutOfRange, "is beyond the type's range"}
		}
		var whole, fits bool
		if n, whole, fits = d.int64(); !whole {
			return 0, mismatch("is not a whole number")
		} else if !fits {
			return 0, refusal{CodeOutOfRange, "is beyond the type's range"}
		}
	}
	bits := 63
	switch t.Kind {
	case delta.TinyInt:
		bits = 7
	case delta.SmallInt:
		bits = 15
	case delta.Int:
		bits = 31
	}
	if n>>bits != n>>63 { // more than the sign is left of the type's bits
		return 0, refusal{CodeOutOfRange, "is beyond the type's range"}
	}
	return n, refusal{}
}

// float reads a number that is finite in a FLOAT (32 bits) or DOUBLE (64), and
// its text as it was written.
func (e *encoder) float(v val, bits int) (f float64, text []byte, r refusal) {
	if text, r = e.number(v); r.code != "" {
		return 0, nil, r
	}
	f, ok := parseFloat(text, bits)
	if !ok {
		return 0, nil, refusal{CodeOutOfRange, "is beyond the type's range"}
	}
	return f, text, refusal{}
}

// decimal reads a number that fits DECIMAL(p,s) without rounding; its digits
// are in buf.
func (e *encoder) decimal(buf []byte, t *deltaType, v val) (decimal, refusal) {
	text, r := e.number(v)
	if r.code != "" {
		return decimal{}, r
	}
	d, ok := parseDecimal(buf, text)
	if !ok || len(d.digits)-d.scale > t.Precision-t.Scale {
		return d, refusal{CodeOutOfRange, "has more digits before the point than the type"}
	}
	if d.scale > t.Scale {
		return d, refusal{CodeOutOfRange, "has more digits after the point than the type"}
	}
	return d, refusal{}
}

// firstDay and lastDay are 0001-01-01 and 9999-12-31 in days since 1970.
const (
	firstDay = -719162
	lastDay  = 2932896
)

// days reads a day, counted from 1970-01-01. A number is a number of days, also
// in a string. It is never read as seconds: a day counter that runs away would
// come out as a day of 1970.
func (e *encoder) days(v val) (int64, refusal) {
	text := v.b
	if v.isText() {
		text = e.text(v)
	}
	if v.kind != number && !(v.isText() && isNumber(text)) {
		t, r := e.instant(v)
		return t.days(), r
	}
	var buf [48]byte
	d, ok := parseDecimal(buf[:0], text)
	n, whole, fits := d.int64()
	switch {
	case ok && !whole:
		return 0, mismatch("is not a whole number of days since 1970; add transform: date_format where it is a time")
	case !ok || !fits || n < firstDay || n > lastDay:
		return 0, refusal{CodeOutOfRange, "is not a number of days since 1970 within the years 1 to 9999; add transform: date_format where it is a time"}
	}
	return n, refusal{}
}

// base64 reads a string of standard base64 with padding (RFC 4648 section 4).
// It returns the text in base64.
func (e *encoder) base64(v val) ([]byte, refusal) {
	if !v.isText() {
		return nil, mismatch("is not a base64 string")
	}
	text := e.text(v)
	if !isBase64(text) {
		return nil, mismatch("is not standard base64 with padding")
	}
	return text, refusal{}
}

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

// mapKey reads the key of an object as a key of a MAP. JSON writes every key
// as a string, so a number in one counts as a number.
func (e *encoder) mapKey(t *deltaType, raw []byte) val {
	k := val{kind: jsonKind(raw), b: raw}
	if t.Kind == delta.String {
		return k
	}
	if text := e.text(k); isNumber(text) {
		return val{kind: number, b: text}
	}
	return k
}
