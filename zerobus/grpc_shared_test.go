package zerobus_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// TestWritersThatShareAFaultCompleteTheirOwn has one stream fail to open under
// several Writes: they get one error between them, and what each adds to it is
// nobody else's. The race detector is the judge.
func TestWritersThatShareAFaultCompleteTheirOwn(t *testing.T) {
	for name, refusal := range map[string]error{
		"columns":       status.Error(codes.InvalidArgument, "column 'tenant' is NOT NULL and the descriptor lacks it"),
		"authorization": status.Error(codes.PermissionDenied, "no such luck"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fixed atomic.Bool
				svc := &service{handle: func(_ int, s *served) error {
					if fixed.Load() {
						return s.serve()
					}
					if err := s.ask(); err != nil {
						return err
					}
					return refusal
				}}
				b := streamed(t, svc, nil)
				var writers []<-chan error
				for range 8 {
					writers = append(writers, inBackground(t.Context(), b.bench, rows(3)))
				}
				after(time.Second)
				if got := b.State().Name; got != zerobus.Blocked {
					t.Errorf("state is %q, want blocked", got)
				}
				fixed.Store(true)
				for _, done := range writers {
					if err := <-done; err != nil {
						t.Errorf("Write: %v", err)
					}
				}
				if got := len(svc.stored()); got != 24 {
					t.Errorf("%d rows stored, want 24", got)
				}
			})
		})
	}
}
