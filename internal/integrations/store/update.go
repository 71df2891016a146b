package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/panics"
)

const (
	// retryFor is how long a change begins again; attemptFor bounds what is under way then.
	retryFor, attemptFor = 5 * time.Second, 5 * time.Second
	// maxChanges is how many changes share a transaction, maxWaiting how many may wait.
	maxChanges, maxWaiting = 100, 1000
)

// jitter is the pause before a try: random, and longer each time.
func jitter(try int) time.Duration {
	return time.Duration(mathrand.Int64N(int64(min(50*time.Millisecond<<min(try, 5), time.Second))))
}

// newID returns 12 random letters and digits after a prefix.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()[:12]) }

// change is one call of Update or Restore.
type change struct {
	requestID string
	decide    func(State) ([]Write, error)
	restore   *sentinel // of Restore
	done      chan struct{}

	// Owned by who writes.
	written  []*kgo.Record // of the last attempt
	begun    bool          // whether that came to a commit, whose outcome is not known
	finished bool
	state    State
	err      error
}

func (c *change) finish(state State, err error) {
	if !c.finished {
		c.state, c.err, c.finished = state, err, true
		close(c.done)
	}
}

// Update changes the store. decide gets the present content, under the fence, and
// returns what to write; an error of it is returned as it is, and nothing is written. It
// may be called several times, from another goroutine, and must not wait. When Update
// returns without an error, the records were committed and read back. requestID identifies
// the change in its audit entries. When the outcome of a commit is unknown, its entries
// are looked for before decide is called again.
//
// Update ends within 20 seconds, of which it tries for 5. When ctx ends, it ends at once,
// unless the change is being written.
func (s *Store) Update(ctx context.Context, requestID string, decide func(State) ([]Write, error)) (State, error) {
	return s.submit(ctx, &change{requestID: requestID, decide: decide})
}

// Restore writes a store that is Missing, or new, from records. What the topic holds
// besides is removed. storeID is that of the lost store, so that sealed secrets open; empty:
// a new one. The members take the store for theirs. Each record has an audit entry made of
// entry, and the revision after its own. A store without that problem is refused.
func (s *Store) Restore(ctx context.Context, requestID, storeID string, records []Record, entry Entry) (State, error) {
	if len(records) > MaxRecords {
		return State{}, fmt.Errorf("%w: %d integrations are more than the %d that it may have", ErrRefused, len(records), MaxRecords)
	}
	return s.submit(ctx, &change{
		requestID: requestID, restore: &sentinel{StoreID: cmp.Or(storeID, newID("store_")), Format: Format, Restored: s.o.Now()},
		decide: func(now State) ([]Write, error) {
			if now.StoreID != "" && (now.Problem == nil || now.Problem.Code != Missing) {
				return nil, fmt.Errorf("%w: it has integrations that would be lost; remove them, or change them one by one", ErrRefused)
			}
			var writes []Write
			for _, slug := range now.found {
				if !slices.ContainsFunc(records, func(n Record) bool { return n.Slug == slug }) {
					writes = append(writes, Write{Remove: slug, Entry: entry})
				}
			}
			for i := range records {
				writes = append(writes, Write{Record: &records[i], Entry: entry})
			}
			return writes, nil
		},
	})
}

// submit has a change written, by this goroutine or another one that is writing: whoever
// gets the right to write takes all that wait.
func (s *Store) submit(ctx context.Context, c *change) (State, error) {
	c.done = make(chan struct{})
	s.mu.Lock()
	if len(s.queue) >= maxWaiting {
		s.mu.Unlock()
		return State{}, fmt.Errorf("%w: %d changes wait for it; try again later", ErrUnavailable, maxWaiting)
	}
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	select {
	case s.writing <- struct{}{}:
		for waits := true; waits; {
			var batch []*change
			if batch, waits = s.takeUntil(c); len(batch) > 0 {
				s.write(ctx, batch)
			}
		}
		<-s.writing
	case <-c.done:
	case <-ctx.Done():
		if s.withdraw(c) {
			return State{}, ctx.Err()
		}
	}
	<-c.done // by whoever is writing it
	return c.state, c.err
}

