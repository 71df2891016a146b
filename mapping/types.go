package mapping

import (
	"fmt"
	"strings"
)

// base is the family of a Delta type.
type base uint8

const (
	stringType base = iota
	booleanType
	tinyintType
	smallintType
	intType
	bigintType
	floatType
	doubleType
	decimalType
	dateType
	timestampType
	timestampNTZType
	binaryType
	variantType
	arrayType
	mapType
	structType
)

// deltaType is a column type rows can be encoded for.
type deltaType struct {
	base      base
	length    int // VARCHAR(n), CHAR(n): most characters; 0 is no limit
	precision int
	scale     int
	key       *deltaType // MAP key
	elem      *deltaType // ARRAY element, MAP value
	fields    []field    // STRUCT
	byName    map[string]fieldName
	text      string // as SQL writes it, in upper case but for the names of fields
}

// field is one field of a STRUCT.
type field struct {
	name     string
	key      []byte // "name":
	tag      uint64 // in protobuf; fields are numbered from 1 in their order
	typ      *deltaType
	notNull  bool
	verbatim bool // keys below it belong to the customer, see spellings
}

// fieldName is what a key of an object means to a STRUCT.
type fieldName struct {
	field int
	rank  int  // among the spellings of the field, the preferred one first
	own   bool // the field's name as the type spells it
}

var typeNames = map[string]base{
	"STRING": stringType, "BOOLEAN": booleanType,
	"TINYINT": tinyintType, "BYTE": tinyintType, "SMALLINT": smallintType, "SHORT": smallintType,
	"INT": intType, "INTEGER": intType, "BIGINT": bigintType, "LONG": bigintType,
	"FLOAT": floatType, "REAL": floatType, "DOUBLE": doubleType,
	"DATE": dateType, "TIMESTAMP": timestampType, "TIMESTAMP_NTZ": timestampNTZType,
	"BINARY": binaryType, "VARIANT": variantType,
}

var baseNames = [...]string{"STRING", "BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL",
	"DATE", "TIMESTAMP", "TIMESTAMP_NTZ", "BINARY", "VARIANT", "ARRAY", "MAP", "STRUCT"}

// same reports whether two types take the same values in the same form. The
// names of fields have no case; that a field is NOT NULL is the table's to say.
func (t *deltaType) same(u *deltaType) bool {
	if t.base != u.base {
		return false
	}
	switch t.base {
	case decimalType:
		return t.precision == u.precision && t.scale == u.scale
	case arrayType:
		return t.elem.same(u.elem)
	case mapType:
		return t.key.same(u.key) && t.elem.same(u.elem)
	case structType:
		if len(t.fields) != len(u.fields) {
			return false
		}
		for i := range t.fields {
			if a, b := &t.fields[i], &u.fields[i]; !strings.EqualFold(a.name, b.name) || !a.typ.same(b.typ) {
				return false
			}
		}
	}
	return true
}

// short names the type in a reason, which should not carry a STRUCT of a
// thousand fields.
func (t *deltaType) short() string {
	if len(t.text) > 80 {
		return baseNames[t.base]
	}
	return t.text
}

// protobuf returns why no protobuf field can hold the type, or nil. The limits
// are those of the language: a field repeats once, the value of a map does not
// repeat, and the key of a map is an integer, a bool or a string.
// https://protobuf.dev/programming-guides/proto2/#maps
func (t *deltaType) protobuf() error {
	const instead = "; make it VARIANT, put the inner one into a STRUCT, or write rows as JSON"
	switch t.base {
	case arrayType:
		if t.elem.base == arrayType || t.elem.base == mapType {
			return fmt.Errorf("protobuf cannot hold %s inside an ARRAY (%s)%s", baseNames[t.elem.base], t.short(), instead)
		}
		return t.elem.protobuf()
	case mapType:
		switch t.key.base {
		case floatType, doubleType, binaryType:
			return fmt.Errorf("protobuf cannot hold a MAP with %s keys (%s); make it VARIANT, or write rows as JSON", t.key.text, t.short())
		}
		if t.elem.base == arrayType || t.elem.base == mapType {
			return fmt.Errorf("protobuf cannot hold %s inside a MAP (%s)%s", baseNames[t.elem.base], t.short(), instead)
		}
		return t.elem.protobuf()
	case structType:
		for i := range t.fields {
			if err := t.fields[i].typ.protobuf(); err != nil {
				return fmt.Errorf("field %s: %w", t.fields[i].name, err)
			}
		}
	}
	return nil
}
