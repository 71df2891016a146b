package ops_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

// exercise reports each kind of thing once, so that every family has a series.
func exercise(m *ops.IntegrationMetrics) {
	m.EventsRead("events", 2, 300, 410_000)
	m.OffsetsPassed("events", 2, 25, 3)
	m.RowsDelivered("events", 2, 290, 180_000, 120*time.Millisecond)
	m.EventRejected("events", "malformed")
	m.EventFiltered("events", "tombstone", 9)
	m.DeadLettered("events", 1)
	m.BatchSplit("events")
	m.Committed(nil)
	m.Committed(errors.New("coordinator is gone"))
	m.Rebalanced(ops.RebalanceAssigned, 2)
	m.Request("ok", 110*time.Millisecond)
	m.Retried("unavailable")
	m.StreamOpened()
	m.StreamEnded("announced")
	m.TokenMinted(nil)
	m.TokenMinted(errors.New("invalid_client"))
}

func TestMetricsCountWhatIsReported(t *testing.T) {
	m, url := serve(t, known, fixed(healthy()))
	began := time.Now()
	exercise(m)
	families, text := scrape(t, url)

	for _, line := range []string{
		`bridge_events_read_total{integration="default",partition="2",topic="events"} 300`,
		`bridge_sink_streams_opened_total{integration="default"} 1`,
		`bridge_sink_streams_ended_total{integration="default",reason="announced"} 1`,
		`bridge_events_read_bytes_total{integration="default",partition="2",topic="events"} 410000`,
		`bridge_lost_offsets_total{integration="default",partition="2",topic="events"} 25`,
		`bridge_skipped_offsets_total{integration="default",partition="2",topic="events"} 3`,
		`bridge_rows_delivered_total{integration="default",partition="2",topic="events"} 290`,
		`bridge_rows_delivered_bytes_total{integration="default",partition="2",topic="events"} 180000`,
		`bridge_events_rejected_total{code="malformed",integration="default",topic="events"} 1`,
		`bridge_events_filtered_total{integration="default",reason="tombstone",topic="events"} 9`,
		`bridge_dead_letters_total{integration="default",topic="events"} 1`,
		`bridge_batch_splits_total{integration="default",topic="events"} 1`,
		`bridge_batch_rows_bucket{integration="default",le="250"} 0`,
		`bridge_batch_rows_bucket{integration="default",le="500"} 1`,
		`bridge_batch_bytes_sum{integration="default"} 180000`,
		`bridge_ack_latency_seconds_bucket{integration="default",le="0.1"} 0`,
		`bridge_ack_latency_seconds_bucket{integration="default",le="0.25"} 1`,
		`bridge_ack_latency_seconds_bucket{integration="default",le="300"} 1`,
		`bridge_sink_requests_total{integration="default",outcome="ok"} 1`,
		`bridge_sink_request_duration_seconds_sum{integration="default"} 0.11`,
		`bridge_sink_retries_total{integration="default",reason="unavailable"} 1`,
		`bridge_commits_total{integration="default",result="ok"} 1`,
		`bridge_commits_total{integration="default",result="error"} 1`,
		`bridge_token_mints_total{integration="default",result="ok"} 1`,
		`bridge_token_mints_total{integration="default",result="error"} 1`,
		`bridge_rebalances_total{integration="default",kind="assigned"} 1`,
		`bridge_rebalanced_partitions_total{integration="default",kind="assigned"} 2`,
	} {
		hasLine(t, text, line)
	}
	last := families["bridge_last_commit_timestamp_seconds"].GetMetric()[0].GetGauge().GetValue()
	if from, to := float64(began.Unix()), float64(time.Now().Unix()+1); last < from || last > to {
		t.Errorf("last commit timestamp: got %v, want between %v and %v", last, from, to)
	}
}

