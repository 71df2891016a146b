package zerobus_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// signal announces the stream's end in d, one second after the message it comes
// with: time to send another.
func signal(d time.Duration) emulator.CloseStreamSignal {
	return emulator.CloseStreamSignal{Duration: d, Delay: time.Second}
}

// closeSignalScenarios are streams whose end is announced. Our stream takes no
// more rows from the signal on, and others have the next one at once.
func closeSignalScenarios(t *testing.T) {
	scenario(t, "whole_server_window", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(10*time.Second), silence, create("b"), ack(0))
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, 11*time.Second)
		asked(t, script, 2, 2)
		s.quiet(t)
	})
	scenario(t, "immediate", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(0), silence, create("b"), ack(0))
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, time.Second)
		asked(t, script, 2, 2)
		s.quiet(t)
	})
	// The most we wait is no setting but the 60 s that acks have anyway.
	scenario(t, "client_max_below_server", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(time.Hour), silence, create("b"), ack(0))
		start := time.Now()
		write(t, s.bench, rows(1))
		if got := time.Since(start); got < time.Minute || got > 62*time.Second {
			t.Errorf("the rows were taken after %v, want after the 60 s acks have", got)
		}
		asked(t, script, 2, 2)
	})
	scenario(t, "client_max_above_server", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(59*time.Second), ack(1), create("b"), ack(0))
		start := time.Now()
		one, two := s.begin(t.Context(), rows(1)), s.begin(t.Context(), rows(1))
		succeed(t, one, two)
		took(t, start, time.Second)
		write(t, s.bench, rows(1))
		asked(t, script, 2, 3)
		s.quiet(t)
	})
	scenario(t, "early_end_when_all_acked", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(10*time.Second), ackAfter(1, 4*time.Second), create("b"), ack(0))
		start := time.Now()
		one, two := s.begin(t.Context(), rows(1)), s.begin(t.Context(), rows(1))
		after(4 * time.Second)
		if got := s.State().Streams; !slices.Equal(got, []string{"a"}) {
			t.Errorf("streams are %q in the window, want a", got)
		}
		succeed(t, one, two)
		took(t, start, 5*time.Second)
		after(time.Second)
		if got := s.State().Streams; len(got) != 0 {
			t.Errorf("streams are %q once all is acknowledged, want none", got)
		}
		write(t, s.bench, rows(1))
		asked(t, script, 2, 3)
		s.quiet(t)
	})
	// Nothing is held back during the pause: it goes to the next stream.
	scenario(t, "records_buffered_during_pause", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(10*time.Second), create("b"), ack(0), ack(1), ack(2))
		held := s.begin(t.Context(), rows(1))
		after(2 * time.Second)
		start := time.Now()
		write(t, s.bench, rows(1))
		write(t, s.bench, rows(1))
		took(t, start, 0)
		pending(t, held)
		if got := s.State().Streams; !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("streams are %q in the pause, want a and b", got)
		}
		succeed(t, held)
		took(t, start, 9*time.Second)
		asked(t, script, 2, 4)
		s.quiet(t)
	})
	// Whatever is worth a retry is part of the announced end.
	scenario(t, "error_during_pause/retriable", func(t *testing.T) {
		s, script := scripted(t, create("a"), signal(10*time.Second), fails(codes.Unavailable), create("b"), ack(0), ack(1))
		start := time.Now()
		one, two := s.begin(t.Context(), rows(1)), s.begin(t.Context(), rows(1))
		succeed(t, one, two)
		took(t, start, time.Second)
		asked(t, script, 2, 4)
		s.quiet(t)
	})
	scenario(t, "error_during_pause/refused_row", func(t *testing.T) {
		s := staged(t, emulator.Config{Latency: emulator.Latency{P50: 5 * time.Second}}, nil)
		window, second := emulator.Duration(10*time.Second), emulator.Latency{P50: time.Second}
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectCloseSignal, Window: &window, Latency: second, Offset: new(int64(0)), Count: 1})
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectRefuse, Latency: second, Rows: &emulator.RowMatch{Column: "n", Equals: new("1")}})
		good, bad := s.begin(t.Context(), [][]byte{row(0)}), s.begin(t.Context(), [][]byte{row(1)})
		after(1500 * time.Millisecond)
		pending(t, good, bad)
		succeed(t, good)
		isRefused(t, <-bad, zerobus.RefusedSchemaMismatch)
		if got := s.em.Table(target).Distinct("message_id"); got != 1 {
			t.Errorf("%d rows stored, want the one that was not refused", got)
		}
		if len(s.obs.retries) != 0 {
			t.Errorf("retries are %v, want none", s.obs.retries)
		}
	})
}

// callbackScenarios are what is reported of messages. The Observer hears of every
// attempt of every message.
func callbackScenarios(t *testing.T) {
	outcomes := func(t *testing.T, s stage, want map[string]int) {
		t.Helper()
		for _, name := range []string{zerobus.OutcomeOK, zerobus.OutcomeRetry, zerobus.OutcomeRefused, zerobus.OutcomeBlocked, zerobus.OutcomeCanceled} {
			if got := s.obs.count(s.obs.outcomes, name); got != want[name] {
				t.Errorf("%d attempts ended with %s, want %d", got, name, want[name])
			}
		}
	}
	scenario(t, "on_ack", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(1))
		outcomes(t, s, map[string]int{zerobus.OutcomeOK: 1})
	})
	scenario(t, "on_error", func(t *testing.T) {
		s, _ := scripted(t, create("a"), fails(codes.Unavailable), create("b"), fails(codes.InvalidArgument))
		isRefused(t, s.WriteLatest(t.Context(), rows(2)), zerobus.RefusedSchemaMismatch)
		outcomes(t, s, map[string]int{zerobus.OutcomeRetry: 1, zerobus.OutcomeRefused: 1})
		if got := s.obs.count(s.obs.retries, zerobus.RetryUnavailable); got != 1 {
			t.Errorf("%d retries, want 1", got)
		}
	})
	scenario(t, "with_batches", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ack(0), ack(1))
		write(t, s.bench, rows(100))
		write(t, s.bench, rows(1))
		outcomes(t, s, map[string]int{zerobus.OutcomeOK: 2})
	})
	scenario(t, "one_per_offset", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ack(4))
		var all []<-chan error
		for range 5 {
			all = append(all, s.begin(t.Context(), rows(2)))
		}
		succeed(t, all...)
		outcomes(t, s, map[string]int{zerobus.OutcomeOK: 5})
	})
}
