package ops

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus"
)

// gauges collects the metrics that are states. Those of one scrape come from one
// snapshot, so they are consistent, and none has to be updated or removed.
type gauges struct {
	source      Source
	byPartition bool
	descs       sync.Map // of *prometheus.Desc, by name
}

// Describe implements prometheus.Collector. The collector is unchecked: it creates
// its families when it collects them.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// emit sends one value; labels are names and values in turn.
type emit func(t prometheus.ValueType, name, help string, value float64, labels ...string)

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.source()
	send := func(t prometheus.ValueType, name, help string, value float64, labels ...string) {
		values := make([]string, 0, 4)
		for i := 1; i < len(labels); i += 2 {
			values = append(values, valid(labels[i]))
		}
		desc, ok := g.descs.Load(name)
		if !ok {
			var names []string
			for i := 0; i < len(labels); i += 2 {
				names = append(names, labels[i])
			}
			desc, _ = g.descs.LoadOrStore(name, prometheus.NewDesc(name, help, names, nil))
		}
		ch <- prometheus.MustNewConstMetric(desc.(*prometheus.Desc), t, value, values...)
	}
	send(prometheus.GaugeValue, "bridge_buffered_limit_bytes", "Budget in bytes for bridge_buffered_bytes over all integrations; fetching pauses when it is used up.", float64(s.BufferedLimit))
	send(prometheus.CounterValue, "bridge_log_lines_dropped_total", "Log lines dropped because standard error was not read in time or could not be written.", float64(s.LogLinesDropped))
	if s := s.Store; s != nil {
		gauge := func(name, help string, value float64) { send(prometheus.GaugeValue, name, help, value) }
		gauge("bridge_store_ok", "1 if the store of installed integrations can be read and written, else 0; /status shows the problem and the remedy. Absent without a store.", oneIf(s.Known && s.Problem == nil))
		gauge("bridge_store_integrations", "Installed integrations.", float64(s.Integrations))
		gauge("bridge_store_ignored_records", "Records of the store that are not followed: foreign, malformed or of a newer format.", float64(s.Ignored))
	}
	if w := s.Webhook; w != nil {
		const requests = "Requests to webhook.url, by result. A message that failed is sent again for up to 30 minutes."
		send(prometheus.CounterValue, "bridge_webhook_requests_total", requests, float64(w.Sent), "result", "ok")
		send(prometheus.CounterValue, "bridge_webhook_requests_total", requests, float64(w.Failed), "result", "error")
		send(prometheus.CounterValue, "bridge_webhook_dropped_total", "Messages to webhook.url that were given up, or gave way to newer ones.", float64(w.Dropped))
	}
	of := make(map[string]int)
	for _, i := range s.Integrations {
		of[i.State]++
	}
	for _, state := range integrationStates {
		send(prometheus.GaugeValue, "bridge_integrations", "Integrations of this member, by state.", float64(of[state]), "state", state)
	}
	for _, i := range s.Integrations {
		g.collect(i, s.Time, func(t prometheus.ValueType, name, help string, value float64, labels ...string) {
			send(t, name, help, value, append([]string{"integration", i.Integration}, labels...)...)
		})
	}
}

// integrationStates are the values of the label state of an integration.
var integrationStates = []string{StateStarting, StateRunning, StateDraining, StateStopped, StateFailed, StateDisabled, StateBlocked}

