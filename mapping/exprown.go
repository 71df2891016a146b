package mapping

import (
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/expr-lang/expr/vm/runtime"
)

// Here are the functions and operators that take the place of the library's own:
// they pay for what they make before they make it.

// add is the operator +.
func add(args ...any) (any, error) {
	a, isText := args[1].(string)
	b, both := args[2].(string)
	if isText && both {
		if err := args[0].(*meter).text(len(a) + len(b)); err != nil {
			return nil, err
		}
	}
	return runtime.Add(args[1], args[2]), nil
}

var errArguments = errors.New("invalid operation: the function does not take these arguments")

// join puts the texts of an array behind one another; the separator is "" where
// none is given.
func join(args ...any) (any, error) {
	m, separator := args[0].(*meter), ""
	if len(args) == 3 {
		var ok bool
		if separator, ok = args[2].(string); !ok {
			return nil, errArguments
		}
	} else if len(args) != 2 {
		return nil, errArguments
	}
	var parts []string
	switch list := args[1].(type) {
	case []string:
		parts = list
	case []any:
		for _, item := range list {
			text, ok := item.(string)
			if !ok {
				return nil, errArguments
			}
			parts = append(parts, text)
		}
	default:
		return nil, errArguments
	}
	size := (len(separator) + 1) * len(parts)
	for _, p := range parts {
		size += len(p)
	}
	if err := m.text(size); err != nil {
		return nil, err
	}
	return strings.Join(parts, separator), nil
}

// replace puts a text in the place of another, everywhere or so many times.
func replace(args ...any) (any, error) {
	if len(args) < 4 || len(args) > 5 {
		return nil, errArguments
	}
	text, ok1 := args[1].(string)
	from, ok2 := args[2].(string)
	to, ok3 := args[3].(string)
	if !ok1 || !ok2 || !ok3 {
		return nil, errArguments
	}
	times := -1
	if len(args) == 5 {
		times = runtime.ToInt(args[4])
	}
	found := strings.Count(text, from)
	if times >= 0 {
		found = min(found, times)
	}
	if err := args[0].(*meter).text(len(text) + found*len(to)); err != nil {
		return nil, err
	}
	return strings.Replace(text, from, to, times), nil
}

// date reads a time as a TIMESTAMP column does.
func date(args ...any) (any, error) {
	if len(args) != 1 {
		return nil, errArguments
	}
	var t instant
	var ok bool
	switch v := args[0].(type) {
	case time.Time:
		return v, nil
	case string:
		t, ok = parseInstant([]byte(v))
	case int, float64:
		t, ok = epochInstant(appendGo(nil, v))
	}
	if !ok {
		return nil, errors.New("invalid operation: date of what is no time")
	}
	return time.Unix(t.sec, t.nano).UTC(), nil
}

// uniq keeps the first of values that are equal. The library compares each with
// all before it, which a long list turns into minutes.
func uniq(args ...any) (any, error) {
	if len(args) != 2 {
		return nil, errArguments
	}
	m := args[0].(*meter)
	var list []any
	switch v := args[1].(type) {
	case []any:
		list = v
	case []string:
		for _, text := range v {
			list = append(list, text)
		}
	case []int:
		for _, n := range v {
			list = append(list, n)
		}
	default:
		return nil, errArguments
	}
	kept := []any{}
	plain := make(map[any]bool) // text and numbers among them
	var others []any
	for _, v := range list {
		switch key := exact(v).(type) {
		case nil:
			seen := false
			for _, other := range others {
				if err := m.weigh(other, lookBytesStep, 0); err != nil {
					return nil, err
				}
				if seen = runtime.Equal(v, other); seen {
					break
				}
			}
			if seen {
				continue
			}
			others = append(others, v)
		default:
			if err := m.weigh(v, lookBytesStep, 0); err != nil {
				return nil, err
			}
			if plain[key] {
				continue
			}
			plain[key] = true
		}
		kept = append(kept, v)
	}
	return kept, nil
}

// exact returns what a map may hold in the place of a value and finds whenever
// the language calls another value equal to it; nil if there is no such thing.
func exact(value any) any {
	const whole = 1 << 53 // beyond, an int may equal a float64 that is not it
	switch v := value.(type) {
	case string:
		return v
	case int:
		if -whole < v && v < whole {
			return float64(v)
		}
	case float64:
		if -whole < v && v < whole {
			return v
		}
	}
	return nil
}

// matches is the operator with a pattern that the event gives. One that is
// written in the blueprint is compiled with it.
func matches(args ...any) (any, error) {
	if args[1] == nil || args[2] == nil {
		return false, nil
	}
	text, ok1 := args[1].(string)
	pattern, ok2 := args[2].(string)
	if !ok1 || !ok2 {
		return nil, errArguments
	}
	if len(pattern) > maxPattern {
		return nil, errTooLarge
	}
	if err := args[0].(*meter).pay((64 + len(text)) * (1 + len(pattern))); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, errors.New("invalid operation: the pattern is no regular expression")
	}
	return re.MatchString(text), nil
}
