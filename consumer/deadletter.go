package consumer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// Headers of a dead letter. The key, the value and the headers of the original
// record stay as they were; these are appended. Where a name occurs twice (an
// event that failed again after a redrive) the last one counts.
const (
	HeaderCode   = "bridge-error-code"   // closed set
	HeaderReason = "bridge-error-reason" // for people
	HeaderColumn = "bridge-error-column" // left out when no column is at fault
	// HeaderEvents are the events of the record that failed, from 0, as runs:
	// "0", "0,3-5". Where they take more than maxEventsText, the smallest gaps
	// between runs are closed, so that some events that were delivered are named.
	HeaderEvents = "bridge-event-index"
	// HeaderEventCount is how many events the record held: an index means
	// nothing once the record is read as another number of them.
	HeaderEventCount = "bridge-event-count"
	HeaderTopic      = "bridge-source-topic" //
	// HeaderTopicID is the id of the source topic as Kafka's tools print it; left
	// out where the broker gives none. Derived message ids hold it, so a redrive
	// needs it to give an event the id that its delivery would have.
	HeaderTopicID   = "bridge-source-topic-id"
	HeaderPartition = "bridge-source-partition" //
	HeaderOffset    = "bridge-source-offset"    //
	HeaderTimestamp = "bridge-source-timestamp" // RFC 3339, UTC, milliseconds
	HeaderAttempts  = "bridge-attempts"         // times the bridge gave up on this event
	HeaderFailedAt  = "bridge-failed-at"        // RFC 3339, UTC, milliseconds
	HeaderVersion   = "bridge-version"          //
	HeaderGroup     = "bridge-group"            // consumer group: two of them may read a topic into two tables
	// HeaderIntegration is the name of the integration that rejected the event.
	HeaderIntegration = "bridge-integration"
)

// Headers of a part. A dead letter that its topic refuses as too large is written
// in parts: its key, value and headers in one piece of bytes, split over records of
// one partition. All of it is split, not the value alone, since the key or the
// headers may be what is too large. A part has no key, these headers, and those
// that identify the event and its group. It has no HeaderCode, so a bridge that
// does not know parts takes none for a dead letter.
const (
	HeaderPart   = "bridge-part"    // which of how many, from 1: "2/3"
	HeaderPartOf = "bridge-part-of" // SHA-256 of the bytes, the first 16 in hexadecimal; the same on all parts
)

const (
	// deadLetterMax is the largest dead letter we try to produce as one record.
	// Brokers take 1 MiB unless the topic allows more.
	deadLetterMax = 32 << 20
	// deadLetterChunk keeps one produce request of several dead letters
	// below the 1 MiB that a topic takes by default.
	deadLetterChunk = 512 << 10

	// Bounds of the headers that are appended, in bytes. Together they stay
	// far below headroom, so that a dead letter of any event that its topic
	// takes fits into a dead-letter topic that the bridge has created.
	maxEventsText = 8 << 10
	maxReasonText = 4 << 10
	// MaxHeaderText bounds code, column, version, group and integration each.
	MaxHeaderText = 1 << 10

	// partFloor is the least of the bytes that a part carries. A topic that takes
	// less than that and the headers of a part is for an operator.
	partFloor = 1 << 10
	// partFrame is what Kafka adds to a record that is a batch of its own, and what
	// compression may add to bytes that cannot be compressed.
	partFrame = 512
	// MaxParts bounds the parts of a dead letter.
	MaxParts = 1 << 20

	// HeaderTime is the form of times in headers: RFC 3339, UTC, milliseconds.
	HeaderTime = "2006-01-02T15:04:05.000Z07:00"
)

// DeadLetters returns one dead letter for each record of the batch that has rejects,
// which are in record order.
func (b *Batch) DeadLetters(cfg *Config, now time.Time) []*kgo.Record {
	var records []*kgo.Record
	for i := 0; i < len(b.rejected); {
		first := b.rejected[i]
		var events Events
		for ; i < len(b.rejected) && b.rejected[i].rec == first.rec; i++ {
			events.Add(b.rejected[i].index)
		}
		if !first.passed {
			records = append(records, cfg.deadLetter(b.recs[first.rec], first, events, b.sizes[first.rec], b.topicID, now))
		}
	}
	return records
}

