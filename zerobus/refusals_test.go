package zerobus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// search writes rows as a partition does: parts of what is refused go to
// Probe until the bad rows stand alone. It returns how many did.
func search(t *testing.T, c *zerobus.Client, batch [][]byte, probe bool) int {
	t.Helper()
	write := c.WriteLatest
	if probe {
		write = c.ProbeLatest
	}
	err := write(t.Context(), batch)
	var no *zerobus.RefusedError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &no):
		t.Fatalf("Write: %v, want nil or a refusal", err)
	case len(batch) == 1:
		return 1
	}
	mid := len(batch) / 2
	return search(t, c, batch[:mid], true) + search(t, c, batch[mid:], true)
}

// A refused batch costs the pause before the second refusal once, however many
// bad rows it holds.
func TestManyBadRowsOfABatchShareOnePause(t *testing.T) {
	batch := rows(1000)
	for i := range 40 {
		batch[i*25] = fmt.Appendf(nil, `{"message_id":"poison-%d","n":1}`, i)
	}
	for _, transport := range []string{"workspace", "grpc"} {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c *zerobus.Client
				var stored func() int
				if transport == "grpc" {
					s := streamed(t, &service{}, nil)
					c, stored = s.Client, func() int { return len(s.svc.stored()) }
				} else {
					b := virtual(t, nil)
					b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
						for _, row := range rows {
							if strings.Contains(string(row), "poison") {
								return fail(w, 400, "INVALID_PARAMETER_VALUE", "no")
							}
						}
						return false
					}
					c, stored = b.Client, func() int { return len(b.space.stored()) }
				}
				start := time.Now()
				if bad := search(t, c, batch, false); bad != 40 {
					t.Errorf("%d rows refused, want 40", bad)
				}
				if got := time.Since(start); got != time.Second {
					t.Errorf("the search took %v, want one pause of a second", got)
				}
				if got := stored(); got != 960 {
					t.Errorf("%d rows stored, want 960", got)
				}
			})
		})
	}
}

// A refusal that does not repeat gives no row up.
func TestARefusalThatDoesNotRepeat(t *testing.T) {
	t.Run("workspace", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := virtual(t, nil)
			b.space.onIngest = answers(400)
			start := time.Now()
			write(t, b, rows(1))
			if got := time.Since(start); got != time.Second || len(b.space.arrivals()) != 2 {
				t.Errorf("%d requests in %v, want 2, a second apart", len(b.space.arrivals()), got)
			}
		})
	})
	t.Run("grpc", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			svc := &service{handle: once(func(s *served) error {
				return errors.Join(s.confirm(), s.receive(), status.Error(codes.InvalidArgument, "no. Error Code: 4044, Error State: 3."))
			})}
			var dials atomic.Int64
			b := overBuffers(t, svc, nil, func(dial func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
				return func(ctx context.Context, _ string) (net.Conn, error) { dials.Add(1); return dial(ctx) }
			})
			start := time.Now()
			write(t, b.bench, rows(1))
			if got := time.Since(start); got != time.Second || svc.opened() != 2 || dials.Load() != 2 {
				t.Errorf("%d streams over %d connections in %v, want 2 over 2, a second apart", svc.opened(), dials.Load(), got)
			}
		})
	})
}

// A refusal for size names what to lower. A batch comes back to be taken apart,
// and a row alone is given up once the codec has refused it twice.
func TestRefusalsForSizeOverAStream(t *testing.T) {
	for name, end := range map[string]error{
		"tonic":       status.Error(codes.OutOfRange, "Error, decoded message length too large: found 10485761 bytes, the limit is: 10485760 bytes"),
		"grpc-go":     status.Error(codes.ResourceExhausted, "grpc: received message larger than max (10485761 vs. 10485760)"),
		"too many":    status.Error(codes.InvalidArgument, "Batch size exceeds maximum"),
		"other words": status.Error(codes.OutOfRange, "no"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var right atomic.Bool
				b := streamed(t, &service{handle: func(_ int, s *served) error {
					if right.Load() {
						return s.serve()
					}
					return errors.Join(s.confirm(), s.receive(), end)
				}}, nil)
				var no *zerobus.RefusedError
				if err := b.WriteLatest(t.Context(), rows(2)); !errors.As(err, &no) || !strings.Contains(err.Error(), "delivery.max_bytes or delivery.max_rows") {
					t.Fatalf("Write: %v, want a refusal that names the bounds", err)
				}
				if code, _ := no.Refused(); code != zerobus.RefusedTooLarge {
					t.Errorf("code is %q, want too_large", code)
				}
				done := inBackground(t.Context(), b.bench, rows(1))
				after(time.Minute)
				right.Store(true)
				err := <-done
				if alone := errors.As(err, &no); alone == (name == "other words") {
					t.Errorf("Write of a row alone: %v, want it given up for a codec's own words only", err)
				}
			})
		})
	}
}
