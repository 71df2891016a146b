package store

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// Options of a Store. Topic, Connect and Log are required.
type Options struct {
	// Topic holds the records; Topic-audit holds the audit log, and Topic is the
	// transactional id.
	Topic string
	// Connect returns a new client of the cluster. The Store closes it.
	Connect func(...kgo.Opt) (*kgo.Client, error)
	// Keys returns the sealing keys in force, 32 bytes each: the first seals, all open.
	// Nil or an empty result: secrets can neither be sealed nor opened.
	Keys func() ([][]byte, error)
	Log  *zap.Logger
	Now  func() time.Time // default time.Now
}

// Store follows and changes the records. Its methods are safe for concurrent use.
type Store struct{ o Options }

// New returns a Store. It does no I/O.
func New(o Options) *Store { return &Store{o: o} }

// State is the content of the store at one moment. It is read-only.
type State struct {
	Known    bool     // the topic was read at least once
	StoreID  string   // of the sentinel; empty before the first change
	Records  []Record // in the order of the slugs
	Revision int64    // the last stable offset that was read
	At       time.Time
	// Ignored counts records that are foreign, malformed or of a newer format, with one
	// description each for the first few.
	Ignored      int
	IgnoredNotes []string
	// Problem is why nothing can be written, or why the topic is not followed; nil: none.
	// The records are those that were last known.
	Problem *Problem
}

// Problem is a state of the store that an operator has to resolve.
type Problem struct {
	Code   string    `json:"code"` // one of the Problem codes
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"`
	Since  time.Time `json:"since"`
}

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
// without Remove only adds the entry.
type Write struct {
	Record *Record // new content
	Remove string  // slug of the record to remove
	Entry  Entry
}

// Errors of Update besides those of decide. ErrUnavailable is behind errors that say what is
// wrong and end with the remedy.
var (
	ErrUnavailable = errors.New("the store of integrations cannot be written")
	errTodo        = errors.New("not built")
)

// Run follows the topic until ctx ends, and calls changed with each State that differs
// from the one before. It returns when its goroutines have ended.
func (s *Store) Run(ctx context.Context, changed func(State)) { <-ctx.Done() }

// State returns what was last read. It never waits.
func (s *Store) State() State { return State{} }

// Read reads the topic to its last stable offset.
func (s *Store) Read(ctx context.Context) (State, error) { return State{}, errTodo }

// Update changes the store. decide gets the present content, under the fence, and
// returns what to write; an error of it is returned as it is, and nothing is written. It
// may be called several times. When Update returns without an error, the records were
// committed and read back. requestID identifies the change: when the outcome of a
// commit is unknown, it is looked for before decide is called again.
func (s *Store) Update(ctx context.Context, requestID string, decide func(State) ([]Write, error)) (State, error) {
	return State{}, errTodo
}

// Audit returns entries of the audit log, the newest first: at most limit of those that
// match, among the newest 10,000.
func (s *Store) Audit(ctx context.Context, limit int, match func(*Entry) bool) ([]Entry, error) {
	return nil, errTodo
}

// Seal seals a secret of r for the place that r names: store id, integration, field,
// workspace_url, endpoint, token_url and client_id.
func (s *Store) Seal(r *Record, storeID, field, secret string) (Sealed, error) {
	return Sealed{}, errTodo
}

// Open opens a sealed secret of r. The error names the missing key, or states that the
// secret was sealed for another place; it never holds the secret.
func (s *Store) Open(r *Record, storeID, field string) (string, error) { return "", errTodo }
