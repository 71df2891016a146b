// Package plaintext reads text files, secrets and certificates as other programs
// write them: with byte order marks, line breaks behind secrets, or in UTF-16. It
// bounds how much is read and how long that takes. A wrong path, a pipe without a
// writer or a mount whose server is gone does not stop the program.
package plaintext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const mark = "\ufeff" // the byte order mark

// Clean returns the text of a file as UTF-8 without a byte order mark. UTF-16 is
// read where a mark shows it; any other data is returned as it is.
func Clean(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte(mark)):
		return data[len(mark):]
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}) && len(data)%2 == 0:
		return fromUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}) && len(data)%2 == 0:
		return fromUTF16(data[2:], binary.BigEndian)
	}
	return data
}

func fromUTF16(data []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, 0, len(data)/2)
	for ; len(data) > 1; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return []byte(string(utf16.Decode(units)))
}

// PEM is Clean for certificates and keys. They are often several files joined,
// each with a mark of its own, and a block behind a mark would be missed.
func PEM(data []byte) []byte { return bytes.ReplaceAll(Clean(data), []byte(mark), nil) }

// Secret returns a secret or token without a byte order mark and without line
// breaks around it. Blanks stay: a secret may begin or end with one.
func Secret(s string) string { return strings.Trim(s, "\r\n"+mark) }

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

// ShortLine is VisibleLine for at most so many bytes of text; what is cut ends with
// three dots.
func ShortLine(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return VisibleLine(text)
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
// for text or emoji form is neither: it only changes the character before it.
func hides(r rune) bool {
	switch {
	case r >= ' ' && r <= '~' || r == '\n' || r == '\t':
		return false
	case r == '\ufe0e' || r == '\ufe0f' || unicode.Is(unicode.Zs, r):
		return false
	}
	return !unicode.IsPrint(r) || unicode.Is(unicode.Variation_Selector, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}
