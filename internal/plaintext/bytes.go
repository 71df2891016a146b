package plaintext

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxShown is how many bytes of text Long shows.
	MaxShown = 64 << 10
	maxHex   = 1 << 10 // bytes that are no text
)

// Bytes is a key, a value or a header of a record, for a report. Nil is null.
type Bytes []byte

// MarshalJSON returns JSON as it is, text as a string, anything else as
// {"hex": ...}, and nil as null.
func (b Bytes) MarshalJSON() ([]byte, error) {
	switch {
	case b == nil:
		return []byte("null"), nil
	case json.Valid(b):
		return b, nil
	case utf8.Valid(b):
		return json.Marshal(string(b))
	}
	return json.Marshal(map[string]string{"hex": hex.EncodeToString(b)})
}

// Short is quoted text or hexadecimal, cut to maxHex bytes.
func (b Bytes) Short() string {
	if b == nil {
		return "null"
	}
	more := ""
	if len(b) > maxHex {
		more = fmt.Sprintf(" ... %d bytes more", len(b)-maxHex)
		b = b[:maxHex]
	}
	if text := strings.ToValidUTF8(string(b), ""); len(text) >= len(b)-utf8.UTFMax && more != "" || utf8.Valid(b) {
		return strconv.Quote(text) + more
	}
	return "0x" + hex.EncodeToString(b) + more
}

// Long is indented JSON, text as it is, or a hex dump, cut.
func (b Bytes) Long() string {
	if b == nil {
		return "null"
	}
	var text bytes.Buffer
	most := MaxShown
	switch {
	case json.Indent(&text, b, "", "  ") == nil && printable(text.Bytes()):
	case printable(b):
		text = *bytes.NewBuffer(b)
	default:
		most = 5 * maxHex
		text = *bytes.NewBufferString(hex.Dump(b[:min(len(b), most)]))
	}
	shown := text.Bytes()
	if len(shown) <= most {
		return strings.TrimRight(string(shown), "\n")
	}
	return strings.ToValidUTF8(string(shown[:most]), "") + "\n... cut here; --output json shows all"
}

// printable reports whether a terminal shows the text and obeys none of it.
func printable(b []byte) bool { return Visible(string(b)) == string(b) }
