package emulator

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// TestAckLatencyFollowsTheDistribution plays writers that each wait for their ack
// before they send again, in virtual time: however many share a stream, the
// quantiles are those of the configuration.
func TestAckLatencyFollowsTheDistribution(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l := Latency{P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}
	for _, writers := range []int{1, 8, 64} {
		q := ackQueue{interval: time.Millisecond, latency: func() time.Duration { return l.draw(random.NormFloat64) }}
		start := time.Unix(0, 0)
		var took []time.Duration
		sent := map[int64]time.Time{} // offset -> when
		var offset int64
		send := func(at time.Time) {
			sent[offset] = at
			q.add(offset, 1, at)
			offset++
		}
		for range writers {
			send(start)
		}
		for done := int64(0); len(took) < 20_000; {
			at, ok := q.next()
			if !ok {
				t.Fatal("no ack is due though messages wait")
			}
			upTo, rows, ok := q.take(at)
			if !ok || rows != upTo-done+1 {
				t.Fatalf("take: got offset %d, %d rows, %v, want those from %d", upTo, rows, ok, done)
			}
			for ; done <= upTo; done++ {
				took = append(took, at.Sub(sent[done]))
				delete(sent, done)
				send(at.Add(time.Duration(random.IntN(int(20 * time.Millisecond)))))
			}
		}
		slices.Sort(took)
		p50, p95 := took[len(took)/2], took[len(took)*95/100]
		if p50 < 120*time.Millisecond || p50 > 190*time.Millisecond || p95 < 400*time.Millisecond || p95 > 600*time.Millisecond {
			t.Errorf("%d writers: got p50 %v, p95 %v, want about %v", writers, p50, p95, l)
		}
	}
}

func TestAcksAreGatheredOverTheInterval(t *testing.T) {
	now := time.Unix(100, 0)
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	q := ackQueue{interval: 20 * time.Millisecond, every: 3, latency: func() time.Duration { return 0 }}
	q.add(0, 5, at(0))
	if offset, rows, ok := q.take(at(0)); !ok || offset != 0 || rows != 5 {
		t.Errorf("an idle stream's first: got %d, %d, %v, want it at once", offset, rows, ok)
	}
	q.add(1, 1, at(1))
	if next, ok := q.next(); !ok || !next.Equal(at(20)) {
		t.Errorf("next: got %v, want the interval's end", next)
	}
	if _, _, ok := q.take(at(19)); ok {
		t.Error("within the interval: got an ack")
	}
	q.add(2, 1, at(4))
	q.add(3, 1, at(8))
	if offset, rows, ok := q.take(at(8)); !ok || offset != 3 || rows != 3 {
		t.Errorf("three wait: got %d, %d, %v, want an ack of 3 before the interval is over", offset, rows, ok)
	}
	q.add(4, 1, at(30))
	q.hold(at(30), time.Second)
	if _, _, ok := q.take(at(1029)); ok {
		t.Error("held: got an ack")
	}
	if offset, _, ok := q.take(at(1030)); !ok || offset != 4 {
		t.Errorf("held no more: got %d, %v, want 4", offset, ok)
	}
	if _, ok := q.next(); ok {
		t.Error("nothing waits: got a next ack")
	}
	q.latency = func() time.Duration { return time.Second }
	for i := range int64(10_000) {
		q.add(5+i, 1, at(2000).Add(time.Duration(i)*time.Microsecond))
	}
	if got := len(q.marks); got > 12 {
		t.Errorf("marks of 10,000 messages in 10 ms: got %d, want them to share", got)
	}
	if offset, rows, ok := q.drain(); !ok || offset != 10_004 || rows != 10_000 {
		t.Errorf("drain: got %d, %d, %v", offset, rows, ok)
	}
}

func TestEndedStreamsAreBounded(t *testing.T) {
	s := newStats()
	for range maxEndedStreams + 1 {
		l := &liveStream{table: &Table{}}
		s.streamOpened(l)
		s.sideEnded(l, statusOK)
		s.sideEnded(l, nil)
	}
	if len(s.ended) != maxEndedStreams || s.ended[0].number != 2 || len(s.open) != 0 {
		t.Errorf("got %d streams from number %d on and %d open, want the last %d", len(s.ended), s.ended[0].number, len(s.open), maxEndedStreams)
	}
}

// TestKeepChecksTheCurrentColumns covers changes between reading a request and
// storing it, which no request can time from outside.
func TestKeepChecksTheCurrentColumns(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	tab := c.Table("datafly.events.stream")
	read := func() *rowReader {
		r := newReader([]byte(`[{"user_id":"u"}]`))
		r.begin(tab.currentSchema())
		if f := r.records(); f != nil {
			t.Fatal(f)
		}
		return r
	}
	r := read()
	if err := tab.DropColumn("user_id"); err != nil {
		t.Fatal(err)
	}
	if err := tab.keep(r.schema, r.rows, &batch{}); !errors.Is(err, errAltered) {
		t.Errorf("keep after DropColumn: got %v, want %v", err, errAltered)
	}
	if err := tab.AddColumn(Column{Name: "user_id", Type: "STRING"}); err != nil {
		t.Fatal(err)
	}
	r = read()
	if err := c.DropTable(tab.Name()); err != nil {
		t.Fatal(err)
	}
	if err := tab.keep(r.schema, r.rows, &batch{}); !errors.Is(err, errDropped) {
		t.Errorf("keep after drop: got %v, want %v", err, errDropped)
	}
	if got := tab.Count(); got != 0 {
		t.Errorf("rows: got %d, want none", got)
	}
}

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
	c, err := New(Config{DDL: "CREATE TABLE a.b.c (message_id STRING, n INT, m MAP<STRING,DECIMAL(3,1)>, st STRUCT<x: INT>, l ARRAY<STRUCT<x: INT>>)"})
	if err != nil {
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

// TestLargeResults bounds what is kept of results; through HTTP they would take minutes
// under the race detector.
func TestLargeResults(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	tab := e.Table("datafly.events.stream")
	keep := func(n int) {
		row := newRow{raw: []byte(`{"user_agent":"` + strings.Repeat("x", 1<<20) + `"}`)}
		for range n {
			if err := tab.keep(tab.currentSchema(), []newRow{row}, &batch{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(text string) *statement {
		command, refused := parseSQL(text, "datafly", "events", nil)
		if refused != nil {
			t.Fatal(refused.message)
		}
		s, _, refused := e.admit(AdminPrincipal, DefaultWarehouse)
		if refused != nil {
			t.Fatal(refused.message)
		}
		e.finish(s, command)
		return s
	}
	keep(24)
	first, ddl, second := run("SELECT * FROM stream"), run("CREATE CATALOG x"), run("SELECT * FROM stream")
	if first.state != stateSucceeded {
		t.Errorf("48 MiB of results: got %s, want both kept", first.state)
	}
	third := run("SELECT * FROM stream")
	if first.state != stateClosed || first.result != nil || ddl.state != stateSucceeded || second.state != stateSucceeded || len(third.result.rows) != 24 {
		t.Errorf("72 MiB of results: got %s, %s, %s, %s", first.state, ddl.state, second.state, third.state)
	}
	keep(2)
	if s := run("SELECT * FROM stream"); s.state != stateFailed || !strings.Contains(s.err.sqlText(), "Inline byte limit exceeded") {
		t.Errorf("26 MiB: got %s, want it refused", s.state)
	}
	if s := run("SELECT * FROM stream LIMIT 10"); s.state != stateSucceeded {
		t.Errorf("10 MiB: got %s", s.state)
	}
}
