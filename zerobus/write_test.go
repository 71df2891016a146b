package zerobus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/zerobus"
)

func TestWriteSendsTheRowsAsTheyAre(t *testing.T) {
	for _, zip := range []bool{false, true} {
		t.Run(fmt.Sprintf("gzip %v", zip), func(t *testing.T) {
			b := onSockets(t, newWorkspace(), func(c *zerobus.Config) { c.Gzip = zip; c.UserAgent = "bridge/1.2" })
			batch := rows(2500) // several reads of the body
			write(t, b, batch)
			want := make([]string, len(batch))
			for i := range batch {
				want[i] = string(batch[i])
			}
			if got := b.space.stored(); !slices.Equal(got, want) {
				t.Errorf("stored %d rows that differ from the %d written", len(got), len(want))
			}
			got := b.space.arrivals()[0]
			if wantBody := `{"table":"datafly.events.stream","records":[` + strings.Join(want, ",") + "]}"; got.received != wantBody {
				t.Errorf("body is %.80q…, want %.80q…", got.received, wantBody)
			}
			for key, want := range map[string]string{"Content-Type": "application/json; charset=utf-8", "User-Agent": "bridge/1.2"} {
				if got := got.header.Get(key); got != want {
					t.Errorf("header %s is %q, want %q", key, got, want)
				}
			}
			if zipped := got.header.Get("Content-Encoding") == "gzip"; zipped != zip {
				t.Errorf("gzip is %v, want %v", zipped, zip)
			}
			if len(got.id) != 36 {
				t.Errorf("X-Request-Id is %q, want a UUID", got.id)
			}
			if err := b.WriteLatest(t.Context(), nil); err != nil || len(b.space.arrivals()) != 1 {
				t.Errorf("writing no rows: %v and %d requests, want nil and no further request", err, len(b.space.arrivals()))
			}
		})
	}
}

// answers is a hook that gives the listed answers in turn, then lets through.
func answers(statuses ...int) func(http.ResponseWriter, *http.Request, []json.RawMessage) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
		if len(statuses) == 0 {
			return false
		}
		status := statuses[0]
		statuses = statuses[1:]
		return fail(w, status, "SOME_CODE", "not now")
	}
}

func gaps(b bench) (out []time.Duration) {
	got := b.space.arrivals()
	for i := 1; i < len(got); i++ {
		out = append(out, got[i].at.Sub(got[i-1].at))
	}
	return out
}

func TestTransientAnswersAreRetriedWithGrowingDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.space.onIngest = answers(500, 502, 503, 504, 408, 425, 429, 599)
		write(t, b, rows(3))
		want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second,
			16 * time.Second, 30 * time.Second, 30 * time.Second}
		if got := gaps(b); !slices.Equal(got, want) {
			t.Errorf("delays are %v, want %v", got, want)
		}
		ids := map[string]bool{}
		for _, r := range b.space.arrivals() {
			ids[r.id] = true
		}
		if len(ids) != 1 {
			t.Errorf("%d request ids over the retries of one batch, want 1", len(ids))
		}
		if got := b.obs.count(b.obs.retries, zerobus.RetryThrottled); got != 1 {
			t.Errorf("%d retries for throttling, want 1", got)
		}
		if got := b.obs.count(b.obs.retries, zerobus.RetryUnavailable); got != 7 {
			t.Errorf("%d retries for unavailability, want 7", got)
		}
		if got := b.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q after an ack, want ready", got)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header func() string
		want   time.Duration
	}{
		{"seconds", func() string { return "7" }, 7*time.Second + 500*time.Millisecond},
		{"date", func() string { return time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat) }, 90*time.Second + 500*time.Millisecond},
		{"past date", func() string { return time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat) }, 500 * time.Millisecond},
		{"a day is capped", func() string { return "86400" }, 10*time.Minute + 500*time.Millisecond},
		{"nonsense", func() string { return "soon" }, 500 * time.Millisecond},
		{"negative", func() string { return "-5" }, 500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				refuse := answers(429)
				b.space.onIngest = func(w http.ResponseWriter, r *http.Request, rows []json.RawMessage) bool {
					w.Header().Set("Retry-After", tt.header())
					return refuse(w, r, rows)
				}
				write(t, b, rows(1))
				if got := gaps(b); !slices.Equal(got, []time.Duration{tt.want}) {
					t.Errorf("delays are %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestAHangingServiceIsGivenUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.Timeout = 7 * time.Second })
		first := true
		b.space.onIngest = func(_ http.ResponseWriter, r *http.Request, _ []json.RawMessage) bool {
			if first {
				first = false
				<-r.Context().Done()
			}
			return false
		}
		write(t, b, rows(1))
		if got, want := gaps(b), 7500*time.Millisecond; !slices.Equal(got, []time.Duration{want}) {
			t.Errorf("delays are %v, want %v", got, want)
		}
		if got := b.obs.count(b.obs.retries, zerobus.RetryTimeout); got != 1 {
			t.Errorf("%d retries for a timeout, want 1", got)
		}
		if reported := text(t, b.logs); !strings.Contains(reported, "reaches abc-12345.cloud.databricks.com:443:") {
			t.Errorf("the log does not contain what to check: %s", reported)
		}
	})
}

