package emulator_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

func TestStreamsThatAreNotOpened(t *testing.T) {
	const other = "datafly.events.other"
	z := startZerobus(t, emulator.Config{DDL: emulator.DefaultDDL + "; CREATE TABLE " + other + " (id STRING)"})
	good, header := z.grant(stream), emulator.TableHeader
	unspecified, avro := jsonCreate(stream), jsonCreate(stream)
	unspecified.RecordType = pb.RecordType_RECORD_TYPE_UNSPECIFIED.Enum()
	avro.RecordType = pb.RecordType(4).Enum()
	for _, c := range []struct {
		name   string
		header []string
		create *pb.CreateIngestStreamRequest
		code   codes.Code
		text   string
	}{
		{"no token", []string{header, stream}, jsonCreate(stream), codes.Unauthenticated, "Missing bearer token"},
		{"no bearer token", []string{header, stream, "authorization", "Basic eDp5"}, jsonCreate(stream), codes.Unauthenticated, "Missing bearer token"},
		{"unknown token", []string{header, stream, "authorization", "Bearer x"}, jsonCreate(stream), codes.Unauthenticated, "Invalid token"},
		{"workspace token", []string{header, stream, "authorization", z.bearer()}, jsonCreate(stream), codes.Unauthenticated, "Invalid token audience"},
		{"token of another table", []string{header, other, "authorization", good}, jsonCreate(other), codes.PermissionDenied, "Authorization token is missing MODIFY privilege for a table " + other + ". Error Code: 3, Error State: 0."},
		{"no table in the metadata", []string{"authorization", good}, jsonCreate(stream), codes.InvalidArgument, header},
		{"two tables", []string{header, other, "authorization", good}, jsonCreate(stream), codes.InvalidArgument, "not the same"},
		{"unspecified record type", []string{header, stream, "authorization", good}, unspecified, codes.InvalidArgument, "RECORD_TYPE_UNSPECIFIED"},
		{"unknown record type", []string{header, stream, "authorization", good}, avro, codes.Unimplemented, "4"},
	} {
		wantStatus(t, c.name, z.dialStream(c.create.GetTableName(), c.header...).refused(c.create), c.code, c.text)
	}

	s := z.dialStream(stream)
	s.send(jsonBatch(0, `{}`))
	wantStatus(t, "no create_stream", s.end(), codes.InvalidArgument, "first message must be create_stream")
	s = z.dialStream(stream)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "nothing at all", s.end(), codes.InvalidArgument, "before create_stream")

	if err := z.Revoke(emulator.PrivilegeSelect, stream); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "grant taken back", z.dialStream(stream).refused(jsonCreate(stream)), codes.PermissionDenied, "missing SELECT privilege for a table "+stream)
	if err := z.Grant(emulator.PrivilegeSelect, stream); err != nil {
		t.Fatal(err)
	}
	if err := z.DropTable(stream); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "table gone", z.dialStream(stream).refused(jsonCreate(stream)), codes.NotFound, `Table "`+stream+`" cannot be found.`)
	if got := z.Stats(); got.Responses["create"]["NOT_FOUND"] != 1 || got.Rejects["UNAUTHENTICATED"] != 4 || got.StreamsOpened != 0 {
		t.Errorf("stats: got %+v", got)
	}
}

func TestAuthModes(t *testing.T) {
	for _, c := range []struct {
		mode           emulator.AuthMode
		none, anything codes.Code
	}{
		{emulator.AuthStrict, codes.Unauthenticated, codes.Unauthenticated},
		{emulator.AuthPresence, codes.Unauthenticated, codes.OK},
		{emulator.AuthOff, codes.OK, codes.OK},
	} {
		z := startZerobus(t, emulator.Config{Auth: c.mode})
		for want, header := range map[*codes.Code][]string{
			&c.none: {emulator.TableHeader, stream}, &c.anything: {emulator.TableHeader, stream, "authorization", "Bearer anything"},
		} {
			s := z.dialStream(stream, header...)
			s.send(createRequest(jsonCreate(stream)))
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
			code := codes.OK
			if r, err := s.Recv(); err != nil || r.GetCreateStreamResponse().GetStreamId() == "" {
				code = s.end().Code()
			}
			if code != *want {
				t.Errorf("mode %v, metadata %v: got %v, want %v", c.mode, header, code, *want)
			}
		}
	}
	if _, err := emulator.New(emulator.Config{Auth: "lax"}); err == nil || !strings.Contains(err.Error(), "strict, presence, off") {
		t.Errorf("New: got %v, want the modes named", err)
	}
}

