package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/memory"
)

// Letters is what lay in the dead-letter topics when it was opened. It is read
// without a group, one partition after the other, and never held: reading takes
// about two fetch answers of memory, the largest dead letter that lies in parts,
// 16 bytes for each run of letters that have landed, and up to 64 MiB to compare
// dead letters of the same event. It is for one goroutine.
type DeadLetterReader struct {
	c         *Cluster
	clusterID string
	parts     []*letterPartition
	topics    []Topic
	doubtful  int
	entries   *entries
}

// letterPartition is one partition of a dead-letter topic, from its first
// offset to the one after its last.
type letterPartition struct {
	topic      string
	id         int32
	start, end int64
	landed     *settled // nil until the markers were read
}

// OpenDeadLetters looks up the dead-letter topics of the configured topics, under
// any reject policy. The error is a *[KafkaError].
func (c *Cluster) OpenDeadLetters(ctx context.Context) (*DeadLetterReader, error) {
	id, err := c.ID(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range c.cfg.Topics {
		names = append(names, c.cfg.Rejects.TopicFor(t))
	}
	slices.Sort(names)
	l := &DeadLetterReader{c: c, clusterID: id, entries: newEntries(maxEntries)}
	if l.topics, err = c.topics(ctx, kafka.Read, slices.Compact(names)...); err != nil {
		return nil, err
	}
	names = names[:0]
	for _, t := range l.topics {
		if t.Exists {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return l, nil
	}
	starts, ends, err := c.bounds(ctx, names)
	if err != nil {
		return nil, err
	}
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := ends.Lookup(start.Topic, start.Partition); ok {
			l.parts = append(l.parts, &letterPartition{topic: start.Topic, id: start.Partition, start: start.Offset, end: end.Offset})
		}
	})
	slices.SortFunc(l.parts, func(a, b *letterPartition) int {
		if a.topic != b.topic {
			return slices.Index(names, a.topic) - slices.Index(names, b.topic)
		}
		return int(a.id - b.id)
	})
	return l, nil
}

func (c *Cluster) bounds(ctx context.Context, topics []string) (starts, ends kadm.ListedOffsets, err error) {
	if starts, err = c.adm.ListStartOffsets(ctx, topics...); err == nil {
		err = starts.Error()
	}
	if err == nil {
		if ends, err = c.listEnds(ctx, topics...); err == nil {
			err = ends.Error()
		}
	}
	if err != nil {
		return nil, nil, c.cfg.Kafka.explain("reading offsets of the dead-letter topics", err)
	}
	return starts, ends, nil
}

// Topics are the dead-letter topics; those that do not exist hold no letters.
func (l *DeadLetterReader) Topics() []Topic { return l.topics }

// Records is how many offsets the dead-letter topics span: at least the letters
// there are, since markers count, and so does what compaction removed.
func (l *DeadLetterReader) Records() int64 {
	var n int64
	for _, p := range l.parts {
		n += p.end - p.start
	}
	return n
}

// UnverifiedMarkers is how many markers were not believed so far: they could not be
// read, or speak of another topic.
func (l *DeadLetterReader) UnverifiedMarkers() int { return l.doubtful }

// Uncompared is how many dead letters were not compared with others, since that
// would have taken more than 64 MiB: some may be of the same event.
func (l *DeadLetterReader) Uncompared() int { return l.entries.left }

