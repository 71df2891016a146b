package consumer

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/memory"
)

// errNoRoom is what becomes of a fetched batch for which there is no room: the
// client fetches it again.
var errNoRoom = errors.New("no room to decompress the batch now")

// inflow bounds the bytes that the client holds beside the budget. A broker
// bounds its answers in compressed bytes, so an answer of 4 MiB can decompress
// to a gigabyte. Of each answer only what there is room for is decompressed, at
// least one batch; the rest is fetched again when that was polled. It is the
// client's [kgo.Decompressor].
type inflow struct {
	inner  kgo.Decompressor // set before the client is made
	budget *budget
	limit  atomic.Int64 // bytes beside the budget's; see memory.Plan.Fetched

	unpolled atomic.Int64 // bytes the client held after the last poll
	since    atomic.Int64 // decompressed since the last poll
	packed   atomic.Int64 // what that was compressed
	ratio    float64      // of late; owned by the poll loop
}

// decompressor returns the client's own, which alone bounds a batch. The
// library gives it away only by way of a client, which never connects.
func decompressor(maxBatch int) (kgo.Decompressor, error) {
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxBatch))
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.Close()
	inner, ok := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("preparing the kafka consumer: the client has no decompressor")
	}
	return inner, nil
}

// Decompress implements [kgo.Decompressor]. It must not wait for room, since a
// rebalance waits for it. Brokers answer at the same time, and each may pass
// the limit by one batch.
func (f *inflow) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if f.budget.used.Load()+f.unpolled.Load()+f.since.Load() >= f.budget.limit+f.limit.Load() {
		return nil, errNoRoom
	}
	out, err := f.inner.Decompress(src, codec)
	f.packed.Add(int64(len(src)))
	f.since.Add(int64(len(out)))
	return out, err
}

// polled is called after each poll, with what the client has still. The function
// it returns is called when the budget counts what was polled.
func (f *inflow) polled(unpolled int64) (counted func()) {
	since, packed := f.since.Load(), f.packed.Swap(0)
	if packed > 0 {
		now := float64(since) / float64(packed)
		f.ratio = max(now, f.ratio+(now-f.ratio)/8) // rises at once, falls slowly
	}
	return func() {
		f.since.Add(-since)
		f.unpolled.Store(unpolled)
	}
}

// size returns how much of a configured fetch size to ask for, such that what
// comes decompresses to no more than there is room for.
func (f *inflow) size(configured int32) int32 {
	return max(int32(float64(configured)*min(1, memory.Ratio/max(f.ratio, 1))), 1)
}

// follow takes up the number of brokers and of assigned partitions, on which it
// depends how much memory there may be.
func (g *Group) follow(cl *kgo.Client) {
	g.mu.Lock()
	p := memory.Plan{FetchMaxBytes: int64(g.cfg.FetchMaxBytes), Brokers: len(cl.DiscoveredBrokers()), Partitions: len(g.parts)}
	g.mu.Unlock()
	g.inflow.limit.Store(p.Fetched())
	if g.cfg.Sized != nil {
		g.cfg.Sized(p.Brokers, p.Partitions)
	}
}