func TestGaugesComeFromTheSnapshot(t *testing.T) {
	calls := 0
	_, url := serve(t, known, func() ops.Status { calls++; return healthy() })
	_, text := scrape(t, url)
	for _, line := range []string{
		`bridge_ready{integration="default"} 1`,
		`bridge_live{integration="default"} 1`,
		`bridge_poll_age_seconds{integration="default"} 0.25`,
		`bridge_assigned_partitions{integration="default",state="waiting"} 1`,
		`bridge_assigned_partitions{integration="default",state="writing"} 1`,
		`bridge_assigned_partitions{integration="default",state="rejecting"} 0`,
		`bridge_assigned_partitions{integration="default",state="blocked"} 0`,
		`bridge_assigned_partitions{integration="default",state="draining"} 0`,
		`bridge_paused_partitions{integration="default"} 1`,
		`bridge_pending_events{integration="default"} 300`,
		`bridge_buffered_bytes{integration="default"} 6.7108864e+07`,
		`bridge_buffered_limit_bytes 2.68435456e+08`,
		`bridge_lag_events{integration="default",partition="2",topic="events"} 4000`,
		`bridge_oldest_unacked_age_seconds{integration="default",partition="2",topic="events"} 1.5`,
		`bridge_oldest_unacked_age_seconds{integration="default",partition="10",topic="events"} 0`,
		`bridge_ledger_events_read_total{integration="default"} 2000`,
		`bridge_ledger_events_total{integration="default",outcome="released"} 400`,
		`bridge_ledger_in_flight_events{integration="default"} 300`,
		`bridge_ledger_unaccounted_events{integration="default"} 0`,
		`bridge_partition_ledger_events_total{integration="default",outcome="delivered",partition="2",topic="events"} 1190`,
		`bridge_partition_ledger_in_flight_events{integration="default",partition="2",topic="events"} 300`,
		`bridge_partition_ledger_unaccounted_events{integration="default",partition="2",topic="events"} 1`,
		`bridge_seconds_behind{integration="default"} 42`,
		`bridge_sink_state{integration="default",state="ready"} 1`,
		`bridge_sink_state{integration="default",state="retrying"} 0`,
		`bridge_sink_state{integration="default",state="blocked"} 0`,
		`bridge_token_age_seconds{integration="default"} 600`,
		`bridge_token_expires_in_seconds{integration="default"} 3000`,
	} {
		hasLine(t, text, line)
	}
	if strings.Contains(text, `bridge_lag_events{integration="default",partition="10"`) {
		t.Error("an unknown lag has a series")
	}
	if calls != 1 {
		t.Errorf("snapshots for one scrape: got %d, want 1", calls)
	}
}

func TestGaugesOfWhatIsNotThereAreAbsent(t *testing.T) {
	_, url := serve(t, ops.Known{}, fixed(process(ops.IntegrationStatus{Integration: "default", State: ops.StateStarting})))
	families, text := scrape(t, url)
	hasLine(t, text, `bridge_ready{integration="default"} 0`)
	hasLine(t, text, `bridge_sink_state{integration="default",state="ready"} 0`)
	hasLine(t, text, `bridge_last_commit_timestamp_seconds{integration="default"} 0`)
	for _, name := range []string{
		"bridge_poll_age_seconds", "bridge_token_age_seconds", "bridge_token_expires_in_seconds",
		"bridge_lag_events", "bridge_oldest_unacked_age_seconds",
	} {
		if families[name] != nil {
			t.Errorf("%s: got a series, want none before there is a value", name)
		}
	}
}

func TestKnownCountersStartAtZero(t *testing.T) {
	_, url := serve(t, known, fixed(healthy()))
	_, text := scrape(t, url)
	for _, line := range []string{
		`bridge_events_rejected_total{code="malformed",integration="default",topic="events"} 0`,
		`bridge_events_rejected_total{code="too_large",integration="default",topic="events"} 0`,
		`bridge_events_filtered_total{integration="default",reason="tombstone",topic="events"} 0`,
		`bridge_dead_letters_total{integration="default",topic="events"} 0`,
		`bridge_batch_splits_total{integration="default",topic="events"} 0`,
		`bridge_sink_requests_total{integration="default",outcome="ok"} 0`,
		`bridge_sink_requests_total{integration="default",outcome="refused"} 0`,
		`bridge_sink_retries_total{integration="default",reason="unavailable"} 0`,
		`bridge_commits_total{integration="default",result="ok"} 0`,
		`bridge_commits_total{integration="default",result="error"} 0`,
		`bridge_token_mints_total{integration="default",result="ok"} 0`,
		`bridge_token_mints_total{integration="default",result="error"} 0`,
		`bridge_rebalances_total{integration="default",kind="assigned"} 0`,
		`bridge_rebalances_total{integration="default",kind="revoked"} 0`,
		`bridge_rebalances_total{integration="default",kind="lost"} 0`,
		`bridge_rebalanced_partitions_total{integration="default",kind="lost"} 0`,
		`bridge_ack_latency_seconds_count{integration="default"} 0`,
	} {
		hasLine(t, text, line)
	}
}

