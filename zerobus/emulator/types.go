package emulator

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// kind is the JSON-facing class of a Delta type: what its values look like in
// a record.
type kind uint8

const (
	kindString kind = iota // STRING
	kindVarchar
	kindChar
	kindByte
	kindShort
	kindInt
	kindLong
	kindFloat
	kindDouble
	kindBoolean
	kindBinary
	kindDate
	kindTimestamp
	kindTimestampNTZ
	kindDecimal
	kindVariant
	kindArray
	kindMap
	kindStruct
)

// scalarTypes maps the SQL spellings of types without parameters to kinds.
var scalarTypes = map[string]kind{
	"STRING": kindString, "TINYINT": kindByte, "BYTE": kindByte, "SMALLINT": kindShort, "SHORT": kindShort,
	"INT": kindInt, "INTEGER": kindInt, "BIGINT": kindLong, "LONG": kindLong, "FLOAT": kindFloat, "REAL": kindFloat,
	"DOUBLE": kindDouble, "BOOLEAN": kindBoolean, "BINARY": kindBinary, "DATE": kindDate, "TIMESTAMP": kindTimestamp,
	"TIMESTAMP_NTZ": kindTimestampNTZ, "VARIANT": kindVariant,
}

// typeNames holds, per kind, the SQL text and the type_name of the Unity
// Catalog tables API (ColumnTypeName in its public API reference; VARCHAR has
// no name of its own there and is reported as STRING).
var typeNames = [...]struct{ sql, catalog string }{
	kindString: {"string", "STRING"}, kindVarchar: {"varchar", "STRING"}, kindChar: {"char", "CHAR"},
	kindByte: {"tinyint", "BYTE"}, kindShort: {"smallint", "SHORT"}, kindInt: {"int", "INT"}, kindLong: {"bigint", "LONG"},
	kindFloat: {"float", "FLOAT"}, kindDouble: {"double", "DOUBLE"}, kindBoolean: {"boolean", "BOOLEAN"},
	kindBinary: {"binary", "BINARY"}, kindDate: {"date", "DATE"}, kindTimestamp: {"timestamp", "TIMESTAMP"},
	kindTimestampNTZ: {"timestamp_ntz", "TIMESTAMP_NTZ"}, kindDecimal: {"decimal", "DECIMAL"},
	kindVariant: {"variant", "VARIANT"}, kindArray: {"array", "ARRAY"}, kindMap: {"map", "MAP"}, kindStruct: {"struct", "STRUCT"},
}

// dataType is one parsed Delta type. It is immutable once built.
type dataType struct {
	kind             kind
	length           int // VARCHAR(n), CHAR(n): characters
	precision, scale int // DECIMAL(p,s)
	key, elem        *dataType
	fields           []field
	index            map[string]int // STRUCT: field name -> position in fields
}

// field is a column of a table or a field of a STRUCT.
type field struct {
	name    string
	typ     *dataType
	notNull bool
	comment string
	tags    []string // of a column: keys of Unity Catalog tags
}

// text is the lower-case SQL text, as the tables API's type_text has it.
func (t *dataType) text() string { return t.sql(strings.ToLower) }

// upperText is text with the SQL words in upper case; names of STRUCT fields
// keep their case.
func (t *dataType) upperText() string { return t.sql(strings.ToUpper) }

func (t *dataType) sql(word func(string) string) string {
	name := word(typeNames[t.kind].sql)
	switch t.kind {
	case kindVarchar, kindChar:
		return fmt.Sprintf("%s(%d)", name, t.length)
	case kindDecimal:
		return fmt.Sprintf("%s(%d,%d)", name, t.precision, t.scale)
	case kindArray:
		return name + "<" + t.elem.sql(word) + ">"
	case kindMap:
		return name + "<" + t.key.sql(word) + "," + t.elem.sql(word) + ">"
	case kindStruct:
		parts := make([]string, len(t.fields))
		for i, f := range t.fields {
			parts[i] = f.name + ":" + f.typ.sql(word)
			if f.notNull {
				parts[i] += word(" not null")
			}
		}
		return name + "<" + strings.Join(parts, ",") + ">"
	}
	return name
}

// integer reports whether values are whole numbers.
func (t *dataType) integer() bool { return integerBits[t.kind] > 0 }

