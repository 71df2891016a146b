package integrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/config"
)

const drain = 20 * time.Second

// spec is an integration that reads a topic.
func spec(name, topic string, more ...func(*config.Integration)) config.Integration {
	c := config.Defaults()
	c.Kafka.Brokers, c.Kafka.Topics, c.Kafka.Group, c.Delivery.Drain = []string{"k:9092"}, []string{topic}, "bridge-"+name, drain
	i := config.Integration{Name: name, Enabled: true, Config: &c}
	for _, f := range more {
		f(&i)
	}
	return i
}

func limited(rows float64) func(*config.Integration) {
	return func(i *config.Integration) { i.Config.Zerobus.RateLimit = rows }
}

func inGroup(group string) func(*config.Integration) {
	return func(i *config.Integration) { i.Config.Kafka.Group = group }
}

func disabled(i *config.Integration) { i.Enabled = false }

// world records what happens to fake runners, in virtual time.
type world struct {
	t    *testing.T
	logs *observer.ObservedLogs
	*Reconciler
	ended chan error // of Run
	stop  context.CancelFunc

	mu      sync.Mutex // guards the fields below
	events  []string
	running map[string]*fake
	builds  map[string]error // why an integration cannot be built
}

// fake is a Runner.
type fake struct {
	w        *world
	name     string
	settings *config.Config
	ends     chan error // ends Run, or panics if it is errPanic
	closed   bool

	drains  time.Duration // how long Run takes to end
	stuck   string
	applies func() // called by Apply; nil: nothing
	checked func() // called by Stuck; nil: nothing
	closes  func() // called by Close; nil: nothing
}

var errPanic = errors.New("a bug")

func (f *fake) note(what string) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.events = append(f.w.events, what+" "+f.name)
}

// with calls set with the lock of the fields.
func (f *fake) with(set func()) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	set()
}

// call calls a field that may be nil.
func (f *fake) call(field *func()) {
	f.w.mu.Lock()
	do := *field
	f.w.mu.Unlock()
	if do != nil {
		do()
	}
}

func (f *fake) Run(ctx context.Context) (err error) {
	f.note("start")
	f.w.mu.Lock()
	if was := f.w.running[f.name]; was != nil && was.stuck == "" {
		f.w.t.Errorf("%s runs twice", f.name)
	}
	f.w.running[f.name] = f
	f.w.mu.Unlock()
	select {
	case err = <-f.ends:
	case <-ctx.Done():
		<-time.After(f.drains) // virtual
	}
	f.note("stop")
	f.w.mu.Lock()
	if f.w.running[f.name] == f {
		delete(f.w.running, f.name)
	}
	f.w.mu.Unlock()
	if errors.Is(err, errPanic) {
		panic(err)
	}
	return err
}

func (f *fake) Apply(_ context.Context, next *config.Config, _ bool) (changed, pending []string, err error) {
	f.call(&f.applies)
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if next.Zerobus.RateLimit < 0 {
		return nil, nil, errors.New("no such rate")
	}
	f.settings, changed, pending = f.settings.Follow(next)
	if len(changed) > 0 {
		f.w.events = append(f.w.events, "apply "+f.name)
	}
	return changed, pending, nil
}

func (f *fake) Settings() *config.Config {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return f.settings
}

func (f *fake) Stuck() string {
	f.call(&f.checked)
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return f.stuck
}

func (f *fake) Close() {
	defer f.call(&f.closes)
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.closed {
		f.w.t.Errorf("%s is closed twice", f.name)
	}
	f.closed = true
}

// within runs f with a Reconciler of some integrations, in virtual time.
func within(t *testing.T, wanted []config.Integration, f func(w *world), options ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		w := &world{t: t, logs: logs, running: make(map[string]*fake), builds: make(map[string]error), ended: make(chan error, 1)}
		o := Options{Log: zap.New(core), Rand: func() float64 { return 0.5 }, Removed: func(name string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, "removed "+name)
		}, New: func(i config.Integration) (Runner, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err := w.builds[i.Name]; errors.Is(err, errPanic) {
				panic(err)
			} else if err != nil {
				return nil, err
			}
			return &fake{w: w, name: i.Name, settings: i.Config, ends: make(chan error, 1), drains: time.Second}, nil
		}}
		for _, set := range options {
			set(&o)
		}
		w.Reconciler = New(o, wanted)
		ctx, stop := context.WithCancel(t.Context())
		w.stop = stop
		go func() { w.ended <- w.Run(ctx) }() // awaited below
		w.pass(10 * time.Second)
		f(w)
		stop()
		<-w.ended
		if len(w.running) > 0 {
			t.Errorf("got %d that run after the end, want none", len(w.running))
		}
	})
}

// pass waits, in virtual time, until everything that was going to happen has.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// since returns what happened since the last call, in order of the names.
func (w *world) since() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	slices.SortStableFunc(events, func(a, b string) int {
		var x, y, what string
		_, _ = fmt.Sscan(a, &what, &x)
		_, _ = fmt.Sscan(b, &what, &y)
		return len(x) - len(y) + 10*slices.Compare([]byte(x), []byte(y))
	})
	return events
}

func (w *world) runner(name string) *fake {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.running[name]
	if f == nil {
		w.t.Fatalf("%s does not run", name)
	}
	return f
}

// want compares what happened since the last call.
func (w *world) want(events ...string) {
	w.t.Helper()
	if got := w.since(); !slices.Equal(got, events) {
		w.t.Errorf("got %q, want %q", got, events)
	}
}

// status returns the state of an integration.
func (w *world) status(name string) Status {
	w.t.Helper()
	for _, s := range w.Status() {
		if s.Name == name {
			return s
		}
	}
	w.t.Fatalf("%s is not known", name)
	return Status{}
}

// reconcile wants no refusal.
func (w *world) reconcile(wanted ...config.Integration) Changes {
	w.t.Helper()
	c, err := w.Reconcile(w.t.Context(), wanted, true)
	if err != nil {
		w.t.Errorf("got %v, want no refusal", err)
	}
	return c
}
