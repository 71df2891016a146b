package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

func TestOnePoisonRowAmongManyBatchesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches = 20
		// The shared stream looks at rows only once all of them are there.
		svc := &service{}
		svc.handle = func(n int, s *served) error {
			if n > 1 {
				return s.serve()
			}
			if err := s.confirm(); err != nil {
				return err
			}
			for range batches {
				if err := s.receive(); err != nil {
					return err
				}
			}
			return status.Error(codes.InvalidArgument, "unrecognized field name 'poison'. Error Code: 4044, Error State: 3.")
		}
		b := streamed(t, svc, nil)
		var all []<-chan error
		for i := range batches {
			text := "fine"
			if i == 13 {
				text = "poison"
			}
			all = append(all, inBackground(t.Context(), b.bench, [][]byte{fmt.Appendf(nil, `{"message_id":"%s-%d"}`, text, i)}))
			synctest.Wait()
		}
		for i, done := range all {
			err := <-done
			var no *zerobus.RefusedError
			if refused := errors.As(err, &no); refused != (i == 13) || !refused && err != nil {
				t.Errorf("batch %d: %v", i, err)
			}
			if i == 13 {
				if code, column := no.Refused(); code != zerobus.RefusedSchemaMismatch || column != "poison" {
					t.Errorf("Refused() = %q, %q, want schema_mismatch and the column", code, column)
				}
			}
		}
		if got := len(svc.stored()); got != batches-1 {
			t.Errorf("%d rows stored, want %d: all but the bad one, once each", got, batches-1)
		}
		if got := svc.opened(); got > 1+8+2 {
			t.Errorf("%d streams for one bad row among %d batches, want the shared one and a few to search on", got, batches)
		}
		if len(b.obs.retries) != 0 || b.State().Name != zerobus.Ready {
			t.Errorf("retries are %v and the state %q, want none and ready", b.obs.retries, b.State().Name)
		}
		after(time.Minute)
		if got := b.State().Streams; len(got) != 0 {
			t.Errorf("streams %q are open a minute later, want none: the shared one ended, the others were idle", got)
		}
	})
}

func TestARefusedRowDelaysNoOtherBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		start := time.Now()
		for i := range 50 {
			var no *zerobus.RefusedError
			if err := b.WriteLatest(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
				t.Fatalf("Write: %v, want a refusal", err)
			}
			if err := b.ProbeLatest(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
				t.Fatalf("Probe: %v, want a refusal", err)
			}
			if err := errors.Join(b.ProbeLatest(t.Context(), [][]byte{row(i)}), b.WriteLatest(t.Context(), [][]byte{row(i)})); err != nil {
				t.Fatalf("Probe and Write of a good row: %v", err)
			}
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("50 bad rows took %v, want the pause before the first repeat and no other", got)
		}
		if got := len(b.svc.stored()); got != 100 || len(b.obs.retries) != 0 {
			t.Errorf("%d rows stored with retries %v, want 100 and none", got, b.obs.retries)
		}
	})
}

func TestASearchLeavesTheSharedStreamAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		write(t, b.bench, rows(1))
		for range 10 {
			var no *zerobus.RefusedError
			if err := b.ProbeLatest(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
				t.Fatalf("Probe: %v, want a refusal", err)
			}
			write(t, b.bench, rows(1))
		}
		if got := b.svc.stream(1).next; got != 11 {
			t.Errorf("the shared stream took %d batches, want all 11", got)
		}
		if got := b.State().Streams; len(got) != 1 || got[0] != "stream-1" {
			t.Errorf("streams %q are open, want the shared one", got)
		}
		if err := b.ProbeLatest(t.Context(), rows(1)); err != nil {
			t.Errorf("Probe: %v", err)
		}
		after(9 * time.Second)
		if got := len(b.State().Streams); got != 2 {
			t.Errorf("%d streams are open 9s after a search, want 2", got)
		}
		if err := b.ProbeLatest(t.Context(), rows(1)); err != nil || b.svc.opened() != 22 {
			t.Errorf("Probe: %v over %d streams in all, want nil over the one that waits", err, b.svc.opened())
		}
		after(10 * time.Second)
		if got := len(b.State().Streams); got != 1 {
			t.Errorf("%d streams are open 10s after the last search, want 1", got)
		}
	})
}

func TestSearchesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := streamed(t, &service{handle: answerless(release)}, nil)
		var all []<-chan error
		for range 30 {
			done := make(chan error, 1)
			go func() { done <- b.ProbeLatest(t.Context(), rows(1)) }()
			all = append(all, done)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.ProbeLatest(ctx, rows(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Probe without a turn: %v, want the context's end", err)
		}
		if got := b.svc.opened(); got != 8 {
			t.Errorf("%d streams for 30 searches, want 8", got)
		}
		close(release)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Probe: %v", err)
			}
		}
		if got := b.svc.opened(); got != 8 {
			t.Errorf("%d streams in the end, want 8", got)
		}
	})
}
