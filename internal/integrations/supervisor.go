package integrations

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/panics"
)

const (
	// minBackoff and maxBackoff bound the pause before a failed integration is started
	// again. It doubles with each failure, and is random within its last fifth.
	minBackoff, maxBackoff = time.Second, 5 * time.Minute
	// steadyAfter is how long an integration has to run for its failures to be forgotten.
	steadyAfter = 5 * time.Minute
	// drainGrace is what a drain may take on top of delivery.drain.
	drainGrace = 5 * time.Second
	// stuckEvery is how often a Runner is asked whether it is stuck.
	stuckEvery = 10 * time.Second
)

// supervisor runs one integration. The Reconciler's lock guards its fields.
type supervisor struct {
	r       *Reconciler
	name    string
	changed chan struct{} // one token: what runs is no longer what is wanted

	spec    config.Integration // as wanted
	removed bool               // it is not wanted any more
	first   bool               // as it was when the process started
	delay   time.Duration      // before the next start
	state   string
	reason  string
	nextTry time.Time
	runner  Runner
}

// compare decides what to do with an integration that is known. Called with the lock.
func (s *supervisor) compare(w config.Integration, reread bool, p *plan) {
	was := s.spec
	start := func() {
		s.spec, s.removed, s.first = w, false, false
		p.starts = append(p.starts, s)
		s.signal()
	}
	switch {
	case s.removed:
		p.changed(s.name, "")
		start()
	case !w.Enabled && was.Enabled:
		p.changed(s.name, "enabled")
		s.spec = w
		s.signal()
	case !w.Enabled:
		s.spec = w
	case !was.Enabled:
		p.changed(s.name, "enabled")
		start()
	case s.state == Running:
		_, _, other := s.runner.Settings().Follow(w.Config)
		if len(other) == 0 || s.r.o.Bounded {
			p.live = append(p.live, liveChange{s: s, runner: s.runner, next: w})
			return
		}
		if err := s.r.check(w); err != nil {
			p.Refused[s.name] = named(s.name, err)
			return
		}
		s.r.o.Log.Info("integration changed; it drains and is started again", zap.String("integration", s.name), zap.Strings("keys", other))
		p.changed(s.name, other...)
		start()
	default:
		_, live, other := was.Config.Follow(w.Config)
		p.changed(s.name, append(live, other...)...)
		s.spec = w
		if len(live)+len(other) > 0 || reread && s.state == Failed {
			p.starts = append(p.starts, s)
			s.signal()
		}
	}
}

// check returns why an integration cannot be built.
func (r *Reconciler) check(w config.Integration) error {
	return guarded(func() error {
		runner, err := r.o.New(w)
		if err == nil {
			runner.Close()
		}
		return err
	})
}

func (s *supervisor) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run starts the integration again and again, until ctx ends or it is removed.
func (s *supervisor) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		spec, delay, wanted := s.next()
		switch {
		case !wanted:
			return
		case !spec.Enabled:
			s.wait(ctx, nil)
			continue
		case delay > 0 && !s.wait(ctx, time.After(delay)):
			continue
		}
		place, taken := s.takePlace(ctx, spec.Config.Kafka.Group)
		if !taken {
			continue
		}
		began := time.Now()
		err := s.once(ctx, spec)
		<-place
		if s.endsProcess(err) {
			return
		}
		if err == nil {
			failures = 0
			continue
		}
		if time.Since(began) >= steadyAfter {
			failures = 0
		}
		s.wait(ctx, time.After(s.failed(err, failures)))
		failures++
	}
}

// wait reports whether the time has come, rather than a change or the end of ctx.
func (s *supervisor) wait(ctx context.Context, until <-chan time.Time) bool {
	select {
	case <-until:
		return true
	case <-s.changed:
		s.signal() // next takes it
	case <-ctx.Done():
	}
	return false
}

// takePlace waits until no other integration has a member in the group, and reports
// whether that came before a change and the end of ctx. The caller gives the place back.
func (s *supervisor) takePlace(ctx context.Context, group string) (place chan struct{}, taken bool) {
	place = s.r.place(group)
	select {
	case place <- struct{}{}:
		return place, true
	default:
	}
	s.set(Starting, "it waits for another integration to leave the group "+group, s.runner)
	select {
	case place <- struct{}{}:
		return place, true
	case <-s.changed:
		s.signal() // next takes it
	case <-ctx.Done():
	}
	return nil, false
}

// next returns what is wanted now. An integration that is not wanted is forgotten.
func (s *supervisor) next() (spec config.Integration, delay time.Duration, wanted bool) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	select {
	case <-s.changed:
	default:
	}
	if s.removed {
		delete(s.r.all, s.name)
		if s.r.o.Removed != nil {
			s.r.o.Removed(s.name)
		}
		s.logRemoved()
		return spec, 0, false
	}
	delay, s.delay = s.delay, 0
	s.state, s.reason, s.nextTry = Starting, "", time.Time{}
	if !s.spec.Enabled {
		s.state = Disabled
	}
	return s.spec, delay, true
}

