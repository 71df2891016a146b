package consumer

// maxEntries bounds the memory of entries, in bytes: some 400,000 dead letters
// of different events.
const maxEntries = 64 << 20

// entryBytes is what an entry takes with its place in the map, and runBytes a
// run of its events.
const entryBytes, runBytes = 176, 16

// entries tell which dead letter is the newest of an event. A replay, and a
// restart between a dead letter and the commit of its offset, write another one
// of the same event; the whole record was processed again then, so what the
// newer one does not name was delivered or filtered. An entry is what the dead
// letters of one group and source offset have in common that name events in
// common.
type entries struct {
	most, held int
	origins    map[string]int32 // groups and source topics, numbered
	byKey      map[entryKey]*entry
	left       int // dead letters that were not noted for want of memory
}

// entryKey is the record a dead letter is of. Where dead letters tell no topic
// id, a topic that was deleted and created again has other records at the same
// offsets: the time tells those apart.
type entryKey struct {
	origin, partition int32
	offset            int64
	at                int64 // milliseconds
}

// entry is the newest dead letter of an event so far.
type entry struct {
	part     *letterPartition
	offset   int64
	failedAt int64 // milliseconds
	whole    bool  // it is no dead letter of which parts are missing
	events   Events
	copies   int
	attempts int
	next     *entry // of the same record, with other events
}

func newEntries(most int) *entries {
	return &entries{most: most, origins: map[string]int32{}, byKey: map[entryKey]*entry{}}
}

// key returns the record that a dead letter is of; false where its headers do
// not tell.
func (e *entries) key(l *DeadLetter, add bool) (entryKey, bool) {
	if l.Original.Topic == "" || l.Fault != "" && l.Parts == 0 {
		return entryKey{}, false
	}
	topic := l.Original.Topic
	if l.TopicID != noTopicID {
		topic = string(l.TopicID[:])
	}
	name := l.Group + "\x00" + topic
	origin, known := e.origins[name]
	if !known {
		if !add || e.held >= e.most {
			return entryKey{}, false
		}
		origin = int32(len(e.origins))
		e.origins[name] = origin
		e.held += len(name) + entryBytes
	}
	return entryKey{origin, l.Original.Partition, l.Original.Offset, l.Original.Timestamp.UnixMilli()}, true
}

// common reports whether a dead letter is of the events of an entry. One that
// cannot be put together does not tell its events.
func (x *entry) common(l *DeadLetter) bool {
	return len(x.events) == 0 || len(l.Events) == 0 || x.events.Overlap(l.Events)
}

// note notes a dead letter. Of one partition they come in the order in which
// they were written.
func (e *entries) note(l *DeadLetter, part *letterPartition) {
	key, ok := e.key(l, true)
	if !ok {
		if l.Fault == "" || l.Parts > 0 {
			e.left++
		}
		return
	}
	now := &entry{part: part, offset: l.Offset, failedAt: l.FailedAt.UnixMilli(), whole: l.Fault == "", events: l.Events, copies: 1, attempts: max(l.Attempts, 1)}
	var others *entry
	for x := e.byKey[key]; x != nil; {
		next := x.next
		if x.common(l) {
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

// merge returns the newer of two, with what both say.
func (x *entry) merge(old *entry) *entry {
	newest := x
	switch {
	case x.whole != old.whole: // what can be redriven is worth more than what cannot
		if old.whole {
			newest = old
		}
	case x.part == old.part:
		if old.offset > x.offset {
			newest = old
		}
	case old.failedAt > x.failedAt:
		newest = old
	}
	merged := *newest
	merged.events = x.events.And(old.events)
	merged.copies, merged.attempts = x.copies+old.copies, x.attempts+old.attempts
	return &merged
}

// newest reports whether a dead letter is the newest of its events, and says in
// it how many there are.
func (e *entries) newest(l *DeadLetter, part *letterPartition) bool {
	key, ok := e.key(l, false)
	if !ok {
		return true
	}
	replaced := false
	for x := e.byKey[key]; x != nil; x = x.next {
		if x.part == part && x.offset == l.Offset {
			l.Copies, l.Attempts = x.copies, x.attempts
			return true
		}
		replaced = replaced || x.common(l)
	}
	return !replaced
}
