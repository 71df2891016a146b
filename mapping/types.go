package mapping

import (
	"fmt"
	"strings"

	"github.com/datafly/bridge/internal/delta"
)

// deltaType is a column type rows can be encoded for.
type deltaType struct {
	delta.Type
	key    *deltaType // MAP key
	elem   *deltaType // ARRAY element, MAP value
	fields []field    // STRUCT
	byName map[string]fieldName
	text   string // Type's, for errors
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

// maxTypeDepth bounds how deep ARRAY, MAP and STRUCT may be nested.
const maxTypeDepth = 16

// parseType reads a type that rows can be encoded for.
func parseType(text string) (*deltaType, error) {
	t, err := delta.Parse(text)
	if err != nil {
		return nil, err
	}
	out, err := newType(t, 0)
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", delta.Clip(text), err)
	}
	return out, nil
}

func newType(t *delta.Type, depth int) (*deltaType, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxTypeDepth)
	}
	out := &deltaType{Type: *t, text: t.String()}
	var err error
	switch t.Kind {
	case delta.Other:
		return nil, fmt.Errorf("%s is not one of %s%s", delta.Clip(t.Name), strings.Join(delta.Names(false), ", "), hint(t.Name, delta.Names(false)))
	case delta.Map:
		if t.Key.Kind >= delta.Variant {
			return nil, fmt.Errorf("the key of a MAP cannot be %s; a scalar type can", delta.Clip(t.Key.String()))
		}
		if out.key, err = newType(t.Key, depth+1); err != nil {
			return nil, err
		}
		out.elem, err = newType(t.Elem, depth+1)
	case delta.Array:
		out.elem, err = newType(t.Elem, depth+1)
	case delta.Struct:
		err = out.addFields(depth)
	}
	return out, err
}

// short names the type in a reason, which should not carry a STRUCT of a
// thousand fields.
func (t *deltaType) short() string {
	if len(t.text) > 80 {
		return t.Kind.String()
	}
	return t.text
}

// protobuf returns why no protobuf field can hold the type, or nil. The limits
// are those of the language: a field repeats once, the value of a map does not
// repeat, and the key of a map is an integer, a bool or a string.
// https://protobuf.dev/programming-guides/proto2/#maps
func (t *deltaType) protobuf() error {
	const instead = "; make it VARIANT, put the inner one into a STRUCT, or write rows as JSON"
	switch t.Kind {
	case delta.Array:
		if t.elem.Kind == delta.Array || t.elem.Kind == delta.Map {
			return fmt.Errorf("protobuf cannot hold %s inside an ARRAY (%s)%s", t.elem.Kind.String(), t.short(), instead)
		}
		return t.elem.protobuf()
	case delta.Map:
		switch t.key.Kind {
		case delta.Float, delta.Double, delta.Binary:
			return fmt.Errorf("protobuf cannot hold a MAP with %s keys (%s); make it VARIANT, or write rows as JSON", t.key.text, t.short())
		}
		if t.elem.Kind == delta.Array || t.elem.Kind == delta.Map {
			return fmt.Errorf("protobuf cannot hold %s inside a MAP (%s)%s", t.elem.Kind.String(), t.short(), instead)
		}
		return t.elem.protobuf()
	case delta.Struct:
		for i := range t.fields {
			if err := t.fields[i].typ.protobuf(); err != nil {
				return fmt.Errorf("field %s: %w", t.fields[i].name, err)
			}
		}
	}
	return nil
}

// addFields makes the fields of a STRUCT ready for encoding.
func (t *deltaType) addFields(depth int) error {
	seen := map[string]bool{}
	for i, f := range t.Fields {
		if !columnName.MatchString(f.Name) {
			return fmt.Errorf("%q cannot be a field for Zerobus; use ASCII letters, digits and underscores, as in STRUCT<a:INT>", delta.Clip(f.Name))
		}
		fold := strings.ToLower(f.Name)
		if seen[fold] {
			return fmt.Errorf("field %s occurs twice in a STRUCT", f.Name)
		}
		seen[fold] = true
		typ, err := newType(f.Type, depth+1)
		if err != nil {
			return err
		}
		t.fields = append(t.fields, field{
			name: f.Name, notNull: f.NotNull, key: append(appendQuoted(nil, []byte(f.Name)), ':'), tag: wireTag(int32(i+1), typ), typ: typ,
			verbatim: step{key: f.Name}.verbatim(),
		})
	}
	t.nameFields()
	return nil
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

// jsonKind returns the kind of the scanned JSON value that begins with b.
func jsonKind(raw []byte) kind {
	switch raw[0] {
	case '"':
		for _, c := range raw {
			if c == '\\' {
				return strEsc
			}
		}
		return str
	case '{':
		return object
	case '[':
		return array
	case 't':
		return trueLit
	case 'f':
		return falseLit
	case 'n':
		return null
	}
	return number
}

// valueEnd returns the index after the value at i of scanned JSON.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		for i++; b[i] != '"'; i++ {
			if b[i] == '\\' {
				i++
			}
		}
		return i + 1
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch b[i] {
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			case '"':
				i = valueEnd(b, i) - 1
			}
		}
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	return i
}

var (
	nullInArray = mismatch("has a null inside, which an ARRAY column cannot hold")
	nullInMap   = mismatch("has a null inside, which a MAP column cannot hold in protobuf")
)

// iterator goes through the values of a scanned array or object.
type iterator struct {
	b     []byte
	i     int    // of what comes next, or of the closing bracket
	key   []byte // with its quotes, in an object
	value val
	end   int // of the value
}

func elements(v val) (iterator, refusal) {
	if v.kind != array {
		return iterator{}, mismatch("is not an array")
	}
	return iterator{b: v.b, i: space(v.b, 1)}, refusal{}
}

func pairs(v val) (iterator, refusal) {
	if v.kind != object {
		return iterator{}, mismatch("is not an object")
	}
	return iterator{b: v.b, i: space(v.b, 1)}, refusal{}
}

// next goes to the next element of an array.
func (it *iterator) next() bool {
	if it.b[it.i] == ']' {
		return false
	}
	it.read()
	return true
}

// nextPair goes to the next member of an object.
func (it *iterator) nextPair() bool {
	if it.b[it.i] == '}' {
		return false
	}
	end := valueEnd(it.b, it.i)
	it.key = it.b[it.i:end]
	it.i = space(it.b, space(it.b, end)+1)
	it.read()
	return true
}

// read takes the value that comes next and what stands between it and the one
// after it.
func (it *iterator) read() {
	end := valueEnd(it.b, it.i)
	raw := it.b[it.i:end]
	it.value, it.end = val{kind: jsonKind(raw), b: raw}, end
	if it.i = space(it.b, end); it.b[it.i] == ',' {
		it.i = space(it.b, it.i+1)
	}
}
