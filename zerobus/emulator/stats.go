package emulator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Stats are figures since New or the last Reset.
type Stats struct {
	Requests  map[string]int64            `json:"requests"`  // by endpoint; of stream: messages
	Responses map[string]map[string]int64 `json:"responses"` // by endpoint and status; of create and stream: by the status at their end
	Rejects   map[string]int64            `json:"rejects"`   // refused writes and ended streams, by error code
	Faults    map[string]int64            `json:"faults"`    // applied faults, by effect
	Tokens    int64                       `json:"tokens_minted"`
	Rows      int64                       `json:"rows"`           // rows stored, over all tables
	Bytes     int64                       `json:"bytes_received"` // request bodies, unpacked
	InFlight  int                         `json:"in_flight"`      // requests being served, the one that asks included

	Connections   int64 `json:"connections"` // accepted gRPC connections
	StreamsOpen   int   `json:"streams_open"`
	StreamsOpened int64 `json:"streams_opened"`
	StreamRows    int64 `json:"stream_rows"` // rows stored that came by gRPC
	Acks          int64 `json:"acks"`        // sent on gRPC streams
	// UnackedRows are rows stored on streams that ended before the ack was sent.
	// A client sends them again, and those whose ack was lost with a connection.
	UnackedRows int64 `json:"unacked_rows"`
}

// StreamInfo describes one gRPC stream.
type StreamInfo struct {
	ID          string    `json:"id"`
	Table       string    `json:"table"`
	Format      string    `json:"format"` // PROTO or JSON
	OpenedAt    time.Time `json:"opened_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"` // zero while it is open
	Messages    int64     `json:"messages"`          // whose rows have been stored
	Rows        int64     `json:"rows"`
	AckedOffset int64     `json:"acked_offset"`  // the highest acknowledged offset; -1 for none
	UnackedRows int64     `json:"unacked_rows"`  // stored rows without an ack
	Code        string    `json:"code,omitzero"` // status at the end, as in UNAVAILABLE
	Text        string    `json:"text,omitzero"`

	number int64
}

// maxEndedStreams bounds the ended streams that are listed.
const maxEndedStreams = 1000

// stats holds the figures and the list of streams.
type stats struct {
	mu sync.Mutex
	Stats
	open    map[*liveStream]struct{}
	ended   []StreamInfo
	opened  int64         // streams, for their order
	changed chan struct{} // closed when a stream ends; made by those who wait
}

func newStats() *stats {
	s := &stats{open: map[*liveStream]struct{}{}}
	s.reset()
	return s
}

func (s *stats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Stats = Stats{Requests: map[string]int64{}, Responses: map[string]map[string]int64{}, Rejects: map[string]int64{}, Faults: map[string]int64{}}
	s.ended = nil
}

// count changes the figures.
func (s *stats) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.Stats)
}

// begin counts a request and returns its number, from 1.
func (s *stats) begin(endpoint string) (number int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Requests[endpoint]++
	return s.Requests[endpoint]
}

// end counts the end of a request, of a gRPC stream, or of the attempt to open
// one. code is what Rejects counts, "" for none.
func (s *stats) end(endpoint, status, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Responses[endpoint] == nil {
		s.Responses[endpoint] = map[string]int64{}
	}
	s.Responses[endpoint][status]++
	if code != "" {
		s.Rejects[code]++
	}
}

// endStream is end for a gRPC stream.
func (s *stats) endStream(endpoint string, code codes.Code) {
	rejected := codeName(code)
	if code == codes.OK {
		rejected = ""
	}
	s.end(endpoint, codeName(code), rejected)
}

func (s *stats) streamOpened(l *liveStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[l] = struct{}{}
	s.opened++
	s.StreamsOpened++
	l.info = StreamInfo{ID: l.id, Table: l.table.name, Format: l.format.String(), OpenedAt: time.Now(), AckedOffset: -1, number: s.opened}
}

// sideEnded records that the receiving or the sending side of a stream has
// ended. The sending one knows the status.
func (s *stats) sideEnded(l *liveStream, st *status.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st != nil {
		l.info.EndedAt, l.info.Code, l.info.Text = time.Now(), codeName(st.Code()), st.Message()
	}
	if l.sidesEnded++; l.sidesEnded < 2 {
		return
	}
	delete(s.open, l)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	s.UnackedRows += l.info.UnackedRows
	if len(s.ended) == maxEndedStreams {
		s.ended = slices.Delete(s.ended, 0, 1)
	}
	s.ended = append(s.ended, l.info)
}

// Stats returns the current figures.
func (e *Emulator) Stats() Stats {
	e.stats.mu.Lock()
	defer e.stats.mu.Unlock()
	out := e.stats.Stats
	out.InFlight, out.StreamsOpen = e.active.active(), len(e.stats.open)
	out.Requests, out.Rejects, out.Faults = maps.Clone(out.Requests), maps.Clone(out.Rejects), maps.Clone(out.Faults)
	out.Responses = maps.Clone(out.Responses)
	for endpoint, m := range out.Responses {
		out.Responses[endpoint] = maps.Clone(m)
	}
	return out
}

// WaitStreams blocks until at most n gRPC streams are open, or ctx ends. The
// figures of ended streams are final then.
func (e *Emulator) WaitStreams(ctx context.Context, n int) error {
	s := e.stats
	for {
		s.mu.Lock()
		open := len(s.open)
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
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

// Streams lists the open gRPC streams and the last thousand that have ended,
// in the order they were opened.
func (e *Emulator) Streams() []StreamInfo {
	e.stats.mu.Lock()
	defer e.stats.mu.Unlock()
	out := append([]StreamInfo{}, e.stats.ended...)
	for l := range e.stats.open {
		out = append(out, l.info)
	}
	slices.SortFunc(out, func(a, b StreamInfo) int { return cmp.Compare(a.number, b.number) })
	return out
}
