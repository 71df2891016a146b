// Package deadletter reads, lists and redrives the dead letters that consumer
// writes. It joins no group and delivers nothing on its own.
package deadletter

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
)

// Record is a dead letter: its place in the log, and what its headers contain.
type Record struct {
	Topic     string // the dead-letter topic
	Partition int32
	Offset    int64
	Headers   []kgo.RecordHeader // all of them

	Code     string // why it was rejected; empty where no bridge wrote the record
	Column   string // the column at fault; may be empty
	Reason   string // for people
	Attempts int    // times the bridge gave up on the event, in all its dead letters; 0: not known
	Copies   int    // dead letters of the event, this one included; 0: they were not compared
	FailedAt time.Time
	Version  string // of the bridge that wrote it
	Group    string // consumer group that rejected it; empty where older bridges left it out
	// Integration is the one of the Reader's to which the dead letter belongs; from
	// Parse, the one that rejected it, and empty where older bridges left that out.
	Integration string

	// Events are those of the record that failed. The others were delivered.
	Events consumer.Events
	// EventCount is how many events the record was found to hold; 0 where older
	// bridges left it out.
	EventCount int
	// TopicID is the id of the topic that Original was read from; zero where older
	// bridges, or brokers, gave none.
	TopicID [16]byte

	// Original is the record as it was read from its topic. What a header lacks is
	// its zero value; see Fault.
	Original *kgo.Record
	// Fault is why the record cannot be mapped as it was: headers that are missing or
	// invalid. Empty for a dead letter that is complete.
	Fault string
	// Resolved dead letters were delivered by a redrive; of others some events may
	// have been, which are in Delivered.
	Resolved  bool
	Delivered consumer.Events
	// Replaced dead letters have a newer one of the same event.
	Replaced bool
	// Parts is how many records the dead letter consists of; 0 for one that is
	// whole. Offset is that of the last.
	Parts int

	from    int64     // offset of its first record
	partOf  string    // HeaderPartOf of its parts
	written time.Time // as Kafka has it
}

// of reports whether a dead letter belongs to an integration. Its consumer group
// decides, which is no other's: an integration that continues with the group of one
// that it replaces has the dead letters of that, too. Where an older bridge left the
// group out, the name decides. One without either belongs to default, or to the
// integration that shares its dead-letter topic with no other. A record that names no
// source, and cannot be redriven, belongs to each whose dead-letter topic holds it.
func (r *Record) of(cfg *consumer.Config) bool {
	name := cfg.Rejects.Name()
	switch {
	case r.Original.Topic != "" && !slices.Contains(cfg.Topics, r.Original.Topic):
		return false
	case r.Group != "":
		return r.Group == consumer.CutText(cfg.Group, consumer.MaxHeaderText)
	case r.Integration != "":
		return r.Integration == name
	}
	return (name == consumer.DefaultIntegration || cfg.Rejects.Topic == "" || r.Original.Topic == "") && slices.Contains(cfg.DeadLetterTopics(), r.Topic)
}

// bytes is the memory a dead letter takes.
func (r *Record) bytes() int {
	n := len(r.Original.Key) + len(r.Original.Value) + runBytes*(len(r.Events)+len(r.Delivered))
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// Parse reads a record of a dead-letter topic. It never fails: Fault reports
// invalid headers. The dead letter shares the record's bytes.
func Parse(rec *kgo.Record) *Record {
	original, added := splitHeaders(rec.Headers)
	r := &Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Headers: rec.Headers, from: rec.Offset, written: rec.Timestamp,
		Original: &kgo.Record{Key: rec.Key, Value: rec.Value, Headers: original}}
	text := make(map[string]string, len(bridgeHeaders))
	for _, h := range added {
		if bridgeHeaders[h.Key] {
			text[h.Key] = string(h.Value)
		}
	}
	r.Code, r.Column, r.Reason = text[consumer.HeaderCode], text[consumer.HeaderColumn], text[consumer.HeaderReason]
	r.Version, r.Group = text[consumer.HeaderVersion], text[consumer.HeaderGroup]
	r.Integration = text[consumer.HeaderIntegration]
	if n, err := strconv.Atoi(text[consumer.HeaderAttempts]); err == nil && n > 0 && n < 1<<30 {
		r.Attempts = n
	}
	r.FailedAt, _ = time.Parse(time.RFC3339, text[consumer.HeaderFailedAt]) // for people; zero if not known
	if n, err := strconv.Atoi(text[consumer.HeaderEventCount]); err == nil && n > 0 && n <= consumer.MaxEvents {
		r.EventCount = n
	}

	var faults []string
	need := func(key string, valid func(text string) bool) {
		value, ok := text[key]
		switch {
		case !ok:
			faults = append(faults, "no header "+key)
		case !valid(value):
			faults = append(faults, fmt.Sprintf("header %s is %.40q", key, value))
		}
	}
	number := func(text string, bits int) (int64, bool) {
		n, err := strconv.ParseInt(text, 10, bits)
		return max(n, 0), err == nil && n >= 0
	}
	need(consumer.HeaderCode, func(text string) bool { return text != "" })
	need(consumer.HeaderEvents, func(text string) (ok bool) { r.Events, ok = consumer.ParseEvents(text); return ok })
	need(consumer.HeaderTopic, func(text string) bool { r.Original.Topic = text; return text != "" })
	if _, ok := text[consumer.HeaderTopicID]; ok { // bridges before this header wrote none
		need(consumer.HeaderTopicID, func(text string) (ok bool) { r.TopicID, ok = kafka.ParseTopicID(text); return ok })
	}
	need(consumer.HeaderPartition, func(text string) bool {
		n, ok := number(text, 32)
		r.Original.Partition = int32(n)
		return ok
	})
	need(consumer.HeaderOffset, func(text string) (ok bool) { r.Original.Offset, ok = number(text, 64); return ok })
	need(consumer.HeaderTimestamp, func(text string) bool {
		at, err := time.Parse(time.RFC3339, text)
		r.Original.Timestamp = at
		return err == nil
	})
	r.Fault = strings.Join(faults, ", ")
	return r
}

