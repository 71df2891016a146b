// Package delta reads and prints the column types of Delta tables: as SQL writes
// them, and as Unity Catalog's type_json describes them. Names and synonyms are
// those of the Databricks SQL reference, "Data types":
// https://docs.databricks.com/aws/en/sql/language-manual/sql-ref-datatypes
package delta

import (
	"fmt"
	"regexp"
	"strings"
)

// Kind is the family of a type.
type Kind uint8

// Kinds of types. Those up to Binary are scalar. Other is a type the package does
// not know; its name is kept as it was, in upper case.
const (
	String Kind = iota
	Boolean
	TinyInt
	SmallInt
	Int
	BigInt
	Float
	Double
	Decimal
	Date
	Timestamp
	TimestampNTZ
	Binary
	Variant
	Array
	Map
	Struct
	Other
)

var names = [...]string{"STRING", "BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL",
	"DATE", "TIMESTAMP", "TIMESTAMP_NTZ", "BINARY", "VARIANT", "ARRAY", "MAP", "STRUCT"}

// kinds are the types without arguments, by every name they have.
var kinds = map[string]Kind{
	"STRING": String, "BOOLEAN": Boolean,
	"TINYINT": TinyInt, "BYTE": TinyInt, "SMALLINT": SmallInt, "SHORT": SmallInt,
	"INT": Int, "INTEGER": Int, "BIGINT": BigInt, "LONG": BigInt,
	"FLOAT": Float, "REAL": Float, "DOUBLE": Double,
	"DATE": Date, "TIMESTAMP": Timestamp, "TIMESTAMP_LTZ": Timestamp, "TIMESTAMP_NTZ": TimestampNTZ,
	"BINARY": Binary, "VARIANT": Variant,
}

// String returns the name SQL prefers; empty for Other.
func (k Kind) String() string {
	if int(k) < len(names) {
		return names[k]
	}
	return ""
}

// Names returns the names that SQL prefers of all kinds, and with synonyms every
// name of a type without arguments.
func Names(synonyms bool) []string {
	if !synonyms {
		return append([]string{}, names[:]...)
	}
	var out []string
	for name := range kinds {
		out = append(out, name)
	}
	return out
}

// Type is a column type.
type Type struct {
	Kind      Kind
	Name      string  // of a String: STRING, VARCHAR or CHAR; of Other: as it was, in upper case
	Length    int     // of VARCHAR and CHAR, in characters; 0 is no limit
	Precision int     // of a Decimal
	Scale     int     // of a Decimal
	Key       *Type   // of a Map
	Elem      *Type   // of an Array, or the value of a Map
	Fields    []Field // of a Struct
}

// Field is one field of a Struct.
type Field struct {
	Name    string
	Type    *Type
	NotNull bool
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// String returns the type as SQL writes it, in upper case but for the names of
// fields, without spaces but before NOT NULL. Parse reads it again.
func (t *Type) String() string {
	var out strings.Builder
	t.write(&out)
	return out.String()
}

func (t *Type) write(out *strings.Builder) {
	switch t.Kind {
	case String:
		out.WriteString(t.Name)
		if t.Length > 0 {
			fmt.Fprintf(out, "(%d)", t.Length)
		}
	case Decimal:
		fmt.Fprintf(out, "DECIMAL(%d,%d)", t.Precision, t.Scale)
	case Array:
		out.WriteString("ARRAY<")
		t.Elem.write(out)
		out.WriteByte('>')
	case Map:
		out.WriteString("MAP<")
		t.Key.write(out)
		out.WriteByte(',')
		t.Elem.write(out)
		out.WriteByte('>')
	case Struct:
		open := "STRUCT<"
		for _, f := range t.Fields {
			name := f.Name
			if !plainName.MatchString(name) {
				name = "`" + name + "`"
			}
			out.WriteString(open + name + ":")
			f.Type.write(out)
			if f.NotNull {
				out.WriteString(" NOT NULL")
			}
			open = ","
		}
		out.WriteByte('>')
	case Other:
		out.WriteString(t.Name)
	default:
		out.WriteString(t.Kind.String())
	}
}

// Same reports whether two types take the same values in the same form: names of
// fields compare without case, and whether a field is NOT NULL does not count.
func (t *Type) Same(u *Type) bool {
	if t.Kind != u.Kind {
		return false
	}
	switch t.Kind {
	case Decimal:
		return t.Precision == u.Precision && t.Scale == u.Scale
	case Array:
		return t.Elem.Same(u.Elem)
	case Map:
		return t.Key.Same(u.Key) && t.Elem.Same(u.Elem)
	case Struct:
		if len(t.Fields) != len(u.Fields) {
			return false
		}
		for i := range t.Fields {
			if a, b := &t.Fields[i], &u.Fields[i]; !strings.EqualFold(a.Name, b.Name) || !a.Type.Same(b.Type) {
				return false
			}
		}
	case Other:
		return t.Name == u.Name
	}
	return true
}
