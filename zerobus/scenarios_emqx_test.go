package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// emqxScenarios are what the suite of EMQX's connector adds.
// https://github.com/emqx/emqx
func emqxScenarios(t *testing.T) {
	for _, transport := range []string{zerobus.TransportGRPC, zerobus.TransportREST} {
		for _, tt := range []struct{ name, row, words, column string }{
			{"unknown_column", `{"message_id":"bad","n":1,"ip":"::1"}`, "unrecognized field name 'ip'", "ip"},
			{"text_for_a_number", `{"message_id":"bad","n":"2026-01-01T00:00:00Z"}`, "invalid digit found in string", ""},
		} {
			scenario(t, "bad_json_data/"+transport+"/"+tt.name, func(t *testing.T) {
				s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.Transport = transport })
				err := s.WriteLatest(t.Context(), [][]byte{[]byte(tt.row)})
				var no *zerobus.RefusedError
				if !errors.As(err, &no) || !strings.Contains(err.Error(), tt.words) || !strings.Contains(err.Error(), "4044") {
					t.Fatalf("Write: %v, want a refusal with %q and 4044", err, tt.words)
				}
				if code, column := no.Refused(); code != zerobus.RefusedSchemaMismatch || tt.column != "" && column != tt.column {
					t.Errorf("Refused() = %q, %q, want schema_mismatch and %q", code, column, tt.column)
				}
				write(t, s.bench, rows(1))
				s.stored(t, string(row(0)))
				s.quiet(t)
			})
		}
	}
	for _, tt := range []struct {
		name     string
		fault    emulator.Fault
		state    string
		reported string
	}{
		{"wrong_secret", emulator.Fault{Effect: emulator.EffectStatus, Status: 401}, zerobus.Blocked, "generate a new OAuth secret"},
		{"missing_grants", emulator.Fault{Effect: emulator.EffectStatus, Status: 401, ErrorCode: "invalid_authorization_details"}, zerobus.Blocked, "GRANT SELECT, MODIFY ON TABLE"},
		{"away", emulator.Fault{Effect: emulator.EffectStatus, Status: 503}, zerobus.Retrying, "HTTP 503"},
		{"throttled", emulator.Fault{Effect: emulator.EffectStatus, Status: 429, RetryAfter: 1}, zerobus.Retrying, "HTTP 429"},
		{"no_token", emulator.Fault{Effect: emulator.EffectStatus, Status: 200, Body: new("<html>")}, zerobus.Retrying, "no token"},
		{"cut", emulator.Fault{Effect: emulator.EffectCut}, zerobus.Retrying, "the connection failed"},
		{"hangs", emulator.Fault{Effect: emulator.EffectHang}, zerobus.Retrying, "no answer came in time"},
	} {
		scenario(t, "token_endpoint_failures/"+tt.name, func(t *testing.T) {
			s := staged(t, emulator.Config{}, nil)
			tt.fault.Endpoint = emulator.EndpointToken
			f := s.fault(t, tt.fault)
			done := s.begin(t.Context(), rows(1))
			after(35 * time.Second)
			pending(t, done)
			if got := s.State(); got.Name != tt.state || !strings.Contains(got.Reason+got.Remedy, tt.reported) {
				t.Errorf("state is %+v, want %s with %q", got, tt.state, tt.reported)
			}
			s.em.RemoveFault(f.ID)
			succeed(t, done)
			s.stored(t, string(row(0)))
		})
	}
	// The service goes away with messages in flight, and comes back as another
	// that knows none of the old tokens.
	scenario(t, "server_shutdown_mid_batch", func(t *testing.T) {
		first, dialFirst := emulated(t, emulator.Config{Latency: emulator.Latency{P50: time.Second}})
		second, dialSecond := emulated(t, emulator.Config{})
		var moved atomic.Bool
		space := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			map[bool]*emulator.Emulator{false: first, true: second}[moved.Load()].Handler().ServeHTTP(w, r)
		})
		s := client(t, first, inMemory{space}, func(ctx context.Context) (net.Conn, error) {
			if moved.Load() {
				return dialSecond(ctx)
			}
			return dialFirst(ctx)
		}, nil)
		var all []<-chan error
		for i := range 20 {
			all = append(all, inBackground(t.Context(), s.bench, [][]byte{row(2 * i), row(2*i + 1)}))
		}
		after(500 * time.Millisecond)
		pending(t, all...)
		shut(t, first)
		after(time.Minute)
		moved.Store(true)
		succeed(t, all...)
		have := map[string]bool{}
		for _, em := range []*emulator.Emulator{first, second} {
			for _, r := range em.Table(target).Rows(nil) {
				have[string(r.JSON)] = true
			}
		}
		if len(have) != 40 {
			t.Errorf("%d rows are in one of the two tables, want 40", len(have))
		}
		write(t, s.bench, rows(1))
		if got := s.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q in the end, want ready", got)
		}
	})
	scenario(t, "write_while_stream_is_reopening", func(t *testing.T) {
		s, script := scripted(t, create("a"), fails(codes.Unavailable), emulator.CreateStream{StreamID: "b", Delay: 3 * time.Second}, ack(9))
		all := []<-chan error{s.begin(t.Context(), rows(1))}
		after(time.Second)
		for i := range 9 {
			all = append(all, s.begin(t.Context(), [][]byte{row(i)}))
		}
		pending(t, all...)
		succeed(t, all...)
		asked(t, script, 2, 11)
		if got := s.obs.count(s.obs.retries, zerobus.RetryUnavailable); got != 1 {
			t.Errorf("%d retries, want 1: the others only waited", got)
		}
	})
	scenario(t, "unknown_server_messages_ignored", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectUnknown})
		for i := range 3 {
			write(t, s.bench, [][]byte{row(i)})
		}
		s.stored(t, asText(rows(3))...)
		s.opened(t, "JSON")
		s.quiet(t)
	})
	for name, table := range map[string]string{"ascii": "data?fly.ev%41nts.st#ream&1", "other_letters": "datafly.événements.strøm"} {
		scenario(t, "rest_table_name_escaping/"+name, func(t *testing.T) {
			s := staged(t, emulator.Config{DDL: "CREATE TABLE `" + strings.ReplaceAll(table, ".", "`.`") + "` (message_id STRING, n BIGINT) USING DELTA;"},
				func(c *zerobus.Config) {
					c.Catalog, c.Schema, c.Table = "", "", table
					c.Transport = zerobus.TransportREST
				})
			write(t, s.bench, rows(2))
			if got := s.em.Table(table).Count(); got != 2 {
				t.Errorf("%d rows stored, want 2", got)
			}
			s.quiet(t)
		})
	}
	// A deleted sink ends its context and closes its client.
	scenario(t, "cancel_on_delete", func(t *testing.T) {
		s, _ := scripted(t, create("a"), silence)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the sink was deleted")
		var all []<-chan error
		for i := range 10 {
			all = append(all, s.begin(ctx, [][]byte{fmt.Appendf(nil, `{"message_id":"%d","n":1}`, i)}))
		}
		start := time.Now()
		cancel(gone)
		for _, done := range all {
			isOver(t, <-done, gone)
		}
		took(t, start, 0)
		s.Close()
		if got := s.State().Streams; len(got) != 0 || time.Since(start) > 500*time.Millisecond {
			t.Errorf("streams %q are left after %v, want none within 500ms", got, time.Since(start))
		}
	})
}
