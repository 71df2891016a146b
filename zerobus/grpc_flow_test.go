package zerobus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
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
			return status.Error(codes.InvalidArgument, "unrecognized field name 'poison'")
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
		if got := svc.opened(); got > 1+8+1 {
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

func TestARefusedRowHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		start := time.Now()
		for i := range 50 {
			var no *zerobus.RefusedError
			if err := b.Write(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
				t.Fatalf("Write: %v, want a refusal", err)
			}
			if err := b.Probe(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
				t.Fatalf("Probe: %v, want a refusal", err)
			}
			if err := errors.Join(b.Probe(t.Context(), [][]byte{row(i)}), b.Write(t.Context(), [][]byte{row(i)})); err != nil {
				t.Fatalf("Probe and Write of a good row: %v", err)
			}
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("50 bad rows took %v, want no pause", got)
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
			if err := b.Probe(t.Context(), [][]byte{[]byte(`{"poison":1}`)}); !errors.As(err, &no) {
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
		if err := b.Probe(t.Context(), rows(1)); err != nil {
			t.Errorf("Probe: %v", err)
		}
		after(9 * time.Second)
		if got := len(b.State().Streams); got != 2 {
			t.Errorf("%d streams are open 9s after a search, want 2", got)
		}
		if err := b.Probe(t.Context(), rows(1)); err != nil || b.svc.opened() != 12 {
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
			go func() { done <- b.Probe(t.Context(), rows(1)) }()
			all = append(all, done)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Probe(ctx, rows(1)); !errors.Is(err, context.DeadlineExceeded) {
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

// answerless receives and says nothing, until release is closed.
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
		if err := b.Write(ctx, big); !errors.Is(err, context.DeadlineExceeded) {
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

// wireTap dials bufconns whose traffic can be swallowed, as by a firewall that
// forgot the connection.
type wireTap struct {
	dial func(context.Context) (net.Conn, error)

	mu    sync.Mutex // guards conns
	conns []*tapped
}

type tapped struct {
	net.Conn
	mu   sync.Mutex // guards deaf
	deaf bool
}

func (w *wireTap) Dial(ctx context.Context, _ string) (net.Conn, error) {
	c, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	one := &tapped{Conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, one)
	return one, nil
}

func (w *wireTap) dialed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

// swallow makes the connections there are dead without a sign of it.
func (w *wireTap) swallow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.mu.Lock()
		c.deaf = true
		c.mu.Unlock()
	}
}

func (c *tapped) Write(p []byte) (int, error) {
	c.mu.Lock()
	deaf := c.deaf
	c.mu.Unlock()
	if deaf {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestAConnectionThatSwallowsEverythingIsReplaced(t *testing.T) {
	for name, inFlight := range map[string]bool{"with rows in flight": true, "while idle": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{}
				if inFlight {
					svc.handle = once(func(s *served) error { return errors.Join(s.confirm(), s.take(1), s.hang()) })
				}
				b, tap := tappedStream(t, svc)
				write(t, b.bench, rows(1))
				var early <-chan error
				if inFlight {
					early = inBackground(t.Context(), b.bench, rows(1))
					synctest.Wait()
				}
				tap.swallow()
				start := time.Now()
				write(t, b.bench, rows(1))
				if got := time.Since(start); got > 62*time.Second {
					t.Errorf("rows were taken %v after the connection died, want soon after the 60 s without an ack", got)
				}
				if early != nil {
					if err := <-early; err != nil {
						t.Errorf("Write: %v", err)
					}
				}
				if got := tap.dialed(); got != 2 {
					t.Errorf("%d connections, want 2", got)
				}
				if got := b.obs.count(b.obs.retries, zerobus.RetryTimeout); got == 0 {
					t.Errorf("retries are %v, want some for a timeout", b.obs.retries)
				}
			})
		})
	}
}

func TestAStreamIsNotConfirmedOnADeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tap := tappedStream(t, &service{handle: once(func(s *served) error {
			return errors.Join(s.confirm(), s.take(1))
		})})
		write(t, b.bench, rows(1)) // the stream ends, the connection stays
		synctest.Wait()
		tap.swallow()
		start := time.Now()
		write(t, b.bench, rows(1))
		if got := time.Since(start); got > 17*time.Second || tap.dialed() != 2 {
			t.Errorf("rows were taken after %v over %d connections, want soon after the 15 s a stream has to open, over 2", got, tap.dialed())
		}
	})
}

func TestWriteAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, nil)
		write(t, b.bench, rows(1))
		b.Close()
		b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Write(ctx, rows(1)); !errors.Is(err, context.DeadlineExceeded) {
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
			t.Errorf("Close took %v of a service that says nothing, want 500ms", got)
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
		err := b.Write(t.Context(), [][]byte{bytes.Repeat([]byte("x"), 10_420_224)})
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
		err := b.Write(t.Context(), [][]byte{half, half})
		var no *zerobus.RefusedError
		if !errors.As(err, &no) {
			t.Fatalf("Write: %v, want a refusal, so that the batch is halved", err)
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

func TestNothingSecretIsSaidOfAStream(t *testing.T) {
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
		said := fmt.Sprint(b.Write(ctx, rows(1)))
		for range 12 {
			said += fmt.Sprint(b.Preflight(t.Context()))
		}
		state := b.State()
		said += state.Reason + state.Remedy + text(t, b.logs)
		for _, secret := range []string{secretOne, "token-1-of-test"} {
			if strings.Contains(said, secret) {
				t.Errorf("%q was said:\n%s", secret, said)
			}
		}
	})
}
