package zerobus_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/zerobus"
)

// crashing is an Observer that panics the first time at one of its methods.
type crashing struct {
	observed
	at   string
	done bool
}

func (c *crashing) reach(place string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == place && !c.done {
		c.done = true
		panic("injected at " + place)
	}
}

func (c *crashing) Request(outcome string, d time.Duration) {
	c.reach("Request")
	c.observed.Request(outcome, d)
}

func (c *crashing) TokenMinted(err error) {
	c.reach("TokenMinted")
	c.observed.TokenMinted(err)
}

func (c *crashing) StreamOpened()      { c.reach("StreamOpened") }
func (c *crashing) StreamEnded(string) { c.reach("StreamEnded") }

// writeGuarded is Write whose panic is an error.
func writeGuarded(ctx context.Context, c streaming, batch [][]byte) (err error) {
	defer panics.To(&err)
	return c.WriteLatest(ctx, batch)
}

// A panic on the way of one Write is that Write's. It leaves nothing behind that the others
// would wait for, and they deliver.
func TestPanicOfOneWrite(t *testing.T) {
	for _, at := range []string{"TokenMinted", "StreamOpened", "Request"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{handle: func(_ int, s *served) error { return s.serve() }}
				b := observedStreams(t, svc, &crashing{at: at})
				const writers = 5
				ends := make(chan error, writers)
				for range writers {
					go func() { ends <- writeGuarded(t.Context(), b, rows(1)) }()
				}
				crashed := 0
				for range writers {
					if err := <-ends; panics.Is(err) && strings.Contains(err.Error(), "injected at "+at) {
						crashed++
					} else if err != nil {
						t.Errorf("got %v, want the rows delivered", err)
					}
				}
				if crashed != 1 {
					t.Errorf("%d Writes failed, want the one that panicked", crashed)
				}
			})
		})
	}
}

// A panic in a goroutine of a stream is the error of Watch. What was in flight on the stream
// is delivered by another.
func TestPanicOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: func(n int, s *served) error {
			if n > 1 {
				return s.serve()
			}
			if err := s.confirm(); err != nil {
				return err
			}
			if _, err := s.message(); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "gone") // with the rows unacknowledged
		}}
		b := observedStreams(t, svc, &crashing{at: "StreamEnded"})
		watching := make(chan error, 1)
		go func() { watching <- b.Watch(t.Context(), func([]zerobus.Column, error) {}) }()
		if err := writeGuarded(t.Context(), b, rows(2)); err != nil {
			t.Errorf("got %v, want the rows delivered over another stream", err)
		}
		err := <-watching
		if !panics.Is(err) || !strings.Contains(err.Error(), "datafly.events.stream: panic: injected at StreamEnded") || !strings.Contains(panics.Stack(err), "unregister") {
			t.Errorf("got %v, want the panic of the stream with its stack", err)
		}
		if got := svc.stored(); !slices.Equal(got, asText(rows(2))) {
			t.Errorf("got rows %q, want them once", got)
		}
	})
}

func TestPanicOfWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.ColumnsRefresh = time.Minute })
		b.space.set(func() { b.space.columns = table("a") })
		cols, err := b.Columns(t.Context())
		if err == nil {
			_, err = b.Encoding(cols)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.space.set(func() { b.space.columns = table("a", "b") })
		err = b.Watch(t.Context(), func([]zerobus.Column, error) { panic("injected at onChange") })
		if !panics.Is(err) || !strings.Contains(err.Error(), "injected at onChange") {
			t.Errorf("got %v, want the panic", err)
		}
	})
}
