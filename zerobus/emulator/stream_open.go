package emulator

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// tableOf is the table that a call's metadata names, or "".
func tableOf(ctx context.Context) string { return one(ctx, TableHeader) }

func one(ctx context.Context, key string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// open judges create_stream, which is in s.req. Nil means that the stream may
// begin.
func (s *liveStream) open() *status.Status {
	ctx := s.rpc.Context()
	if err := s.e.authorizeEndpoint(one(ctx, "authorization"), s.req.table); err != nil {
		return err.grpc()
	}
	header := tableOf(ctx)
	switch {
	case header == "" && s.e.cfg.Auth == AuthOff: // a client of its own making
	case header == "":
		return status.New(codes.InvalidArgument, "The metadata "+TableHeader+" is missing")
	case !strings.EqualFold(header, s.req.table):
		return status.New(codes.InvalidArgument, "The metadata "+TableHeader+" and table_name of create_stream are not the same")
	}
	switch s.req.recordType {
	case recordProto, recordJSON:
	case 0:
		return status.New(codes.InvalidArgument, "record_type must not be RECORD_TYPE_UNSPECIFIED")
	default:
		return status.New(codes.Unimplemented, fmt.Sprintf("Record type %d is not supported", s.req.recordType))
	}
	if strings.Count(s.req.table, ".") != 2 {
		return status.New(codes.InvalidArgument, "table_name must be catalog.schema.table")
	}
	s.table = s.e.Table(s.req.table)
	if s.table == nil {
		return tableNotFound(s.req.table).grpc()
	}
	if err := s.e.permitEndpoint(s.table); err != nil {
		return err.grpc()
	}
	s.id = uuid()
	s.format = int(s.req.recordType)
	if s.format == recordJSON {
		return nil // a descriptor is of no use, and no harm
	}
	if len(s.req.descriptor) == 0 {
		return status.New(codes.InvalidArgument, "descriptor_proto is required for the record type PROTO")
	}
	d, err := readDescriptor(s.req.descriptor)
	if err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	s.descriptor = d
	return s.compile(s.table.currentSchema())
}

// compile makes the stream ready for the table's columns as they are now.
func (s *liveStream) compile(columns *schema) *status.Status {
	if s.schema == columns {
		return nil
	}
	if s.format == recordProto {
		plan, fault := compileRow(s.descriptor, columns, s.e.cfg.Schema)
		if fault != nil {
			return fault.status()
		}
		s.plan = plan
	}
	s.schema = columns
	return nil
}

// uuid is a random UUID, version 4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
