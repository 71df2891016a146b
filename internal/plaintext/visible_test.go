package plaintext_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/plaintext"
)

func TestVisible(t *testing.T) {
	for given, want := range map[string]string{
		"": "",
		"plain, ünïcödé, 日本　語\n\ttext": "plain, ünïcödé, 日本　語\n\ttext",
		"a heart ❤\ufe0f":              "a heart ❤\ufe0f",
		"bell\a, red \x1b[31m, \x7f":   `bell\u0007, red \u001b[31m, \u007f`,
		"over\rwritten\v\f":            `over\u000dwritten\u000b\u000c`,
		"C1 \u0085 \u009b31m":          `C1 \u0085 \u009b31m`,
		"bytes \x9b \xff\xfe":          `bytes \x9b \xff\xfe`,
		"cut \xe2\x80":                 `cut \xe2\x80`,
		"bidi \u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069": `bidi \u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069`,
		"lines \u2028\u2029": `lines \u2028\u2029`,
		"mark \ufeff":        `mark \ufeff`,
		"shapeless \u200b\u200d\u00ad\u2060\u115f\u3164\u034f\ufe00": `shapeless \u200b\u200d\u00ad\u2060\u115f\u3164\u034f\ufe00`,
		"tags \U000e0041 and \U000e0100":                             `tags \udb40\udc41 and \udb40\udd00`,
		"private \ue000, none \uffff":                                `private \ue000, none \uffff`,
		"already \\u202e":                                            `already \u202e`,
		"U+FFFD \ufffd itself":                                       "U+FFFD \ufffd itself",
	} {
		got := plaintext.Visible(given)
		if got != want {
			t.Errorf("%+q: got %q, want %q", given, got, want)
		}
		if again := plaintext.Visible(got); again != got {
			t.Errorf("%+q: got %q of %q, want it unchanged", given, again, got)
		}
	}
	if got, want := plaintext.VisibleLine("a\nb\tc\r"), `a\nb\tc\u000d`; got != want {
		t.Errorf("got %q, want %q on one line", got, want)
	}
}

// JSON has the same value with its characters escaped.
func TestVisibleKeepsJSON(t *testing.T) {
	const at = 1024 // characters in one text
	for from := rune(0); from <= unicode.MaxRune; from += at {
		var all strings.Builder
		for r := from; r < from+at; r++ {
			if utf8.ValidRune(r) {
				all.WriteRune(r)
			}
		}
		text, err := json.Marshal(all.String())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal([]byte(plaintext.Visible(string(text))), &got); err != nil || got != all.String() {
			t.Fatalf("from %U: got %+q, %v", from, got, err)
		}
	}
}
