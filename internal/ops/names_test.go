package ops_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
)

// Dashboards and alerts are built on names, types and labels, so these are an
// interface: a change of this list is a change operators must be told of.
func TestMetricNamesTypesAndLabels(t *testing.T) {
	families, _ := everyFamily(t)
	var b strings.Builder
	for _, f := range families {
		fmt.Fprintf(&b, "%s %s {%s}\n", f.GetName(), typeOf(f), strings.Join(labelsOf(f), ","))
	}
	compare(t, "testdata/metrics.golden", b.String())
}

func TestMetricsReferenceIsCurrent(t *testing.T) {
	families, _ := everyFamily(t)
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, f := range families {
		labels := "-"
		if names := labelsOf(f); len(names) > 0 {
			labels = "`" + strings.Join(names, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), typeOf(f), labels, f.GetHelp())
	}
	compare(t, "../../docs/metrics.md", b.String())
}

func TestMetricsKeepPrometheusConventions(t *testing.T) {
	families, text := everyFamily(t)
	if len(families) < 30 {
		t.Fatalf("got %d families of the bridge, want at least 30", len(families))
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		if help := f.GetHelp(); !strings.HasSuffix(help, ".") || strings.Contains(help, "|") {
			t.Errorf("%s: help %q: want a sentence that fits a table", f.GetName(), help)
		}
	}
}

func TestGoAndProcessMetricsAreThere(t *testing.T) {
	_, text := everyFamily(t)
	for _, name := range []string{"go_goroutines", "go_gc_duration_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"} {
		if !strings.Contains(text, "\n# TYPE "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
}

// everyFamily scrapes a bridge in which everything has happened once. It
// returns the bridge's own families by name and the whole text.
func everyFamily(t *testing.T) ([]*dto.MetricFamily, string) {
	t.Helper()
	m := ops.NewMetrics(known)
	url := start(t, ops.Config{}, m, fixed(healthy()), zaptest.NewLogger(t))
	exercise(m)
	families, text := scrape(t, url)
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "bridge_") })
	sorted := slices.SortedFunc(maps.Values(families), func(a, b *dto.MetricFamily) int {
		return strings.Compare(a.GetName(), b.GetName())
	})
	return sorted, text
}

func typeOf(f *dto.MetricFamily) string { return strings.ToLower(f.GetType().String()) }

func labelsOf(f *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, metric := range f.GetMetric() {
		for _, label := range metric.GetLabel() {
			names[label.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// compare holds got against a file, or with -update writes it there.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is stale; go test ./internal/ops -update rewrites it\n--- got\n%s\n--- want\n%s", path, got, want)
	}
}

// referenceHead has ' for what is ` on the page: neither a raw string nor the
// page can hold the other.
var referenceHead = strings.ReplaceAll(`# Metrics

The bridge serves its metrics in the Prometheus text format at '/metrics' on 'ops.address' (default
127.0.0.1:9400). Besides those below it serves the usual 'go_*' and 'process_*' metrics. Histograms
are also native histograms for a Prometheus that scrapes those.

This page is written by 'go test ./internal/ops -update', and a test fails when it is stale.

## What to watch

The alerts are those of [deploy/prometheus/rules.yaml](../deploy/prometheus/rules.yaml), each with a section in
[operations.md](operations.md#alerts); the dashboard of [deploy/grafana](../deploy/grafana) asks the same questions in the same order.

| question | expression | alert |
|---|---|---|
| Is it delivering? | 'bridge_ready' | BridgeNotReady, BridgeNoMembers: for 5 minutes |
| Does somebody have to act? | 'bridge_sink_state{state="blocked"}', 'bridge_assigned_partitions{state="blocked"}' | BridgeSinkBlocked, BridgePartitionBlocked: above 0 for 2 minutes |
| Does the process live? | 'bridge_live', 'changes(process_start_time_seconds[30m])' | BridgePollLoopDead, BridgeRestarting, BridgeMemberDown |
| How far behind is it? | 'sum by (topic) (bridge_lag_events)' | BridgeLagGrowing: by the trend |
| How long would it take to catch up, in seconds? | 'bridge:lag_events:sum / bridge:settled_events:rate5m' | BridgeFarBehind: above 3600, and not done in six hours |
| How old is the oldest event in hand? | 'max by (topic) (bridge_oldest_unacked_age_seconds)' | BridgeEventsTooOld: above 300 |
| Which partition is stuck? | 'topk(5, bridge_oldest_unacked_age_seconds)' | BridgePartitionStuck: above 600 without progress |
| Is an event lost? | 'bridge_conservation_imbalance_events' | BridgeBooksDoNotBalance: anything but 0 |
| Did Kafka remove events before they were delivered? | 'sum by (topic) (increase(bridge_lost_offsets_total[1h]))' | BridgeOffsetsLost: any |
| Is data refused? | 'sum by (topic, code) (rate(bridge_events_rejected_total[5m]))' | BridgeDeadLetters: any; BridgeManyRejects: more than 5 % |
| Are offsets committed? | 'rate(bridge_commits_total{result="error"}[5m])' | BridgeCommitsFailing: none works for 5 minutes |
| How fast are acknowledgements? | 'histogram_quantile(0.99, sum by (le) (rate(bridge_ack_latency_seconds_bucket[5m])))' | BridgeSlowAcknowledgements: above 10 |
| Why are requests repeated? | 'sum by (reason) (rate(bridge_sink_retries_total[5m]))' | - |
| Is memory for the backlog used up? | 'bridge_buffered_bytes / bridge_buffered_limit_bytes' | BridgeBufferFull: for 30 minutes; the sink is slower than the topic |
| Will the token be refreshed? | 'bridge_token_expires_in_seconds', 'rate(bridge_token_mints_total{result="error"}[5m])' | BridgeTokenNotRefreshed: below 150 while minting fails |
| Is the configuration on disk in force? | 'bridge_config_reload_success' | BridgeReloadRefused: 0 for 10 minutes |
| Is the group at rest? | 'sum by (kind) (increase(bridge_rebalances_total[30m]))' | BridgeExpelled: lost more than twice |

## How to read them

- Labels with 'partition' exist for the partitions this member owns and end when a partition goes to another
  member. Sum over all members for totals.
- 'bridge_lost_offsets_total' and 'bridge_skipped_offsets_total' begin at 0 when a partition is assigned and, unlike the others,
  stay when the partition goes: a loss does not end with the assignment that found it.
- A counter whose labels are known beforehand starts at 0, so the first increment shows in a rate.
- The words in 'code', 'reason', 'outcome', 'kind' and 'state' come from closed sets. A family never has more than
  2,000 such series; what would exceed it is counted under 'other'.
- No label and no value holds event data, a token or a secret.

## All metrics

| metric | type | labels | meaning |
|---|---|---|---|
`, "'", "`")
