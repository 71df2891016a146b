package consumer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
)

// A dead letter that its topic refuses as too large is written in parts: its
// key, value and headers in one piece of bytes, cut and spread over records of
// one partition. It is the whole that is cut and not the value alone, since a
// key or headers of the event may be what is too large. A part has no key, these
// headers, and those that say which event of which group it belongs to. It has
// no HeaderCode, so a bridge that does not know parts takes none for a dead letter.
const (
	HeaderPart   = "bridge-part"    // which of how many, from 1: "2/3"
	HeaderPartOf = "bridge-part-of" // SHA-256 of the bytes, the first 16 in hexadecimal; the same on all parts
)

const (
	// partFloor is the least of the bytes that a part carries. A topic that
	// takes less than that and the headers of a part is for an operator.
	partFloor = 1 << 10
	// partFrame is what Kafka adds to a record that is a batch of its own, and
	// what compression may add to bytes that cannot be compressed.
	partFrame = 512
	// maxParts bounds the parts of a dead letter.
	maxParts = 1 << 20
	// maxOpen bounds the dead letters of which some parts have been read.
	// Writers that were interrupted leave one each.
	maxOpen = 1 << 10
)

// isPart reports whether a record of a dead-letter topic is a part.
func isPart(rec *kgo.Record) bool {
	part := false
	for _, h := range rec.Headers {
		if h.Key == HeaderCode {
			return false
		}
		part = part || h.Key == HeaderPart
	}
	return part
}

// tooLarge reports whether a topic, or the client, takes no record of this size.
func tooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// writeLarge writes a dead letter that was refused as too large: alone, if it
// was refused for those beside it, else in parts. The caller holds c.writing.
func (c *Cluster) writeLarge(ctx context.Context, letter *kgo.Record) error {
	alone := []*kgo.Record{letter}
	if _, err := c.produce(ctx, alone); !tooLarge(err) {
		return err
	}
	limit := c.messageLimit(ctx, letter.Topic)
	if size := recordBytes(letter) + partFrame; size <= limit && size <= deadLetterMax {
		// It has been raised since. A broker may not know of that yet, which is
		// no reason for parts.
		if _, err := c.produce(ctx, alone); !errors.Is(err, kerr.RecordListTooLarge) {
			return err
		}
	}
	placed, err := c.newMarkers()
	if err != nil {
		return err
	}
	defer placed.Close()
	found, err := c.topics(ctx, kafka.Write, letter.Topic)
	if err != nil {
		return err
	}
	source, _ := strconv.ParseInt(headerOf(letter, HeaderPartition), 10, 32) // written by deadLetter
	to := int32(int(source) % max(found[0].Partitions, 1))

	whole := appendLetter(nil, letter)
	size := min(deadLetterChunk, (len(whole)+1)/2)
	if limit > 0 {
		size = min(size, limit-partFrame-recordBytes(partOf(letter, nil, 1, maxParts, "")))
	}
	err = fmt.Errorf("%w: a part of %d bytes is too large", kerr.MessageTooLarge, partFloor)
	for ; size >= partFloor; size /= 2 {
		// The first is refused as all would be, so nothing is left behind.
		if err = c.writeParts(ctx, placed, letter, to, whole, size); !tooLarge(err) {
			return err
		}
	}
	return err
}

