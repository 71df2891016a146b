package emulator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"
)

// StreamInfo is what is known of one gRPC stream.
type StreamInfo struct {
	ID          string    `json:"id"`
	Table       string    `json:"table"`
	Format      string    `json:"format"` // PROTO or JSON
	OpenedAt    time.Time `json:"opened_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"` // zero while it is open
	Messages    int64     `json:"messages"`          // whose rows have been kept
	Rows        int64     `json:"rows"`
	AckedOffset int64     `json:"acked_offset"`   // the highest offset acknowledged; -1 for none
	UnackedRows int64     `json:"unacked_rows"`   // rows kept that no ack was sent for
	Code        string    `json:"code,omitempty"` // how it ended, as in UNAVAILABLE
	Text        string    `json:"text,omitempty"`

	number int64
}

// endedStreams is how many streams are remembered after their end.
const endedStreams = 1000

// streams lists the gRPC streams. The figures of Stats about them change while
// mu is held.
type streams struct {
	stats *stats

	mu      sync.Mutex
	open    map[*liveStream]struct{}
	ended   []StreamInfo  // the last endedStreams
	count   int64         // opened, for their order
	changed chan struct{} // closed when a stream ends; made by who waits
}

func (x *streams) opened(s *liveStream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open[s] = struct{}{}
	x.count++
	x.stats.count(func(f *Stats) { f.StreamsOpened++ })
	format := "PROTO"
	if s.format == recordJSON {
		format = "JSON"
	}
	s.info = StreamInfo{ID: s.id, Table: s.table.name, Format: format, OpenedAt: time.Now(), AckedOffset: -1, number: x.count}
}

func (x *streams) kept(s *liveStream, rows int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.count(func(f *Stats) { f.StreamRows += int64(rows) })
	s.info.Messages++
	s.info.Rows += int64(rows)
	s.info.UnackedRows += int64(rows)
}

func (x *streams) acked(s *liveStream, offset, rows int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.count(func(f *Stats) { f.Acks++ })
	s.info.AckedOffset = offset
	s.info.UnackedRows -= rows
}

// left notes that one of a stream's two sides is done; the sending one knows
// the status.
func (x *streams) left(s *liveStream, st *status.Status) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if st != nil {
		s.info.EndedAt, s.info.Code, s.info.Text = time.Now(), codeName(st.Code()), st.Message()
	}
	if s.sides++; s.sides < 2 {
		return
	}
	delete(x.open, s)
	if x.changed != nil {
		close(x.changed)
		x.changed = nil
	}
	x.stats.count(func(f *Stats) { f.UnackedRows += s.info.UnackedRows })
	if len(x.ended) == endedStreams {
		x.ended = slices.Delete(x.ended, 0, 1)
	}
	x.ended = append(x.ended, s.info)
}

// WaitStreams blocks until no more than n gRPC streams are open, or ctx ends:
// what is said of streams that have ended is final then.
func (e *Emulator) WaitStreams(ctx context.Context, n int) error {
	x := &e.streams
	for {
		x.mu.Lock()
		open := len(x.open)
		if x.changed == nil {
			x.changed = make(chan struct{})
		}
		changed := x.changed
		x.mu.Unlock()
		if open <= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for streams to end, of which %d are open: %w", open, context.Cause(ctx))
		}
	}
}

// Streams lists the gRPC streams that are open and the last thousand that have
// ended, in the order they were opened.
func (e *Emulator) Streams() []StreamInfo {
	x := &e.streams
	x.mu.Lock()
	defer x.mu.Unlock()
	out := slices.Clone(x.ended)
	for s := range x.open {
		out = append(out, s.info)
	}
	slices.SortFunc(out, func(a, b StreamInfo) int { return cmp.Compare(a.number, b.number) })
	return out
}

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
