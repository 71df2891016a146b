package mapping

import (
	"fmt"
	"strings"
)

// structure reads what follows STRUCT: fields as name:TYPE or name TYPE, each
// with NOT NULL and COMMENT behind it where they are.
func (r *typeReader) structure(depth int) (deltaType, error) {
	t := deltaType{base: structType}
	seen := map[string]bool{}
	err := r.args("STRUCT", 0, func(i int) error {
		f, err := r.field(depth)
		if err != nil {
			return err
		}
		fold := strings.ToLower(f.name)
		if seen[fold] {
			return fmt.Errorf("type %q: field %s stands twice in a STRUCT", clip(r.text), f.name)
		}
		seen[fold] = true
		f.key = append(appendQuoted(nil, []byte(f.name)), ':')
		f.tag = wireTag(int32(i+1), f.typ)
		f.verbatim = step{key: f.name}.verbatim()
		t.fields = append(t.fields, f)
		return nil
	})
	if err != nil {
		return t, err
	}
	t.nameFields()
	texts := make([]string, len(t.fields))
	for i, f := range t.fields {
		texts[i] = f.name + ":" + f.typ.text
		if f.notNull {
			texts[i] += " NOT NULL"
		}
	}
	t.text = "STRUCT<" + strings.Join(texts, ",") + ">"
	return t, nil
}

func (r *typeReader) field(depth int) (f field, err error) {
	if r.take('`') {
		end := strings.IndexByte(r.text[r.i:], '`')
		if end < 0 {
			return f, fmt.Errorf("type %q: ` without another", clip(r.text))
		}
		f.name = r.text[r.i : r.i+end]
		r.i += end + 1
	} else {
		f.name = r.word()
	}
	if !columnName.MatchString(f.name) {
		return f, fmt.Errorf("type %q: %q cannot be a field for Zerobus; use ASCII letters, digits and underscores, as in STRUCT<a:INT>", clip(r.text), clip(f.name))
	}
	r.take(':')
	if f.typ, err = r.inner(depth); err != nil {
		return f, err
	}
	for {
		from := r.i
		switch word := strings.ToUpper(r.word()); {
		case word == "NOT" && strings.EqualFold(r.word(), "NULL"):
			f.notNull = true
		case word == "COMMENT" && r.quoted():
		default:
			r.i = from
			return f, nil
		}
	}
}

// quoted passes over a text in single or double quotes.
func (r *typeReader) quoted() bool {
	r.blanks()
	if r.i == len(r.text) || r.text[r.i] != '\'' && r.text[r.i] != '"' {
		return false
	}
	for quote, i := r.text[r.i], r.i+1; i < len(r.text); i++ {
		switch r.text[i] {
		case '\\':
			i++
		case quote:
			r.i = i + 1
			return true
		}
	}
	return false
}

// nameFields notes which keys of an object feed which field: its own name,
// and the other spellings that events use where no other field has them.
func (t *deltaType) nameFields() {
	t.byName = make(map[string]fieldName, 2*len(t.fields))
	for i := range t.fields {
		t.byName[t.fields[i].name] = fieldName{field: i, own: true}
	}
	for i := range t.fields {
		for rank, alt := range alternatives(t.fields[i].name) {
			if n, taken := t.byName[alt.key]; !taken || n.own && n.field == i {
				t.byName[alt.key] = fieldName{field: i, rank: rank, own: n.own}
			}
		}
	}
}
