// Package delta reads and prints the column types of Delta tables: as SQL writes
// them, and as Unity Catalog's type_json describes them. Names and synonyms are
// those of the Databricks SQL reference, "Data types":
// https://docs.databricks.com/aws/en/sql/language-manual/sql-ref-datatypes
package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is the family of a type.
type Kind uint8

// Kinds of types; those up to Binary are scalar. Other is a type that this package
// does not know.
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

// Names returns the preferred names of all kinds, or with synonyms every name of a
// type without arguments.
func Names(synonyms bool) []string {
	if synonyms {
		return slices.Collect(maps.Keys(kinds))
	}
	return slices.Clone(names[:])
}

// Type is a column type.
type Type struct {
	Kind      Kind
	Name      string  // of a String: STRING, VARCHAR or CHAR; of Other: as given, in upper case
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

// String returns the type as SQL writes it, in upper case except for names of fields,
// without spaces except before NOT NULL. Parse reads it back.
func (t *Type) String() string {
	switch t.Kind {
	case String:
		if t.Length > 0 {
			return fmt.Sprintf("%s(%d)", t.Name, t.Length)
		}
		return t.Name
	case Decimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case Array:
		return "ARRAY<" + t.Elem.String() + ">"
	case Map:
		return "MAP<" + t.Key.String() + "," + t.Elem.String() + ">"
	case Struct:
		fields := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			if fields[i] = f.Name; !plainName.MatchString(f.Name) {
				fields[i] = "`" + f.Name + "`"
			}
			fields[i] += ":" + f.Type.String()
			if f.NotNull {
				fields[i] += " NOT NULL"
			}
		}
		return "STRUCT<" + strings.Join(fields, ",") + ">"
	case Other:
		return t.Name
	}
	return t.Kind.String()
}

// Same reports whether two types take the same values in the same form. Names of
// fields compare without case, and NOT NULL of a field does not count.
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
		return slices.EqualFunc(t.Fields, u.Fields, func(a, b Field) bool {
			return strings.EqualFold(a.Name, b.Name) && a.Type.Same(b.Type)
		})
	case Other:
		return t.Name == u.Name
	}
	return true
}

// maxDepth bounds how deep ARRAY, MAP and STRUCT may be nested.
const maxDepth = 100

// Parse reads a type as SQL writes it. The fields of a STRUCT are name:TYPE or
// name TYPE, with NOT NULL and COMMENT after it.
func Parse(text string) (*Type, error) {
	p := parser{text: text}
	t, err := p.parse(0)
	if err == nil && !p.done() {
		err = fmt.Errorf("nothing should follow %s", Clip(t.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", Clip(text), err)
	}
	return t, nil
}

// parser reads the text of a type from the left.
type parser struct {
	text string
	i    int
}

func (p *parser) done() bool {
	for p.i < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.i]) >= 0 {
		p.i++
	}
	return p.i == len(p.text)
}

// take skips c if it comes next.
func (p *parser) take(c byte) bool {
	if p.done() || p.text[p.i] != c {
		return false
	}
	p.i++
	return true
}

// word reads up to the next blank or mark.
func (p *parser) word() string {
	p.done()
	rest := p.text[p.i:]
	n := strings.IndexAny(rest, "<>(),:` \t\r\n")
	if n < 0 {
		n = len(rest)
	}
	p.i += n
	return rest[:n]
}

func (p *parser) parse(depth int) (*Type, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	t := &Type{}
	nested := func(to **Type) (err error) {
		*to, err = p.parse(depth + 1)
		return err
	}
	switch name := strings.ToUpper(p.word()); name {
	case "":
		return nil, fmt.Errorf("a type is missing at character %d", p.i+1)
	case "ARRAY":
		t.Kind = Array
		return t, p.args(name, 1, func(int) error { return nested(&t.Elem) })
	case "MAP":
		t.Kind = Map
		return t, p.args(name, 2, func(i int) error { return nested([]**Type{&t.Key, &t.Elem}[i]) })
	case "STRUCT":
		t.Kind = Struct
		return t, p.args(name, 0, func(int) error {
			f, err := p.field(depth)
			t.Fields = append(t.Fields, f)
			return err
		})
	default:
		return p.scalar(name)
	}
}

// args reads <...> with n parts between commas; n of 0 is any number.
func (p *parser) args(name string, n int, part func(i int) error) error {
	if !p.take('<') {
		return fmt.Errorf("%s needs types in angle brackets, such as ARRAY<STRING>, MAP<STRING,INT> or STRUCT<a:INT>", name)
	}
	for i := 0; ; i++ {
		if err := part(i); err != nil {
			return err
		}
		if p.take(',') && (n == 0 || i+1 < n) {
			continue
		}
		if n > 0 && i+1 < n || !p.take('>') {
			return fmt.Errorf("%s is not closed where it should be, at character %d", name, p.i+1)
		}
		return nil
	}
}

func (p *parser) field(depth int) (f Field, err error) {
	if p.take('`') {
		var closed bool
		if f.Name, _, closed = strings.Cut(p.text[p.i:], "`"); !closed {
			return f, errors.New("` without another")
		}
		p.i += len(f.Name) + 1
	} else {
		f.Name = p.word()
	}
	if f.Name == "" {
		return f, fmt.Errorf("a field of the STRUCT has no name, at character %d; write name:TYPE, as in STRUCT<a:INT>", p.i+1)
	}
	p.take(':')
	if f.Type, err = p.parse(depth + 1); err != nil {
		return f, err
	}
	for {
		from := p.i
		switch word := strings.ToUpper(p.word()); {
		case word == "NOT" && strings.EqualFold(p.word(), "NULL"):
			f.NotNull = true
		case word == "COMMENT" && p.quoted():
		default:
			p.i = from
			return f, nil
		}
	}
}

