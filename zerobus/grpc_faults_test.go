package zerobus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/datafly/bridge/zerobus"
)

// fault is how every gRPC code is met: as one to retry, as one that blocks, or
// as one that refuses a row.
var fault = map[codes.Code]string{
	codes.Canceled: "retry", codes.Unknown: "retry", codes.DeadlineExceeded: "retry", codes.AlreadyExists: "retry",
	codes.ResourceExhausted: "retry", codes.Aborted: "retry", codes.Internal: "retry", codes.Unavailable: "retry", codes.DataLoss: "retry",
	codes.InvalidArgument: "refuse", codes.OutOfRange: "refuse",
	codes.NotFound: "block", codes.FailedPrecondition: "block", codes.Unimplemented: "block",
	codes.PermissionDenied: "block after a fresh token", codes.Unauthenticated: "block after a fresh token",
	codes.Code(99): "retry",
}

func TestEveryStatusBeforeTheStreamIsConfirmed(t *testing.T) {
	for code, how := range fault {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fixed atomic.Bool
				svc := &service{handle: func(_ int, s *served) error {
					if !fixed.Load() {
						return status.Error(code, "no such luck")
					}
					return s.serve()
				}}
				b := streamed(t, svc, nil)
				done := inBackground(t.Context(), b.bench, rows(3))
				after(29 * time.Second)
				state, opened := b.State(), svc.opened()
				if how == "retry" {
					if state.Name != zerobus.Retrying || opened < 4 {
						t.Errorf("state is %q after %d streams, want retrying", state.Name, opened)
					}
				} else {
					if state.Name != zerobus.Blocked || state.Remedy == "" || !strings.Contains(state.Reason, "no such luck") {
						t.Errorf("state is %+v, want blocked with the service's words and a remedy", state)
					}
					if want := 1 + strings.Count(how, "fresh"); opened != want || b.space.mints() != want {
						t.Errorf("%d streams and %d tokens, want %d of each", opened, b.space.mints(), want)
					}
				}
				fixed.Store(true)
				if err := <-done; err != nil {
					t.Errorf("Write: %v", err)
				}
				if got := len(svc.stored()); got != 3 {
					t.Errorf("%d rows stored, want 3", got)
				}
			})
		})
	}
}

func TestEveryStatusAfterTheStreamIsConfirmed(t *testing.T) {
	const own = " Error Code: 4044, Error State: 3." // how the service's words end
	for code, how := range fault {
		statusAfter(t, code, "no such luck."+own, how)
		if how == "refuse" && code != codes.OutOfRange { // that is about size, and what is smaller may pass
			how = "retry"
		}
		statusAfter(t, code, "no such luck", how)
	}
}

// statusAfter ends streams so once they have taken a batch.
func statusAfter(t *testing.T, code codes.Code, words, how string) {
	t.Run(code.String()+words[len("no such luck"):], func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var fixed atomic.Bool
			svc := &service{handle: func(_ int, s *served) error {
				if fixed.Load() {
					return s.serve()
				}
				if err := s.confirm(); err != nil {
					return err
				}
				if _, err := s.message(); err != nil {
					return err
				}
				return status.Error(code, words)
			}}
			b := streamed(t, svc, nil)
			done := inBackground(t.Context(), b.bench, rows(3))
			after(29 * time.Second)
			if how == "refuse" {
				var no *zerobus.RefusedError
				if err := <-done; !errors.As(err, &no) {
					t.Errorf("Write: %v, want a refusal", err)
				}
				if got := b.State().Name; got != zerobus.Ready {
					t.Errorf("state is %q after a refusal, want ready", got)
				}
				return
			}
			want := zerobus.Blocked
			if how == "retry" {
				want = zerobus.Retrying
			}
			if state := b.State(); state.Name != want {
				t.Errorf("state is %+v, want %s", state, want)
			}
			if how == "block after a fresh token" && b.space.mints() != 2 {
				t.Errorf("%d tokens, want 2: one fresh try", b.space.mints())
			}
			fixed.Store(true)
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
			if got := len(svc.stored()); got != 3 {
				t.Errorf("%d rows stored, want 3", got)
			}
		})
	})
}

// once returns a handler that treats the first stream so, and later ones well.
func once(first func(s *served) error) func(int, *served) error {
	return func(n int, s *served) error {
		if n == 1 {
			return first(s)
		}
		return s.serve()
	}
}

