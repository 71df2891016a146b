package plaintext_test

import (
	"testing"

	"github.com/datafly/bridge/internal/plaintext"
)

func TestClean(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "a: 1\n", "a: 1\n"},
		{"nothing", "", ""},
		{"marked", "\xef\xbb\xbfa: 1\n", "a: 1\n"},
		{"a mark alone", "\xef\xbb\xbf", ""},
		{"a mark inside stays", "a\xef\xbb\xbfb", "a\xef\xbb\xbfb"},
		{"UTF-16, little end first", "\xff\xfea\x00\xe9\x00\x3d\xd8\x00\xde", "a\u00e9\U0001f600"},
		{"UTF-16, big end first", "\xfe\xff\x00a\x00\xe9\xd8\x3d\xde\x00", "a\u00e9\U0001f600"},
		{"half a unit", "\xff\xfea", "\xff\xfea"},
		{"no text", "\xff\x00\x01", "\xff\x00\x01"},
	} {
		if got := string(plaintext.Clean([]byte(tc.in))); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	if got := string(plaintext.PEM([]byte("\xef\xbb\xbf-----A\n\xef\xbb\xbf-----B\n"))); got != "-----A\n-----B\n" {
		t.Errorf("PEM: got %q, want no mark", got)
	}
}

func TestSecret(t *testing.T) {
	for in, want := range map[string]string{
		"s": "s", "s\n": "s", "\r\ns\r\n\n": "s", "\ufeffs\n": "s", " s \n": " s ", "a\nb\n": "a\nb", "\n": "", "": "",
	} {
		if got := plaintext.Secret(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
