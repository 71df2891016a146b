package mapping_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// TestDocs runs the examples of docs/blueprint.md: a yaml block is a blueprint,
// the event block after it an event, the row block after that its row. It also
// holds the tables of codes against the code.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/blueprint.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(yaml|event|row)\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 12 {
		t.Fatalf("got %d blocks, want four examples of three", len(blocks))
	}
	var w *twins
	var event []byte
	for _, b := range blocks {
		switch string(b[1]) {
		case "yaml":
			w = twinsOf(t, string(b[2]), mapping.Options{})
		case "event":
			event = b[2]
		case "row":
			want := "row " + strings.TrimSpace(string(b[2]))
			if _, got := w.check(t, event); len(got.lines) != 1 || got.lines[0] != want {
				t.Errorf("%s: got %q, want %q", event, got.lines, want)
			}
		}
	}
	for _, code := range append(mapping.RejectCodes(), mapping.FilterReasons()...) {
		if !strings.Contains(string(text), "`"+code+"`") {
			t.Errorf("docs/blueprint.md does not explain %s", code)
		}
	}
	for _, c := range mustCompile(t, "", mapping.Options{}).Columns() {
		if !strings.Contains(string(text), "| `"+c.Name+"` |") {
			t.Errorf("docs/blueprint.md does not list column %s", c.Name)
		}
	}
}
