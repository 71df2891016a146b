package emulator_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

func number(n int64) *int64 { return &n }

func span(d time.Duration) *emulator.Duration { return (*emulator.Duration)(&d) }

func TestStreamsThatFailToOpen(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	fail := func(f emulator.Fault) *status.Status {
		t.Helper()
		f.Endpoint, f.Effect, f.Count = "create", "status", 1
		z.add(f)
		return z.dialStream(stream).refused(jsonCreate(stream))
	}
	for name, code := range map[string]codes.Code{
		"CANCELLED": codes.Canceled, "UNKNOWN": codes.Unknown, "RESOURCE_EXHAUSTED": codes.ResourceExhausted, "UNAUTHENTICATED": codes.Unauthenticated, "DATA_LOSS": codes.DataLoss,
	} {
		wantStatus(t, name, fail(emulator.Fault{GRPCCode: name, Message: "scripted text"}), code, "scripted text")
	}
	wantStatus(t, "an HTTP status", fail(emulator.Fault{Status: 429}), codes.ResourceExhausted, "scripted fault: RESOURCE_EXHAUSTED")
	wantStatus(t, "OK", fail(emulator.Fault{GRPCCode: "OK"}), codes.OK, "")
	st := fail(emulator.Fault{GRPCCode: "INVALID_ARGUMENT", ErrorInfo: &emulator.ErrorInfo{Reason: "R", Domain: "d", Metadata: map[string]string{"k": "v"}}})
	if d := st.Details(); len(d) != 1 || d[0].(*errdetails.ErrorInfo).GetReason() != "R" || d[0].(*errdetails.ErrorInfo).GetMetadata()["k"] != "v" {
		t.Errorf("details: got %v, want the ErrorInfo", st.Details())
	}
	z.openJSON()
	z.add(emulator.Fault{Endpoint: "create", Table: "a.b.c", Effect: "status", GRPCCode: "INTERNAL"})
	z.openJSON()
}

func TestEdgeRefusalsThatLookLikeSuccess(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	for _, inTrailer := range []bool{false, true} {
		z.add(emulator.Fault{Endpoint: "create", Effect: "status", GRPCCode: "OK", Reason: "Invalid token audience", InTrailer: inTrailer, Count: 1})
		s := z.dialStream(stream)
		if r, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Fatalf("got %v, %v, want the end", r, err)
		}
		header, err := s.Header()
		if err != nil {
			t.Fatal(err)
		}
		for what, md := range map[string]metadata.MD{"header": header, "trailer": s.Trailer()} {
			got := md.Get("x-databricks-reason-phrase")
			if want := (what == "trailer") == inTrailer; want != (len(got) == 1) || want && got[0] != "Invalid token audience" {
				t.Errorf("in trailer %v: %s: got %q", inTrailer, what, got)
			}
		}
	}
}

func TestFirstResponsesThatAreWrong(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	first := func(f emulator.Fault) *pb.EphemeralStreamResponse {
		t.Helper()
		f.Endpoint, f.Count = "create", 1
		z.add(f)
		s := z.dialStream(stream)
		s.send(createRequest(jsonCreate(stream)))
		r, err := s.Recv()
		if err != nil {
			t.Fatalf("%s: %v", f.Effect, err)
		}
		return r
	}
	if r := first(emulator.Fault{Effect: "no_stream_id"}); r.GetCreateStreamResponse() == nil || r.GetCreateStreamResponse().StreamId != nil {
		t.Errorf("no_stream_id: got %v", r)
	}
	if r := first(emulator.Fault{Effect: "unknown"}); r.Payload != nil || len(r.ProtoReflect().GetUnknown()) == 0 {
		t.Errorf("unknown: got %v", r)
	}
	if r := first(emulator.Fault{Effect: "ack", AckOffset: number(4)}); r.GetIngestRecordResponse().GetDurabilityAckUpToOffset() != 4 {
		t.Errorf("ack: got %v", r)
	}
	z.add(emulator.Fault{Endpoint: "create", Effect: "latency", Latency: emulator.Latency{P50: 50 * time.Millisecond}, Count: 1})
	began := time.Now()
	z.openJSON()
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("latency: opened after %v, want 50ms", took)
	}
}

