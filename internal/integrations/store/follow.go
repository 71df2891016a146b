package store

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// lookEvery is how often the end of the topic is looked up, foldEvery how often it is
	// read in any case: that finds a topic that was replaced. askFor bounds both,
	// and problemEvery takes its place while there is a problem.
	lookEvery, foldEvery, problemEvery, askFor = 500 * time.Millisecond, 10 * time.Second, 2 * time.Second, 10 * time.Second
)

// Run follows the topic until ctx ends, and calls changed with each State that differs
// from the one before. It creates the topics of a new store. A change of another process
// is known within a second.
func (s *Store) Run(ctx context.Context, changed func(State)) {
	s.follow(ctx)
	folded := time.Now()
	var last State
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if now := s.State(); !equal(now, last) {
			s.report(last.Problem, now.Problem)
			changed(now)
			last = now
		}
		select {
		case <-ctx.Done():
		case <-s.folded: // by a change of this process, or an earlier tick
		case <-tick.C:
			every := foldEvery
			if s.State().Problem != nil {
				every = problemEvery
			}
			if time.Since(folded) >= every || s.moved(ctx) {
				s.follow(ctx)
				folded = time.Now()
			}
		}
	}
}

// follow verifies the topics when it is time to, creates those of a new store, and reads.
func (s *Store) follow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if s.check(ctx, followVerified) == nil {
		if state, err := s.fold(ctx, false); err != nil || state.StoreID != "" || s.prepare(ctx) != nil {
			return
		}
	}
	_, _ = s.fold(ctx, false) // its error is the problem of the state
}

// moved reports whether the topic has another end than what was read, or cannot be asked.
func (s *Store) moved(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	cl, err := s.connected()
	if err != nil {
		return false
	}
	state := s.State()
	if !state.Known || state.Problem != nil {
		return false // foldEvery will do
	}
	end, err := s.offset(ctx, cl, s.o.Topic, stable)
	return err != nil || end != state.Revision
}

// report logs a problem when it begins, becomes another one, or ends.
func (s *Store) report(before, now *Problem) {
	switch {
	case now != nil && (before == nil || before.Code != now.Code || before.Reason != now.Reason):
		s.o.Log.Warn("store of integrations has a problem", zap.String("topic", s.o.Topic), zap.String("code", now.Code), zap.String("reason", now.Reason), zap.String("remedy", now.Remedy))
	case now == nil && before != nil:
		s.o.Log.Info("store of integrations available", zap.String("topic", s.o.Topic))
	}
}