// Each hands over the newest letter of every event, settled or not, by topic,
// partition and offset, until one is refused with an error, which is returned.
// Those of which parts are missing come at the end of their partition. A letter
// is good until the call ends.
func (l *DeadLetterReader) Each(ctx context.Context, take func(*DeadLetter) error) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	for _, p := range l.parts {
		if err := l.each(ctx, p, take); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a reading that has found what it looked for.
var errEnough = errors.New("enough was read")

// At returns the letter at an offset, also where a newer one of its event is
// found in the same partition; nil if there is none. Of one in parts any offset
// will do.
func (l *DeadLetterReader) At(ctx context.Context, topic string, partition int32, offset int64) (*DeadLetter, error) {
	for _, p := range l.parts {
		if p.topic != topic || p.id != partition || offset < p.start || offset >= p.end {
			continue
		}
		if err := l.preparePartition(ctx, p); err != nil {
			return nil, err
		}
		from, part, partOf := offset, false, ""
		err := l.c.readLog(ctx, p.topic, p.id, offset, offset+1, func(rec *kgo.Record) error {
			if part = isPart(rec); part {
				from, partOf = p.start, headerOf(rec, HeaderPartOf)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		var found *DeadLetter
		err = l.read(ctx, p, from, nil, func(letter *DeadLetter) error {
			switch {
			case part && (letter.Parts == 0 || letter.partOf != partOf || letter.from > offset || letter.Offset < offset):
				return nil // parts of others may lie between its own
			case part || letter.Offset == offset:
				found = letter
			}
			return errEnough
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		if found != nil {
			found.Settled, found.Landed = p.landed.has(found.Offset)
			found.Replaced = !l.entries.newest(found, p)
		}
		return found, nil
	}
	return nil, nil
}

// each hands over the newest letters of a partition.
func (l *DeadLetterReader) each(ctx context.Context, p *letterPartition, take func(*DeadLetter) error) error {
	return l.read(ctx, p, p.start, nil, func(letter *DeadLetter) error {
		if !l.entries.newest(letter, p) {
			return nil
		}
		letter.Settled, letter.Landed = p.landed.has(letter.Offset)
		return take(letter)
	})
}

// read hands over what lies in a partition from an offset on: markers, and
// letters with their parts put together.
func (l *DeadLetterReader) read(ctx context.Context, p *letterPartition, from int64, marker func(*kgo.Record), take func(*DeadLetter) error) error {
	// No event is larger than what a batch may decompress to, see oversize.
	parts := &assembly{most: l.c.cfg.maxBatch() + headroom}
	err := l.c.readLog(ctx, p.topic, p.id, from, p.end, func(rec *kgo.Record) error {
		switch {
		case isMarker(rec):
			if marker != nil {
				marker(rec)
			}
		case isPart(rec):
			for _, letter := range parts.take(rec) {
				if err := take(letter); err != nil {
					return err
				}
			}
		default:
			return take(ParseDeadLetter(rec))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, letter := range parts.rest() {
		if err := take(letter); err != nil {
			return err
		}
	}
	return nil
}

// prepare reads every partition once for what must be known before the first
// letter is handed over: markers lie behind the letters they speak of, and so
// do newer letters of the same event.
func (l *DeadLetterReader) prepare(ctx context.Context) error {
	for _, p := range l.parts {
		if err := l.preparePartition(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (l *DeadLetterReader) preparePartition(ctx context.Context, p *letterPartition) error {
	if p.landed != nil {
		return nil
	}
	landed, doubtful := &settled{}, 0
	err := l.read(ctx, p, p.start, func(marker *kgo.Record) {
		if !landed.take(marker, l.home(p)) {
			doubtful++
		}
	}, func(letter *DeadLetter) error {
		l.entries.note(letter, p)
		return nil
	})
	if err != nil {
		return err
	}
	if doubtful > 0 {
		l.c.log.Warn("markers of a redrive are not believed: they cannot be read, or were copied from another topic",
			zap.String("topic", p.topic), zap.Int32("partition", p.id), zap.Int("markers", doubtful))
	}
	p.landed, l.doubtful = landed, l.doubtful+doubtful
	return nil
}

// home is what markers of the partition name as where they are.
func (l *DeadLetterReader) home(p *letterPartition) string {
	return fmt.Sprintf("%s/%s/%d", l.clusterID, p.topic, p.id)
}

const (
	// logPatience is how long a partition may bring nothing while it is read
	// to an end that is known to be there.
	logPatience = 30 * time.Second
	// logPoll bounds the records that are handed over at once.
	logPoll = 500
)

// readLog hands over the records of one partition from an offset to the one
// before end. Control records count on the way and are not handed over.
func (c *Cluster) readLog(ctx context.Context, topic string, id int32, from, end int64, take func(*kgo.Record) error) error {
	if from >= end {
		return nil
	}
	doing := fmt.Sprintf("reading %s/%d", topic, id)
	opts, err := c.cfg.Kafka.options(c.log, c.cfg.Version)
	if err != nil {
		return err
	}
	in := &inflow{budget: NewBudget(0).group()} // a poll is used up before the next
	in.limit.Store(memory.Plan{FetchMaxBytes: int64(c.cfg.FetchMaxBytes)}.Fetched())
	if in.inner, err = newDecompressor(c.cfg.maxBatch()); err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {id: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // retention may overtake us
		kgo.FetchMaxBytes(int32(c.cfg.FetchMaxBytes)), kgo.FetchMaxPartitionBytes(int32(c.cfg.FetchMaxBytes)), kgo.FetchMaxWait(fetchMaxWait),
		kgo.WithDecompressor(in), kgo.WithHooks(in),
		kgo.FetchIsolationLevel(c.cfg.isolation()),
		kgo.KeepControlRecords(), // the last record may be one
	)...)
	if err != nil {
		return fmt.Errorf("preparing the kafka client: %w", err)
	}
	defer cl.Close()
	for next := from; next < end; {
		polling, cancel := context.WithTimeout(ctx, logPatience)
		fetches := cl.PollRecords(polling, logPoll)
		idle := polling.Err() != nil
		cancel()
		counted := in.polled(cl)
		cl.UpdateFetchMaxBytes(in.size(c.cfg.FetchMaxBytes), in.size(c.cfg.FetchMaxBytes))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			if bomb, ok := errors.AsType[*kgo.ErrDecompressTooLarge](e.Err); ok {
				return c.cfg.oversize(bomb, fmt.Sprintf("if the batch is meant, raise delivery.max_buffered above its size; else find out who produced it, and delete the records before offset %d", bomb.NextOffset))
			}
			if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, errNoRoom) {
				return c.cfg.Kafka.explain(doing, e.Err)
			}
		}
		for iter := fetches.RecordIter(); !iter.Done() && next < end; {
			rec := iter.Next()
			if rec.Offset >= end {
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
			return c.stalled(ctx, doing, topic, id, next, end)
		}
	}
	return nil
}

// stalled says why a log brought nothing: its retention removed the rest, which
// is no error, or it should have.
func (c *Cluster) stalled(ctx context.Context, doing, topic string, id int32, next, end int64) error {
	starts, _, err := c.bounds(ctx, []string{topic})
	if err != nil {
		return err
	}
	if start, ok := starts.Lookup(topic, id); ok && start.Offset >= end {
		return nil
	}
	return &KafkaError{Doing: doing, Err: fmt.Errorf("nothing came within %v from offset %d, and the log ends at %d", logPatience, next, end),
		Remedy: "check that the partition's leader is up, and try again"}
}
