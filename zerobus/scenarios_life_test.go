package zerobus_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// lifeScenarios are the start and the end of streams.
func lifeScenarios(t *testing.T) {
	// Creating a stream is Reachable, or the first Write.
	scenario(t, "successful_creation", func(t *testing.T) {
		s, script := scripted(t, create("created"))
		if err := s.Reachable(t.Context()); err != nil {
			t.Fatalf("Reachable: %v", err)
		}
		if got := s.State().Streams; !slices.Equal(got, []string{"created"}) {
			t.Errorf("streams are %q, want created", got)
		}
		asked(t, script, 1, 0)
	})
	scenario(t, "creation_timeout", func(t *testing.T) {
		s, script := scripted(t, emulator.CreateStream{Delay: time.Hour}, create("late"), ack(0))
		start := time.Now()
		err := s.Reachable(t.Context())
		if err == nil || zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "not confirmed within 15s") {
			t.Errorf("Reachable: %v, want a passing fault: no confirmation", err)
		}
		took(t, start, 15*time.Second)
		write(t, s.bench, rows(1))
		asked(t, script, 2, 1)
	})
	for _, code := range []codes.Code{codes.InvalidArgument, codes.NotFound, codes.Unimplemented, codes.OutOfRange, codes.Unauthenticated, codes.PermissionDenied} {
		scenario(t, "non_retriable_error_in_creation/"+code.String(), func(t *testing.T) {
			s, script := scripted(t, fails(code), fails(code), fails(code))
			err := s.Reachable(t.Context())
			if !zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "as the script has it") {
				t.Errorf("Reachable: %v, want a permanent fault with the service's words", err)
			}
			want := 1
			if code == codes.Unauthenticated || code == codes.PermissionDenied {
				want = 2 // the one try with a fresh token
			}
			asked(t, script, want, 0)
		})
	}
	// There is no switch for recovery: Reachable is the call that does not
	// repeat.
	scenario(t, "retriable_error_without_recovery", func(t *testing.T) {
		s, script := scripted(t, fails(codes.Unavailable), create("not wanted"))
		err := s.Reachable(t.Context())
		if err == nil || zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "UNAVAILABLE") {
			t.Errorf("Reachable: %v, want a passing UNAVAILABLE", err)
		}
		asked(t, script, 1, 0)
	})
	scenario(t, "graceful_close", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(1))
		start := time.Now()
		s.Close()
		took(t, start, 0)
		synctest.Wait()
		// The emulator ends a stream with OK only when the client closed its
		// side in order.
		if got := s.em.Stats().Responses[emulator.EndpointCreate]; got["OK"] != 1 {
			t.Errorf("streams ended with %v, want one OK", got)
		}
		asked(t, script, 1, 1)
	})
	scenario(t, "idempotent_close", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(1))
		start := time.Now()
		for range 3 {
			s.Close()
		}
		took(t, start, 0)
	})
	// Write returned, so there is nothing left to flush; what has no rows is
	// flushed automatically, also after Close.
	scenario(t, "flush_after_close", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(1))
		s.Close()
		write(t, s.bench, nil)
		asked(t, script, 1, 1)
	})
	for name, n := range map[string]int{"single": 1, "batch": 10} {
		// Nobody writes after Close; whoever does waits for its context and
		// sends nothing.
		scenario(t, "ingest_after_close/"+name, func(t *testing.T) {
			s, script := scripted(t, create("a"), ack(0))
			write(t, s.bench, rows(1))
			s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			isOver(t, s.WriteLatest(ctx, rows(n)), context.DeadlineExceeded)
			took(t, start, 10*time.Second)
			asked(t, script, 1, 1)
		})
	}
	// The supervisor is the pair of goroutines of a stream.
	scenario(t, "close_waits_for_supervisor", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ackAfter(0, 300*time.Millisecond))
		done := s.begin(t.Context(), rows(1))
		start := time.Now()
		s.Close()
		took(t, start, 300*time.Millisecond)
		if got := s.State().Streams; len(got) != 0 {
			t.Errorf("streams %q live on after Close", got)
		}
		succeed(t, done)
	})
	// Nothing is dropped in Go; giving up is the end of the caller's context,
	// and Close then waits for nobody.
	scenario(t, "drop_shuts_down_at_once", func(t *testing.T) {
		s, _ := scripted(t, create("a"), silence)
		ctx, cancel := context.WithCancel(t.Context())
		done := s.begin(ctx, rows(1))
		start := time.Now()
		cancel()
		isOver(t, <-done, context.Canceled)
		took(t, start, 0)
		s.Close()
		if got := time.Since(start); got > 500*time.Millisecond {
			t.Errorf("Close took %v with a silent service, want at most 500ms", got)
		}
	})
	scenario(t, "idempotent_close_after_error", func(t *testing.T) {
		s, _ := scripted(t, create("a"), fails(codes.InvalidArgument))
		isRefused(t, s.WriteLatest(t.Context(), rows(2)), zerobus.RefusedSchemaMismatch)
		start := time.Now()
		s.Close()
		s.Close()
		took(t, start, 0)
	})
	scenario(t, "supervisor_responds_to_cancellation", func(t *testing.T) {
		s, script := scripted(t, emulator.CreateStream{StreamID: "a", Delay: 5 * time.Second}, silence)
		ctx, cancel := context.WithCancel(t.Context())
		opening := s.begin(ctx, rows(1))
		start := time.Now()
		cancel()
		isOver(t, <-opening, context.Canceled)
		ctx, cancel = context.WithCancel(t.Context())
		waiting := s.begin(ctx, rows(1))
		pending(t, waiting)
		cancel()
		isOver(t, <-waiting, context.Canceled)
		took(t, start, 0)
		asked(t, script, 2, 1)
	})
	scenario(t, "concurrent_close", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ackAfter(0, 200*time.Millisecond))
		done := s.begin(t.Context(), rows(1))
		var all sync.WaitGroup
		for range 8 {
			all.Go(s.Close)
		}
		all.Wait()
		succeed(t, done)
	})
	// As for drop: the context ends, Close follows, and no stream is left on
	// either side. The bubble itself fails if a goroutine is.
	scenario(t, "cleanup_on_drop", func(t *testing.T) {
		s, _ := scripted(t, create("a"), silence)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		isOver(t, s.WriteLatest(ctx, rows(3)), context.DeadlineExceeded)
		s.Close()
		synctest.Wait()
		if got := s.State().Streams; len(got) != 0 {
			t.Errorf("streams %q live on after Close", got)
		}
		ended := 0
		for _, n := range s.em.Stats().Responses[emulator.EndpointCreate] {
			ended += int(n)
		}
		if ended != 1 {
			t.Errorf("%d streams have ended at the service, want 1", ended)
		}
	})
}
