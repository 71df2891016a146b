// Package manage installs, changes and removes integrations: the operations behind the
// API, the console and the command line. It validates what was asked, computes what
// would change, and writes it to the store.
package manage

import (
	"context"
	"time"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
)

// Who asks, and why. By and RequestID are required.
type Who struct {
	By        string // name of the token, subject of the JWT, or OS user@host
	RequestID string // of the caller, or made
	Reason    string
}

// Request is the body of an install: the page's call.
type Request struct {
	Name              string       `json:"name"`
	Variant           string       `json:"variant"`
	Config            store.Values `json:"config"` // the six fields, and further keys of zerobus
	DeliveryMode      string       `json:"delivery_mode"`
	Enabled           *bool        `json:"enabled,omitempty"` // nil: true
	Slug              string       `json:"slug,omitempty"`    // default: from the name
	Source            store.Values `json:"source,omitempty"`
	Blueprint         string       `json:"blueprint,omitempty"`
	Mapping           store.Values `json:"mapping,omitempty"`
	Rejects           store.Values `json:"rejects,omitempty"`
	Delivery          store.Values `json:"delivery,omitempty"`
	ConsentCategories []string     `json:"consent_categories,omitempty"`
}

// Patch is a change: keys that are absent stay, keys that are null get their default.
type Patch struct {
	Name      *string      `json:"name,omitempty"`
	Config    store.Values `json:"config,omitempty"`
	Source    store.Values `json:"source,omitempty"`
	Blueprint *string      `json:"blueprint,omitempty"` // "": that of the variant
	Variant   *string      `json:"variant,omitempty"`
	Mapping   store.Values `json:"mapping,omitempty"`
	Rejects   store.Values `json:"rejects,omitempty"`
	Delivery  store.Values `json:"delivery,omitempty"`
	Enabled   *bool        `json:"enabled,omitempty"`
}

// Integration is an integration as the API shows it.
type Integration struct {
	ID                string         `json:"id"` // of one from a file: its slug
	Slug              string         `json:"slug"`
	Name              string         `json:"name"`
	Vendor            string         `json:"vendor"`
	Variant           string         `json:"variant"`
	Enabled           bool           `json:"enabled"`
	Revision          int64          `json:"revision"`
	ManagedBy         string         `json:"managed_by"`     // store or file
	Shadowed          bool           `json:"shadowed"`       // a file describes one of the same slug
	File              string         `json:"file,omitempty"` // file:line
	Config            map[string]any `json:"config"`         // secrets as {"set": true, "fingerprint": ...}
	Source            store.Values   `json:"source"`
	Blueprint         string         `json:"blueprint,omitempty"`
	Mapping           store.Values   `json:"mapping,omitempty"`
	Rejects           store.Values   `json:"rejects,omitempty"`
	Delivery          store.Values   `json:"delivery,omitempty"`
	DeliveryMode      string         `json:"delivery_mode"`
	ConsentCategories []string       `json:"consent_categories"`
	Group             string         `json:"group"`
	DeadLetterTopics  []string       `json:"dead_letter_topics"`
	Table             string         `json:"table"`
	Meta              store.Meta     `json:"meta,omitzero"`
	Observed          Observed       `json:"observed"`
}

