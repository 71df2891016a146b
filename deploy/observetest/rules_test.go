package observetest_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const page = "docs/operations.md"

// typed is a check whose first words are a command or an expression: who is woken
// at night begins by typing.
var typed = regexp.MustCompile("\n- Check: `(kubectl|curl|bridge|kafka-[a-z-]+\\.sh|topk|sum|max)[ (]")

func TestAlertsTellWhatToDo(t *testing.T) {
	const base = "https://github.com/datafly/bridge/blob/main/" + page + "#"
	sections := map[string]string{} // by anchor
	text := "\n" + read(t, page)
	for _, s := range regexp.MustCompile(`(?m)^###? `).Split(text, -1)[1:] {
		title, body, _ := strings.Cut(s, "\n")
		sections[anchor(title)] = body
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity is %q, want critical or warning", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || !strings.Contains(r.Annotations["description"], "$value") {
			t.Errorf("%s: summary %q, description %q; say what happened, and the value", r.Alert, r.Annotations["summary"], r.Annotations["description"])
		}
		link, found := strings.CutPrefix(r.Annotations["runbook_url"], base)
		if !found || link != strings.ToLower(r.Alert) {
			t.Errorf("%s: runbook_url is %q, want %s%s", r.Alert, r.Annotations["runbook_url"], base, strings.ToLower(r.Alert))
		}
		if !typed.MatchString(sections[link]) {
			t.Errorf("%s: %s#%s does not begin its check with what to type", r.Alert, page, link)
		}
		for _, part := range []string{"Means: ", "Check: ", "Do: "} {
			if !strings.Contains(sections[link], "\n- "+part) {
				t.Errorf("%s: %s#%s has no item that begins with %q", r.Alert, page, link, part)
			}
		}
	}
}

// ofProcesses are the alerts about a process, which carries all integrations.
var ofProcesses = []string{"BridgeMemberDown", "BridgeRestarting", "BridgeReloadFailed", "BridgeStoreNotUsable", "BridgeBufferFull"}

// An alert is one for each integration, not one for each member, and names it.
func TestAlertsAreByIntegration(t *testing.T) {
	for _, r := range rules(t) {
		if r.Alert == "" || slices.Contains(ofProcesses, r.Alert) {
			continue
		}
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		// Recordings are grouped like the alerts; their series have no label of a member.
		for _, series := range []string{"bridge:group_seen_timestamp_seconds", "bridge:lag_events:sum", "bridge:ack_latency_seconds:p99_5m"} {
			if strings.Contains(r.Expr, series) {
				expr = nil
			}
		}
		if agg, is := outermost(expr).(*parser.AggregateExpr); expr != nil && (!is || !slices.Contains(agg.Grouping, "integration") || slices.Contains(agg.Grouping, "instance") || slices.Contains(agg.Grouping, "partition")) {
			t.Errorf("%s: %s is not grouped by integration alone", r.Alert, r.Expr)
		}
		if !strings.HasPrefix(r.Annotations["summary"], "{{ $labels.integration }}: ") {
			t.Errorf("%s: summary %q; begin it with the integration", r.Alert, r.Annotations["summary"])
		}
	}
}

// outermost is the left-hand aggregation of an expression, which decides the labels.
func outermost(expr parser.Expr) parser.Expr {
	switch e := expr.(type) {
	case *parser.BinaryExpr:
		return outermost(e.LHS)
	case *parser.ParenExpr:
		return outermost(e.Expr)
	}
	return expr
}

// anchor is what GitHub makes of a heading.
func anchor(title string) string {
	kept := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(kept, " ", "-")
}

// Links within the pages that alerts and dashboard lead to.
func TestAnchorsOfTheMetricsPage(t *testing.T) {
	for _, m := range regexp.MustCompile(`\]\(operations\.md#([\w-]+)\)`).FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		found := false
		for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, page), -1) {
			found = found || anchor(h[1]) == m[1]
		}
		if !found {
			t.Errorf("docs/metrics.md leads to %s#%s, which is not there", page, m[1])
		}
	}
}

// An alert that never fires in a test may never fire at all, and one that is
// never seen to resolve may fire for ever.
func TestEachAlertBeginsAndEnds(t *testing.T) {
	var file struct {
		Tests []struct {
			Cases []struct {
				Eval   string `yaml:"eval_time"`
				Alert  string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, testsFile)), &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string][]string{}
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			word := "silent"
			if len(c.Alerts) > 0 {
				word = "fires"
			}
			if s := seen[c.Alert]; len(s) == 0 || s[len(s)-1] != word {
				seen[c.Alert] = append(s, word)
			}
		}
	}
	for _, r := range rules(t) {
		if s := strings.Join(seen[r.Alert], ", "); r.Alert != "" && !strings.HasPrefix(s+",", "silent, fires, silent,") {
			t.Errorf("%s: %s has it %s; want silent, fires, silent", r.Alert, testsFile, s)
		}
	}
}
