package traffic

import (
	"strings"
	"testing"
)

func TestCompileErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"one web\n{}", `"one web": want a weight`},
		{"0 web\n{}", `"0 web": want a weight`},
		{"1 web\n[]", `"1 web": want a weight`},
		{"1 web\n{}", `"web": no such context`},
		{"1 web\n{\"a\":%colour%}\n\ncontext web\n{}", `"colour": no such field`},
		{"1 web\n{\"a\":%id}\n\ncontext web\n{}", `no such field`},
	}
	for _, tt := range tests {
		if _, err := compile(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
}
