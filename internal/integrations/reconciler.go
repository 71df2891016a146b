// Package integrations decides which integrations of a deployment run, and
// supervises each of them.
//
// A [Reconciler] compares the wanted integrations with those that run, each time the
// configuration was loaded. It keeps nothing else between two comparisons. Each
// integration has a supervisor: one goroutine that starts it, waits for its end and
// starts it again.
package integrations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
)

// Runner is one integration at work. Run is called once, and Close after it has
// returned. The other methods are called at any time and concurrently.
type Runner interface {
	Run(ctx context.Context) error
	// Apply activates next as far as that needs no other Runner: all of it, or nothing
	// and an error.
	Apply(ctx context.Context, next *config.Config, reread bool) (changed, pending []string, err error)
	Settings() *config.Config // in force
	Stuck() string            // why only another Runner can deliver; usually empty
	Close()
}

// Options of a Reconciler. New and Log are required.
type Options struct {
	// New builds a Runner. It does no I/O but reading files.
	New func(config.Integration) (Runner, error)
	// Removed is called when an integration that is no longer wanted has ended. It must
	// not call the Reconciler. Default nil: nothing.
	Removed func(name string)
	// Bounded is for one integration that ends: its end, with or without an error, is
	// that of Run, and changes that need another Runner wait for a restart.
	Bounded bool
	// Store is true if integrations may come from a store. Then the end of none is that of
	// the process.
	Store bool
	// Rand returns numbers from 0 to 1, for delays. Default nil: those of math/rand.
	Rand func() float64
	Log  *zap.Logger
}

// Reconciler runs the wanted integrations. Its methods are safe for concurrent use;
// Run may be called once.
type Reconciler struct {
	o     Options
	group sync.WaitGroup // of the supervisors; Run waits for it

	mu  sync.Mutex // guards the fields below and those of the supervisors
	all map[string]*supervisor
	// places are taken by the integration that has a member in a group, by group. Two
	// members of one process would take partitions from each other, and with
	// kafka.instance_id the brokers would expel the first while it drains.
	places map[string]chan struct{}
	ctx    context.Context // of Run; nil before
	stop   context.CancelFunc
	ended  bool  // nothing is started any more
	err    error // of Run
}

// New returns a Reconciler of the wanted integrations. Run starts them.
func New(o Options, wanted []config.Integration) *Reconciler {
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	r := &Reconciler{o: o, all: make(map[string]*supervisor), places: make(map[string]chan struct{})}
	var starts []*supervisor
	for _, w := range wanted {
		s := r.add(w)
		s.first = true
		if w.Enabled {
			starts = append(starts, s)
		}
	}
	r.spread(starts)
	return r
}

func (r *Reconciler) add(w config.Integration) *supervisor {
	s := &supervisor{r: r, name: w.Name, spec: w, state: Starting, changed: make(chan struct{}, 1)}
	r.all[w.Name] = s
	return s
}

// place returns what the integration holds that has a member in the group.
func (r *Reconciler) place(group string) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places[group] == nil {
		r.places[group] = make(chan struct{}, 1)
	}
	return r.places[group]
}

const (
	// spreadEach is by how much each start of several at once extends the time over
	// which they are spread, so that the groups of all members do not join at once.
	spreadEach = 100 * time.Millisecond
	spreadMax  = 3 * time.Second
)

// spread gives each start of several a random delay.
func (r *Reconciler) spread(starts []*supervisor) {
	window := min(time.Duration(len(starts)-1)*spreadEach, spreadMax)
	for _, s := range starts {
		s.delay = time.Duration(r.o.Rand() * float64(window))
	}
}