func TestExpiredTokensOpenNoStream(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	good := z.grant(stream)
	s := z.openJSON()
	z.RevokeTokens()
	s.json(`{}`)
	s.ack(0) // an open stream is not asked again
	wantStatus(t, "revoked", z.dialStream(stream, "authorization", good, emulator.TableHeader, stream).refused(jsonCreate(stream)), codes.Unauthenticated, "Invalid token")
}

func TestMessagesThatEndTheStream(t *testing.T) {
	z := startZerobus(t, emulator.Config{MaxRequestBytes: 1 << 20})
	noOffset := jsonBatch(0, `{}`)
	noOffset.GetIngestRecordBatch().OffsetId = nil
	for name, c := range map[string]struct {
		message *pb.EphemeralStreamRequest
		code    codes.Code
		text    string
	}{
		"a gap":             {jsonBatch(3, `{}`), codes.InvalidArgument, "Non-incremental offset: expected 1, actual 3"},
		"an offset again":   {jsonBatch(0, `{}`), codes.InvalidArgument, "Non-incremental offset: expected 1, actual 0"},
		"no offset":         {noOffset, codes.InvalidArgument, "offset_id is missing"},
		"create again":      {createRequest(jsonCreate(stream)), codes.InvalidArgument, "create_stream was sent twice"},
		"other format":      {protoBatch(1, nil), codes.InvalidArgument, "not the stream's record_type"},
		"no record":         {&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecord{IngestRecord: &pb.IngestRecordRequest{OffsetId: proto.Int64(1)}}}, codes.InvalidArgument, "holds no record"},
		"too large":         {jsonBatch(1, `{"event_name":"`+strings.Repeat("x", 1<<20)+`"}`), codes.OutOfRange, "Error, decoded message length too large: found 1048607 bytes, the limit is: 1048576 bytes"},
		"not a column":      {jsonBatch(1, `{}`, `{"ip":"::1"}`), codes.InvalidArgument, "Record decoder/encoder error: unrecognized field name 'ip' at line 1 column 6. Error Code: 4044, Error State: 3."},
		"a text for a time": {jsonBatch(1, `{"event_timestamp":"2026-01-02T03:04:05Z"}`), codes.InvalidArgument, "Record decoder/encoder error: invalid digit found in string at line 1 column 42. Error Code: 4044, Error State: 3."},
		"another type":      {jsonBatch(1, `{"event_name":1}`), codes.InvalidArgument, "invalid type: field 'event_name' got a number, string wants a string at line 1 column"},
		"no JSON":           {jsonBatch(1, `{"event_name":`), codes.InvalidArgument, "unexpected end of JSON at line 1 column 15"},
		"two objects":       {jsonBatch(1, `{}{}`), codes.InvalidArgument, "trailing characters at line 1 column 3"},
		"an array":          {jsonBatch(1, `[]`), codes.InvalidArgument, "a row must be a JSON object"},
		"nothing":           {jsonBatch(1, ``), codes.InvalidArgument, "unexpected end of JSON"},
	} {
		s := z.openJSON()
		s.json(`{"event_name":"kept"}`)
		s.ack(0)
		s.send(c.message)
		wantStatus(t, name, s.end(), c.code, c.text)
	}
	if got := z.Table(stream).Distinct("event_name"); got != 1 {
		t.Errorf("names kept: got %d, want those of the first messages", got)
	}
	stats := z.Stats()
	if want := int64(z.Table(stream).Count()); stats.StreamRows != want || stats.Rows != want || stats.Acks < want || stats.Responses["stream"]["INVALID_ARGUMENT"] != 13 || stats.UnackedRows != 0 {
		t.Errorf("stats: got %+v, want %d rows", stats, want)
	}

	z = startZerobus(t, emulator.Config{AnyOffsets: true})
	s := z.openJSON()
	s.send(jsonBatch(7, `{}`))
	s.ack(7)
	s.send(jsonBatch(5, `{}`))
	s.send(&pb.EphemeralStreamRequest{}) // of a kind that is not known
	s.ack(5)
}

