package mapping

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stops marks, in the high bit of each byte, the bytes of w that end the easy
// part of a string: a quote, a backslash, a control character or a byte outside
// ASCII. Only the lowest mark is to be trusted: the subtractions may borrow from
// higher bytes and mark too many of them, never lower ones.
func stops(w uint64) uint64 {
	quote, slash := w^'"'*lows, w^'\\'*lows
	return ((quote - lows) | (slash - lows) | (w - ' '*lows) | w) & highs
}

// plainEnd returns the index of the first byte from i on that is not an easy
// part of a string, or one within eight bytes of the end of b.
func plainEnd(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		if stop := stops(binary.LittleEndian.Uint64(b[i:])); stop != 0 {
			return i + bits.TrailingZeros64(stop)>>3
		}
	}
	return i
}

// text scans from anywhere inside a string to behind its closing quote and says
// whether there was an escape on the way.
func (s *scanner) text(i int) (end int, esc bool) {
	b := s.b
	for {
		if i = plainEnd(b, i); i >= len(b) {
			return s.fail(CodeNotJSON, "the text ends inside a string", i), false
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, esc
		case c == '\\':
			esc = true
			if i = s.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			return s.fail(CodeNotJSON, "a control character stands unescaped in a string", i), false
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				s.note(CodeInvalidUTF8, "a byte that is not UTF-8", i)
			}
			i += size
		}
	}
}

// escape scans the escape whose backslash stands at i. A surrogate must be one
// of a pair.
func (s *scanner) escape(i int) int {
	if i+1 >= len(s.b) {
		return s.fail(CodeNotJSON, "the text ends inside a string", i)
	}
	switch s.b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		r := hex4(s.b, i+2)
		if r < 0 {
			return s.fail(CodeNotJSON, "four hexadecimal digits should follow \\u", i)
		}
		if r < 0xD800 || r > 0xDFFF {
			return i + 6
		}
		if r < 0xDC00 && i+7 < len(s.b) && s.b[i+6] == '\\' && s.b[i+7] == 'u' {
			if low := hex4(s.b, i+8); low >= 0xDC00 && low <= 0xDFFF {
				return i + 12
			}
		}
		s.note(CodeInvalidUTF8, "a surrogate that is not one of a pair", i)
		return i + 6
	}
	return s.fail(CodeNotJSON, "an unknown escape", i)
}

// hex4 returns the value of the four hexadecimal digits at i, or -1.
func hex4(b []byte, i int) rune {
	if i+4 > len(b) {
		return -1
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return r
}

func (s *scanner) literal(i int, want string) int {
	if end := i + len(want); end <= len(s.b) && string(s.b[i:end]) == want {
		return end
	}
	if name := notFinite(s.b[i:], false); name != "" { // nan begins like null
		return s.number(i)
	}
	return s.fail(CodeNotJSON, "a value should stand here", i)
}

func (s *scanner) number(i int) int {
	end := numberEnd(s.b, i)
	if end < 0 {
		if name := notFinite(s.b[i:], false); name != "" {
			return s.fail(CodeNotJSON, name+" stands here, which JSON has no number for; have the producer send null", i)
		}
		if c := s.b[i]; c == '-' || ('0' <= c && c <= '9') {
			return s.fail(CodeNotJSON, "a number that JSON does not allow", i)
		}
		return s.fail(CodeNotJSON, "a value should stand here", i)
	}
	return end
}

// numberEnd returns the index after the JSON number at i, or -1. What follows
// the number is the caller's to check; "01" ends after the zero.
func numberEnd(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && '1' <= b[i] && b[i] <= '9':
		i = digits(b, i)
	default:
		return -1
	}
	if i < len(b) && b[i] == '.' {
		end := digits(b, i+1)
		if end == i+1 {
			return -1
		}
		i = end
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		end := digits(b, i)
		if end == i {
			return -1
		}
		i = end
	}
	return i
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
