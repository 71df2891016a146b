package emulator

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// message takes one message of an open stream. A status ends the stream.
func (s *liveStream) message(b []byte) *status.Status {
	if limit := s.e.cfg.MaxRequestBytes; int64(len(b)) > limit {
		return s.e.oversize(int64(len(b)))
	}
	if err := s.req.parse(b); err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	number := s.e.stats.begin(EndpointStream)
	s.e.stats.received.Add(int64(len(b)))
	if s.req.payload == 0 {
		return nil // of a kind that is not known here
	}
	if st := s.judge(); st != nil {
		return st
	}
	if s.e.hook.Load() != nil || s.e.faults.any() {
		c := &call{
			endpoint: EndpointStream, number: number, path: s.table.name, streamID: s.id, offset: s.req.offset,
			split: true, records: s.rowsAsJSON(),
		}
		if h := s.e.fault(c); h != nil {
			s.e.stats.fault(h.Effect)
			return s.misbehave(h, b)
		}
	}
	return s.accept(b)
}

// judge checks all of a message but its records.
func (s *liveStream) judge() *status.Status {
	q := &s.req
	switch {
	case q.payload == fieldCreate:
		return status.New(codes.InvalidArgument, "create_stream was sent twice")
	case !q.hasOffset:
		return status.New(codes.InvalidArgument, "offset_id is missing")
	case q.offset != s.expect && !s.e.cfg.AnyOffsets:
		return status.New(codes.InvalidArgument, fmt.Sprintf("Non-incremental offset: expected %d, actual %d", s.expect, q.offset))
	case q.format == 0:
		return status.New(codes.InvalidArgument, "The message holds no record")
	case q.format != s.format:
		return status.New(codes.InvalidArgument, "The record's format is not the stream's record_type")
	}
	s.expect = q.offset + 1
	return nil
}

// accept keeps the records of a message and has them acknowledged. A flush
// does not come between the two.
func (s *liveStream) accept(b []byte) *status.Status {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if st := s.keep(b); st != nil {
		return st
	}
	s.stored(s.req.offset, len(s.req.records))
	return nil
}

// keep validates and stores the records: all or none.
func (s *liveStream) keep(b []byte) *status.Status {
	for {
		if st := s.compile(s.table.currentSchema()); st != nil {
			return st
		}
		a, st := s.read(b)
		if st != nil {
			return st
		}
		at := &batch{at: time.Now(), transport: TransportGRPC, streamID: s.id, offset: s.req.offset, proto: s.plan}
		switch err := s.table.keep(a, at); {
		case err == nil:
			s.e.stats.rows.Add(int64(len(a.rows)))
			s.e.streams.kept(s, len(a.rows))
			return nil
		case errors.Is(err, errAltered): // judge again by the new columns
		case errors.Is(err, errDropped):
			return tableNotFound(s.table.name).grpc()
		default:
			s.e.log.Error("rows refused", zap.Error(err))
			return status.New(codes.Internal, "The rows could not be stored; see the emulator's log")
		}
	}
}

// read holds the records against the columns.
func (s *liveStream) read(b []byte) (*accepted, *status.Status) {
	if s.format == recordJSON {
		return s.readJSON(b)
	}
	s.proto.reset()
	for _, record := range s.req.records {
		start := offsetIn(b, record)
		if problem := s.proto.row(s.plan, b, span{start, start + len(record)}); problem != "" {
			if s.proto.field != "" {
				problem = "field '" + s.proto.field + "': " + problem
			}
			return nil, recordStatus(problem)
		}
	}
	return s.proto.accepted(s.schema, s.plan, b), nil
}

func (s *liveStream) readJSON(b []byte) (*accepted, *status.Status) {
	r := &s.json
	r.reset(b, s.schema)
	for i, record := range s.req.records {
		start := offsetIn(b, record)
		r.b, r.pos = b[:start+len(record)], start // the reader must not see beyond the record
		r.stamp++
		var fault *rowFault
		if !r.row() {
			fault = r.blame(i)
		} else if r.space(); r.pos < len(r.b) {
			fault = &rowFault{problem: "trailing characters"}
		}
		if fault != nil {
			if r.problem != "" {
				fault.problem = r.problem
			}
			return nil, recordStatus(fault.jsonProblem(r.pos - start + 1))
		}
	}
	r.b = b
	return r.accepted(), nil
}

// offsetIn is where part stands in b, which it is a slice of.
func offsetIn(b, part []byte) int { return cap(b) - cap(part) }

// rowsAsJSON are a message's records for faults and hooks to look at; those
// that are no rows are empty.
func (s *liveStream) rowsAsJSON() [][]byte {
	if s.format == recordJSON {
		return s.req.records
	}
	if s.compile(s.table.currentSchema()) != nil {
		return nil
	}
	out := make([][]byte, len(s.req.records))
	for i, record := range s.req.records {
		out[i] = []byte("{}")
		var r protoReader
		if r.row(s.plan, record, span{0, len(record)}) == "" {
			out[i] = s.plan.appendJSON(nil, record)
		}
	}
	return out
}
