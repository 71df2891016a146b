package integrations

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/config"
)

// Each difference between what runs and what is wanted has one outcome, and touches
// no other integration.
func TestReconcile(t *testing.T) {
	other := spec("other", "o")
	for _, tc := range []struct {
		name     string
		from, to []config.Integration
		events   []string
		changed  []string
		state    string // of a at the end
	}{
		{"nothing", []config.Integration{spec("a", "t")}, []config.Integration{spec("a", "t")}, nil, nil, Running},
		{"added", nil, []config.Integration{spec("a", "t")}, []string{"start a"}, []string{"integrations.a"}, Running},
		{"added, disabled", nil, []config.Integration{spec("a", "t", disabled)}, nil, []string{"integrations.a"}, Disabled},
		{"removed", []config.Integration{spec("a", "t")}, nil, []string{"stop a", "removed a"}, []string{"integrations.a"}, ""},
		{"removed while disabled", []config.Integration{spec("a", "t", disabled)}, nil, []string{"removed a"}, []string{"integrations.a"}, ""},
		{"live", []config.Integration{spec("a", "t")}, []config.Integration{spec("a", "t", limited(7))}, []string{"apply a"}, []string{"integrations.a.zerobus.rate_limit"}, Running},
		{"replaced", []config.Integration{spec("a", "t")}, []config.Integration{spec("a", "u", limited(7))}, []string{"stop a", "start a"}, []string{"integrations.a.kafka.topics"}, Running},
		{"disabled", []config.Integration{spec("a", "t")}, []config.Integration{spec("a", "t", disabled)}, []string{"stop a"}, []string{"integrations.a.enabled"}, Disabled},
		{"enabled", []config.Integration{spec("a", "t", disabled)}, []config.Integration{spec("a", "u")}, []string{"start a"}, []string{"integrations.a.enabled"}, Running},
		{"changed while disabled", []config.Integration{spec("a", "t", disabled)}, []config.Integration{spec("a", "u", disabled)}, nil, nil, Disabled},
		{"default", []config.Integration{spec("default", "t")}, []config.Integration{spec("default", "u")}, []string{"stop default", "start default"}, []string{"kafka.topics"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, append(tc.from, other), func(w *world) {
				w.since()
				if got := w.reconcile(append(tc.to, other)...).Changed; !slices.Equal(got, tc.changed) {
					t.Errorf("got changes %q, want %q", got, tc.changed)
				}
				w.pass(3 * time.Second)
				w.want(tc.events...)
				if tc.state != "" && w.status("a").State != tc.state {
					t.Errorf("got state %s, want %s", w.status("a").State, tc.state)
				}
				w.reconcile(append(tc.to, other)...)
				w.pass(3 * time.Second)
				w.want()
			})
		})
	}
}

