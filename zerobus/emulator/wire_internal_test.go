package emulator

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// FuzzRequest compares the parser with the generated code: both read the same
// from a message that the generated code writes.
func FuzzRequest(f *testing.F) {
	add := func(m *pb.EphemeralStreamRequest) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(&pb.EphemeralStreamRequest{})
	add(&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_CreateStream{CreateStream: &pb.CreateIngestStreamRequest{
		TableName: proto.String("a.b.c"), DescriptorProto: []byte{1, 2}, RecordType: pb.RecordType_JSON.Enum(),
	}}})
	add(&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecord{IngestRecord: &pb.IngestRecordRequest{
		OffsetId: proto.Int64(-1), Record: &pb.IngestRecordRequest_JsonRecord{JsonRecord: "{}"},
	}}})
	add(&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecordBatch{IngestRecordBatch: &pb.IngestRecordBatchRequest{
		OffsetId: proto.Int64(7), Batch: &pb.IngestRecordBatchRequest_ProtoEncodedBatch{ProtoEncodedBatch: &pb.ProtoEncodedRecordBatch{Records: [][]byte{{1}, {}, {2, 3}}}},
	}}})
	f.Add([]byte{0x0a, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		var q message
		err := q.parse(b)
		m := &pb.EphemeralStreamRequest{}
		if merr := proto.Unmarshal(b, m); merr != nil {
			return // a reader of some fields may accept more than protobuf
		}
		if err != nil {
			t.Fatalf("%x: got %v, and protobuf reads it", b, err)
		}
		if again, merr := proto.Marshal(m); merr != nil || !bytes.Equal(again, b) {
			return // of a oneof that occurs twice, protobuf merges and the parser takes the last
		}
		want := message{create: m.GetCreateStream(), ingest: m.Payload != nil && m.GetCreateStream() == nil}
		switch p := m.Payload.(type) {
		case *pb.EphemeralStreamRequest_IngestRecord:
			want.offset = p.IngestRecord.OffsetId
			switch v := p.IngestRecord.Record.(type) {
			case *pb.IngestRecordRequest_ProtoEncodedRecord:
				want.format, want.records = pb.RecordType_PROTO, [][]byte{v.ProtoEncodedRecord}
			case *pb.IngestRecordRequest_JsonRecord:
				want.format, want.records = pb.RecordType_JSON, [][]byte{[]byte(v.JsonRecord)}
			}
		case *pb.EphemeralStreamRequest_IngestRecordBatch:
			want.offset = p.IngestRecordBatch.OffsetId
			switch v := p.IngestRecordBatch.Batch.(type) {
			case *pb.IngestRecordBatchRequest_ProtoEncodedBatch:
				want.format, want.records = pb.RecordType_PROTO, v.ProtoEncodedBatch.GetRecords()
			case *pb.IngestRecordBatchRequest_JsonBatch:
				want.format = pb.RecordType_JSON
				for _, s := range v.JsonBatch.GetRecords() {
					want.records = append(want.records, []byte(s))
				}
			}
		}
		sameOffset := (q.offset == nil) == (want.offset == nil) && (q.offset == nil || *q.offset == *want.offset)
		if !proto.Equal(q.create, want.create) || q.ingest != want.ingest || !sameOffset || q.format != want.format ||
			!slices.EqualFunc(q.records, want.records, bytes.Equal) {
			t.Fatalf("%x: got %+v, want %+v", b, q, want)
		}
	})
}

// FuzzDescriptor: whatever a client sends for a descriptor, it is compiled or
// refused, and what is compiled reads any bytes without harm.
func FuzzDescriptor(f *testing.F) {
	c := catalog{cfg: &Config{}, journal: &journal{}, tables: map[string]*Table{}}
	if _, err := c.CreateTable("CREATE TABLE a.b.c (message_id STRING, n INT, m MAP<STRING,DECIMAL(3,1)>, st STRUCT<x: INT>, l ARRAY<STRUCT<x: INT>>)"); err != nil {
		f.Fatal(err)
	}
	s := c.Table("a.b.c").currentSchema()
	text, number := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT32
	d, err := proto.Marshal(&descriptorpb.DescriptorProto{Name: proto.String("R"), Field: []*descriptorpb.FieldDescriptorProto{
		{Name: proto.String("message_id"), Number: proto.Int32(1), Type: &text}, {Name: proto.String("n"), Number: proto.Int32(2), Type: &number},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d, protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x"))
	f.Add([]byte{}, []byte{})
	message, many := descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	for _, scope := range []string{".R.", ".p.q.R.", ".R.R.", "R.", "", ".other."} {
		nested, err := proto.Marshal(&descriptorpb.DescriptorProto{
			Name: proto.String("R"),
			Field: []*descriptorpb.FieldDescriptorProto{
				{Name: proto.String("m"), Number: proto.Int32(3), Type: &message, Label: &many, TypeName: proto.String(scope + "MEntry")},
				{Name: proto.String("st"), Number: proto.Int32(4), Type: &message, TypeName: proto.String(scope + "St"), Proto3Optional: proto.Bool(true), OneofIndex: proto.Int32(0)},
				{Name: proto.String("l"), Number: proto.Int32(5), Label: &many, TypeName: proto.String(scope + "St")},
			},
			NestedType: []*descriptorpb.DescriptorProto{
				{Name: proto.String("St"), Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("x"), Number: proto.Int32(1), Type: &number}}},
				{Name: proto.String("MEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}, Field: []*descriptorpb.FieldDescriptorProto{
					{Name: proto.String("key"), Number: proto.Int32(1), Type: &text}, {Name: proto.String("value"), Number: proto.Int32(2), Type: &text},
				}},
			},
			OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("_st")}},
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(nested, []byte("\x1a\x06\x0a\x01k\x12\x011\x22\x02\x08\x07"))
	}
	f.Fuzz(func(t *testing.T, descriptor, row []byte) {
		d, err := readDescriptor(descriptor)
		if err != nil {
			return
		}
		mode := []SchemaMode{SchemaByName, SchemaExact}[len(row)%2]
		m, fault := compileRow(d, s, mode)
		if fault != nil {
			if len(fault.problems) == 0 || len(fault.causes) == 0 {
				t.Fatalf("%x: refused with %+v", descriptor, fault)
			}
			return
		}
		var r protoReader
		if r.row(m, row) != "" {
			return
		}
		out := m.appendJSON(nil, row)
		check := newReader(append(append([]byte{'['}, out...), ']'))
		defer check.release()
		check.begin(s)
		if f := check.records(); f != nil {
			t.Fatalf("%x by %x: its JSON %s is no row: %v", row, descriptor, out, f)
		}
	})
}
