package deadletter

import (
	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
)

// maxEntries bounds the memory of entries, in bytes: some 400,000 dead letters of
// different events.
const maxEntries = 64 << 20

// entryBytes is what an entry takes with its place in the map, and runBytes a run
// of its events.
const entryBytes, runBytes = 176, 16

// entries find the newest dead letter of an event. A replay, and a restart between
// a dead letter and the commit of its offset, write another one of the same event;
// the whole record was processed again then, so what the newer one does not name
// was delivered or filtered. An entry is what the dead letters of one group and
// source offset have in common that name events in common.
type entries struct {
	most, held int
	origins    map[string]int32 // groups and source topics, numbered
	byKey      map[entryKey]*entry
	left       int // dead letters that were not noted for lack of memory
}

// entryKey is the record a dead letter is of. Where dead letters have no topic id,
// a topic that was deleted and created again has other records at the same offsets:
// the time tells those apart.
type entryKey struct {
	origin, partition int32
	offset            int64
	at                int64 // milliseconds
}

// entry is the newest dead letter of an event so far.
type entry struct {
	part     *partition
	offset   int64
	failedAt int64 // milliseconds
	whole    bool  // no parts are missing
	events   consumer.Events
	copies   int
	attempts int
	next     *entry // of the same record, with other events
}

func newEntries(most int) *entries {
	return &entries{most: most, origins: map[string]int32{}, byKey: map[entryKey]*entry{}}
}

// key returns the record that a dead letter is of; false where its headers lack it.
func (e *entries) key(r *Record, add bool) (entryKey, bool) {
	if r.Original.Topic == "" || r.Fault != "" && r.Parts == 0 {
		return entryKey{}, false
	}
	topic := r.Original.Topic
	if r.TopicID != kafka.NoTopicID {
		topic = string(r.TopicID[:])
	}
	name := r.Group + "\x00" + topic
	origin, known := e.origins[name]
	if !known {
		if !add || e.held >= e.most {
			return entryKey{}, false
		}
		origin = int32(len(e.origins))
		e.origins[name] = origin
		e.held += len(name) + entryBytes
	}
	return entryKey{origin, r.Original.Partition, r.Original.Offset, r.Original.Timestamp.UnixMilli()}, true
}

// common reports whether a dead letter is of the events of an entry. The events of
// one that cannot be put together are not known.
func (x *entry) common(r *Record) bool {
	return len(x.events) == 0 || len(r.Events) == 0 || x.events.Overlap(r.Events)
}

// note notes a dead letter. Of one partition they come in the order in which they
// were written.
func (e *entries) note(r *Record, part *partition) {
	key, ok := e.key(r, true)
	if !ok {
		if r.Fault == "" || r.Parts > 0 {
			e.left++
		}
		return
	}
	now := &entry{part: part, offset: r.Offset, failedAt: r.FailedAt.UnixMilli(), whole: r.Fault == "", events: r.Events, copies: 1, attempts: max(r.Attempts, 1)}
	var others *entry
	for x := e.byKey[key]; x != nil; {
		next := x.next
		if x.common(r) {
			now = now.merge(x)
			e.held -= x.bytes()
		} else {
			x.next, others = others, x
		}
		x = next
	}
	if now.copies > 1 || e.held < e.most {
		e.held += now.bytes()
		now.next, others = others, now
	} else {
		e.left++
	}
	if others != nil {
		e.byKey[key] = others
	}
}

func (x *entry) bytes() int { return entryBytes + runBytes*len(x.events) }

// merge returns the newer of two, with the events and counts of both.
func (x *entry) merge(old *entry) *entry {
	oldWins := old.failedAt > x.failedAt
	switch {
	case x.whole != old.whole: // one that can be redriven wins over one that cannot
		oldWins = old.whole
	case x.part == old.part:
		oldWins = old.offset > x.offset
	}
	merged := *x
	if oldWins {
		merged = *old
	}
	merged.events = x.events.And(old.events)
	merged.copies, merged.attempts = x.copies+old.copies, x.attempts+old.attempts
	return &merged
}

// newest reports whether a dead letter is the newest of its events, and sets how
// many there are.
func (e *entries) newest(r *Record, part *partition) bool {
	key, ok := e.key(r, false)
	if !ok {
		return true
	}
	replaced := false
	for x := e.byKey[key]; x != nil; x = x.next {
		if x.part == part && x.offset == r.Offset {
			r.Copies, r.Attempts = x.copies, x.attempts
			return true
		}
		replaced = replaced || x.common(r)
	}
	return !replaced
}
