package observetest_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// quiet are the parts of the dashboard that show nothing of a bridge that runs:
// no alert fires, and the version is not new.
var quiet = []string{"Alerts", "annotation"}

func TestPromtool(t *testing.T) {
	if testing.Short() {
		t.Skip("building promtool takes minutes the first time")
	}
	promtool := promtool(t)
	t.Run("takes the rules", func(t *testing.T) {
		if out, err := promtool("check", "rules", "--lint=all", "--lint-fatal", filepath.Join(root, rulesFile)); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("sees the alerts begin and end", func(t *testing.T) {
		if out, err := promtool("test", "rules", filepath.Join(root, testsFile)); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("computes the replicas of the autoscaler", func(t *testing.T) { scaling(t, promtool) })
	t.Run("gets an answer for each panel", func(t *testing.T) {
		// A test of promtool's, in JSON, which is YAML. absent(x) has a result
		// exactly when x has none.
		var inputs, summed, questions []object
		for _, s := range samples(t) {
			inputs = append(inputs, object{"series": s, "values": "1+2x60"})
			summed = append(summed, object{"series": strings.Replace(s, `, partition="w"`, "", 1), "values": "1+2x60"})
		}
		for _, e := range expressions(t) {
			if !strings.HasPrefix(e.at, dashboardFile) || slices.Contains(quiet, strings.TrimPrefix(e.at, dashboardFile+": ")) {
				continue
			}
			questions = append(questions, object{"expr": "absent(" + e.text + ")", "eval_time": "30m", "exp_samples": []object{}})
		}
		if len(questions) < 50 {
			t.Fatalf("got %d expressions of the dashboard, want 50 or more", len(questions))
		}
		ask(t, promtool, inputs, questions)
		ask(t, promtool, summed, questions) // with ops.partition_metrics: false
	})
	t.Run("finds a reason in each panel that a bridge at rest leaves empty", func(t *testing.T) {
		var inputs, questions []object
		for _, s := range samples(t) {
			inputs = append(inputs, object{"series": s, "values": atRest(s)})
		}
		variables, reasons := chosen(), map[string]bool{}
		for _, p := range shown(t).Panels {
			if p.Type == "row" {
				continue
			}
			if p.FieldConfig.Defaults.NoValue != nobody {
				reasons[p.Title] = p.FieldConfig.Defaults.NoValue != ""
				continue
			}
			// Not a number is shown as nothing, too, and is not above -Inf.
			var none []string
			for _, target := range p.Targets {
				none = append(none, "absent(("+variables.Replace(target.Expr)+") > -Inf)")
			}
			questions = append(questions, object{"expr": strings.Join(none, " and "), "eval_time": "30m", "exp_samples": []object{}})
		}
		if len(questions) < 25 || len(reasons) < 5 {
			t.Fatalf("got %d panels to ask and %d with a reason, want 25 and 5 or more", len(questions), len(reasons))
		}
		for title, explained := range reasons {
			if !explained {
				t.Errorf("%s: an empty panel has no text", title)
			}
		}
		ask(t, promtool, inputs, questions)
	})
}

type object = map[string]any

// nobody is the text of a panel that is only empty without members.
const nobody = "no member is scraped"

// atRest are the values of a series of a healthy bridge that has had nothing to do.
func atRest(series string) string {
	name, _, _ := strings.Cut(series, "{")
	switch {
	case strings.HasPrefix(name, "process_"), strings.HasPrefix(name, "go_"), strings.HasSuffix(name, "_info"),
		slices.Contains([]string{"bridge_ready", "bridge_live", "bridge_config_last_reload_successful", "bridge_config_last_reload_success_timestamp_seconds", "bridge_buffered_limit_bytes"}, name):
		return "1x60"
	case name == "ALERTS", strings.HasPrefix(name, "bridge_token_") && strings.HasSuffix(name, "_seconds"): // there is none
		return "_x60"
	}
	return "0x60"
}

// ask has promtool answer questions about series.
func ask(t *testing.T, promtool func(...string) (string, error), inputs, questions []object) {
	t.Helper()
	tests, err := json.Marshal(object{"evaluation_interval": "1m", "tests": []object{{
		"interval": "1m", "input_series": inputs, "promql_expr_test": questions,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard_test.json")
	if err := os.WriteFile(file, tests, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool("test", "rules", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// promtool builds it from the version pinned in go.mod, without the discovery
// of cloud services, which would be most of it. The build cache makes the second
// time cheap.
func promtool(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 11*time.Minute)
	t.Cleanup(cancel)
	bin := filepath.Join(t.TempDir(), "promtool")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "remove_all_sd", "-o", bin, "github.com/prometheus/prometheus/cmd/promtool")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building promtool: %v\n%s", err, out)
	}
	return func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, bin, args...).CombinedOutput()
		return string(out), err
	}
}

// samples names a series of each metric, or of several where the dashboard
// chooses by a word. Its values are never 0.
func samples(t *testing.T) []string {
	t.Helper()
	words := map[string][]string{
		"instance": {"i"}, "topic": {"t"}, "group": {"g"}, "le": {"0.1", "+Inf"},
		"state": {"blocked", "retrying", "failed"}, "outcome": {"delivered", "released"},
	}
	all := []string{}
	have := series(t)
	for _, name := range slices.Sorted(maps.Keys(have)) {
		variants := []string{name + `{namespace="n", job="j"`}
		for _, label := range append([]string{"instance"}, have[name]...) {
			values, chosen := words[label]
			if !chosen {
				values = []string{"w"}
			}
			var longer []string
			for _, v := range variants {
				for _, value := range values {
					longer = append(longer, v+`, `+label+`="`+value+`"`)
				}
			}
			variants = longer
		}
		for _, v := range variants {
			all = append(all, v+"}")
		}
	}
	return all
}
