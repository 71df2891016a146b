// Package traffic makes Signal events that look like a web shop's: every type,
// both spellings, about a kilobyte each, some malformed on purpose. It is for
// the demo, benchmarks and tests, and fast enough never to be their bottleneck.
// It does no I/O and starts no goroutines.
package traffic

import "time"

// Config says which stream of events to make. Equal Configs make equal streams.
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

// Event is one Kafka record and what is to be expected of it.
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
	g.f.second = -1 // none spelt yet
	return g
}

// Next fills e with the next event. Key and Value are the Generator's own
// buffers and hold until the next call; copy what is kept longer. MessageID is
// a string of its own, the one allocation of a call.
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
