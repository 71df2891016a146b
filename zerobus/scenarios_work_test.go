package zerobus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// workScenarios are streams on which all goes well.
func workScenarios(t *testing.T) {
	scenario(t, "single", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(1))
		asked(t, script, 1, 1)
	})
	scenario(t, "multiple", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0), ack(1), ack(2), ack(3), ack(4))
		for i := range 5 {
			write(t, s.bench, [][]byte{row(i)})
		}
		asked(t, script, 1, 5)
		if got := script.HighestOffset(); got != 4 {
			t.Errorf("the highest offset is %d, want 4", got)
		}
	})
	scenario(t, "batch", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(10))
		asked(t, script, 1, 10)
		if got := script.HighestOffset(); got != 0 {
			t.Errorf("the highest offset is %d, want 0: a batch has one", got)
		}
	})
	scenario(t, "empty_batch_is_no_op", func(t *testing.T) {
		s, script := scripted(t, create("a"))
		write(t, s.bench, nil)
		write(t, s.bench, [][]byte{})
		asked(t, script, 0, 0)
	})
	scenario(t, "empty_batch_after_records", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0), ack(1))
		write(t, s.bench, rows(2))
		write(t, s.bench, nil)
		write(t, s.bench, rows(2)) // has the next offset
		asked(t, script, 1, 4)
	})
	for _, code := range []codes.Code{codes.ResourceExhausted, codes.InvalidArgument} {
		// Whatever the service answers to a message over its own bound, the batch
		// comes back to be split, and its rows get through.
		scenario(t, "batch_too_large_rejected_by_server/"+code.String(), func(t *testing.T) {
			s := staged(t, emulator.Config{MaxRequestBytes: 5 << 20, OversizeCode: code}, nil)
			var batch [][]byte
			for i := range 4 {
				batch = append(batch, fmt.Appendf(nil, `{"message_id":"%d-%s","n":%d}`, i, strings.Repeat("x", 2<<20), i))
			}
			isRefused(t, s.WriteLatest(t.Context(), batch), zerobus.RefusedTooLarge)
			l := live{Client: s.Client}
			if bad, err := l.deliver(t.Context(), batch); err != nil || bad != nil {
				t.Errorf("deliver: %v, bad rows %v", err, bad)
			}
			if got := s.em.Table(target).Distinct("message_id"); got != 4 {
				t.Errorf("%d rows stored, want 4", got)
			}
		})
	}
	scenario(t, "large_batch", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0))
		write(t, s.bench, rows(100_000))
		asked(t, script, 1, 100_000)
	})
	scenario(t, "mixed_batch_and_single", func(t *testing.T) {
		s, script := scripted(t, create("a"), ack(0), ack(1), ack(2), ack(3))
		for _, n := range []int{1, 10, 1, 5} {
			write(t, s.bench, rows(n))
		}
		asked(t, script, 1, 17)
	})
	// Write is the flush: none returns before the one ack for all of them.
	scenario(t, "flush", func(t *testing.T) {
		s, script := scripted(t, create("a"), ackAfter(2, time.Second))
		start := time.Now()
		one, two := s.begin(t.Context(), rows(1)), s.begin(t.Context(), rows(1))
		pending(t, one, two)
		three := s.begin(t.Context(), rows(1))
		pending(t, one, two, three)
		succeed(t, one, two, three)
		took(t, start, time.Second)
		asked(t, script, 1, 3)
	})
	// The bound of a flush is the context's.
	scenario(t, "flush_timeout", func(t *testing.T) {
		s, script := scripted(t, create("a"), silence)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		isOver(t, s.WriteLatest(ctx, rows(1)), context.DeadlineExceeded)
		took(t, start, 5*time.Second)
		asked(t, script, 1, 1)
	})
	scenario(t, "empty_flush", func(t *testing.T) {
		s, script := scripted(t, silence)
		if err := s.Reachable(t.Context()); err != nil {
			t.Fatalf("Reachable: %v", err)
		}
		start := time.Now()
		write(t, s.bench, nil)
		took(t, start, 0)
		asked(t, script, 1, 0)
	})
}

// waitScenarios are about waiting for an offset: each Write waits for its own.
func waitScenarios(t *testing.T) {
	scenario(t, "single", func(t *testing.T) {
		s, _ := scripted(t, create("a"), ackAfter(0, time.Second))
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, time.Second)
	})
	for name, n := range map[string]int{"multiple": 1, "batch": 4} {
		scenario(t, name, func(t *testing.T) {
			s, script := scripted(t, create("a"), ackAfter(0, time.Second), ackAfter(1, time.Second), ackAfter(2, time.Second))
			start := time.Now()
			var all []<-chan error
			for range 3 {
				all = append(all, s.begin(t.Context(), rows(n)))
			}
			for i, done := range all {
				pending(t, all[i:]...)
				succeed(t, done)
				took(t, start, time.Duration(i+1)*time.Second)
				synctest.Wait()
			}
			asked(t, script, 1, 3*n)
		})
	}
	scenario(t, "empty", func(t *testing.T) {
		s, script := scripted(t, create("a"), silence)
		held, stop := context.WithCancel(t.Context())
		done := s.begin(held, rows(1))
		start := time.Now()
		write(t, s.bench, nil) // waits for no other's offset
		took(t, start, 0)
		pending(t, done)
		stop()
		isOver(t, <-done, context.Canceled)
		asked(t, script, 1, 1)
	})
	scenario(t, "error_during_wait", func(t *testing.T) {
		s, script := scripted(t, create("a"), emulator.StreamError{Status: fails(codes.InvalidArgument).Status, Delay: time.Second})
		start := time.Now()
		isRefused(t, s.WriteLatest(t.Context(), rows(2)), zerobus.RefusedSchemaMismatch)
		took(t, start, time.Second)
		asked(t, script, 1, 2)
	})
}