func TestRefusedRows(t *testing.T) {
	for _, tt := range []struct {
		name         string
		status       int
		body         string
		code, column string
	}{
		{"schema", 400, `{"error_code":"INVALID_PARAMETER_VALUE","message":"row 3: column 'n' takes an integer"}`, "schema_mismatch", "n"},
		{"no column", 400, `{"error_code":"INVALID_PARAMETER_VALUE","message":"row 3: no"}`, "refused", ""},
		{"alias", 400, `{"error_code":"SCHEMA_MISMATCH","message":"no"}`, "schema_mismatch", ""},
		{"details", 400, `{"error_code":"SCHEMA_MISMATCH","message":"no","details":[{"metadata":{"column":"message_id"}}]}`, "schema_mismatch", "message_id"},
		{"a column nobody sends is no label", 400, `{"error_code":"SCHEMA_MISMATCH","message":"column \"attack\" bad"}`, "schema_mismatch", ""},
		{"other", 422, `{"error_code":9,"message":"no"}`, "refused", ""},
		{"large", 413, `{"error_code":"REQUEST_TOO_LARGE"}`, "too_large", ""},
		{"large, by a gateway", 413, `too big`, "too_large", ""},
		{"too many rows", 400, `{"error_code":"INVALID_PARAMETER_VALUE","message":"Batch size exceeds maximum"}`, "too_large", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.SetRowColumns(rowColumns)
				b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
					w.WriteHeader(tt.status)
					io.WriteString(w, tt.body)
					return true
				}
				err := b.WriteLatest(t.Context(), rows(2))
				var no interface{ Refused() (string, string) }
				if !errors.As(err, &no) {
					t.Fatalf("Write: %v, want a refusal", err)
				}
				if code, column := no.Refused(); code != tt.code || column != tt.column {
					t.Errorf("Refused() = %q, %q, want %q, %q", code, column, tt.code, tt.column)
				}
				if got := len(b.space.arrivals()); got != 1 {
					t.Errorf("%d requests for refused rows, want 1", got)
				}
				if got := b.State().Name; got != zerobus.Ready {
					t.Errorf("state is %q after a refusal, want ready", got)
				}
			})
		})
	}
}

func TestTooLargeABatchIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The bound is on the whole body: prefix, rows, the commas between and the end.
		const fit = 50
		size := len(`{"table":"datafly.events.stream","records":[]}`) + len(bytes.Join(rows(fit), []byte(",")))
		b := virtual(t, func(c *zerobus.Config) { c.MaxRequestBytes = setting.Size(size) })
		write(t, b, rows(fit))
		err := b.WriteLatest(t.Context(), rows(fit+1))
		var no *zerobus.RefusedError
		if !errors.As(err, &no) {
			t.Fatalf("Write of one row more: %v, want a refusal", err)
		}
		if code, _ := no.Refused(); code != zerobus.RefusedTooLarge {
			t.Errorf("code is %q, want too_large", code)
		}
		if got := len(b.space.arrivals()); got != 1 {
			t.Errorf("%d requests, want 1: the larger one stays here", got)
		}
	})
}

func TestAnEndedContextEndsWrite(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request, _ []json.RawMessage) bool {
		<-r.Context().Done()
		return true
	}
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request, []json.RawMessage) bool{
		"in flight": hang, "between retries": answers(slices.Repeat([]int{503}, 50)...), "blocked": answers(slices.Repeat([]int{403}, 50)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.space.onIngest = hook
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				err := b.WriteLatest(ctx, rows(1))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Write: %v, want the context's end", err)
				}
				var no *zerobus.RefusedError
				if errors.As(err, &no) {
					t.Errorf("Write: %v is a refusal, want none", err)
				}
				if got := time.Since(start); got != 10*time.Second {
					t.Errorf("Write took %v, want to end with its context at 10s", got)
				}
			})
		})
	}
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.RateLimit = 100 })
		start := time.Now()
		write(t, b, rows(100)) // the burst
		if got := time.Since(start); got != 0 {
			t.Errorf("the first second's rows took %v, want 0", got)
		}
		write(t, b, rows(250)) // larger than the burst
		if got, want := time.Since(start).Round(time.Millisecond), 2500*time.Millisecond; got != want {
			t.Errorf("350 rows at 100/s took %v, want %v", got, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.WriteLatest(ctx, rows(1000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write: %v, want the context's end", err)
		}
		if got := time.Since(start).Round(time.Millisecond); got != 3500*time.Millisecond {
			t.Errorf("Write ended at %v, want at 3.5s with its context, not before", got)
		}
	})
}

func TestRetriesAreLoggedOnceAndThenRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		down := time.Now().Add(2 * time.Minute)
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
			return time.Now().Before(down) && fail(w, 503, "TEMPORARILY_UNAVAILABLE", "row {\"email\":\"a@b.example\"} not taken")
		}
		var all []<-chan error
		for range 20 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
		}
		after(time.Minute)
		state := b.State()
		if state.Name != zerobus.Retrying || !strings.Contains(state.Reason, "503") || state.Remedy == "" || state.Since.IsZero() {
			t.Errorf("state is %+v, want retrying with reason, remedy and since", state)
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		reported := text(t, b.logs)
		if got := strings.Count(reported, "being retried"); got < 2 || got > 6 {
			t.Errorf("%d lines about retrying in 2 minutes, want one per 30 s:\n%s", got, reported)
		}
		if got := strings.Count(reported, "healthy again"); got != 1 {
			t.Errorf("%d lines about health, want 1:\n%s", got, reported)
		}
		if strings.Contains(reported, "a@b.example") {
			t.Errorf("the log quotes a row:\n%s", reported)
		}
	})
}
