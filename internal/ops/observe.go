package ops

import (
	"math"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// EventsRead counts events polled from one partition and the bytes of their
// keys, values and headers.
func (m *IntegrationMetrics) EventsRead(topic string, partition int32, events int, bytes int) {
	c := m.partitions.get(topicPartition{topic, partition})
	c.events.Add(float64(events))
	c.eventBytes.Add(float64(bytes))
	m.totals.eventsRead.Add(int64(events))
	m.totals.eventBytes.Add(int64(bytes))
}

// OffsetsPassed counts offsets of one partition that brought no event: lost ones,
// which Kafka had removed, and skipped ones, which hold none. With both 0 it
// creates the counters of a partition that has just been assigned.
func (m *IntegrationMetrics) OffsetsPassed(topic string, partition int32, lost, skipped int64) {
	c := m.offsets.get(topicPartition{topic, partition})
	c.lost.Add(float64(lost))
	c.skipped.Add(float64(skipped))
}

// RowsDelivered counts one acknowledged batch: its rows, their encoded bytes,
// and how long its write took.
func (m *IntegrationMetrics) RowsDelivered(topic string, partition int32, rows int, bytes int, ack time.Duration) {
	c := m.partitions.get(topicPartition{topic, partition})
	c.rows.Add(float64(rows))
	c.rowBytes.Add(float64(bytes))
	m.batchRows.Observe(float64(rows))
	m.batchBytes.Observe(float64(bytes))
	m.ackLatency.Observe(ack.Seconds())
	m.totals.rows.Add(int64(rows))
	m.totals.rowBytes.Add(int64(bytes))
	m.totals.batches.Add(1)
}

// EventRejected counts one event that can never become a row. code is from a
// closed set.
func (m *IntegrationMetrics) EventRejected(topic, code string) {
	m.rejected.get(topicLabel{topic, code}).Inc()
	m.totals.rejected.Add(1)
}

// EventFiltered counts n events dropped by a filter rule. reason is from a
// closed set.
func (m *IntegrationMetrics) EventFiltered(topic, reason string, n int) {
	m.filtered.get(topicLabel{topic, reason}).Add(float64(n))
	m.totals.filtered.Add(int64(n))
}

// DeadLettered counts n rejected events of topic whose dead letters are
// acknowledged.
func (m *IntegrationMetrics) DeadLettered(topic string, n int) {
	m.dead.get(topic).Add(float64(n))
	m.totals.dead.Add(int64(n))
}

// BatchSplit counts one refused batch that was split in two.
func (m *IntegrationMetrics) BatchSplit(topic string) {
	m.splits.get(topic).Inc()
	m.totals.splits.Add(1)
}

// Committed counts one offset commit; a nil err is a success. The text of err
// is not used.
func (m *IntegrationMetrics) Committed(err error) {
	if err != nil {
		m.commitsFailed.Inc()
		m.totals.commitErrors.Add(1)
		return
	}
	m.commitsOK.Inc()
	m.lastCommit.Set(unixSeconds(time.Now()))
	m.totals.commits.Add(1)
}

// Rebalanced counts one change of the assignment: kind is one of the Rebalance
// constants, partitions how many were assigned or taken away.
func (m *IntegrationMetrics) Rebalanced(kind string, partitions int) {
	m.rebalances.get(kind).Inc()
	m.moved.get(kind).Add(float64(partitions))
	m.totals.rebalances.Add(1)
}

// Request counts one request to the sink. outcome is from a closed set.
func (m *IntegrationMetrics) Request(outcome string, d time.Duration) {
	m.requests.get(outcome).Inc()
	m.requestDuration.Observe(d.Seconds())
	m.totals.requests.Add(1)
}

// Retried counts one request to the sink that is going to be repeated. reason
// is from a closed set.
func (m *IntegrationMetrics) Retried(reason string) {
	m.retries.get(reason).Inc()
	m.totals.retries.Add(1)
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
		m.totals.tokenErrors.Add(1)
		return
	}
	m.mintsOK.Inc()
	m.totals.tokens.Add(1)
}

// Forget removes the series of a partition that was revoked. Call it after the
// partition's last report: a later one creates the series again, from 0, which
// Prometheus takes for a counter reset. Totals keep the counts.
func (m *IntegrationMetrics) Forget(topic string, partition int32) {
	m.partitions.remove(topicPartition{topic, partition}, func() {
		topic, id := valid(topic), strconv.Itoa(int(partition))
		m.eventsRead.DeleteLabelValues(topic, id)
		m.eventBytes.DeleteLabelValues(topic, id)
		m.rowsDelivered.DeleteLabelValues(topic, id)
		m.rowBytes.DeleteLabelValues(topic, id)
	})
}

// Totals returns the counts since the integration was registered. Each is exact;
// they are read one after the other.
func (m *IntegrationMetrics) Totals() Totals {
	t := &m.totals
	return Totals{
		EventsRead:        t.eventsRead.Load(),
		EventBytesRead:    t.eventBytes.Load(),
		RowsDelivered:     t.rows.Load(),
		RowBytesDelivered: t.rowBytes.Load(),
		EventsRejected:    t.rejected.Load(),
		EventsFiltered:    t.filtered.Load(),
		DeadLetters:       t.dead.Load(),
		BatchesDelivered:  t.batches.Load(),
		BatchesHalved:     t.splits.Load(),
		SinkRequests:      t.requests.Load(),
		SinkRetries:       t.retries.Load(),
		Commits:           t.commits.Load(),
		CommitErrors:      t.commitErrors.Load(),
		TokensMinted:      t.tokens.Load(),
		TokenErrors:       t.tokenErrors.Load(),
		Rebalances:        t.rebalances.Load(),
	}
}

// AckTimes is the histogram of acknowledgement times since the start. Its counts
// only rise, so the difference of two is the histogram of the time between.
type AckTimes struct {
	bounds []float64 // seconds; upper bounds
	counts []uint64  // cumulative, one for each bound
	total  uint64
}

// AckTimes returns the present counts. It is cheap enough for once a second.
func (m *IntegrationMetrics) AckTimes() AckTimes {
	var d dto.Metric
	if err := m.ackLatency.Write(&d); err != nil {
		return AckTimes{}
	}
	h := d.GetHistogram()
	a := AckTimes{total: h.GetSampleCount()}
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		a.bounds = append(a.bounds, b.GetUpperBound())
		a.counts = append(a.counts, b.GetCumulativeCount())
	}
	return a
}

// Count returns how many writes were acknowledged since before.
func (a AckTimes) Count(before AckTimes) uint64 { return a.total - before.total }

// Quantile returns the time in seconds within which the share q, from 0 to 1,
// of the writes since before were acknowledged, interpolated within a bucket as
// Prometheus does; false when there were none.
func (a AckTimes) Quantile(q float64, before AckTimes) (seconds float64, ok bool) {
	n := a.Count(before)
	if n == 0 || len(a.counts) == 0 {
		return 0, false
	}
	rank, low, below := q*float64(n), 0.0, 0.0
	for i, bound := range a.bounds {
		upTo := float64(a.counts[i])
		if i < len(before.counts) {
			upTo -= float64(before.counts[i])
		}
		if upTo >= rank && upTo > below {
			return low + (bound-low)*(rank-below)/(upTo-below), true
		}
		low, below = bound, upTo
	}
	return low, true // beyond the last bound
}
