package mapping

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 defines UUID version 5 over SHA-1; nothing is kept secret by it
	"encoding/base64"
	"slices"
	"strconv"

	"github.com/datafly/bridge/internal/delta"
)

// An envelope is what surrounds events: a batch, or the objects an event is
// wrapped in. Its context, timestamp, sent_at and consent apply to
// each event that does not have them itself. Objects are merged, so that an event
// with a page of its own keeps the ip of its batch.

// inherited is a path that an envelope may fill, in all its spellings.
type inherited struct {
	slots    []int32
	above    []int32 // the objects on the way to it
	instead  []int32 // fields of the event that say as much
	verbatim bool    // keys below are the customer's own
}

// envelope is what the objects around an event say for it.
type envelope struct {
	vals    []span // by node of Mapping.events
	filled  bool   // vals hold something to inherit
	denied  bool   // a required category of consent
	granted []bool // by required category
}

// inheritable are the keys of an envelope that apply to its events.
var inheritable = []string{"context", "timestamp", "sent_at", "consent"}

// inherit notes a path that the blueprint reads where an envelope may fill it.
func (c *compiler) inherit(path []step, slots []int32) {
	all, err := spellings(path)
	if err != nil || path[0].isIndex || !slices.Contains(inheritable, alternatives(path[0].key)[0].key) {
		return
	}
	in := inherited{slots: slots, verbatim: below(path)}
	for _, known := range c.m.inherits {
		if slices.Equal(known.slots, slots) {
			return
		}
	}
	for _, steps := range all {
		for n := 1; n < len(steps); n++ {
			if id := c.m.events.add(steps[:n]).id; !slices.Contains(in.above, id) {
				in.above = append(in.above, id)
			}
		}
		if head := c.m.events.add(steps[:1]).id; !slices.Contains(c.m.heads, head) {
			c.m.heads = append(c.m.heads, head)
		}
	}
	c.m.inherits = append(c.m.inherits, in)
}

// finishInherits makes an event that has a time of another name keep it: the
// time of its envelope is that of sending or of failing, not its own.
func (c *compiler) finishInherits() {
	root := c.m.events.root
	stamp := root.find(step{key: "timestamp"})
	if stamp == nil {
		return
	}
	for i := range c.m.inherits {
		in := &c.m.inherits[i]
		if !slices.Contains(in.slots, stamp.id) {
			continue
		}
		for _, key := range []string{"event_timestamp", "eventTimestamp", "original_timestamp", "originalTimestamp"} {
			if n := root.find(step{key: key}); n != nil {
				in.instead = append(in.instead, n.id)
			}
		}
	}
}

// newEnvelope returns an envelope for events of m.
func (m *Mapping) newEnvelope() envelope {
	return envelope{vals: make([]span, len(m.events.paths)), granted: make([]bool, len(m.consent))}
}

// surround adds what the object just scanned holds to what the objects around it
// say; from then on it applies to what is inside. false means that the envelope
// is too large for its events, see maxInherited.
func (m *Mapper) surround(to *envelope) bool {
	outer := m.env
	if !m.inherit() {
		return false
	}
	to.denied = outer != nil && outer.denied
	for i := range m.m.consent {
		said := m.consent(&m.m.consent[i])
		to.denied = to.denied || said == denied
		to.granted[i] = said == granted || outer != nil && outer.granted[i]
	}
	if to.filled = slices.ContainsFunc(m.m.heads, func(id int32) bool { return m.s.vals[id].kind > null }); to.filled {
		copy(to.vals, m.s.vals)
	}
	m.env = to
	return true
}

// maxInherited and maxInheritedTimes bound what the events of a record may
// inherit, in bytes: so much, and so many times the record. Without a bound a
// large context around many small events would fill the memory.
const (
	maxInherited      = 16 << 20
	maxInheritedTimes = 8
)

