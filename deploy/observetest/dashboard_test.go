package observetest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/deploy/observetest"
)

func TestDashboardIsCurrent(t *testing.T) {
	want, err := observetest.Dashboard()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(root, dashboardFile), want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, dashboardFile) != string(want) {
		t.Errorf("%s is stale; go -C deploy/observetest test -run Dashboard -update . rewrites it", dashboardFile)
	}
}

var sentence = regexp.MustCompile(`(?s)^\S.*[.]$`)

func TestPanelsCanBeRead(t *testing.T) {
	d := shown(t)
	ids, titles := map[int]bool{}, map[string]bool{}
	var questions []string
	section := ""
	for i, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			section = p.Title
			questions = append(questions, section)
			continue
		}
		if name := section + p.Type + p.Title; titles[name] {
			t.Errorf("%s: two panels are called %s", section, p.Title)
		} else {
			titles[name] = true
		}
		if len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("%s: %d queries and unit %q, want both", p.Title, len(p.Targets), p.FieldConfig.Defaults.Unit)
		}
		if !sentence.MatchString(p.Description) || len(p.Description) < 40 {
			t.Errorf("%s: the description is %q; say what to do about what it shows", p.Title, p.Description)
		}
		for _, target := range p.Targets {
			if target.Instant == target.Range {
				t.Errorf("%s: instant %v and range %v", p.Title, target.Instant, target.Range)
			}
			for _, name := range []string{"$namespace", "$job", "$instance"} {
				if !strings.Contains(target.Expr, name) && (name != "$instance" || !strings.Contains(target.Expr, "ALERTS")) {
					t.Errorf("%s: the choice of %s does not matter: %s", p.Title, name, target.Expr)
				}
			}
			// With fifty members the one to look at must stand on top.
			if l := p.Options.Legend; p.Type == "timeseries" && strings.Contains(target.LegendFormat, "{{instance}}") &&
				(l.DisplayMode != "table" || l.SortBy != "Max" || !l.SortDesc) {
				t.Errorf("%s: got the legend %+v, want a table that begins with the highest member", p.Title, l)
			}
			// With twenty integrations, a line has to name its own.
			if strings.Contains(target.Expr, "$integration") && p.Type == "timeseries" && strings.Contains(target.LegendFormat, "{{instance}}") &&
				!strings.Contains(target.LegendFormat, "{{integration}}") && !strings.Contains(target.Expr, "without (integration)") {
				t.Errorf("%s: the lines of integrations look the same: %s", p.Title, target.LegendFormat)
			}
			// A line for each topic or partition must end when another topic is chosen.
			if strings.Contains(target.LegendFormat, "topic") && !strings.Contains(target.Expr, "$topic") {
				t.Errorf("%s: the choice of topic does not matter: %s", p.Title, target.Expr)
			}
		}
		for _, other := range d.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s and %s overlap", p.Title, other.Title)
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s ends at column %d of 24", p.Title, p.GridPos.X+p.GridPos.W)
		}
	}
	want := []string{"Is it healthy?", "Which integration?", "Is it keeping up?", "Is it losing?", "Is the sink slow?", "Partitions", "Process"}
	if !slices.Equal(questions, want) {
		t.Errorf("rows: got %q, want %q", questions, want)
	}
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		// Members come and go: all of them is not the list of when the page was
		// opened. The job must be a list, which narrows down to the group.
		if anything := v.AllValue == ".*"; anything != slices.Contains([]string{"namespace", "instance", "integration", "topic"}, v.Name) {
			t.Errorf("variable %s: all is %q", v.Name, v.AllValue)
		}
	}
	if want := []string{"datasource", "namespace", "group", "job", "instance", "integration", "topic"}; !slices.Equal(names, want) {
		t.Errorf("variables: got %q, want %q", names, want)
	}
}
