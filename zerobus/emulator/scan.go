package emulator

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a request body.
const maxDepth = 1000

// scanner walks JSON text once, strictly: RFC 8259 grammar, valid UTF-8, no
// lone surrogates. Methods return false on a fault and leave what it is in
// problem and where in pos. It allocates nothing.
type scanner struct {
	b       []byte
	pos     int
	problem string
}

func (s *scanner) fail(problem string) bool {
	s.problem = problem
	return false
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.b) {
		return s.b[s.pos]
	}
	return 0
}

// punct consumes blanks and then this byte.
func (s *scanner) punct(c byte) bool {
	s.space()
	if s.peek() != c {
		return s.unexpected()
	}
	s.pos++
	return true
}

func (s *scanner) unexpected() bool {
	if s.pos >= len(s.b) {
		return s.fail("unexpected end of JSON")
	}
	return s.fail("invalid JSON")
}

func (s *scanner) literal(word string) bool {
	if len(s.b)-s.pos < len(word) || string(s.b[s.pos:s.pos+len(word)]) != word {
		return s.unexpected()
	}
	s.pos += len(word)
	return true
}

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks the first byte of w that a JSON string cannot hold plainly
// (quote, backslash, control) or that is not ASCII. Marks above the first may
// be false, the first never is.
func special(w uint64) uint64 {
	quote, slash := w^(lows*'"'), w^(lows*'\\')
	return (w | (quote-lows)&^quote | (slash-lows)&^slash | (w-lows*0x20)&^w) & highs
}

// str consumes a string and returns its contents without the quotes, still
// escaped, and whether it holds escapes.
func (s *scanner) str() (text []byte, escaped, ok bool) {
	if s.peek() != '"' {
		return nil, false, s.unexpected()
	}
	start := s.pos + 1
	i := start
	for {
		for len(s.b)-i >= 8 {
			m := special(binary.LittleEndian.Uint64(s.b[i:]))
			if m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				break
			}
			i += 8
		}
		if i >= len(s.b) {
			s.pos = i
			return nil, false, s.unexpected()
		}
		switch c := s.b[i]; {
		case c == '"':
			s.pos = i + 1
			return s.b[start:i], escaped, true
		case c == '\\':
			escaped = true
			n := escapeLen(s.b[i:])
			if n == 0 {
				s.pos = i
				return nil, false, s.fail("invalid escape in a string")
			}
			i += n
		case c < 0x20:
			s.pos = i
			return nil, false, s.fail("control character in a string")
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(s.b[i:])
			if r == utf8.RuneError && n == 1 {
				s.pos = i
				return nil, false, s.fail("invalid UTF-8 in a string")
			}
			i += n
		}
	}
}

// escapeLen is the length of the escape that b begins with, a surrogate pair
// counted as one; 0 if it is not a valid one.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		hi, ok := hex4(b[2:])
		switch {
		case !ok || hi >= 0xDC00 && hi <= 0xDFFF:
			return 0
		case hi < 0xD800 || hi > 0xDFFF:
			return 6
		}
		if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
			return 0
		}
		if lo, ok := hex4(b[8:]); ok && lo >= 0xDC00 && lo <= 0xDFFF {
			return 12
		}
	}
	return 0
}

func hex4(b []byte) (v uint32, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint32(c)
	}
	return v, true
}

// number consumes a number and returns its text and whether it is written as
// a whole number.
func (s *scanner) number() (text []byte, whole, ok bool) {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return nil, false, false
	}
	whole = true
	if s.peek() == '.' {
		whole = false
		s.pos++
		if !s.digits() {
			return nil, false, false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		whole = false
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, false, false
		}
	}
	return s.b[start:s.pos], whole, true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.b) && s.b[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start || s.unexpected()
}

// skip consumes any value.
func (s *scanner) skip(depth int) bool {
	if depth > maxDepth {
		return s.fail("JSON nested too deep")
	}
	s.space()
	switch c := s.peek(); c {
	case '"':
		_, _, ok := s.str()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	case '{', '[':
		return s.members(c, func(_ []byte, _ bool) bool { return s.skip(depth + 1) })
	}
	_, _, ok := s.number()
	return ok
}

// members walks an object or array: it calls each at the start of every
// value, with the member's name for objects. each must consume the value.
func (s *scanner) members(open byte, each func(name []byte, escaped bool) bool) bool {
	end := byte('}')
	if open == '[' {
		end = ']'
	}
	if !s.punct(open) {
		return false
	}
	s.space()
	if s.peek() == end {
		s.pos++
		return true
	}
	for {
		var name []byte
		var escaped, ok bool
		s.space()
		if open == '{' {
			if name, escaped, ok = s.str(); !ok || !s.punct(':') {
				return false
			}
			s.space()
		}
		if !each(name, escaped) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return true
		default:
			return s.unexpected()
		}
	}
}
