package integrations

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/config"
)

// One that fails or panics is started again after a pause that grows. After it has run
// well, the pause is the least again.
func TestFailedIsStartedAgain(t *testing.T) {
	within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
		w.since()
		for i, want := range []time.Duration{1125 * time.Millisecond, 2250 * time.Millisecond, 4500 * time.Millisecond, 9 * time.Second} {
			fault := errors.New("the client secret is refused")
			if i == 2 {
				fault = errPanic
			}
			w.runner("a").ends <- fault
			w.pass(want - time.Millisecond)
			w.want("stop a")
			got := w.status("a")
			if got.State != Failed || !strings.Contains(got.Reason, fault.Error()) || time.Until(got.NextTry) != time.Millisecond {
				t.Errorf("got %s, %q, next try in %v; want it failed for %q, and 1 ms", got.State, got.Reason, time.Until(got.NextTry), fault)
			}
			w.pass(time.Millisecond)
			w.want("start a")
		}
		lines := w.logs.FilterMessage("integration failed").All()
		if len(lines) != 4 || lines[0].Level != zap.ErrorLevel || lines[0].ContextMap()["integration"] != "a" {
			t.Errorf("got %v, want a line for each failure", lines)
		}
		if stack, _ := lines[2].ContextMap()["stack"].(string); !strings.Contains(stack, "fake") || lines[1].ContextMap()["stack"] != nil {
			t.Errorf("got stack %q, want that of the panic", stack)
		}
		w.pass(steadyAfter)
		w.runner("a").ends <- nil // that is a failure too
		w.pass(1125 * time.Millisecond)
		w.want("stop a", "start a")
		w.reconcile(spec("a", "t", limited(7)), spec("b", "t"))
		w.runner("a").ends <- errors.New("again")
		w.pass(maxBackoff)
		w.want("apply a", "stop a", "start a")
		if got := w.runner("a").settings.Zerobus.RateLimit; got != 7 {
			t.Errorf("got rate limit %v, want that of the live change", got)
		}
		for range 12 {
			w.runner("a").ends <- errors.New("again")
			w.pass(maxBackoff)
			w.want("stop a", "start a")
		}
	})
}

// A failed one is tried at once when its settings or any file changed, and not for a
// comparison that the clock caused.
func TestFailedIsStartedAgainByAChange(t *testing.T) {
	within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
		w.builds["a"] = errors.New("no such blueprint")
		w.runner("a").ends <- errors.New("refused")
		w.pass(4 * time.Minute)
		w.since()
		if got := w.status("a"); got.State != Failed || got.Reason != "no such blueprint" {
			t.Fatalf("got %+v, want it failed", got)
		}
		delete(w.builds, "a")
		wanted := []config.Integration{spec("a", "t"), spec("b", "t")}
		if _, err := w.Reconcile(t.Context(), wanted, false); err != nil {
			t.Error(err)
		}
		w.pass(time.Second)
		w.want()
		w.reconcile(wanted...)
		w.pass(time.Second)
		w.want("start a")
		w.runner("a").ends <- errors.New("refused")
		w.pass(time.Millisecond)
		wanted[0] = spec("a", "u")
		if _, err := w.Reconcile(t.Context(), wanted, false); err != nil {
			t.Error(err)
		}
		w.pass(time.Millisecond)
		w.want("stop a", "start a")
		if got := w.runner("a").settings.Kafka.Topics[0]; got != "u" {
			t.Errorf("got topic %s, want u", got)
		}
	})
}

