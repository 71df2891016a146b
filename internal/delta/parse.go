package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

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

func (p *parser) parse(depth int) (t *Type, err error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	name := strings.ToUpper(p.word())
	switch name {
	case "":
		return nil, fmt.Errorf("a type is missing at character %d", p.i+1)
	case "ARRAY":
		t = &Type{Kind: Array}
		err = p.args(name, 1, func(int) error {
			t.Elem, err = p.parse(depth + 1)
			return err
		})
	case "MAP":
		t = &Type{Kind: Map}
		err = p.args(name, 2, func(i int) error {
			to := map[int]**Type{0: &t.Key, 1: &t.Elem}[i]
			*to, err = p.parse(depth + 1)
			return err
		})
	case "STRUCT":
		t = &Type{Kind: Struct}
		err = p.args(name, 0, func(int) error {
			f, err := p.field(depth)
			t.Fields = append(t.Fields, f)
			return err
		})
	default:
		return p.scalar(name)
	}
	return t, err
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
		end := strings.IndexByte(p.text[p.i:], '`')
		if end < 0 {
			return f, errors.New("` without another")
		}
		f.Name = p.text[p.i : p.i+end]
		p.i += end + 1
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
	if p.done() || p.text[p.i] != '\'' && p.text[p.i] != '"' {
		return false
	}
	for quote, i := p.text[p.i], p.i+1; i < len(p.text); i++ {
		switch p.text[i] {
		case '\\':
			i++
		case quote:
			p.i = i + 1
			return true
		}
	}
	return false
}

// scalar reads what follows the name of a type without types in it.
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
		rest := p.text[p.i:]
		n := strings.IndexByte(rest, ')')
		if n < 0 {
			return nil, errors.New("( without )")
		}
		args = rest[:n]
		p.i += n + 1
	}
	switch name {
	case "DECIMAL", "DEC", "NUMERIC":
		t := &Type{Kind: Decimal, Precision: 10}
		if open {
			precision, scale, two := strings.Cut(args, ",")
			var err1, err2 error
			t.Precision, err1 = strconv.Atoi(strings.TrimSpace(precision))
			if two {
				t.Scale, err2 = strconv.Atoi(strings.TrimSpace(scale))
			}
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("%s is not DECIMAL(precision,scale)", Clip(name+"("+args+")"))
			}
		}
		if t.Precision < 1 || t.Precision > 38 || t.Scale < 0 || t.Scale > t.Precision {
			return nil, fmt.Errorf("%s: a DECIMAL has a precision of 1 to 38 and a scale of 0 to the precision", Clip(name+"("+args+")"))
		}
		return t, nil
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
	// Such as INTERVAL DAY TO SECOND: what is not a mark and not of a field belongs to it.
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

// Clip shortens the text of a type for an error message. What does not print
// becomes a question mark, since quoting would make up to ten characters of it.
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
// schema JSON: the only place that tells which fields of a STRUCT are NOT NULL.
// It takes the type alone, or the column around it.
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
