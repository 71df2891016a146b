package mapping_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

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
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			parts := partsOf(ar)
			got := golden(t, parts)
			if *update {
				ar.Files = append(without(ar.Files, "want"), txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(ar), 0o600); err != nil {
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

func without(files []txtar.File, name string) []txtar.File {
	var out []txtar.File
	for _, f := range files {
		if f.Name != name {
			out = append(out, f)
		}
	}
	return out
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
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f(t, readGolden(t, partsOf(ar)))
		})
	}
}

func partsOf(ar *txtar.Archive) map[string][]byte {
	parts := map[string][]byte{}
	for _, f := range ar.Files {
		parts[f.Name] = f.Data
	}
	return parts
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
