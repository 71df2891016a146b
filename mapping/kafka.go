package mapping

import (
	"crypto/sha1" //nolint:gosec // RFC 9562 defines UUID version 5 over SHA-1; nothing is kept secret by it
	"encoding/base64"
	"strconv"

	"github.com/datafly/bridge/internal/delta"
)

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
