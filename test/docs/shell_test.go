package docs_test

import (
	"reflect"
	"strings"
	"testing"
)

// commandLines splits a piece of shell into its simple commands, each a list of
// words: quotes taken off, comments and redirections left out. It knows what the
// documents use, and not what else a shell can do.
func commandLines(script string) [][]string {
	script = strings.ReplaceAll(script, "\\\n", " ")
	var all [][]string
	var words []string
	var word strings.Builder
	inWord, redirected := false, false
	endWord := func() {
		if inWord && !redirected {
			words = append(words, word.String())
		}
		if inWord {
			redirected = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words, redirected = nil, false
	}
	for i := 0; i < len(script); i++ {
		switch c := script[i]; {
		case c == '\'' || c == '"':
			end := strings.IndexByte(script[i+1:], c)
			if end < 0 {
				end = len(script) - i - 1
			}
			word.WriteString(script[i+1 : i+1+end])
			inWord = true
			i += end + 1
		case c == '#' && !inWord:
			for i+1 < len(script) && script[i+1] != '\n' {
				i++
			}
		case c == '\n' || c == ';' || c == '|' || c == '&' || c == '(' || c == ')':
			endCommand()
		case c == '<' || c == '>':
			if tag := hereDocument(script[i:]); tag != "" { // which is no command
				endCommand()
				if end := strings.Index(script[i:], "\n"+tag+"\n"); end >= 0 {
					i += end + len(tag) + 1
				} else {
					i = len(script)
				}
				continue
			}
			endWord()
			redirected = true
		case c == ' ' || c == '\t':
			endWord()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return all
}

// hereDocument returns the word that ends the here-document beginning here.
func hereDocument(script string) string {
	rest, ok := strings.CutPrefix(script, "<<")
	if !ok {
		return ""
	}
	tag, _, _ := strings.Cut(rest, "\n")
	tag, _, _ = strings.Cut(strings.TrimSpace(tag), " ")
	return strings.Trim(tag, `'"`)
}

// bridgeArgs returns the arguments if a command is one of the bridge, also behind
// variables, in a container or with go run.
func bridgeArgs(words []string) ([]string, bool) {
	for i, w := range words {
		switch {
		case w == "bridge" && (i == 0 || words[i-1] == "--" || words[i-1] == "$" || strings.Contains(words[i-1], "=")),
			w == "/bridge", w == "bin/bridge",
			w == "./cmd/bridge" && i > 1 && words[i-1] == "run":
			return words[i+1:], true
		}
	}
	return nil, false
}

func TestCommandLines(t *testing.T) {
	for _, tc := range []struct {
		script string
		want   [][]string
	}{
		{"bridge run --config 'a b' # why\n", [][]string{{"run", "--config", "a b"}}},
		{"X=1 bridge map < in > out && ls", [][]string{{"map"}}},
		{"cat x | bridge map --explain; go run ./cmd/bridge demo", [][]string{{"map", "--explain"}, {"demo"}}},
		{"bridge run \\\n  --from -2h", [][]string{{"run", "--from", "-2h"}}},
		{"kubectl exec deploy/bridge -- /bridge status\ndocker compose stop bridge\nhelm install bridge x", [][]string{{"status"}}},
		{"cat > f <<'EOF'\nbridge frobnicate\nEOF\nbridge ddl", [][]string{{"ddl"}}},
		{"$ bridge dlq show 0/0", [][]string{{"dlq", "show", "0/0"}}},
	} {
		var got [][]string
		for _, words := range commandLines(tc.script) {
			if args, ok := bridgeArgs(words); ok {
				got = append(got, args)
			}
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.script, got, tc.want)
		}
	}
}