// takeUntil takes the changes of the next transaction, unless c is no longer waiting. A
// restore has a transaction of its own.
func (s *Store) takeUntil(c *change) (batch []*change, waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.queue, c) {
		return nil, false
	}
	n := min(len(s.queue), maxChanges)
	if i := slices.IndexFunc(s.queue, func(c *change) bool { return c.restore != nil }); i >= 0 {
		n = min(n, max(i, 1))
	}
	batch = slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return batch, true
}

func (s *Store) withdraw(c *change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, c)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// write finishes every change of a batch.
func (s *Store) write(ctx context.Context, batch []*change) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryFor+attemptFor)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	end := time.Now().Add(retryFor)
	var err error
	for try := 1; ; try++ {
		err = s.attempt(ctx, batch, time.Now().After(end))
		again, ok := errors.AsType[*againError](err)
		if !ok {
			break
		}
		pause := s.pause(try)
		err = again.err
		begun := slices.ContainsFunc(batch, func(c *change) bool { return c.begun })
		if ctx.Err() != nil || !begun && time.Now().Add(pause).After(end) {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	switch {
	case isAny(err, lost):
		err = errOvertaken
	case err != nil && !errors.Is(err, ErrUnavailable) && !panics.Is(err):
		err = s.problemOf(err, kafka.Write)
	}
	state := s.State()
	for _, c := range batch {
		if err != nil && c.begun {
			c.finish(state, fmt.Errorf("%w: read the integration before you repeat the change: %w", ErrOutcome, err))
		}
		c.finish(state, err)
	}
}

// againError is an error after which an attempt can be repeated.
type againError struct{ err error }

func (e *againError) Error() string { return e.err.Error() }

// waiting makes an error one after which to try again if no broker answered.
func waiting(err error) error {
	if p, ok := errors.AsType[*Problem](err); ok && p.Code == Unreachable {
		return &againError{err}
	}
	return err
}

var errOvertaken = fmt.Errorf("%w: other writers were faster for %v; try again", ErrUnavailable, retryFor)

// attempt takes the fence and finishes what it can. A late one only finds out the outcome
// of commits.
func (s *Store) attempt(ctx context.Context, batch []*change, late bool) (err error) {
	defer panics.To(&err)
	restoring := batch[0].restore
	read := func() (State, error) {
		state, err := s.fold(ctx, false)
		if p, ok := errors.AsType[*Problem](err); ok && p.Code == Missing && restoring != nil {
			return state, nil
		}
		return state, waiting(err)
	}
	if err := s.check(ctx, writeVerified); err != nil {
		return waiting(err)
	}
	if s.State().StoreID == "" || restoring != nil {
		if _, err := read(); err != nil {
			return err
		}
		if err := s.prepare(ctx); err != nil {
			return s.problemOf(err, kafka.Create)
		}
	}
	t, err := s.fence(ctx)
	if err != nil {
		return err
	}
	defer t.cl.Close()
	state, err := read()
	if err != nil {
		return err
	}
	if err := s.noOpenTransaction(ctx, t.cl); err != nil {
		return err
	}
	if err := s.resolveBegun(ctx, t.cl, batch, state); err != nil {
		return err
	}
	if late {
		return errOvertaken
	}
	first := &sentinel{StoreID: cmp.Or(state.StoreID, s.newID), Format: Format}
	if restoring != nil {
		first = restoring
	}
	var records []*kgo.Record
	if restoring != nil || state.StoreID == "" {
		value, err := json.Marshal(first)
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: s.o.Topic, Key: []byte(sentinelKey), Value: value})
	}
	if restoring == nil {
		state.StoreID = first.StoreID
	} else {
		state.bytes = 0 // all is replaced
	}
	for _, c := range batch {
		if c.finished {
			continue
		}
		after, encoded, err := s.decided(c, state)
		if err != nil || len(encoded) == 0 && restoring == nil {
			c.finish(s.State(), err)
			continue
		}
		state, c.written = after, encoded
		records = append(records, encoded...)
	}
	if !slices.ContainsFunc(batch, func(c *change) bool { return !c.finished }) {
		return nil // nobody has anything to write
	}
	if err := t.produce(ctx, records); err != nil {
		return err
	}
	s.beforeCommit(t.id, t.epoch)
	for _, c := range batch {
		c.begun = !c.finished
	}
	if err := t.commit(ctx); err != nil {
		return err
	}
	var end int64 // 0: only entries of the audit log were written
	for _, r := range records {
		if r.Topic == s.o.Topic {
			end = max(end, r.Offset+1)
		}
	}
	if state, err = s.readTo(ctx, end); err != nil {
		return err
	}
	for _, c := range batch {
		c.finish(state, nil)
	}
	return nil
}

