package mapping

import (
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// unescape appends the text of a JSON string body (between the quotes, already
// scanned) to dst. Lone surrogates and invalid bytes become U+FFFD.
func unescape(dst, body []byte) []byte {
	for i := 0; i < len(body); {
		c := body[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		i += 2
		switch body[i-1] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(body, i)
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+1 < len(body) && body[i] == '\\' && body[i+1] == 'u' {
					low = hex4(body, i+2)
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // quote, backslash, slash
			dst = append(dst, body[i-1])
		}
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends text as a JSON string. The text must be valid UTF-8.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, text)
	return append(dst, '"')
}

func appendEscaped(dst, text []byte) []byte {
	from := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, text[from:]...)
}

// appendCompact appends scanned JSON without the white space between its tokens.
func appendCompact(dst, raw []byte) []byte {
	inside := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case inside && c == '\\':
			dst = append(dst, c)
			i++
			c = raw[i]
		case c == '"':
			inside = !inside
		case !inside && c <= ' ':
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// isSnake reports whether a name is snake_case already and so stays as it is.
func isSnake(name []byte) bool {
	for _, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// appendSnake appends a name in snake_case. Letters (of any script), marks and
// digits stay, in lower case; every run of anything else becomes one
// underscore, none at the ends; an underscore also goes where a lower-case
// letter or digit is followed by an upper-case letter, and before the last
// capital of a run that a lower-case letter follows (HTTPRequest becomes
// http_request). A name that is snake_case already stays as it is,
// and so does one without letters and digits.
func appendSnake(dst, name []byte) []byte {
	if isSnake(name) {
		return append(dst, name...)
	}
	start := len(dst)
	var prev rune // the rune before r, 0 where that was a separator
	gap := false
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		i += size
		switch {
		case 'a' <= r && r <= 'z': // most runes, and nothing to look up
		case r == ' ', !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.M, r):
			prev, gap = 0, true
			continue
		case prev != 0 && unicode.IsUpper(r):
			next, _ := utf8.DecodeRune(name[i:])
			gap = !unicode.IsUpper(prev) || unicode.IsLower(next)
		}
		if gap && len(dst) > start {
			dst = append(dst, '_')
		}
		gap = false
		dst = utf8.AppendRune(dst, unicode.ToLower(r))
		prev = r
	}
	if len(dst) == start {
		return append(dst, name...)
	}
	return dst
}

// appendMapped appends text with f applied to every rune.
func appendMapped(dst, text []byte, f func(rune) rune) []byte {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		i += size
		dst = utf8.AppendRune(dst, f(r))
	}
	return dst
}

// appendUnicode appends a record with U+FFFD in the place of every byte that
// is not UTF-8 and of every surrogate escape that is not one of a pair. It
// needs no valid JSON; what was not JSON still is not.
func appendUnicode(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		if c := b[i]; c != '\\' {
			if c < utf8.RuneSelf {
				dst = append(dst, c)
				i++
				continue
			}
			r, size := utf8.DecodeRune(b[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		}
		n := min(2, len(b)-i)
		if n == 2 && b[i+1] == 'u' {
			if r := hex4(b, i+2); utf16.IsSurrogate(r) {
				if i+8 <= len(b) && b[i+6] == '\\' && b[i+7] == 'u' && utf16.DecodeRune(r, hex4(b, i+8)) != utf8.RuneError {
					n = 12
				} else {
					dst = append(dst, `\ufffd`...)
					i += 6
					continue
				}
			}
		} else if n == 2 && b[i+1] >= utf8.RuneSelf {
			n = 1 // not an escape; leave the byte to the branch above
		}
		dst = append(dst, b[i:i+n]...)
		i += n
	}
	return dst
}
