package live

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/datafly/bridge/consumer"
)

// States of an Event.
const (
	InFlight  = "in_flight" // mapped, being written
	Retrying  = "retrying"  // being written while the sink does not accept rows
	Delivered = "delivered" // acknowledged
	Rejected  = "rejected"  // can never become a row
	Filtered  = "filtered"  // dropped by a filter rule
	Abandoned = "abandoned" // by a stop or a rebalance; the next owner of the partition reads it again
)

// Event is one event as the page lists it: names, ids and states. Only Reason may
// contain a value; it is empty in ModeMetadata.
type Event struct {
	ID        uint64    `json:"id"` // from 1 in each process
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Index     int       `json:"index"`             // among the events of its record, from 0
	Produced  time.Time `json:"produced,omitzero"` // the record's timestamp
	Mapped    time.Time `json:"mapped"`            // when it was mapped
	Type      string    `json:"type,omitempty"`    // track, page, identify, ...
	Name      string    `json:"name,omitempty"`    // of a track, page or screen event
	MessageID string    `json:"message_id,omitempty"`
	Size      int       `json:"size"` // of the record's value, in bytes
	Outcome
}

// Outcome is the state of an event and, when it is complete, its outcome.
type Outcome struct {
	Status  string           `json:"status"`
	Code    string           `json:"code,omitempty"`    // of a reject or a filter, from a closed set
	Column  string           `json:"column,omitempty"`  // the column that caused it
	Meaning string           `json:"meaning,omitempty"` // explains Code
	Reason  string           `json:"reason,omitempty"`  // the error of this event; ModeFull only
	Batch   Batch            `json:"batch"`
	Ack     consumer.Seconds `json:"ack_seconds,omitempty"` // from mapping to completion
}

// Batch is the batch of an event.
type Batch struct {
	Records     int   `json:"records"`
	Rows        int   `json:"rows"`
	RowBytes    int   `json:"row_bytes"`
	FirstOffset int64 `json:"first_offset"`
	LastOffset  int64 `json:"last_offset"`
}

// Content is the content of an event, for ModeFull, as it will be shown.
type Content struct {
	Key       string   `json:"key,omitempty"`
	Headers   []Header `json:"headers,omitempty"`
	Value     string   `json:"value"`               // of the record; indented where it is JSON
	Truncated bool     `json:"truncated,omitempty"` // Value is truncated, and the fields below are unknown
	Outcome   string   `json:"outcome,omitempty"`   // of the present mapping: row, reject, filter
	Reason    string   `json:"reason,omitempty"`    // of a reject
	Section   string   `json:"section,omitempty"`   // of the blueprint
	Shape     string   `json:"shape,omitempty"`     // event, or row if it was already mapped
	Row       string   `json:"row,omitempty"`       // as JSON, indented
	Columns   []Column `json:"columns,omitempty"`
}

// Header is one header of the record.
type Header struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Column is one column of the row with its source, or why it is NULL.
type Column struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Value  string `json:"value,omitempty"` // as JSON; empty: NULL
	Source string `json:"source,omitempty"`
	Why    string `json:"why,omitempty"` // why it is NULL or was refused
}

// Bounds of an EventLog, and of all logs of a page.
const (
	maxEvents    = 500     // kept by one log
	maxAllEvents = 5000    // kept by all logs
	rejectedPart = 0.3     // of the events of one log: rejected ones, which are evicted last
	maxContent   = 4 << 20 // bytes of event content kept by all logs; ModeFull only

	// Events added per second with and without viewers, and at once.
	watchedRate, idleRate = 100, 5
	mostAtOnce            = 10
)

// EventLog keeps a sample of the events, bounded in number, bytes and rate. It is
// safe for concurrent use; no method waits for a viewer.
type EventLog struct {
	mode    string
	viewers atomic.Int32
	seen    atomic.Int64 // all events
	kept    atomic.Int64 // events added

	mu         sync.Mutex // guards the fields below
	maxEvents  int
	maxContent int      // bytes
	entries    []*entry // by ID
	rejected   int      // of entries
	content    int      // bytes
	lastID     uint64
	rev        uint64 // of the last change
	limiter    *rate.Limiter
}

// entry is one kept event. It does not change after its eviction.
type entry struct {
	Event
	rev  uint64
	size int
	open func() Content // nil: not available
}

// NewEventLog returns an EventLog for ModeMetadata or ModeFull.
func NewEventLog(mode string) *EventLog {
	f := &EventLog{mode: mode, limiter: rate.NewLimiter(idleRate, mostAtOnce)}
	f.share(1)
	return f
}

