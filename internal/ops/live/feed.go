package live

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Feed.
const (
	maxEvents   = 500     // kept
	maxRejected = 150     // of those, rejected ones, which make way last
	maxContent  = 4 << 20 // bytes of event content kept; ModeFull only

	// How many events a second are taken up while somebody looks and while
	// nobody does, and how many at once. The rest passes unseen.
	watchedRate, idleRate = 100, 5
	mostAtOnce            = 10
)

// Feed keeps a sample of the events that passed, bounded in number, bytes and
// rate. It is safe for concurrent use, and none of its methods waits for a
// viewer: viewers read what is there when they come round.
type Feed struct {
	mode    string
	now     func() time.Time
	viewers atomic.Int32
	seen    atomic.Int64 // events that passed
	kept    atomic.Int64 // events taken up

	mu       sync.Mutex // guards the fields below
	entries  []*entry   // by ID
	rejected int        // of entries
	content  int        // bytes
	lastID   uint64
	rev      uint64 // of the last change
	tokens   float64
	filled   time.Time
}

// entry is one kept event. Once it is out of entries nothing changes it.
type entry struct {
	Event
	rev  uint64
	size int
	open func() Content // nil: it cannot be shown
}

// NewFeed makes a Feed for ModeMetadata or ModeFull.
func NewFeed(mode string) *Feed { return &Feed{mode: mode, now: time.Now} }

// Full tells whether the content of events may be kept and shown.
func (f *Feed) Full() bool { return f.mode == ModeFull }

// Passed counts events, sampled or not.
func (f *Feed) Passed(n int) { f.seen.Add(int64(n)) }

// Admit says how many of n events may be added now. What it grants counts as
// taken.
func (f *Feed) Admit(n int) int {
	if n <= 0 {
		return 0
	}
	rate := float64(idleRate)
	if f.viewers.Load() > 0 {
		rate = watchedRate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	f.tokens = min(f.tokens+now.Sub(f.filled).Seconds()*rate, max(rate/2, mostAtOnce))
	f.filled = now
	granted := min(n, mostAtOnce, int(f.tokens))
	f.tokens -= float64(granted)
	return granted
}

// Add takes an event up and returns its ID. open, which may be nil, tells its
// content when somebody asks; it is kept only in ModeFull and counts size bytes.
func (f *Feed) Add(e Event, size int, open func() Content) uint64 {
	f.kept.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastID++
	f.rev++
	e.ID = f.lastID
	n := &entry{Event: e, rev: f.rev}
	if f.mode == ModeFull {
		n.size, n.open = size, open
	} else {
		n.Reason = ""
	}
	f.entries = append(f.entries, n)
	f.content += n.size
	if e.Status == Rejected {
		f.rejected++
	}
	for len(f.entries) > maxEvents || f.content > maxContent && len(f.entries) > 1 {
		f.evict()
	}
	return e.ID
}

// evict drops the oldest event; a rejected one only when there are many.
func (f *Feed) evict() {
	at := 0
	if f.rejected <= maxRejected && f.rejected < len(f.entries)-1 {
		at = max(slices.IndexFunc(f.entries, func(e *entry) bool { return e.Status != Rejected }), 0)
	}
	gone := f.entries[at]
	f.content -= gone.size
	if gone.Status == Rejected {
		f.rejected--
	}
	f.entries = slices.Delete(f.entries, at, at+1)
}

// Settle says how an event ended. One that has made way is passed over.
func (f *Feed) Settle(id uint64, o Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.find(id)
	if e == nil {
		return
	}
	if e.Status != Rejected && o.Status == Rejected {
		f.rejected++
	}
	e.settle(o, f.mode)
	f.rev++
	e.rev = f.rev
}

// trouble turns what is in flight into retrying, as long as the sink is not
// taking rows.
func (f *Feed) trouble() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.entries {
		if e.Status == InFlight {
			f.rev++
			e.Status, e.rev = Retrying, f.rev
		}
	}
}

func (f *Feed) find(id uint64) *entry {
	i, ok := slices.BinarySearchFunc(f.entries, id, func(e *entry, id uint64) int { return cmp.Compare(e.ID, id) })
	if !ok {
		return nil
	}
	return f.entries[i]
}

// Get returns one event and what opens it.
func (f *Feed) Get(id uint64) (e Event, open func() Content, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.find(id)
	if n == nil {
		return e, nil, false
	}
	return n.Event, n.open, true
}

// Since returns what was added or changed after revision rev, oldest change
// first, at most limit of the newest, and the revision up to which that is.
func (f *Feed) Since(rev uint64, limit int) (changed []Event, upTo uint64) {
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

// Counts returns how many events passed and how many were taken up.
func (f *Feed) Counts() (seen, kept int64) { return f.seen.Load(), f.kept.Load() }
