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

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
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
	with, without := seriesBound(t, true), seriesBound(t, false)
	fmt.Fprintf(&b, referenceHead, with.process, with.integration, with.topic, with.partition, without.process, without.integration, without.topic,
		with.of(20, 1, 12), without.of(20, 1, 12))
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

// series is how many series a process has at most.
type series struct{ process, integration, topic, partition int }

// of returns how many there are with so many integrations, topics of each and assigned
// partitions of each.
func (s series) of(integrations, topics, partitions int) int {
	return s.process + integrations*(s.integration+topics*s.topic+partitions*s.partition)
}

// seriesBound counts the series of processes of several sizes in which everything has
// happened, with every label value that the bridge knows.
func seriesBound(t *testing.T, byPartition bool) series {
	t.Helper()
	count := func(integrations, topics, partitions int) int {
		return countSeries(t, integrations, topics, partitions, byPartition)
	}
	none, one := count(0, 0, 0), count(1, 0, 0)
	s := series{process: none, integration: one - none}
	s.topic = count(1, 1, 0) - one
	s.partition = count(1, 1, 1) - one - s.topic
	if !byPartition { // a topic has these series from its first partition on
		s.topic, s.partition = s.topic+s.partition, 0
	}
	if got, want := count(3, 2, 6), s.of(3, 2, 6); got != want {
		t.Fatalf("3 integrations of 2 topics and 6 partitions: got %d series, want %d by %+v", got, want, s)
	}
	return s
}

// countSeries returns the number of the bridge's own series. Each integration has so
// many partitions in all, spread over its topics.
func countSeries(t *testing.T, integrations, topics, partitions int, byPartition bool) (n int) {
	t.Helper()
	labels := pipeline.KnownLabels(&config.Config{})
	labels.Topics = nil
	for i := range topics {
		labels.Topics = append(labels.Topics, fmt.Sprintf("t%d", i))
	}
	one := integration()
	one.Partitions, one.TopicLedgers = nil, make(map[string]consumer.LedgerStatus)
	for p := range partitions {
		topic := labels.Topics[p%topics]
		one.Partitions = append(one.Partitions, consumer.PartitionStatus{Topic: topic, Partition: int32(p), Lag: 1})
		one.TopicLedgers[topic] = consumer.LedgerStatus{}
	}
	var all []ops.IntegrationStatus
	for i := range integrations {
		all = append(all, named(fmt.Sprint(i), one))
	}
	source := fixed(process(all...))
	m := ops.NewMetrics("v0.1.0", source, byPartition)
	for _, i := range all {
		counts := m.Integration(i.Integration, labels)
		for _, p := range i.Partitions {
			counts.EventsRead(p.Topic, p.Partition, 1, 1)
			counts.OffsetsPassed(p.Topic, p.Partition, 0, 0)
		}
	}
	_, text := scrape(t, start(t, ops.Config{}, m, source, zaptest.NewLogger(t)))
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "bridge_") {
			n++
		}
	}
	return n
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
| Is data refused? | 'sum by (topic, code) (rate(bridge_events_rejected_total[5m]))' | BridgeDeadLetters: any; BridgeManyRejects: more than 5 %% |
| Are offsets committed? | 'rate(bridge_commits_total{result="error"}[5m])' | BridgeCommitsFailing: none succeeds for 5 minutes |
| How fast are acknowledgements? | 'histogram_quantile(0.99, sum by (le) (rate(bridge_ack_latency_seconds_bucket[5m])))' | BridgeSlowAcknowledgements: above 10 |
| Why are requests repeated? | 'sum by (reason) (rate(bridge_sink_retries_total[5m]))' | - |
| Is the buffer budget used up? | 'sum by (instance) (bridge_buffered_bytes) / on (instance) bridge_buffered_limit_bytes' | BridgeBufferFull: for 30 minutes; the sink is slower than the topic |
| Will the token be refreshed? | 'bridge_token_expires_in_seconds', 'rate(bridge_token_mints_total{result="error"}[5m])' | BridgeTokenNotRefreshed: below 150 while minting fails |
| Is the configuration on disk in force? | 'bridge_config_last_reload_successful' | BridgeReloadFailed: 0 for 10 minutes |
| Can installed integrations be changed? | 'bridge_store_ok', 'bridge_store_ignored_records' | BridgeStoreNotUsable: 0 for 10 minutes |
| Are state changes reported? | 'rate(bridge_webhook_requests_total{result="error"}[5m])', 'bridge_webhook_dropped_total' | -; see [webhooks.md](webhooks.md) |
| How far behind is it, for an autoscaler? | 'max by (integration) (bridge_seconds_behind)' | -; see [scaling.md](scaling.md#autoscaling) |
| Does every integration run? | 'bridge_integration_state{state="failed"}', 'bridge_integrations' | BridgeIntegrationFailed: for 6 minutes |
| Is the group stable? | 'sum by (kind) (increase(bridge_rebalances_total[30m]))' | BridgeExpelled: lost more than twice |

## How to read them

- 'integration' names the integration: one consumer group with its topics and its table. It is 'default' if the configuration has no
  'integrations'. Metrics without this label describe the process. The series of an integration end when it is removed; added again, it
  counts from 0. Of a disabled one, 'bridge_integration_state' is the only gauge.
- Series with 'partition' exist for the partitions assigned to this member and end when a partition is revoked. Sum over all
  members for totals.
- 'bridge_lost_offsets_total' and 'bridge_skipped_offsets_total' start at 0 when a partition is assigned. Unlike the others they
  remain after it is revoked, so a loss stays visible.
- Counters whose label values are known beforehand start at 0, so the first increment shows in a rate.
- The values of 'code', 'reason', 'outcome', 'kind' and 'state' come from closed sets. A family has at most 2,000 such series per
  integration; the rest is counted under 'other'.
- No label and no value contains event data, a token or a secret.

## How many series

A member has at most this many series of its own, besides those of Go and of the process:

'''
%d + integrations x (%d + topics x %d + partitions x %d)
'''

*topics* and *partitions* are those of one integration: the partitions that are assigned to the member. A partition that was revoked
keeps 2 series. Over gRPC each open stream has one more series ('zerobus.streams'); the formula contains one. With
'ops.partition_metrics: false' there is no label 'partition', and it is

'''
%d + integrations x (%d + topics x %d)
'''

20 integrations with one topic and 12 partitions each have %d series, or %d. Without the label, counters and lag of a topic are sums over
its partitions, and its age is that of the oldest event. The 'bridge_partition_ledger_*' families then count every partition of the topic
that the member was ever assigned, so they only grow. Which partition lags is at '/status'.

## All metrics

| metric | type | labels | meaning |
|---|---|---|---|
`, "'", "`")