// collect sends what one integration shows.
func (g *gauges) collect(s IntegrationStatus, now time.Time, send emit) {
	gauge := func(name, help string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, help, value, labels...)
	}
	for _, state := range integrationStates {
		gauge("bridge_integration_state", "1 for the present state of the integration, 0 for the others. A disabled one has no other gauges.", oneIf(s.State == state), "state", state)
	}
	ready := func() {
		gauge("bridge_ready", "1 if events are being delivered, else 0; /readyz shows the reasons.", oneIf(s.Ready))
	}
	switch s.State {
	case StateBlocked:
		ready()
		return
	case StateDisabled:
		return
	}
	gauge("bridge_group_info", "Always 1; the label names the consumer group.", 1, "group", s.Group)
	ready()
	gauge("bridge_live", "1 if the poll loop is running, else 0; /livez shows the reason.", oneIf(s.Live))
	if !s.LastPoll.IsZero() {
		gauge("bridge_poll_age_seconds", "Seconds since the last iteration of the poll loop; absent before the first.", now.Sub(s.LastPoll).Seconds())
	}
	gauge("bridge_buffered_bytes", "Bytes of events read from Kafka and not yet acknowledged by the sink.", float64(s.BufferedBytes))

	inState := make(map[string]int)
	paused, pending := 0, 0
	for _, p := range s.Partitions {
		inState[p.State]++
		pending += p.Pending
		if p.Paused {
			paused++
		}
	}
	for _, state := range []string{consumer.StateWaiting, consumer.StateWriting, consumer.StateRejecting, consumer.StateBlocked, consumer.StateDraining} {
		gauge("bridge_assigned_partitions", "Partitions assigned to this member, by state.", float64(inState[state]), "state", state)
	}
	gauge("bridge_paused_partitions", "Partitions whose fetches are paused because of the buffer budget.", float64(paused))
	gauge("bridge_pending_events", "Events read from Kafka and not yet acknowledged by the sink.", float64(pending))
	collectLedger(send, "bridge_ledger_", " Over all partitions this process was ever assigned.", s.Ledger)
	if s.State == StateRunning && s.Sink.Name != zerobus.Blocked {
		gauge("bridge_seconds_behind", "Age in seconds, by its timestamp, of the oldest event read and not yet acknowledged by the sink; 0 if there is none. "+
			"For autoscalers: blocked partitions do not count, and it is absent while the sink is blocked.", consumer.Behind(s.Partitions).Seconds())
	}
	for _, p := range g.assigned(s) {
		labels := []string{"topic", p.Topic}
		if g.byPartition {
			labels = append(labels, "partition", strconv.Itoa(int(p.Partition)))
		}
		if p.Lag >= 0 {
			gauge("bridge_lag_events", "Offsets from the partition's last delivered event to the end of what can be read; absent while unknown. "+
				"Offsets without an event count until they are passed.", float64(p.Lag), labels...)
		}
		gauge("bridge_oldest_unacked_age_seconds", "Age in seconds of the oldest event read and not yet acknowledged by the sink; 0 if there is none.",
			time.Duration(p.Oldest).Seconds(), labels...)
		collectLedger(send, "bridge_partition_ledger_", " Per partition; the series ends when the partition is revoked and continues when it is assigned again.",
			p.Ledger, labels...)
	}

	for _, state := range []string{zerobus.Ready, zerobus.Retrying, zerobus.Blocked} {
		gauge("bridge_sink_state", "1 for the present state of the sink, 0 for the others.", oneIf(s.Sink.Name == state), "state", state)
	}
	for _, id := range s.Sink.Streams {
		gauge("bridge_sink_stream_info", "Always 1; the label is the service's id of an open stream, as in its system tables. Absent for transports without streams.",
			1, "stream_id", id)
	}
	if !s.Sink.TokenMintedAt.IsZero() {
		gauge("bridge_token_age_seconds", "Seconds since the present access token was issued; absent without a token.", now.Sub(s.Sink.TokenMintedAt).Seconds())
	}
	if !s.Sink.TokenExpiresAt.IsZero() {
		gauge("bridge_token_expires_in_seconds", "Seconds until the present access token expires, negative once it has; absent without a token.",
			s.Sink.TokenExpiresAt.Sub(now).Seconds())
	}
}

// assigned returns what is shown of the partitions: each of them, or one for each topic
// with the sum of the known lags, the age of the oldest event, and the ledger of every
// partition of the topic that was ever assigned, so that its counters only grow.
func (g *gauges) assigned(s IntegrationStatus) []consumer.PartitionStatus {
	if g.byPartition {
		return s.Partitions
	}
	all := make(map[string]*consumer.PartitionStatus)
	for topic, ledger := range s.TopicLedgers {
		all[topic] = &consumer.PartitionStatus{Topic: topic, Lag: -1, Ledger: ledger}
	}
	for _, p := range s.Partitions {
		t := all[p.Topic]
		if t == nil {
			t = &consumer.PartitionStatus{Topic: p.Topic, Lag: -1}
			all[p.Topic] = t
		}
		t.Oldest = max(t.Oldest, p.Oldest)
		if p.Lag >= 0 {
			t.Lag = max(t.Lag, 0) + p.Lag
		}
	}
	topics := make([]consumer.PartitionStatus, 0, len(all))
	for _, t := range all {
		topics = append(topics, *t)
	}
	return topics
}

func collectLedger(send emit, prefix, scope string, l consumer.LedgerStatus, labels ...string) {
	send(prometheus.CounterValue, prefix+"events_read_total", "Events read; equals those with an outcome and those in flight."+scope, float64(l.Read), labels...)
	for _, o := range []struct {
		outcome string
		events  int64
	}{
		{"delivered", l.Delivered}, {"dead_lettered", l.DeadLettered}, {"skipped", l.Skipped}, {"filtered", l.Filtered}, {"released", l.Released},
	} {
		send(prometheus.CounterValue, prefix+"events_total", "Events read, by outcome; released ones are redelivered to the partition's next owner."+scope,
			float64(o.events), append(labels[:len(labels):len(labels)], "outcome", o.outcome)...)
	}
	send(prometheus.GaugeValue, prefix+"in_flight_events", "Events read that have no outcome yet."+scope, float64(l.InFlight), labels...)
	send(prometheus.GaugeValue, prefix+"unaccounted_events", "Events and offsets that the ledger does not account for. Above or below 0 it is a bug in the bridge."+scope,
		float64(l.Unaccounted), labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
