package mapping

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxTypeDepth bounds how deep ARRAY, MAP and STRUCT may stand in one another.
const maxTypeDepth = 16

// parseType reads a Delta type. The names and synonyms are those of the
// Databricks SQL reference, "Data types".
func parseType(text string) (deltaType, error) {
	r := typeReader{text: text}
	t, err := r.read(0)
	if err == nil && !r.done() {
		err = fmt.Errorf("type %q: nothing should follow %s", clip(text), clip(t.text))
	}
	if err != nil {
		return deltaType{}, err
	}
	return t, nil
}

// typeReader reads the text of a type from the left.
type typeReader struct {
	text string
	i    int
}

func (r *typeReader) blanks() {
	for r.i < len(r.text) && strings.IndexByte(" \t\r\n", r.text[r.i]) >= 0 {
		r.i++
	}
}

func (r *typeReader) done() bool {
	r.blanks()
	return r.i == len(r.text)
}

// take passes over c where it comes next.
func (r *typeReader) take(c byte) bool {
	if r.done() || r.text[r.i] != c {
		return false
	}
	r.i++
	return true
}

// word reads up to the next blank or mark.
func (r *typeReader) word() string {
	r.blanks()
	rest := r.text[r.i:]
	n := strings.IndexAny(rest, "<>(),:` \t\r\n")
	if n < 0 {
		n = len(rest)
	}
	r.i += n
	return rest[:n]
}

// read reads one type inside depth others.
func (r *typeReader) read(depth int) (deltaType, error) {
	if depth > maxTypeDepth {
		return deltaType{}, fmt.Errorf("type %q is nested deeper than %d", clip(r.text), maxTypeDepth)
	}
	switch name := strings.ToUpper(r.word()); name {
	case "ARRAY":
		t := deltaType{base: arrayType}
		err := r.args(name, 1, func(int) (err error) {
			t.elem, err = r.inner(depth)
			return err
		})
		if err == nil {
			t.text = "ARRAY<" + t.elem.text + ">"
		}
		return t, err
	case "MAP":
		t := deltaType{base: mapType}
		err := r.args(name, 2, func(i int) (err error) {
			if i == 0 {
				t.key, err = r.inner(depth)
			} else {
				t.elem, err = r.inner(depth)
			}
			return err
		})
		if err != nil {
			return t, err
		}
		if t.key.base >= variantType {
			return t, fmt.Errorf("type %q: the key of a MAP cannot be %s; a scalar type can", clip(r.text), baseNames[t.key.base])
		}
		t.text = "MAP<" + t.key.text + "," + t.elem.text + ">"
		return t, nil
	case "STRUCT":
		return r.structure(depth)
	default:
		return r.scalar(name)
	}
}

func (r *typeReader) inner(depth int) (*deltaType, error) {
	t, err := r.read(depth + 1)
	return &t, err
}

// args reads <...> with n parts between commas; n of 0 is any number.
func (r *typeReader) args(name string, n int, part func(i int) error) error {
	if !r.take('<') {
		return fmt.Errorf("type %q: %s needs types in angle brackets, such as ARRAY<STRING>, MAP<STRING,INT> or STRUCT<a:INT>", clip(r.text), name)
	}
	for i := 0; ; i++ {
		if err := part(i); err != nil {
			return err
		}
		if r.take(',') && (n == 0 || i+1 < n) {
			continue
		}
		if n > 0 && i+1 < n || !r.take('>') {
			return fmt.Errorf("type %q: %s is not closed where it should be, at character %d", clip(r.text), name, r.i+1)
		}
		return nil
	}
}

// scalar reads what follows the name of a scalar type.
func (r *typeReader) scalar(name string) (deltaType, error) {
	if b, ok := typeNames[name]; ok {
		return deltaType{base: b, text: baseNames[b]}, nil
	}
	args, open := "", r.take('(')
	if open {
		rest := r.text[r.i:]
		n := strings.IndexByte(rest, ')')
		if n < 0 {
			return deltaType{}, fmt.Errorf("type %q: ( without )", clip(r.text))
		}
		args = rest[:n]
		r.i += n + 1
	}
	switch name {
	case "DECIMAL", "DEC", "NUMERIC":
		d := deltaType{base: decimalType, precision: 10}
		if open {
			p, s, two := strings.Cut(args, ",")
			var err1, err2 error
			d.precision, err1 = strconv.Atoi(strings.TrimSpace(p))
			if two {
				d.scale, err2 = strconv.Atoi(strings.TrimSpace(s))
			}
			if err1 != nil || err2 != nil {
				return d, fmt.Errorf("type %q is not DECIMAL(precision,scale)", clip(name+"("+args+")"))
			}
		}
		if d.precision < 1 || d.precision > 38 || d.scale < 0 || d.scale > d.precision {
			return d, fmt.Errorf("type %q: a DECIMAL has a precision of 1 to 38 and a scale of 0 to the precision", clip(name+"("+args+")"))
		}
		d.text = fmt.Sprintf("DECIMAL(%d,%d)", d.precision, d.scale)
		return d, nil
	case "VARCHAR", "CHAR":
		n, err := strconv.Atoi(strings.TrimSpace(args))
		if err != nil || n < 1 {
			return deltaType{}, fmt.Errorf("type %q is not %s(length)", clip(name+"("+args+")"), name)
		}
		return deltaType{base: stringType, length: n, text: fmt.Sprintf("%s(%d)", name, n)}, nil
	}
	return deltaType{}, fmt.Errorf("type %q is not one of %s%s", clip(name), strings.Join(baseNames[:], ", "), hint(name, baseNames[:]))
}

// clip shortens the text of a type for an error. What does not print would be
// quoted in up to ten characters each, so it goes.
func clip(text string) string {
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
