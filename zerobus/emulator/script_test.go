package emulator_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// scripted opens a stream to a table that only exists in a script, with no
// token, no metadata and no descriptor.
func (z *endpoint) scripted(table string) *rpc {
	z.t.Helper()
	s := z.dialStream(table, "x-test", "1")
	s.send(createRequest(&pb.CreateIngestStreamRequest{TableName: &table}))
	return s
}

func (s *rpc) created(id string) {
	s.t.Helper()
	if r, err := s.Recv(); err != nil || r.GetCreateStreamResponse().GetStreamId() != id {
		s.t.Fatalf("create: got %v, %v, want stream %q", r, err, id)
	}
}

func TestScriptsArePlayedStepByStep(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	script := z.Play("a.b.c",
		emulator.StreamError{Status: status.New(codes.Unavailable, "not yet")},
		emulator.CreateStream{StreamID: "mine"},
		emulator.RecordAck{Offset: 1},
		emulator.CloseStreamSignal{Duration: 2 * time.Second},
		emulator.StreamError{Status: status.New(codes.Internal, "boom")},
		emulator.RecordAck{Offset: 0}, // skipped by the next create
		emulator.CreateStream{},
		emulator.CreateStream{}, // skipped by a message
		emulator.RecordAck{Offset: 1},
	)
	wantStatus(t, "error before create", z.scripted("a.b.c").end(), codes.Unavailable, "not yet")

	s := z.scripted("a.b.c")
	s.created("mine")
	s.send(jsonBatch(0, `nonsense`, `{}`))
	if got := script.Played(); got > 2 {
		t.Errorf("steps played: got %d, want the ack to wait for its offset", got)
	}
	s.send(jsonBatch(1, `{}`))
	s.ack(1)
	s.send(jsonBatch(7, `{}`)) // offsets are not looked at
	if r, err := s.Recv(); err != nil || r.GetCloseStreamSignal().GetDuration().AsDuration() != 2*time.Second {
		t.Fatalf("got %v, %v, want the close signal", r, err)
	}
	s.send(jsonBatch(3, `{}`))
	wantStatus(t, "error at a message", s.end(), codes.Internal, "boom")
	if got := [...]int{script.Played(), script.Streams(), script.Records(), int(script.HighestOffset())}; got != [...]int{5, 2, 5, 7} {
		t.Errorf("played, streams, records, highest offset: got %v, want 5 2 5 7", got)
	}

	s = z.scripted("a.b.c")
	s.created("test_stream_3")
	s.send(protoBatch(0, []byte("x")))
	s.send(&pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecord{IngestRecord: &pb.IngestRecordRequest{
		OffsetId: proto.Int64(1), Record: &pb.IngestRecordRequest_ProtoEncodedRecord{ProtoEncodedRecord: []byte("y")},
	}}})
	s.ack(1)
	s.send(protoBatch(2, nil)) // behind the last step
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "half-closed", s.end(), codes.OK, "")

	s = z.scripted("a.b.c")
	s.created("test_stream_4") // by default
	s.send(jsonBatch(0, `{}`))
	s.wantSilence(30 * time.Millisecond)
	script.Append(emulator.RecordAck{Offset: 0, Delay: 20 * time.Millisecond})
	s = z.scripted("a.b.c")
	s.created("test_stream_5")
	began := time.Now()
	s.send(jsonBatch(0, `{}`))
	s.ack(0)
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("acknowledged after %v, want a delay of 20ms", took)
	}

	if got := z.Stats(); got.Rows != 0 || got.StreamsOpened != 0 {
		t.Errorf("stats: got %+v, want scripts to leave no rows", got)
	}
	z.StopPlaying("a.b.c")
	wantStatus(t, "no script", z.scripted("a.b.c").end(), codes.Unauthenticated, "token")
}

func TestScriptsRefuseInvalidMessages(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	script := z.Play("a.b.c", emulator.CreateStream{Delay: time.Millisecond})
	s := z.dialStream("a.b.c", "x-test", "1")
	s.send(jsonBatch(0, `{}`))
	wantStatus(t, "no create_stream", s.end(), codes.InvalidArgument, "first message must be create_stream")
	if got := script.Played(); got != 0 {
		t.Errorf("steps played: got %d, want none", got)
	}
	if s := z.scripted("a.b.c"); s != nil {
		s.created("test_stream_1")
		s.send(&pb.EphemeralStreamRequest{})
		s.send(jsonBatch(4, `{}`))
		s.wantSilence(20 * time.Millisecond)
	}
	if got := script.HighestOffset(); got != 4 {
		t.Errorf("highest offset: got %d, want 4", got)
	}
}
