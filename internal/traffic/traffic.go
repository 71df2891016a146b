// Package traffic generates Signal events of a web shop: every type, both
// spellings, about a kilobyte each, some malformed on purpose. It is for the
// demo, benchmarks and tests, and fast enough not to be their bottleneck.
// It does no I/O and starts no goroutines.
package traffic

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Config selects the stream of events. Equal Configs make equal streams.
type Config struct {
	// Seed picks the stream; message ids of different seeds differ.
	Seed uint64
	// MalformedEvery makes the n-th, 2n-th, ... event malformed, the kinds of
	// Faults in turn. 0 makes none.
	MalformedEvery int
	// TombstoneEvery makes the n-th, 2n-th, ... event a tombstone, a record
	// with a null value, unless it is a malformed one. 0 makes none.
	TombstoneEvery int
	// Start is the time of the first event; each is a millisecond later than
	// the one before. Zero, like any time before 1970, is 2026-03-04 09:00 UTC.
	Start time.Time
}

// Kinds of Event besides those of Faults.
const (
	OK        = "ok"        // well-formed; exactly one row
	Tombstone = "tombstone" // a null value; filtered
)

// Event is one Kafka record and its expected outcome.
type Event struct {
	Key       []byte // the visitor's anonymous id
	Value     []byte // nil for a tombstone
	Kind      string // OK, Tombstone or the Kind of one of Faults
	MessageID string // also of events whose value does not show it; Sequence reads it back
}

// Generator makes the events of one Config in order. It is not safe for
// concurrent use.
type Generator struct {
	c       Config
	n       uint64 // events made
	start   int64  // Start in milliseconds since the epoch
	idHead  [24]byte
	key     []byte
	value   []byte
	random  source // of this event alone
	f       fields
	program *program
}

// New returns a Generator at the first event of the stream.
func New(c Config) *Generator {
	if c.Start.UnixMilli() < 0 {
		c.Start = time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC)
	}
	g := &Generator{c: c, start: c.Start.UnixMilli(), idHead: idHead(c.Seed), program: compiled()}
	g.f.second = -1 // none formatted yet
	return g
}

// Next fills e with the next event. Key and Value are the Generator's buffers,
// valid until the next call. MessageID is newly allocated.
func (g *Generator) Next(e *Event) {
	seq := g.n
	g.n++
	fault := g.c.fault(g.n)
	g.random = source(mix(g.c.Seed + seq*0x9e3779b97f4a7c15))
	g.f.begin(&g.random, g.start+int64(seq))
	id := appendID(g.f.id[:0], &g.idHead, seq)

	e.MessageID = string(id)
	g.key = g.f.appendAnonymousID(g.key[:0])
	e.Key = g.key
	switch {
	case fault >= 0:
		e.Kind = faults[fault].Kind
		g.value = g.program.appendFault(g.value[:0], &faults[fault], &g.f, &g.random)
	case g.c.tombstone(g.n):
		e.Kind, e.Value = Tombstone, nil
		return
	default:
		e.Kind = OK
		g.value = g.program.appendEvent(g.value[:0], "", &g.f, &g.random)
	}
	e.Value = g.value
}

// fault returns the index into faults of the n-th event, from 1, or -1.
func (c Config) fault(n uint64) int {
	every := uint64(max(c.MalformedEvery, 0))
	if every == 0 || n%every != 0 {
		return -1
	}
	return int((n/every - 1) % uint64(len(faults)))
}

// tombstone reports whether the n-th event, from 1, is one if not malformed.
func (c Config) tombstone(n uint64) bool {
	return c.TombstoneEvery > 0 && n%uint64(c.TombstoneEvery) == 0
}

