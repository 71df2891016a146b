package main

import (
	"context"
	"fmt"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const grpcFormat = "zerobus.record_format="

// Budgets of delivery.max_buffered: the default, and one that does not rule
// when 16 partitions wait for acknowledgements.
const (
	budget     = "64MiB"
	wideBudget = "256MiB"
)

// transports compares the three transports, gRPC with both forms of a row, at
// the acknowledgement time of --ack.
func transports(ctx context.Context, r *rig) (any, error) {
	variants := []variant{
		{"workspace", zerobus.TransportWorkspace, nil},
		{"rest", zerobus.TransportREST, nil},
		{"grpc, protobuf", zerobus.TransportGRPC, []string{grpcFormat + zerobus.FormatProtobuf}},
		{"grpc, json", zerobus.TransportGRPC, []string{grpcFormat + zerobus.FormatJSON}},
	}
	var out comparisons
	for _, t := range []terms{{1, r.o.ack, budget}, {4, r.o.ack, budget}, {16, r.o.ack, budget}, {16, r.o.ack, wideBudget}} {
		c, err := r.compare(ctx, t, variants)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// streams compares numbers of shared gRPC streams, and one stream with more
// room, at the acknowledgement time of --ack, at its median every time, and at
// none. Where the time varies, an emulated stream that many partitions share
// is slower than several: a long time drawn for one batch holds for all that
// come while it lasts.
func streams(ctx context.Context, r *rig) (any, error) {
	var variants []variant
	for _, n := range []int{1, 2, 4, 8} {
		variants = append(variants, variant{fmt.Sprintf("%d", n), zerobus.TransportGRPC, []string{fmt.Sprintf("zerobus.streams=%d", n)}})
	}
	variants = append(variants, variant{"1 of 128 MiB", zerobus.TransportGRPC, []string{"zerobus.streams=1", "zerobus.max_in_flight=128MiB"}})
	var out comparisons
	for _, ack := range []emulator.Latency{r.o.ack, {P50: r.o.ack.P50}, {}} {
		c, err := r.compare(ctx, terms{16, ack, wideBudget}, variants)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// eventsFor is how many events a topic needs whose partitions are bound by the
// acknowledgement time: three quarters of events for each partition, three
// times events at most.
func eventsFor(events, partitions int) int { return events * min(partitions, 4) * 3 / 4 }