// bridgeHeaders are the headers that a bridge appends to the original.
var bridgeHeaders = map[string]bool{
	consumer.HeaderCode: true, consumer.HeaderReason: true, consumer.HeaderColumn: true, consumer.HeaderEvents: true, consumer.HeaderEventCount: true,
	consumer.HeaderTopic: true, consumer.HeaderTopicID: true, consumer.HeaderPartition: true, consumer.HeaderOffset: true, consumer.HeaderTimestamp: true,
	consumer.HeaderAttempts: true, consumer.HeaderFailedAt: true, consumer.HeaderVersion: true, consumer.HeaderGroup: true,
	consumer.HeaderIntegration: true,
}

// splitHeaders separates the headers of the original from those a bridge appended,
// which begin with the last code. The original may hold headers of the same names,
// if somebody copied it back from a dead-letter topic, and those are its own. Where
// another header is among the bridge's the order means nothing: all of the bridge's
// are left out of the original, and all are read.
func splitHeaders(all []kgo.RecordHeader) (original, added []kgo.RecordHeader) {
	for tail := len(all); tail > 0 && bridgeHeaders[all[tail-1].Key]; {
		tail--
		if all[tail].Key == consumer.HeaderCode {
			return all[:tail:tail], all[tail:]
		}
	}
	for _, h := range all {
		if !bridgeHeaders[h.Key] {
			original = append(original, h)
		}
	}
	return original, all
}

// hasHeader reports whether a record has a header and is no dead letter: parts and
// markers have no code.
func hasHeader(rec *kgo.Record, key string) bool {
	has := false
	for _, h := range rec.Headers {
		if h.Key == consumer.HeaderCode {
			return false
		}
		has = has || h.Key == key
	}
	return has
}

func isPart(rec *kgo.Record) bool { return hasHeader(rec, consumer.HeaderPart) }

// readRecord reads key, value and headers as consumer writes them into parts. The
// record shares the bytes, and its headers take at most so many bytes more.
func readRecord(b []byte, most int) (*kgo.Record, bool) {
	const headerBytes = 40 // of a kgo.RecordHeader, which may be made of two
	ok := true
	number := func() int64 {
		n, size := binary.Varint(b)
		if size <= 0 {
			ok = false
			return 0
		}
		b = b[size:]
		return n
	}
	field := func() []byte {
		n := number()
		if n < 0 || n > int64(len(b)) {
			ok = ok && n == -1
			return nil
		}
		value := b[:n:n]
		b = b[n:]
		return value
	}
	rec := &kgo.Record{Key: field(), Value: field()}
	for n := number(); ok && n > 0; n-- {
		if (len(rec.Headers)+1)*headerBytes > most {
			return nil, false
		}
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: string(field()), Value: field()})
	}
	return rec, ok && len(b) == 0
}

// maxOpen bounds the dead letters of which some parts have been read. Each
// interrupted writer leaves one.
const maxOpen = 1 << 10