func TestStreamsThatFailAtAMessage(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	tab := z.Table(stream)
	for _, c := range []struct {
		name  string
		fault emulator.Fault
		code  codes.Code
		text  string
		kept  int // of the message that fails
	}{
		{"status", emulator.Fault{Effect: "status", GRPCCode: "UNAVAILABLE", Message: "gone"}, codes.Unavailable, "gone", 0},
		{"status with keep", emulator.Fault{Effect: "status", GRPCCode: "UNAVAILABLE", Keep: true}, codes.Unavailable, "scripted", 1},
		{"OK", emulator.Fault{Effect: "status", GRPCCode: "OK"}, codes.OK, "", 0},
		{"cut", emulator.Fault{Effect: "cut"}, codes.Unavailable, "", 0},
		{"lost ack", emulator.Fault{Effect: "lose_ack"}, codes.Unavailable, "", 1},
	} {
		z.ClearFaults()
		if err := z.Reset(); err != nil {
			t.Fatal(err)
		}
		c.fault.Endpoint, c.fault.Offset = "stream", number(2)
		z.add(c.fault)
		s := z.openJSON()
		for n := range int64(2) {
			s.json(`{}`)
			s.ack(n)
		}
		s.json(`{}`)
		wantStatus(t, c.name, s.end(), c.code, c.text)
		if got := tab.Count(); got != 2+c.kept {
			t.Errorf("%s: got %d rows, want %d", c.name, got, 2+c.kept)
		}
		if got := z.Faults(); len(got) != 1 || got[0].Hits != 1 {
			t.Errorf("%s: got faults %+v, want one hit", c.name, got)
		}
		if err := z.WaitStreams(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if got := z.Stats().UnackedRows; got != int64(c.kept) {
			t.Errorf("%s: got %d unacked rows, want %d", c.name, got, c.kept)
		}
	}
}

func TestPoisonRowsEndTheStream(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	z.add(emulator.Fault{Endpoint: "stream", Effect: "refuse", Rows: &emulator.RowMatch{Column: "event_name", Equals: ptr("poison")}})
	s := z.openJSON()
	s.json(`{"event_name":"fine"}`)
	s.ack(0)
	s.json(`{"event_name":"fine"}`, `{"event_name":"poison"}`)
	wantStatus(t, "JSON", s.end(), codes.InvalidArgument, "record 1 of the message: refused by a scripted fault. Error Code: 4044")
	d := resolve(t, pageDescriptor())
	p := z.open(protoCreate(t, stream, pageDescriptor()))
	p.send(protoBatch(0, encode(t, d, `{"event_name":"fine"}`)))
	p.ack(0)
	p.send(protoBatch(1, encode(t, d, `{"event_name":"poison"}`)))
	wantStatus(t, "protobuf", p.end(), codes.InvalidArgument, "record 0 of the message")
	if got := z.Table(stream).Count(); got != 2 {
		t.Errorf("rows: got %d, want 2", got)
	}
}

// wantSilence fails if anything comes on the stream within d.
func (s *rpc) wantSilence(d time.Duration) {
	s.t.Helper()
	got := make(chan string, 1)
	go func() { // ends when the stream does, with its test at the latest
		r, err := s.Recv()
		got <- strings.TrimSpace(r.String() + " " + status.Convert(err).String())
	}()
	select {
	case text := <-got:
		s.t.Errorf("got %s, want silence", text)
	case <-time.After(d):
	}
	s.cancel()
	<-got
}

func TestStreamsWithoutAnswers(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	for _, c := range []struct {
		fault emulator.Fault
		kept  int
	}{
		{emulator.Fault{Effect: "stall_acks"}, 2},
		{emulator.Fault{Effect: "hang"}, 0},
		{emulator.Fault{Effect: "hang", Keep: true}, 1},
		{emulator.Fault{Effect: "freeze"}, 0},
	} {
		if err := z.Reset(); err != nil {
			t.Fatal(err)
		}
		c.fault.Endpoint, c.fault.Count = "stream", 1
		z.add(c.fault)
		z.client = pb.NewZerobusClient(z.dial()) // a frozen connection is of no use to the next
		s := z.openJSON()
		s.json(`{}`)
		s.json(`{}`)
		s.wantSilence(60 * time.Millisecond)
		await.That(t, fmt.Sprintf("%d rows after %s", c.kept, c.fault.Effect), func() bool { return z.Table(stream).Count() == c.kept },
			func() string { return fmt.Sprintf("got %d", z.Table(stream).Count()) })
	}
	z.client = pb.NewZerobusClient(z.dial())
	z.add(emulator.Fault{Endpoint: "stream", Effect: "stall_acks", Latency: emulator.Latency{P50: 50 * time.Millisecond}, Count: 1})
	s := z.openJSON()
	began := time.Now()
	s.json(`{}`)
	s.ack(0)
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("acks stalled for 50ms: acknowledged after %v", took)
	}
	for _, effect := range []string{"hang", "freeze", "cut"} {
		z.client = pb.NewZerobusClient(z.dial())
		z.add(emulator.Fault{Endpoint: "create", Effect: effect, Count: 1})
		s := z.dialStream(stream)
		s.send(createRequest(jsonCreate(stream)))
		if effect == "cut" {
			wantStatus(t, "create cut", s.end(), codes.Unavailable, "")
			continue
		}
		s.wantSilence(60 * time.Millisecond)
	}
}

