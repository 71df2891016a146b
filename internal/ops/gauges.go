package ops

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus"
)

// gauges collects the metrics that are states, from one snapshot for each scrape:
// so they belong together, and none has to be updated or removed in between.
type gauges struct {
	source Source

	all []*prometheus.Desc

	groupInfo, ready, live, pollAge               *prometheus.Desc
	assigned, paused, pending, buffered           *prometheus.Desc
	lag, oldest                                   *prometheus.Desc
	ledger, partitionLedger                       ledgerDescs
	sinkState, sinkStream, tokenAge, tokenExpires *prometheus.Desc
}

// ledgerDescs are the families of a Ledger.
type ledgerDescs struct{ read, events, inFlight, unaccounted *prometheus.Desc }

func newGauges(source Source) *gauges {
	g := &gauges{source: source}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		d := prometheus.NewDesc(name, help, labels, nil)
		g.all = append(g.all, d)
		return d
	}
	g.groupInfo = desc("bridge_group_info", "Always 1; the label names the consumer group.", "group")
	g.ready = desc("bridge_ready", "1 if events are being delivered, else 0; /readyz shows the reasons.")
	g.live = desc("bridge_live", "1 if the poll loop is running, else 0; /livez shows the reason.")
	g.pollAge = desc("bridge_poll_age_seconds", "Seconds since the last iteration of the poll loop; absent before the first.")
	g.assigned = desc("bridge_assigned_partitions", "Partitions assigned to this member, by state.", "state")
	g.paused = desc("bridge_paused_partitions", "Partitions whose fetches are paused because of the buffer budget.")
	g.pending = desc("bridge_pending_events", "Events read from Kafka and not yet acknowledged by the sink.")
	g.buffered = desc("bridge_buffered_bytes", "Bytes of events read from Kafka and not yet acknowledged by the sink.")
	g.lag = desc("bridge_lag_events",
		"Offsets from the partition's last delivered event to the end of what can be read; absent while unknown. "+
			"Offsets without an event count until they are passed.", "topic", "partition")
	g.oldest = desc("bridge_oldest_unacked_age_seconds",
		"Age in seconds of the oldest event read and not yet acknowledged by the sink; 0 if there is none.", "topic", "partition")
	g.ledger = ledgerDescs{
		read: desc("bridge_ledger_events_read_total",
			"Events read by this process, over all partitions it was ever assigned. "+
				"Equals the sum of bridge_ledger_events_total and bridge_ledger_in_flight_events."),
		events: desc("bridge_ledger_events_total",
			"Events read by this process that have an outcome. "+
				"released: given up by a rebalance or a stop, and redelivered to the next owner.", "outcome"),
		inFlight:    desc("bridge_ledger_in_flight_events", "Events read that have no outcome yet."),
		unaccounted: desc("bridge_ledger_unaccounted_events", "Events and offsets read or passed that the ledger does not account for. Any other value than 0 is a bug in the bridge."),
	}
	g.partitionLedger = ledgerDescs{
		read: desc("bridge_partition_ledger_events_read_total",
			"bridge_ledger_events_read_total for one partition. The series ends when the partition is revoked and continues when it is assigned again.",
			"topic", "partition"),
		events:      desc("bridge_partition_ledger_events_total", "bridge_ledger_events_total for one partition.", "topic", "partition", "outcome"),
		inFlight:    desc("bridge_partition_ledger_in_flight_events", "bridge_ledger_in_flight_events for one partition.", "topic", "partition"),
		unaccounted: desc("bridge_partition_ledger_unaccounted_events", "bridge_ledger_unaccounted_events for one partition.", "topic", "partition"),
	}
	g.sinkState = desc("bridge_sink_state", "1 for the present state of the sink, 0 for the others.", "state")
	g.sinkStream = desc("bridge_sink_stream_info",
		"Always 1; the label is the service's id of an open stream, as in its system tables. Absent for transports without streams.", "stream_id")
	g.tokenAge = desc("bridge_token_age_seconds", "Seconds since the present access token was issued; absent without a token.")
	g.tokenExpires = desc("bridge_token_expires_in_seconds",
		"Seconds until the present access token expires, negative once it has; absent without a token.")
	return g
}

func goVersion() string { return runtime.Version() }

// revision is the version control revision of the build; "" if unknown.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.source()
	now := s.Time
	if now.IsZero() {
		now = time.Now()
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}

	gauge(g.groupInfo, 1, valid(s.Group))
	gauge(g.ready, oneIf(s.Ready))
	gauge(g.live, oneIf(s.Live))
	if !s.LastPoll.IsZero() {
		gauge(g.pollAge, now.Sub(s.LastPoll).Seconds())
	}
	gauge(g.buffered, float64(s.BufferedBytes))

	g.collectPartitions(s.Partitions, gauge)
	g.ledger.collect(s.Conservation, ch)
	for _, p := range s.Partitions {
		g.partitionLedger.collect(p.Ledger, ch, valid(p.Topic), strconv.Itoa(int(p.Partition)))
	}

	for _, state := range []string{zerobus.Ready, zerobus.Retrying, zerobus.Blocked} {
		gauge(g.sinkState, oneIf(s.Sink.Name == state), state)
	}
	for _, id := range s.Sink.Streams {
		gauge(g.sinkStream, 1, valid(id))
	}
	if !s.Sink.TokenMintedAt.IsZero() {
		gauge(g.tokenAge, now.Sub(s.Sink.TokenMintedAt).Seconds())
	}
	if !s.Sink.TokenExpiresAt.IsZero() {
		gauge(g.tokenExpires, s.Sink.TokenExpiresAt.Sub(now).Seconds())
	}
}

func (g *gauges) collectPartitions(partitions []consumer.PartitionStatus, gauge func(*prometheus.Desc, float64, ...string)) {
	states := []string{consumer.StateWaiting, consumer.StateWriting, consumer.StateRejecting, consumer.StateBlocked, consumer.StateDraining}
	inState := make(map[string]int, len(states))
	paused, pending := 0, 0
	for _, p := range partitions {
		inState[p.State]++
		pending += p.Pending
		if p.Paused {
			paused++
		}
		topic, id := valid(p.Topic), strconv.Itoa(int(p.Partition))
		if p.Lag >= 0 {
			gauge(g.lag, float64(p.Lag), topic, id)
		}
		gauge(g.oldest, time.Duration(p.Oldest).Seconds(), topic, id)
	}
	for _, state := range states {
		gauge(g.assigned, float64(inState[state]), state)
	}
	gauge(g.paused, float64(paused))
	gauge(g.pending, float64(pending))
}

func (d ledgerDescs) collect(l consumer.LedgerStatus, ch chan<- prometheus.Metric, labels ...string) {
	count := func(desc *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	count(d.read, l.Read, labels...)
	for _, o := range []struct {
		outcome string
		events  int64
	}{
		{"delivered", l.Delivered}, {"dead_lettered", l.DeadLettered}, {"skipped", l.Skipped}, {"filtered", l.Filtered}, {"released", l.Dropped},
	} {
		count(d.events, o.events, append(labels[:len(labels):len(labels)], o.outcome)...)
	}
	ch <- prometheus.MustNewConstMetric(d.inFlight, prometheus.GaugeValue, float64(l.InFlight), labels...)
	ch <- prometheus.MustNewConstMetric(d.unaccounted, prometheus.GaugeValue, float64(l.Imbalance), labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