func TestForgetRemovesThePartitionAlone(t *testing.T) {
	m, url := serve(t, known, fixed(ops.Status{}))
	for partition := range int32(3) {
		m.EventsRead("events", partition, 10, 100)
		m.RowsDelivered("events", partition, 10, 100, time.Millisecond)
	}
	m.Forget("events", 1)
	m.Forget("events", 99) // never seen
	m.Forget("elsewhere", 0)

	_, text := scrape(t, url)
	if strings.Contains(text, `partition="1"`) {
		t.Error(`series of the forgotten partition 1 are still there`)
	}
	hasLine(t, text, `bridge_events_read_total{integration="default",partition="0",topic="events"} 10`)
	hasLine(t, text, `bridge_rows_delivered_bytes_total{integration="default",partition="2",topic="events"} 100`)
	if got := m.Totals().EventsRead; got != 30 {
		t.Errorf("total events read after Forget: got %d, want 30", got)
	}

	m.EventsRead("events", 1, 4, 40) // assigned again
	_, text = scrape(t, url)
	hasLine(t, text, `bridge_events_read_total{integration="default",partition="1",topic="events"} 4`)
}

// A loss is counted from 0, and its counter outlives the partition's stay.
func TestLostOffsetsOutliveTheAssignment(t *testing.T) {
	m, url := serve(t, known, fixed(ops.Status{}))
	m.OffsetsPassed("events", 1, 0, 0)
	_, text := scrape(t, url)
	hasLine(t, text, `bridge_lost_offsets_total{integration="default",partition="1",topic="events"} 0`)
	hasLine(t, text, `bridge_skipped_offsets_total{integration="default",partition="1",topic="events"} 0`)
	m.OffsetsPassed("events", 1, 25, 7)
	m.Forget("events", 1)
	m.OffsetsPassed("events", 1, 0, 0) // assigned again
	_, text = scrape(t, url)
	hasLine(t, text, `bridge_lost_offsets_total{integration="default",partition="1",topic="events"} 25`)
	hasLine(t, text, `bridge_skipped_offsets_total{integration="default",partition="1",topic="events"} 7`)
}

// Two integrations of one process share a registry and nothing else.
func TestIntegrationsAreCountedSeparately(t *testing.T) {
	other := ops.IntegrationStatus{Integration: "orders", Group: "other", Partitions: []consumer.PartitionStatus{{Topic: "events", Partition: 2, Lag: 7}}}
	all := ops.NewMetrics("v0.1.0", fixed(process(integration(), other)), true)
	first := all.Integration("default", known)
	second := all.Integration("orders", known)
	if all.Integration("orders", known) != second {
		t.Error("a second call with the same name returned other counters")
	}
	url := start(t, ops.Config{}, all, fixed(healthy()), zaptest.NewLogger(t))
	exercise(first)
	second.EventsRead("events", 2, 4, 40)
	second.Forget("events", 3)
	families, text := scrape(t, url)
	for _, line := range []string{
		`bridge_events_read_total{integration="default",partition="2",topic="events"} 300`,
		`bridge_events_read_total{integration="orders",partition="2",topic="events"} 4`,
		`bridge_events_rejected_total{code="malformed",integration="default",topic="events"} 1`,
		`bridge_events_rejected_total{code="malformed",integration="orders",topic="events"} 0`,
		`bridge_lag_events{integration="default",partition="2",topic="events"} 4000`,
		`bridge_lag_events{integration="orders",partition="2",topic="events"} 7`,
		`bridge_group_info{group="other",integration="orders"} 1`,
		`bridge_ready{integration="default"} 1`,
		`bridge_ready{integration="orders"} 0`,
		`bridge_ack_latency_seconds_count{integration="default"} 1`,
		`bridge_ack_latency_seconds_count{integration="orders"} 0`,
		`bridge_buffered_limit_bytes 2.68435456e+08`,
	} {
		hasLine(t, text, line)
	}
	if got := second.Totals(); got.EventsRead != 4 || got.Commits != 0 {
		t.Errorf("totals of the second: got %+v, want 4 events read and no commit", got)
	}
	if p50, _, ok := first.RecentAcks(); !ok || p50 != 0.12 {
		t.Errorf("acknowledgements of the first: got p50 %v and %v, want 0.12", p50, ok)
	}
	if _, _, ok := second.RecentAcks(); ok {
		t.Error("the second has acknowledgements of the first")
	}
	// What is not the process's has the label, and what is has not.
	ofProcess := map[string]bool{"bridge_build_info": true, "bridge_buffered_limit_bytes": true, "bridge_integrations": true, "bridge_log_lines_dropped_total": true, "bridge_store_ok": true, "bridge_store_integrations": true, "bridge_store_ignored_records": true, "bridge_webhook_requests_total": true, "bridge_webhook_dropped_total": true}
	for name, f := range families {
		want := strings.HasPrefix(name, "bridge_") && !ofProcess[name] && !strings.HasPrefix(name, "bridge_config_")
		for _, metric := range f.GetMetric() {
			has := slices.ContainsFunc(metric.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "integration" })
			if has != want {
				t.Errorf("%s %v: label integration %v, want %v", name, metric.GetLabel(), has, want)
			}
		}
	}
}