// writeParts writes the parts one by one: together they would be one batch,
// which is what the topic limits.
func (c *Cluster) writeParts(ctx context.Context, cl *kgo.Client, letter *kgo.Record, to int32, whole []byte, size int) error {
	name := partName(whole)
	of := (len(whole) + size - 1) / size
	n := 0
	for piece := range slices.Chunk(whole, size) {
		n++
		part := partOf(letter, piece, n, of, name)
		part.Partition = to
		if err := cl.ProduceSync(ctx, part).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// partOf makes one part.
func partOf(letter *kgo.Record, piece []byte, n, of int, name string) *kgo.Record {
	part := &kgo.Record{Topic: letter.Topic, Value: piece, Headers: []kgo.RecordHeader{
		{Key: HeaderPart, Value: fmt.Appendf(nil, "%d/%d", n, of)}, {Key: HeaderPartOf, Value: []byte(name)},
	}}
	for _, key := range []string{HeaderTopic, HeaderTopicID, HeaderPartition, HeaderOffset, HeaderTimestamp, HeaderFailedAt, HeaderGroup} {
		if value := headerOf(letter, key); value != "" {
			part.Headers = append(part.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
	}
	return part
}

// headerOf returns the last header of a name.
func headerOf(rec *kgo.Record, key string) string {
	for _, h := range slices.Backward(rec.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// messageLimit returns the max.message.bytes of a topic; 0 where the bridge may
// not ask for it.
func (c *Cluster) messageLimit(ctx context.Context, topic string) int {
	found, err := c.adm.DescribeTopicConfigs(ctx, topic)
	if err != nil || len(found) != 1 || found[0].Err != nil {
		return 0
	}
	for _, kv := range found[0].Configs {
		if kv.Key == "max.message.bytes" && kv.Value != nil {
			n, _ := strconv.Atoi(*kv.Value)
			return max(n, 0)
		}
	}
	return 0
}

// partName names the bytes of a dead letter.
func partName(whole []byte) string {
	sum := sha256.Sum256(whole)
	return hex.EncodeToString(sum[:16])
}

// appendLetter appends key, value and headers of a record. Numbers are varints
// as in Kafka's own records, and so is the length in front of all bytes; the
// length of what is null is -1.
func appendLetter(b []byte, rec *kgo.Record) []byte {
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

// readLetter reads what appendLetter wrote. The record shares the bytes, and its
// headers take at most so many besides.
func readLetter(b []byte, most int) (*kgo.Record, bool) {
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

// assembly puts parts of one partition together again.
type assembly struct {
	most int // bytes it may hold
	held int
	open []*partial // the one that grew last is the last
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
func (p *partial) bytes() int { return len(p.b) + recordBytes(p.last) + 256 }

// take takes the next part. It returns the dead letter that is complete with
// it, or those that are given up for it.
func (a *assembly) take(rec *kgo.Record) (letters []*DeadLetter) {
	n, of, ok := parsePart(headerOf(rec, HeaderPart))
	name := headerOf(rec, HeaderPartOf)
	if !ok || name == "" {
		return []*DeadLetter{brokenParts(rec, fmt.Sprintf("header %s is %.40q", HeaderPart, headerOf(rec, HeaderPart)))}
	}
	at := slices.IndexFunc(a.open, func(p *partial) bool { return p.name == name && p.of == of })
	p := &partial{name: name, of: of, from: rec.Offset}
	if at >= 0 {
		p = a.open[at]
		a.held -= p.bytes()
		a.open = slices.Delete(a.open, at, at+1)
	}
	p.last = withoutValue(rec)
	switch {
	case n == 1: // also where a writer began again
		p.b, p.n = append(p.b[:0], rec.Value...), 1
	case n == p.n+1:
		p.b, p.n = append(p.b, rec.Value...), n
	case n > p.n+1:
		p.b, p.n = nil, -1
	}
	// A part that was there already is a second attempt of the same writer.
	if p.n == of {
		return []*DeadLetter{p.letter(a.most)}
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
		letters = append(letters, first.broken(fmt.Sprintf("it is written in %d parts, and %s", first.of, why)))
	}
	return letters
}

// rest returns the dead letters of which parts are missing.
func (a *assembly) rest() (letters []*DeadLetter) {
	for _, p := range a.open {
		fault := fmt.Sprintf("it is written in %d parts, of which the first %d are there", p.of, p.n)
		if p.n < 0 {
			fault = fmt.Sprintf("it is written in %d parts, and some of them are missing", p.of)
		}
		letters = append(letters, p.broken(fault))
	}
	a.open, a.held = nil, 0
	return letters
}

// letter is the dead letter of parts that are all there. It has the place of
// the last one.
func (p *partial) letter(most int) *DeadLetter {
	rec, ok := readLetter(p.b, most)
	if !ok || partName(p.b) != p.name {
		return p.broken(fmt.Sprintf("its %d parts together are not what was written", p.of))
	}
	rec.Topic, rec.Partition, rec.Offset, rec.Timestamp = p.last.Topic, p.last.Partition, p.last.Offset, p.last.Timestamp
	l := ParseDeadLetter(rec)
	l.Parts, l.from, l.partOf = p.of, p.from, p.name
	return l
}

// broken is the dead letter as one that cannot be put together.
func (p *partial) broken(fault string) *DeadLetter {
	l := brokenParts(p.last, fault)
	l.Parts, l.from = p.of, p.from
	return l
}

// withoutValue copies what is kept of a part: the record itself is part of a
// fetch, which may be large.
func withoutValue(rec *kgo.Record) *kgo.Record {
	kept := &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp}
	for _, h := range rec.Headers {
		kept.Headers = append(kept.Headers, kgo.RecordHeader{Key: strings.Clone(h.Key), Value: slices.Clone(h.Value)})
	}
	return kept
}

// brokenParts is a dead letter that cannot be put together. What a part holds is
// a piece of it only.
func brokenParts(part *kgo.Record, fault string) *DeadLetter {
	l := ParseDeadLetter(part)
	l.Fault, l.Parts, l.partOf = fault, 1, headerOf(part, HeaderPartOf)
	l.Original.Value, l.Original.Headers = nil, nil
	return l
}

// parsePart reads "2/3".
func parsePart(text string) (n, of int, ok bool) {
	number := func(text string) (n int, ok bool) {
		n, err := strconv.Atoi(text)
		return n, err == nil && n > 0 && n <= maxParts && text[0] != '+'
	}
	one, all, _ := strings.Cut(text, "/")
	n, ok = number(one)
	of, enough := number(all)
	return n, of, ok && enough && n <= of
}
