package ops

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// EventsRead counts events polled from one partition and the bytes of their
// keys, values and headers.
func (m *IntegrationMetrics) EventsRead(topic string, partition int32, events int, bytes int) {
	c := m.partitions.get(m.key(topic, partition))
	c.events.Add(float64(events))
	c.eventBytes.Add(float64(bytes))
	m.count(func(t *Totals) {
		t.EventsRead += int64(events)
		t.EventBytesRead += int64(bytes)
	})
}

// OffsetsPassed counts offsets of one partition that brought no event: lost ones,
// which Kafka had removed, and skipped ones, which hold none. With both 0 it
// creates the counters of a partition that has just been assigned.
func (m *IntegrationMetrics) OffsetsPassed(topic string, partition int32, lost, skipped int64) {
	c := m.offsets.get(m.key(topic, partition))
	c.lost.Add(float64(lost))
	c.skipped.Add(float64(skipped))
}

// RowsDelivered counts one acknowledged batch: its rows, their encoded bytes,
// and how long its write took.
func (m *IntegrationMetrics) RowsDelivered(topic string, partition int32, rows int, bytes int, ack time.Duration) {
	c := m.partitions.get(m.key(topic, partition))
	c.rows.Add(float64(rows))
	c.rowBytes.Add(float64(bytes))
	m.batchRows.Observe(float64(rows))
	m.batchBytes.Observe(float64(bytes))
	m.ackLatency.Observe(ack.Seconds())
	m.recentAcks.Observe(ack.Seconds())
	m.count(func(t *Totals) {
		t.RowsDelivered += int64(rows)
		t.RowBytesDelivered += int64(bytes)
		t.BatchesDelivered++
	})
}

// EventRejected counts one event that can never become a row. code is from a
// closed set.
func (m *IntegrationMetrics) EventRejected(topic, code string) {
	m.rejected.get(topicLabel{topic, code}).Inc()
	m.count(func(t *Totals) { t.EventsRejected++ })
}

// EventFiltered counts n events dropped by a filter rule. reason is from a
// closed set.
func (m *IntegrationMetrics) EventFiltered(topic, reason string, n int) {
	m.filtered.get(topicLabel{topic, reason}).Add(float64(n))
	m.count(func(t *Totals) { t.EventsFiltered += int64(n) })
}

// DeadLettered counts n rejected events of topic whose dead letters are
// acknowledged.
func (m *IntegrationMetrics) DeadLettered(topic string, n int) {
	m.dead.get(topic).Add(float64(n))
	m.count(func(t *Totals) { t.DeadLetters += int64(n) })
}

// BatchSplit counts one refused batch that was split in two.
func (m *IntegrationMetrics) BatchSplit(topic string) {
	m.splits.get(topic).Inc()
	m.count(func(t *Totals) { t.BatchesSplit++ })
}

// Committed counts one offset commit; a nil err is a success. The text of err
// is not used.
func (m *IntegrationMetrics) Committed(err error) {
	if err != nil {
		m.commitsFailed.Inc()
		m.count(func(t *Totals) { t.CommitErrors++ })
		return
	}
	m.commitsOK.Inc()
	m.lastCommit.Set(unixSeconds(time.Now()))
	m.count(func(t *Totals) { t.Commits++ })
}

// Rebalanced counts one change of the assignment: kind is one of the Rebalance
// constants, partitions how many were assigned or taken away.
func (m *IntegrationMetrics) Rebalanced(kind string, partitions int) {
	m.rebalances.get(kind).Inc()
	m.reassigned.get(kind).Add(float64(partitions))
	m.count(func(t *Totals) { t.Rebalances++ })
}

// Request counts one request to the sink. outcome is from a closed set.
func (m *IntegrationMetrics) Request(outcome string, d time.Duration) {
	m.requests.get(outcome).Inc()
	m.requestDuration.Observe(d.Seconds())
	m.count(func(t *Totals) { t.SinkRequests++ })
}

// Retried counts one request to the sink that is going to be repeated. reason
// is from a closed set.
func (m *IntegrationMetrics) Retried(reason string) {
	m.retries.get(reason).Inc()
	m.count(func(t *Totals) { t.SinkRetries++ })
}

// StreamOpened counts one stream that the sink has confirmed.
func (m *IntegrationMetrics) StreamOpened() { m.streamsOpened.Inc() }

// StreamEnded counts the end of a confirmed stream. reason is from a closed set.
func (m *IntegrationMetrics) StreamEnded(reason string) { m.ended.get(reason).Inc() }

// TokenMinted counts one request for an access token; a nil err is a success.
// The text of err is not used.
func (m *IntegrationMetrics) TokenMinted(err error) {
	if err != nil {
		m.mintsFailed.Inc()
		m.count(func(t *Totals) { t.TokenErrors++ })
		return
	}
	m.mintsOK.Inc()
	m.count(func(t *Totals) { t.TokensMinted++ })
}

// Forget removes the series of a partition that was revoked. Call it after the
// partition's last report: a later one creates the series again, from 0, which
// Prometheus takes for a counter reset. Totals keep the counts.
func (m *IntegrationMetrics) Forget(topic string, partition int32) {
	if !m.byPartition {
		return // the counters of the topic stay
	}
	key := m.key(topic, partition)
	m.partitions.remove(key, func() {
		for _, family := range []*prometheus.CounterVec{m.eventsRead, m.eventBytes, m.rowsDelivered, m.rowBytes} {
			family.DeleteLabelValues(key.values()...)
		}
	})
}

// Totals returns the counts since the integration was registered.
func (m *IntegrationMetrics) Totals() Totals {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.totals
}

func (m *IntegrationMetrics) count(add func(*Totals)) {
	m.mu.Lock()
	add(&m.totals)
	m.mu.Unlock()
}

// RecentAcks returns p50 and p99, in seconds, of the acknowledgement times of the last
// ten seconds; ok is false if there were none.
func (m *IntegrationMetrics) RecentAcks() (p50, p99 float64, ok bool) {
	var d dto.Metric
	if err := m.recentAcks.Write(&d); err != nil {
		return 0, 0, false
	}
	q := d.GetSummary().GetQuantile() // sorted
	p50, p99 = q[0].GetValue(), q[1].GetValue()
	return p50, p99, !math.IsNaN(p50)
}
