package emulator

import (
	"fmt"
	"time"

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
			return s.misbehave(h)
		}
	}
	return s.accept()
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
func (s *liveStream) accept() *status.Status {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if st := s.keep(); st != nil {
		return st
	}
	s.stored(s.req.offset, len(s.req.records))
	return nil
}

// keep validates and stores the records: all or none.
func (s *liveStream) keep() *status.Status {
	for again := true; again; {
		if st := s.compile(s.table.currentSchema()); st != nil {
			return st
		}
		rows, st := s.read()
		if st != nil {
			return st
		}
		at := &batch{at: time.Now(), transport: TransportGRPC, streamID: s.id, offset: s.req.offset, proto: s.plan}
		var err *apiError
		if again, err = s.e.keep(s.table, s.schema, rows, at, tableNotFound); err != nil {
			return err.grpc()
		}
	}
	s.e.streams.kept(s, len(s.req.records))
	return nil
}

// read holds the records against the columns.
func (s *liveStream) read() ([]newRow, *status.Status) {
	if s.format == recordProto {
		s.proto.rows = s.proto.rows[:0]
		for _, record := range s.req.records {
			if problem := s.proto.row(s.plan, record); problem != "" {
				if s.proto.field != "" {
					problem = "field '" + s.proto.field + "': " + problem
				}
				return nil, recordStatus(problem)
			}
		}
		return s.proto.rows, nil
	}
	r := &s.json
	r.begin(s.schema)
	for _, record := range s.req.records {
		r.load(record, 0)
		fault := r.row()
		if at := r.trailing(); fault == nil && at >= 0 {
			fault = &rowFault{at: at, problem: "trailing characters"}
		}
		if fault != nil {
			return nil, recordStatus(fault.jsonProblem())
		}
	}
	return r.rows, nil
}

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
		if r.row(s.plan, record) == "" {
			out[i] = s.plan.appendJSON(nil, record)
		}
	}
	return out
}