// A replacement waits for a drain, however long it takes, and reports it; others are
// not touched. What is wanted when the drain ends is what starts.
func TestDrainThatDoesNotEnd(t *testing.T) {
	within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
		w.since()
		w.runner("a").drains = time.Hour
		w.reconcile(spec("a", "u"), spec("b", "t"))
		w.pass(drain)
		if got := w.status("a"); got.State != Draining || got.Reason != "" {
			t.Errorf("got %s, %q, want it draining", got.State, got.Reason)
		}
		w.pass(drainGrace)
		if got := w.status("a"); got.State != Draining || !strings.Contains(got.Reason, "did not end within 25s") {
			t.Errorf("got %s, %q, want the drain reported", got.State, got.Reason)
		}
		if got := w.logs.FilterMessage("integration does not end").All(); len(got) != 1 || got[0].ContextMap()["integration"] != "a" {
			t.Errorf("got %v, want one line that names it", got)
		}
		w.reconcile(spec("b", "t"))
		w.reconcile(spec("a", "v"), spec("b", "u"), spec("c", "t"))
		w.pass(time.Minute)
		w.want("stop b", "start b", "start c")
		w.pass(time.Hour)
		w.want("stop a", "start a")
		if got := w.runner("a").settings.Kafka.Topics[0]; got != "v" {
			t.Errorf("got topic %s, want v", got)
		}
	})
}

// One whose poll loop is stuck is replaced, also if it never ends.
func TestStuckIsLeftBehind(t *testing.T) {
	for _, tc := range []struct {
		name   string
		drains time.Duration
		reason string
		within time.Duration
	}{
		{"it ends", time.Second, "the poll loop makes no progress; it was ended", stuckEvery + time.Second},
		{"it does not", time.Hour, "it is left behind", stuckEvery + drain + drainGrace},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
				f := w.runner("a")
				w.mu.Lock()
				f.stuck, f.drains = "the poll loop makes no progress", tc.drains
				w.mu.Unlock()
				w.since()
				for began := time.Now(); w.status("a").State != Failed && time.Since(began) < tc.within; {
					w.pass(100 * time.Millisecond)
				}
				if got := w.status("a"); got.State != Failed || !strings.Contains(got.Reason, tc.reason) {
					t.Errorf("got %s, %q, want it failed with %q", got.State, got.Reason, tc.reason)
				}
				w.pass(2 * time.Second)
				if got := w.runner("a"); got == f {
					t.Error("got the same runner, want another one")
				}
				for _, e := range w.since() {
					if strings.HasSuffix(e, " b") {
						t.Errorf("got %q, want b left alone", e)
					}
				}
				w.pass(tc.drains) // what is left behind ends after all
			})
		})
	}
	within(t, []config.Integration{spec("default", "t")}, func(w *world) {
		f := w.runner("default")
		w.mu.Lock()
		f.stuck = "the poll loop makes no progress"
		w.mu.Unlock()
		w.pass(time.Hour)
		if w.runner("default") != f {
			t.Error("got another runner, want the process to be restarted from outside")
		}
	})
}

