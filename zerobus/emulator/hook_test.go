package emulator_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestHooksSeeStreamsAndInserts(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	var seen []emulator.IngestRequest
	z.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		seen = append(seen, emulator.IngestRequest{Endpoint: r.Endpoint, Number: r.Number, Table: r.Table, StreamID: r.StreamID, Offset: r.Offset})
		if len(r.Rows) != 1 || string(r.Rows[0]) != `{"event_name":"x"}` {
			t.Errorf("rows: got %q", r.Rows)
		}
		if len(seen) == 3 {
			return &emulator.Fault{Effect: "status", GRPCCode: "ABORTED"}
		}
		return nil
	})
	p := z.open(protoCreate(t, stream, pageDescriptor()))
	row := encode(t, resolve(t, pageDescriptor()), `{"event_name":"x"}`)
	p.send(protoBatch(0, row))
	p.ack(0)
	if r := z.insert(stream, `[{"event_name":"x"}]`); r.status != 200 {
		t.Errorf("insert: got %d %s", r.status, r.body)
	}
	p.send(protoBatch(1, row))
	wantStatus(t, "the hook's fault", p.end(), codes.Aborted, "scripted")
	want := []emulator.IngestRequest{
		{Endpoint: "stream", Number: 1, Table: stream, StreamID: p.id}, {Endpoint: "insert", Number: 1, Table: stream},
		{Endpoint: "stream", Number: 2, Table: stream, StreamID: p.id, Offset: 1},
	}
	for i, r := range seen {
		if r.Endpoint != want[i].Endpoint || r.Number != want[i].Number || r.Table != want[i].Table || r.StreamID != want[i].StreamID || r.Offset != want[i].Offset {
			t.Errorf("request %d: got %+v, want %+v", i, r, want[i])
		}
	}
}