func TestMessagesThatAreTooLarge(t *testing.T) {
	for code, text := range map[codes.Code]string{
		codes.OK:                "Error, decoded message length too large: found %d bytes, the limit is: 1024 bytes", // OUT_OF_RANGE is the default
		codes.OutOfRange:        "Error, decoded message length too large: found %d bytes, the limit is: 1024 bytes",
		codes.ResourceExhausted: "grpc: received message larger than max (%d vs. 1024)",
		codes.InvalidArgument:   "Batch size exceeds maximum: %d bytes, the limit is 1024 bytes",
	} {
		z := startZerobus(t, emulator.Config{MaxRequestBytes: 1 << 10, OversizeCode: code})
		want := code
		if code == codes.OK {
			want = codes.OutOfRange
		}
		message := jsonBatch(0, strings.Repeat(" ", 1<<10))
		s := z.openJSON()
		s.send(message)
		wantStatus(t, "a message", s.end(), want, fmt.Sprintf(text, proto.Size(message)))
		// A descriptor can be as large, and a message larger than others' limits.
		create := jsonCreate(stream)
		create.DescriptorProto = make([]byte, 1<<10)
		wantStatus(t, "create_stream", z.dialStream(stream).refused(create), want, fmt.Sprintf(text, proto.Size(createRequest(create))))
		message = jsonBatch(0, strings.Repeat(" ", 64<<20))
		s = z.openJSON()
		s.send(message)
		wantStatus(t, "64 MiB", s.end(), want, fmt.Sprintf(text, proto.Size(message)))
		if got := z.Table(stream).Count(); got != 0 {
			t.Errorf("%s: got %d rows, want none", want, got)
		}
	}
	for _, want := range []codes.Code{codes.OutOfRange, codes.ResourceExhausted, codes.InvalidArgument} {
		name := map[codes.Code]string{codes.OutOfRange: "OUT_OF_RANGE", codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.InvalidArgument: "INVALID_ARGUMENT"}[want]
		if got, err := emulator.ParseOversizeCode(name); got != want || err != nil {
			t.Errorf("ParseOversizeCode(%s): got %v, %v", name, got, err)
		}
	}
	if _, err := emulator.New(emulator.Config{OversizeCode: codes.Aborted}); err == nil || !strings.Contains(err.Error(), "OUT_OF_RANGE, RESOURCE_EXHAUSTED, INVALID_ARGUMENT") {
		t.Errorf("New: got %v, want the code refused", err)
	}
}

func TestSingleRecordsAndEmptyBatches(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	s := z.openJSON()
	s.send(&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecord{IngestRecord: &pb.IngestRecordRequest{
		OffsetId: proto.Int64(0), Record: &pb.IngestRecordRequest_JsonRecord{JsonRecord: ` {"message_id":"a"} `},
	}}})
	s.send(jsonBatch(1))
	s.ack(1)
	if got := z.Table(stream).Count(); got != 1 {
		t.Errorf("rows: got %d, want 1", got)
	}
}

func TestHalfCloseWaitsForTheLatencyOfItsAcks(t *testing.T) {
	z := startZerobus(t, emulator.Config{Latency: emulator.Latency{P50: 50 * time.Millisecond}})
	s := z.openJSON()
	began := time.Now()
	s.json(`{}`)
	s.json(`{}`)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	s.ack(1)
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("acknowledged after %v, want 50ms", took)
	}
	wantStatus(t, "half-closed", s.end(), codes.OK, "")
}

func TestStreamMaxAge(t *testing.T) { synctest.Test(t, testStreamMaxAge) }

