package zerobus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// delta is a Delta type, read from the text a Column carries.
type delta struct {
	name   string       // in upper case, without arguments: DECIMAL, ARRAY, STRUCT
	key    *delta       // of a MAP
	elem   *delta       // of an ARRAY, or the value of a MAP
	fields []deltaField // of a STRUCT
}

type deltaField struct {
	name    string
	typ     *delta
	notNull bool
}

// deltaDepth bounds how deep types may stand in one another.
const deltaDepth = 100

// parseDelta reads a type as Column.Type writes it.
func parseDelta(text string) (*delta, error) {
	r := deltaReader{rest: text}
	t, err := r.read(0)
	if err == nil && r.rest != "" {
		err = fmt.Errorf("nothing should follow at %q", clean(r.rest, 40))
	}
	return t, err
}

type deltaReader struct{ rest string }

// word takes everything up to the next mark.
func (r *deltaReader) word() string {
	n := strings.IndexAny(r.rest, "<>(),:`")
	if n < 0 {
		n = len(r.rest)
	}
	word := r.rest[:n]
	r.rest = r.rest[n:]
	return strings.TrimSpace(word)
}

// take passes over mark where it comes next.
func (r *deltaReader) take(mark string) bool {
	rest, found := strings.CutPrefix(strings.TrimLeft(r.rest, " "), mark)
	if found {
		r.rest = rest
	}
	return found
}

func (r *deltaReader) read(depth int) (*delta, error) {
	if depth > deltaDepth {
		return nil, fmt.Errorf("types are nested deeper than %d", deltaDepth)
	}
	t := &delta{name: strings.ToUpper(r.word())}
	if t.name == "" {
		return nil, errors.New("a type is missing")
	}
	if r.take("(") {
		_, rest, closed := strings.Cut(r.rest, ")")
		if !closed {
			return nil, errors.New("( without )")
		}
		r.rest = rest
	}
	var err error
	switch t.name {
	case "ARRAY":
		if err = r.expect("<", t.name); err == nil {
			t.elem, err = r.read(depth + 1)
		}
	case "MAP":
		if err = r.expect("<", t.name); err == nil {
			t.key, err = r.read(depth + 1)
		}
		if err == nil {
			err = r.expect(",", t.name)
		}
		if err == nil {
			t.elem, err = r.read(depth + 1)
		}
	case "STRUCT":
		if err = r.expect("<", t.name); err == nil {
			t.fields, err = r.structure(depth)
		}
	default:
		return t, nil
	}
	if err == nil {
		err = r.expect(">", t.name)
	}
	return t, err
}

func (r *deltaReader) expect(mark, where string) error {
	if !r.take(mark) {
		return fmt.Errorf("%s needs %q at %q", where, mark, clean(r.rest, 40))
	}
	return nil
}

// structure reads name:TYPE [NOT NULL], with commas between.
func (r *deltaReader) structure(depth int) (fields []deltaField, err error) {
	for {
		f := deltaField{}
		if r.take("`") {
			var closed bool
			if f.name, r.rest, closed = strings.Cut(r.rest, "`"); !closed {
				return nil, errors.New("` without another")
			}
		} else {
			f.name = r.word()
		}
		if err := r.expect(":", "STRUCT"); err != nil {
			return nil, err
		}
		if f.typ, err = r.read(depth + 1); err != nil {
			return nil, err
		}
		// The words that follow a scalar type were read with its name.
		if name, found := strings.CutSuffix(f.typ.name, " NOT NULL"); found {
			f.typ.name, f.notNull = name, true
		} else if r.take("NOT NULL") {
			f.notNull = true
		}
		fields = append(fields, f)
		if !r.take(",") {
			return fields, nil
		}
	}
}

// sqlNames are the types that type_json, which is Spark's schema JSON, calls
// otherwise than SQL and so than a blueprint.
var sqlNames = map[string]string{"BYTE": "TINYINT", "SHORT": "SMALLINT", "INTEGER": "INT", "LONG": "BIGINT", "TIMESTAMP_LTZ": "TIMESTAMP"}

// deltaText writes the type that Unity Catalog's type_json describes as the
// text of a Column: the only place that tells which fields of a STRUCT are NOT
// NULL. It takes the type alone, or the column around it.
func deltaText(doc []byte) (string, error) {
	var out strings.Builder
	if err := writeDelta(&out, doc, 0); err != nil {
		return "", err
	}
	return out.String(), nil
}

func writeDelta(out *strings.Builder, doc []byte, depth int) error {
	if depth > deltaDepth {
		return fmt.Errorf("types are nested deeper than %d", deltaDepth)
	}
	var name string
	if json.Unmarshal(doc, &name) == nil {
		if name = strings.TrimSpace(name); name == "" {
			return errors.New("a type is missing")
		}
		name = upperType(name)
		if sql, ok := sqlNames[name]; ok {
			name = sql
		}
		out.WriteString(name)
		return nil
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
		return errors.New("it is no type")
	}
	part := func(open string, doc []byte) error {
		out.WriteString(open)
		return writeDelta(out, doc, depth+1)
	}
	switch {
	case t.Elem != nil:
		if err := part("ARRAY<", t.Elem); err != nil {
			return err
		}
	case t.Key != nil && t.Value != nil:
		if err := errors.Join(part("MAP<", t.Key), part(",", t.Value)); err != nil {
			return err
		}
	case t.Fields != nil:
		for i, f := range t.Fields {
			if f.Name == "" || strings.Contains(f.Name, "`") {
				return fmt.Errorf("field %d of a STRUCT has no usable name", i)
			}
			name := f.Name
			if !identifier.MatchString(name) {
				name = "`" + name + "`"
			}
			open := map[bool]string{true: "STRUCT<", false: ","}[i == 0] + name + ":"
			if err := part(open, f.Type); err != nil {
				return err
			}
			if f.Nullable != nil && !*f.Nullable {
				out.WriteString(" NOT NULL")
			}
		}
		if len(t.Fields) == 0 {
			return errors.New("a STRUCT has no fields")
		}
	default:
		return writeDelta(out, t.Type, depth+1) // the column around a type
	}
	out.WriteString(">")
	return nil
}
