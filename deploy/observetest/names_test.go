package observetest_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// known are the series there are, each with its labels.
type known map[string][]string

// Labels that the scrape puts on every series, and those of an alert's series.
var (
	target   = []string{"namespace", "job", "instance"}
	outsider = known{
		"ALERTS":                        {"alertname", "alertstate", "severity", "integration"},
		"up":                            nil,
		"process_cpu_seconds_total":     nil,
		"process_max_fds":               nil,
		"process_open_fds":              nil,
		"process_resident_memory_bytes": nil,
		"process_start_time_seconds":    nil,
		"go_gc_duration_seconds_sum":    nil,
		"go_gc_gomemlimit_bytes":        nil,
		"go_goroutines":                 nil,
	}
)

var golden = regexp.MustCompile(`(?m)^(\w+) (\w+) \{(.*)\}$`)

// series are those of /metrics, as internal/ops compares them with a scrape,
// with what the rules record and what every Go program exports.
func series(t *testing.T) known {
	t.Helper()
	all := maps.Clone(outsider)
	// What a rule of the user's own records, by the rule that the runbook has.
	for _, m := range regexp.MustCompile(`(?m)^\s+- record: (bridge:\w+)$`).FindAllStringSubmatch(read(t, page), -1) {
		all[m[1]] = []string{"group"}
	}
	for _, m := range golden.FindAllStringSubmatch(read(t, "internal/ops/testdata/metrics.golden"), -1) {
		names := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' })
		if m[2] != "histogram" {
			all[m[1]] = names
			continue
		}
		all[m[1]+"_bucket"] = append(names, "le")
		all[m[1]+"_sum"], all[m[1]+"_count"] = names, names
	}
	for _, r := range rules(t) {
		if r.Record != "" {
			all[r.Record] = []string{"integration", "topic", "partition", "group"}
		}
	}
	return all
}

// problems returns what an expression selects that no bridge serves, and the names
// of all metrics it selects.
func problems(text string, have known) (wrong, asked []string) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return []string{err.Error()}, nil
	}
	reach := map[string]bool{} // labels of anything asked for
	for _, l := range target {
		reach[l] = true
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		v, is := node.(*parser.VectorSelector)
		if !is {
			return nil
		}
		asked = append(asked, v.Name)
		names, exists := have[v.Name]
		if !exists {
			wrong = append(wrong, "there is no metric "+v.Name)
		}
		for _, l := range names {
			reach[l] = true
		}
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && !slices.Contains(names, m.Name) && !slices.Contains(target, m.Name) {
				wrong = append(wrong, v.Name+" has no label "+m.Name)
			}
		}
		return nil
	})
	grouped := func(names []string) {
		for _, l := range names {
			if !reach[l] {
				wrong = append(wrong, "nothing in it has the label "+l)
			}
		}
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			grouped(n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				grouped(n.VectorMatching.MatchingLabels)
			}
		}
		return nil
	})
	return wrong, asked
}

func TestEveryNameIsServed(t *testing.T) {
	have := series(t)
	used := map[string]bool{}
	for _, e := range expressions(t) {
		wrong, asked := problems(e.text, have)
		for _, w := range wrong {
			t.Errorf("%s: %s\n%s", e.at, w, e.text)
		}
		for _, name := range asked {
			used[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")] = true
		}
	}
	for _, m := range golden.FindAllStringSubmatch(read(t, "internal/ops/testdata/metrics.golden"), -1) {
		if !used[m[1]] {
			t.Errorf("%s is served, and neither the dashboard nor an alert asks for it; add it to deploy/observetest/rows.go", m[1])
		}
	}
}

// The check itself: each of these must be found.
func TestWrongExpressionsAreFound(t *testing.T) {
	have := series(t)
	for text, problem := range map[string]string{
		`bridge_raedy == 0`:                          "there is no metric bridge_raedy",
		`bridge_ack_latency_seconds{instance="a"}`:   "there is no metric bridge_ack_latency_seconds",
		`bridge_lag_events{tpoic="t"}`:               "has no label tpoic",
		`sum by (prtition) (bridge_lag_events)`:      "has the label prtition",
		`bridge_ready and on (instnace) bridge_live`: "has the label instnace",
		`sum(rate(bridge_commits_total[5m])`:         "parse error",
		`histogram_quantile(0.9, sum by (le, topic) (rate(bridge_sink_request_duration_seconds_bucket[5m])))`: "has the label topic",
	} {
		if wrong, _ := problems(text, have); len(wrong) != 1 || !strings.Contains(wrong[0], problem) {
			t.Errorf("%s: got %q, want one problem with %q", text, wrong, problem)
		}
	}
}