// assembly puts the parts of one partition together.
type assembly struct {
	most int // bytes it may hold
	held int
	open []*partial // in the order in which they last grew
}

// partial is a dead letter of which parts have been read.
type partial struct {
	name string
	of   int
	n    int // parts read; -1: one was missing
	b    []byte
	from int64       // offset of the first that was read
	last *kgo.Record // the part read last, without its value
}

// bytes is the memory it takes.
func (p *partial) bytes() int { return len(p.b) + consumer.RecordBytes(p.last) + 256 }

// add adds the next part. It returns the dead letter that is complete with it, or
// those that are given up for it.
func (a *assembly) add(rec *kgo.Record) (records []*Record) {
	text, name := consumer.HeaderOf(rec, consumer.HeaderPart), consumer.HeaderOf(rec, consumer.HeaderPartOf)
	n, of, ok := parsePart(text)
	if !ok || name == "" {
		return []*Record{broken(rec, fmt.Sprintf("header %s is %.40q", consumer.HeaderPart, text))}
	}
	at := slices.IndexFunc(a.open, func(p *partial) bool { return p.name == name && p.of == of })
	p := &partial{name: name, of: of, from: rec.Offset}
	if at >= 0 {
		p = a.open[at]
		a.held -= p.bytes()
		a.open = slices.Delete(a.open, at, at+1)
	}
	// A copy: the record itself is part of a fetch, which may be large.
	p.last = &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp}
	for _, h := range rec.Headers {
		p.last.Headers = append(p.last.Headers, kgo.RecordHeader{Key: strings.Clone(h.Key), Value: slices.Clone(h.Value)})
	}
	switch {
	case n == 1: // also where a writer began again
		p.b, p.n = append(p.b[:0], rec.Value...), 1
	case n == p.n+1:
		p.b, p.n = append(p.b, rec.Value...), n
	case n > p.n+1:
		p.b, p.n = nil, -1
	}
	// Any other part is there already: a second attempt of the same writer.
	if p.n == of {
		return []*Record{p.record(a.most)}
	}
	a.open = append(a.open, p)
	a.held += p.bytes()
	for a.held > a.most || len(a.open) > maxOpen {
		first := a.open[0]
		why := fmt.Sprintf("%d others have begun between them", maxOpen)
		if a.held > a.most {
			why = fmt.Sprintf("with others between them they are more than %d bytes; raise delivery.max_buffered", a.most)
		}
		a.held -= first.bytes()
		a.open = slices.Delete(a.open, 0, 1)
		records = append(records, first.broken(fmt.Sprintf("it is written in %d parts, and %s", first.of, why)))
	}
	return records
}

// rest returns the dead letters of which parts are missing.
func (a *assembly) rest() (records []*Record) {
	for _, p := range a.open {
		fault := fmt.Sprintf("it is written in %d parts, of which the first %d are there", p.of, p.n)
		if p.n < 0 {
			fault = fmt.Sprintf("it is written in %d parts, and some of them are missing", p.of)
		}
		records = append(records, p.broken(fault))
	}
	a.open, a.held = nil, 0
	return records
}

// record returns the dead letter of parts that are all there. It has the offset of
// the last one.
func (p *partial) record(most int) *Record {
	rec, ok := readRecord(p.b, most)
	if !ok || consumer.PartName(p.b) != p.name {
		return p.broken(fmt.Sprintf("its %d parts together are not what was written", p.of))
	}
	rec.Topic, rec.Partition, rec.Offset, rec.Timestamp = p.last.Topic, p.last.Partition, p.last.Offset, p.last.Timestamp
	r := Parse(rec)
	r.Parts, r.from, r.partOf = p.of, p.from, p.name
	return r
}

func (p *partial) broken(fault string) *Record {
	r := broken(p.last, fault)
	r.Parts, r.from = p.of, p.from
	return r
}

// broken returns a dead letter that cannot be put together. A part holds only a
// piece of it.
func broken(part *kgo.Record, fault string) *Record {
	r := Parse(part)
	r.Fault, r.Parts, r.partOf = fault, 1, consumer.HeaderOf(part, consumer.HeaderPartOf)
	r.Original.Value, r.Original.Headers = nil, nil
	return r
}

// parsePart reads "2/3".
func parsePart(text string) (n, of int, ok bool) {
	number := func(text string) (n int, ok bool) {
		n, err := strconv.Atoi(text)
		return n, err == nil && n > 0 && n <= consumer.MaxParts && text[0] != '+'
	}
	one, all, _ := strings.Cut(text, "/")
	n, ok = number(one)
	of, enough := number(all)
	return n, of, ok && enough && n <= of
}
