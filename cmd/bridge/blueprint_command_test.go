package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/operations"
)

// bridgeIn runs a command line in a folder of its own and returns its exit code
// and what it wrote.
func bridgeIn(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(dir)
	var out, errs bytes.Buffer
	code = execute(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBlueprintInit(t *testing.T) {
	dir := t.TempDir()
	if code, out, errs := bridgeIn(t, dir, "blueprint", "init", "shop.yaml"); code != 0 || !strings.Contains(out, "bridge blueprint test shop.yaml") {
		t.Fatalf("got %d, %q, %q", code, out, errs)
	}
	if code, out, errs := bridgeIn(t, dir, "blueprint", "test"); code != 0 || !strings.Contains(out, "5 passed, 0 failed") {
		t.Errorf("the starter's own tests: got %d, %q, %q", code, out, errs)
	}
	if code, out, errs := bridgeIn(t, dir, "blueprint", "validate", "shop.yaml"); code != 0 || !strings.Contains(out, "shop.yaml: ok, ") {
		t.Errorf("validate: got %d, %q, %q", code, out, errs)
	}
	for _, taken := range []string{"shop.yaml", "shop.test.yaml"} {
		if err := os.Remove(taken); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := bridgeIn(t, dir, "blueprint", "init", "shop.yaml"); code != exitUsage || !strings.Contains(errs, "exists already") {
			t.Errorf("with the other of %s there: got %d, %q, want a refusal", taken, code, errs)
		}
		if _, err := os.Stat(taken); err == nil {
			t.Errorf("%s was written although the other was there", taken)
		}
		writeFile(t, taken, "mine")
	}
	if code, _, errs := bridgeIn(t, dir, "blueprint", "init", "shop.json"); code != exitUsage || !strings.Contains(errs, "ends in .yaml") {
		t.Errorf("got %d, %q, want the ending refused", code, errs)
	}
}

func TestBlueprintValidateListsAllMistakes(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.yaml"), "version: 2\nglobal:\n  mapings: []\n  mappings:\n    - {source: a, target: b, transform: lowr}\n")
	writeFile(t, filepath.Join(dir, "b.yaml"), "version: 2\nglobal: {mappings: [{source: a, target: b, default_value: x, type: INT}]}\n")
	code, out, _ := bridgeIn(t, dir, "blueprint", "validate", "a.yaml", "b.yaml", "gone.yaml")
	for _, want := range []string{`a.yaml:3:3: unknown key "mapings" in global; did you mean mappings`, `a.yaml:5:41: transform "lowr" is not one of`, "did you mean lower",
		"b.yaml:2:59: default_value: a string for column b (INT) holds no number\ngone.yaml", "gone.yaml: cannot be read"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	if code != exitFailed {
		t.Errorf("got exit code %d, want %d", code, exitFailed)
	}
	_, out, _ = bridgeIn(t, dir, "blueprint", "validate", "a.yaml", "--output", "json")
	var got operations.Validation
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.OK || len(got.Files) != 1 || len(got.Files[0].Problems) != 2 || got.Files[0].Problems[0].Line != 3 {
		t.Errorf("got %q (%v), want two problems, the first in line 3", out, err)
	}
}

const caseBlueprint = `version: 2
global:
  mappings:
    - {source: id, target: message_id}
    - {source: n, target: n, type: INT}
    - {source: $kafka.headers.tenant, target: tenant}
    - {source: title, target: title, optional: true}
events: {off: {enabled: false}}
`

const caseTests = `# kept
tests:
  - name: a row
    event: {id: "1", n: 5, title: t}
    record: {headers: {tenant: acme}}
    row: {message_id: "1", n: 5, tenant: acme, title: t}
  - name: text
    event: '{"id":2,"n":'
    reject: not_json
  - name: a batch # of three
    event: [{id: "3"}, {n: x}, {event: "off"}]
    outcomes:
      - row: {message_id: "3"}
      - {reject: type_mismatch, column: n}
      - filter: blueprint_drop
  - name: nothing
    event: null
    filter: tombstone
`

func TestBlueprintTests(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "b.yaml"), caseBlueprint)
	writeFile(t, filepath.Join(dir, "b.test.yaml"), caseTests)
	if code, out, errs := bridgeIn(t, dir, "blueprint", "test", "b.yaml"); code != 0 || !strings.Contains(out, "4 passed, 0 failed") {
		t.Fatalf("got %d, %q, %q", code, out, errs)
	}
	wrong := strings.NewReplacer("n: 5, tenant", "n: 6, tenant", "column: n", "column: m", "tombstone", "consent").Replace(caseTests)
	writeFile(t, filepath.Join(dir, "b.test.yaml"), wrong)
	code, out, _ := bridgeIn(t, dir, "blueprint", "test", "b.yaml")
	for _, want := range []string{"FAIL  b.test.yaml:3:5: a row\n        - n: 6\n        + n: 5\n", "event 1 of the batch\n        - reject: type_mismatch, column: m\n        + reject: type_mismatch, column: n",
		"- filter: consent\n        + filter: tombstone", "1 passed, 3 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	if code != exitFailed {
		t.Errorf("got exit code %d, want %d", code, exitFailed)
	}
	if _, out, _ := bridgeIn(t, dir, "blueprint", "test", "--run", "^a row$", "--output", "json"); !strings.Contains(out, `"failed":1`) || !strings.Contains(out, `"passed":0`) {
		t.Errorf("got %q, want the one test that is asked for", out)
	}
	if code, out, errs := bridgeIn(t, dir, "blueprint", "test", "--update"); code != 0 || !strings.Contains(out, "3 of them updated") {
		t.Errorf("got %d, %q, %q, want three tests updated", code, out, errs)
	}
	if code, out, _ := bridgeIn(t, dir, "blueprint", "test"); code != 0 || !strings.Contains(out, "4 passed, 0 failed") {
		t.Errorf("after --update: got %d, %q", code, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "b.test.yaml"))
	if err != nil || !strings.Contains(string(text), "# kept") || !strings.Contains(string(text), "# of three") {
		t.Errorf("got %q (%v), want the comments kept", text, err)
	}
	if left, _ := filepath.Glob(".*"); len(left) != 0 {
		t.Errorf("%v are left behind", left)
	}
}

func TestBlueprintTestProblems(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "b.yaml"), caseBlueprint)
	for name, tc := range map[string]struct{ text, want string }{
		"empty":           {"", "b.test.yaml: is empty"},
		"not yaml":        {"a: [", "b.test.yaml: "},
		"unknown key":     {"tests: [{evnt: {}}]\n", `b.test.yaml:1:10: unknown key "evnt" in a test`},
		"slip in file":    {"optinos: {input: auto}\ntests: [{event: {}, row: {}}]\n", `unknown key "optinos" in the file; did you mean options?`},
		"slip in test":    {"tests: [{evnt: {}}]\n", `unknown key "evnt" in a test; did you mean event?`},
		"slip in options": {"options: {timestamp_fallbak: none}\ntests: [{event: {}, row: {}}]\n", `unknown key "timestamp_fallbak" in options; did you mean timestamp_fallback?`},
		"slip in record":  {"tests: [{event: {}, record: {ofset: 1}, row: {}}]\n", `unknown key "ofset" in record; did you mean offset?`},
		"slip in outcome": {"tests: [{event: {}, outcomes: [{rwo: {}}]}]\n", `unknown key "rwo" in an outcome; did you mean row?`},
		"far off":         {"tests: [{event: {}, record: {somewhere: 1}, row: {}}]\n", `unknown key "somewhere" in record; the keys are topic, partition, offset, timestamp, key, headers`},
		"slip in code":    {"tests: [{event: {}, reject: type_mismach}]\n", `did you mean type_mismatch?`},
		"no event":        {"tests: [{name: x, row: {}}]\n", "x has no event"},
		"two wishes":      {"tests: [{event: {}, row: {}, filter: consent}]\n", "keep one of row, reject and filter"},
		"code":            {"tests: [{event: {}, reject: nonsense}]\n", `reject "nonsense" is not one of empty, `},
		"hexadecimal":     {"tests: [{event: {n: 0x1f}, row: {}}]\n", "0x1f is not a number JSON can carry"},
		"alias":           {"tests: [{event: {a: &a [*a]}, row: {}}]\n", "nests deeper than 1000"},
		"many": {"tests: [{event: {a: &a [1,1,1,1,1,1,1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b], d: &d [*c,*c,*c,*c,*c,*c,*c,*c], " +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d], f: &f [*e,*e,*e,*e,*e,*e,*e,*e], g: &g [*f,*f,*f,*f,*f,*f,*f,*f], h: [*g,*g,*g,*g,*g,*g,*g,*g]}, row: {}}]\n", "is larger than 4 MiB"},
		"no tests":   {"options: {input: auto}\n", "has no tests"},
		"option":     {"options: {input: sometimes}\ntests: [{event: {}, row: {}}]\n", `mapping.input "sometimes" must be one of`},
		"blueprint":  {"blueprint: gone.yaml\ntests: [{event: {}, row: {}}]\n", "gone.yaml: cannot be read"},
		"table":      {"table: {message_id: INT}\ntests: [{event: {}, row: {}}]\n", "b.yaml:5:7: column n is not in the table"},
		"wants none": {"tests: [{name: open, event: {id: '1'}}]\n", `+ row: {"message_id":"1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, filepath.Join(dir, "b.test.yaml"), tc.text)
			if code, out, _ := bridgeIn(t, dir, "blueprint", "test"); code != exitFailed || !strings.Contains(out, tc.want) {
				t.Errorf("got %d, %q, want %q in it", code, out, tc.want)
			}
		})
	}
	for _, args := range [][]string{{"gone.yaml"}, {t.TempDir()}, {"--run", "("}, {"--run", "matches-nothing"}} {
		writeFile(t, filepath.Join(dir, "b.test.yaml"), caseTests)
		if code, _, errs := bridgeIn(t, dir, append([]string{"blueprint", "test"}, args...)...); code != exitUsage {
			t.Errorf("%v: got %d, %q, want a usage error", args, code, errs)
		}
	}
}

// The tests that docs/blueprint.md shows pass on the starter.
func TestBlueprintTestsInDocs(t *testing.T) {
	page, err := document("docs/blueprint.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, found := strings.Cut(page, "```test\n")
	shown, _, closed := strings.Cut(shown, "```")
	if !found || !closed {
		t.Fatal("docs/blueprint.md shows no tests")
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "shop.yaml"), string(starterBlueprint))
	writeFile(t, filepath.Join(dir, "shop.test.yaml"), shown)
	if code, out, errs := bridgeIn(t, dir, "blueprint", "test"); code != 0 || !strings.Contains(out, "3 passed") {
		t.Errorf("got %d, %q, %q", code, out, errs)
	}
}