// logRemoved logs what an integration leaves behind, and how to delete what no other one
// uses. Called with the lock.
func (s *supervisor) logRemoved() {
	used := make(map[string]bool) // groups, and topics with a slash before them
	for _, other := range s.r.all {
		c := other.spec.Config
		used[c.Kafka.Group] = true
		for _, topic := range c.Kafka.Topics {
			used["/"+topic], used["/"+c.Rejects.TopicFor(topic)] = true, true
		}
	}
	k := s.spec.Config.Kafka
	servers := " --bootstrap-server " + strings.Join(k.Brokers, ",")
	var unused []string
	if !used[k.Group] {
		unused = append(unused, "kafka-consumer-groups.sh"+servers+" --delete --group "+k.Group)
	}
	for _, topic := range k.Topics {
		if dead := s.spec.Config.Rejects.TopicFor(topic); s.spec.Config.Rejects.Policy == "dead_letter" && !used["/"+dead] {
			used["/"+dead] = true
			unused = append(unused, "kafka-topics.sh"+servers+" --delete --topic "+dead)
		}
	}
	remedy := zap.Skip()
	if len(unused) > 0 {
		remedy = zap.String("remedy", "to delete what remains, once no other deployment uses it: "+strings.Join(unused, "; "))
	}
	s.r.o.Log.Info("integration removed; its group and its dead letters remain", zap.String("integration", s.name), remedy)
}

// guarded calls f and returns its panic as an error.
func guarded(f func() error) (err error) {
	defer panics.To(&err)
	return f()
}

// errEnded is the error of a Runner that ended although nobody asked it to.
var errEnded = errors.New("it ended without a reason")

// once builds and runs the integration. It returns nil after ctx or a change has
// ended it.
func (s *supervisor) once(ctx context.Context, spec config.Integration) error {
	var runner Runner
	err := guarded(func() (err error) { runner, err = s.r.o.New(spec); return err })
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	s.set(Running, "", runner)
	ended := make(chan error, 1)
	go func() { // await waits for it, unless it is stuck
		ended <- guarded(func() error {
			defer runner.Close()
			return runner.Run(running)
		})
	}()
	return s.await(ctx, spec, runner, stop, ended)
}

// await returns how a Runner has ended. One that is stuck is left behind, if others
// would end with the process: its goroutines cannot be ended.
func (s *supervisor) await(ctx context.Context, spec config.Integration, runner Runner, stop context.CancelFunc, ended <-chan error) error {
	tick := time.NewTicker(stuckEvery)
	defer tick.Stop()
	bound := spec.Config.Delivery.Drain + drainGrace
	for {
		select {
		case err := <-ended:
			if err == nil && !s.r.o.Bounded && ctx.Err() == nil {
				err = errEnded
			}
			return err
		case <-tick.C:
			why := stuck(runner)
			if why == nil || s.sole() {
				continue
			}
			stop()
			select {
			case err := <-ended:
				return errors.Join(fmt.Errorf("%w; it was ended", why), err)
			case <-time.After(bound):
				return fmt.Errorf("%w, and it did not end within %v; it is left behind, restart the process to free what it holds", why, bound)
			}
		case <-s.changed:
			s.signal() // next takes it
		case <-ctx.Done():
		}
		stop()
		s.set(Draining, "", runner)
		select {
		case err := <-ended:
			return err
		case <-time.After(bound):
		}
		reason := fmt.Sprintf("it did not end within %v; it is started again only after that, restart the process if it never does", bound)
		s.set(Draining, reason, runner)
		s.r.o.Log.Error("integration does not end", zap.String("integration", s.name), zap.String("reason", reason))
		return <-ended
	}
}

// stuck returns why only another Runner can deliver; nil while this one can.
func stuck(runner Runner) error {
	return guarded(func() error {
		if why := runner.Stuck(); why != "" {
			return errors.New(why)
		}
		return nil
	})
}

func (s *supervisor) set(state, reason string, runner Runner) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.state, s.reason, s.runner = state, reason, runner
}

// sole reports whether the integration is the only one of a bounded run, or of a
// deployment that has `default` alone and no store.
func (s *supervisor) sole() bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.r.o.Bounded || !s.r.o.Store && len(s.r.all) == 1 && s.name == config.DefaultIntegration
}

// endsProcess reports whether the end of the integration is that of the process: in
// a bounded run, and an error of `default` where it is the only integration and no
// reload has changed that.
func (s *supervisor) endsProcess(err error) bool {
	sole := s.sole()
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if !s.r.o.Bounded && (err == nil || !sole || !s.first) {
		return false
	}
	if stack := panics.Stack(err); stack != "" { // which the error of the process lacks
		s.r.o.Log.Error("integration failed", zap.String("integration", s.name), zap.Error(err), zap.String("stack", stack))
	}
	s.r.err = err
	s.r.stop()
	return true
}

// failed records and logs, once, why the integration has ended, and returns the pause
// before it is started again.
func (s *supervisor) failed(err error, failures int) time.Duration {
	// The last fifth is random.
	pause := min(minBackoff<<min(failures, 16), maxBackoff*4/5)
	pause += time.Duration(s.r.o.Rand() * float64(pause/4))
	s.r.mu.Lock()
	s.state, s.reason, s.nextTry = Failed, err.Error(), time.Now().Add(pause)
	s.r.mu.Unlock()
	fields := []zap.Field{zap.String("integration", s.name), zap.Error(err), zap.Duration("next_try_in", pause.Round(time.Millisecond))}
	if stack := panics.Stack(err); stack != "" {
		fields = append(fields, zap.String("stack", stack))
	}
	s.r.o.Log.Error("integration failed", fields...)
	return pause
}
