package spelling_test

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/spelling"
)

func TestClosest(t *testing.T) {
	for _, tc := range []struct {
		word  string
		list  []string
		want  string
		slips int
	}{
		{"cataolg", []string{"schema", "catalog"}, "catalog", 1},  // swapped
		{"catlog", []string{"schema", "catalog"}, "catalog", 1},   // one missing
		{"catalogs", []string{"schema", "catalog"}, "catalog", 1}, // one too many
		{"cetalog", []string{"schema", "catalog"}, "catalog", 1},  // replaced
		{"Session-Timeout", []string{"session_timeout"}, "session_timeout", 0},
		{"ab", []string{"b", "a"}, "a", 1}, // the first in the alphabet
		{"", []string{"abc"}, "abc", 3},
		{"ca", []string{"abc"}, "abc", 3}, // a swapped pair is not edited again
	} {
		if got, slips := spelling.Closest(tc.word, tc.list); got != tc.want || slips != tc.slips {
			t.Errorf("%s: got %s, %d; want %s, %d", tc.word, got, slips, tc.want, tc.slips)
		}
	}
	long := strings.Repeat("a", 200)
	for _, list := range [][]string{nil, {long}} {
		if _, slips := spelling.Closest(long, list); slips < len(long) {
			t.Errorf("%d words: got %d slips, want at least the length of the word", len(list), slips)
		}
	}
}