// tooLarge rejects an event that would inherit more than maxInherited.
func (m *Mapper) tooLarge() {
	m.reject(CodeOutOfRange, "", "what the batch or wrapper adds to its events is too large to be repeated for each of them; send fewer events in a batch, or less in its context")
}

// inherit fills what the event just scanned does not say with what the objects
// around it say. Spans point into the record for both, so nothing is copied but
// objects that have to be merged.
func (m *Mapper) inherit() bool {
	if m.env == nil || !m.env.filled {
		return true
	}
	for i := range m.m.inherits {
		in := &m.m.inherits[i]
		slot := firstOf(m.env.vals, in.slots)
		if slot < 0 {
			continue
		}
		from := m.env.vals[slot]
		own := firstOf(m.s.vals, in.slots)
		switch {
		case own >= 0 && m.s.vals[own].kind == object && from.kind == object:
			m.s.vals[own] = m.merge(m.s.vals[own], from, in.verbatim)
		case own >= 0 || m.replaces(in):
			continue
		default:
			for _, id := range in.slots {
				m.s.vals[id] = m.env.vals[id]
			}
		}
		if m.inherited += int(from.end - from.start); m.inherited > maxInherited+maxInheritedTimes*len(m.rec.Value) {
			return false
		}
	}
	return true
}

// inherits reports whether the event has the value at the node from what
// surrounds it.
func (m *Mapper) inherits(slot int32) bool {
	return slot >= 0 && m.env != nil && m.env.filled && m.s.vals[slot] == m.env.vals[slot]
}

// replaces reports whether the event has another field in the place of a path: a
// value where the path has an object, or the same under another name.
func (m *Mapper) replaces(in *inherited) bool {
	for _, id := range in.above {
		if k := m.s.vals[id].kind; k > null && k != object {
			return true
		}
	}
	return m.has(in.instead)
}

// firstOf returns the first of the slots that has a value, or -1.
func firstOf(vals []span, slots []int32) int32 {
	for _, id := range slots {
		if vals[id].kind > null {
			return id
		}
	}
	return -1
}

// merge appends the two objects, merged, behind the record and returns where.
func (m *Mapper) merge(own, outer span, verbatim bool) span {
	if !m.owned {
		m.clean, m.owned = append(m.clean[:0], m.s.b...), true
		m.size = len(m.clean)
	}
	from := len(m.clean)
	m.clean = appendMerged(m.clean, m.clean[own.start:own.end], m.clean[outer.start:outer.end], verbatim)
	m.s.b = m.clean
	return span{uint32(from), uint32(len(m.clean)), object}
}

// forget takes what was merged for the event before off the end of the record.
func (m *Mapper) forget() {
	if m.owned {
		m.clean = m.clean[:m.size]
		m.s.b = m.clean
	}
}

// appendMerged appends the members of two scanned objects. Where both have one,
// in whatever spelling, own wins unless it is null; two objects are merged.
func appendMerged(dst, own, outer []byte, verbatim bool) []byte {
	theirs := map[string][]byte{}
	for it, _ := pairs(val{kind: object, b: outer}); it.nextPair(); {
		if it.value.kind != null {
			theirs[mergeKey(it.key, verbatim)] = it.value.b
		}
	}
	mine := map[string]bool{}
	for it, _ := pairs(val{kind: object, b: own}); it.nextPair(); {
		if it.value.kind != null {
			mine[mergeKey(it.key, verbatim)] = true
		}
	}
	dst = append(dst, '{')
	for it, _ := pairs(val{kind: object, b: own}); it.nextPair(); {
		key := mergeKey(it.key, verbatim)
		if it.value.kind == null && mine[key] {
			continue // another spelling of the key has a value
		}
		value, both := theirs[key]
		delete(theirs, key)
		dst = append(append(dst, it.key...), ':')
		switch {
		case both && it.value.kind == null:
			dst = append(dst, value...)
		case both && it.value.kind == object && jsonKind(value) == object:
			dst = appendMerged(dst, it.value.b, value, verbatim || step{key: key}.verbatim())
		default:
			dst = append(dst, it.value.b...)
		}
		dst = append(dst, ',')
	}
	for it, _ := pairs(val{kind: object, b: outer}); it.nextPair(); {
		key := mergeKey(it.key, verbatim)
		if _, left := theirs[key]; left && it.value.kind != null {
			dst = append(append(append(append(dst, it.key...), ':'), it.value.b...), ',')
		}
	}
	if last := len(dst) - 1; dst[last] == ',' {
		dst[last] = '}'
		return dst
	}
	return append(dst, '}')
}