func testStreamMaxAge(t *testing.T) {
	z := startInMemory(t, emulator.Config{StreamMaxAge: 30 * time.Millisecond, CloseWindow: 40 * time.Millisecond})
	s := z.openJSON()
	s.json(`{}`)
	s.ack(0)
	r, err := s.Recv()
	if err != nil || r.GetCloseStreamSignal().GetDuration().AsDuration() != 40*time.Millisecond {
		t.Fatalf("got %v, %v, want a close signal of 40ms", r, err)
	}
	s.json(`{}`)
	s.ack(1) // still served
	wantStatus(t, "end of the window", s.end(), codes.Unavailable, "Stream timeout reached. Closing the stream (ID: "+s.id+"). Error Code: 6002, Error State: 0.")

	s = z.openJSON() // a client that obeys the signal
	if r, err := s.Recv(); err != nil || r.GetCloseStreamSignal() == nil {
		t.Fatalf("got %v, %v, want a close signal", r, err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "closed in time", s.end(), codes.OK, "")
	list := z.Streams()
	if len(list) != 2 || list[0].Code != "UNAVAILABLE" || list[0].Rows != 2 || list[0].AckedOffset != 1 || list[1].ID != s.id || list[1].Code != "OK" {
		t.Errorf("streams: got %+v", list)
	}
}

func TestManyStreamsKeepTheirOrder(t *testing.T) {
	const streams, batches = 8, 50
	z := startZerobus(t, emulator.Config{AckInterval: time.Millisecond, AckEvery: 7})
	var open []*rpc
	for range streams {
		open = append(open, z.openJSON())
	}
	var all sync.WaitGroup
	for i, s := range open {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range int64(batches) {
				if err := s.Send(jsonBatch(n, fmt.Sprintf(`{"message_id":"%d-%d"}`, i, n))); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
			if err := s.CloseSend(); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
	}
	for _, s := range open {
		s.ack(batches - 1)
		wantStatus(t, "end", s.end(), codes.OK, "")
	}
	all.Wait()
	for i, s := range open {
		rows := z.Table(stream).Stream(s.id)
		if len(rows) != batches {
			t.Fatalf("stream %d: got %d rows, want %d", i, len(rows), batches)
		}
		for n, row := range rows {
			if id, _ := row.Value("message_id"); row.Offset != int64(n) || id != fmt.Sprintf("%d-%d", i, n) {
				t.Fatalf("stream %d, row %d: got %+v, want them in order", i, n, row)
			}
		}
	}
	if got := z.Stats(); got.StreamsOpened != streams || got.StreamRows != streams*batches || got.UnackedRows != 0 {
		t.Errorf("stats: got %+v", got)
	}
	r := z.admin("GET", "tables/"+stream+"/rows?stream="+open[3].id+"&limit=2", "")
	if !strings.Contains(r.body, `"3-49"`) || strings.Count(r.body, "stream_id") != 2 {
		t.Errorf("rows of a stream by HTTP: got %s, want the two newest of stream 3", r.body)
	}
	if r := z.admin("GET", "streams", ""); strings.Count(r.body, `"acked_offset":49`) != streams {
		t.Errorf("streams by HTTP: got %s", r.body)
	}
}

func TestColumnChangesOnAnOpenStream(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	s, p := z.openJSON(), z.open(protoCreate(t, stream, pageDescriptor()))
	s.json(`{"event_name":"a"}`)
	s.ack(0)
	p.send(protoBatch(0, nil))
	p.ack(0)
	tab := z.Table(stream)
	if err := tab.AddColumn(emulator.Column{Name: "extra", Type: "INT"}); err != nil {
		t.Fatal(err)
	}
	s.json(`{"extra":1}`)
	s.ack(1)
	p.send(protoBatch(1, nil))
	p.ack(1)
	if err := tab.DropColumn("event_name"); err != nil {
		t.Fatal(err)
	}
	s.json(`{"event_name":"a"}`)
	wantStatus(t, "JSON for a column that is gone", s.end(), codes.InvalidArgument, "unrecognized field name 'event_name'")
	p.send(protoBatch(2, nil))
	wantStatus(t, "descriptor with a column that is gone", p.end(), codes.InvalidArgument, "field 'event_name' is not in the table")
	s = z.openJSON()
	if err := z.DropTable(stream); err != nil {
		t.Fatal(err)
	}
	s.json(`{}`)
	wantStatus(t, "table gone", s.end(), codes.NotFound, stream)
}

func TestCloseEndsStreamsAfterTheirAcks(t *testing.T) {
	z := startZerobus(t, emulator.Config{Latency: emulator.Latency{P50: time.Hour}})
	s := z.openJSON()
	s.json(`{}`)
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	if err := z.Table(stream).Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- z.Close(ctx) }()
	s.ack(0)
	wantStatus(t, "the emulator stops", s.end(), codes.Unavailable, "stopping")
	if err := <-done; err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestStreamKeepsBatchesAndAcknowledgesThem(t *testing.T) {
	for _, tls := range []bool{false, true} {
		z := startZerobus(t, emulator.Config{TLS: tls})
		s := z.openJSON()
		s.json(`{"message_id":"a","event_timestamp":1760000000000000}`, `{"message_id":"b"}`)
		s.json(`{"message_id":"c"}`)
		s.ack(1)
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, "half-closed", s.end(), codes.OK, "")
		rows := z.Table(stream).Rows(nil)
		if len(rows) != 3 {
			t.Fatalf("rows: got %d, want 3", len(rows))
		}
		for i, want := range []emulator.Row{
			{Seq: 1, Offset: 0, JSON: []byte(`{"message_id":"a","event_timestamp":1760000000000000}`)},
			{Seq: 2, Offset: 0, JSON: []byte(`{"message_id":"b"}`)}, {Seq: 3, Offset: 1, JSON: []byte(`{"message_id":"c"}`)},
		} {
			got := rows[i]
			if got.Seq != want.Seq || got.Offset != want.Offset || got.StreamID != s.id || got.Transport != emulator.TransportGRPC || string(got.JSON) != string(want.JSON) {
				t.Errorf("row %d: got %+v, want %+v of stream %s", i, got, want, s.id)
			}
		}
	}
}
