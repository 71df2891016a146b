package emulator

import (
	"time"
)

// ackQueue decides when a stream's messages are acknowledged. Its stream
// guards it.
type ackQueue struct {
	interval time.Duration // at most one ack in this time
	every    int           // or as soon as so many messages wait; 0: by the interval only
	latency  func() time.Duration

	marks    []ackMark // in order of offset and of due
	waiting  int       // messages not yet acknowledged
	last     time.Time // when the last ack was sent
	held     time.Time // no ack before this time
	draw     time.Duration
	redrawAt time.Time
}

// ackMark allows to acknowledge messages up to offset from due on.
type ackMark struct {
	offset   int64
	due      time.Time
	messages int
	rows     int64
}

// forever is a time that does not pass.
const forever = 100 * 365 * 24 * time.Hour

// ackGrain is how far the due times of messages in one mark may differ. It
// bounds the number of marks by the latency, whatever the number of messages.
const ackGrain = time.Millisecond

// add queues a stored message. One drawn latency holds for all messages until
// the first of them is due: acks are cumulative, so with one draw per message
// all would wait for the slowest, far above the configured distribution.
func (q *ackQueue) add(offset int64, rows int, now time.Time) {
	if !now.Before(q.redrawAt) {
		q.draw = q.latency()
		q.redrawAt = now.Add(q.draw)
	}
	due := now.Add(q.draw)
	q.waiting++
	if n := len(q.marks); n > 0 {
		last := &q.marks[n-1]
		if due.Before(last.due) {
			due = last.due
		}
		if due.Sub(last.due) < ackGrain {
			last.offset = offset
			last.messages++
			last.rows += int64(rows)
			return
		}
	}
	q.marks = append(q.marks, ackMark{offset, due, 1, int64(rows)})
}

// next is when to send an ack; ok is false if no message waits.
func (q *ackQueue) next() (at time.Time, ok bool) {
	if len(q.marks) == 0 {
		return time.Time{}, false
	}
	at = q.marks[0].due
	if from := q.last.Add(q.interval); from.After(at) && (q.every == 0 || q.waiting < q.every) {
		at = from
	}
	if q.held.After(at) {
		at = q.held
	}
	return at, true
}

// take returns the offset to acknowledge now and how many rows that covers.
func (q *ackQueue) take(now time.Time) (offset, rows int64, ok bool) {
	if at, wanted := q.next(); !wanted || at.After(now) {
		return 0, 0, false
	}
	n := 0
	for n < len(q.marks) && !q.marks[n].due.After(now) {
		n++
	}
	q.last = now
	return q.remove(n)
}

// drain returns all that waits.
func (q *ackQueue) drain() (offset, rows int64, ok bool) { return q.remove(len(q.marks)) }

// remove takes the first n marks off.
func (q *ackQueue) remove(n int) (offset, rows int64, ok bool) {
	for _, m := range q.marks[:n] {
		offset = m.offset
		rows += m.rows
		q.waiting -= m.messages
	}
	q.marks = append(q.marks[:0], q.marks[n:]...)
	return offset, rows, n > 0
}

// hold delays all acks by d.
func (q *ackQueue) hold(now time.Time, d time.Duration) {
	if until := now.Add(d); until.After(q.held) {
		q.held = until
	}
}