// Whatever sets follow each other, exactly the wanted integrations run in the end,
// each with its settings and one at a time, and each was started and stopped once
// for each change that needs it.
func TestReconcileAnySequence(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var wanted []config.Integration
		next := func() {
			wanted = nil
			for i := range 6 {
				if rnd.IntN(4) > 0 {
					s := spec(fmt.Sprintf("i%d", i), fmt.Sprintf("t%d", rnd.IntN(2)), limited(float64(rnd.IntN(2))))
					s.Enabled = rnd.IntN(5) > 0
					wanted = append(wanted, s)
				}
			}
		}
		next()
		paused := seed%2 == 0 // between two sets; otherwise they overtake each other
		within(t, wanted, func(w *world) {
			enabled := make(map[string]*config.Config)
			model := func() (events map[string]int) {
				events = make(map[string]int)
				now := make(map[string]*config.Config)
				for _, i := range wanted {
					if i.Enabled {
						now[i.Name] = i.Config
					}
				}
				for name, c := range now {
					was := enabled[name]
					switch {
					case was == nil:
						events["start "+name]++
					case was.Kafka.Topics[0] != c.Kafka.Topics[0]:
						events["stop "+name]++
						events["start "+name]++
					case was.Zerobus.RateLimit != c.Zerobus.RateLimit:
						events["apply "+name]++
					}
				}
				for name := range enabled {
					if now[name] == nil {
						events["stop "+name]++
					}
				}
				enabled = now
				return events
			}
			for step := range 30 {
				if step > 0 {
					next()
					w.reconcile(wanted...)
				}
				if !paused {
					w.pass(time.Duration(rnd.IntN(2500)) * time.Millisecond)
					continue
				}
				w.pass(10 * time.Second)
				got, want := make(map[string]int), model()
				for _, e := range w.since() {
					if !strings.HasPrefix(e, "removed ") {
						got[e]++
					}
				}
				if !maps.Equal(got, want) {
					t.Fatalf("seed %d, step %d: got %v, want %v", seed, step, got, want)
				}
			}
			w.pass(time.Minute)
			names := make(map[string]bool)
			for _, i := range wanted {
				names[i.Name] = i.Enabled
				if !i.Enabled {
					continue
				}
				if got := w.runner(i.Name).settings; got.Kafka.Topics[0] != i.Config.Kafka.Topics[0] || got.Zerobus.RateLimit != i.Config.Zerobus.RateLimit {
					t.Errorf("seed %d: %s runs with %v and %v, want %v and %v", seed, i.Name, got.Kafka.Topics, got.Zerobus.RateLimit, i.Config.Kafka.Topics, i.Config.Zerobus.RateLimit)
				}
			}
			for name := range w.running {
				if !names[name] {
					t.Errorf("seed %d: %s runs and is not wanted", seed, name)
				}
			}
			if got := len(w.Status()); got != len(wanted) {
				t.Errorf("seed %d: got %d known, want %d", seed, got, len(wanted))
			}
		})
	}
}

// A refused change leaves its integration as it is, and is retried; the others change.
func TestReconcileReportsRefusedChanges(t *testing.T) {
	within(t, []config.Integration{spec("a", "t"), spec("b", "t"), spec("c", "t")}, func(w *world) {
		w.since()
		wanted := []config.Integration{spec("a", "t", limited(-1)), spec("b", "u"), spec("c", "u")}
		w.builds["b"] = errors.New("no such blueprint")
		_, err := w.Reconcile(t.Context(), wanted, false)
		if err == nil || err.Error() != "integration a: no such rate\nintegration b: no such blueprint" {
			t.Errorf("got %v, want both refusals with their integrations", err)
		}
		w.pass(5 * time.Second)
		w.want("stop c", "start c")
		delete(w.builds, "b")
		wanted[0] = spec("a", "t", limited(3))
		w.reconcile(wanted...)
		w.pass(5 * time.Second)
		w.want("apply a", "stop b", "start b")
	})
}

// Several that start together are spread; one that is added starts at once.
func TestStartsAreSpread(t *testing.T) {
	within(t, nil, func(w *world) {
		many := func(n int) (all []config.Integration) {
			for i := range n {
				all = append(all, spec(fmt.Sprintf("i%02d", i), "t"))
			}
			return all
		}
		began := func(n int) (after time.Duration) {
			w.reconcile(many(n)...)
			for after < time.Minute {
				w.pass(10 * time.Millisecond)
				after += 10 * time.Millisecond
				if len(w.since()) > 0 {
					return after
				}
			}
			t.Errorf("%d do not start", n)
			return after
		}
		if got := began(1); got > 10*time.Millisecond {
			t.Errorf("got the first of one after %v, want it at once", got)
		}
		// Rand is always 0.5 here.
		if got := began(12); got < 500*time.Millisecond || got > 510*time.Millisecond {
			t.Errorf("got 11 started after %v, want half of 1 s", got)
		}
		if got := began(100); got < spreadMax/2 || got > spreadMax/2+10*time.Millisecond {
			t.Errorf("got 88 started after %v, want half of %v", got, spreadMax)
		}
	})
}

