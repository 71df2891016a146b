package consumer

import (
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
)

const (
	// deadLetterMax is the largest dead letter we try to produce as one record.
	// Brokers take 1 MiB unless the topic says more.
	deadLetterMax = 32 << 20
	// deadLetterChunk keeps one produce request of several dead letters
	// below the 1 MiB that a topic takes by default.
	deadLetterChunk = 512 << 10

	// Bounds of the headers that are appended, in bytes. Together they stay
	// far below headroom, so that a dead letter of any event that its topic
	// takes fits into a dead-letter topic that the bridge has created.
	maxEventsText = 8 << 10
	maxReasonText = 4 << 10
	maxHeaderText = 1 << 10 // of code, column, version and group each

	instant = "2006-01-02T15:04:05.000Z07:00"
)

// deadLetters makes one dead letter per record from the rejects of a batch.
// rejects are in record order.
func (c *Cluster) deadLetters(b *Batch, now time.Time) []*kgo.Record {
	var letters []*kgo.Record
	for i := 0; i < len(b.rejected); {
		first := b.rejected[i]
		var events Events
		for ; i < len(b.rejected) && b.rejected[i].rec == first.rec; i++ {
			events.add(b.rejected[i].index)
		}
		if !first.passed {
			letters = append(letters, c.deadLetter(b.recs[first.rec], first, events, b.sizes[first.rec], b.topicID, now))
		}
	}
	return letters
}

func (c *Cluster) deadLetter(rec *kgo.Record, r Reject, failed Events, events int, topicID [16]byte, now time.Time) *kgo.Record {
	attempts := attemptsOf(rec) + 1
	headers := make([]kgo.RecordHeader, len(rec.Headers), len(rec.Headers)+14)
	copy(headers, rec.Headers)
	add := func(key, value string) {
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	add(HeaderCode, cutText(r.Code, maxHeaderText))
	add(HeaderReason, cutText(r.Reason, maxReasonText))
	if r.Column != "" {
		add(HeaderColumn, cutText(r.Column, maxHeaderText))
	}
	add(HeaderEvents, failed.within(maxEventsText).String())
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
	add(HeaderVersion, cutText(c.cfg.Version, maxHeaderText))
	add(HeaderGroup, cutText(c.cfg.Group, maxHeaderText))
	return &kgo.Record{Topic: c.cfg.Rejects.TopicFor(rec.Topic), Key: rec.Key, Value: rec.Value, Headers: headers}
}

// cutText returns text in UTF-8 of at most so many bytes; what is cut ends with
// three dots.
func cutText(text string, most int) string {
	dots := ""
	if len(text) > most {
		dots = "..."
		text = text[:most-len(dots)]
	}
	return strings.ToValidUTF8(text, "?") + dots
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

// produce returns the letters that were not acknowledged, in order, and why. An
// error that a smaller record would not have had is returned only where there
// is no other. When ctx ends it does not wait for the client to notice, which
// takes until its next attempt, or for ever while a broker hangs.
func (c *Cluster) produce(ctx context.Context, letters []*kgo.Record) (left []*kgo.Record, err error) {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, len(letters))
	for n, letter := range letters {
		c.writer.Produce(ctx, letter, func(_ *kgo.Record, err error) { results <- result{n, err} })
	}
	failed := make([]bool, len(letters))
	for range letters {
		select {
		case r := <-results:
			failed[r.n] = r.err != nil
			if r.err != nil && (err == nil || tooLarge(err)) {
				err = r.err
			}
		case <-ctx.Done():
			return letters, ctx.Err()
		}
	}
	for n, letter := range letters {
		if failed[n] {
			left = append(left, letter)
		}
	}
	return left, err
}

// writeDeadLetters returns nil once every letter is acknowledged by all in-sync
// replicas, and else those that are not, as far as is known: an error leaves
// open whether they are in the topic. A missing dead-letter topic of source is
// created first, where that is allowed. What the topic takes no record of is
// written in parts.
func (c *Cluster) writeDeadLetters(ctx context.Context, source string, letters []*kgo.Record) (left []*kgo.Record, err error) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return letters, ctx.Err()
	}
	for len(letters) > 0 {
		n, size := 0, 0
		for n < len(letters) && (n == 0 || size+recordBytes(letters[n]) < deadLetterChunk) {
			size += recordBytes(letters[n]) + 128
			n++
		}
		topic := letters[0].Topic
		if err := c.ensureDeadLetter(ctx, topic, source); err != nil {
			return letters, err
		}
		left, err := c.produceAgain(ctx, letters[:n])
		if tooLarge(err) {
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
			left = append(slices.Clip(left), letters[n:]...)
			return left, c.cfg.Kafka.explain(fmt.Sprintf("writing %d dead letters to %s", len(left), topic), err, kafka.Request{Topic: topic, Operation: kafka.Write})
		}
		letters = letters[n:]
	}
	return nil, nil
}
