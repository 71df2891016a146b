package zerobus

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// refusalRepeat is the least time between the two refusals it takes to give
	// a row up. A gateway that misbehaves for a moment costs no row.
	refusalRepeat = time.Second

	refusalsMax = 1 << 15         // rows remembered, twice over
	refusalsAge = 5 * time.Minute // for at least this long, while there is room
)

// refusals remembers when rows were refused for the first time, alone or within
// a batch. The halves of a refused batch then wait for refusalRepeat once, not
// once per bad row. What it forgets only costs another wait.
type refusals struct {
	seed maphash.Seed

	mu          sync.Mutex // guards the fields below
	recent, old map[uint64]time.Time
	began       time.Time // of recent
}

func newRefusals() *refusals { return &refusals{seed: maphash.MakeSeed()} }

// note remembers that the rows were refused now, unless it knows of an earlier
// time.
func (r *refusals) note(rows [][]byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		r.first(row, now)
	}
}

// first returns when the row was first refused, as far as it is known: now at
// the latest. Called with mu held.
func (r *refusals) first(row []byte, now time.Time) time.Time {
	if len(r.recent) >= refusalsMax || now.Sub(r.began) > refusalsAge {
		if r.old = r.recent; now.Sub(r.began) > 2*refusalsAge {
			r.old = nil
		}
		r.recent, r.began = map[uint64]time.Time{}, now
	}
	key := maphash.Bytes(r.seed, row)
	if at, known := r.recent[key]; known {
		return at
	}
	at, known := r.old[key]
	if !known {
		at = now
	}
	r.recent[key] = at
	return at
}

// wait notes a refusal of the row and returns how long to wait until the next
// one counts.
func (r *refusals) wait(row []byte) time.Duration {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.first(row, now).Add(refusalRepeat).Sub(now), 0)
}

// refusedFirst reports whether err refuses a row that stands alone, for the
// first time: one refusal gives no row up.
func refusedFirst(b *batch, err error) bool {
	var no *RefusedError
	return len(b.rows) == 1 && !b.alone && (errors.As(err, &no) || kindOf(err) == refused)
}
