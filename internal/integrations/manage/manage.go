// Package manage installs, changes and removes integrations: the operations behind the
// API, the console and the command line. It validates what was asked, computes what
// would change, and writes it to the store.
package manage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
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
	Conflict          = "CONFLICT"      // the same is being done already
	Unavailable       = "UNAVAILABLE"   // the workspace
	OutcomeUnexpected = "INTERNAL"
)

// Error is why an operation was refused.
type Error struct {
	Code       string
	Message    string
	Remedy     string
	Fields     []FieldError
	RetryAfter time.Duration // of StoreUnavailable and Unavailable
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

// Options of a Manager. Files is required. Store is nil without a store.
type Options struct {
	Store   *store.Store
	Files   func() *config.Deployment // base and the integrations of files, in force
	Runtime Runtime
	// Connections to workspaces for checks are shared with others. Nil: each check has
	// its own.
	Connections *zerobus.Connections
	Version     string
	Now         func() time.Time // default time.Now
}

// Manager does the operations. Its methods are safe for concurrent use; their errors are
// an *Error, or that of the context.
type Manager struct {
	o         Options
	checks    chan struct{}                                               // has a value for each check that runs
	preparing sync.Mutex                                                  // held by the one preparation that runs
	bounded   func(context.Context) (context.Context, context.CancelFunc) // of a preparation

	mu    sync.Mutex // guards built
	built map[string]built
}

// New returns a Manager.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{o: o, checks: make(chan struct{}, maxChecks), bounded: prepareWithin, built: map[string]built{}}
}

// Catalog returns what can be installed. A folder of variants that cannot be read is a
// variant with a problem.
func (m *Manager) Catalog() ([]catalog.Vendor, error) {
	vendors, err := catalog.Vendors(m.o.Files().Base.Store.VariantsDir)
	if err != nil && len(vendors) > 0 {
		v := &vendors[0]
		v.Variants = append(v.Variants, catalog.Variant{Key: "variants_dir", Name: "store.variants_dir", DefaultConfig: map[string]any{}, Problem: err.Error()})
	}
	return vendors, nil
}

// Wanted returns the integrations to run: those of files, and those of the store in state
// that no file shadows. Problems are those of integrations that cannot run, by slug.
func (m *Manager) Wanted(state store.State) (all []config.Integration, problems map[string]error) {
	d := m.o.Files()
	installed, problems := m.installed(d, state)
	fit, conflicts := d.Beside(installed)
	for name, err := range conflicts {
		problems[name] = err
	}
	all = append(slices.Clone(d.Integrations), fit...)
	slices.SortFunc(all, func(a, b config.Integration) int { return cmp.Compare(a.Name, b.Name) })
	return all, problems
}

