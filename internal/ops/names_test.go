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
)

// Dashboards and alerts depend on names, types and labels. The changelog must announce
// a change of this list.
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
	m, url := serve(t, known, fixed(healthy()))
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

// compare compares got with a file; with -update it writes the file.
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
127.0.0.1:9400). It also serves the usual 'go_*' and 'process_*' metrics. Scrapers that ask for native
histograms get those.

'go test ./internal/ops -update' generates this page; a test fails when it is stale.

## What to watch

The alerts are those of [deploy/prometheus/rules.yaml](../deploy/prometheus/rules.yaml), each with a section in
[operations.md](operations.md#alerts). The dashboard in [deploy/grafana](../deploy/grafana) answers the same questions in the same order.

| question | expression | alert |
|---|---|---|
| Is it delivering? | 'bridge_ready' | BridgeNotReady, BridgeNoMembers: for 5 minutes |
| Does someone have to act? | 'bridge_sink_state{state="blocked"}', 'bridge_assigned_partitions{state="blocked"}' | BridgeSinkBlocked, BridgePartitionBlocked: above 0 for 2 minutes |
| Is the process alive? | 'bridge_live', 'changes(process_start_time_seconds[30m])' | BridgePollLoopDead, BridgeRestarting, BridgeMemberDown |
| How far behind is it? | 'sum by (topic) (bridge_lag_events)' | BridgeLagGrowing: by the trend |
| How long would it take to catch up, in seconds? | 'bridge:lag_events:sum / bridge:completed_events:rate5m' | BridgeFarBehind: above 3600, and not done in six hours |
| How old is the oldest unacknowledged event? | 'max by (topic) (bridge_oldest_unacked_age_seconds)' | BridgeEventsTooOld: above 300 |
| Which partition is stuck? | 'topk(5, bridge_oldest_unacked_age_seconds)' | BridgePartitionStuck: above 600 without progress |
| Is an event unaccounted for? | 'bridge_ledger_unaccounted_events' | BridgeEventsUnaccounted: anything but 0 |
| Did Kafka remove events before they were delivered? | 'sum by (topic) (increase(bridge_lost_offsets_total[1h]))' | BridgeOffsetsLost: any |
| Is data refused? | 'sum by (topic, code) (rate(bridge_events_rejected_total[5m]))' | BridgeDeadLetters: any; BridgeManyRejects: more than 5 % |
| Are offsets committed? | 'rate(bridge_commits_total{result="error"}[5m])' | BridgeCommitsFailing: none succeeds for 5 minutes |
| How fast are acknowledgements? | 'histogram_quantile(0.99, sum by (le) (rate(bridge_ack_latency_seconds_bucket[5m])))' | BridgeSlowAcknowledgements: above 10 |
| Why are requests repeated? | 'sum by (reason) (rate(bridge_sink_retries_total[5m]))' | - |
| Is the buffer budget used up? | 'sum by (instance) (bridge_buffered_bytes) / on (instance) bridge_buffered_limit_bytes' | BridgeBufferFull: for 30 minutes; the sink is slower than the topic |
| Will the token be refreshed? | 'bridge_token_expires_in_seconds', 'rate(bridge_token_mints_total{result="error"}[5m])' | BridgeTokenNotRefreshed: below 150 while minting fails |
| Is the configuration on disk in force? | 'bridge_config_last_reload_successful' | BridgeReloadFailed: 0 for 10 minutes |
| Is the group stable? | 'sum by (kind) (increase(bridge_rebalances_total[30m]))' | BridgeExpelled: lost more than twice |

## How to read them

- 'integration' names the integration: one consumer group with its topics and its table. A process has one, 'default'. Metrics
  without this label describe the process.
- Series with 'partition' exist for the partitions assigned to this member and end when a partition is revoked. Sum over all
  members for totals.
- 'bridge_lost_offsets_total' and 'bridge_skipped_offsets_total' start at 0 when a partition is assigned. Unlike the others they
  remain after it is revoked, so a loss stays visible.
- Counters whose label values are known beforehand start at 0, so the first increment shows in a rate.
- The values of 'code', 'reason', 'outcome', 'kind' and 'state' come from closed sets. A family has at most 2,000 such series per
  integration; the rest is counted under 'other'.
- No label and no value contains event data, a token or a secret.

## All metrics

| metric | type | labels | meaning |
|---|---|---|---|
`, "'", "`")