// After a removal nothing of an integration is left, and one of the same name that is
// added later counts from 0. The others stay.
func TestRemovedIntegrationsHaveNoSeries(t *testing.T) {
	all := []ops.IntegrationStatus{integration(), named("orders", integration())}
	var mu sync.Mutex // guards all
	source := func() ops.Status {
		mu.Lock()
		defer mu.Unlock()
		return process(all...)
	}
	m := ops.NewMetrics("v0.1.0", source, true)
	exercise(m.Integration("default", known))
	old := m.Integration("orders", known)
	exercise(old)
	url := start(t, ops.Config{}, m, source, zaptest.NewLogger(t))
	if _, text := scrape(t, url); !strings.Contains(text, `integration="orders"`) {
		t.Fatal("no series of orders, want some before the removal")
	}
	mu.Lock()
	all = all[:1]
	mu.Unlock()
	m.Remove("orders")
	m.Remove("orders")
	m.Remove("unknown")
	exercise(old) // the last reports of what is being stopped
	_, text := scrape(t, url)
	if strings.Contains(text, "orders") {
		t.Error("series of orders are left after its removal")
	}
	hasLine(t, text, `bridge_events_read_total{integration="default",partition="2",topic="events"} 300`)
	hasLine(t, text, `bridge_integrations{state="running"} 1`)

	again := m.Integration("orders", known)
	if again == old {
		t.Error("added again, it has the counters of before")
	}
	again.EventsRead("events", 2, 4, 40)
	_, text = scrape(t, url)
	hasLine(t, text, `bridge_events_read_total{integration="orders",partition="2",topic="events"} 4`)
	hasLine(t, text, `bridge_commits_total{integration="orders",result="ok"} 0`)
}

func TestScrapesDuringRemovals(t *testing.T) {
	m := ops.NewMetrics("v0.1.0", fixed(healthy()), true)
	url := start(t, ops.Config{}, m, fixed(healthy()), zaptest.NewLogger(t))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprintf("i%d", i)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					exercise(m.Integration(name, known))
					m.Remove(name)
				}
			}
		})
	}
	for range 10 {
		scrape(t, url) // fails unless it is complete
	}
	close(stop)
	wg.Wait()
}

func TestIntegrationStates(t *testing.T) {
	failed := ops.IntegrationStatus{Integration: "clicks", State: ops.StateFailed, Reason: "no such table"}
	disabled := ops.IntegrationStatus{Integration: "archive", State: ops.StateDisabled}
	_, url := serve(t, known, fixed(process(integration(), named("orders", refused()), failed, disabled)))
	_, text := scrape(t, url)
	for _, line := range []string{
		`bridge_integration_state{integration="default",state="running"} 1`,
		`bridge_integration_state{integration="default",state="failed"} 0`,
		`bridge_integration_state{integration="orders",state="running"} 1`,
		`bridge_integration_state{integration="clicks",state="failed"} 1`,
		`bridge_integration_state{integration="clicks",state="running"} 0`,
		`bridge_integration_state{integration="archive",state="disabled"} 1`,
		`bridge_integrations{state="running"} 2`,
		`bridge_integrations{state="failed"} 1`,
		`bridge_integrations{state="disabled"} 1`,
		`bridge_integrations{state="starting"} 0`,
		`bridge_ready{integration="orders"} 0`,
		`bridge_ready{integration="clicks"} 0`,
	} {
		hasLine(t, text, line)
	}
	if strings.Contains(text, `bridge_ready{integration="archive"}`) {
		t.Error("a disabled integration counts as not ready")
	}
}