func (c *Config) deadLetter(rec *kgo.Record, r Reject, failed Events, events int, topicID [16]byte, now time.Time) *kgo.Record {
	attempts := attemptsOf(rec) + 1
	headers := make([]kgo.RecordHeader, len(rec.Headers), len(rec.Headers)+15)
	copy(headers, rec.Headers)
	add := func(key, value string) {
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	add(HeaderCode, CutText(r.Code, MaxHeaderText))
	add(HeaderReason, CutText(r.Reason, maxReasonText))
	if r.Column != "" {
		add(HeaderColumn, CutText(r.Column, MaxHeaderText))
	}
	add(HeaderEvents, failed.within(maxEventsText).String())
	add(HeaderEventCount, strconv.Itoa(events))
	add(HeaderTopic, rec.Topic)
	if topicID != kafka.NoTopicID {
		add(HeaderTopicID, kafka.TopicIDText(topicID))
	}
	add(HeaderPartition, strconv.Itoa(int(rec.Partition)))
	add(HeaderOffset, strconv.FormatInt(rec.Offset, 10))
	add(HeaderTimestamp, rec.Timestamp.UTC().Format(HeaderTime))
	add(HeaderAttempts, strconv.Itoa(attempts))
	add(HeaderFailedAt, now.UTC().Format(HeaderTime))
	add(HeaderVersion, CutText(c.Version, MaxHeaderText))
	add(HeaderGroup, CutText(c.Group, MaxHeaderText))
	add(HeaderIntegration, CutText(c.Rejects.Name(), MaxHeaderText))
	return &kgo.Record{Topic: c.Rejects.TopicFor(rec.Topic), Key: rec.Key, Value: rec.Value, Headers: headers}
}

// CutText returns text in UTF-8 of at most so many bytes; what is cut ends with
// three dots.
func CutText(text string, most int) string {
	dots := ""
	if len(text) > most {
		dots = "..."
		text = text[:most-len(dots)]
	}
	return strings.ToValidUTF8(text, "?") + dots
}

// CodeDeadLetterLoop is the code of a reject for which no dead letter is
// written, because the record is a dead letter that was given up before:
// writing it again could repeat without end.
const CodeDeadLetterLoop = "dead_letter_loop"

// loopAttempts is the attempt from which on that holds.
const loopAttempts = 3

const loopRemedy = "check whether the dead-letter topic of this integration is read by another, here or in another bridge, whose own is read by this one; the records stay in the topic they were read from"

// attemptsOf returns how often the bridge gave up on the record before, as its
// headers say; 0 where they say nothing that can be.
func attemptsOf(rec *kgo.Record) int {
	attempts := 0
	for _, h := range rec.Headers {
		if h.Key == HeaderAttempts {
			if n, err := strconv.Atoi(string(h.Value)); err == nil && n > 0 && n < 1<<30 {
				attempts = n
			}
		}
	}
	return attempts
}

// givenUp is attemptsOf for a dead letter of a bridge; 0 for any other record,
// also one that has a header of that name.
func givenUp(rec *kgo.Record) int {
	if len(rec.Headers) < 5 { // those below; most records have none
		return 0
	}
	for _, key := range []string{HeaderCode, HeaderTopic, HeaderPartition, HeaderOffset} {
		if !slices.ContainsFunc(rec.Headers, func(h kgo.RecordHeader) bool { return h.Key == key }) {
			return 0
		}
	}
	return attemptsOf(rec)
}

// produce returns the dead letters that were not acknowledged, in order, and why.
// An error that a smaller record would not have had is returned only where there
// is no other. When ctx ends it does not wait for the client to notice, which
// takes until its next attempt, or for ever while a broker hangs.
func (c *Cluster) produce(ctx context.Context, records []*kgo.Record) (left []*kgo.Record, err error) {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, len(records))
	for n, rec := range records {
		c.writer.Produce(ctx, rec, func(_ *kgo.Record, err error) { results <- result{n, err} })
	}
	failed := make([]bool, len(records))
	for range records {
		select {
		case r := <-results:
			failed[r.n] = r.err != nil
			if r.err != nil && (err == nil || TooLarge(err)) {
				err = r.err
			}
		case <-ctx.Done():
			return records, ctx.Err()
		}
	}
	for n, rec := range records {
		if failed[n] {
			left = append(left, rec)
		}
	}
	return left, err
}

// produceAgain is produce, repeated where the topic was deleted and created again:
// the client refuses the new topic until it forgets the old one.
func (c *Cluster) produceAgain(ctx context.Context, records []*kgo.Record) (left []*kgo.Record, err error) {
	left, err = c.produce(ctx, records)
	if !errors.Is(err, kerr.UnknownTopicID) {
		return left, err
	}
	topic := records[0].Topic // of all of them
	c.writer.PurgeTopicsFromProducing(topic)
	c.Log.Warn("the dead-letter topic was deleted and created again; writing to the new one", zap.String("topic", topic))
	return c.produce(ctx, left)
}

// writeDeadLetters returns nil once every dead letter is acknowledged by all
// in-sync replicas, and else those that are not, as far as is known: after an error
// they may be in the topic. A missing dead-letter topic of source is created first,
// where that is allowed. What is too large for the topic is written in parts.
func (c *Cluster) writeDeadLetters(ctx context.Context, source string, records []*kgo.Record) (left []*kgo.Record, err error) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return records, ctx.Err()
	}
	if c.writer == nil {
		if err := c.renewWriter(); err != nil {
			return records, err
		}
	}
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+RecordBytes(records[n]) < deadLetterChunk) {
			size += RecordBytes(records[n]) + 128
			n++
		}
		topic := records[0].Topic
		if err := c.ensureDeadLetter(ctx, topic, source); err != nil {
			return records, err
		}
		left, err := c.produceAgain(ctx, records[:n])
		if TooLarge(err) {
			for err = nil; len(left) > 0 && err == nil; {
				if err = c.writeLarge(ctx, left[0]); err == nil {
					left = left[1:]
				}
			}
		}
		if err != nil {
			delete(c.ensured, topic) // it may have been deleted
			if errors.Is(err, kerr.ClusterAuthorizationFailed) {
				if rerr := c.renewWriter(); rerr != nil {
					err = rerr
				}
			}
			left = append(slices.Clip(left), records[n:]...)
			return left, c.Explain(fmt.Sprintf("writing %d dead letters to %s", len(left), topic), err, kafka.Request{Topic: topic, Operation: kafka.Write})
		}
		records = records[n:]
	}
	return nil, nil
}