// decided asks a change what to write, and returns the records and the state after it.
func (s *Store) decided(c *change, before State) (after State, records []*kgo.Record, err error) {
	defer panics.To(&err)
	writes, err := c.decide(before)
	if err != nil {
		return before, nil, err
	}
	after = before
	after.Records = slices.Clone(before.Records)
	for _, w := range writes {
		encoded, err := s.encode(c, w, &after)
		if err != nil {
			return before, nil, err
		}
		records = append(records, encoded...)
	}
	return after, records, nil
}

// encode makes the records of one write, and applies it to the state.
func (s *Store) encode(c *change, w Write, state *State) (records []*kgo.Record, err error) {
	e := w.Entry
	slug := w.Remove
	if w.Record != nil {
		slug = w.Record.Slug
	}
	at, there := slices.BinarySearchFunc(state.Records, slug, func(r Record, slug string) int { return cmp.Compare(r.Slug, slug) })
	if held := state.held[slug]; held != nil && errors.Is(held, errNewer) && c.restore == nil {
		return nil, fmt.Errorf("%w: the record of %s %w", ErrRefused, slug, held)
	}
	switch {
	case w.Record != nil:
		r := *w.Record
		r.Format = Format
		if c.restore == nil {
			r.Revision = 0
		}
		if there {
			r.Revision = max(r.Revision, state.Records[at].Revision)
			old, _ := json.Marshal(state.Records[at]) // it was read from JSON
			if c.restore == nil {
				state.bytes -= len(old)
			}
		} else if len(state.Records) >= MaxRecords && c.restore == nil {
			return nil, fmt.Errorf("%w: it has %d integrations, and not more are allowed; remove one", ErrRefused, MaxRecords)
		}
		r.Revision++
		value, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("%w: the record of %s: %w", ErrRefused, slug, err)
		}
		back, err := parseRecord(slug, value)
		if err != nil {
			return nil, fmt.Errorf("%w: the record of %s %w; make it smaller or correct it", ErrRefused, slug, err)
		}
		if state.bytes += len(value); state.bytes > MaxBytes {
			return nil, fmt.Errorf("%w: its integrations have %d bytes, and at most %d are allowed; remove one", ErrRefused, state.bytes, MaxBytes)
		}
		if there {
			state.Records[at] = *back
		} else {
			state.Records = slices.Insert(state.Records, at, *back)
		}
		records = append(records, &kgo.Record{Topic: s.o.Topic, Key: []byte(recordPrefix + slug), Value: value})
		if e.Record == nil {
			open := *back
			open.Secrets = nil
			e.Record = &open
		}
		e.ResourceID, e.Revision = cmp.Or(e.ResourceID, r.ID), cmp.Or(e.Revision, r.Revision)
	case slug != "":
		if there {
			e.ResourceID, e.Revision = cmp.Or(e.ResourceID, state.Records[at].ID), cmp.Or(e.Revision, state.Records[at].Revision+1)
			state.Records = slices.Delete(state.Records, at, at+1)
		}
		records = append(records, &kgo.Record{Topic: s.o.Topic, Key: []byte(recordPrefix + slug)})
	}
	e.ID, e.Slug, e.RequestID = cmp.Or(e.ID, newID("log_")), cmp.Or(e.Slug, slug), cmp.Or(e.RequestID, c.requestID)
	if e.Record != nil && e.Record.Secrets != nil {
		return nil, fmt.Errorf("%w: the audit entry of %s has sealed secrets", ErrRefused, slug)
	}
	if e.Time.IsZero() {
		e.Time = s.o.Now().UTC()
	}
	value, err := json.Marshal(e)
	if err == nil && len(value) > maxEntryBytes {
		err = fmt.Errorf("has %d bytes, and at most %d are allowed; make the blueprint smaller", len(value), maxEntryBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the audit entry of %s %w", ErrRefused, slug, err)
	}
	return append(records, &kgo.Record{Topic: s.audit, Value: value}), nil
}
