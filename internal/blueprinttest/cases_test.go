package blueprinttest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/blueprint.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Concat(fileKeys, testKeys, outcomeKeys, optionKeys, recordKeys) {
		if !strings.Contains(string(page), "`"+key+"`") {
			t.Errorf("docs/blueprint.md does not explain %s", key)
		}
	}
}

// JSON with what YAML treats in another way comes back as it was.
func TestRowsSurviveYAML(t *testing.T) {
	for _, row := range []string{
		`{"b":1,"a":-0.5e3,"c":12345678901234567890,"d":[1,"2",null,true],"e":{"x":{}}}`,
		"{\"s\":\"line\\nbreak \u007f \u0085 \ufeff\",\"t\":\"2026-01-01\",\"u\":\"~\",\"v\":\"no\"}",
		`{"emoji":"\ud83d\ude00","slash":"a\/b","quote":"\"","":"empty"}`,
	} {
		n, err := jsonToYAML([]byte(row))
		if err != nil {
			t.Errorf("%s: %v", row, err)
			continue
		}
		if got, err := yamlToJSON(nil, n, 0); err != nil || !sameJSON(got, []byte(row)) {
			t.Errorf("got %s, %v, want %s", got, err, row)
		}
	}
}

// The events of mapping/retail.test.yaml have the rows that it shows: names of built-in
// blueprints are known wherever the file lies.
func TestTheTestsOfRetail(t *testing.T) {
	r := Run("../../mapping/retail.test.yaml", nil, false)
	if !r.OK() || len(r.Tests) < 8 {
		t.Errorf("got %+v, want all of its tests to pass", r)
	}
	for _, result := range r.Tests {
		if !result.OK {
			t.Errorf("%s: %s", result.Name, strings.Join(result.Diff, "\n"))
		}
	}
}