// installed returns the integrations of the store that no file shadows, the oldest first,
// and the problems of those that are not valid or whose secret does not open.
func (m *Manager) installed(d *config.Deployment, state store.State) (all []config.Integration, problems map[string]error) {
	problems = map[string]error{}
	records := slices.Clone(state.Records)
	slices.SortStableFunc(records, func(a, b store.Record) int {
		return cmp.Or(a.Meta.CreatedAt.Compare(b.Meta.CreatedAt), cmp.Compare(a.Slug, b.Slug))
	})
	next := map[string]built{}
	for n := range records {
		r := &records[n]
		if fileOf(d, r.Slug) != nil {
			continue
		}
		b := m.build(d, r, state.StoreID)
		if b.err != nil {
			problems[r.Slug] = b.err
			continue
		}
		next[r.Slug] = b
		all = append(all, b.integration)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.built = next
	return all, problems
}

// built is the integration of a record; nothing of it changes while the fields of of do not.
type built struct {
	of          builtOf
	integration config.Integration
	err         error
}

type builtOf struct {
	base    *config.Config
	storeID string
	record  *store.Record
}

// is reports whether both are of the same content. A revision alone does not identify it: one
// that the topic lost is given again.
func (b *builtOf) is(other *builtOf) bool {
	return b.base == other.base && b.storeID == other.storeID && reflect.DeepEqual(b.record, other.record)
}

// build returns the integration of a record, with its secrets. That of one that is not
// enabled has none where they do not open: it is not used.
func (m *Manager) build(d *config.Deployment, r *store.Record, storeID string) built {
	of := builtOf{d.Base, storeID, r}
	m.mu.Lock()
	b, known := m.built[r.Slug]
	m.mu.Unlock()
	if known && b.of.is(&of) {
		return b
	}
	secrets, err := m.open(r, storeID)
	if err != nil && r.Enabled {
		return built{err: err}
	}
	i, faults := overlay(d, r, secrets)
	return built{of, i, faults.err(r.Slug)}
}

// open returns the secrets of a record.
func (m *Manager) open(r *store.Record, storeID string) (map[string]string, error) {
	secrets := placeholders(r)
	for field := range r.Secrets {
		secret, err := m.o.Store.Open(r, storeID, field)
		if err != nil {
			return secrets, err
		}
		secrets[field] = secret
	}
	return secrets, nil
}

// fileOf returns the integration of a file with that slug, or nil.
func fileOf(d *config.Deployment, slug string) *config.Integration {
	for n := range d.Integrations {
		if d.Integrations[n].Name == slug {
			return &d.Integrations[n]
		}
	}
	return nil
}

// find returns the record of an id or a slug, or nil.
func find(state store.State, id string) *store.Record {
	for n := range state.Records {
		if r := &state.Records[n]; r.ID == id || r.Slug == id {
			return r
		}
	}
	return nil
}

// state returns the content of the store: what a process follows, or what a command reads.
func (m *Manager) state(ctx context.Context) (store.State, error) {
	if m.o.Store == nil {
		return store.State{}, nil
	}
	if state := m.o.Store.State(); m.o.Runtime != nil && state.Known {
		return state, nil
	}
	state, err := m.o.Store.Read(ctx)
	if err != nil && !state.Known {
		return state, refused(ctx, err)
	}
	return state, nil
}

// List returns all integrations in the order of the slugs.
func (m *Manager) List(ctx context.Context) ([]Integration, error) {
	state, err := m.state(ctx)
	if err != nil {
		return nil, err
	}
	d := m.o.Files()
	var all []Integration
	for n := range d.Integrations {
		all = append(all, m.viewFile(ctx, &d.Integrations[n]))
	}
	_, problems := m.Wanted(state)
	for n := range state.Records {
		all = append(all, m.view(ctx, d, &state.Records[n], state.StoreID, problems[state.Records[n].Slug]))
	}
	slices.SortStableFunc(all, func(a, b Integration) int { return cmp.Compare(a.Slug, b.Slug) })
	return all, nil
}

// Get returns the integration of an id or a slug. The slug of a shadowed one is that of
// the file.
func (m *Manager) Get(ctx context.Context, id string) (Integration, error) {
	d := m.o.Files()
	if i := fileOf(d, id); i != nil {
		return m.viewFile(ctx, i), nil
	}
	state, err := m.state(ctx)
	if err != nil {
		return Integration{}, err
	}
	r := find(state, id)
	if r == nil && m.o.Runtime != nil && m.o.Store != nil { // another member may just have installed it
		if state, err = m.o.Store.Read(ctx); err != nil {
			return Integration{}, refused(ctx, err)
		}
		r = find(state, id)
	}
	if r == nil {
		return Integration{}, notFound(id)
	}
	_, problems := m.Wanted(state)
	return m.view(ctx, d, r, state.StoreID, problems[r.Slug]), nil
}

func notFound(id string) *Error {
	return &Error{Code: NotFound, Message: fmt.Sprintf("there is no integration %.60q", id), Remedy: "list the integrations, and use the id or the slug of one"}
}

// refused returns an error of the store as one of the Manager. That of the context stays.
func refused(ctx context.Context, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	if errors.Is(err, store.ErrUnavailable) {
		if p, ok := errors.AsType[*store.Problem](err); ok {
			return unavailable(p)
		}
		return &Error{Code: StoreUnavailable, Message: err.Error(), RetryAfter: retryAfter, Err: err}
	}
	if errors.Is(err, store.ErrOutcome) {
		return &Error{Code: StoreUnavailable, Message: err.Error(), RetryAfter: retryAfter, Err: err}
	}
	if errors.Is(err, store.ErrRefused) {
		return &Error{Code: ValidationFailed, Message: err.Error(), Err: err}
	}
	return &Error{Code: OutcomeUnexpected, Message: err.Error(), Err: err}
}

// unavailable is the error of a store with a problem.
func unavailable(p *store.Problem) *Error {
	return &Error{Code: StoreUnavailable, Message: store.ErrUnavailable.Error() + ": " + p.Reason, Remedy: p.Remedy, RetryAfter: retryAfter, Err: p}
}

// retryAfter is when a change may succeed that the store did not take.
const retryAfter = 5 * time.Second

// storeless is the error of a change in a deployment without a store.
func storeless() *Error {
	return &Error{Code: StoreUnavailable, Message: "this deployment has no store of integrations", Remedy: "set store.enabled or admin.enabled to true, and restart the bridge", Err: store.ErrUnavailable}
}

// nameOf returns the display name as a slug, or "" where nothing is left of it.
func nameOf(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	slug := b.String()
	return strings.Trim(slug[:min(len(slug), maxSlug)], "-")
}
