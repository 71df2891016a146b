package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// failureScenarios are streams that fail with the other clients' recovery
// switched off. Ours cannot be: the scenarios want that the failed stream is
// given up and reported. Rows without an ack stay the caller's.
func failureScenarios(t *testing.T) {
	scenario(t, "receiver_error_fails_the_stream", func(t *testing.T) {
		s, script := scripted(t, create("a"), fails(codes.Internal), emulator.CreateStream{StreamID: "b", Delay: 5 * time.Second}, ack(0))
		done := s.begin(t.Context(), rows(1))
		after(time.Second)
		if got := s.State(); got.Name != zerobus.Retrying || !strings.Contains(got.Reason, "INTERNAL") || len(got.Streams) != 0 {
			t.Errorf("state is %+v, want retrying for INTERNAL and no stream", got)
		}
		succeed(t, done)
		if got := s.State().Streams; !slices.Equal(got, []string{"b"}) {
			t.Errorf("streams are %q, want b", got)
		}
		asked(t, script, 2, 2)
	})
	scenario(t, "silent_server_fails_the_stream", func(t *testing.T) {
		s, _ := scripted(t, create("a"), silence, emulator.CreateStream{StreamID: "b", Delay: 5 * time.Second}, ack(0))
		done := s.begin(t.Context(), rows(1))
		after(59 * time.Second)
		if got := s.State(); got.Name != zerobus.Ready || !slices.Equal(got.Streams, []string{"a"}) {
			t.Errorf("state is %+v after 59 s without an ack, want ready on a", got)
		}
		after(2 * time.Second)
		if got := s.State(); got.Name != zerobus.Retrying || !strings.Contains(got.Reason, "no ack came within 1m0s") || len(got.Streams) != 0 {
			t.Errorf("state is %+v after 61 s, want retrying and no stream", got)
		}
		succeed(t, done)
	})
	// The list of what is not acknowledged is what Write did not return nil
	// for. The rows are the caller's, untouched, and can be written again.
	for name, sizes := range map[string][]int{"records": {1, 1, 1}, "mixed_with_batches": {1, 5, 3}} {
		scenario(t, "unacked_after_failure/"+name, func(t *testing.T) {
			s, script := scripted(t, create("a"), ack(0), silence)
			ctx, cancel := context.WithCancel(t.Context())
			var all []<-chan error
			var batches [][][]byte
			for _, n := range sizes {
				batches = append(batches, rows(n))
				all = append(all, s.begin(ctx, batches[len(batches)-1]))
			}
			cancel()
			succeed(t, all[0])
			for _, done := range all[1:] {
				err := <-done
				isOver(t, err, context.Canceled)
				if err == nil || !strings.Contains(err.Error(), "may or may not be in the table") {
					t.Errorf("Write: %v, want it to say that the rows may be in the table", err)
				}
			}
			asked(t, script, 1, sizes[0]+sizes[1]+sizes[2])
			s.em.StopPlaying(target)
			s.Close()
			again := client(t, s.em, inMemory{s.em.Handler()}, s.dial, nil)
			var want []string
			for i, n := range sizes {
				if !slices.Equal(asText(batches[i]), asText(rows(n))) {
					t.Errorf("batch %d was changed", i)
				}
				if i > 0 {
					write(t, again.bench, batches[i])
					want = append(want, asText(batches[i])...)
				}
			}
			again.stored(t, want...)
		})
	}
	scenario(t, "pending_waits_fail", func(t *testing.T) {
		s, _ := scripted(t, create("a"), silence)
		why := errors.New("the partition was revoked")
		ctx, cancel := context.WithCancelCause(t.Context())
		var all []<-chan error
		for range 5 {
			all = append(all, s.begin(ctx, rows(2)))
		}
		pending(t, all...)
		start := time.Now()
		cancel(why)
		for _, done := range all {
			err := <-done
			isOver(t, err, why)
			isOver(t, err, context.Canceled)
		}
		took(t, start, 0)
	})
}

