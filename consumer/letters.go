package consumer

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// DeadLetter is a dead letter: where it lies, and what its headers say.
type DeadLetter struct {
	Topic     string // the dead-letter topic
	Partition int32
	Offset    int64
	Headers   []kgo.RecordHeader // as they lie there

	Code     string // why it was rejected; empty where no bridge wrote the record
	Column   string // the column at fault; may be empty
	Reason   string // for people
	Attempts int    // times the bridge gave up on the event, in all its dead letters; 0: not known
	Copies   int    // dead letters of the event, this one included; 0: they were not compared
	FailedAt time.Time
	Version  string // of the bridge that wrote it
	Group    string // consumer group it was lost to; empty in letters of bridges that did not say

	// Events are those of the record that failed. The others were delivered.
	Events Events
	// EventCount is how many events the record was found to hold; 0 in letters
	// of bridges that did not say.
	EventCount int
	// TopicID is the id of the topic that Original was read from; zero in
	// dead letters of bridges, or from brokers, that gave none.
	TopicID [16]byte

	// Original is the record as it was read from its topic. What a header
	// should tell and does not is its zero value; see Fault.
	Original *kgo.Record
	// Fault says why the record cannot be mapped as it was, from headers that
	// are missing or make no sense; empty for a letter that is whole.
	Fault string
	// Settled letters have landed in a redrive; of others some events may have,
	// which are in Landed.
	Settled bool
	Landed  Events
	// Replaced letters have a newer one of the same event.
	Replaced bool
	// Parts is how many records the dead letter lies in; 0 for one that lies in
	// one. Offset is that of the last.
	Parts int

	from    int64     // offset of its first record
	partOf  string    // HeaderPartOf of its parts
	written time.Time // as Kafka has it
}

// OfGroup reports whether the event was lost to the consumer group, as far as
// that is known.
func (l *DeadLetter) OfGroup(group string) bool {
	return l.Group == "" || l.Group == cutText(group, maxHeaderText)
}

// bytes is the memory a letter takes.
func (l *DeadLetter) bytes() int {
	n := len(l.Original.Key) + len(l.Original.Value) + runBytes*(len(l.Events)+len(l.Landed))
	for _, h := range l.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// ParseDeadLetter reads a record of a dead-letter topic. It never fails: what is
// wrong with the headers is told in Fault. The letter shares the record's bytes.
func ParseDeadLetter(rec *kgo.Record) *DeadLetter {
	original, told := splitHeaders(rec.Headers)
	l := &DeadLetter{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Headers: rec.Headers, from: rec.Offset, written: rec.Timestamp,
		Original: &kgo.Record{Key: rec.Key, Value: rec.Value, Headers: original}}
	said := make(map[string]string, len(ours))
	for _, h := range told {
		if ours[h.Key] {
			said[h.Key] = string(h.Value)
		}
	}
	l.Code, l.Column, l.Reason, l.Version, l.Group = said[HeaderCode], said[HeaderColumn], said[HeaderReason], said[HeaderVersion], said[HeaderGroup]
	if n, err := strconv.Atoi(said[HeaderAttempts]); err == nil && n > 0 && n < 1<<30 {
		l.Attempts = n
	}
	l.FailedAt, _ = time.Parse(time.RFC3339, said[HeaderFailedAt]) // for people; zero says that it is not known
	if n, err := strconv.Atoi(said[HeaderEventCount]); err == nil && n > 0 && n <= maxLetterEvents {
		l.EventCount = n
	}

	var faults []string
	need := func(key string, read func(text string) bool) {
		text, ok := said[key]
		switch {
		case !ok:
			faults = append(faults, "no header "+key)
		case !read(text):
			faults = append(faults, fmt.Sprintf("header %s is %.40q", key, text))
		}
	}
	need(HeaderCode, func(text string) bool { return text != "" })
	need(HeaderEvents, func(text string) (ok bool) { l.Events, ok = parseEvents(text); return ok })
	need(HeaderTopic, func(text string) bool { l.Original.Topic = text; return text != "" })
	if _, ok := said[HeaderTopicID]; ok { // bridges before this header wrote none
		need(HeaderTopicID, func(text string) (ok bool) { l.TopicID, ok = parseTopicID(text); return ok })
	}
	need(HeaderPartition, func(text string) bool {
		n, err := strconv.ParseInt(text, 10, 32)
		l.Original.Partition = int32(max(n, 0))
		return err == nil && n >= 0
	})
	need(HeaderOffset, func(text string) bool {
		n, err := strconv.ParseInt(text, 10, 64)
		l.Original.Offset = max(n, 0)
		return err == nil && n >= 0
	})
	need(HeaderTimestamp, func(text string) (ok bool) {
		at, err := time.Parse(time.RFC3339, text)
		l.Original.Timestamp = at
		return err == nil
	})
	l.Fault = strings.Join(faults, ", ")
	return l
}

// ours are the headers that deadLetter appends.
var ours = map[string]bool{
	HeaderCode: true, HeaderReason: true, HeaderColumn: true, HeaderEvents: true, HeaderEventCount: true,
	HeaderTopic: true, HeaderTopicID: true, HeaderPartition: true, HeaderOffset: true, HeaderTimestamp: true,
	HeaderAttempts: true, HeaderFailedAt: true, HeaderVersion: true, HeaderGroup: true,
}

// splitHeaders tells the headers of the original from those deadLetter
// appended, which begin with the last code. The original may hold headers of
// the same names, if somebody copied it back from a dead-letter topic, and
// those are its own. Where a stranger stands among ours the order says nothing:
// all of ours are left out of the original, and all may tell.
func splitHeaders(all []kgo.RecordHeader) (original, told []kgo.RecordHeader) {
	tail := len(all)
	for tail > 0 && ours[all[tail-1].Key] {
		tail--
		if all[tail].Key == HeaderCode {
			return all[:tail:tail], all[tail:]
		}
	}
	for _, h := range all {
		if !ours[h.Key] {
			original = append(original, h)
		}
	}
	return original, all
}
