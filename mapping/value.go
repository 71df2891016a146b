package mapping

import "unicode/utf8"

// Kinds of value that do not come from the JSON text itself.
const (
	plainText kind = array + 1 + iota // decoded text: a transform's result, a header
	rawBytes                          // a record key or header on its way to a BINARY column
	pointInTime
)

// val is a value on its way from its source to its column.
type val struct {
	kind kind
	b    []byte // JSON text as it stands for the kinds of JSON, decoded text or bytes otherwise
	t    instant
}

// refusal says why a value cannot go into its column. The zero value is none.
// rule is made of the constant phrases of this package and the names of fields
// of the column's type, never of the value.
type refusal struct {
	code string
	rule string
}

// inside says in which part of a value another was refused.
func (r refusal) inside(part string) refusal {
	return refusal{r.code, "has " + part + " that " + r.rule}
}

func mismatch(rule string) refusal { return refusal{CodeTypeMismatch, rule} }

// describe names the kind of a value for people.
func (v val) describe() string {
	switch v.kind {
	case falseLit, trueLit:
		return "a boolean"
	case number:
		return "a number"
	case str, strEsc, plainText:
		return "a string"
	case object:
		return "an object"
	case array:
		return "an array"
	case rawBytes:
		return "bytes"
	case pointInTime:
		return "a time"
	}
	return "null"
}

// scratch is memory for values in the making; it is reused for every column.
type scratch struct{ buf []byte }

// text returns the value as decoded text: strings without quotes and escapes,
// numbers and booleans as they were written, objects and arrays as compact
// JSON, times as RFC 3339. The result lives until the scratch is reset.
func (s *scratch) text(v val) []byte {
	switch v.kind {
	case str:
		return v.b[1 : len(v.b)-1]
	case strEsc, object, array, pointInTime:
		from := len(s.buf)
		s.buf = appendText(s.buf, v)
		return s.buf[from:]
	}
	return v.b
}

// appendText appends what scratch.text returns.
func appendText(dst []byte, v val) []byte {
	switch v.kind {
	case str:
		return append(dst, v.b[1:len(v.b)-1]...)
	case strEsc:
		return unescape(dst, v.b[1:len(v.b)-1])
	case object, array:
		return appendCompact(dst, v.b)
	case pointInTime:
		return v.t.appendRFC3339(dst, "Z")
	}
	return append(dst, v.b...)
}

// appendJSON appends the value as compact JSON.
func appendJSON(dst []byte, v val) []byte {
	switch v.kind {
	case plainText, rawBytes:
		return appendQuoted(dst, v.b)
	case pointInTime:
		dst = append(dst, '"')
		dst = v.t.appendRFC3339(dst, "Z")
		return append(dst, '"')
	case object, array:
		return appendCompact(dst, v.b)
	}
	return append(dst, v.b...)
}

// add keeps text for as long as the scratch lives.
func (s *scratch) add(f func(dst []byte) []byte) []byte {
	from := len(s.buf)
	s.buf = f(s.buf)
	return s.buf[from:]
}

// isText reports whether the value is a string.
func (v val) isText() bool { return v.kind == str || v.kind == strEsc || v.kind == plainText }

// instant reads the value as a point in time.
func (s *scratch) instant(v val) (instant, refusal) {
	bad := refusal{CodeBadTimestamp, "is not RFC 3339 and not a number of seconds, milliseconds, microseconds or nanoseconds since 1970 within the years 1 to 9999"}
	switch {
	case v.kind == pointInTime:
		return v.t, refusal{}
	case v.kind == number:
		if t, ok := epochInstant(v.b); ok {
			return t, refusal{}
		}
		return instant{}, bad
	case v.isText():
		if t, ok := parseInstant(s.text(v)); ok {
			return t, refusal{}
		}
		if name := notFinite(s.text(v), true); name != "" {
			return instant{}, refusal{CodeBadTimestamp, "is " + name + ", which is no time; have the producer send null"}
		}
		return instant{}, bad
	}
	return instant{}, mismatch("cannot be a time")
}

// number reads the value as the text of a JSON number; a string must be one.
func (s *scratch) number(v val) ([]byte, refusal) {
	switch {
	case v.kind == number:
		return v.b, refusal{}
	case v.isText():
		if text := s.text(v); isNumber(text) {
			return text, refusal{}
		}
		if name := notFinite(s.text(v), true); name != "" {
			return nil, mismatch("is " + name + ", which is no number a column can hold; have the producer send null")
		}
		return nil, mismatch("holds no number")
	}
	return nil, mismatch("cannot be a number")
}

// validText makes text of bytes that are not known to be UTF-8.
func (s *scratch) validText(b []byte, replace bool) (val, refusal) {
	if utf8.Valid(b) {
		return val{kind: plainText, b: b}, refusal{}
	}
	if !replace {
		return val{kind: rawBytes}, refusal{CodeInvalidUTF8, "are not UTF-8; map them into a BINARY column"}
	}
	from := len(s.buf)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		s.buf = utf8.AppendRune(s.buf, r)
		b = b[size:]
	}
	return val{kind: plainText, b: s.buf[from:]}, refusal{}
}
