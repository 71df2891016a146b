package emulator

import (
	"fmt"
	"strings"
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