// Count returns how many of the first n events are of each Kind. Kinds that do
// not occur are left out.
func (c Config) Count(n int) map[string]int {
	counts := map[string]int{}
	left := n
	if m := c.MalformedEvery; m > 0 {
		bad := n / m
		for i, f := range faults {
			if k := (bad + len(faults) - 1 - i) / len(faults); k > 0 {
				counts[f.Kind] = k
			}
		}
		left -= bad
	}
	if t := c.TombstoneEvery; t > 0 {
		gone := n / t
		if m := c.MalformedEvery; m > 0 {
			gone -= n / (m / gcd(m, t) * t) // those that are malformed instead
		}
		if gone > 0 {
			counts[Tombstone] = gone
		}
		left -= gone
	}
	if left > 0 {
		counts[OK] = left
	}
	return counts
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Fault is one way for an event to be malformed.
type Fault struct {
	Kind string // what was done to the event
	Code string // the default mapping's code of the rejection
}

// Faults returns the kinds of malformed events in the order of their turns.
func Faults() []Fault {
	var all []Fault
	for _, f := range faults {
		all = append(all, f.Fault)
	}
	return all
}

// fault is a Fault and how it is made: by text before the first key, or by a
// function of the finished event.
type fault struct {
	Fault
	extra   string
	badTime bool
	alter   func(value []byte, f *fields, r *source) []byte
}

var faults = []fault{
	{Fault: Fault{"truncated", "not_json"}, alter: func(value []byte, _ *fields, r *source) []byte {
		return value[:1+r.below(len(value)-1)] // no proper prefix of an object is JSON
	}},
	{Fault: Fault{"not_json", "not_json"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(value[:0], "INFO checkout: order placed, message "...), f.id[:]...)
	}},
	{Fault: Fault{"not_object", "not_object"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(append(value[:0], '"'), f.id[:]...), '"')
	}},
	{Fault: Fault{"empty", "empty"}, alter: func(value []byte, _ *fields, _ *source) []byte { return value[:0] }},
	// A schema registry's framing: a zero byte and the schema's number.
	{Fault: Fault{"binary", "not_json"}, alter: func(value []byte, f *fields, _ *source) []byte {
		return append(append(value[:0], 0, 0, 0, 0, 7, 2*idLen), f.id[:]...)
	}},
	{Fault: Fault{"trailing_garbage", "not_json"}, alter: func(value []byte, _ *fields, _ *source) []byte { return append(value, '}') }},
	{Fault: Fault{"bad_number", "not_json"}, extra: `"score":NaN,`},
	{Fault: Fault{"bad_escape", "not_json"}, extra: `"folder":"C:\users",`},
	{Fault: Fault{"control_character", "not_json"}, extra: "\"note\":\"two\nlines\","},
	{Fault: Fault{"invalid_utf8", "invalid_utf8"}, extra: "\"note\":\"caf\xe9\","}, // Latin-1
	{Fault: Fault{"lone_surrogate", "invalid_utf8"}, extra: `"note":"cut \ud83d",`},
	{Fault: Fault{"duplicate_key", "duplicate_key"}, extra: `"type":"track",`},
	{Fault: Fault{"too_deep", "too_deep"}, extra: `"tree":` + strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + `,`},
	{Fault: Fault{"bad_timestamp", "bad_timestamp"}, badTime: true},
}

func (p *program) appendFault(dst []byte, how *fault, f *fields, r *source) []byte {
	f.badTime = how.badTime
	dst = p.appendEvent(dst, how.extra, f, r)
	if how.alter != nil {
		dst = how.alter(dst, f, r)
	}
	return dst
}

// A message id is a UUID of version 8 (RFC 9562, free form): first the stream,
// in the last twelve digits the number of the event.
const idLen = 36

const hexDigits = "0123456789abcdef"

// idHead is everything of an id but the number: "xxxxxxxx-xxxx-8xxx-8xxx-".
func idHead(seed uint64) (head [24]byte) {
	var digits [32]byte
	hex.Encode(digits[:], binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, mix(seed)), mix(^seed)))
	copy(head[0:8], digits[0:8])
	copy(head[9:13], digits[8:12])
	copy(head[14:18], digits[12:16])
	copy(head[19:23], digits[16:20])
	head[14], head[19] = '8', '8'
	head[8], head[13], head[18], head[23] = '-', '-', '-', '-'
	return head
}

func appendID(dst []byte, head *[24]byte, seq uint64) []byte {
	dst = append(dst, head[:]...)
	for shift := 44; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[seq>>shift&15])
	}
	return dst
}

// Sequence returns an event's position in its stream, from 0, by its message id.
// ok is false for other ids.
func Sequence(messageID string) (seq uint64, ok bool) {
	if len(messageID) != idLen || messageID[14] != '8' || messageID[23] != '-' || strings.ContainsAny(messageID[24:], "+ABCDEF") {
		return 0, false
	}
	seq, err := strconv.ParseUint(messageID[24:], 16, 64)
	return seq, err == nil
}

// source is a splitmix64 generator (Steele, Lea, Flood, 2014): eight bytes of
// state, so that each event has its own and event n is a function of seed and
// n alone.
type source uint64

func (s *source) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	return mix(uint64(*s))
}

// below returns a number in [0, n). Its bias, n in 2^32, does not matter here.
func (s *source) below(n int) int { return int(s.next() >> 32 * uint64(n) >> 32) }

// mix is splitmix64's finalizer, a bijection that spreads every bit.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
