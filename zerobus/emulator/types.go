package emulator

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/delta"
)

// dataType is the type of a column with what reading values needs. It is
// immutable once built.
type dataType struct {
	*delta.Type
	bits      int // size of a whole number; 0 for other types
	key, elem *dataType
	fields    []field
	index     map[string]int // STRUCT: field name -> position in fields
}

// field is a column of a table or a field of a STRUCT.
type field struct {
	name    string
	typ     *dataType
	notNull bool
	comment string   // of a column
	tags    []string // of a column: keys of Unity Catalog tags

	partition int // of a column: its place in PARTITIONED BY, from 1; 0 for none
}

// kinds describes each kind of type that the service can write.
var kinds = map[delta.Kind]struct {
	bits     int    // size of a whole number
	catalog  string // type_name in Unity Catalog, where it is not SQL's name
	spark    string // name in Spark's schema JSON, where it is not SQL's name
	expected string // how a JSON value has to look
}{
	delta.String:       {expected: "a string"},
	delta.TinyInt:      {8, "BYTE", "byte", "an integer"},
	delta.SmallInt:     {16, "SHORT", "short", "an integer"},
	delta.Int:          {32, "", "integer", "an integer"},
	delta.BigInt:       {64, "LONG", "long", "an integer"},
	delta.Float:        {expected: "a number"},
	delta.Double:       {expected: "a number"},
	delta.Boolean:      {expected: "true or false"},
	delta.Binary:       {expected: "a base64 string"},
	delta.Date:         {bits: 32, expected: "an integer: days since 1970-01-01"},
	delta.Timestamp:    {bits: 64, expected: "an integer: microseconds since 1970-01-01 UTC"},
	delta.TimestampNTZ: {bits: 64, expected: "an integer: microseconds since 1970-01-01"},
	delta.Decimal:      {expected: "a string in plain decimal notation"},
	delta.Variant:      {expected: "a string that holds JSON text"},
	delta.Array:        {expected: "an array"},
	delta.Map:          {expected: "an object"},
	delta.Struct:       {expected: "an object"},
}

// parseType reads a type as SQL writes it.
func parseType(text string) (*dataType, error) {
	t, err := delta.Parse(text)
	if err != nil {
		return nil, err
	}
	return newType(t)
}

// newType prepares a type for reading values.
func newType(t *delta.Type) (_ *dataType, err error) {
	k, ok := kinds[t.Kind]
	if !ok {
		return nil, fmt.Errorf("type %s is not one the service can write; use STRING, a number type, BOOLEAN, BINARY, DATE, TIMESTAMP, TIMESTAMP_NTZ, "+
			"DECIMAL(p,s), VARIANT, ARRAY<T>, MAP<K,V> or STRUCT<name: T>", delta.Clip(t.Name))
	}
	out := &dataType{Type: t, bits: k.bits}
	if t.Key != nil {
		if out.key, err = newType(t.Key); err != nil {
			return nil, err
		}
	}
	if t.Elem != nil {
		if out.elem, err = newType(t.Elem); err != nil {
			return nil, err
		}
	}
	if t.Kind == delta.Struct {
		out.index = map[string]int{}
	}
	for i, f := range t.Fields {
		if !columnName.MatchString(f.Name) {
			return nil, fmt.Errorf("struct field %q: the service takes ASCII letters, digits and underscore only", f.Name)
		}
		if _, twice := out.index[f.Name]; twice {
			return nil, fmt.Errorf("struct field %s occurs twice; rename one", f.Name)
		}
		typ, err := newType(f.Type)
		if err != nil {
			return nil, err
		}
		out.index[f.Name] = i
		out.fields = append(out.fields, field{name: f.Name, typ: typ, notNull: f.NotNull})
	}
	return out, nil
}

var sqlWord = regexp.MustCompile(`\w+:?`)

// text is the type in lower case, as type_text of the tables API; names of
// STRUCT fields keep their case.
func (t *dataType) text() string {
	return sqlWord.ReplaceAllStringFunc(t.String(), func(word string) string {
		if strings.HasSuffix(word, ":") {
			return word
		}
		return strings.ToLower(word)
	})
}

// plainString reports whether the type takes any string.
func (t *dataType) plainString() bool { return t.Kind == delta.String && t.Length == 0 }

// catalogName is the type_name of the tables API, which has none for VARCHAR.
func (t *dataType) catalogName() string {
	switch name := kinds[t.Kind].catalog; {
	case name != "":
		return name
	case t.Kind == delta.String && t.Name == "CHAR":
		return "CHAR"
	}
	return t.Kind.String()
}

