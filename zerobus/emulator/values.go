package emulator

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// value consumes one value and holds it against a type. The rules are those
// the service applies to JSON records: TIMESTAMP is a whole number of
// microseconds since 1970-01-01 UTC, DATE a whole number of days, DECIMAL a
// string in plain notation, BINARY standard base64, VARIANT a string that
// holds JSON text; integers may stand in quotes, as proto3's JSON mapping has
// it for 64-bit values.
//
// It returns what is wrong with the value, or "". Where the JSON itself is
// broken, it returns "" and r.problem is set.
func (r *rowReader) value(t *dataType, nullable bool, depth int) string {
	c := r.peek()
	switch c {
	case 'n':
		if r.literal("null") && !nullable {
			return "is NOT NULL and null"
		}
		return ""
	case '"':
		text, escaped, ok := r.str()
		if !ok {
			return ""
		}
		if t.kind == kindString {
			return ""
		}
		if escaped {
			text = r.unescape(text)
		}
		return r.quotedValue(t, text)
	case 't', 'f':
		word := "true"
		if c == 'f' {
			word = "false"
		}
		if r.literal(word) && t.kind != kindBoolean {
			return wants(t, "a boolean")
		}
		return ""
	case '{', '[':
		return r.nestedValue(t, c, depth+1)
	}
	text, whole, ok := r.number()
	if !ok {
		return ""
	}
	return numberValue(t, text, whole)
}

// expected says, per kind, what a value has to look like.
var expected = [...]string{
	kindString: "a string", kindVarchar: "a string", kindChar: "a string",
	kindByte: "an integer", kindShort: "an integer", kindInt: "an integer", kindLong: "an integer",
	kindFloat: "a number", kindDouble: "a number", kindBoolean: "true or false", kindBinary: "a base64 string",
	kindDate:         "an integer: days since 1970-01-01",
	kindTimestamp:    "an integer: microseconds since 1970-01-01 UTC",
	kindTimestampNTZ: "an integer: microseconds since 1970-01-01",
	kindDecimal:      "a string in plain decimal notation", kindVariant: "a string that holds JSON text",
	kindArray: "an array", kindMap: "an object", kindStruct: "an object",
}

func wants(t *dataType, got string) string {
	return "got " + got + ", " + t.text() + " wants " + expected[t.kind]
}

func (r *rowReader) quotedValue(t *dataType, text []byte) string {
	switch t.kind {
	case kindVarchar, kindChar:
		if utf8.RuneCount(text) > t.length {
			return "is longer than " + t.text()
		}
		return ""
	case kindByte, kindShort, kindInt, kindLong:
		sc := scanner{b: text}
		if n, whole, ok := sc.number(); ok && whole && sc.pos == len(text) {
			return numberValue(t, n, true)
		}
	case kindFloat, kindDouble:
		switch string(text) {
		case "NaN", "Infinity", "-Infinity":
			return ""
		}
	case kindTimestamp, kindTimestampNTZ:
		if r.textTimes {
			if _, err := time.Parse(time.RFC3339Nano, string(text)); err == nil {
				return ""
			}
			return "got a string that is not RFC 3339"
		}
	case kindDecimal:
		return decimalValue(t, text)
	case kindBinary:
		if n := base64.StdEncoding.DecodedLen(len(text)); n > cap(r.scratch) {
			r.scratch = make([]byte, 0, n)
		}
		if _, err := base64.StdEncoding.Decode(r.scratch[:cap(r.scratch)], text); err == nil {
			return ""
		}
		return "got a string that is not standard base64"
	case kindVariant:
		sc := scanner{b: text}
		if sc.skip(0) {
			if sc.space(); sc.pos == len(text) {
				return ""
			}
		}
		return "got a string that is not JSON text"
	}
	return wants(t, "a string")
}

func numberValue(t *dataType, text []byte, whole bool) string {
	switch t.kind {
	case kindByte:
		return integerValue(t, text, whole, 8)
	case kindShort:
		return integerValue(t, text, whole, 16)
	case kindInt, kindDate:
		return integerValue(t, text, whole, 32)
	case kindLong, kindTimestamp, kindTimestampNTZ:
		return integerValue(t, text, whole, 64)
	case kindFloat, kindDouble:
		size := 64
		if t.kind == kindFloat {
			size = 32
		}
		if f, _ := strconv.ParseFloat(string(text), size); math.IsInf(f, 0) {
			return "is out of range for " + t.text()
		}
		return ""
	}
	return wants(t, "a number")
}

