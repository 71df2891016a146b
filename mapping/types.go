package mapping

import (
	"fmt"
	"strconv"
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
)

// deltaType is a column type rows can be encoded for.
type deltaType struct {
	base      base
	length    int // VARCHAR(n), CHAR(n): most characters; 0 is no limit
	precision int
	scale     int
	elem      *deltaType // ARRAY element, MAP value
	text      string     // upper case, as SQL writes it
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
	"DATE", "TIMESTAMP", "TIMESTAMP_NTZ", "BINARY", "VARIANT", "ARRAY", "MAP"}

// parseType reads a Delta type. The names and synonyms are those of the
// Databricks SQL reference, "Data types".
func parseType(text string) (deltaType, error) {
	t := strings.ToUpper(strings.TrimSpace(text))
	if b, ok := typeNames[t]; ok {
		return deltaType{base: b, text: baseNames[b]}, nil
	}
	name, args, open := strings.Cut(t, "(")
	switch name = strings.TrimSpace(name); name {
	case "DECIMAL", "DEC", "NUMERIC":
		d := deltaType{base: decimalType, precision: 10}
		if open {
			p, s, two := strings.Cut(strings.TrimSuffix(args, ")"), ",")
			var err1, err2 error
			d.precision, err1 = strconv.Atoi(strings.TrimSpace(p))
			if two {
				d.scale, err2 = strconv.Atoi(strings.TrimSpace(s))
			}
			if err1 != nil || err2 != nil || !strings.HasSuffix(args, ")") {
				return d, fmt.Errorf("type %q is not DECIMAL(precision,scale)", text)
			}
		}
		if d.precision < 1 || d.precision > 38 || d.scale < 0 || d.scale > d.precision {
			return d, fmt.Errorf("type %q: a DECIMAL has a precision of 1 to 38 and a scale of 0 to the precision", text)
		}
		d.text = fmt.Sprintf("DECIMAL(%d,%d)", d.precision, d.scale)
		return d, nil
	case "VARCHAR", "CHAR":
		n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(args, ")")))
		if err != nil || n < 1 || !strings.HasSuffix(args, ")") {
			return deltaType{}, fmt.Errorf("type %q is not %s(length)", text, name)
		}
		return deltaType{base: stringType, length: n, text: fmt.Sprintf("%s(%d)", name, n)}, nil
	}
	name, args, open = strings.Cut(t, "<")
	if open && strings.HasSuffix(args, ">") {
		args = strings.TrimSuffix(args, ">")
		switch strings.TrimSpace(name) {
		case "ARRAY":
			return nested(deltaType{base: arrayType}, text, "ARRAY<", args)
		case "MAP":
			key, value, ok := strings.Cut(args, ",")
			if !ok || strings.TrimSpace(key) != "STRING" {
				return deltaType{}, fmt.Errorf("type %q: a MAP needs STRING keys, MAP<STRING,...>", text)
			}
			return nested(deltaType{base: mapType}, text, "MAP<STRING,", value)
		case "STRUCT":
			return deltaType{}, fmt.Errorf("type %q cannot be filled from a blueprint; make the column VARIANT, or STRING with the compact JSON", text)
		}
	}
	if suggestion := nearest(t, baseNames[:]); suggestion != "" {
		return deltaType{}, fmt.Errorf("type %q is not one of %s; did you mean %s", text, strings.Join(baseNames[:], ", "), suggestion)
	}
	return deltaType{}, fmt.Errorf("type %q is not one of %s", text, strings.Join(baseNames[:], ", "))
}

func nested(t deltaType, text, prefix, arg string) (deltaType, error) {
	elem, err := parseType(arg)
	if err != nil {
		return t, err
	}
	if elem.base == arrayType || elem.base == mapType {
		return t, fmt.Errorf("type %q: only scalar types can stand inside ARRAY and MAP; make the column VARIANT", text)
	}
	t.elem = &elem
	t.text = prefix + elem.text + ">"
	return t, nil
}

func (t deltaType) same(u deltaType) bool {
	if t.base == stringType && u.base == stringType {
		return true
	}
	return t.text == u.text
}
