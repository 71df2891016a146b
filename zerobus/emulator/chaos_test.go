package emulator_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// window is how many batches a writer has in flight.
const window = 16

// write sends batches of one row until each is acknowledged, as simply as a
// writer can: after a stream's end, all that was not acknowledged goes again.
func (z *endpoint) write(ctx context.Context, client pb.ZerobusClient, auth, prefix string, batches int) error {
	acked := 0
	for acked < batches {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rpc, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", auth, emulator.TableHeader, stream))
		s, err := client.EphemeralStream(rpc)
		if err == nil {
			err = s.Send(createRequest(jsonCreate(stream)))
		}
		if err == nil {
			_, err = s.Recv()
		}
		first, sent := acked, acked
		for err == nil && acked < batches {
			for ; sent < batches && sent-acked < window; sent++ {
				if s.Send(jsonBatch(int64(sent-first), fmt.Sprintf(`{"message_id":"%s-%d"}`, prefix, sent))) != nil {
					break // Recv knows why, behind the acks that still wait there
				}
			}
			var r *pb.EphemeralStreamResponse
			if r, err = s.Recv(); err == nil {
				if a := r.GetIngestRecordResponse(); a != nil && a.DurabilityAckUpToOffset != nil {
					acked = max(acked, first+int(a.GetDurabilityAckUpToOffset())+1)
				}
			}
		}
		cancel()
	}
	return nil
}

// TestNoLossWithFaults lets everything go wrong at once. What the
// emulator has acknowledged, it has; what it has twice, it can account for.
func TestNoLossWithFaults(t *testing.T) {
	faults := []emulator.Fault{
		{Endpoint: "create", Effect: "status", GRPCCode: "UNAVAILABLE", Probability: 0.1},
		{Endpoint: "create", Effect: "status", GRPCCode: "OK", Reason: "later", Probability: 0.05},
		{Endpoint: "stream", Effect: "status", GRPCCode: "INTERNAL", Probability: 0.01},
		{Endpoint: "stream", Effect: "status", GRPCCode: "ABORTED", Keep: true, Probability: 0.01},
		{Endpoint: "stream", Effect: "goaway", Probability: 0.01},
		{Endpoint: "stream", Effect: "unknown", Probability: 0.01},
		{Endpoint: "stream", Effect: "ack", AckBy: number(-3), Probability: 0.01},
		{Endpoint: "stream", Effect: "close_signal", Window: span(5 * time.Millisecond), Probability: 0.01},
		{Endpoint: "stream", Effect: "stall_acks", Latency: emulator.Latency{P50: 20 * time.Millisecond}, Probability: 0.01},
		{Endpoint: "stream", Effect: "latency", Latency: emulator.Latency{P50: time.Millisecond}, Probability: 0.02},
	}
	t.Run("streams", func(t *testing.T) { nothingIsLost(t, faults) })
	t.Run("connections", func(t *testing.T) {
		nothingIsLost(t, append([]emulator.Fault{
			{Endpoint: "stream", Effect: "lose_ack", Probability: 0.01}, {Endpoint: "stream", Effect: "cut", Probability: 0.01},
		}, faults...))
	})
}

func nothingIsLost(t *testing.T, faults []emulator.Fault) {
	const writers, batches = 6, 300
	z := startZerobus(t, emulator.Config{StreamMaxAge: 60 * time.Millisecond, CloseWindow: 10 * time.Millisecond, AckInterval: time.Millisecond})
	effects := map[string]bool{}
	for i, f := range faults {
		f.Seed = uint64(i + 1)
		z.add(f)
		effects[f.Effect] = true
	}
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	auth := z.grant(stream)
	var all sync.WaitGroup
	for w := range writers {
		client := z.client
		if w%2 == 1 { // half of them on one connection
			client = pb.NewZerobusClient(z.dial())
		}
		all.Go(func() {
			if err := z.write(ctx, client, auth, fmt.Sprint(w), batches); err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
		})
	}
	all.Wait()
	if err := z.WaitStreams(ctx, 0); err != nil {
		t.Fatal(err)
	}
	tab, stats := z.Table(stream), z.Stats()
	if got := tab.Distinct("message_id"); got != writers*batches {
		t.Errorf("rows: got %d distinct, want all %d", got, writers*batches)
	}
	// Acks that were sent are lost with a connection that is cut, which half
	// of the writers share.
	extra := int64(tab.Count() - writers*batches)
	swallowed := (stats.Faults["cut"] + stats.Faults["lose_ack"]) * window * writers / 2
	if extra > stats.UnackedRows+swallowed {
		t.Errorf("rows twice: got %d, want at most %d unacknowledged and %d whose ack was cut off", extra, stats.UnackedRows, swallowed)
	}
	for effect := range effects {
		if stats.Faults[effect] == 0 {
			t.Errorf("%s did not happen, so this proves little: %v", effect, stats.Faults)
		}
	}
	for _, s := range z.Streams() {
		last := int64(-1)
		for _, row := range tab.Stream(s.ID) {
			if row.Offset != last+1 {
				t.Fatalf("stream %s: got offset %d behind %d, want them in order", s.ID, row.Offset, last)
			}
			last = row.Offset
		}
	}
}