func integerValue(t *dataType, text []byte, whole bool, size int) string {
	if !whole {
		return wants(t, "a number with a fraction or exponent")
	}
	if len(text) < 18 && size == 64 {
		return "" // 17 characters always fit in 64 bits
	}
	if _, err := strconv.ParseInt(string(text), 10, size); err != nil {
		return "is out of range for " + t.text()
	}
	return ""
}

// decimalValue checks [-]digits[.digits] against precision and scale.
func decimalValue(t *dataType, text []byte) string {
	sc := scanner{b: text}
	if sc.peek() == '-' {
		sc.pos++
	}
	for sc.peek() == '0' {
		sc.pos++ // leading zeros count for nothing
	}
	before := sc.pos
	for sc.pos < len(text) && text[sc.pos]-'0' <= 9 {
		sc.pos++
	}
	digits, fraction := sc.pos-before, 0
	some := sc.pos > 0 && text[sc.pos-1]-'0' <= 9
	if sc.peek() == '.' {
		sc.pos++
		from := sc.pos
		if !sc.digits() {
			return "got a string that is not plain decimal notation"
		}
		fraction, some = sc.pos-from, true
	}
	switch {
	case !some || sc.pos != len(text):
		return "got a string that is not plain decimal notation"
	case digits > t.precision-t.scale || fraction > t.scale:
		return "does not fit in " + t.text()
	}
	return ""
}

// nestedValue reads an array or object value; depth is its own.
func (r *rowReader) nestedValue(t *dataType, open byte, depth int) string {
	got := "an object"
	if open == '[' {
		got = "an array"
	}
	isArray := t.kind == kindArray
	if (t.kind != kindArray && t.kind != kindMap && t.kind != kindStruct) || isArray != (open == '[') {
		if !r.skip(depth) {
			return ""
		}
		return wants(t, got)
	}
	problem := ""
	var seen map[string]bool
	if open == '{' {
		seen = map[string]bool{}
	}
	r.scanner.members(open, func(name []byte, escaped bool) bool {
		elem, nullable := t.elem, false // protobuf, the service's own form, has no null elements
		if escaped {
			name = r.unescape(name)
		}
		if open == '{' {
			if seen[string(name)] {
				problem = "has the key " + strconv.Quote(string(name)) + " twice"
				return false
			}
			seen[string(name)] = true
		}
		switch t.kind {
		case kindMap:
			if problem = mapKey(t.key, name); problem != "" {
				return false
			}
		case kindStruct:
			i, known := t.index[string(name)]
			if !known {
				problem = "has no field " + strconv.Quote(string(name))
				return false
			}
			elem, nullable = t.fields[i].typ, !t.fields[i].notNull
		}
		problem = r.value(elem, nullable, depth)
		return problem == "" && r.problem == ""
	})
	if problem != "" || r.problem != "" || t.kind != kindStruct {
		return problem
	}
	for _, f := range t.fields {
		if f.notNull && !seen[f.name] {
			return "lacks the NOT NULL field " + strconv.Quote(f.name)
		}
	}
	return ""
}

// mapKey checks the text of a MAP's key, which JSON always writes as a
// string.
func mapKey(t *dataType, key []byte) string {
	switch t.kind {
	case kindString:
		return ""
	case kindBoolean:
		if s := string(key); s == "true" || s == "false" {
			return ""
		}
		return "has a key that is not true or false"
	case kindTimestamp, kindTimestampNTZ, kindDate:
		sc := scanner{b: key}
		if n, whole, ok := sc.number(); ok && sc.pos == len(key) {
			return numberValue(t, n, whole)
		}
		return "has a key that is not " + expected[t.kind]
	}
	r := rowReader{}
	if p := r.quotedValue(t, key); p != "" {
		return "has a key that does not fit: " + p
	}
	return ""
}