// Observed is what an integration does now, from facts at the time of reading.
type Observed struct {
	State   string    `json:"state"` // delivering, blocked, failed, ...
	Reason  string    `json:"reason,omitempty"`
	Remedy  string    `json:"remedy,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	NextTry time.Time `json:"next_try,omitzero"`
	// Members counts the members that run it; Answering, of those, the ones that answer.
	Members   int `json:"members"`
	Answering int `json:"answering"`
}

// Result is the outcome of a change, or with DryRun what it would be.
type Result struct {
	Integration Integration              `json:"integration"`
	DryRun      bool                     `json:"dry_run"`
	Changes     map[string]store.Changed `json:"changes"`          // by dotted field; secrets as fingerprints
	Action      string                   `json:"action"`           // start, replace, live, stop or none
	Checks      []pipeline.CheckStep     `json:"checks,omitempty"` // of an install
	DDL         string                   `json:"ddl,omitempty"`
	Grants      []string                 `json:"grants,omitempty"`
	Warnings    []string                 `json:"warnings,omitempty"`
	Notes       []string                 `json:"notes,omitempty"` // what is left after a removal, and how to delete it
}

// Codes of an Error.
const (
	ValidationFailed  = "VALIDATION_FAILED"
	NameTaken         = "NAME_TAKEN"
	RevisionMismatch  = "REVISION_MISMATCH"
	NotFound          = "NOT_FOUND"
	ManagedByFile     = "MANAGED_BY_FILE"
	StoreUnavailable  = "STORE_UNAVAILABLE"
	StillEnabled      = "STILL_ENABLED" // a replay of an enabled integration
	OutcomeUnexpected = "INTERNAL"
)

// Error is why an operation was refused.
type Error struct {
	Code       string
	Message    string
	Remedy     string
	Fields     []FieldError
	RetryAfter time.Duration // of StoreUnavailable
	Err        error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FieldError is what is wrong with one field of a request.
type FieldError struct {
	Field   string `json:"field"` // dotted, as in config.workspace_url
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Runtime is what the manager needs of the process. Nil for the command line.
type Runtime interface {
	// Observed returns the present state of an integration.
	Observed(ctx context.Context, slug string) Observed
	// Changed has the process take the wanted integrations over soon.
	Changed()
}

// Options of a Manager. Store is nil without a store.
type Options struct {
	Store   *store.Store
	Files   func() *config.Deployment // base and the integrations of files, in force
	Runtime Runtime
	Version string
	Now     func() time.Time
}

// Manager does the operations. Its methods are safe for concurrent use; their errors are
// an *Error, or that of the context.
type Manager struct{ o Options }

// New returns a Manager.
func New(o Options) *Manager { return &Manager{o: o} }

// Wanted returns the integrations to run: those of files, and those of the store in state
// that no file shadows. Problems are those of integrations that cannot run, by slug.
func (m *Manager) Wanted(state store.State) (all []config.Integration, problems map[string]error) {
	return nil, nil
}

// Catalog returns what can be installed.
func (m *Manager) Catalog() ([]catalog.Vendor, error) { return nil, nil }

// List returns all integrations in the order of the slugs.
func (m *Manager) List(ctx context.Context) ([]Integration, error) { return nil, nil }

// Get returns the integration of an id or a slug.
func (m *Manager) Get(ctx context.Context, id string) (Integration, error) { return Integration{}, nil }

// Install installs an integration.
func (m *Manager) Install(ctx context.Context, r Request, w Who, dryRun bool) (Result, error) {
	return Result{}, nil
}

// Update changes an integration of the store. With revision above 0 it is refused unless
// that is the present revision.
func (m *Manager) Update(ctx context.Context, id string, p Patch, revision int64, w Who, dryRun bool) (Result, error) {
	return Result{}, nil
}

// Remove removes an integration of the store. Its group and dead letters stay.
func (m *Manager) Remove(ctx context.Context, id string, revision int64, w Who, dryRun bool) (Result, error) {
	return Result{}, nil
}

// Check tries what an integration depends on, and calls step after each step.
// With a patch, it tries the integration as the patch would make it.
func (m *Manager) Check(ctx context.Context, id string, p *Patch, step func(pipeline.CheckStep)) error {
	return nil
}

// CheckRequest is Check for what is not installed yet.
func (m *Manager) CheckRequest(ctx context.Context, r Request, step func(pipeline.CheckStep)) error {
	return nil
}

// Revisions returns the audit entries of an integration that changed it, newest first.
func (m *Manager) Revisions(ctx context.Context, id string) ([]store.Entry, error) { return nil, nil }

// Audit returns entries of the audit log, newest first, before the entry of that id.
func (m *Manager) Audit(ctx context.Context, before string, limit int) ([]store.Entry, error) {
	return nil, nil
}