func TestFlowControlStopsTheWriter(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	z.add(emulator.Fault{Endpoint: "stream", Effect: "hang", Keep: true})
	s := z.openJSON()
	sent := make(chan int)
	go func() { // ends when the stream is cancelled
		n := 0
		record := `{"event_name":"` + strings.Repeat("x", 64<<10) + `"}`
		for s.Send(jsonBatch(int64(n), record)) == nil {
			n++
		}
		sent <- n
	}()
	select {
	case n := <-sent:
		t.Fatalf("the stream ended after %d messages", n)
	case <-time.After(200 * time.Millisecond):
	}
	s.cancel()
	if n := <-sent; n > 1000 {
		t.Errorf("got %d messages of 64 KiB sent to a reader that does not read, want flow control to stop them", n)
	}
}

func TestUnusualResponsesBetweenAcks(t *testing.T) { synctest.Test(t, testUnusualResponsesBetweenAcks) }

func testUnusualResponsesBetweenAcks(t *testing.T) {
	z := startInMemory(t, emulator.Config{AckEvery: 1})
	s := z.openJSON()
	for i, c := range []struct {
		fault emulator.Fault
		want  func(*pb.EphemeralStreamResponse) bool
	}{
		{emulator.Fault{Effect: "unknown"}, func(r *pb.EphemeralStreamResponse) bool { return r.Payload == nil }},
		{emulator.Fault{Effect: "ack"}, func(r *pb.EphemeralStreamResponse) bool {
			return r.GetIngestRecordResponse() != nil && r.GetIngestRecordResponse().DurabilityAckUpToOffset == nil
		}},
		{emulator.Fault{Effect: "ack", AckOffset: number(99)}, func(r *pb.EphemeralStreamResponse) bool {
			return r.GetIngestRecordResponse().GetDurabilityAckUpToOffset() == 99
		}},
		{emulator.Fault{Effect: "ack", AckBy: number(-2)}, func(r *pb.EphemeralStreamResponse) bool {
			return r.GetIngestRecordResponse().GetDurabilityAckUpToOffset() == 1
		}},
		{emulator.Fault{Effect: "close_signal", EndAfter: span(time.Hour)}, func(r *pb.EphemeralStreamResponse) bool {
			return r.GetCloseStreamSignal() != nil && r.GetCloseStreamSignal().Duration == nil
		}},
		{emulator.Fault{Effect: "close_signal", Window: span(1500 * time.Millisecond)}, func(r *pb.EphemeralStreamResponse) bool {
			return r.GetCloseStreamSignal().GetDuration().AsDuration() == 1500*time.Millisecond
		}},
		{emulator.Fault{Effect: "latency", Latency: emulator.Latency{P50: time.Millisecond}}, nil},
	} {
		c.fault.Endpoint, c.fault.Count = "stream", 1
		z.add(c.fault)
		s.json(`{}`)
		acked, odd := false, c.want == nil
		for !acked || !odd {
			r, err := s.Recv()
			if err != nil {
				t.Fatalf("%s: %v", c.fault.Effect, err)
			}
			if c.want != nil && c.want(r) {
				odd = true
			} else if r.GetIngestRecordResponse().GetDurabilityAckUpToOffset() == int64(i) {
				acked = true
			} else {
				t.Fatalf("%s: got %v", c.fault.Effect, r)
			}
		}
	}
}

