package ops

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics is the registry of one process: its own metrics and those of each
// [Metrics.Integration]. It is safe for concurrent use.
type Metrics struct {
	registry    *prometheus.Registry
	byPartition bool

	reloadSuccess, reloadTime prometheus.Gauge
	reloadsOK, reloadsFailed  prometheus.Counter

	mu           sync.Mutex // guards integrations
	integrations map[string]*IntegrationMetrics
}

// NewMetrics returns a registry with the metrics of the process. Gauges, and counters
// that the status has, show what source returns; each scrape calls it once. Without
// byPartition the families with the label partition have a series for each topic.
func NewMetrics(version string, source Source, byPartition bool) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), byPartition: byPartition, integrations: make(map[string]*IntegrationMetrics)}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	reg := promauto.With(m.registry)
	reg.NewGaugeVec(prometheus.GaugeOpts{Name: "bridge_build_info", Help: "Always 1; the labels name the build."},
		[]string{"version", "revision", "goversion"}).WithLabelValues(valid(version), revision(), runtime.Version()).Set(1)
	m.registry.MustRegister(&gauges{source: source, byPartition: byPartition})

	reloads := reg.NewCounterVec(prometheus.CounterOpts{Name: "bridge_config_reloads_total",
		Help: "Attempts to load a changed configuration or blueprint, by result. Repeated attempts with the same error count once."}, []string{"result"})
	m.reloadsOK, m.reloadsFailed = reloads.WithLabelValues("ok"), reloads.WithLabelValues("error")
	m.reloadSuccess = reg.NewGauge(prometheus.GaugeOpts{Name: "bridge_config_last_reload_successful",
		Help: "1 if the configuration and the blueprint on disk are in force. 0 if they were refused and the previous ones stay in force; /status shows the error."})
	m.reloadTime = reg.NewGauge(prometheus.GaugeOpts{Name: "bridge_config_last_reload_success_timestamp_seconds",
		Help: "Unix time in seconds of the last successful load of the configuration, initially that of the start."})
	return m
}

// revision returns the version control revision of the build; "" if unknown.
func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// ConfigLoaded records the configuration of the start.
func (m *Metrics) ConfigLoaded(at time.Time) {
	m.reloadSuccess.Set(1)
	m.reloadTime.Set(unixSeconds(at))
}

// ConfigReloaded counts one attempt to load a changed configuration; err is nil
// if it is in force now.
func (m *Metrics) ConfigReloaded(at time.Time, err error) {
	if err != nil {
		m.reloadsFailed.Inc()
		m.reloadSuccess.Set(0)
		return
	}
	m.reloadsOK.Inc()
	m.ConfigLoaded(at)
}

func unixSeconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

// Known lists label values that are known before anything has happened. Their
// counters exist from the start with the value 0, so that a rate over them
// does not miss the first increment. Every list may be empty.
type Known struct {
	Topics        []string // topics named in the configuration
	RejectCodes   []string // codes of EventRejected
	FilterReasons []string // reasons of EventFiltered
	Outcomes      []string // outcomes of Request
	RetryReasons  []string // reasons of Retried
	StreamEnds    []string // reasons of StreamEnded
}

// Kinds of rebalance, the values of Rebalanced's kind.
const (
	RebalanceAssigned = "assigned"
	RebalanceRevoked  = "revoked"
	RebalanceLost     = "lost"
)

// IntegrationMetrics counts what one integration does; all its metrics have the
// label integration. Its methods implement the observers that consumer and
// zerobus declare. They are safe for concurrent use, do not block and do not
// allocate once a label value has been seen.
type IntegrationMetrics struct {
	registered  *registered
	byPartition bool

	eventsRead, eventBytes, rowsDelivered, rowBytes *prometheus.CounterVec // topic, partition

	partitions *series[topicPartition, partitionCounters]
	offsets    *series[topicPartition, offsetCounters]
	rejected   *series[topicLabel, prometheus.Counter] // topic, code
	filtered   *series[topicLabel, prometheus.Counter] // topic, reason
	dead       *series[string, prometheus.Counter]     // topic
	splits     *series[string, prometheus.Counter]     // topic
	requests   *series[string, prometheus.Counter]     // outcome
	retries    *series[string, prometheus.Counter]     // reason
	ended      *series[string, prometheus.Counter]     // reason
	rebalances *series[string, prometheus.Counter]     // kind
	reassigned *series[string, prometheus.Counter]     // kind

	batchRows, batchBytes, ackLatency, requestDuration prometheus.Histogram

	streamsOpened            prometheus.Counter
	commitsOK, commitsFailed prometheus.Counter
	lastCommit               prometheus.Gauge
	mintsOK, mintsFailed     prometheus.Counter

	recentAcks prometheus.Summary // not registered

	mu     sync.Mutex // guards totals
	totals Totals     // also of partitions whose counters were removed
}

type topicPartition struct {
	topic     string
	partition int32 // allPartitions: of the topic
}

// allPartitions stands for all partitions of a topic.
const allPartitions = -1

