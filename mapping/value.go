package mapping

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/delta"
)

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

// refusal is why a value cannot go into its column. The zero value is none.
// rule is made of the constant phrases of this package and the names of fields
// of the column's type, never of the value.
type refusal struct {
	code string
	rule string
}

// inside adds in which part of a value another was refused.
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

// What a scalar type accepts is decided here, once for rows in JSON and in
// protobuf; how it is written is the business of encode.go and row.go.

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

// decimal is a JSON number taken apart exactly: the value is the digits, with
// the point left of the last scale of them. Digits have no leading zeros.
type decimal struct {
	neg    bool
	digits []byte // in the caller's buffer
	scale  int    // may be negative: zeros to append
}

// maxExponent bounds exponents; beyond it no column type holds the number and
// counting on would only cost memory.
const maxExponent = 400

// parseDecimal takes a JSON number apart, with its digits in buf. ok is false
// where the exponent is beyond any type.
func parseDecimal(buf, text []byte) (d decimal, ok bool) {
	i := 0
	if text[0] == '-' {
		d.neg = true
		i++
	}
	digits := buf[:0]
	for ; i < len(text) && text[i] != 'e' && text[i] != 'E'; i++ {
		switch {
		case text[i] == '.':
			d.scale = len(text) - i - 1
		case text[i] != '0' || len(digits) > 0:
			digits = append(digits, text[i])
		}
	}
	if i < len(text) {
		if d.scale > 0 {
			d.scale -= len(text) - i
		}
		exp := 0
		sign := 1
		for i++; i < len(text); i++ {
			switch c := text[i]; c {
			case '-':
				sign = -1
			case '+':
			default:
				exp = min(exp*10+int(c-'0'), 1<<20)
			}
		}
		d.scale -= sign * exp
	}
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
		d.scale--
	}
	if len(digits) == 0 {
		return decimal{digits: digits}, true
	}
	d.digits = digits
	return d, d.scale <= maxExponent && d.scale >= -maxExponent
}

// int64 returns the number where it is whole and fits.
func (d decimal) int64() (v int64, whole, fits bool) {
	if d.scale > 0 {
		return 0, false, true
	}
	if len(d.digits)-d.scale > 19 {
		return 0, true, false
	}
	var u uint64
	for _, c := range d.digits {
		u = u*10 + uint64(c-'0')
	}
	for i := d.scale; i < 0; i++ {
		u *= 10
	}
	switch {
	case d.neg && u <= 1<<63:
		return -int64(u), true, true // -(1<<63) wraps onto itself
	case !d.neg && u <= math.MaxInt64:
		return int64(u), true, true
	}
	return 0, true, false
}