// quoted skips a text in single or double quotes.
func (p *parser) quoted() bool {
	text := quotedText.FindString(p.text[p.i:])
	p.i += len(text)
	return text != ""
}

var quotedText = regexp.MustCompile(`^[ \t\r\n]*(?s:'(\\.|[^'\\])*'|"(\\.|[^"\\])*")`)

// scalar reads what follows the name of a type that contains no other types.
func (p *parser) scalar(name string) (*Type, error) {
	if k, ok := kinds[name]; ok {
		t := &Type{Kind: k}
		if k == String {
			t.Name = "STRING"
		}
		return t, nil
	}
	args, open := "", p.take('(')
	if open {
		var closed bool
		if args, _, closed = strings.Cut(p.text[p.i:], ")"); !closed {
			return nil, errors.New("( without )")
		}
		p.i += len(args) + 1
	}
	switch name {
	case "DECIMAL", "DEC", "NUMERIC":
		return decimal(open, args, Clip(name+"("+args+")"))
	case "VARCHAR", "CHAR":
		n, err := strconv.Atoi(strings.TrimSpace(args))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s is not %s(length)", Clip(name+"("+args+")"), name)
		}
		return &Type{Kind: String, Name: name, Length: n}, nil
	}
	if open {
		name += "(" + strings.ToUpper(args) + ")"
	}
	// All words up to the next mark or NOT NULL, such as in INTERVAL DAY TO SECOND.
	for {
		from := p.i
		word := strings.ToUpper(p.word())
		if word == "" || word == "NOT" || word == "COMMENT" {
			p.i = from
			return &Type{Kind: Other, Name: name}, nil
		}
		name += " " + word
	}
}

func decimal(hasArgs bool, args, text string) (*Type, error) {
	t := &Type{Kind: Decimal, Precision: 10}
	if hasArgs {
		precision, scale, both := strings.Cut(args, ",")
		if !both {
			scale = "0"
		}
		var err1, err2 error
		t.Precision, err1 = strconv.Atoi(strings.TrimSpace(precision))
		t.Scale, err2 = strconv.Atoi(strings.TrimSpace(scale))
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%s is not DECIMAL(precision,scale)", text)
		}
	}
	if t.Precision < 1 || t.Precision > 38 || t.Scale < 0 || t.Scale > t.Precision {
		return nil, fmt.Errorf("%s: a DECIMAL has a precision of 1 to 38 and a scale of 0 to the precision", text)
	}
	return t, nil
}

// Clip shortens the text of a type for an error message. Unprintable characters become
// question marks, since quoting would write up to ten characters for each.
func Clip(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(text))
	if len(text) > 80 {
		text = strings.ToValidUTF8(text[:80], "") + "..."
	}
	return text
}

// FromJSON reads a type as Unity Catalog's type_json describes it, in Spark's
// schema JSON, the only place that holds NOT NULL of STRUCT fields. It takes the type
// or the column around it.
func FromJSON(doc []byte) (*Type, error) { return fromJSON(doc, 0) }

func fromJSON(doc []byte, depth int) (*Type, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("types are nested deeper than %d", maxDepth)
	}
	var name string
	if json.Unmarshal(doc, &name) == nil {
		return Parse(name)
	}
	var t struct {
		Type   json.RawMessage `json:"type"`
		Elem   json.RawMessage `json:"elementType"`
		Key    json.RawMessage `json:"keyType"`
		Value  json.RawMessage `json:"valueType"`
		Fields []struct {
			Name     string          `json:"name"`
			Type     json.RawMessage `json:"type"`
			Nullable *bool           `json:"nullable"`
		} `json:"fields"`
	}
	if err := json.Unmarshal(doc, &t); err != nil || t.Type == nil {
		return nil, errors.New("it is not a type")
	}
	switch {
	case t.Elem != nil:
		elem, err := fromJSON(t.Elem, depth+1)
		return &Type{Kind: Array, Elem: elem}, err
	case t.Key != nil && t.Value != nil:
		key, err1 := fromJSON(t.Key, depth+1)
		value, err2 := fromJSON(t.Value, depth+1)
		return &Type{Kind: Map, Key: key, Elem: value}, errors.Join(err1, err2)
	case t.Fields == nil:
		return fromJSON(t.Type, depth+1) // the column around a type
	case len(t.Fields) == 0:
		return nil, errors.New("a STRUCT has no fields")
	}
	out := &Type{Kind: Struct}
	for i, f := range t.Fields {
		if f.Name == "" || strings.Contains(f.Name, "`") {
			return nil, fmt.Errorf("field %d of a STRUCT has no usable name", i)
		}
		typ, err := fromJSON(f.Type, depth+1)
		if err != nil {
			return nil, fmt.Errorf("field %d of a STRUCT: %w", i, err)
		}
		out.Fields = append(out.Fields, Field{Name: f.Name, Type: typ, NotNull: f.Nullable != nil && !*f.Nullable})
	}
	return out, nil
}
