package mapping_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/datafly/bridge/mapping"
)

var update = flag.Bool("update", false, "write what the mapper does into testdata")

// TestGolden runs every testdata/*.txtar. A case has
//
//	blueprint.yaml  the blueprint; the built-in one where it is missing
//	options.json    mapping.Options; {} where it is missing
//	records         one record per line, or
//	record          one record over several lines
//	want            one line per event, or the error of Parse or Compile
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			text, parts := readParts(t, name)
			got := golden(t, parts)
			if *update {
				text, _, _ = strings.Cut(text, "-- want --\n")
				if err := os.WriteFile(name, []byte(text+"-- want --\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(parts["want"]); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// goldenCase is a case of testdata, its blueprint parsed.
type goldenCase struct {
	blueprint *mapping.Blueprint
	err       error // of Parse
	opts      mapping.Options
	records   [][]byte
}

func readGolden(t *testing.T, parts map[string][]byte) goldenCase {
	t.Helper()
	c := goldenCase{blueprint: mapping.Default(), opts: mapping.Options{ClusterID: "golden"}}
	if text, ok := parts["blueprint.yaml"]; ok {
		c.blueprint, c.err = mapping.Parse("blueprint.yaml", text)
	}
	if text, ok := parts["options.json"]; ok {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&c.opts); err != nil {
			t.Fatal(err)
		}
	}
	c.records = bytes.Split(bytes.TrimSuffix(parts["records"], []byte("\n")), []byte("\n"))
	if one, ok := parts["record"]; ok {
		c.records = [][]byte{one}
	}
	return c
}

// goldenCases hands every case of testdata to f.
func goldenCases(t *testing.T, f func(*testing.T, goldenCase)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			_, parts := readParts(t, name)
			f(t, readGolden(t, parts))
		})
	}
}

var partLine = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// readParts reads an archive in the txtar format; the part named want is the last.
func readParts(t *testing.T, name string) (text string, parts map[string][]byte) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	parts = map[string][]byte{}
	lines := partLine.FindAllSubmatchIndex(content, -1)
	for i, at := range lines {
		end := len(content)
		if i+1 < len(lines) {
			end = lines[i+1][0]
		}
		parts[string(content[at[2]:at[3]])] = content[at[1]:end]
	}
	return string(content), parts
}

func golden(t *testing.T, parts map[string][]byte) string {
	t.Helper()
	c := readGolden(t, parts)
	if c.err != nil {
		return c.err.Error() + "\n"
	}
	m, err := c.blueprint.Compile(c.opts)
	if err != nil {
		return err.Error() + "\n"
	}
	mapper := m.NewMapper()
	var sb strings.Builder
	for _, r := range c.records {
		for i, line := range mapOne(mapper, r).lines {
			if i > 0 {
				sb.WriteString("+ ")
			}
			sb.WriteString(line + "\n")
		}
	}
	return sb.String()
}
