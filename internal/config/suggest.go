package config

import "strings"

// familiar are names from Kafka clients, connectors and Signal's own pages
// that no spelling distance would lead to the right key.
var familiar = map[string]string{
	"group_id":              "kafka.group",
	"consumer_group":        "kafka.group",
	"group_instance_id":     "kafka.instance_id",
	"auto_offset_reset":     "kafka.start",
	"isolation_level":       "kafka.isolation",
	"security_protocol":     "kafka.tls.enabled and kafka.sasl.mechanism",
	"sasl_mechanism":        "kafka.sasl.mechanism",
	"sasl_username":         "kafka.sasl.username",
	"sasl_password":         "kafka.sasl.password",
	"api_key":               "kafka.sasl.username",
	"api_secret":            "kafka.sasl.password",
	"batch_size":            "delivery.max_rows",
	"batch_interval_ms":     "delivery.linger",
	"max_batch_bytes":       "delivery.max_bytes",
	"timeout_ms":            "zerobus.timeout",
	"dead_letter_topic":     "rejects.topic",
	"dlq_topic":             "rejects.topic",
	"rate_limit_per_second": "zerobus.rate_limit",
}

// suggest returns the key meant by an unknown path, or "" when nothing comes
// close: the same name in another section first, then the nearest spelling.
func suggest(path string) string {
	name := path[strings.LastIndexByte(path, '.')+1:]
	if to, ok := familiar[fold(name)]; ok {
		return to
	}
	var paths []string
	for _, f := range keys {
		paths = append(paths, f.path)
	}
	for s := range sections {
		paths = append(paths, s)
	}
	if same := sameWord(path, paths); same != "" {
		return same
	}
	near, distance := closest(path, paths)
	if distance <= 1 {
		return near
	}
	elsewhere := ""
	for _, p := range paths {
		if strings.HasSuffix(p, "."+fold(name)) {
			if elsewhere != "" {
				elsewhere = "" // the name alone does not tell
				break
			}
			elsewhere = p
		}
	}
	if elsewhere != "" {
		return elsewhere
	}
	if distance <= tolerance(path) {
		return near
	}
	return ""
}

// nearest returns the word of the list closest to the given one, or "" when
// even that is too far to be a slip of the finger. A somewhat longer form,
// warning for warn, is close.
func nearest(word string, list []string) string {
	for _, w := range list {
		if strings.HasPrefix(fold(word), fold(w)) && len(word)-len(w) <= 3 {
			return w
		}
	}
	near, distance := closest(word, list)
	if distance > tolerance(word) {
		return ""
	}
	return near
}

// tolerance is how many slips a word of this length may hold.
func tolerance(word string) int { return max(2, min(5, len(word)/4)) }

func closest(word string, list []string) (string, int) {
	best, least := "", len(word)+1<<10
	for _, w := range list {
		d := slips(fold(word), fold(w))
		if d < least || d == least && w < best {
			best, least = w, d
		}
	}
	return best, least
}

// sameWord returns the word of the list that differs at most in case, hyphens
// and underscores.
func sameWord(word string, list []string) string {
	for _, w := range list {
		if fold(w) == fold(word) {
			return w
		}
	}
	return ""
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// slips counts the characters to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment distance).
func slips(a, b string) int {
	if len(a) > 128 || len(b) > 128 {
		return max(len(a), len(b)) // no key is that long
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, row = prev, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
