package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/setting"
)

// errNoRoom is what becomes of a fetched batch for which there is no room: the
// client fetches it again.
var errNoRoom = errors.New("no room to decompress the batch now")

// inflow bounds the bytes that the client holds beside the budget. A broker
// bounds its answers in compressed bytes, so an answer of 4 MiB can decompress
// to a gigabyte, and a few bytes for each record take a hundred times that once
// they are records. Of each answer only what there is room for is decompressed,
// at least one batch; the rest is fetched again when that was polled. It is the
// client's [kgo.Decompressor] and a [kgo.HookFetchBatchRead].
type inflow struct {
	inner  *decompressor // set before the client is made
	budget *groupBudget
	limit  atomic.Int64 // bytes beside the budget's; see memory.Plan.Fetched

	unpolled atomic.Int64 // bytes the client held after the last poll
	since    atomic.Int64 // bytes of the batches read since the last poll
	packed   atomic.Int64 // what those were in the answer
	ratio    float64      // of late; owned by the poll loop
}

// decompressor is the client's own, with a bound of a batch that counts its
// records as well.
type decompressor struct {
	inner kgo.Decompressor
	most  int // bytes that a batch may take with its records
}

// newDecompressor returns a decompressor for batches of at most so many bytes, or
// twice that with their records.
func newDecompressor(maxBatch int) (*decompressor, error) {
	// The library gives its own away only by way of a client, which never connects.
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxBatch))
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.Close()
	inner, ok := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("preparing the kafka consumer: the client has no decompressor")
	}
	return &decompressor{inner, 2 * maxBatch}, nil
}

// Decompress implements [kgo.Decompressor].
func (d *decompressor) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	out, err := d.inner.Decompress(src, codec)
	if err == nil && overcrowded(out, (d.most-len(out))/recordCost) {
		return nil, kgo.ErrMaxDecompress
	}
	return out, err
}

// overcrowded reports whether a batch holds more than so many records. They are
// counted by the lengths in front of them; what is not written like that, as in
// the formats before Kafka 0.11, has no more than it takes there to tell.
func overcrowded(batch []byte, most int) bool {
	const least = 6 // bytes of a record behind its length
	for n := 0; len(batch) > (most-n)*(least+1); n++ {
		if n > most {
			return true
		}
		length, size := binary.Varint(batch)
		if size <= 0 || length < least || length > int64(len(batch)-size) {
			return false
		}
		batch = batch[int64(size)+length:]
	}
	return false
}

// Decompress implements [kgo.Decompressor]. It must not wait for room, since a
// rebalance waits for it. Brokers answer at the same time, and each may pass
// the limit by one batch.
func (f *inflow) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if f.unpolled.Load()+f.since.Load() >= f.budget.room()+f.limit.Load() {
		return nil, errNoRoom
	}
	out, err := f.inner.Decompress(src, codec)
	f.packed.Add(int64(len(src)))
	f.since.Add(int64(len(out)))
	return out, err
}

// OnFetchBatchRead implements [kgo.HookFetchBatchRead]: it counts the records,
// and batches that are not compressed, without which one that is would decide
// on the size of answers for as long as no other comes.
func (f *inflow) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	f.since.Add(int64(m.NumRecords) * recordCost)
	if m.CompressionType == 0 {
		f.packed.Add(int64(m.CompressedBytes))
		f.since.Add(int64(m.CompressedBytes))
	}
}

// polled is called after each poll of a client. The function it returns is
// called when the budget counts what was polled.
func (f *inflow) polled(cl *kgo.Client) (counted func()) {
	unpolled := held(cl)
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

// held is what a client holds that was not polled, as cost has it.
func held(cl *kgo.Client) int64 {
	return cl.BufferedFetchBytes() + cl.BufferedFetchRecords()*recordCost
}

// size returns how much of a configured fetch size to ask for, such that what
// comes takes no more than there is room for.
func (f *inflow) size(fetchMax setting.Size) int32 {
	configured := int32(fetchMax)
	return max(int32(float64(configured)*min(1, memory.Ratio/max(f.ratio, 1))), 1)
}

// follow takes up the number of brokers and of assigned partitions, on which it
// depends how much memory there may be.
func (g *Group) follow(cl *kgo.Client) {
	g.mu.Lock()
	p := memory.Plan{FetchMaxBytes: int64(g.cfg.FetchMaxBytes), Brokers: len(cl.DiscoveredBrokers()), Partitions: len(g.parts)}
	g.mu.Unlock()
	g.inflow.limit.Store(p.Fetched())
	if g.cfg.OnSizeChange != nil {
		g.cfg.OnSizeChange(p.Brokers, p.Partitions)
	}
}
