package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
)

// Headers of a dead letter. The key, the value and the headers of the original
// record stay as they were; these are appended. Where a name occurs twice (an
// event that failed again after a redrive) the last one counts.
const (
	HeaderCode   = "bridge-error-code"   // closed set
	HeaderReason = "bridge-error-reason" // for people
	HeaderColumn = "bridge-error-column" // left out when no column is at fault
	HeaderEvents = "bridge-event-index"  // events of the record that failed, "0" or "1,4"; from 0
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
)

const (
	// deadLetterMax is the largest dead letter we try to produce. Brokers
	// take 1 MiB unless the topic says more.
	deadLetterMax = 32 << 20
	// deadLetterChunk keeps one produce request of several dead letters
	// below the 1 MiB that a topic takes by default.
	deadLetterChunk = 512 << 10

	instant = "2006-01-02T15:04:05.000Z07:00"
)

// deadLetters makes one dead letter per record from the rejects of a batch.
// rejects are in record order.
func (c *Cluster) deadLetters(b *Batch, now time.Time) []*kgo.Record {
	var letters []*kgo.Record
	for i := 0; i < len(b.rejected); {
		first := b.rejected[i]
		var indexes []string
		for ; i < len(b.rejected) && b.rejected[i].rec == first.rec; i++ {
			indexes = append(indexes, strconv.Itoa(b.rejected[i].index))
		}
		if !first.passed {
			letters = append(letters, c.deadLetter(b.recs[first.rec], first, strings.Join(indexes, ","), b.sizes[first.rec], b.topicID, now))
		}
	}
	return letters
}

func (c *Cluster) deadLetter(rec *kgo.Record, r Reject, indexes string, events int, topicID [16]byte, now time.Time) *kgo.Record {
	attempts := attemptsOf(rec) + 1
	headers := make([]kgo.RecordHeader, len(rec.Headers), len(rec.Headers)+14)
	copy(headers, rec.Headers)
	add := func(key, value string) {
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	add(HeaderCode, r.Code)
	add(HeaderReason, r.Reason)
	if r.Column != "" {
		add(HeaderColumn, r.Column)
	}
	add(HeaderEvents, indexes)
	add(HeaderEventCount, strconv.Itoa(events))
	add(HeaderTopic, rec.Topic)
	if topicID != noTopicID {
		add(HeaderTopicID, topicIDText(topicID))
	}
	add(HeaderPartition, strconv.Itoa(int(rec.Partition)))
	add(HeaderOffset, strconv.FormatInt(rec.Offset, 10))
	add(HeaderTimestamp, rec.Timestamp.UTC().Format(instant))
	add(HeaderAttempts, strconv.Itoa(attempts))
	add(HeaderFailedAt, now.UTC().Format(instant))
	add(HeaderVersion, c.cfg.Version)
	add(HeaderGroup, c.cfg.Group)
	return &kgo.Record{Topic: c.cfg.Rejects.deadLetterTopic(rec.Topic), Key: rec.Key, Value: rec.Value, Headers: headers}
}

// CodeDeadLetterLoop is the code of a reject for which no dead letter is
// written, because the record is a dead letter that was given up before:
// writing it again could go on without end.
const CodeDeadLetterLoop = "dead_letter_loop"

// loopAttempts is the attempt from which on that holds.
const loopAttempts = 3

const loopRemedy = "check whether the dead-letter topic of this bridge is read by another whose own is read here; the records stay in the topic they were read from"

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

// produce returns nil once every letter is acknowledged. When ctx ends it does
// not wait for the client to notice, which takes until its next attempt, or for
// ever while a broker hangs.
func (c *Cluster) produce(ctx context.Context, letters []*kgo.Record) error {
	results := make(chan error, len(letters))
	for _, letter := range letters {
		c.writer.Produce(ctx, letter, func(_ *kgo.Record, err error) { results <- err })
	}
	var failed error
	for range letters {
		select {
		case err := <-results:
			failed = cmp.Or(failed, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return failed
}

// writeDeadLetters returns nil once every letter is acknowledged by all in-sync
// replicas. After an error some of them may be in the topic; they are written
// again with the rest. A missing dead-letter topic of source is created first,
// where that is allowed.
func (c *Cluster) writeDeadLetters(ctx context.Context, source string, letters []*kgo.Record) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for len(letters) > 0 {
		n, size := 0, 0
		for n < len(letters) && (n == 0 || size+len(letters[n].Value) < deadLetterChunk) {
			size += len(letters[n].Value) + len(letters[n].Key) + 1024
			n++
		}
		topic := letters[0].Topic
		if err := c.ensureDeadLetter(ctx, topic, source); err != nil {
			return err
		}
		if err := c.produceAgain(ctx, letters[:n]); err != nil {
			delete(c.ensured, topic) // it may have been deleted
			if errors.Is(err, kerr.ClusterAuthorizationFailed) {
				if rerr := c.renewWriter(); rerr != nil {
					return rerr
				}
			}
			return c.cfg.Kafka.explain(fmt.Sprintf("writing %d dead letters to %s", n, topic), err, kafka.Request{Topic: topic, Operation: kafka.Write})
		}
		letters = letters[n:]
	}
	return nil
}