// An error ends the process where `default` is the only integration, as it was when
// the process started.
func TestErrorsThatEndTheProcess(t *testing.T) {
	fault := errors.New("the client secret is refused")
	bounded := func(o *Options) { o.Bounded = true }
	for _, tc := range []struct {
		name   string
		wanted []config.Integration
		change []config.Integration
		of     string
		err    error
		set    func(*Options)
		ends   bool
	}{
		{"default alone", []config.Integration{spec("default", "t")}, nil, "default", fault, nil, true},
		{"default alone, a panic", []config.Integration{spec("default", "t")}, nil, "default", errPanic, nil, true},
		{"default alone, after a live change", []config.Integration{spec("default", "t")}, []config.Integration{spec("default", "t", limited(3))}, "default", fault, nil, true},
		{"default alone, replaced", []config.Integration{spec("default", "t")}, []config.Integration{spec("default", "u")}, "default", fault, nil, false},
		{"another alone", []config.Integration{spec("a", "t")}, nil, "a", fault, nil, false},
		{"default beside another", []config.Integration{spec("a", "t"), spec("default", "t")}, nil, "default", fault, nil, false},
		{"default beside one that was added", []config.Integration{spec("default", "t")}, []config.Integration{spec("default", "t"), spec("a", "t", disabled)}, "default", fault, nil, false},
		{"a bounded run that fails", []config.Integration{spec("a", "t")}, nil, "a", fault, bounded, true},
		{"a bounded run that is complete", []config.Integration{spec("a", "t")}, nil, "a", nil, bounded, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var o []func(*Options)
			if tc.set != nil {
				o = append(o, tc.set)
			}
			within(t, tc.wanted, func(w *world) {
				if tc.change != nil {
					w.reconcile(tc.change...)
					w.pass(5 * time.Second)
				}
				w.runner(tc.of).ends <- tc.err
				w.pass(time.Second)
				if lines := w.logs.FilterField(zap.String("integration", tc.of)).FilterMessage("integration failed").All(); errors.Is(tc.err, errPanic) && (len(lines) != 1 || lines[0].ContextMap()["stack"] == nil) {
					t.Errorf("got %v, want one line with the stack", lines)
				}
				select {
				case err := <-w.ended:
					if !tc.ends || (err == nil) != (tc.err == nil) || err != nil && !strings.Contains(err.Error(), tc.err.Error()) {
						t.Errorf("got the end with %v, want it %v with %v", err, tc.ends, tc.err)
					}
					w.ended <- nil
				default:
					if tc.ends {
						t.Error("got no end, want one")
					}
				}
			}, o...)
		})
	}
}

// What needs another Runner waits for a restart in a bounded run.
func TestBoundedRunIsNotReplaced(t *testing.T) {
	within(t, []config.Integration{spec("a", "t")}, func(w *world) {
		w.since()
		c := w.reconcile(spec("a", "u", limited(3)))
		if len(c.Pending) != 1 || c.Pending[0] != "integrations.a.kafka.topics" || len(c.Changed) != 1 {
			t.Errorf("got %+v, want the topics pending and the rate changed", c)
		}
		w.want("apply a")
	}, func(o *Options) { o.Bounded = true })
}

// Removing one leaves its group and dead letters, and logs how to delete what no other
// integration uses.
func TestRemovedLogsWhatRemains(t *testing.T) {
	const group, topic = "kafka-consumer-groups.sh --bootstrap-server k:9092 --delete --group bridge-a", "kafka-topics.sh --bootstrap-server k:9092 --delete --topic "
	into := func(topic string) func(*config.Integration) {
		return func(i *config.Integration) { i.Config.Rejects.Topic = topic }
	}
	own := topic + spec("a", "t").Config.Rejects.TopicFor("t")
	for _, tc := range []struct {
		name    string
		removed config.Integration
		others  []config.Integration
		remedy  []string
	}{
		{"alone", spec("a", "t"), nil, []string{group, own}},
		{"another has its group", spec("a", "t"), []config.Integration{spec("b", "u", inGroup("bridge-a"))}, []string{own}},
		{"a disabled one has its group and dead letters", spec("a", "t", into("dlq")), []config.Integration{spec("b", "u", inGroup("bridge-a"), into("dlq"), disabled)}, nil},
		{"another reads its dead letters", spec("a", "t", into("dlq")), []config.Integration{spec("b", "dlq")}, []string{group}},
		{"several topics with one for dead letters", spec("a", "t", into("dlq"), func(i *config.Integration) { i.Config.Kafka.Topics = []string{"t", "u"} }), nil, []string{group, topic + "dlq"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, []config.Integration{tc.removed}, func(w *world) {
				w.reconcile(tc.others...)
				w.pass(2 * time.Second)
				lines := w.logs.FilterMessageSnippet("integration removed").All()
				if len(lines) != 1 {
					t.Fatalf("got %v, want one line", lines)
				}
				var got []string
				if remedy, given := lines[0].ContextMap()["remedy"].(string); given {
					got = strings.Split(strings.TrimPrefix(remedy, "to delete what remains, once no other deployment uses it: "), "; ")
				}
				if !slices.Equal(got, tc.remedy) {
					t.Errorf("got remedy %q, want %q", got, tc.remedy)
				}
			})
		})
	}
}