// key returns whose counters count what one partition does.
func (m *IntegrationMetrics) key(topic string, partition int32) topicPartition {
	if !m.byPartition {
		partition = allPartitions
	}
	return topicPartition{topic, partition}
}

// values returns the values of the labels topic and partition.
func (k topicPartition) values() []string {
	if k.partition == allPartitions {
		return []string{valid(k.topic)}
	}
	return []string{valid(k.topic), strconv.Itoa(int(k.partition))}
}

type topicLabel struct{ topic, value string }

// partitionCounters are the counters of one assigned partition.
type partitionCounters struct {
	events, eventBytes, rows, rowBytes prometheus.Counter
}

// offsetCounters count the offsets of one partition that brought no event. They
// remain after the partition is revoked, so that a loss stays visible.
type offsetCounters struct{ lost, skipped prometheus.Counter }

// latencyBuckets range from a sink in the same rack to one that is about to
// time out, in seconds.
var latencyBuckets = []float64{
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
}

// Integration returns the metrics of the integration with this name, which it
// registers on the first call. A later call with the same name returns the same
// counters.
func (m *Metrics) Integration(name string, known Known) *IntegrationMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.integrations[name]
	if i == nil {
		i = newIntegrationMetrics(&registered{Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"integration": valid(name)}, m.registry)}, m.byPartition)
		m.integrations[name] = i
	}
	i.create(known)
	return i
}

// Remove removes the metrics of an integration. What it still reports is not shown;
// added again, it starts at 0.
func (m *Metrics) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.integrations[name]
	if i == nil {
		return
	}
	delete(m.integrations, name)
	for _, c := range i.registered.all {
		i.registered.Unregister(c)
	}
}

// registered remembers what it registers.
type registered struct {
	prometheus.Registerer
	all []prometheus.Collector
}

// MustRegister implements prometheus.Registerer.
func (r *registered) MustRegister(all ...prometheus.Collector) {
	r.Registerer.MustRegister(all...)
	r.all = append(r.all, all...)
}

func newIntegrationMetrics(registered *registered, byPartition bool) *IntegrationMetrics {
	reg := promauto.With(registered)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return reg.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	byLabel := func(name, help, label string) *series[string, prometheus.Counter] {
		vec := counters(name, help, label)
		return newSeries(maxSeries, other, func(k string) prometheus.Counter { return vec.WithLabelValues(valid(k)) })
	}
	byTopicAnd := func(name, help, label string) *series[topicLabel, prometheus.Counter] {
		vec := counters(name, help, "topic", label)
		return newSeries(maxSeries, topicLabel{other, other}, func(k topicLabel) prometheus.Counter {
			return vec.WithLabelValues(valid(k.topic), valid(k.value))
		})
	}
	// A histogram has fixed buckets in the text format. For scrapers that ask for
	// protobuf it is a native one: at most 160 sparse buckets, each 10 % wider than
	// the one before.
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return reg.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160})
	}

	labels := []string{"topic", "partition"}
	if !byPartition {
		labels = labels[:1]
	}
	m := &IntegrationMetrics{
		registered: registered, byPartition: byPartition,
		eventsRead: counters("bridge_events_read_total",
			"Events read from Kafka. The series of a partition ends when the partition is revoked.", labels...),
		eventBytes: counters("bridge_events_read_bytes_total",
			"Uncompressed bytes of the keys, values and headers of the events read from Kafka.", labels...),
		rowsDelivered: counters("bridge_rows_delivered_total",
			"Rows acknowledged by the sink as durable. A row that is written again after a restart counts again.", labels...),
		rowBytes: counters("bridge_rows_delivered_bytes_total", "Bytes of the encoded rows acknowledged by the sink.", labels...),

		rejected:   byTopicAnd("bridge_events_rejected_total", "Events that can never become a row, by error code.", "code"),
		filtered:   byTopicAnd("bridge_events_filtered_total", "Events dropped by a filter rule, by reason; their offsets are committed.", "reason"),
		dead:       byLabel("bridge_dead_letters_total", "Dead letters acknowledged by the dead-letter topic, by source topic.", "topic"),
		splits:     byLabel("bridge_batch_splits_total", "Batches split in two because the sink refused a row in them.", "topic"),
		requests:   byLabel("bridge_sink_requests_total", "Requests to the sink, by outcome.", "outcome"),
		retries:    byLabel("bridge_sink_retries_total", "Requests to the sink that were repeated, by reason.", "reason"),
		ended:      byLabel("bridge_sink_streams_ended_total", "Streams to the sink that ended after they were confirmed, by reason.", "reason"),
		rebalances: byLabel("bridge_rebalances_total", "Rebalances in which this member gained or gave up partitions, by kind.", "kind"),
		reassigned: byLabel("bridge_rebalanced_partitions_total", "Partitions this member gained or gave up in rebalances, by kind.", "kind"),

		batchRows: histogram("bridge_batch_rows", "Rows in an acknowledged batch.",
			[]float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000}),
		batchBytes: histogram("bridge_batch_bytes", "Bytes of the encoded rows in an acknowledged batch.",
			prometheus.ExponentialBuckets(1<<10, 4, 8)), // 1 KiB to 16 MiB
		ackLatency: histogram("bridge_ack_latency_seconds",
			"Seconds from the start of a batch's write to its acknowledgement by the sink, retries included.", latencyBuckets),
		requestDuration: histogram("bridge_sink_request_duration_seconds",
			"Seconds from the start of one request to the sink to the last byte of its response, waiting for a token included.", latencyBuckets),

		streamsOpened: reg.NewCounter(prometheus.CounterOpts{Name: "bridge_sink_streams_opened_total",
			Help: "Streams that the sink has confirmed; 0 for transports without streams."}),
		lastCommit: reg.NewGauge(prometheus.GaugeOpts{Name: "bridge_last_commit_timestamp_seconds",
			Help: "Unix time in seconds of the last successful offset commit; 0 before the first."}),
	}
	m.recentAcks = prometheus.NewSummary(prometheus.SummaryOpts{MaxAge: 10 * time.Second, Objectives: map[float64]float64{0.5: 0.01, 0.99: 0.001}})
	m.partitions = newSeries(0, topicPartition{}, func(k topicPartition) partitionCounters {
		values := k.values()
		return partitionCounters{
			events:     m.eventsRead.WithLabelValues(values...),
			eventBytes: m.eventBytes.WithLabelValues(values...),
			rows:       m.rowsDelivered.WithLabelValues(values...),
			rowBytes:   m.rowBytes.WithLabelValues(values...),
		}
	})
	lost := counters("bridge_lost_offsets_total",
		"Offsets that Kafka removed before the group had passed them, by retention, deleted records or truncation.", labels...)
	skipped := counters("bridge_skipped_offsets_total",
		"Offsets without an event: transaction markers, events of aborted transactions, and offsets removed by compaction.", labels...)
	m.offsets = newSeries(0, topicPartition{}, func(k topicPartition) offsetCounters {
		values := k.values()
		return offsetCounters{lost.WithLabelValues(values...), skipped.WithLabelValues(values...)}
	})
	mints := counters("bridge_token_mints_total", "Requests for an access token, by result.", "result")
	m.mintsOK, m.mintsFailed = mints.WithLabelValues("ok"), mints.WithLabelValues("error")
	commits := counters("bridge_commits_total", "Offset commits, by result.", "result")
	m.commitsOK, m.commitsFailed = commits.WithLabelValues("ok"), commits.WithLabelValues("error")
	return m
}

