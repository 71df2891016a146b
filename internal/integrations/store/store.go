package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// Options of a Store. Topic, Connection and Log are required.
type Options struct {
	// Topic holds the records; Topic-audit holds the audit log, and Topic is the
	// transactional id.
	Topic string
	// Connection reaches the cluster. The Store reads committed records only, whatever
	// its Isolation is.
	Connection kafka.Connection
	// Keys returns the sealing keys in force, 32 bytes each: the first seals, all open.
	// Nil or an empty result: secrets can neither be sealed nor opened.
	Keys func() ([][]byte, error)
	Log  *zap.Logger
	Now  func() time.Time // default time.Now
}

// Bounds of a store. What exceeds them is refused when it is written, and ignored when
// it is read.
const (
	MaxRecords     = 1000
	MaxRecordBytes = 256 << 10 // of one record, as JSON
	MaxBytes       = 64 << 20  // of all records
	maxEntryBytes  = 900 << 10 // of one entry of the audit log: below the brokers' default of 1 MiB
)

// Store follows and changes the records. Its methods are safe for concurrent use.
type Store struct {
	o     Options
	audit string
	newID string // of the store that the first change makes

	// Each channel holds one value while somebody reads the topic, or writes.
	reading, writing chan struct{}
	log              topicLog // owned by who reads

	closing context.Context // ends what is under way
	end     context.CancelFunc

	mu       sync.Mutex
	client   *kafka.Client
	state    State
	verified time.Time // of the last check of the topics
	topics   *Problem  // what that check found
	queue    []*change
	closed   bool
	noPolicy sync.Once // logs that the configuration of the topics cannot be read

	folded chan struct{} // has a value after the state may have changed

	// For tests: called between produce and commit; the pause before try, from 1.
	beforeCommit func(producerID int64, epoch int16)
	pause        func(try int) time.Duration
}

// New returns a Store. It does no I/O.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Connection.Isolation = kafka.IsolationCommitted
	closing, end := context.WithCancel(context.Background()) //nolint:forbidigo // until Close
	return &Store{
		closing: closing, end: end,
		o: o, audit: o.Topic + "-audit", newID: newID("store_"), pause: jitter, beforeCommit: func(int64, int16) {},
		reading: make(chan struct{}, 1), writing: make(chan struct{}, 1), folded: make(chan struct{}, 1),
	}
}

// closeAfter is how long Close waits for a change that is being written.
const closeAfter = time.Second

// Close closes the connections of the Store. Call it after Run has returned. What is under
// way has a second to end; the outcome of a change is unknown then, as after a crash.
func (s *Store) Close() {
	defer s.end()
	defer time.AfterFunc(closeAfter, s.end).Stop()
	s.writing <- struct{}{}
	s.reading <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
	s.closed = true
	<-s.reading
	<-s.writing
}

// State is the content of the store at one moment. It is read-only.
type State struct {
	Known bool // the topic was read at least once
	// StoreID is that of the sentinel. Before the first change it is empty; decide of
	// Update gets the id that the first change will write.
	StoreID  string
	Records  []Record // in the order of the slugs
	Revision int64    // the last stable offset that was read
	At       time.Time
	// Ignored counts records that are foreign, malformed or of a newer format, with one
	// description each for the first few.
	Ignored      int
	IgnoredNotes []string
	// Problem is why nothing can be written, or why the topic is not followed; nil: none.
	// The records are those that were last known. Only with WentBack can records be
	// written: that resolves it.
	Problem *Problem

	bytes int              // of the records, as JSON
	held  map[string]error // slugs whose newest record cannot be read
	found []string         // with Missing: slugs of records in the topic
}

// Find returns the record of a slug, or nil.
func (s *State) Find(slug string) *Record {
	i, ok := slices.BinarySearchFunc(s.Records, slug, func(r Record, slug string) int { return cmp.Compare(r.Slug, slug) })
	if !ok {
		return nil
	}
	return &s.Records[i]
}

// Problem is a state of the store that an operator has to resolve. As an error it
// unwraps to ErrUnavailable.
type Problem struct {
	Code   string    `json:"code"` // one of the Problem codes
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"`
	Since  time.Time `json:"since"`
}

// Error states the reason and the remedy.
func (p *Problem) Error() string {
	return fmt.Sprintf("%v: %s; %s", ErrUnavailable, p.Reason, p.Remedy)
}

// Unwrap returns ErrUnavailable.
func (p *Problem) Unwrap() error { return ErrUnavailable }

// Codes of problems.
const (
	Unreachable     = "unreachable"      // no broker answers
	Missing         = "missing"          // the topic or its sentinel is gone, or it is another topic
	WrongPolicy     = "wrong_policy"     // cleanup.policy, partitions
	NoTransactions  = "no_transactions"  // not allowed or not offered
	Unreadable      = "unreadable"       // not allowed to read
	Unwritable      = "unwritable"       // not allowed to write
	OpenTransaction = "open_transaction" // of somebody else, below the end of the log
	WentBack        = "went_back"        // a revision is lower than one that was known
)

// Write is one record to write, with its audit entry. A Write without a Record and
// without Remove only adds the entry. The Store sets Format and Revision of the Record,
// and what the Entry leaves empty of ID, Slug, Revision, RequestID, Time and Record.
type Write struct {
	Record *Record // new content
	Remove string  // slug of the record to remove
	Entry  Entry
}

// Errors of Update besides those of decide.
var (
	// ErrUnavailable is behind errors that say what is wrong and end with the remedy. Most
	// are a *Problem.
	ErrUnavailable = errors.New("the store of integrations cannot be written")
	// ErrOutcome is behind an error after which the change may have been committed.
	ErrOutcome = errors.New("the outcome of the change is not known")
	// ErrRefused is behind the errors of what decide returned: a bound, or a record that a
	// newer version wrote.
	ErrRefused = errors.New("the store refuses the change")
)

// State returns what was last read. It never waits.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Read reads the topic to its last stable offset. With an error, a *Problem or that of ctx,
// the State is what was last known. A topic that does not exist yet has no records.
func (s *Store) Read(ctx context.Context) (State, error) {
	return s.fold(ctx, true)
}

// connected returns the client of requests that are not about one transaction.
func (s *Store) connected() (*kafka.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the store is closed")
	}
	if s.client == nil {
		cl, err := kafka.NewClient(s.o.Connection, s.o.Log, kgo.WithContext(s.closing))
		if err != nil {
			return nil, err
		}
		s.client = cl
	}
	return s.client, nil
}

// enter takes the right to read or write, unless ctx ends before.
func enter(ctx context.Context, right chan struct{}) error {
	select {
	case right <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish takes a new state over. Its problem keeps the time since when it lasts.
func (s *Store) publish(next State) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next.Problem == nil {
		next.Problem = s.topics
	}
	if p, old := next.Problem, s.state.Problem; p != nil {
		at := *p
		if at.Since = s.o.Now(); old != nil && old.Code == p.Code {
			at.Since = old.Since
		}
		next.Problem = &at
	}
	s.state = next
	select {
	case s.folded <- struct{}{}:
	default:
	}
	return next
}