// More members cannot help what is blocked, so an autoscaler does not see it.
func TestSecondsBehindIgnoreWhatIsBlocked(t *testing.T) {
	half := named("half", integration())
	half.Partitions[1].State = consumer.StateBlocked
	half.Partitions[0].Behind = consumer.Seconds(3 * time.Second)
	idle := named("idle", integration())
	idle.Partitions = nil
	failed := ops.IntegrationStatus{Integration: "clicks", State: ops.StateFailed, Partitions: integration().Partitions}
	_, url := serve(t, known, fixed(process(integration(), half, idle, named("orders", refused()), failed)))
	_, text := scrape(t, url)
	for _, line := range []string{`bridge_seconds_behind{integration="default"} 42`, `bridge_seconds_behind{integration="half"} 3`, `bridge_seconds_behind{integration="idle"} 0`} {
		hasLine(t, text, line)
	}
	for _, name := range []string{"orders", "clicks"} {
		if strings.Contains(text, `bridge_seconds_behind{integration="`+name) {
			t.Errorf("%s is blocked or failed, and has seconds behind", name)
		}
	}
}

// Without the label partition the series of a topic have sums, which only grow.
func TestWithoutPartitionLabels(t *testing.T) {
	i := integration()
	i.Partitions = append(i.Partitions, consumer.PartitionStatus{Topic: "events", Partition: 3, Lag: 7, Oldest: consumer.Seconds(3 * time.Second)},
		consumer.PartitionStatus{Topic: "other", Lag: -1})
	i.TopicLedgers = map[string]consumer.LedgerStatus{"events": {Ledger: consumer.Ledger{Read: 1900, Delivered: 1100, InFlight: 300}, Unaccounted: 2}}
	source := fixed(process(i))
	all := ops.NewMetrics("v0.1.0", source, false)
	m := all.Integration("default", known)
	url := start(t, ops.Config{}, all, source, zaptest.NewLogger(t))
	for partition := range int32(3) {
		m.EventsRead("events", partition, 10, 100)
		m.RowsDelivered("events", partition, 9, 90, time.Millisecond)
		m.OffsetsPassed("events", partition, 1, 2)
	}
	m.Forget("events", 1) // revoked
	_, text := scrape(t, url)
	for _, line := range []string{
		`bridge_events_read_total{integration="default",topic="events"} 30`,
		`bridge_events_read_bytes_total{integration="default",topic="events"} 300`,
		`bridge_rows_delivered_total{integration="default",topic="events"} 27`,
		`bridge_rows_delivered_bytes_total{integration="default",topic="events"} 270`,
		`bridge_lost_offsets_total{integration="default",topic="events"} 3`,
		`bridge_skipped_offsets_total{integration="default",topic="events"} 6`,
		`bridge_lag_events{integration="default",topic="events"} 4007`,
		`bridge_oldest_unacked_age_seconds{integration="default",topic="events"} 3`,
		`bridge_oldest_unacked_age_seconds{integration="default",topic="other"} 0`,
		`bridge_partition_ledger_events_read_total{integration="default",topic="events"} 1900`,
		`bridge_partition_ledger_events_total{integration="default",outcome="delivered",topic="events"} 1100`,
		`bridge_partition_ledger_in_flight_events{integration="default",topic="events"} 300`,
		`bridge_partition_ledger_unaccounted_events{integration="default",topic="events"} 2`,
	} {
		hasLine(t, text, line)
	}
	if strings.Contains(text, `partition="`) {
		t.Error("a series has the label partition")
	}
	if strings.Contains(text, `bridge_lag_events{integration="default",topic="other"}`) {
		t.Error("an unknown lag has a series")
	}
}

func TestLabelsThatKeepComingAreFolded(t *testing.T) {
	m, url := serve(t, ops.Known{}, fixed(ops.Status{}))
	const reports = 5000
	for i := range reports {
		m.EventRejected("events", fmt.Sprintf("code-%d", i))
		m.Retried(fmt.Sprintf("reason-%d", i))
	}
	families, text := scrape(t, url)
	for _, name := range []string{"bridge_events_rejected_total", "bridge_sink_retries_total"} {
		sum := 0.0
		for _, metric := range families[name].GetMetric() {
			sum += metric.GetCounter().GetValue()
		}
		if n := len(families[name].GetMetric()); n > 2001 {
			t.Errorf("%s: got %d series, want at most 2001", name, n)
		}
		if sum != reports {
			t.Errorf("%s: the series add up to %v, want %d", name, sum, reports)
		}
	}
	hasLine(t, text, `bridge_events_rejected_total{code="other",integration="default",topic="other"} 3000`)
}