// create makes the counters of label values that are known beforehand.
func (m *IntegrationMetrics) create(known Known) {
	for _, topic := range known.Topics {
		for _, code := range known.RejectCodes {
			m.rejected.get(topicLabel{topic, code})
		}
		for _, reason := range known.FilterReasons {
			m.filtered.get(topicLabel{topic, reason})
		}
		m.dead.get(topic)
		m.splits.get(topic)
	}
	kinds := []string{RebalanceAssigned, RebalanceRevoked, RebalanceLost}
	for _, f := range []struct {
		counters *series[string, prometheus.Counter]
		labels   []string
	}{
		{m.requests, known.Outcomes}, {m.retries, known.RetryReasons}, {m.ended, known.StreamEnds}, {m.rebalances, kinds}, {m.reassigned, kinds},
	} {
		for _, label := range f.labels {
			f.counters.get(label)
		}
	}
}

// valid replaces stray bytes: client_golang panics on label values that are not
// UTF-8.
func valid(label string) string { return strings.ToValidUTF8(label, "?") }

const (
	// maxSeries bounds each family whose label values other packages choose. They
	// come from closed sets; the bound holds even if a set grows with the input.
	maxSeries = 2000
	other     = "other" // the label value of what exceeds maxSeries
)

// series caches the children of one family by their labels: a look-up in a
// prometheus vector hashes the label values and may allocate, this does not.
// Safe for concurrent use.
type series[K comparable, V any] struct {
	create func(K) V
	limit  int // most entries kept; 0 is no limit
	other  K   // stands for every key past the limit

	mu sync.RWMutex // guards m
	m  map[K]V
}

func newSeries[K comparable, V any](limit int, other K, create func(K) V) *series[K, V] {
	return &series[K, V]{create: create, limit: limit, other: other, m: make(map[K]V)}
}

// get returns the child of k and creates it on first use.
func (s *series[K, V]) get(k K) V {
	s.mu.RLock()
	v, ok := s.m[k]
	s.mu.RUnlock()
	if ok {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.m[k]; ok {
		return v
	}
	if s.limit > 0 && len(s.m) >= s.limit {
		k = s.other
		if v, ok := s.m[k]; ok {
			return v
		}
	}
	v = s.create(k)
	s.m[k] = v
	return v
}

// remove deletes the child of k and calls unregister under the same lock, so that
// a concurrent get returns either the old child or a new one.
func (s *series[K, V]) remove(k K, unregister func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
	unregister()
}
