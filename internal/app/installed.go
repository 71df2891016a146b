package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/internal/pipeline"
)

// followEvery is how often installed integrations that cannot run are looked at again:
// what they lack may have come. It is also how often a change that was refused is tried.
const followEvery = 10 * time.Second

// installed are the integrations of the store, beside those of files.
type installed struct {
	manager *manage.Manager
	store   *store.Store  // nil without a store
	signal  chan struct{} // holds a token: what is wanted may have changed

	applying sync.Mutex // held while what is wanted is compared with what runs

	mu       sync.Mutex        // guards the fields below
	problems map[string]string // why one cannot run, by slug
	refused  map[string]error  // why a change is not in force, by slug
	observed map[string]manage.Observed
	looked   time.Time // of observed
}

// newStore returns the store of a deployment. It does no I/O.
func newStore(settings func() *config.Config, version string, log *zap.Logger) *store.Store {
	return store.New(store.Options{Topic: settings().Store.Topic, Connection: pipeline.Connection(settings, version, log), Log: log,
		Keys: func() ([][]byte, error) { return settings().Store.ReadKeys() }})
}

// wanted returns the integrations to run. Of those of the store that cannot run, the ones
// that are known are not enabled: what runs of them drains.
func (a *App) wanted() []config.Integration {
	if a.installed.store == nil {
		return a.deployment.Load().Integrations
	}
	all, problems := a.installed.manager.Wanted(a.installed.store.State())
	a.installed.setProblems(problems, a.log)
	for _, known := range a.integrations.Status() {
		if problems[known.Name] != nil && !slices.ContainsFunc(all, func(i config.Integration) bool { return i.Name == known.Name }) {
			known.Integration.Enabled = false
			all = append(all, known.Integration)
		}
	}
	slices.SortFunc(all, func(a, b config.Integration) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// state returns what is known of the store; nothing without one.
func (i *installed) state() store.State {
	if i.store == nil {
		return store.State{}
	}
	return i.store.State()
}

// setProblems records which integrations cannot run, and logs each that begins or ends.
func (i *installed) setProblems(problems map[string]error, log *zap.Logger) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := make(map[string]string, len(problems))
	for slug, err := range problems {
		if next[slug] = firstProblems(err); next[slug] != i.problems[slug] {
			log.Error("installed integration blocked", zap.String("integration", slug), zap.String("error", next[slug]))
		}
	}
	for slug := range i.problems {
		if _, lasts := next[slug]; !lasts {
			log.Info("installed integration no longer blocked", zap.String("integration", slug))
		}
	}
	i.problems = next
}

// followStore runs what is installed until ctx ends.
func (a *App) followStore(ctx context.Context) {
	var following sync.WaitGroup
	following.Go(func() { a.installed.store.Run(ctx, func(store.State) { a.installed.changed() }) })
	defer following.Wait()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.installed.signal:
			a.follow(ctx, true)
		case <-tick.C:
			if a.installed.troubled() {
				a.follow(ctx, false)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (i *installed) changed() {
	select {
	case i.signal <- struct{}{}:
	default:
	}
}

// troubled reports whether something that is wanted is not in force.
func (i *installed) troubled() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.problems)+len(i.refused) > 0
}

// follow has the integrations that are wanted now run. With reread, those that have failed
// are started again at once, and a table that a blueprint does not fit is read again.
func (a *App) follow(ctx context.Context, reread bool) {
	c, err := a.reconcile(ctx, reread)
	if stack := panics.Stack(err); stack != "" {
		a.log.Error("installed integrations not followed", zap.Error(err), zap.String("stack", stack))
	}
	if len(c.Changed) > 0 {
		a.log.Info("installed integrations changed", zap.Strings("changed", c.Changed))
	}
}

// reconcile compares what is wanted with what runs. The error is about integrations of
// files: that a change of an installed one is refused is logged once, and shown.
func (a *App) reconcile(ctx context.Context, reread bool) (integrations.Changes, error) {
	a.installed.applying.Lock()
	defer a.installed.applying.Unlock()
	var wanted []config.Integration
	if err := guarded(func() { wanted = a.wanted() }); err != nil { // a record must not end the process
		return integrations.Changes{}, fmt.Errorf("what is installed cannot be read, and what runs stays: %w; report this as a bug", err)
	}
	a.plan(wanted)
	c, err := a.integrations.Reconcile(ctx, wanted, reread)
	if ctx.Err() != nil {
		return c, err
	}
	var ofFiles []error
	installed := maps.Clone(c.Refused)
	for _, i := range a.deployment.Load().Integrations {
		if err := c.Refused[i.Name]; err != nil {
			ofFiles = append(ofFiles, err)
			delete(installed, i.Name)
		}
	}
	a.installed.mu.Lock()
	defer a.installed.mu.Unlock()
	for name, err := range installed {
		if was := a.installed.refused[name]; was == nil || was.Error() != err.Error() {
			a.log.Error("the change of an installed integration is not in force; it runs as before", zap.String("integration", name), zap.Error(err))
		}
	}
	a.installed.refused = installed
	return c, errors.Join(ofFiles...)
}

// addInstalled completes the states of integrations by what is known of the store: names,
// changes that are not in force, and those that cannot run.
func (a *App) addInstalled(all []ops.IntegrationStatus) []ops.IntegrationStatus {
	if a.installed.store == nil {
		return all
	}
	state := a.installed.store.State()
	a.installed.mu.Lock()
	defer a.installed.mu.Unlock()
	waiting := maps.Clone(a.installed.problems)
	for n := range all {
		i := &all[n]
		if err := a.installed.refused[i.Integration]; err != nil && i.Reason == "" {
			i.Reason = "the last change is not in force: " + firstProblems(err)
		}
		if p, is := waiting[i.Integration]; is {
			delete(waiting, i.Integration)
			if i.State == ops.StateDisabled { // else it drains
				block(i, p)
			}
		}
		if r := state.Find(i.Integration); r != nil && !a.ofFile(i.Integration) {
			i.Name = r.Name
		}
	}
	for slug, p := range waiting {
		i := ops.IntegrationStatus{Integration: slug}
		if r := state.Find(slug); r != nil {
			i.Name, i.Table = r.Name, tableOf(r)
		}
		block(&i, p)
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b ops.IntegrationStatus) int { return strings.Compare(a.Integration, b.Integration) })
	return all
}