// appendPlain appends the number without an exponent.
func (d decimal) appendPlain(dst []byte) []byte {
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.neg {
		dst = append(dst, '-')
	}
	whole := len(d.digits) - d.scale // digits left of the point
	if whole <= 0 {
		dst = append(dst, '0', '.')
		for ; whole < 0; whole++ {
			dst = append(dst, '0')
		}
		return append(dst, d.digits...)
	}
	if d.scale <= 0 {
		dst = append(dst, d.digits...)
		for i := d.scale; i < 0; i++ {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = append(dst, d.digits[:whole]...)
	dst = append(dst, '.')
	return append(dst, d.digits[whole:]...)
}

// parseFloat reads a JSON number; ok is false where it is not finite in a
// float of the size.
func parseFloat(text []byte, bits int) (f float64, ok bool) {
	f, err := strconv.ParseFloat(string(text), bits)
	return f, err == nil
}

// notFinite returns NaN or Infinity where text is, or begins with, one of the
// names that serializers give to what is no finite number, else "".
func notFinite(text []byte, whole bool) string {
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		text = text[1:]
	}
	for _, n := range [...]struct{ spelling, name string }{{"nan", "NaN"}, {"infinity", "Infinity"}, {"inf", "Infinity"}} {
		if len(text) < len(n.spelling) || whole && len(text) != len(n.spelling) || !equalFold(text[:len(n.spelling)], n.spelling) {
			continue
		}
		if rest := text[len(n.spelling):]; len(rest) == 0 || !isLetter(rest[0]) {
			return n.name
		}
	}
	return ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// isNumber reports whether text is exactly one JSON number.
func isNumber(text []byte) bool { return len(text) > 0 && numberEnd(text, 0) == len(text) }

// member is where the value of one field of a STRUCT stands in the object that
// fills it.
type member struct {
	span
	rank int32 // of the key's spelling, see fieldName
}

// open finds the fields of a STRUCT in an object and returns where in
// e.members they are. Every member of the object must belong to a field: one
// that is left out would be lost in silence. Where an object has a field in two
// spellings, the rule of paths holds: the preferred one that is not null.
func (e *encoder) open(t *deltaType, v val) (from int, r refusal) {
	from = len(e.members)
	it, r := pairs(v)
	if r.code != "" {
		return from, r
	}
	for range t.fields {
		e.members = append(e.members, member{})
	}
	for n := 1; it.nextPair(); n++ {
		name, known := t.byName[string(e.keyText(it.key))]
		if !known || e.verbatim && !name.own {
			return from, mismatch(fmt.Sprintf("has a member (number %d) that is no field of the STRUCT; add the field to the column, or make the column VARIANT", n))
		}
		end := it.end
		found := member{span{uint32(end - len(it.value.b)), uint32(end), it.value.kind}, int32(name.rank)}
		m := &e.members[from+name.field]
		switch {
		case m.kind != absent && m.rank == found.rank:
			return from, refusal{CodeDuplicateKey, fmt.Sprintf("has its field %s twice; one of them would be lost", t.fields[name.field].name)}
		case m.kind <= null && found.kind > m.kind, found.kind > null && found.rank < m.rank:
			*m = found
		}
	}
	return from, refusal{}
}

// keyText returns a key without quotes and escapes.
func (e *encoder) keyText(raw []byte) []byte { return e.text(val{kind: jsonKind(raw), b: raw}) }

// fieldValue returns the value of a field of the object v.
func (e *encoder) fieldValue(f *field, v val, member int) (val, refusal) {
	m := e.members[member]
	if m.kind <= null {
		if f.notNull {
			return val{}, refusal{CodeMissingRequired, fmt.Sprintf("has no value for its field %s, which is NOT NULL", f.name)}
		}
		return val{}, refusal{}
	}
	return val{kind: m.kind, b: v.b[m.start:m.end]}, refusal{}
}

// decode makes Go values of scanned JSON for an expression: whole numbers that
// fit are int, others float64.
func decode(raw []byte) any {
	switch jsonKind(raw) {
	case str:
		return string(raw[1 : len(raw)-1])
	case strEsc:
		return string(unescape(nil, raw[1:len(raw)-1]))
	case trueLit:
		return true
	case falseLit:
		return false
	case number:
		if n, err := strconv.Atoi(string(raw)); err == nil {
			return n
		}
		f, _ := strconv.ParseFloat(string(raw), 64) // out of range is an infinity, which compares as it should
		return f
	case array:
		out := []any{}
		for i := space(raw, 1); raw[i] != ']'; {
			end := valueEnd(raw, i)
			out = append(out, decode(raw[i:end]))
			if i = space(raw, end); raw[i] == ',' {
				i = space(raw, i+1)
			}
		}
		return out
	case object:
		out := map[string]any{}
		for i := space(raw, 1); raw[i] != '}'; {
			keyEnd := valueEnd(raw, i)
			key := string(unescape(nil, raw[i+1:keyEnd-1]))
			i = space(raw, space(raw, keyEnd)+1)
			end := valueEnd(raw, i)
			out[key] = decode(raw[i:end])
			if i = space(raw, end); raw[i] == ',' {
				i = space(raw, i+1)
			}
		}
		return out
	}
	return nil
}
