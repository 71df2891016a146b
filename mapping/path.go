package mapping

import (
	"fmt"
	"strconv"
	"strings"
)

// step is one level of a source path.
type step struct {
	key     string
	index   int
	isIndex bool
}

// verbatim reports whether the keys below belong to the customer and are taken
// as they are.
func (s step) verbatim() bool { return s.key == "properties" || s.key == "traits" }

// pathText writes a path the way parsePath reads it.
func pathText(steps []step) string {
	var sb strings.Builder
	for i, s := range steps {
		switch {
		case s.isIndex:
			fmt.Fprintf(&sb, "[%d]", s.index)
		case strings.ContainsAny(s.key, ".[]'"):
			fmt.Fprintf(&sb, "['%s']", s.key)
		default:
			if i > 0 {
				sb.WriteByte('.')
			}
			sb.WriteString(s.key)
		}
	}
	return sb.String()
}

// parsePath reads a dotted path: a.b, a[0].b, a.0.b and a['key.with.dots'].
func parsePath(text string) ([]step, error) {
	var steps []step
	rest := text
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "['"):
			end := strings.Index(rest, "']")
			if end < 0 {
				return nil, fmt.Errorf("path %q has [' without ']", text)
			}
			steps = append(steps, step{key: rest[2:end]})
			rest = rest[end+2:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, fmt.Errorf("path %q has [ without ]", text)
			}
			n, err := strconv.ParseUint(rest[1:end], 10, 20)
			if err != nil {
				return nil, fmt.Errorf("path %q: %q is not an array index; count from 0, or quote a key as ['key']", text, rest[1:end])
			}
			steps = append(steps, step{index: int(n), isIndex: true})
			rest = rest[end+1:]
		default:
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("path %q has an empty step; remove the extra dot", text)
			}
			steps = append(steps, step{key: rest[:end]})
			rest = rest[end:]
		}
		if strings.HasPrefix(rest, ".") {
			if rest = rest[1:]; rest == "" {
				return nil, fmt.Errorf("path %q ends in a dot", text)
			}
		} else if rest != "" && rest[0] != '[' {
			return nil, fmt.Errorf("path %q: a dot should follow ]", text)
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("path is empty; name the field that feeds the column")
	}
	if steps[0].isIndex {
		return nil, fmt.Errorf("path %q begins with an index, but an event is an object", text)
	}
	return steps, nil
}

// maxSpellings bounds how many ways of writing one path are looked for: each
// level of two words doubles them.
const maxSpellings = 64

// spellings returns every way the path may be written in an event, the
// preferred one first: snake_case before camelCase at every level, and a
// number as array index or as key. Below properties and traits the keys belong
// to the customer and are taken as they are.
func spellings(steps []step) ([][]step, error) {
	out := [][]step{nil}
	users := false
	for _, s := range steps {
		var alts []step
		switch {
		case s.isIndex:
			alts = []step{s}
		default:
			alts = []step{s}
			if !users {
				alts = alternatives(s.key)
			}
			if n, err := strconv.ParseUint(s.key, 10, 20); err == nil {
				alts = append(alts, step{index: int(n), isIndex: true})
			}
		}
		users = users || s.verbatim()
		var next [][]step
		for _, head := range out {
			for _, alt := range alts {
				next = append(next, append(head[:len(head):len(head)], alt))
			}
		}
		if len(next) > maxSpellings {
			return nil, fmt.Errorf("path %q can be written in more than %d ways; shorten it", pathText(steps), maxSpellings)
		}
		out = next
	}
	return out, nil
}

// alternatives returns the snake_case and the camelCase form of a key, then
// the key itself where it is neither.
func alternatives(key string) []step {
	var snake, camel strings.Builder
	up := false
	for i := 0; i < len(key); i++ {
		c := key[i]
		switch {
		case 'A' <= c && c <= 'Z':
			if i > 0 && key[i-1] != '_' && !('A' <= key[i-1] && key[i-1] <= 'Z') {
				snake.WriteByte('_')
			}
			snake.WriteByte(c + 'a' - 'A')
			camel.WriteByte(c)
			up = false
		case c == '_' && i > 0 && i < len(key)-1:
			snake.WriteByte(c)
			up = true
		default:
			snake.WriteByte(c)
			if up && 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			camel.WriteByte(c)
			up = false
		}
	}
	alts := []step{{key: snake.String()}}
	for _, k := range []string{camel.String(), key} {
		dup := false
		for _, a := range alts {
			dup = dup || a.key == k
		}
		if !dup {
			alts = append(alts, step{key: k})
		}
	}
	return alts
}
