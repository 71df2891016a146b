// Package plaintext makes what other programs write readable: editors and shells put
// byte order marks in front of files and line breaks behind secrets, and some
// write UTF-16. Every reader of a text file, a secret or a certificate uses it. It
// also bounds how much is read and how long that may take: a wrong path, a pipe
// nobody writes to or a mount whose server is gone must not stop the program.
package plaintext

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

const mark = "\ufeff" // the byte order mark

// Clean returns the text of a file as UTF-8 without a byte order mark. UTF-16 is
// read where a mark says so; any other data comes back as it is.
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

// PEM is Clean for certificates and keys, which are often several files behind
// one another, each with a mark of its own: a block behind one would be missed.
func PEM(data []byte) []byte { return bytes.ReplaceAll(Clean(data), []byte(mark), nil) }

// Secret returns a secret or token without a byte order mark and without line
// breaks around it. Blanks stay: a secret may begin or end with one.
func Secret(s string) string { return strings.Trim(s, "\r\n"+mark) }
