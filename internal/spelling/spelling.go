// Package spelling finds the word that a misspelt one most likely stands for.
package spelling

import "strings"

// maxLength bounds the words that are compared, in bytes: no key is that long.
const maxLength = 128

// Closest returns the word of the list with the fewest slips to the given one,
// and their number; the first in the alphabet of several. A slip is a character
// to insert, delete, replace or swap with its neighbor (optimal string alignment
// distance). Case is ignored, and hyphens equal underscores. Where the list is
// empty or a word is too long, the number is at least the length of word.
func Closest(word string, list []string) (closest string, slips int) {
	slips = 1 << 10
	for _, w := range list {
		if d := distance(fold(word), fold(w)); d < slips || d == slips && w < closest {
			closest, slips = w, d
		}
	}
	return closest, slips
}

// Nearest is Closest, or "" where even that word is too far to be a typing mistake.
// A somewhat longer form, warning for warn, is close.
func Nearest(word string, list []string) string {
	for _, w := range list {
		if strings.HasPrefix(fold(word), fold(w)) && len(word)-len(w) <= 3 {
			return w
		}
	}
	if closest, slips := Closest(word, list); slips <= Tolerance(word) {
		return closest
	}
	return ""
}

// Tolerance is how many slips a word of this length may hold.
func Tolerance(word string) int { return max(2, min(5, len(word)/4)) }

// Same returns the word of the list that differs at most in case, hyphens and
// underscores, or "".
func Same(word string, list []string) string {
	bare := func(s string) string { return strings.ReplaceAll(fold(s), "_", "") }
	for _, w := range list {
		if bare(w) == bare(word) {
			return w
		}
	}
	return ""
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

func distance(a, b string) int {
	if len(a) > maxLength || len(b) > maxLength {
		return max(len(a), len(b))
	}
	var two, one, row [maxLength + 1]int
	for j := range len(b) + 1 {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := 1
			if a[i-1] == b[j-1] {
				replace = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one = one, row
	}
	return one[len(b)]
}
