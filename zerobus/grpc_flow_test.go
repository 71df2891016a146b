package zerobus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// answerless receives and sends nothing, until release is closed.
func answerless(release <-chan struct{}) func(int, *served) error {
	return func(_ int, s *served) error {
		if err := s.confirm(); err != nil {
			return err
		}
		select {
		case <-release:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		return s.take(-1)
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		svc := &service{}
		svc.handle = func(_ int, s *served) error {
			if err := s.confirm(); err != nil {
				return err
			}
			for {
				if err := s.receive(); err != nil {
					return err
				}
				select {
				case <-release:
					if err := s.ack(s.next - 1); err != nil {
						return err
					}
				default:
				}
			}
		}
		b := streamed(t, svc, func(c *zerobus.Config) { c.MaxInFlight = 1 << 20 })
		big := [][]byte{[]byte(`{"m":"` + strings.Repeat("x", 400<<10) + `"}`)}
		var all []<-chan error
		for range 3 {
			all = append(all, inBackground(t.Context(), b.bench, big))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.WriteLatest(ctx, big); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write without room: %v, want the context's end", err)
		}
		if got := svc.stream(1).next; got != 2 {
			t.Errorf("%d messages were sent, want 2: a third is over the bound", got)
		}
		close(release)
		// Neither of the two is acknowledged before the next message comes.
		after(61 * time.Second)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		write(t, b.bench, [][]byte{[]byte(`{"m":"` + strings.Repeat("x", 3<<20) + `"}`)}) // larger than the bound: alone
	})
}

func TestAServiceThatStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		svc := &service{handle: answerless(release)}
		b := streamed(t, svc, nil)
		big := [][]byte{bytes.Repeat([]byte("x"), 5<<20)}
		first := inBackground(t.Context(), b.bench, big) // fills the window
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		second := inBackground(ctx, b.bench, big) // waits for the window
		if err := <-second; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Write: %v after %v, want the context's end after 3s", err, time.Since(start))
		}
		after(time.Minute)
		if got := svc.opened(); got != 2 {
			t.Errorf("%d streams, want 2: the first was given up after 60 s", got)
		}
		close(release)
		if err := <-first; err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestAContextThatEndsEndsWriteWhereverItIs(t *testing.T) {
	hang := func(_ int, s *served) error { return s.hang() }
	for name, handle := range map[string]func(int, *served) error{
		"opening": hang,
		"waiting for an ack": func(_ int, s *served) error {
			return errors.Join(s.confirm(), s.hang())
		},
		"between tries":  func(int, *served) error { return status.Error(codes.Unavailable, "away") },
		"blocked":        func(int, *served) error { return status.Error(codes.NotFound, "no table") },
		"after a signal": func(_ int, s *served) error { return errors.Join(s.confirm(), s.receive(), s.signal(nil), s.hang()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := streamed(t, &service{handle: handle}, nil)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				one, two := inBackground(ctx, b.bench, rows(2)), inBackground(ctx, b.bench, rows(2))
				for _, done := range []<-chan error{one, two} {
					err := <-done
					var no *zerobus.RefusedError
					if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &no) || time.Since(start) != 10*time.Second {
						t.Errorf("Write: %v after %v, want the context's end after 10s", err, time.Since(start))
					}
				}
			})
		})
	}
}

func TestWriteAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		write(t, b.bench, rows(1))
		b.Close()
		b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.WriteLatest(ctx, rows(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v, want the context's end", err)
		}
		if !b.svc.stream(1).closed {
			t.Errorf("the stream's side was not closed in order")
		}
	})
}

func TestCloseWaitsForAcksThatAreOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: func(_ int, s *served) error {
			return errors.Join(s.confirm(), s.receive(), s.half(), s.ack(0)) // the end of our side flushes
		}}, nil)
		done := inBackground(t.Context(), b.bench, rows(1))
		synctest.Wait()
		start := time.Now()
		b.Close()
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("Write: %v after %v, want nil at once", err, time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: func(_ int, s *served) error {
			return errors.Join(s.confirm(), s.hang())
		}}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		done := inBackground(ctx, b.bench, rows(1))
		synctest.Wait()
		start := time.Now()
		b.Close()
		if got := time.Since(start); got != 500*time.Millisecond {
			t.Errorf("Close took %v with a silent service, want 500ms", got)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v, want the context's end", err)
		}
	})
}

func TestStreamsShareTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := streamed(t, &service{handle: answerless(release)}, func(c *zerobus.Config) { c.Streams = 4 })
		var all []<-chan error
		for range 12 {
			all = append(all, inBackground(t.Context(), b.bench, rows(2)))
			synctest.Wait()
		}
		close(release)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		for n := range 4 {
			if got := b.svc.stream(n + 1).next; got != 3 {
				t.Errorf("stream %d had %d messages, want 3 of 12", n+1, got)
			}
		}
	})
}

func TestTooLargeForAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		var no *zerobus.RefusedError
		err := b.WriteLatest(t.Context(), [][]byte{bytes.Repeat([]byte("x"), 10_420_224)})
		if !errors.As(err, &no) {
			t.Fatalf("Write: %v, want a refusal", err)
		}
		if code, _ := no.Refused(); code != zerobus.RefusedTooLarge || b.svc.opened() != 0 {
			t.Errorf("code is %q after %d streams, want too_large and none", code, b.svc.opened())
		}
		write(t, b.bench, [][]byte{bytes.Repeat([]byte("x"), 10_420_224-100)})
	})
}

func TestAServiceWithALowerBoundOnMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: func(_ int, s *served) error {
			if err := s.confirm(); err != nil {
				return err
			}
			for {
				m, err := s.message()
				if err != nil {
					return err
				}
				if len(m.rows) > 1 {
					return status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
				}
				if err := s.ack(m.offset); err != nil {
					return err
				}
			}
		}}, nil)
		half := bytes.Repeat([]byte("x"), 3<<20)
		err := b.WriteLatest(t.Context(), [][]byte{half, half})
		var no *zerobus.RefusedError
		if !errors.As(err, &no) {
			t.Fatalf("Write: %v, want a refusal, so that the batch is split", err)
		}
		if code, _ := no.Refused(); code != zerobus.RefusedTooLarge {
			t.Errorf("code is %q, want too_large", code)
		}
		write(t, b.bench, [][]byte{half})
	})
}

func TestANewStreamHasAFreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: func(_ int, s *served) error {
			return errors.Join(s.confirm(), s.take(1), s.signal(nil), s.half())
		}}, nil)
		b.space.lifetime = 60
		for range 4 {
			write(t, b.bench, rows(1))
			after(31 * time.Second) // past half the token's life
		}
		for n := range 4 {
			if got, want := b.svc.stream(n + 1).md.Get("authorization")[0], fmt.Sprintf("Bearer token-%d-of-test", n+1); got != want {
				t.Errorf("stream %d was opened with %q, want %q", n+1, got, want)
			}
		}
	})
}

func TestNoSecretOfAStreamIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: func(n int, s *served) error {
			all := s.md.Get("authorization")[0] + " " + secretOne
			if n%2 == 0 {
				s.id = all
				if err := s.confirm(); err != nil {
					return err
				}
			}
			return status.Error([]codes.Code{codes.NotFound, codes.Internal, codes.Unauthenticated}[n%3], all)
		}}, func(c *zerobus.Config) { c.ProbeEvery = time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		reported := fmt.Sprint(b.WriteLatest(ctx, rows(1)))
		for range 12 {
			reported += fmt.Sprint(b.Preflight(t.Context()))
		}
		state := b.State()
		reported += state.Reason + state.Remedy + text(t, b.logs)
		for _, secret := range []string{secretOne, "token-1-of-test"} {
			if strings.Contains(reported, secret) {
				t.Errorf("%q was reported:\n%s", secret, reported)
			}
		}
	})
}