// recoveryScenarios are streams that fail and are replaced.
func recoveryScenarios(t *testing.T) {
	scenario(t, "during_creation", func(t *testing.T) {
		s, script := scripted(t, fails(codes.Unavailable), fails(codes.Internal), create("a"), ack(0))
		write(t, s.bench, rows(1))
		asked(t, script, 3, 1)
		if got := s.obs.count(s.obs.retries, zerobus.RetryUnavailable); got != 2 {
			t.Errorf("%d retries, want 2", got)
		}
	})
	// Nothing gives up after so many retries: the caller's context does.
	scenario(t, "gives_up_after_retries", func(t *testing.T) {
		s, script := scripted(t, slices.Repeat([]emulator.ScriptStep{fails(codes.Unavailable)}, 100)...)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		done := s.begin(ctx, rows(1))
		after(10*time.Minute - time.Second)
		pending(t, done)
		if got := s.State().Name; got != zerobus.Retrying || script.Streams() < 20 || script.Streams() > 50 {
			t.Errorf("state is %q after %d streams in 10 min, want retrying, once per 30 s in the end", got, script.Streams())
		}
		isOver(t, <-done, context.DeadlineExceeded)
	})
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Aborted, codes.ResourceExhausted, codes.Unknown, codes.DeadlineExceeded, codes.Canceled, codes.DataLoss, codes.OK} {
		scenario(t, "retriable_error_then_success/"+code.String(), func(t *testing.T) {
			s, script := scripted(t, create("a"), fails(code), create("b"), ack(0))
			start := time.Now()
			write(t, s.bench, rows(3))
			if got := time.Since(start); got > 2*time.Second {
				t.Errorf("the rows were taken after %v, want within 2s", got)
			}
			asked(t, script, 2, 6)
			if got := s.State(); got.Name != zerobus.Ready || !slices.Equal(got.Streams, []string{"b"}) {
				t.Errorf("state is %+v, want ready on b", got)
			}
		})
	}
	scenario(t, "after_silent_server", func(t *testing.T) {
		s, script := scripted(t, create("a"), silence, create("b"), ack(0))
		start := time.Now()
		write(t, s.bench, rows(3))
		if got := time.Since(start); got < time.Minute || got > 61*time.Second {
			t.Errorf("the rows were taken after %v, want soon after the 60 s without an ack", got)
		}
		asked(t, script, 2, 6)
		if got := s.obs.count(s.obs.retries, zerobus.RetryTimeout); got != 1 {
			t.Errorf("%d retries for a timeout, want 1", got)
		}
	})
	// Close waits for the last answers, and the Write they are for hears them.
	scenario(t, "close_fails_on_non_retriable_error_in_flush", func(t *testing.T) {
		s, _ := scripted(t, create("a"), emulator.StreamError{Status: fails(codes.InvalidArgument).Status, Delay: 200 * time.Millisecond})
		done := s.begin(t.Context(), rows(2))
		start := time.Now()
		s.Close()
		took(t, start, 200*time.Millisecond)
		isRefused(t, <-done, zerobus.RefusedSchemaMismatch)
	})
	scenario(t, "close_signal_triggers_recovery", func(t *testing.T) {
		s, script := scripted(t, create("a"), emulator.CloseStreamSignal{Duration: 2 * time.Second}, create("b"), ack(0))
		start := time.Now()
		write(t, s.bench, rows(3))
		took(t, start, 2*time.Second)
		asked(t, script, 2, 6)
		s.quiet(t)
	})
	scenario(t, "batch_structure_kept", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.stallAcks(t, time.Hour)
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: "UNAVAILABLE", Offset: new(int64(3)), Count: 1})
		var all []<-chan error
		want := map[string]int{}
		for i, n := range []int{5, 1, 3, 2} {
			var batch [][]byte
			for range n {
				batch = append(batch, fmt.Appendf(nil, `{"message_id":"batch-%d","n":1}`, i))
			}
			want[fmt.Sprintf("batch-%d", i)] = n
			all = append(all, s.begin(t.Context(), batch))
		}
		succeed(t, all...)
		s.twice(t, want)
	})
	scenario(t, "recreate_stream_with_unacked", func(t *testing.T) {
		s := staged(t, emulator.Config{AckEvery: 1}, nil)
		var all []<-chan error
		for i := range 6 {
			if i == 2 { // 0 and 1 are acknowledged, 2 to 4 are only kept
				s.stallAcks(t, time.Hour)
				s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: "UNAVAILABLE", Offset: new(int64(5)), Count: 1})
			}
			all = append(all, s.begin(t.Context(), [][]byte{row(i)}))
		}
		succeed(t, all...)
		times := map[string]int{}
		for _, r := range s.rows() {
			times[string(r.JSON)]++
		}
		for i, want := range []int{1, 1, 2, 2, 2, 1} {
			if got := times[string(row(i))]; got != want {
				t.Errorf("row %d was stored %d times, want %d", i, got, want)
			}
		}
		for _, r := range s.em.Table(target).Stream(s.em.Streams()[1].ID) {
			if text, _ := r.Value("n"); text < "2" {
				t.Errorf("row %s was acknowledged and sent again", text)
			}
		}
		if got := s.em.Streams()[1].AckedOffset; got != 3 {
			t.Errorf("the second stream was acknowledged up to %d, want 3: four messages from 0", got)
		}
	})
	scenario(t, "unacked_empty_when_all_acked", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		for i := range 3 {
			write(t, s.bench, [][]byte{row(i)})
		}
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectCut, Count: 1})
		write(t, s.bench, [][]byte{row(3)})
		s.stored(t, asText(rows(4))...)
		if got := s.em.Streams(); len(got) != 2 || got[1].Messages != 1 {
			t.Errorf("streams are %+v, want a second one with the last message only", got)
		}
	})
}

// twice fails unless every batch arrived whole: all of its rows under one
// offset of one stream. want is how many rows each message_id has.
func (s stage) twice(t *testing.T, want map[string]int) {
	t.Helper()
	type message struct {
		stream string
		offset int64
	}
	ids, sizes := map[message]string{}, map[message]int{}
	for _, r := range s.rows() {
		at := message{r.StreamID, r.Offset}
		id, _ := r.Value("message_id")
		if other, ok := ids[at]; ok && other != id {
			t.Errorf("message %v holds rows of %s and of %s", at, id, other)
		}
		ids[at] = id
		sizes[at]++
	}
	seen := map[string]bool{}
	for at, n := range sizes {
		if seen[ids[at]] = true; n != want[ids[at]] {
			t.Errorf("message %v holds %d rows of %s, want %d", at, n, ids[at], want[ids[at]])
		}
	}
	if len(seen) != len(want) || len(sizes) <= len(want) {
		t.Errorf("%d batches in %d messages, want %d batches and some of them twice", len(seen), len(sizes), len(want))
	}
}
