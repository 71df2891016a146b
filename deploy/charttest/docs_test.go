package charttest_test

import (
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"

	"github.com/datafly/bridge/deploy/charttest"
)

var setFor = regexp.MustCompile("--set ('[^']*'|[^\\s`,]+)")

// The values that docs/deployment.md and docs/migration.md show are values of the chart.
func TestDocumentedValues(t *testing.T) {
	page := read(t, "docs/deployment.md")
	blocks := charttest.Documented(page, read(t, "docs/migration.md"))
	if len(blocks) < 6 {
		t.Fatalf("got %d blocks of values, want 6 or more", len(blocks))
	}
	for _, block := range blocks {
		files, err := render(t, values(t, minimal, block))
		if err != nil {
			t.Errorf("%v\n%s", err, block)
			continue
		}
		m := parse(t, joined(files))
		consistent(t, m)
		configured(t, m)
	}
	vals := values(t, minimal)
	sets := 0
	for _, set := range setFor.FindAllStringSubmatch(page, -1) {
		text := strings.Trim(set[1], "'")
		if strings.HasPrefix(text, "zerobus.") {
			continue // a flag of the bridge's
		}
		sets++
		if err := strvals.ParseInto(text, vals); err != nil {
			t.Errorf("--set %s: %v", text, err)
		}
	}
	files, err := render(t, vals)
	if err != nil || sets < 6 {
		t.Fatalf("the %d settings together: %v, want a rendered Job", sets, err)
	}
	if want := "zerobus.table=datafly.events.stream_replay"; !strings.Contains(files["replay-job.yaml"], want) {
		t.Errorf("the Job does not have %s:\n%s", want, files["replay-job.yaml"])
	}
}