func TestARefusalByTheEdgeThatLooksLikeSuccess(t *testing.T) {
	phrase := metadata.Pairs("x-databricks-reason-phrase", "Invalid token audience")
	for name, turnAway := range map[string]func(s *served) error{
		"header":  func(s *served) error { return s.SendHeader(phrase) },
		"trailer": func(s *served) error { s.SetTrailer(phrase); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all atomic.Bool
				svc := &service{handle: func(n int, s *served) error {
					if n == 1 || all.Load() {
						return turnAway(s)
					}
					return s.serve()
				}}
				b := streamed(t, svc, nil)
				write(t, b.bench, rows(1))
				if got := b.space.mints(); got != 2 || b.obs.count(b.obs.retries, zerobus.RetryUnauthorized) != 1 {
					t.Errorf("%d tokens and %d retries for a refused one, want 2 and 1", got, b.obs.count(b.obs.retries, zerobus.RetryUnauthorized))
				}
				all.Store(true)
				c := streamed(t, svc, nil)
				done := inBackground(t.Context(), c.bench, rows(1))
				synctest.Wait()
				if got := c.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Reason, "UNAUTHENTICATED") ||
					!strings.Contains(got.Reason, "Invalid token audience") || !strings.Contains(got.Remedy, "1234567890123456") {
					t.Errorf("state is %+v, want blocked with the phrase and the workspace id", got)
				}
				all.Store(false)
				if err := <-done; err != nil {
					t.Errorf("Write: %v", err)
				}
			})
		})
	}
}

func TestStreamsThatGoWrongAreReplaced(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  func(s *served) error
		label  string        // of the retry
		within time.Duration // before the batch is taken up again
		copies int           // of each row, in the end
	}{
		{"ended before it is confirmed", func(*served) error { return nil }, zerobus.RetryUnavailable, 5 * time.Second, 1},
		{"never confirmed", (*served).hang, zerobus.RetryTimeout, 20 * time.Second, 1},
		{"confirmed without a name", func(s *served) error { s.id = ""; return s.serve() }, zerobus.RetryMismatch, 5 * time.Second, 1},
		{"an ack in place of the confirmation", func(s *served) error {
			s.create = nil
			return errors.Join(s.say(proto.Int64(0)), s.hang())
		}, zerobus.RetryMismatch, 5 * time.Second, 1},
		{"ended with rows in flight", func(s *served) error {
			return errors.Join(s.confirm(), s.receive())
		}, zerobus.RetryUnavailable, 5 * time.Second, 1},
		{"ended when durable and before the ack", func(s *served) error {
			err := errors.Join(s.confirm(), s.receive())
			s.keep(0)
			return err
		}, zerobus.RetryUnavailable, 5 * time.Second, 2},
		{"silent", func(s *served) error { return errors.Join(s.confirm(), s.hang()) }, zerobus.RetryTimeout, 65 * time.Second, 1},
		{"an ack without an offset", func(s *served) error {
			return errors.Join(s.confirm(), s.receive(), s.say(nil), s.hang())
		}, zerobus.RetryMismatch, 5 * time.Second, 1},
		{"an ack for what was not sent", func(s *served) error {
			return errors.Join(s.confirm(), s.receive(), s.say(proto.Int64(7)), s.hang())
		}, zerobus.RetryMismatch, 5 * time.Second, 1},
		{"an ack for what comes after the only message", func(s *served) error {
			return errors.Join(s.confirm(), s.receive(), s.say(proto.Int64(1)), s.hang())
		}, zerobus.RetryMismatch, 5 * time.Second, 1},
		{"acks that go backwards and no other", func(s *served) error {
			return errors.Join(s.confirm(), s.receive(), s.say(proto.Int64(-1)), s.say(proto.Int64(-7)), s.hang())
		}, zerobus.RetryTimeout, 65 * time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := streamed(t, &service{handle: once(tt.first)}, nil)
				start := time.Now()
				write(t, b.bench, rows(2))
				if got := time.Since(start); got > tt.within {
					t.Errorf("the rows were taken after %v, want within %v", got, tt.within)
				}
				if got := b.obs.count(b.obs.retries, tt.label); got != 1 || len(b.obs.retries) != 1 {
					t.Errorf("retries are %v, want one for %s", b.obs.retries, tt.label)
				}
				if got := len(b.svc.stored()); got != 2*tt.copies {
					t.Errorf("%d rows stored, want %d", got, 2*tt.copies)
				}
			})
		})
	}
}

func TestAnAckBeforeAnyMessageResolvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{handle: once(func(s *served) error {
			return errors.Join(s.confirm(), s.say(proto.Int64(0)), s.hang())
		})}, nil)
		if err := b.Reachable(t.Context()); err != nil { // opens the stream
			t.Fatalf("Reachable: %v", err)
		}
		synctest.Wait()
		write(t, b.bench, rows(2))
		if got := len(b.svc.stored()); got != 2 || b.svc.opened() != 2 {
			t.Errorf("%d rows stored over %d streams, want 2 over 2", got, b.svc.opened())
		}
	})
}

func TestAnswersThatMeanNothingToUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: func(_ int, s *served) error {
			if err := s.confirm(); err != nil {
				return err
			}
			for range 3 {
				m, err := s.message()
				if err != nil {
					return err
				}
				// Of a later release; then the past, then this message twice.
				unknown := append([]byte(nil), 0x9a, 0x06, 0x01, 'x') // field 99
				s.keep(m.offset)
				if err := errors.Join(s.raw(unknown), s.raw(nil), s.say(proto.Int64(m.offset-1)), s.say(proto.Int64(m.offset)), s.say(proto.Int64(m.offset))); err != nil {
					return err
				}
			}
			return s.hang()
		}}
		b := streamed(t, svc, nil)
		for range 3 {
			write(t, b.bench, rows(2))
		}
		if got := svc.opened(); got != 1 {
			t.Errorf("%d streams, want 1", got)
		}
	})
}

