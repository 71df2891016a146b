package charttest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	keyLine     = regexp.MustCompile(`^( *)([A-Za-z]+):(.*)$`)
	commentLine = regexp.MustCompile(`^ *# ?(.*)$`)
)

// readme is the page that registries show beside the chart: values.yaml as a table.
func readme(t *testing.T) string {
	t.Helper()
	text := read(t, "deploy/helm/bridge/values.yaml")
	var all map[string]any
	if err := yaml.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(readmeHead)
	var comment []string // above a key
	var path []string
	listed := map[string]bool{}
	for line := range strings.SplitSeq(text, "\n") {
		if m := commentLine.FindStringSubmatch(line); m != nil {
			comment = append(comment, m[1])
			continue
		}
		if m := keyLine.FindStringSubmatch(line); m != nil {
			path = append(path[:len(m[1])/2:len(m[1])/2], m[2])
			name := strings.Join(path, ".")
			value := get(all, name, nil)
			cell := ""
			if inner, deeper := value.(map[string]any); !deeper || len(inner) == 0 || strings.TrimSpace(m[3]) != "" {
				encoded, err := json.Marshal(value)
				if err != nil {
					t.Fatal(err)
				}
				cell = "`" + string(encoded) + "`"
				for leaf := range leaves(map[string]any{name: value}, "") {
					listed[leaf] = true
				}
			}
			if cell != "" || len(comment) > 0 {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, cell, strings.ReplaceAll(strings.Join(comment, " "), "|", `\|`))
			}
		}
		comment = nil
	}
	for leaf := range leaves(all, "") {
		if !listed[leaf] {
			t.Errorf("the table has no line for %s: write values.yaml with two blanks for each level", leaf)
		}
	}
	return b.String()
}

const readmeHead = `# The bridge

Carries Datafly Signal events from Kafka into Databricks tables through Zerobus Ingest, at least once. ` +
	"[docs/deployment.md](https://github.com/datafly/bridge/blob/main/docs/deployment.md#kubernetes) goes from nothing to rows in the table.\n" + `
` + "```" + `
kubectl create secret generic zerobus --from-file=client-secret
helm install bridge . -f values.yaml     # config.kafka, config.zerobus and zerobus.existingSecret have no default
helm test bridge --logs
` + "```" + `

## Values

Generated from values.yaml by ` + "`go -C deploy/charttest test -run Readme -update .`" + `; a test fails when it is stale.

| value | default | meaning |
|---|---|---|
`

func TestReadmeIsCurrent(t *testing.T) {
	want := readme(t)
	file := filepath.Join(chartDir, "README.md")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, "deploy/helm/bridge/README.md"); got != want {
		t.Errorf("deploy/helm/bridge/README.md is stale; go -C deploy/charttest test -run Readme -update . rewrites it")
	}
}
