package plaintext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Visible returns text with every character escaped that a terminal or a log
// viewer obeys instead of showing: control characters besides line feed and tab,
// bidirectional controls, line and paragraph separators, and characters that have
// no shape. The escapes are those of JSON, so that JSON stays equal when it is
// parsed. A byte that is not UTF-8 becomes \x and two digits. What comes out is not
// changed by Visible.
func Visible(text string) string {
	if strings.IndexFunc(text, hides) < 0 && utf8.ValidString(text) {
		return text
	}
	return string(AppendVisible(nil, []byte(text)))
}

// VisibleLine is Visible for text that has to stay on one line: line feeds and tabs
// are escaped, too.
func VisibleLine(text string) string {
	return lineBreaks.Replace(Visible(text))
}

var lineBreaks = strings.NewReplacer("\n", `\n`, "\t", `\t`)

// AppendVisible appends what Visible makes of text.
func AppendVisible(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		case !hides(r):
			dst = append(dst, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		text = text[size:]
	}
	return dst
}

// hides reports whether a character is obeyed or has no shape. A variation selector
// for text or emoji form is neither: it only says how the character before it looks.
func hides(r rune) bool {
	switch {
	case r >= ' ' && r <= '~' || r == '\n' || r == '\t':
		return false
	case r == '\ufe0e' || r == '\ufe0f' || unicode.Is(unicode.Zs, r):
		return false
	}
	return !unicode.IsPrint(r) || unicode.Is(unicode.Variation_Selector, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}
