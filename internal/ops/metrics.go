package ops

import (
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Known lists label values that are known before anything has happened. Their
// counters exist from the start with the value 0, so that a rate over them
// does not miss the first increment. Every list may be empty.
type Known struct {
	Topics        []string // topics named in the configuration
	RejectCodes   []string // codes of EventRejected
	FilterReasons []string // reasons of EventFiltered
	Outcomes      []string // outcomes of Request
	RetryReasons  []string // reasons of Retried
	StreamEnds    []string // whys of StreamEnded
}

// Kinds of rebalance, the values of Rebalanced's kind.
const (
	RebalanceAssigned = "assigned"
	RebalanceRevoked  = "revoked"
	RebalanceLost     = "lost"
)

const other = "other" // the label value of what exceeds maxSeries

type topicPartition struct {
	topic     string
	partition int32
}

type topicWord struct{ topic, word string }

// partitionSeries are the counters of one partition.
type partitionSeries struct {
	events, eventBytes, rows, rowBytes prometheus.Counter
}

// offsetSeries are the counters of the offsets of one partition that brought no
// event. They stay when the partition goes: a loss must not end with the
// assignment that found it.
type offsetSeries struct{ lost, skipped prometheus.Counter }

// Metrics holds what the bridge counts, in a registry of its own. Its methods
// have the shape of the observers that consumer and zerobus declare. All are
// safe for concurrent use, never block on anything outside the process and do
// not allocate once a label has been seen.
type Metrics struct {
	registry *prometheus.Registry

	eventsRead, eventBytes, rowsDelivered, rowBytes *prometheus.CounterVec // topic, partition

	partitions *series[topicPartition, partitionSeries]
	offsets    *series[topicPartition, offsetSeries]
	rejected   *series[topicWord, prometheus.Counter] // topic, code
	filtered   *series[topicWord, prometheus.Counter] // topic, reason
	dead       *series[string, prometheus.Counter]    // topic
	halved     *series[string, prometheus.Counter]    // topic
	requests   *series[string, prometheus.Counter]    // outcome
	retries    *series[string, prometheus.Counter]    // reason
	ended      *series[string, prometheus.Counter]    // why
	rebalances *series[string, prometheus.Counter]    // kind
	moved      *series[string, prometheus.Counter]    // kind

	batchRows, batchBytes, ackLatency, requestDuration prometheus.Histogram

	streamsOpened            prometheus.Counter
	commitsOK, commitsFailed prometheus.Counter
	lastCommit               prometheus.Gauge
	mintsOK, mintsFailed     prometheus.Counter

	dropped atomic.Pointer[func() int64] // lines of the log

	reload reloadSeries
	totals totals
}

// LogLines says where to ask how many lines of the log were dropped.
func (m *Metrics) LogLines(dropped func() int64) { m.dropped.Store(&dropped) }

func (m *Metrics) logLinesDropped() float64 {
	dropped := m.dropped.Load()
	if dropped == nil {
		return 0
	}
	return float64((*dropped)())
}

// totals back Totals. They are kept apart from the counters because those of a
// partition go when the partition goes.
type totals struct {
	eventsRead, eventBytes, rows, rowBytes, rejected, filtered, dead, batches, halved,
	requests, retries, commits, commitErrors, tokens, tokenErrors, rebalances atomic.Int64
}

// latencyBuckets reach from a sink next door to one that is nearly given up,
// in seconds.
var latencyBuckets = []float64{
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
}

// NewMetrics makes the families and the children of the known labels.
func NewMetrics(known Known) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	m.eventsRead = m.counters("events_read_total",
		"Events read from Kafka. The series of a partition ends when the partition goes to another member.", "topic", "partition")
	m.eventBytes = m.counters("events_read_bytes_total",
		"Bytes of the keys, values and headers of the events read from Kafka, uncompressed.", "topic", "partition")
	m.rowsDelivered = m.counters("rows_delivered_total",
		"Rows acknowledged by the sink as durable. A row that is written again after a restart counts again.", "topic", "partition")
	m.rowBytes = m.counters("rows_delivered_bytes_total",
		"Bytes of the encoded rows acknowledged by the sink.", "topic", "partition")
	m.partitions = newSeries(0, topicPartition{}, func(k topicPartition) partitionSeries {
		topic, id := valid(k.topic), strconv.Itoa(int(k.partition))
		return partitionSeries{
			events:     m.eventsRead.WithLabelValues(topic, id),
			eventBytes: m.eventBytes.WithLabelValues(topic, id),
			rows:       m.rowsDelivered.WithLabelValues(topic, id),
			rowBytes:   m.rowBytes.WithLabelValues(topic, id),
		}
	})

	lost := m.counters("lost_offsets_total",
		"Offsets that Kafka removed before the group had passed them: by retention, by a deletion of records, or because a log was cut.", "topic", "partition")
	skipped := m.counters("skipped_offsets_total",
		"Offsets that hold no event: transaction markers, events of aborted transactions, and what compaction removed.", "topic", "partition")
	m.offsets = newSeries(0, topicPartition{}, func(k topicPartition) offsetSeries {
		topic, id := valid(k.topic), strconv.Itoa(int(k.partition))
		return offsetSeries{lost.WithLabelValues(topic, id), skipped.WithLabelValues(topic, id)}
	})

	m.rejected = byTopicAnd(m.counters("events_rejected_total",
		"Events that can never be a row, by the code of the rule they break.", "topic", "code"))
	m.filtered = byTopicAnd(m.counters("events_filtered_total",
		"Events dropped by rule and committed past, by reason.", "topic", "reason"))
	m.dead = byWord(m.counters("dead_letters_total",
		"Rejected events acknowledged by the dead-letter topic; topic is the one they came from.", "topic"))
	m.halved = byWord(m.counters("batch_halvings_total",
		"Times a batch was cut in two because the sink refused a row in it.", "topic"))

	m.batchRows = m.histogram("batch_rows", "Rows in an acknowledged batch.",
		[]float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000})
	m.batchBytes = m.histogram("batch_bytes", "Bytes of the encoded rows in an acknowledged batch.",
		prometheus.ExponentialBuckets(1<<10, 4, 8)) // 1 KiB to 16 MiB
	m.ackLatency = m.histogram("ack_latency_seconds",
		"Seconds from the start of a batch's write until the sink has acknowledged it, retries included.", latencyBuckets)

	m.requests = byWord(m.counters("sink_requests_total", "Requests to the sink, by outcome.", "outcome"))
	m.requestDuration = m.histogram("sink_request_duration_seconds",
		"Seconds one request to the sink took until the last byte of its answer, waiting for a token included.", latencyBuckets)
	m.retries = byWord(m.counters("sink_retries_total", "Requests to the sink that were repeated, by reason.", "reason"))

	m.streamsOpened = prometheus.NewCounter(prometheus.CounterOpts{
		Name: prefix + "sink_streams_opened_total", Help: "Streams to the sink that it has confirmed; 0 where the wire has no streams."})
	m.registry.MustRegister(m.streamsOpened)
	m.ended = byWord(m.counters("sink_streams_ended_total", "Streams to the sink that ended after they were confirmed, by reason.", "reason"))

	mints := m.counters("token_mints_total", "Attempts to mint an access token, by result.", "result")
	m.mintsOK, m.mintsFailed = mints.WithLabelValues("ok"), mints.WithLabelValues("error")

	commits := m.counters("commits_total", "Offset commits, by result.", "result")
	m.commitsOK, m.commitsFailed = commits.WithLabelValues("ok"), commits.WithLabelValues("error")
	m.lastCommit = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prefix + "last_commit_timestamp_seconds",
		Help: "Unix time in seconds of the last successful offset commit; 0 before the first.",
	})
	m.registry.MustRegister(m.lastCommit)

	m.rebalances = byWord(m.counters("rebalances_total",
		"Times the group gave partitions to this member or took them, by kind.", "kind"))
	m.moved = byWord(m.counters("rebalanced_partitions_total",
		"Partitions the group gave to this member or took from it, by kind.", "kind"))

	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: prefix + "log_lines_dropped_total",
		Help: "Lines of the log that were dropped because standard error was not read in time, or could not be written."}, m.logLinesDropped))
	m.reload = newReloadSeries(m)
	m.announce(known)
	return m
}

