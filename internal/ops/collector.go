package ops

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// snapshotCollector turns a Snapshot into gauges. It takes one snapshot for
// each scrape, so the gauges of a scrape belong together, and nothing has to
// be updated or removed in between.
type snapshotCollector struct {
	source   Source
	revision string // version control revision the binary was built from; "" unknown

	buildInfo, groupInfo, ready, live, pollAge        *prometheus.Desc
	assigned, paused, pending, buffered, bufferBudget *prometheus.Desc
	lag, oldest                                       *prometheus.Desc
	books, partitionBooks                             books
	sinkState, sinkStream, tokenAge, tokenExpires     *prometheus.Desc
}

func newSnapshotCollector(source Source) *snapshotCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	return &snapshotCollector{
		source:   source,
		revision: revision(),
		buildInfo: desc("build_info", "Always 1; the labels say what is running.",
			"version", "revision", "goversion"),
		groupInfo: desc("group_info", "Always 1; the label is the consumer group.", "group"),
		ready:     desc("ready", "1 while events are being delivered, else 0; /readyz says why."),
		live:      desc("live", "1 while the poll loop is alive, else 0; /livez says why."),
		pollAge: desc("poll_age_seconds",
			"Seconds since the last turn of the poll loop; absent before the first."),
		assigned: desc("assigned_partitions", "Partitions this member owns, by what they are doing.", "state"),
		paused:   desc("paused_partitions", "Partitions whose fetches are held back by the buffer budget."),
		pending:  desc("pending_events", "Events read from Kafka and not yet acknowledged by the sink."),
		buffered: desc("buffered_bytes", "Bytes of events read from Kafka and not yet acknowledged by the sink."),
		bufferBudget: desc("buffered_limit_bytes",
			"The budget of bridge_buffered_bytes; fetching pauses when it is used up."),
		lag: desc("lag_events",
			"Offsets between the partition's last delivered event and the end of what can be read; absent while unknown. "+
				"It reaches 0 behind transaction markers, too; offsets without an event count until they are passed.", "topic", "partition"),
		oldest: desc("oldest_unacked_age_seconds",
			"Age in seconds of the oldest event read and not yet acknowledged by the sink; 0 when there is none.",
			"topic", "partition"),
		books: books{
			events: desc("conservation_events_total",
				"What became of the events this process has read, over all partitions it ever owned: "+
					"read is the sum of the other accounts and of bridge_conservation_in_flight_events.", "account"),
			inFlight: desc("conservation_in_flight_events", "Events read that are in no other account yet."),
			imbalance: desc("conservation_imbalance_events",
				"Events and offsets that were read or passed and are not accounted for. Anything but 0 is a fault of the bridge."),
		},
		partitionBooks: books{
			events: desc("partition_conservation_events_total",
				"bridge_conservation_events_total for one partition. The series ends when the partition goes to another member, and goes on should it come back.",
				"topic", "partition", "account"),
			inFlight: desc("partition_conservation_in_flight_events", "bridge_conservation_in_flight_events for one partition.", "topic", "partition"),
			imbalance: desc("partition_conservation_imbalance_events",
				"bridge_conservation_imbalance_events for one partition.", "topic", "partition"),
		},
		sinkState: desc("sink_state", "1 for the state the sink is in, 0 for the others.", "state"),
		sinkStream: desc("sink_stream_info",
			"Always 1; the label is the service's name of an open stream, as its own monitoring tables have it. None where the wire has no streams.", "stream_id"),
		tokenAge: desc("token_age_seconds",
			"Seconds since the access token in use was minted; absent while there is none."),
		tokenExpires: desc("token_expires_in_seconds",
			"Seconds until the access token in use expires, negative when it has; absent while there is none."),
	}
}

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
func (c *snapshotCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.buildInfo, c.groupInfo, c.ready, c.live, c.pollAge, c.assigned, c.paused, c.pending, c.buffered, c.bufferBudget,
		c.lag, c.oldest, c.books.events, c.books.inFlight, c.books.imbalance,
		c.partitionBooks.events, c.partitionBooks.inFlight, c.partitionBooks.imbalance, c.sinkState, c.sinkStream, c.tokenAge, c.tokenExpires,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *snapshotCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.source()
	now := s.Time
	if now.IsZero() {
		now = time.Now()
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}

	gauge(c.buildInfo, 1, valid(s.Version), c.revision, runtime.Version())
	gauge(c.groupInfo, 1, valid(s.Group))
	gauge(c.ready, oneIf(s.Ready))
	gauge(c.live, oneIf(s.Live))
	if !s.LastPoll.IsZero() {
		gauge(c.pollAge, now.Sub(s.LastPoll).Seconds())
	}
	gauge(c.buffered, float64(s.BufferedBytes))
	gauge(c.bufferBudget, float64(s.BufferedLimit))

	c.collectPartitions(s.Partitions, gauge)
	c.books.collect(s.Conservation, ch)
	for _, p := range s.Partitions {
		c.partitionBooks.collect(p.Conservation, ch, valid(p.Topic), strconv.Itoa(int(p.Partition)))
	}

	for _, state := range []string{SinkReady, SinkRetrying, SinkBlocked} {
		gauge(c.sinkState, oneIf(s.Sink.State == state), state)
	}
	for _, id := range s.Sink.Streams {
		gauge(c.sinkStream, 1, valid(id))
	}
	if !s.Sink.TokenMintedAt.IsZero() {
		gauge(c.tokenAge, now.Sub(s.Sink.TokenMintedAt).Seconds())
	}
	if !s.Sink.TokenExpiresAt.IsZero() {
		gauge(c.tokenExpires, s.Sink.TokenExpiresAt.Sub(now).Seconds())
	}
}

func (c *snapshotCollector) collectPartitions(
	partitions []PartitionStatus, gauge func(*prometheus.Desc, float64, ...string),
) {
	states := []string{PartitionWaiting, PartitionWriting, PartitionRejecting, PartitionBlocked, PartitionDraining}
	inState := make(map[string]int, len(states))
	paused, pending := 0, 0
	for _, p := range partitions {
		inState[p.State]++
		pending += p.PendingEvents
		if p.Paused {
			paused++
		}
		topic, id := valid(p.Topic), strconv.Itoa(int(p.Partition))
		if p.Lag >= 0 {
			gauge(c.lag, float64(p.Lag), topic, id)
		}
		gauge(c.oldest, p.OldestUnacked.Seconds(), topic, id)
	}
	for _, state := range states {
		gauge(c.assigned, float64(inState[state]), state)
	}
	gauge(c.paused, float64(paused))
	gauge(c.pending, float64(pending))
}

// books are the families of a Ledger.
type books struct{ events, inFlight, imbalance *prometheus.Desc }

func (b books) collect(l Ledger, ch chan<- prometheus.Metric, labels ...string) {
	for _, a := range []struct {
		account string
		events  int64
	}{
		{"read", l.Read}, {"delivered", l.Delivered}, {"dead_lettered", l.DeadLettered}, {"skipped", l.Skipped}, {"filtered", l.Filtered}, {"dropped", l.Dropped},
	} {
		ch <- prometheus.MustNewConstMetric(b.events, prometheus.CounterValue, float64(a.events), append(labels[:len(labels):len(labels)], a.account)...)
	}
	ch <- prometheus.MustNewConstMetric(b.inFlight, prometheus.GaugeValue, float64(l.InFlight), labels...)
	ch <- prometheus.MustNewConstMetric(b.imbalance, prometheus.GaugeValue, float64(l.Imbalance), labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