// TooLarge reports whether a topic, or the client, takes no record of this size.
func TooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// writeLarge writes a dead letter that was refused as too large: alone, if it was
// refused for those beside it, else in parts. The caller holds c.writing.
func (c *Cluster) writeLarge(ctx context.Context, rec *kgo.Record) error {
	alone := []*kgo.Record{rec}
	if _, err := c.produce(ctx, alone); !TooLarge(err) {
		return err
	}
	limit := c.MessageLimit(ctx, rec.Topic)
	if size := RecordBytes(rec) + partFrame; size <= limit && size <= deadLetterMax {
		// The limit was raised meanwhile. A broker may not know of that yet, which is
		// no reason for parts.
		if _, err := c.produce(ctx, alone); !errors.Is(err, kerr.RecordListTooLarge) {
			return err
		}
	}
	writer, err := kafka.NewPartitionWriter(c.Connection, c.Log)
	if err != nil {
		return err
	}
	defer writer.Close()
	found, err := c.LookUp(ctx, kafka.Write, rec.Topic)
	if err != nil {
		return err
	}
	source, _ := strconv.ParseInt(HeaderOf(rec, HeaderPartition), 10, 32) // written by deadLetter
	partition := int32(int(source) % max(found[0].Partitions, 1))

	whole := EncodeRecord(rec)
	size := min(deadLetterChunk, (len(whole)+1)/2)
	if limit > 0 {
		size = min(size, limit-partFrame-RecordBytes(partOf(rec, nil, 1, MaxParts, "")))
	}
	err = fmt.Errorf("%w: a part of %d bytes is too large", kerr.MessageTooLarge, partFloor)
	for ; size >= partFloor; size /= 2 {
		// One by one: together they would be one batch, which is what the topic limits.
		// The first is refused as all would be, so nothing is left behind.
		err = nil
		for part := range SplitRecord(rec, whole, size) {
			part.Partition = partition
			if err = writer.ProduceSync(ctx, part).FirstErr(); err != nil {
				break
			}
		}
		if !TooLarge(err) {
			return err
		}
	}
	return err
}

// SplitRecord yields the parts of a dead letter one by one: whole is what EncodeRecord
// returned for it, and each part has at most size bytes of that. Small parts take more
// memory than the dead letter, so they are not all held at once.
func SplitRecord(rec *kgo.Record, whole []byte, size int) iter.Seq[*kgo.Record] {
	return func(yield func(*kgo.Record) bool) {
		name, n, of := PartName(whole), 0, (len(whole)+size-1)/size
		for piece := range slices.Chunk(whole, size) {
			n++
			if !yield(partOf(rec, piece, n, of, name)) {
				return
			}
		}
	}
}

// partOf returns one part.
func partOf(rec *kgo.Record, piece []byte, n, of int, name string) *kgo.Record {
	part := &kgo.Record{Topic: rec.Topic, Value: piece, Headers: []kgo.RecordHeader{
		{Key: HeaderPart, Value: fmt.Appendf(nil, "%d/%d", n, of)}, {Key: HeaderPartOf, Value: []byte(name)},
	}}
	for _, key := range []string{HeaderTopic, HeaderTopicID, HeaderPartition, HeaderOffset, HeaderTimestamp, HeaderFailedAt, HeaderGroup, HeaderIntegration} {
		if value := HeaderOf(rec, key); value != "" {
			part.Headers = append(part.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
	}
	return part
}

// PartName returns the name of a dead letter's bytes: see HeaderPartOf.
func PartName(whole []byte) string {
	sum := sha256.Sum256(whole)
	return hex.EncodeToString(sum[:16])
}

// EncodeRecord returns key, value and headers of a record in one piece. Numbers are
// varints as in Kafka's own records, and so is the length in front of all bytes; the
// length of what is null is -1.
func EncodeRecord(rec *kgo.Record) (b []byte) {
	field := func(value []byte) {
		if value == nil {
			b = binary.AppendVarint(b, -1)
			return
		}
		b = append(binary.AppendVarint(b, int64(len(value))), value...)
	}
	field(rec.Key)
	field(rec.Value)
	b = binary.AppendVarint(b, int64(len(rec.Headers)))
	for _, h := range rec.Headers {
		field([]byte(h.Key))
		field(h.Value)
	}
	return b
}

// HeaderOf returns the last header of a name; "" if there is none.
func HeaderOf(rec *kgo.Record, key string) string {
	for _, h := range slices.Backward(rec.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// RecordBytes returns the bytes of key, value and headers.
func RecordBytes(rec *kgo.Record) int {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