// announce makes the children of labels that are known beforehand.
func (m *Metrics) announce(known Known) {
	for _, topic := range known.Topics {
		for _, code := range known.RejectCodes {
			m.rejected.get(topicWord{topic, code})
		}
		for _, reason := range known.FilterReasons {
			m.filtered.get(topicWord{topic, reason})
		}
		m.dead.get(topic)
		m.halved.get(topic)
	}
	for _, outcome := range known.Outcomes {
		m.requests.get(outcome)
	}
	for _, reason := range known.RetryReasons {
		m.retries.get(reason)
	}
	for _, why := range known.StreamEnds {
		m.ended.get(why)
	}
	for _, kind := range []string{RebalanceAssigned, RebalanceRevoked, RebalanceLost} {
		m.rebalances.get(kind)
		m.moved.get(kind)
	}
}

const prefix = "bridge_"

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// histogram makes a histogram with fixed buckets for the text format and, for
// scrapers that ask for protobuf, a native one: at most 160 sparse buckets
// whose bounds grow by 10 %.
func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: prefix + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
	})
	m.registry.MustRegister(h)
	return h
}

func byWord(v *prometheus.CounterVec) *series[string, prometheus.Counter] {
	return newSeries(maxSeries, other, func(k string) prometheus.Counter { return v.WithLabelValues(valid(k)) })
}

// valid keeps a stray byte in a label from stopping the bridge: client_golang
// panics on label values that are not UTF-8.
func valid(label string) string { return strings.ToValidUTF8(label, "?") }

func byTopicAnd(v *prometheus.CounterVec) *series[topicWord, prometheus.Counter] {
	return newSeries(maxSeries, topicWord{other, other}, func(k topicWord) prometheus.Counter {
		return v.WithLabelValues(valid(k.topic), valid(k.word))
	})
}
