package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/panics"
)

// RecordCost is the client's overhead for a record, in bytes.
const RecordCost = 256

// FetchMaxWait is how long a broker may hold a fetch for which it has nothing new.
// A partition that is resumed while such a fetch is out waits for it to come back,
// so the client's own 5 s would leave the only busy partition of a broker without
// events for that long after each pause.
const FetchMaxWait = 500 * time.Millisecond

// MaxBatch returns the most bytes that a record batch may decompress to; with
// RecordCost for each record it may take twice that. Producers bound their batches
// before they compress them, to about 1 MiB by default. A batch beyond 64 MiB was
// made to fill memory: 1 MiB of zstd can hold gigabytes.
func MaxBatch(maxBuffered int64) int {
	return int(min(max(64<<20, maxBuffered), 1<<30)) // 1 GiB is the Kafka client's own bound
}

// BatchTooLarge returns the error of a batch that decompresses to more than
// maxBatch.
func BatchTooLarge(e *kgo.ErrDecompressTooLarge, maxBatch int, remedy string) *Error {
	return &Error{
		Op:     fmt.Sprintf("reading %s/%d at offset %d", e.Topic, e.Partition, e.Offset),
		Err:    &batchTooLarge{e, maxBatch},
		Remedy: remedy,
	}
}

type batchTooLarge struct {
	*kgo.ErrDecompressTooLarge
	maxBatch int
}

func (e *batchTooLarge) Error() string {
	return fmt.Sprintf("the batch up to offset %d decompresses to more than %d bytes, or to more than twice that with %d for each record", e.NextOffset-1, e.maxBatch, RecordCost)
}

func (e *batchTooLarge) Unwrap() error { return e.ErrDecompressTooLarge }

// ErrNoRoom is the error of a fetched batch for which there is no room: the client
// fetches it again.
var ErrNoRoom = errors.New("no room to decompress the batch now")

// FetchLimiter bounds the bytes that a client holds of what it has fetched. A
// broker bounds its answers in compressed bytes, so an answer of 4 MiB can
// decompress to a gigabyte, and a few bytes for each record take a hundred times
// that once they are records. Of each answer only what there is room for is
// decompressed, at least one batch; the rest is fetched again when that was
// polled. It is the client's [kgo.Decompressor] and a [kgo.HookFetchBatchRead].
type FetchLimiter struct {
	// Room returns how many bytes of what is polled there is room for. Set it
	// before the client is made.
	Room func() int64
	// Panicked takes the error of a panic in the decompressor, which is the fetch's
	// error, too. Nil is allowed.
	Panicked func(error)

	inner kgo.Decompressor
	most  int          // bytes that a batch may take with its records
	limit atomic.Int64 // bytes beside Room of this client; see memory.Plan.Fetched

	unpolled atomic.Int64 // bytes the client held after the last poll
	since    atomic.Int64 // bytes of the batches read since the last poll
	packed   atomic.Int64 // what those were in the answer
	ratio    float64      // recent; owned by the poll loop
}

// Options returns the client options, for batches of at most maxBatch bytes, or
// twice that with their records.
func (f *FetchLimiter) Options(maxBatch int) ([]kgo.Opt, error) {
	// The library gives its decompressor away only through a client; this one never
	// connects.
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxBatch))
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka consumer: %w", err)
	}
	defer cl.Close()
	var ok bool
	if f.inner, ok = cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor); !ok {
		return nil, errors.New("preparing the kafka consumer: the client has no decompressor")
	}
	f.most = 2 * maxBatch
	return []kgo.Opt{kgo.WithDecompressor(f), kgo.WithHooks(f)}, nil
}

// SetPlan sets the memory that fetches may take beside Room.
func (f *FetchLimiter) SetPlan(p memory.Plan) { f.limit.Store(p.Fetched()) }

// Decompress implements [kgo.Decompressor]. It must not wait for room, since a
// rebalance waits for it. Brokers answer at the same time, and each may pass the
// limit by one batch.
func (f *FetchLimiter) Decompress(src []byte, codec kgo.CompressionCodecType) (out []byte, err error) {
	defer panics.Catch(func(crash error) {
		out, err = nil, crash
		if f.Panicked != nil {
			f.Panicked(crash)
		}
	})
	if codec == kgo.CodecNone {
		return src, nil
	}
	if f.unpolled.Load()+f.since.Load() >= f.Room()+f.limit.Load() {
		return nil, ErrNoRoom
	}
	var done bool
	if codec == kgo.CodecLz4 {
		out, done = unlz4(src, f.most/2)
	}
	if !done {
		out, err = f.inner.Decompress(src, codec)
	}
	if err == nil && overcrowded(out, (f.most-len(out))/RecordCost) {
		out, err = nil, kgo.ErrMaxDecompress
	}
	f.packed.Add(int64(len(src)))
	f.since.Add(int64(len(out)))
	return out, err
}

