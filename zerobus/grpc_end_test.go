package zerobus_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/datafly/bridge/zerobus"
)

func TestAnAnnouncedEndIsNoFailure(t *testing.T) {
	aged := status.Error(codes.Unavailable, "Stream timeout reached. Closing the stream (ID: stream-1). Error Code: 6002, Error State: 0.")
	late := func(d time.Duration) func(s *served) error { // acks come after d
		return func(s *served) error {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				return s.ack(s.next - 1)
			case <-s.Context().Done():
				return s.Context().Err()
			}
		}
	}
	for _, tt := range []struct {
		name   string
		then   func(s *served) error // with one message in flight
		within time.Duration
		copies int
	}{
		{"acks within the window", func(s *served) error {
			return errors.Join(s.signal(durationpb.New(10*time.Second)), late(4*time.Second)(s), s.half())
		}, 4 * time.Second, 1},
		{"no acks within the window", func(s *served) error {
			return errors.Join(s.signal(durationpb.New(10*time.Second)), s.hang())
		}, 11 * time.Second, 1},
		{"a second signal shortens the window", func(s *served) error {
			return errors.Join(s.signal(durationpb.New(time.Hour)), s.signal(durationpb.New(2*time.Second)), s.hang())
		}, 3 * time.Second, 1},
		{"a second signal does not lengthen it", func(s *served) error {
			return errors.Join(s.signal(durationpb.New(2*time.Second)), s.signal(durationpb.New(time.Hour)), s.hang())
		}, 3 * time.Second, 1},
		{"no duration", func(s *served) error { return errors.Join(s.signal(nil), s.hang()) }, time.Second, 1},
		{"zero", func(s *served) error { return errors.Join(s.signal(durationpb.New(0)), s.hang()) }, time.Second, 1},
		{"negative", func(s *served) error { return errors.Join(s.signal(durationpb.New(-time.Hour)), s.hang()) }, time.Second, 1},
		{"zero, and our closing flushes the acks", func(s *served) error {
			return errors.Join(s.signal(nil), s.half(), s.ack(0))
		}, 0, 1},
		{"the end in the window", func(s *served) error {
			return errors.Join(s.signal(durationpb.New(10*time.Second)), aged)
		}, 0, 1},
		{"an end without a word in the window", func(s *served) error {
			return s.signal(durationpb.New(10 * time.Second))
		}, 0, 1},
		{"the end without a signal", func(*served) error { return aged }, 0, 1},
		{"the end with the ack lost", func(s *served) error { s.keep(0); return aged }, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := streamed(t, &service{handle: once(func(s *served) error {
					if err := errors.Join(s.confirm(), s.receive()); err != nil {
						return err
					}
					return tt.then(s)
				})}, nil)
				start := time.Now()
				write(t, b.bench, rows(2))
				if got := time.Since(start); got > tt.within {
					t.Errorf("the rows were taken after %v, want within %v", got, tt.within)
				}
				write(t, b.bench, rows(2))
				if got := len(b.svc.stored()); got != 2*tt.copies+2 {
					t.Errorf("%d rows stored, want %d", got, 2*tt.copies+2)
				}
				if got := b.svc.opened(); got != 2 {
					t.Errorf("%d streams, want 2", got)
				}
				if len(b.obs.retries) != 0 {
					t.Errorf("retries are %v, want none", b.obs.retries)
				}
				for _, line := range b.logs.All() {
					if line.Level > zap.DebugLevel && line.Message != "stream opened" {
						t.Errorf("logged: %s", line.Message)
					}
				}
			})
		})
	}
}

func TestNothingIsSentOnAStreamThatIsGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: once(func(s *served) error {
			if err := errors.Join(s.confirm(), s.receive(), s.signal(durationpb.New(30*time.Second))); err != nil {
				return err
			}
			timer := time.NewTimer(20 * time.Second)
			defer timer.Stop()
			<-timer.C
			if err := s.ack(0); err != nil {
				return err
			}
			if m, err := s.message(); err == nil {
				t.Errorf("message %d came after the close signal", m.offset)
			}
			return nil
		})}
		b := streamed(t, svc, nil)
		first := inBackground(t.Context(), b.bench, rows(1))
		synctest.Wait()
		start := time.Now()
		for range 5 {
			write(t, b.bench, rows(1))
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("later batches took %v, want none: the next stream is open", got)
		}
		if got := b.State().Streams; !slices.Equal(got, []string{"stream-1", "stream-2"}) {
			t.Errorf("streams are %q, want both", got)
		}
		if err := <-first; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := len(svc.stored()); got != 6 {
			t.Errorf("%d rows stored, want 6", got)
		}
	})
}

func TestStreamsThatAreClosedBeforeTheyTakeAnythingAreNotOpenedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: func(n int, s *served) error {
			if n > 8 {
				return s.serve()
			}
			return errors.Join(s.confirm(), s.signal(nil), s.half())
		}}
		b := streamed(t, svc, nil)
		write(t, b.bench, rows(1))
		if got := b.obs.count(b.obs.retries, zerobus.RetryUnavailable); got == 0 {
			t.Errorf("%d retries, want some: streams that take nothing are a failure", got)
		}
	})
}

// listener counts streams, besides what every Observer counts.
type listener struct {
	observed
	opened int
	ends   map[string]int
}

func (l *listener) StreamOpened() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened++
}

func (l *listener) StreamEnded(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends == nil {
		l.ends = map[string]int{}
	}
	l.ends[why]++
}

func TestAnObserverCountsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := []error{
			status.Error(codes.Unavailable, "Error Code: 6002, Error State: 0."),
			status.Error(codes.Internal, "broken"),
			status.Error(codes.InvalidArgument, "a row. Error Code: 4044, Error State: 3."),
			status.Error(codes.Unauthenticated, "expired"),
		}
		svc := &service{handle: func(n int, s *served) error {
			if n > len(ends) {
				return s.serve()
			}
			return errors.Join(s.confirm(), s.take(1), s.receive(), ends[n-1])
		}}
		var heard listener
		c := observedStreams(t, svc, &heard)
		for range 2 * len(ends) {
			var no *zerobus.RefusedError
			if err := c.WriteLatest(t.Context(), rows(1)); err != nil && !errors.As(err, &no) {
				t.Errorf("Write: %v", err)
			}
		}
		c.Close()
		want := map[string]int{zerobus.StreamAnnounced: 1, zerobus.StreamFailed: 1, zerobus.StreamRefused: 1, zerobus.StreamBlocked: 1, zerobus.StreamLeft: 1}
		if !maps.Equal(heard.ends, want) || heard.opened != 5 {
			t.Errorf("%d streams opened, ends %v, want 5 and %v", heard.opened, heard.ends, want)
		}
	})
}
