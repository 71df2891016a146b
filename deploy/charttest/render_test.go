package charttest_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"

	"github.com/datafly/bridge/deploy/charttest"
)

const (
	root     = "../.."
	chartDir = "../helm/bridge"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The names of the value sets that most tests are about.
const (
	minimal    = charttest.Minimal
	everything = charttest.Everything
	console    = charttest.Console
)

// values merges documents, the later ones over the earlier ones.
func values(t *testing.T, docs ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, doc := range docs {
		var one map[string]any
		if err := yaml.Unmarshal([]byte(doc), &one); err != nil {
			t.Fatalf("values %s: %v", doc, err)
		}
		all = loader.MergeMaps(all, one)
	}
	return all
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatalf("loading the chart: %v", err)
	}
	return c
}

// render makes of values what helm template prints, NOTES.txt included, by the
// name of the template. The values are validated against values.schema.json.
func render(t *testing.T, vals map[string]any) (map[string]string, error) {
	t.Helper()
	c := load(t)
	release := common.ReleaseOptions{Name: "bridge", Namespace: "datafly", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, vals, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range files {
		if strings.TrimSpace(text) != "" && !strings.HasSuffix(name, ".tpl") {
			out[strings.TrimPrefix(name, "bridge/templates/")] = text
		}
	}
	return out, nil
}

func mustRender(t *testing.T, vals map[string]any) map[string]string {
	t.Helper()
	files, err := render(t, vals)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// joined is the manifest as one text, without the notes.
func joined(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != "NOTES.txt" {
			b.WriteString("---\n# " + name + "\n" + strings.TrimSpace(files[name]) + "\n")
		}
	}
	return b.String()
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