func TestAcksThatSkipOffsetsCoverTheEarlierOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: func(_ int, s *served) error {
			if err := s.confirm(); err != nil {
				return err
			}
			for range 10 {
				if _, err := s.message(); err != nil {
					return err
				}
			}
			return errors.Join(s.ack(3), s.ack(9), s.hang())
		}}
		b := streamed(t, svc, nil)
		var all []<-chan error
		for range 10 {
			all = append(all, inBackground(t.Context(), b.bench, rows(2)))
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := len(svc.stored()); got != 20 || svc.opened() != 1 {
			t.Errorf("%d rows over %d streams, want 20 over 1", got, svc.opened())
		}
	})
}

func TestTheServicesWordsAndRemedies(t *testing.T) {
	mismatch, err := status.New(codes.InvalidArgument, "schema").WithDetails(&errdetails.ErrorInfo{Reason: "SCHEMA_VALIDATION_FAILED",
		Domain: "zerobus.databricks.com", Metadata: map[string]string{"causes": "FIELD_NOT_IN_TABLE", "error_code": "8001"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		err            error
		reason, remedy string
	}{
		{"default storage", status.Error(codes.InvalidArgument, "Unsupported table kind. Tables created in default storage are not supported. Error Code: 4024, Error State: 0."),
			"cannot write to a table of this kind", "managed Delta table outside default storage"},
		{"precondition", status.Error(codes.FailedPrecondition, "Default storage is not supported"), "FAILED_PRECONDITION", "outside default storage"},
		{"grants", status.Error(codes.PermissionDenied, "Authorization token is missing MODIFY privilege"), "may not write", "GRANT SELECT, MODIFY ON TABLE"},
		{"schema", mismatch.Err(), "SCHEMA_VALIDATION_FAILED \"schema (FIELD_NOT_IN_TABLE)\"", "bridge check"},
		{"descriptor", status.Error(codes.InvalidArgument, "Proto not self-contained for field 'ctx' with type name 'Ctx'. Error Code: 4033, Error State: 0."),
			"cannot use the protobuf descriptor", "upgrade the bridge, or set zerobus.record_format to json"},
		{"not offered everywhere", status.Error(codes.InvalidArgument, "Unsupported table kind. Error Code: 4024, Error State: 0."),
			"cannot write to a table of this kind", "not every one takes tables in default storage yet"},
		{"table", status.Error(codes.NotFound, "Table not found"), "knows no table datafly.events.stream", "bridge ddl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := streamed(t, &service{handle: func(int, *served) error { return tt.err }}, nil)
				err := b.Preflight(t.Context())
				if !zerobus.IsPermanent(err) {
					t.Errorf("Preflight: %v, want a permanent fault", err)
				}
				for _, want := range []string{tt.reason, tt.remedy} {
					if !strings.Contains(fmt.Sprint(err), want) {
						t.Errorf("Preflight: %v, want it to hold %q", err, want)
					}
				}
			})
		})
	}
}

func FuzzStreamStatus(f *testing.F) {
	f.Add(3, "Record decoder/encoder error: unrecognized field name 'ip' at line 1 column 285. Error Code: 4044, Error State: 3.", "", "google.rpc.ErrorInfo", []byte("\n\x06REASON"), true)
	f.Add(14, "Stream timeout reached. Error Code: 6002", "", "google.rpc.RetryInfo", []byte("\n\x02\b\x05"), true)
	f.Add(0, "", "Invalid token audience", "", []byte(nil), false)
	f.Add(99, "Error Code: 99999999999999999999", "\x00", "google.rpc.ErrorInfo", []byte{0xff}, false)
	c, err := zerobus.NewOver(grpcConfig(), nopLog, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	f.Fuzz(func(t *testing.T, code int, message, phrase, kind string, detail []byte, created bool) {
		st := status.FromProto(&spb.Status{Code: int32(code), Message: message,
			Details: []*anypb.Any{{TypeUrl: "type.googleapis.com/" + kind, Value: detail}}})
		reported, permanent := c.StreamFault(st, phrase, created, "hunter2")
		if lines := strings.Split(reported, "\n"); len(lines) != 2 || len(reported) > 8000 {
			t.Errorf("reported is %q, want two lines of some length", reported)
		}
		if strings.Contains(reported, "hunter2") {
			t.Errorf("reported is %q, want no secret", reported)
		}
		if !utf8.ValidString(reported) {
			t.Errorf("reported is %q, want UTF-8", reported)
		}
		blocks := []codes.Code{codes.NotFound, codes.FailedPrecondition, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated}
		if slices.Contains(blocks, codes.Code(uint32(code))) && !permanent {
			t.Errorf("code %d is no fault of configuration: %s", code, reported)
		}
	})
}