// overcrowded reports whether a batch holds more than most records. It counts them
// by the lengths in front of them. Batches without those, as before Kafka 0.11,
// hold no more than the least size of a record allows.
func overcrowded(batch []byte, most int) bool {
	const least = 6 // bytes of a record after its length
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

// OnFetchBatchRead implements [kgo.HookFetchBatchRead]: it counts the records, and
// batches that are not compressed. Without those a single compressed batch would
// determine the size of answers until the next one comes.
func (f *FetchLimiter) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	f.since.Add(int64(m.NumRecords) * RecordCost)
	if m.CompressionType == 0 {
		f.packed.Add(int64(m.CompressedBytes))
		f.since.Add(int64(m.CompressedBytes))
	}
}

// Polled is called after each poll. The function it returns is called when Room
// accounts for what was polled.
func (f *FetchLimiter) Polled(cl *kgo.Client) (counted func()) {
	unpolled := Unpolled(cl)
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

// Unpolled returns the bytes that a client holds of what was not polled.
func Unpolled(cl *kgo.Client) int64 {
	return cl.BufferedFetchBytes() + cl.BufferedFetchRecords()*RecordCost
}

// Size returns how much of a configured fetch size to request, so that what comes
// takes no more than there is room for.
func (f *FetchLimiter) Size(configured int32) int32 {
	return max(int32(float64(configured)*min(1, memory.Ratio/max(f.ratio, 1))), 1)
}

// LogRange is a part of a partition's log, with bounds of what reading it takes.
type LogRange struct {
	Topic     string
	Partition int32
	From, End int64 // End is the offset after the last
	FetchMax  int32 // compressed bytes of one fetch answer
	MaxBatch  int   // see the function of that name
}

const (
	// logTimeout is how long a partition may bring nothing while it is read to an
	// end that exists.
	logTimeout = 30 * time.Second
	// logPoll bounds the records of one poll.
	logPoll = 500
)

// ReadLog hands over the records of a range one by one, except control records.
func (c *Client) ReadLog(ctx context.Context, r LogRange, take func(*kgo.Record) error) error {
	if r.From >= r.End {
		return nil
	}
	op := fmt.Sprintf("reading %s/%d", r.Topic, r.Partition)
	limiter := &FetchLimiter{Room: func() int64 { return 0 }} // a poll is used up before the next
	limiter.SetPlan(memory.Plan{FetchMaxBytes: int64(r.FetchMax)})
	opts, err := limiter.Options(r.MaxBatch)
	if err != nil {
		return err
	}
	cl, err := NewClient(c.Connection, c.Log, append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.Topic: {r.Partition: kgo.NewOffset().At(r.From)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // retention may remove records meanwhile
		kgo.FetchMaxBytes(r.FetchMax), kgo.FetchMaxPartitionBytes(r.FetchMax), kgo.FetchMaxWait(FetchMaxWait),
		kgo.KeepControlRecords(), // the last record may be one
	)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for next := r.From; next < r.End; {
		polling, cancel := context.WithTimeout(ctx, logTimeout)
		fetches := cl.PollRecords(polling, logPoll)
		idle := polling.Err() != nil
		cancel()
		counted := limiter.Polled(cl.Client)
		cl.UpdateFetchMaxBytes(limiter.Size(r.FetchMax), limiter.Size(r.FetchMax))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](e.Err); ok {
				return BatchTooLarge(large, r.MaxBatch, fmt.Sprintf("if the batch is legitimate, raise delivery.max_buffered above its size; "+
					"else find out who produced it, and delete the records before offset %d", large.NextOffset))
			}
			if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, ErrNoRoom) {
				return c.Explain(op, e.Err, Request{})
			}
		}
		for iter := fetches.RecordIter(); !iter.Done() && next < r.End; {
			rec := iter.Next()
			if rec.Offset >= r.End {
				return nil
			}
			next = rec.Offset + 1
			if rec.Attrs.IsControl() {
				continue
			}
			if err := take(rec); err != nil {
				return err
			}
		}
		counted()
		if idle && fetches.NumRecords() == 0 {
			return c.explainIdle(ctx, op, r, next)
		}
	}
	return nil
}

// explainIdle returns why a log brought nothing: its retention removed the rest,
// which is no error, or a fault.
func (c *Client) explainIdle(ctx context.Context, op string, r LogRange, next int64) error {
	starts, err := c.Adm.ListStartOffsets(ctx, r.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return c.Explain("reading offsets of the dead-letter topics", err, Request{})
	}
	if start, ok := starts.Lookup(r.Topic, r.Partition); ok && start.Offset >= r.End {
		return nil
	}
	return &Error{Op: op, Err: fmt.Errorf("nothing came within %v from offset %d, and the log ends at %d", logTimeout, next, r.End),
		Remedy: "check that the partition's leader is up, and try again"}
}