// A group moves to an integration of another name, or two exchange theirs: the new
// member starts after the old one has left, and a start of another group does not wait.
func TestGroupMovesToAnotherIntegration(t *testing.T) {
	for _, tc := range []struct {
		name     string
		from, to []config.Integration
		order    []string // of what happens
	}{
		{"another name", []config.Integration{spec("default", "t", inGroup("g"))}, []config.Integration{spec("orders", "t", inGroup("g")), spec("x", "u")},
			[]string{"start x", "stop default", "removed default", "start orders"}},
		{"taken from one that continues", []config.Integration{spec("default", "t", inGroup("g"))}, []config.Integration{spec("default", "t"), spec("orders", "t", inGroup("g"))},
			[]string{"stop default", "start default", "start orders"}},
		{"exchanged", []config.Integration{spec("a", "t", inGroup("g")), spec("b", "t", inGroup("h"))}, []config.Integration{spec("a", "t", inGroup("h")), spec("b", "t", inGroup("g"))},
			[]string{"stop a", "stop b", "start a", "start b"}},
		{"disabled", []config.Integration{spec("a", "t", inGroup("g"))}, []config.Integration{spec("a", "t", inGroup("g"), disabled), spec("b", "t", inGroup("g"))},
			[]string{"stop a", "start b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, tc.from, func(w *world) {
				for n, i := range tc.from {
					w.runner(i.Name).drains = 3*time.Second + time.Duration(n)*time.Millisecond
				}
				w.since()
				w.reconcile(tc.to...)
				w.pass(2 * time.Second)
				if last := tc.to[len(tc.to)-1].Name; tc.name == "another name" {
					if got := w.status("orders"); got.State != Starting || got.Reason != "it waits for another integration to leave the group g" {
						t.Errorf("got %s, %q, want it to wait for the group", got.State, got.Reason)
					}
				} else if got := w.status(last); got.State == Running {
					t.Errorf("got %s running, want it to wait", last)
				}
				w.pass(2 * time.Second)
				w.mu.Lock()
				got := slices.Clone(w.events)
				w.mu.Unlock()
				starts := slices.IndexFunc(tc.order, func(e string) bool { return strings.HasPrefix(e, "start ") && e != "start x" })
				slices.Sort(got[min(starts, len(got)):]) // which of several starts first is left to chance
				if !slices.Equal(got, tc.order) {
					t.Errorf("got %q, want %q", got, tc.order)
				}
			})
		})
	}
}

// One that waits for a group whose member never leaves can be removed, and ends with the
// process.
func TestWaitForAGroupEnds(t *testing.T) {
	within(t, []config.Integration{spec("a", "t", inGroup("g"))}, func(w *world) {
		w.runner("a").drains = time.Hour
		w.reconcile(spec("b", "t", inGroup("g")), spec("c", "t", inGroup("g"), disabled))
		w.pass(10 * time.Minute)
		if got := w.status("b"); got.State != Starting || got.Reason == "" {
			t.Errorf("got %s, %q, want it to wait", got.State, got.Reason)
		}
		w.since()
		w.reconcile(spec("c", "t", inGroup("g")))
		w.pass(time.Second)
		w.want("removed b")
	})
}

// A change that is applied while its integration ends takes effect with the next start.
func TestLiveChangeOfOneThatEnds(t *testing.T) {
	within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
		f := w.runner("a")
		f.applies = func() {
			f.ends <- errors.New("refused")
			w.pass(5 * time.Second)
			if w.runner("a") == f {
				t.Error("got the same runner, want another one")
			}
		}
		w.reconcile(spec("a", "t", limited(7)), spec("b", "t"))
		w.pass(5 * time.Second)
		if got := w.runner("a").settings.Zerobus.RateLimit; got != 7 {
			t.Errorf("got rate limit %v, want 7", got)
		}
	})
}

// Failed ones that a change starts again are spread like others.
func TestStartsOfFailedAreSpread(t *testing.T) {
	var all []config.Integration
	for i := range 11 {
		all = append(all, spec(fmt.Sprintf("i%02d", i), "t"))
	}
	within(t, all, func(w *world) {
		for _, i := range all {
			w.builds[i.Name] = errors.New("no such blueprint")
			w.runner(i.Name).ends <- errors.New("refused")
		}
		w.pass(4 * time.Minute)
		clear(w.builds)
		w.since()
		w.reconcile(all...)
		w.pass(499 * time.Millisecond) // Rand is always 0.5 here
		w.want()
		w.pass(2 * time.Millisecond)
		if got := len(w.since()); got != len(all) {
			t.Errorf("got %d started after half of 1 s, want all", got)
		}
	})
}