func TestStrayLabelBytesDoNotPanic(t *testing.T) {
	m, url := serve(t, ops.Known{}, fixed(process(ops.IntegrationStatus{
		Integration: "default", Group: "\xff", Partitions: []consumer.PartitionStatus{{Topic: "t\xff", Lag: 3}},
	})))
	m.EventRejected("t\xff", "c\xfe")
	m.EventsRead("t\xff", 0, 1, 1)
	m.Request("\xff", 0)
	_, text := scrape(t, url)
	hasLine(t, text, `bridge_events_rejected_total{code="c?",integration="default",topic="t?"} 1`)
	hasLine(t, text, `bridge_lag_events{integration="default",partition="0",topic="t?"} 3`)
	m.Forget("t\xff", 0)
	if _, text = scrape(t, url); strings.Contains(text, "bridge_events_read_total{") {
		t.Error("Forget left the series of a topic with a stray byte")
	}
}

func TestNativeHistogramsForThoseWhoAsk(t *testing.T) {
	m, url := serve(t, known, fixed(healthy()))
	exercise(m)
	got := ask(t, http.MethodGet, url+"/metrics",
		"Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	decoder := expfmt.NewDecoder(strings.NewReader(got.body), expfmt.ResponseFormat(got.header))
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err != nil {
			t.Fatalf("bridge_ack_latency_seconds is not among the families: %v", err)
		}
		if family.GetName() != "bridge_ack_latency_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 {
			t.Errorf("got %d native spans and %d classic buckets, want both", len(h.GetPositiveSpan()), len(h.GetBucket()))
		}
		return
	}
}

func TestReportsFromManyGoroutinesAddUp(t *testing.T) {
	m, url := serve(t, known, fixed(healthy()))
	const workers, rounds = 8, 200
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				exercise(m)
				m.EventsRead("events", int32(w), 1, 1)
				m.Forget("events", int32(w))
			}
		})
	}
	for range 5 {
		scrape(t, url)
	}
	wg.Wait()
	const n = workers * rounds
	want := ops.Totals{
		EventsRead: 301 * n, EventBytesRead: 410_001 * n, RowsDelivered: 290 * n, RowBytesDelivered: 180_000 * n,
		EventsRejected: n, EventsFiltered: 9 * n, DeadLetters: n, BatchesDelivered: n, BatchesSplit: n,
		SinkRequests: n, SinkRetries: n, Commits: n, CommitErrors: n, TokensMinted: n, TokenErrors: n, Rebalances: n,
	}
	if got := m.Totals(); got != want {
		t.Errorf("totals:\n got %+v\nwant %+v", got, want)
	}
	_, text := scrape(t, url)
	hasLine(t, text, fmt.Sprintf(`bridge_events_rejected_total{code="malformed",integration="default",topic="events"} %d`, n))
}

// hotPath is what is called for each event, poll or batch.
var hotPath = []struct {
	name   string
	report func(*ops.IntegrationMetrics)
}{
	{"EventRejected", func(m *ops.IntegrationMetrics) { m.EventRejected("events", "malformed") }},
	{"EventFiltered", func(m *ops.IntegrationMetrics) { m.EventFiltered("events", "tombstone", 1) }},
	{"EventsRead", func(m *ops.IntegrationMetrics) { m.EventsRead("events", 2, 300, 410_000) }},
	{"RowsDelivered", func(m *ops.IntegrationMetrics) { m.RowsDelivered("events", 2, 290, 180_000, 120*time.Millisecond) }},
	{"OffsetsPassed", func(m *ops.IntegrationMetrics) { m.OffsetsPassed("events", 2, 0, 1) }},
	{"Request", func(m *ops.IntegrationMetrics) { m.Request("ok", 110*time.Millisecond) }},
	{"Retried", func(m *ops.IntegrationMetrics) { m.Retried("unavailable") }},
	{"Committed", func(m *ops.IntegrationMetrics) { m.Committed(nil) }},
}

func TestReportsDoNotAllocate(t *testing.T) {
	for _, c := range hotPath {
		t.Run(c.name, func(t *testing.T) {
			m := ops.NewMetrics("v0.1.0", fixed(healthy()), true).Integration("default", known)
			exercise(m)
			if got := testing.AllocsPerRun(1000, func() { c.report(m) }); got != 0 {
				t.Errorf("allocations: got %v, want 0", got)
			}
		})
	}
}

func BenchmarkReports(b *testing.B) {
	for _, c := range hotPath {
		b.Run(c.name, func(b *testing.B) {
			m := ops.NewMetrics("v0.1.0", fixed(healthy()), true).Integration("default", known)
			b.ReportAllocs()
			for b.Loop() {
				c.report(m)
			}
		})
	}
}
