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

// streams keeps the books of the gRPC streams.
type streams struct {
	mu      sync.Mutex
	open    map[*liveStream]struct{}
	ended   []StreamInfo // the last of them, as a ring
	oldest  int
	count   int64 // opened since the last reset
	acks    int64
	rows    int64         // by streams
	unacked int64         // rows kept on streams that ended before their ack was sent
	conns   int64         // gRPC connections accepted
	changed chan struct{} // closed when a stream ends; made by who waits
}

func (x *streams) opened(s *liveStream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.open == nil {
		x.open = map[*liveStream]struct{}{}
	}
	x.open[s] = struct{}{}
	x.count++
	format := "PROTO"
	if s.format == recordJSON {
		format = "JSON"
	}
	s.info = StreamInfo{ID: s.id, Table: s.table.name, Format: format, OpenedAt: time.Now(), AckedOffset: -1, number: x.count}
}

func (x *streams) kept(s *liveStream, rows int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rows += int64(rows)
	s.info.Messages++
	s.info.Rows += int64(rows)
	s.info.UnackedRows += int64(rows)
}

func (x *streams) acked(s *liveStream, offset, rows int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.acks++
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
	x.unacked += s.info.UnackedRows
	if len(x.ended) < endedStreams {
		x.ended = append(x.ended, s.info)
		return
	}
	x.ended[x.oldest] = s.info
	x.oldest = (x.oldest + 1) % endedStreams
}

func (x *streams) reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended, x.oldest, x.count, x.acks, x.rows, x.unacked, x.conns = nil, 0, 0, 0, 0, 0, 0
}

// connected counts a gRPC connection.
func (x *streams) connected() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conns++
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