func TestCloseSignalsAndTheEndThatFollows(t *testing.T) {
	synctest.Test(t, testCloseSignalsAndTheEndThatFollows)
}

func testCloseSignalsAndTheEndThatFollows(t *testing.T) {
	z := startInMemory(t, emulator.Config{})
	z.add(emulator.Fault{Endpoint: "stream", Effect: "close_signal", Window: span(20 * time.Millisecond), Count: 2})
	s := z.openJSON()
	s.json(`{}`)
	s.json(`{}`)
	signals := 0
	for {
		r, err := s.Recv()
		if err != nil {
			wantStatus(t, "end", status.Convert(err), codes.Unavailable, "Error Code: 6002")
			break
		}
		if r.GetCloseStreamSignal() != nil {
			signals++
		}
	}
	if signals != 2 {
		t.Errorf("signals: got %d, want 2", signals)
	}
	z.add(emulator.Fault{Endpoint: "stream", Effect: "close_signal", Count: 1})
	s = z.openJSON()
	s.json(`{}`)
	wantStatus(t, "no duration", s.end(), codes.Unavailable, "Error Code: 6002")
}

func TestGoAwayMovesTheNextStreamToANewConnection(t *testing.T) {
	for _, tls := range []bool{false, true} {
		z := startZerobus(t, emulator.Config{TLS: tls, AckEvery: 1})
		z.add(emulator.Fault{Endpoint: "create", Effect: "goaway", Count: 1})
		z.add(emulator.Fault{Endpoint: "stream", Effect: "goaway", Count: 4}) // all of the first stream, and once on the second
		for range 3 {
			s := z.openJSON()
			for n := range int64(3) { // the stream itself continues
				s.json(`{}`)
				s.ack(n)
			}
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, "end", s.end(), codes.OK, "")
		}
		if got := z.Stats().Connections; got != 3 {
			t.Errorf("connections opened: got %d, want 3", got)
		}
	}
}

func TestInvalidStreamFaults(t *testing.T) {
	z := start(t, emulator.Config{})
	for want, f := range map[string]emulator.Fault{
		`does not apply to the endpoint "ingest"`: {Endpoint: "ingest", Effect: "goaway"},
		`does not apply to the endpoint "create"`: {Endpoint: "create", Effect: "refuse"},
		`does not apply to the endpoint "stream"`: {Endpoint: "stream", Effect: "slow_body"},
		`status 0`:                             {Endpoint: "create", Effect: "status"},
		`wants 200 to 599`:                     {Effect: "status", GRPCCode: "INTERNAL"},
		`grpc_code "NOPE"`:                     {Endpoint: "create", Effect: "status", GRPCCode: "NOPE"},
		`reason and in_trailer`:                {Endpoint: "stream", Effect: "status", GRPCCode: "OK", Reason: "x"},
		`visible ASCII`:                        {Endpoint: "create", Effect: "status", GRPCCode: "OK", Reason: "a\nb"},
		`go with the effects status only`:      {Endpoint: "stream", Effect: "cut", GRPCCode: "OK"},
		`offset goes with the endpoint stream`: {Endpoint: "create", Effect: "cut", Offset: number(1)},
		`window and end_after`:                 {Endpoint: "stream", Effect: "cut", Window: span(1)},
		`want 0 to 24h`:                        {Endpoint: "stream", Effect: "close_signal", Window: span(-1)},
		`ack_offset and ack_by go`:             {Endpoint: "stream", Effect: "cut", AckBy: number(1)},
		`ack_offset and ack_by: give one`:      {Endpoint: "stream", Effect: "ack", AckBy: number(1), AckOffset: number(1)},
	} {
		if _, err := z.AddFault(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("AddFault(%+v): got %v, want an error with %q", f, err, want)
		}
	}
	r := z.admin("POST", "faults", `{"endpoint":"stream","effect":"close_signal","window":"1.5s","end_after":"1m"}`)
	if r.status != 200 || !strings.Contains(r.body, `"window":"1.5s","end_after":"1m0s"`) {
		t.Errorf("by HTTP: got %d %s", r.status, r.body)
	}
	if r := z.admin("POST", "faults", `{"endpoint":"stream","effect":"close_signal","window":"soon"}`); r.status != 400 {
		t.Errorf("a window that is none: got %d %s, want 400", r.status, r.body)
	}
}
