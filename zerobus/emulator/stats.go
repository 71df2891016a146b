package emulator

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// Stats are figures since New or the last Reset.
type Stats struct {
	Requests  map[string]int64            `json:"requests"`  // by endpoint; of stream: messages
	Responses map[string]map[string]int64 `json:"responses"` // by endpoint and status; of create and stream: by how they ended
	Rejects   map[string]int64            `json:"rejects"`   // requests to write refused and streams ended, by error code
	Faults    map[string]int64            `json:"faults"`    // faults applied, by effect
	Tokens    int64                       `json:"tokens_minted"`
	Rows      int64                       `json:"rows"`           // rows kept, over all tables
	Bytes     int64                       `json:"bytes_received"` // request bodies, unpacked
	InFlight  int                         `json:"in_flight"`      // requests being served, the one that asks included

	Connections   int64 `json:"connections"` // gRPC connections accepted
	StreamsOpen   int   `json:"streams_open"`
	StreamsOpened int64 `json:"streams_opened"`
	StreamRows    int64 `json:"stream_rows"`  // rows kept that came by gRPC
	Acks          int64 `json:"acks"`         // sent on gRPC streams
	UnackedRows   int64 `json:"unacked_rows"` // kept on streams that ended before the ack was sent: a client sends them again, and those whose ack a cut connection swallowed
}

type stats struct {
	received, rows, minted atomic.Int64

	mu        sync.Mutex
	begun     map[string]int64
	responses map[string]map[string]int64
	rejects   map[string]int64
	faults    map[string]int64
}

func bump[K comparable](m *map[K]int64, key K) {
	if *m == nil {
		*m = map[K]int64{}
	}
	(*m)[key]++
}

// begin counts a request and returns its number, from 1.
func (s *stats) begin(endpoint string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	bump(&s.begun, endpoint)
	return s.begun[endpoint]
}

func (s *stats) answered(endpoint string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.responses == nil {
		s.responses = map[string]map[string]int64{}
	}
	m := s.responses[endpoint]
	bump(&m, strconv.Itoa(a.status))
	s.responses[endpoint] = m
	if bringsRows(endpoint) && a.code != "" {
		bump(&s.rejects, a.code)
	}
}

// ended counts the end of a gRPC stream, or of the attempt to open one.
func (s *stats) ended(endpoint string, code codes.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.responses == nil {
		s.responses = map[string]map[string]int64{}
	}
	m := s.responses[endpoint]
	bump(&m, codeName(code))
	s.responses[endpoint] = m
	if code != codes.OK {
		bump(&s.rejects, codeName(code))
	}
}

func (s *stats) fault(effect string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bump(&s.faults, effect)
}

func (s *stats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.responses, s.rejects, s.faults = nil, nil, nil, nil
	s.received.Store(0)
	s.rows.Store(0)
	s.minted.Store(0)
}

// Stats returns the figures as they are now.
func (e *Emulator) Stats() Stats {
	s, x := &e.stats, &e.streams
	x.mu.Lock()
	defer x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{
		Requests: map[string]int64{}, Responses: map[string]map[string]int64{}, Rejects: map[string]int64{}, Faults: map[string]int64{},
		Tokens: s.minted.Load(), Rows: s.rows.Load(), Bytes: s.received.Load(), InFlight: e.active.underWay(),
		Connections: x.conns, StreamsOpen: len(x.open), StreamsOpened: x.count, StreamRows: x.rows, Acks: x.acks, UnackedRows: x.unacked,
	}
	maps.Copy(out.Requests, s.begun)
	maps.Copy(out.Rejects, s.rejects)
	maps.Copy(out.Faults, s.faults)
	for endpoint, m := range s.responses {
		out.Responses[endpoint] = maps.Clone(m)
	}
	return out
}