func (a *App) ofFile(name string) bool {
	return slices.ContainsFunc(a.deployment.Load().Integrations, func(i config.Integration) bool { return i.Name == name })
}

// block makes the state that of an integration that cannot run.
func block(i *ops.IntegrationStatus, why string) {
	i.State, i.Reason = ops.StateBlocked, why
	i.NotReady = []consumer.NotReady{{Code: "integration_blocked", Text: why, Remedy: "change the installed integration, or add what it lacks; it is tried again every 10 seconds"}}
}

// tableOf returns the table of a record as far as it names one.
func tableOf(r *store.Record) string {
	var parts []string
	for _, key := range []string{"catalog", "schema", "table"} {
		if part, _ := r.Target[key].(string); part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ".")
}

// storeStatus returns the state of the store; nil without one.
func (a *App) storeStatus() *ops.StoreStatus {
	if a.installed.store == nil {
		return nil
	}
	state := a.installed.store.State()
	s := &ops.StoreStatus{Topic: a.base.Load().Store.Topic, Known: state.Known, Revision: state.Revision, Integrations: len(state.Records), Ignored: state.Ignored, Notes: state.IgnoredNotes}
	for _, i := range a.deployment.Load().Integrations {
		if r := state.Find(i.Name); r != nil {
			s.Shadowed = append(s.Shadowed, ops.Shadowed{ID: r.ID, Integration: r.Slug, Name: r.Name, Table: tableOf(r)})
		}
	}
	if p := state.Problem; p != nil {
		s.Problem, s.Since = &consumer.NotReady{Code: p.Code, Text: p.Reason, Remedy: p.Remedy}, p.Since
	}
	return s
}

// managed is what the manager needs of the process.
type managed struct{ *App }

// Changed implements manage.Runtime.
func (r managed) Changed() { r.installed.changed() }

// observedFor is how long the states of all integrations serve requests.
const observedFor = time.Second

// Observed implements manage.Runtime: the state over all members, as far as they can be
// asked.
func (r managed) Observed(ctx context.Context, slug string) manage.Observed {
	r.installed.mu.Lock()
	all, looked := r.installed.observed, r.installed.looked
	r.installed.mu.Unlock()
	if time.Since(looked) > observedFor {
		all = r.observe(ctx)
		r.installed.mu.Lock()
		r.installed.observed, r.installed.looked = all, time.Now()
		r.installed.mu.Unlock()
	}
	if o, known := all[slug]; known {
		return o
	}
	return manage.Observed{State: ops.VerdictStarting, Reason: "the members take it over"}
}

// observe returns the state of each integration.
func (a *App) observe(ctx context.Context) map[string]manage.Observed {
	all := make(map[string]manage.Observed)
	state := func(slug string, v ops.Verdict) manage.Observed {
		o := all[slug]
		o.State, o.Reason, o.Remedy, o.Since = v.State, v.Text, v.Remedy, v.Since
		return o
	}
	for _, i := range a.Status().Integrations {
		o := state(i.Integration, *i.Verdict)
		if o.NextTry = i.NextTry; i.State != ops.StateDisabled && i.State != ops.StateBlocked {
			o.Members, o.Answering = 1, 1
		}
		all[i.Integration] = o
	}
	for _, i := range a.group.Status(ctx).Integrations {
		o := state(i.Integration, i.Verdict)
		o.Members, o.Answering = len(i.Members), i.Answering
		all[i.Integration] = o
	}
	return all
}

// CheckStore is a step of a check: whether the store of installed integrations can be
// read and written, and what of it cannot run.
func CheckStore(ctx context.Context, c *pipeline.Check, d *config.Deployment, reached bool, version string, log *zap.Logger) {
	if !d.Base.Store.Enabled {
		return
	}
	c.Try(ctx, "store", reached, func(ctx context.Context) (string, error) {
		s := newStore(func() *config.Config { return d.Base }, version, log)
		defer s.Close()
		if p := s.Verify(ctx); p != nil {
			return "", p
		}
		if _, err := d.Base.Store.ReadKeys(); err != nil {
			return "", err
		}
		state := s.State()
		_, problems := manage.New(manage.Options{Store: s, Files: func() *config.Deployment { return d }, Version: version}).Wanted(state)
		detail := counted(len(state.Records)) + " in " + d.Base.Store.Topic
		warnings := slices.Clone(state.IgnoredNotes)
		for _, slug := range slices.Sorted(maps.Keys(problems)) {
			warnings = append(warnings, "integration "+slug+" cannot run: "+firstProblems(problems[slug]))
		}
		if len(warnings) > 0 {
			return detail, pipeline.Warning(strings.Join(warnings, "\n"))
		}
		return detail, nil
	})
}

func counted(n int) string {
	if n == 1 {
		return "1 installed integration"
	}
	return strconv.Itoa(n) + " installed integrations"
}
