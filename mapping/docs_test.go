package mapping_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// TestDocs runs the examples of docs/blueprint.md and holds its tables of codes and
// columns against the code.
func TestDocs(t *testing.T) {
	text := runExamples(t, "../docs/blueprint.md", 4)
	for _, code := range append(mapping.RejectCodes(), mapping.FilterReasons()...) {
		if !strings.Contains(text, "`"+code+"`") {
			t.Errorf("docs/blueprint.md does not explain %s", code)
		}
	}
	for _, c := range mustCompile(t, "", mapping.Options{}).Columns() {
		if !strings.Contains(text, "| `"+c.Name+"` |") {
			t.Errorf("docs/blueprint.md does not list column %s", c.Name)
		}
	}
}

// TestDocsOfVariants runs the example of docs/variants.md. Its tables name every column
// of retail with its type and all of its sources, and every event.
func TestDocsOfVariants(t *testing.T) {
	text := runExamples(t, "../docs/variants.md", 1)
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); ok {
			lines[name] = rest
		}
	}
	for _, c := range mustCompile(t, "version: 2\nextends: retail\n", mapping.Options{AllOptional: true}).Columns()[13:] {
		if !strings.HasPrefix(lines[c.Name], c.Type+" | ") {
			t.Errorf("docs/variants.md lists column %s as %q, want type %s", c.Name, lines[c.Name], c.Type)
		}
	}
	blueprint, _ := mapping.Builtin("retail")
	for _, rule := range regexp.MustCompile(`source: (.*), target: (\w+)`).FindAllStringSubmatch(string(blueprint), -1) {
		for _, path := range regexp.MustCompile(`properties\.(?:\w+\[0\]\.)?(\w+)`).FindAllStringSubmatch(rule[1], -1) {
			if !strings.Contains(lines[rule[2]], "`"+path[1]+"`") {
				t.Errorf("docs/variants.md does not list the source %s of %s", path[0], rule[2])
			}
		}
	}
	for _, section := range regexp.MustCompile(`(?m)^  (\w[\w ]*):`).FindAllStringSubmatch(string(blueprint), -1) {
		if !strings.Contains(text, section[1]) {
			t.Errorf("docs/variants.md does not list the event %s", section[1])
		}
	}
}

// runExamples runs the examples of a page and returns its text: a yaml block is a
// blueprint, the event block after it an event, the row block after that its row.
func runExamples(t *testing.T, page string, examples int) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(yaml|event|row)\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 3*examples {
		t.Fatalf("got %d blocks, want %d examples of three", len(blocks), examples)
	}
	var w *twins
	var event []byte
	for _, b := range blocks {
		switch string(b[1]) {
		case "yaml":
			w = twinsOf(t, string(b[2]), mapping.Options{AllOptional: true})
		case "event":
			event = b[2]
		case "row":
			want := "row " + strings.TrimSpace(string(b[2]))
			if _, got := w.check(t, event); len(got.lines) != 1 || got.lines[0] != want {
				t.Errorf("%s: got %q, want %q", event, got.lines, want)
			}
		}
	}
	return string(text)
}