// Run runs the integrations until ctx ends or one of them ends the process, then
// drains all of them and returns when they have ended. Its error is that of the
// integration that ended the process.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r.mu.Lock()
	r.ctx, r.stop = ctx, stop
	for _, s := range r.all {
		r.group.Go(func() { s.run(ctx) })
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.ended = true // what was compared before has started its supervisors
	r.mu.Unlock()
	r.group.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Changes are what a Reconcile changed. Keys of the integration `default` are those
// of the file; those of others begin with integrations.NAME.
type Changes struct {
	Changed []string         // keys with another value, and integrations that were added or removed
	Pending []string         // keys whose other value takes effect after a restart
	Refused map[string]error // why the change of an integration is not in force, by name
}

// Reconcile compares the wanted integrations with those that run, and starts,
// changes, replaces and stops accordingly. It waits for live changes only. With
// reread, failed ones are started again at once, and a table that a blueprint does
// not fit is read again. The error names the integrations whose change was refused:
// those run as before. One call at a time.
func (r *Reconciler) Reconcile(ctx context.Context, wanted []config.Integration, reread bool) (Changes, error) {
	p := r.compare(wanted, reread)
	results := make([]Changes, len(p.live))
	errs := make([]error, len(p.live))
	var applying sync.WaitGroup
	for i, l := range p.live {
		applying.Go(func() { results[i], errs[i] = l.apply(ctx, reread) })
	}
	applying.Wait()
	for i, c := range results {
		p.Changed, p.Pending = append(p.Changed, c.Changed...), append(p.Pending, c.Pending...)
		if errs[i] != nil {
			p.Refused[p.live[i].s.name] = named(p.live[i].s.name, errs[i])
		}
	}
	var all []error
	for _, name := range slices.Sorted(maps.Keys(p.Refused)) {
		all = append(all, p.Refused[name])
	}
	return p.Changes, errors.Join(all...)
}

// plan is the outcome of a comparison.
type plan struct {
	Changes
	live   []liveChange
	starts []*supervisor
}

// compare decides for each integration, and has the supervisors act on it, except for
// live changes.
func (r *Reconciler) compare(wanted []config.Integration, reread bool) *plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &plan{Changes: Changes{Refused: make(map[string]error)}}
	if r.ended {
		return p
	}
	unwanted := maps.Clone(r.all)
	var added []*supervisor
	for _, w := range wanted {
		delete(unwanted, w.Name)
		if s := r.all[w.Name]; s != nil {
			s.compare(w, reread, p)
			continue
		}
		s := r.add(w)
		added = append(added, s)
		if p.changed(w.Name, ""); w.Enabled {
			p.starts = append(p.starts, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unwanted)) {
		if s := unwanted[name]; !s.removed {
			p.changed(name, "")
			s.removed = true
			s.signal()
		}
	}
	r.spread(p.starts)
	for _, s := range added {
		if ctx := r.ctx; ctx != nil {
			r.group.Go(func() { s.run(ctx) })
		}
	}
	return p
}

// changed notes a key of an integration, or the integration itself. Keys of the
// process are noted by who changes those.
func (p *plan) changed(integration string, keys ...string) {
	p.Changed = appendKeys(p.Changed, integration, keys)
}

func appendKeys(to []string, integration string, keys []string) []string {
	for _, key := range keys {
		if key == "" || !config.OfProcess(key) {
			to = append(to, keyOf(integration, key))
		}
	}
	return to
}

// keyOf returns the path of a key of an integration, or of the integration itself.
func keyOf(integration, key string) string {
	if integration == config.DefaultIntegration {
		return cmp.Or(key, integration)
	}
	return strings.TrimSuffix("integrations."+integration+"."+key, ".")
}

// liveChange is a change that needs no other Runner.
type liveChange struct {
	s      *supervisor
	runner Runner
	next   config.Integration
}

func (l liveChange) apply(ctx context.Context, reread bool) (c Changes, err error) {
	var changed, pending []string
	err = guarded(func() (err error) {
		changed, pending, err = l.runner.Apply(ctx, l.next.Config, reread)
		return err
	})
	if err != nil {
		return c, err
	}
	l.s.r.mu.Lock()
	defer l.s.r.mu.Unlock()
	l.s.spec = l.next
	if l.s.runner != l.runner {
		l.s.signal() // it was started again meanwhile, without the change
	}
	return Changes{Changed: appendKeys(nil, l.s.name, changed), Pending: appendKeys(nil, l.s.name, pending)}, nil
}

// named adds the name of an integration to its error.
func named(integration string, err error) error {
	if integration == config.DefaultIntegration {
		return err
	}
	return fmt.Errorf("integration %s: %w", integration, err)
}

// States of an integration. Running, it has those of its Runner as well.
const (
	Starting = "starting" // its start is delayed, or it is being built
	Running  = "running"
	Draining = "draining" // its Runner is asked to end
	Failed   = "failed"   // it has ended with an error, and is started again
	Disabled = "disabled"
)

// Status is the state of one integration.
type Status struct {
	config.Integration // as wanted

	State   string
	Reason  string    // of Failed, of a Draining that takes longer than it may, or of a Starting that waits
	NextTry time.Time // of Failed
	Runner  Runner    // the present or the last one; nil without
}

// Status returns the states in the order of the names.
func (r *Reconciler) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(r.all)) {
		s := r.all[name]
		all = append(all, Status{Integration: s.spec, State: s.state, Reason: s.reason, NextTry: s.nextTry, Runner: s.runner})
	}
	return all
}
