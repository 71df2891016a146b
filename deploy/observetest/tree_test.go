package observetest_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	root          = "../.."
	rulesFile     = "deploy/prometheus/rules.yaml"
	testsFile     = "deploy/prometheus/rules_test.yaml"
	dashboardFile = "deploy/grafana/bridge.json"
)

var update = flag.Bool("update", false, "rewrite deploy/grafana/bridge.json")

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rule is one rule; either Alert or Record is set.
type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, rulesFile)), &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 15 {
		t.Fatalf("got %d rules in %s, want 15 or more", len(all), rulesFile)
	}
	return all
}

// panel is what is asked of a panel of the dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct {
		Expr, LegendFormat string
		Instant, Range     bool
	}
	Options struct {
		Legend struct {
			DisplayMode, SortBy string
			SortDesc            bool
		}
	}
	FieldConfig struct {
		Defaults struct{ Unit, NoValue string }
	}
}

type dashboard struct {
	UID           string
	SchemaVersion int
	Panels        []panel
	Annotations   struct{ List []struct{ Expr string } }
	Templating    struct {
		List []struct{ Name, Type, Definition, AllValue string }
	}
}

func shown(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) < 30 {
		t.Fatalf("got %d panels in %s, want 30 or more", len(d.Panels), dashboardFile)
	}
	return d
}

// expression is a query and the place it stands at.
type expression struct{ at, text string }

// chosen puts a choice in place of the dashboard's variables.
func chosen() *strings.Replacer {
	return strings.NewReplacer("$__rate_interval", "4m", "$namespace", "n", "$job", "j", "$group", "g", "$instance", "i", "$integration", "w", "$topic", "t")
}

// asked is what a runbook has Prometheus asked.
var asked = regexp.MustCompile("`((?:topk|sum|max)[ (][^`]+)`")

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// expressions returns every query of the rules, of the dashboard and of the
// questions in docs/metrics.md, as Prometheus would be asked.
func expressions(t *testing.T) []expression {
	t.Helper()
	var all []expression
	for _, r := range rules(t) {
		all = append(all, expression{rulesFile + ": " + r.Alert + r.Record, r.Expr})
	}
	d := shown(t)
	variables := chosen()
	query := func(place, expr string) {
		all = append(all, expression{dashboardFile + ": " + place, variables.Replace(expr)})
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			query(p.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		query("annotation", a.Expr)
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: got %q, want label_values(series, label)", v.Name, v.Definition)
			continue
		}
		query("variable "+v.Name, "count by ("+m[2]+") ("+m[1]+")")
	}
	for _, m := range asked.FindAllStringSubmatch(read(t, page), -1) {
		all = append(all, expression{page, m[1]})
	}
	_, questions, _ := strings.Cut(read(t, "docs/metrics.md"), "| question |")
	questions, _, _ = strings.Cut(questions, "\n\n")
	for _, line := range strings.Split(questions, "\n")[2:] {
		column := strings.Split(line, "|")[2]
		spans := strings.Split(column, "`")
		for i := 1; i < len(spans); i += 2 {
			all = append(all, expression{"docs/metrics.md", spans[i]})
		}
	}
	return all
}