// mergeKey returns a key with its quotes in the one form of its spellings.
func mergeKey(raw []byte, verbatim bool) string {
	key := string(unescape(nil, raw[1:len(raw)-1]))
	if verbatim {
		return key
	}
	return alternatives(key)[0].key
}

// kafka returns a part of the record that is not in its value; kind absent
// where the record has none.
func (m *Mapper) kafka(c *column, from *source) (val, refusal) {
	rec := m.rec
	var bytes []byte
	switch from.kafka {
	case kafkaTopic:
		return val{kind: plainText, b: m.e.add(func(b []byte) []byte { return append(b, rec.Topic...) })}, refusal{}
	case kafkaPartition:
		return val{kind: number, b: m.e.add(func(b []byte) []byte { return strconv.AppendInt(b, int64(rec.Partition), 10) })}, refusal{}
	case kafkaOffset:
		return val{kind: number, b: m.e.add(func(b []byte) []byte { return strconv.AppendInt(b, rec.Offset, 10) })}, refusal{}
	case kafkaTimestamp:
		if rec.Timestamp.IsZero() {
			return val{}, refusal{}
		}
		return val{kind: pointInTime, t: instant{rec.Timestamp.Unix(), int64(rec.Timestamp.Nanosecond())}}, refusal{}
	case kafkaUUID:
		return val{kind: plainText, b: m.e.add(m.appendUUID)}, refusal{}
	case kafkaKey:
		bytes = rec.Key
	case kafkaHeader:
		for i := range rec.Headers {
			if rec.Headers[i].Key == from.header {
				bytes = rec.Headers[i].Value
			}
		}
	}
	if bytes == nil {
		return val{}, refusal{}
	}
	if c.typ.Kind == delta.Binary && len(c.chain) == 0 && c.lookup == nil {
		return val{kind: rawBytes, b: bytes}, refusal{}
	}
	return m.e.validText(bytes, m.m.opts.InvalidUTF8 == "replace")
}

// idSpace is the name space of derived message ids, a random UUID. It must
// never change, or a redelivered event would come out with another id.
var idSpace = [16]byte{0x6c, 0x1d, 0x7e, 0x0a, 0x93, 0x5b, 0x4f, 0x2e, 0xb8, 0x41, 0x2f, 0x6d, 0xc0, 0x97, 0x5a, 0x13}

// appendUUID appends the id of an event that brought none: the UUID version 5
// (RFC 9562) of cluster/topic/partition/offset and, in a batch, /index. The topic
// is its id as Kafka's tools print it, because the offsets of a topic that was
// deleted and created again begin at 0 again; its name where the broker gives no
// id. The same event always gets the same id. Neither form holds a slash.
func (m *Mapper) appendUUID(dst []byte) []byte {
	from := len(dst)
	dst = append(dst, idSpace[:]...)
	dst = append(dst, m.m.opts.ClusterID...)
	dst = append(dst, '/')
	if m.rec.TopicID == [16]byte{} {
		dst = append(dst, m.rec.Topic...)
	} else {
		dst = base64.RawURLEncoding.AppendEncode(dst, m.rec.TopicID[:])
	}
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(m.rec.Partition), 10)
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, m.rec.Offset, 10)
	if m.index >= 0 {
		dst = append(dst, '/')
		dst = strconv.AppendInt(dst, int64(m.index), 10)
	}
	id := sha1.Sum(dst[from:])
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	dst = dst[:from]
	for i, c := range id[:16] {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}