// concurrencyScenarios are many callers at once.
func concurrencyScenarios(t *testing.T) {
	for name, size := range map[string]int{"many_writers": 1, "concurrent_batches": 50} {
		scenario(t, name, func(t *testing.T) {
			const writers, each = 20, 20
			s := staged(t, emulator.Config{}, nil)
			var all []<-chan error
			for w := range writers {
				done := make(chan error, each)
				go func() {
					defer close(done)
					for i := range each {
						var batch [][]byte
						for j := range size {
							batch = append(batch, fmt.Appendf(nil, `{"message_id":"%d-%d-%d","n":%d}`, w, i, j, i*size+j))
						}
						done <- s.WriteLatest(t.Context(), batch)
					}
				}()
				all = append(all, done)
			}
			for _, done := range all {
				for err := range done {
					if err != nil {
						t.Errorf("Write: %v", err)
					}
				}
			}
			next := make([]int, writers)
			for _, r := range s.rows() {
				var w, n int
				if _, err := fmt.Sscanf(string(r.JSON), `{"message_id":"%d-`, &w); err != nil {
					t.Fatalf("row %s: %v", r.JSON, err)
				}
				if text, _ := r.Value("n"); text != fmt.Sprint(next[w]) {
					t.Fatalf("writer %d: row %s where %d is next: its order was not kept", w, text, next[w])
				}
				next[w] = next[w] + 1 + n
			}
			if want := slices.Repeat([]int{each * size}, writers); !slices.Equal(next, want) {
				t.Errorf("rows per writer are %v, want %v", next, want)
			}
			s.quiet(t)
		})
	}
	for name, batch := range map[string][][]byte{
		"single": {fmt.Appendf(nil, `{"message_id":"%s","n":1}`, strings.Repeat("x", 400<<10))},
		"batch":  slices.Repeat([][]byte{fmt.Appendf(nil, `{"message_id":"%s","n":1}`, strings.Repeat("x", 100<<10))}, 4),
	} {
		scenario(t, "ingest_blocks_at_the_in_flight_limit/"+name, func(t *testing.T) {
			s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.MaxInFlight = 1 << 20 })
			s.stallAcks(t, 5*time.Second)
			start := time.Now()
			one, two, three := s.begin(t.Context(), batch), s.begin(t.Context(), batch), s.begin(t.Context(), batch)
			if got := s.em.Stats().Requests[emulator.EndpointStream]; got != 2 {
				t.Errorf("%d messages were sent, want 2: a third is over the bound", got)
			}
			pending(t, one, two, three)
			succeed(t, one, two)
			took(t, start, 5*time.Second)
			succeed(t, three)
		})
	}
	// There is one window; the context of a caller that waits for it ends the wait.
	scenario(t, "ingest_blocks_at_the_in_flight_limit/offset_api", func(t *testing.T) {
		s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.MaxInFlight = 1 << 20 })
		s.stallAcks(t, 5*time.Second)
		big := [][]byte{fmt.Appendf(nil, `{"message_id":"%s","n":1}`, strings.Repeat("x", 900<<10))}
		first := s.begin(t.Context(), big)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		isOver(t, s.WriteLatest(ctx, big), context.DeadlineExceeded)
		took(t, start, 2*time.Second)
		succeed(t, first)
		if got := s.em.Table(target).Count(); got != 1 {
			t.Errorf("%d rows stored, want 1: the other was not sent", got)
		}
	})
	scenario(t, "flush_and_close_with_concurrent_ingest", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		type outcome struct {
			id  string
			err error
		}
		results := make(chan outcome, 1000)
		for w := range 10 {
			go func() {
				for i := range 100 {
					id := fmt.Sprintf("%d-%d", w, i)
					results <- outcome{id, s.WriteLatest(ctx, [][]byte{fmt.Appendf(nil, `{"message_id":%q,"n":1}`, id)})}
				}
			}()
		}
		after(150 * time.Millisecond)
		s.Close()
		kept := map[string]bool{}
		for range 1000 {
			if r := <-results; r.err == nil {
				kept[r.id] = true
			} else {
				isOver(t, r.err, context.DeadlineExceeded)
			}
		}
		have := map[string]bool{}
		for _, r := range s.rows() {
			id, _ := r.Value("message_id")
			have[id] = true
		}
		for id := range kept {
			if !have[id] {
				t.Errorf("Write of %s returned nil and the table lacks it", id)
			}
		}
		if len(kept) == 0 || len(kept) == 1000 {
			t.Errorf("%d of 1000 Writes returned nil, want some and not all", len(kept))
		}
	})
}

// stallAcks keeps acks back for d from the next message on.
func (s stage) stallAcks(t *testing.T, d time.Duration) {
	t.Helper()
	s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStallAcks, Latency: emulator.Latency{P50: d}, Count: 1})
}