// share bounds what the log keeps, as one of so many logs.
func (f *EventLog) share(logs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.maxEvents, f.maxContent = min(maxEvents, maxAllEvents/logs), maxContent/logs
	f.trim()
}

func (f *EventLog) trim() {
	for len(f.entries) > f.maxEvents || f.content > f.maxContent {
		f.evict()
	}
}

// Full reports whether the content of events may be kept and shown.
func (f *EventLog) Full() bool { return f.mode == ModeFull }

// Passed counts events, sampled or not.
func (f *EventLog) Passed(n int) { f.seen.Add(int64(n)) }

// Admit returns how many of n events may be added now, and counts them as added.
func (f *EventLog) Admit(n int) int {
	if n <= 0 {
		return 0
	}
	limit := idleRate
	if f.viewers.Load() > 0 {
		limit = watchedRate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limiter.SetLimit(rate.Limit(limit))
	f.limiter.SetBurst(max(limit/2, mostAtOnce))
	granted := min(n, mostAtOnce, int(f.limiter.Tokens()))
	f.limiter.AllowN(time.Now(), granted)
	return granted
}

// Add adds an event and returns its ID. open, which may be nil, returns its content
// on demand; it is kept only in ModeFull, counts size bytes, and is not kept if these
// are more than the log may keep in all.
func (f *EventLog) Add(e Event, size int, open func() Content) uint64 {
	f.kept.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	f.rev++
	e.ID = f.lastID
	n := &entry{Event: e, rev: f.rev}
	if f.mode != ModeFull {
		n.Reason = ""
	} else if size <= f.maxContent {
		n.size, n.open = size, open
	}
	f.entries = append(f.entries, n)
	f.content += n.size
	if e.Status == Rejected {
		f.rejected++
	}
	f.trim()
	return e.ID
}

// evict removes the oldest event; a rejected one only if there are many.
func (f *EventLog) evict() {
	at := 0
	if float64(f.rejected) <= rejectedPart*float64(f.maxEvents) && f.rejected < len(f.entries)-1 {
		at = max(slices.IndexFunc(f.entries, func(e *entry) bool { return e.Status != Rejected }), 0)
	}
	gone := f.entries[at]
	f.content -= gone.size
	if gone.Status == Rejected {
		f.rejected--
	}
	f.entries = slices.Delete(f.entries, at, at+1)
}

// SetOutcome sets the outcome of an event, unless it was evicted.
func (f *EventLog) SetOutcome(id uint64, o Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.find(id)
	if e == nil {
		return
	}
	if e.Status != Rejected && o.Status == Rejected {
		f.rejected++
	}
	if f.mode != ModeFull {
		o.Reason = ""
	}
	e.Outcome = o
	f.rev++
	e.rev = f.rev
}

// setRetrying changes events in flight to retrying, while the sink does not accept
// rows.
func (f *EventLog) setRetrying() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.entries {
		if e.Status == InFlight {
			f.rev++
			e.Status, e.rev = Retrying, f.rev
		}
	}
}

func (f *EventLog) find(id uint64) *entry {
	i, ok := slices.BinarySearchFunc(f.entries, id, func(e *entry, id uint64) int { return cmp.Compare(e.ID, id) })
	if !ok {
		return nil
	}
	return f.entries[i]
}

// Get returns one event and the function that returns its content.
func (f *EventLog) Get(id uint64) (e Event, open func() Content, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(id)
	if n == nil {
		return e, nil, false
	}
	return n.Event, n.open, true
}

// At returns the newest event of a place in Kafka, as Get does. An empty topic is any.
func (f *EventLog) At(topic string, partition int32, offset int64, index int) (e Event, open func() Content, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range slices.Backward(f.entries) {
		if n.Offset == offset && n.Partition == partition && n.Index == index && (topic == "" || n.Topic == topic) {
			return n.Event, n.open, true
		}
	}
	return e, nil, false
}

// Since returns the events added or changed after revision rev, oldest change first
// and at most limit of the newest, with the revision of the last change.
func (f *EventLog) Since(rev uint64, limit int) (changed []Event, upTo uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rev == f.rev {
		return nil, rev
	}
	var found []*entry
	for _, e := range f.entries {
		if e.rev > rev {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.rev, b.rev) })
	for _, e := range found[max(len(found)-limit, 0):] {
		changed = append(changed, e.Event)
	}
	return changed, f.rev
}

// Counts returns the numbers of all events and of those added.
func (f *EventLog) Counts() (seen, kept int64) { return f.seen.Load(), f.kept.Load() }