// A panic in any method of a Runner is an error of its integration, with one line that
// has the stack. The other does not notice, and the integration runs again.
func TestPanicsOfARunner(t *testing.T) {
	bug := func() { panic("a bug") }
	for _, tc := range []struct {
		name  string
		cause func(w *world)
	}{
		{"New", func(w *world) {
			f := w.runner("a")
			f.with(func() { w.builds["a"] = errPanic })
			f.ends <- errors.New("refused")
			w.pass(1125 * time.Millisecond)
			f.with(func() { delete(w.builds, "a") })
		}},
		{"Close", func(w *world) {
			f := w.runner("a")
			f.with(func() { f.closes = bug })
			w.reconcile(spec("a", "u"), spec("b", "t"))
		}},
		{"Stuck", func(w *world) {
			f := w.runner("a")
			f.with(func() { f.checked = bug })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
				f := w.runner("a")
				w.since()
				tc.cause(w)
				w.pass(stuckEvery + 5*time.Second)
				if w.runner("a") == f {
					t.Error("got the same runner, want another one")
				}
				lines := w.logs.FilterMessage("integration failed").Filter(func(e observer.LoggedEntry) bool { return e.ContextMap()["stack"] != nil }).All()
				if len(lines) != 1 || !strings.Contains(lines[0].ContextMap()["error"].(string), "panic: a bug") {
					t.Errorf("got %v, want one line with the stack", lines)
				}
				if got := w.since(); slices.ContainsFunc(got, func(e string) bool { return strings.HasSuffix(e, " b") }) {
					t.Errorf("got %q, want b left alone", got)
				}
			})
		})
	}
	within(t, []config.Integration{spec("a", "t"), spec("b", "t")}, func(w *world) {
		f := w.runner("a")
		f.with(func() { f.applies = bug })
		w.since()
		if _, err := w.Reconcile(t.Context(), []config.Integration{spec("a", "t", limited(7)), spec("b", "t", limited(7))}, false); err == nil || !strings.Contains(err.Error(), "integration a: panic: a bug") {
			t.Errorf("got %v, want the panic of a", err)
		}
		w.pass(time.Second)
		w.want("apply b")
	})
}

// A stop ends starts that are delayed, pauses after a failure, replacements and waits for
// a group at once: it takes no longer than the drain of what runs.
func TestStopAtAnyMoment(t *testing.T) {
	a, b := spec("a", "t", inGroup("g")), spec("b", "t")
	for _, tc := range []struct {
		name  string
		until func(w *world)
	}{
		{"starts are delayed", func(w *world) {
			all := []config.Integration{a, b}
			for i := range 40 {
				all = append(all, spec("more"+strings.Repeat("x", i), "t"))
			}
			w.reconcile(all...)
		}},
		{"a pause after a failure", func(w *world) { w.runner("a").ends <- errors.New("refused") }},
		{"a replacement", func(w *world) { w.reconcile(spec("a", "u", inGroup("g")), b) }},
		{"a removal", func(w *world) { w.reconcile(b) }},
		{"a wait for a group", func(w *world) { w.reconcile(spec("c", "t", inGroup("g")), b) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			within(t, []config.Integration{a, b}, func(w *world) {
				tc.until(w)
				w.pass(100 * time.Millisecond)
				w.since()
				began := time.Now()
				w.stop()
				err := <-w.ended
				if took := time.Since(began); err != nil || took > time.Second {
					t.Errorf("got %v after %v, want the end within 1 s", err, took)
				}
				for _, e := range w.since() {
					if strings.HasPrefix(e, "start ") {
						t.Errorf("got %q, want no start", e)
					}
				}
				if lines := w.logs.FilterMessage("integration failed").Len(); lines > 1 {
					t.Errorf("got %d lines about failures, want at most that of before", lines)
				}
				w.ended <- nil
			})
		})
	}
}