// spark is the type in Spark's schema JSON, which is type_json of the tables
// API: a name for scalars, an object for nested types.
func (t *dataType) spark() any {
	switch t.Kind {
	case delta.Array:
		return map[string]any{"type": "array", "elementType": t.elem.spark(), "containsNull": true}
	case delta.Map:
		return map[string]any{"type": "map", "keyType": t.key.spark(), "valueType": t.elem.spark(), "valueContainsNull": true}
	case delta.Struct:
		fields := make([]any, len(t.fields))
		for i, f := range t.fields {
			fields[i] = f.spark()
		}
		return map[string]any{"type": "struct", "fields": fields}
	}
	if name := kinds[t.Kind].spark; name != "" {
		return name
	}
	return t.text()
}

func (f *field) spark() map[string]any {
	meta := map[string]any{}
	if f.comment != "" {
		meta["comment"] = f.comment
	}
	return map[string]any{"name": f.name, "type": f.typ.spark(), "nullable": !f.notNull, "metadata": meta}
}

// schema is one version of a table's columns. A change makes a new schema, so
// that a request is checked against exactly one version.
type schema struct {
	columns  []field
	index    map[string]int
	required []int // positions of the NOT NULL columns
	id       int   // position of message_id, or -1
	rescue   int   // position of the rescue column, or -1
}

// idColumn is the column whose values are indexed as rows arrive. The
// integration's page calls it unique per event.
const idColumn = "message_id"

// RescueTag is the Unity Catalog tag of the rescue column, which takes what
// does not fit of JSON rows. The column must be a nullable VARIANT.
// https://docs.databricks.com/aws/en/ingestion/zerobus-rescue-column
const RescueTag = "zerobus-rescue"

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
		if s.rescue < 0 && c.typ.Kind == delta.Variant && !c.notNull && slices.Contains(c.tags, RescueTag) {
			s.rescue = i
		}
	}
	return s
}

func wants(t *dataType, got string) string {
	return "got " + got + ", " + t.text() + " wants " + kinds[t.Kind].expected
}

// textProblem returns what is wrong with a string for a type, or "".
func textProblem(t *dataType, text []byte, textTimes bool) string {
	switch t.Kind {
	case delta.String:
		if t.Length > 0 && utf8.RuneCount(text) > t.Length {
			return "is longer than " + t.text()
		}
		return ""
	case delta.TinyInt, delta.SmallInt, delta.Int, delta.BigInt:
		if isInteger(text) {
			return numberProblem(t, text)
		}
	case delta.Float, delta.Double:
		if slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, string(text)) {
			return ""
		}
	case delta.Timestamp, delta.TimestampNTZ:
		if textTimes {
			if _, err := time.Parse(time.RFC3339Nano, string(text)); err != nil {
				return "got a string that is not RFC 3339"
			}
			return ""
		}
	case delta.Decimal:
		return decimalProblem(t, text)
	case delta.Binary:
		if _, err := base64.StdEncoding.AppendDecode(nil, text); err != nil {
			return "got a string that is not standard base64"
		}
		return ""
	case delta.Variant:
		r := newReader(text)
		defer r.release()
		if r.skip() != nil || r.trailing() >= 0 {
			return "got a string that is not JSON text"
		}
		return ""
	}
	return wants(t, "a string")
}

// numberProblem returns what is wrong with a JSON number for a type, or "".
func numberProblem(t *dataType, text []byte) string {
	var err error
	switch {
	case t.Kind == delta.Float:
		_, err = strconv.ParseFloat(string(text), 32)
	case t.Kind == delta.Double:
		_, err = strconv.ParseFloat(string(text), 64)
	case t.bits == 0:
		return wants(t, "a number")
	case !isInteger(text):
		return wants(t, "a number with a fraction or exponent")
	default:
		_, err = strconv.ParseInt(string(text), 10, t.bits)
	}
	if err != nil {
		return "is out of range for " + t.text()
	}
	return ""
}

// rangeProblem is numberProblem for a whole number of a protobuf row.
func rangeProblem(t *dataType, n int64) string {
	if shift := 64 - t.bits; t.bits > 0 && n<<shift>>shift != n {
		return "is out of range for " + t.text()
	}
	return ""
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
	if len(bytes.TrimLeft(whole, "0")) > t.Precision-t.Scale || len(fraction) > t.Scale {
		return "does not fit in " + t.text()
	}
	return ""
}

// appendFloat writes a float as JSON.
func appendFloat(dst []byte, v float64, size int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 0):
		return append(dst, map[bool]string{true: `"Infinity"`, false: `"-Infinity"`}[v > 0]...)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, size)
}
