package ops

import (
	"strconv"
	"time"
)

// EventsRead counts events polled from one partition and the bytes of their
// keys, values and headers.
func (m *Metrics) EventsRead(topic string, partition int32, events int, bytes int) {
	s := m.partitions.get(topicPartition{topic, partition})
	s.events.Add(float64(events))
	s.eventBytes.Add(float64(bytes))
	m.totals.eventsRead.Add(int64(events))
	m.totals.eventBytes.Add(int64(bytes))
}

// OffsetsPassed counts offsets of one partition that brought no event: lost ones,
// which Kafka had removed, and skipped ones, which hold none. With both 0 it makes
// the counters of a partition that has just been assigned.
func (m *Metrics) OffsetsPassed(topic string, partition int32, lost, skipped int64) {
	s := m.offsets.get(topicPartition{topic, partition})
	s.lost.Add(float64(lost))
	s.skipped.Add(float64(skipped))
}

// RowsDelivered counts one acknowledged batch: its rows, their encoded bytes,
// and how long its write took.
func (m *Metrics) RowsDelivered(topic string, partition int32, rows int, bytes int, ack time.Duration) {
	s := m.partitions.get(topicPartition{topic, partition})
	s.rows.Add(float64(rows))
	s.rowBytes.Add(float64(bytes))
	m.batchRows.Observe(float64(rows))
	m.batchBytes.Observe(float64(bytes))
	m.ackLatency.Observe(ack.Seconds())
	m.totals.rows.Add(int64(rows))
	m.totals.rowBytes.Add(int64(bytes))
	m.totals.batches.Add(1)
}

// EventRejected counts one event that can never be a row. code is from a
// closed set.
func (m *Metrics) EventRejected(topic, code string) {
	m.rejected.get(topicWord{topic, code}).Inc()
	m.totals.rejected.Add(1)
}

// EventFiltered counts n events dropped by rule. reason is from a closed set.
func (m *Metrics) EventFiltered(topic, reason string, n int) {
	m.filtered.get(topicWord{topic, reason}).Add(float64(n))
	m.totals.filtered.Add(int64(n))
}

// DeadLettered counts n rejected events of topic whose dead-letter copies are
// acknowledged.
func (m *Metrics) DeadLettered(topic string, n int) {
	m.dead.get(topic).Add(float64(n))
	m.totals.dead.Add(int64(n))
}

// BatchSplit counts one refused batch that was cut in two.
func (m *Metrics) BatchSplit(topic string) {
	m.halved.get(topic).Inc()
	m.totals.halved.Add(1)
}

// Committed counts one offset commit; a nil err is a success. The text of err
// is not used.
func (m *Metrics) Committed(err error) {
	if err != nil {
		m.commitsFailed.Inc()
		m.totals.commitErrors.Add(1)
		return
	}
	m.commitsOK.Inc()
	m.lastCommit.Set(float64(time.Now().UnixMilli()) / 1e3)
	m.totals.commits.Add(1)
}

// Rebalanced counts one change of the assignment: kind is one of the Rebalance
// constants, partitions how many moved.
func (m *Metrics) Rebalanced(kind string, partitions int) {
	m.rebalances.get(kind).Inc()
	m.moved.get(kind).Add(float64(partitions))
	m.totals.rebalances.Add(1)
}

// Request counts one request to the sink. outcome is from a closed set.
func (m *Metrics) Request(outcome string, d time.Duration) {
	m.requests.get(outcome).Inc()
	m.requestDuration.Observe(d.Seconds())
	m.totals.requests.Add(1)
}

// Retried counts one request to the sink that is going to be repeated. reason
// is from a closed set.
func (m *Metrics) Retried(reason string) {
	m.retries.get(reason).Inc()
	m.totals.retries.Add(1)
}

// StreamOpened counts one stream that the sink has confirmed.
func (m *Metrics) StreamOpened() { m.streamsOpened.Inc() }

// StreamEnded counts the end of one. why is from a closed set.
func (m *Metrics) StreamEnded(why string) { m.ended.get(why).Inc() }

// TokenMinted counts one attempt to mint an access token; a nil err is a
// success. The text of err is not used.
func (m *Metrics) TokenMinted(err error) {
	if err != nil {
		m.mintsFailed.Inc()
		m.totals.tokenErrors.Add(1)
		return
	}
	m.mintsOK.Inc()
	m.totals.tokens.Add(1)
}

// Forget removes the series of a partition that is no longer this member's.
// Call it after the partition's last report: a later one brings the series
// back, from 0, which Prometheus takes for a counter reset. The counts of the
// partition stay in Totals.
func (m *Metrics) Forget(topic string, partition int32) {
	m.partitions.drop(topicPartition{topic, partition}, func() {
		topic, id := valid(topic), strconv.Itoa(int(partition))
		m.eventsRead.DeleteLabelValues(topic, id)
		m.eventBytes.DeleteLabelValues(topic, id)
		m.rowsDelivered.DeleteLabelValues(topic, id)
		m.rowBytes.DeleteLabelValues(topic, id)
	})
}

// Totals returns the counts since the process started. Each is exact; together
// they are not one moment's.
func (m *Metrics) Totals() Totals {
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
		BatchesHalved:     t.halved.Load(),
		SinkRequests:      t.requests.Load(),
		SinkRetries:       t.retries.Load(),
		Commits:           t.commits.Load(),
		CommitErrors:      t.commitErrors.Load(),
		TokensMinted:      t.tokens.Load(),
		TokenErrors:       t.tokenErrors.Load(),
		Rebalances:        t.rebalances.Load(),
	}
}
