package emulator

import "time"

// ackQueue decides when a stream's messages are acknowledged. It is guarded by
// its stream.
type ackQueue struct {
	interval time.Duration // at most one ack in this time
	every    int           // or as soon as so many messages wait; 0: by the interval only
	latency  func() time.Duration

	marks    []ackMark // in order of offset and of due
	waiting  int       // messages not yet acknowledged
	last     time.Time // when the last ack was sent
	held     time.Time // no ack before; the zero time holds none back
	draw     time.Duration
	redrawAt time.Time
}

// ackMark says that messages up to offset may be acknowledged from due on.
type ackMark struct {
	offset   int64
	due      time.Time
	messages int
	rows     int64
}

// forever is a moment that does not come.
const forever = 100 * 365 * 24 * time.Hour

// ackGrain is how far messages' due times may lie apart to share a mark. It
// bounds the marks by the latency, however many messages there are.
const ackGrain = time.Millisecond

// add notes a message whose rows have been kept. A latency that was drawn
// holds for all messages until the one it was drawn for falls due: acks are
// cumulative, and a draw for each message would hold all up by the slowest of
// them, far above the distribution asked for.
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

// next is when an ack should be sent; ok is false when none is wanted.
func (q *ackQueue) next() (at time.Time, ok bool) {
	if len(q.marks) == 0 {
		return time.Time{}, false
	}
	at = q.marks[0].due
	if q.every == 0 || q.waiting < q.every {
		if from := q.last.Add(q.interval); from.After(at) {
			at = from
		}
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
	return q.cut(n)
}

// drain returns all that waits.
func (q *ackQueue) drain() (offset, rows int64, ok bool) { return q.cut(len(q.marks)) }

// cut takes the first n marks off.
func (q *ackQueue) cut(n int) (offset, rows int64, ok bool) {
	for _, m := range q.marks[:n] {
		offset = m.offset
		rows += m.rows
		q.waiting -= m.messages
	}
	q.marks = append(q.marks[:0], q.marks[n:]...)
	return offset, rows, n > 0
}

// hold keeps all acks back for d.
func (q *ackQueue) hold(now time.Time, d time.Duration) {
	if until := now.Add(d); until.After(q.held) {
		q.held = until
	}
}
