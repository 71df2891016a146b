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

// FuzzRequest holds the parser against the generated code: of a message in the
// form that code writes, both read the same.
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
		var q request
		err := q.parse(b)
		m := &pb.EphemeralStreamRequest{}
		if merr := proto.Unmarshal(b, m); merr != nil {
			return // what protobuf refuses, a reader of some fields may pass over
		}
		if err != nil {
			t.Fatalf("%x: got %v, and protobuf reads it", b, err)
		}
		if again, merr := proto.Marshal(m); merr != nil || !bytes.Equal(again, b) {
			return // of a oneof that occurs twice, protobuf merges and the parser takes the last
		}
		want := request{recordType: q.recordType}
		switch p := m.Payload.(type) {
		case *pb.EphemeralStreamRequest_CreateStream:
			want = request{payload: fieldCreate, table: p.CreateStream.GetTableName(), descriptor: p.CreateStream.GetDescriptorProto(), recordType: recordProto}
			if p.CreateStream.RecordType != nil {
				want.recordType = uint64(p.CreateStream.GetRecordType())
			}
		case *pb.EphemeralStreamRequest_IngestRecord:
			r := p.IngestRecord
			want.payload, want.offset, want.hasOffset = fieldRecord, r.GetOffsetId(), r.OffsetId != nil
			switch v := r.Record.(type) {
			case *pb.IngestRecordRequest_ProtoEncodedRecord:
				want.format, want.records = recordProto, [][]byte{v.ProtoEncodedRecord}
			case *pb.IngestRecordRequest_JsonRecord:
				want.format, want.records = recordJSON, [][]byte{[]byte(v.JsonRecord)}
			}
		case *pb.EphemeralStreamRequest_IngestRecordBatch:
			r := p.IngestRecordBatch
			want.payload, want.offset, want.hasOffset = fieldBatch, r.GetOffsetId(), r.OffsetId != nil
			switch v := r.Batch.(type) {
			case *pb.IngestRecordBatchRequest_ProtoEncodedBatch:
				want.format, want.records = recordProto, v.ProtoEncodedBatch.GetRecords()
			case *pb.IngestRecordBatchRequest_JsonBatch:
				want.format = recordJSON
				for _, s := range v.JsonBatch.GetRecords() {
					want.records = append(want.records, []byte(s))
				}
			}
		}
		if q.payload != want.payload || q.table != want.table || !bytes.Equal(q.descriptor, want.descriptor) || q.recordType != want.recordType ||
			q.offset != want.offset || q.hasOffset != want.hasOffset || q.format != want.format || !slices.EqualFunc(q.records, want.records, bytes.Equal) {
			t.Fatalf("%x: got %+v, want %+v", b, q, want)
		}
	})
}

// FuzzDescriptor: whatever a client sends for a descriptor, it is compiled or
// refused, and what is compiled reads any bytes without harm.
func FuzzDescriptor(f *testing.F) {
	c := catalog{tables: map[string]*Table{}}
	if _, err := c.create("CREATE TABLE a.b.c (message_id STRING, n INT, m MAP<STRING,DECIMAL(3,1)>, st STRUCT<x: INT>, l ARRAY<STRUCT<x: INT>>)", 0, &journal{}); err != nil {
		f.Fatal(err)
	}
	s := c.table("a.b.c").currentSchema()
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
		mode := SchemaMode(len(row) % 2)
		m, fault := compileRow(d, s, mode)
		if fault != nil {
			if fault.text == "" || len(fault.causes) == 0 {
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