// spark is the type as Spark's schema JSON writes it, which the tables API
// repeats in type_json: a name for scalars, an object for nested types.
func (t *dataType) spark() any {
	switch t.kind {
	case kindByte:
		return "byte"
	case kindShort:
		return "short"
	case kindInt:
		return "integer"
	case kindLong:
		return "long"
	case kindArray:
		return map[string]any{"type": "array", "elementType": t.elem.spark(), "containsNull": true}
	case kindMap:
		return map[string]any{"type": "map", "keyType": t.key.spark(), "valueType": t.elem.spark(), "valueContainsNull": true}
	case kindStruct:
		fields := make([]any, len(t.fields))
		for i, f := range t.fields {
			fields[i] = f.spark()
		}
		return map[string]any{"type": "struct", "fields": fields}
	}
	return t.text()
}

func (f field) spark() map[string]any {
	meta := map[string]any{}
	if f.comment != "" {
		meta["comment"] = f.comment
	}
	return map[string]any{"name": f.name, "type": f.typ.spark(), "nullable": !f.notNull, "metadata": meta}
}

// schema is one version of a table's columns. A change makes a new schema, so
// that a request is judged by exactly one version.
type schema struct {
	columns  []field
	index    map[string]int
	required []int // positions of the NOT NULL columns
	id       int   // position of message_id, or -1
	rescue   int   // position of the column that takes what does not fit, or -1
}

// idColumn is the column whose values are indexed for duplicates and distinct
// counts while rows arrive. The integration's page calls it unique per event.
const idColumn = "message_id"

func newSchema(columns []field) *schema {
	s := &schema{columns: columns, index: make(map[string]int, len(columns)), id: -1, rescue: -1}
	for i, c := range columns {
		s.index[c.name] = i
		if c.notNull {
			s.required = append(s.required, i)
		}
		if c.name == idColumn {
			s.id = i
		}
		if s.rescue < 0 && c.rescues() {
			s.rescue = i
		}
	}
	return s
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

// textProblem says what is wrong with the characters of a string for a type
// other than STRING, or "".
func textProblem(t *dataType, text []byte, textTimes bool) string {
	switch t.kind {
	case kindVarchar, kindChar:
		if utf8.RuneCount(text) > t.length {
			return "is longer than " + t.text()
		}
		return ""
	case kindByte, kindShort, kindInt, kindLong:
		if isInteger(text) {
			return numberProblem(t, text)
		}
	case kindFloat, kindDouble:
		switch string(text) {
		case "NaN", "Infinity", "-Infinity":
			return ""
		}
	case kindTimestamp, kindTimestampNTZ:
		if textTimes {
			if _, err := time.Parse(time.RFC3339Nano, string(text)); err != nil {
				return "got a string that is not RFC 3339"
			}
			return ""
		}
	case kindDecimal:
		return decimalProblem(t, text)
	case kindBinary:
		if _, err := base64.StdEncoding.AppendDecode(nil, text); err != nil {
			return "got a string that is not standard base64"
		}
		return ""
	case kindVariant:
		r := newReader(text)
		defer r.release()
		if r.skip() != nil || r.trailing() >= 0 {
			return "got a string that is not JSON text"
		}
		return ""
	}
	return wants(t, "a string")
}

// integerBits is the size of the kinds that hold whole numbers.
var integerBits = map[kind]int{
	kindByte: 8, kindShort: 16, kindInt: 32, kindDate: 32, kindLong: 64, kindTimestamp: 64, kindTimestampNTZ: 64,
}

// numberProblem says what is wrong with a JSON number for a type, or "".
func numberProblem(t *dataType, text []byte) string {
	switch t.kind {
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
	bits, ok := integerBits[t.kind]
	if !ok {
		return wants(t, "a number")
	}
	if !isInteger(text) {
		return wants(t, "a number with a fraction or exponent")
	}
	if _, err := strconv.ParseInt(string(text), 10, bits); err != nil {
		return "is out of range for " + t.text()
	}
	return ""
}

// isNumber reports whether JSON text is a number.
func isNumber(text []byte) bool {
	return len(text) > 0 && (text[0] == '-' || text[0]-'0' <= 9)
}

// isInteger reports whether text is a JSON number without fraction and exponent.
func isInteger(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte("-"))
	return len(text) > 0 && isDigits(text) && (text[0] != '0' || len(text) == 1)
}

func isDigits(text []byte) bool {
	for _, c := range text {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

// decimalProblem checks [-]digits[.digits] against precision and scale.
func decimalProblem(t *dataType, text []byte) string {
	whole, fraction, point := bytes.Cut(bytes.TrimPrefix(text, []byte("-")), []byte("."))
	if !isDigits(whole) || !isDigits(fraction) || len(whole)+len(fraction) == 0 || point && len(fraction) == 0 {
		return "got a string that is not plain decimal notation"
	}
	if len(bytes.TrimLeft(whole, "0")) > t.precision-t.scale || len(fraction) > t.scale {
		return "does not fit in " + t.text()
	}
	return ""
}
