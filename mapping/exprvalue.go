package mapping

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxResultDepth bounds how deep the arrays and objects of a result nest.
const maxResultDepth = 100

// expressionSource names an expression where people read what fed a column.
const expressionSource = "expression"

var (
	errNotUnicode = errors.New("gives text that is not UTF-8, such as a part of a character")
	errResult     = errors.New("gives what no column can hold; give text, a number, true, false, a time, an array or an object")
	errNotFinite  = errors.New("gives a number that is not finite")
)

// evaluate makes the value of a column that is fed by an expression; kind
// absent where it gives nil.
func (m *Mapper) evaluate(from *source) (val, refusal) {
	out, err := from.expr.run(m)
	if err != nil {
		return val{}, refusal{CodeExpressionFailed, err.Error()}
	}
	v := val{kind: number}
	switch r := out.(type) {
	case nil:
		return val{}, refusal{}
	case string:
		if len(r) > maxText {
			return val{}, refusal{CodeExpressionFailed, errTooLarge.Error()}
		}
		if !utf8.ValidString(r) {
			return val{}, refusal{CodeExpressionFailed, "the expression " + errNotUnicode.Error()}
		}
		v.kind = plainText
		v.b = m.e.add(func(b []byte) []byte { return append(b, r...) })
		return v, refusal{}
	case time.Time:
		if t := (instant{r.Unix(), int64(r.Nanosecond())}); t.inRange() {
			return val{kind: pointInTime, t: t}, refusal{}
		}
		return val{}, refusal{CodeExpressionFailed, "the expression gives a time outside the years 1 to 9999"}
	}
	v.b = m.e.add(func(b []byte) []byte {
		b, err = appendResult(b, out, 0)
		return b
	})
	if err != nil {
		return val{}, refusal{CodeExpressionFailed, "the expression " + err.Error()}
	}
	v.kind = jsonKind(v.b)
	return v, refusal{}
}

// appendResult appends a value of the expression language as JSON. Objects come
// out in the order of their keys, so that an event always makes the same row.
func appendResult(dst []byte, value any, depth int) ([]byte, error) {
	if depth > maxResultDepth || len(dst) > maxText {
		return dst, errors.New("gives a value that is too large or too deep for a column")
	}
	switch v := value.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int, float64:
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return dst, errNotFinite
		}
		return appendGo(dst, v), nil
	case time.Duration:
		return appendGo(dst, v.Seconds()), nil
	case time.Time:
		t := instant{v.Unix(), int64(v.Nanosecond())}
		if !t.inRange() {
			return dst, errResult
		}
		dst = append(dst, '"')
		return append(t.appendRFC3339(dst, "Z"), '"'), nil
	case string:
		if !utf8.ValidString(v) {
			return dst, errNotUnicode
		}
		return appendQuoted(dst, []byte(v)), nil
	case []any:
		return appendList(dst, v, depth)
	case []string:
		return appendList(dst, v, depth)
	case []int:
		return appendList(dst, v, depth)
	case map[string]any:
		return appendMembers(dst, v, depth)
	case map[any]any: // what fromPairs makes
		return appendNamed(dst, v, depth)
	case map[any][]any: // what groupBy makes
		return appendNamed(dst, v, depth)
	}
	return dst, errResult
}

func appendList[T any](dst []byte, list []T, depth int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, item := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendResult(dst, item, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendNamed appends an object whose names are text.
func appendNamed[T any](dst []byte, members map[any]T, depth int) ([]byte, error) {
	named := make(map[string]any, len(members))
	for k, v := range members {
		name, ok := k.(string)
		if !ok {
			return dst, errors.New("gives an object whose names are not text; make text of them with string()")
		}
		named[name] = v
	}
	return appendMembers(dst, named, depth)
}

func appendMembers(dst []byte, members map[string]any, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendResult(dst, name, depth+1); err != nil {
			return dst, err
		}
		dst = append(dst, ':')
		if dst, err = appendResult(dst, members[name], depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendGo appends an int or a finite float64 as JSON writes it, in the fewest
// digits that read back the same.
func appendGo(dst []byte, n any) []byte {
	if i, ok := n.(int); ok {
		return strconv.AppendInt(dst, int64(i), 10)
	}
	f, _ := n.(float64)
	form := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(dst, f, form, -1, 64)
}
