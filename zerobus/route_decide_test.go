package zerobus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// TestStaleRowsAfterTheEnd has a caller that has to stop: it gets the end of its context and
// not stale rows, which it would encode and write again for ever.
func TestStaleRowsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b, e := placedAndEncoded(t)
		p.set(func() { p.hooks[pagePath] = gone })
		text, version := e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); !isStale(err) {
			t.Fatalf("Write: %v, want a *StaleError", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Write(ctx, version, [][]byte{text}); isStale(err) || !errors.Is(err, context.Canceled) {
			t.Errorf("Write after the end: %v, want that the context has ended", err)
		}
	})
}

func isStale(err error) bool {
	_, ok := errors.AsType[*zerobus.StaleError](err)
	return ok
}

// TestStaleRowsAreNotTooLarge has a row that fits a request of the old transport, and not one
// of the new: encoded again it may be smaller, so it is stale and not refused.
func TestStaleRowsAreNotTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b, e := placedAndEncoded(t)
		p.set(func() { p.hooks[pagePath] = gone })
		text, version := e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); !isStale(err) {
			t.Fatalf("Write: %v, want a *StaleError", err)
		}
		large := bytes.Repeat([]byte("x"), 10<<20-32<<10)
		if _, err := b.Write(t.Context(), version, [][]byte{large}); !isStale(err) {
			t.Errorf("Write of a large row: %v, want a *StaleError", err)
		}
	})
}

// TestWhatDoesNotDecide has faults that say nothing about gRPC, or only about a moment. The
// process would keep the wrong transport.
func TestWhatDoesNotDecide(t *testing.T) {
	set := func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" }
	for _, tc := range []struct {
		name   string
		change func(*zerobus.Config)
		limit  time.Duration
		handle func(n int, s *served) error
		token  func(n int, ctx context.Context) int // status of the nth token request for the endpoint; 0: it is answered
		want   string                               // transport; empty: an error
	}{
		{name: "no tokens for two seconds", token: func(n int, _ context.Context) int { return map[bool]int{true: 503}[n <= 2] }},
		{name: "a slow token", limit: 10 * time.Second, token: func(n int, ctx context.Context) int {
			if n == 1 {
				<-ctx.Done()
			}
			return 0
		}},
		{name: "gRPC fails for two seconds", handle: func(n int, s *served) error {
			if n <= 2 {
				return status.Error(codes.Unavailable, "a moment")
			}
			return s.serve()
		}, want: "grpc"},
		{name: "no secret", change: func(c *zerobus.Config) {
			set(c)
			c.ReadCredential = func() (string, error) { return "", errors.New("no such file") }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, newClient := placed(t, &service{handle: tc.handle}, tc.change)
				p.hooks[pagePath] = gone
				n := 0
				p.space.onToken = func(w http.ResponseWriter, r *http.Request) bool {
					if r.FormValue("resource") == "" || tc.token == nil {
						return false
					}
					n++
					status := tc.token(n, r.Context())
					return status != 0 && fail(w, status, "", "")
				}
				b := newClient()
				limit := tc.limit
				if limit == 0 {
					limit = 45 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				err := b.Decide(ctx)
				got := b.State().Transport
				if tc.want == "" && (err == nil || got != "auto") || tc.want != "" && (err != nil || got != tc.want) {
					t.Errorf("Decide: %v, %s because %q; want %q", err, got, b.State().TransportReason, tc.want)
				}
			})
		})
	}
}

// TestAGatewayForbidsGRPC has something before the service refuse gRPC over HTTP/2 in its own
// form. That is no answer of the service, and REST passes.
func TestAGatewayForbidsGRPC(t *testing.T) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	for _, code := range []int{401, 403, 404, 415, 503} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		gateway := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>no</html>", code)
		})}
		served := make(chan error, 1)
		go func() { served <- gateway.Serve(listener) }()
		t.Cleanup(func() {
			gateway.Close()
			<-served
		})
		p := &place{space: newWorkspace(), hooks: map[string]http.HandlerFunc{}}
		cfg := config("http://127.0.0.1:8080")
		cfg.Transport, cfg.Endpoint, cfg.WorkspaceID = "", "http://"+listener.Addr().String(), "7"
		c, err := zerobus.NewOver(cfg, zap.NewNop(), nil, inMemory{p})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if err := c.Decide(t.Context()); err != nil || c.State().Transport != "rest" {
			t.Errorf("%d: Decide: %v, %s; want rest", code, err, c.State().Transport)
		}
	}
}

// TestBlockedBeforeATokenIsAsked probes at its pace also where no secret was presented yet.
func TestBlockedBeforeATokenIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{handle: func(int, *served) error { return status.Error(codes.Unimplemented, "no") }},
			func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" })
		p.hooks[restPath] = failsWith(501, "NOT_IMPLEMENTED", "no")
		b := newClient()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := b.WriteLatest(ctx, rows(1)); err == nil || p.asked(restPath) > 12 {
			t.Errorf("Write: %v after %d attempts in 5 minutes, want one in 30 s", err, p.asked(restPath))
		}
		if s := b.State(); s.Name != zerobus.Blocked || !strings.Contains(s.Reason, "UNIMPLEMENTED") {
			t.Errorf("state %+v, want it blocked", s)
		}
	})
}

// TestColumnsThatDoNotFitAndAnotherRoute has the table's columns change to some that rows
// cannot be encoded for, and then the transport change: rows of the old columns continue.
func TestColumnsThatDoNotFitAndAnotherRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b, e := placedAndEncoded(t)
		other := append(tableColumns[:2:2], zerobus.Column{Name: "z", Type: "STRING", NotNull: true, Position: 2})
		var got [][]zerobus.Column
		changed := make(chan bool, 10)
		watching, stop := context.WithCancel(t.Context())
		defer stop()
		go b.Watch(watching, func(cols []zerobus.Column, _ error) {
			if got = append(got, cols); len(cols) == 2 {
				e.encode(t)
			} else if _, err := b.Encoding(cols); err != nil { // and the blueprint does not fit them
				t.Error(err)
			}
			changed <- true
		})
		p.space.set(func() {
			p.space.columns = `{"columns":[{"name":"message_id","position":0,"type_text":"string"},{"name":"n","position":1,"type_text":"bigint"},{"name":"z","position":2,"type_text":"string","nullable":false}]}`
		})
		if cols, err := b.Columns(t.Context()); err != nil || len(cols) != len(other) {
			t.Fatal(cols, err)
		}
		<-changed
		p.set(func() { p.hooks[pagePath] = gone })
		for try := 1; ; try++ {
			text, version := e.row(1)
			_, err := b.Write(t.Context(), version, [][]byte{text})
			if err == nil {
				break
			}
			if try == 10 {
				t.Fatalf("Write: %v after %d tries", err, try)
			}
		}
		synctest.Wait()
		if len(got) != 3 || len(got[0]) != 3 || len(got[1]) != 2 || len(got[2]) != 3 {
			t.Errorf("onChange got %v, want the new columns, those in use for the new transport, and the new ones again", got)
		}
	})
}

// TestRowsThatCannotBeEncodedBlock shows a transport for which nobody encodes rows.
func TestRowsThatCannotBeEncodedBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b, e := placedAndEncoded(t)
		watching, stop := context.WithCancel(t.Context())
		defer stop()
		go b.Watch(watching, func([]zerobus.Column, error) {})
		p.set(func() { p.hooks[pagePath] = gone })
		text, version := e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); !isStale(err) {
			t.Fatalf("Write: %v, want a *StaleError", err)
		}
		if s := b.State(); s.Name != zerobus.Blocked || !strings.Contains(s.Reason, "transport grpc") {
			t.Errorf("state %+v, want it blocked for the encoding", s)
		}
		e.encode(t)
		text, version = e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); err != nil || b.State().Name != zerobus.Ready {
			t.Errorf("Write of new rows: %v, state %+v", err, b.State())
		}
	})
}

// TestTheRescueColumnIsKnownWithTheRoute has rows encoded at once for the new transport, by a
// reload: they are JSON where the table has a rescue column.
func TestTheRescueColumnIsKnownWithTheRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		p.space.columns = `{"columns":[{"name":"message_id","position":0,"type_text":"string"},{"name":"r","position":1,"type_text":"variant"}]}`
		p.hooks["/api/2.1/unity-catalog/entity-tag-assignments/columns/datafly.events.stream.r/tags"] = func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"tag_assignments":[{"tag_key":"zerobus-rescue"}]}`))
		}
		b := newClient()
		if err := b.Decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		cols, err := b.Columns(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Encoding(cols); err != nil {
			t.Fatal(err)
		}
		version := b.SetRowColumns(cols)
		p.set(func() { p.hooks[pagePath] = gone })
		if _, err := b.Write(t.Context(), version, rows(1)); !isStale(err) {
			t.Fatalf("Write: %v, want a *StaleError", err)
		}
		if how, err := b.Encoding(cols); err != nil || how.Format != zerobus.FormatJSON {
			t.Errorf("Encoding: %+v, %v, want json", how, err)
		}
	})
}

// TestAStaleErrorIsNoRefusal has rows refused that were encoded for columns dropped since. A
// caller that looks for refusals first must not find one in the error.
func TestAStaleErrorIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		old := b.SetRowColumns(tableColumns)
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
			return fail(w, 400, "INVALID_PARAMETER_VALUE", "no such column")
		}
		b.space.columns = `{"columns":[{"name":"message_id","position":0,"type_text":"string"}]}`
		done := make(chan error, 1)
		go func() {
			_, err := b.Write(t.Context(), old, rows(1))
			done <- err
		}()
		<-time.After(5 * time.Second)
		b.SetRowColumns(tableColumns[:1])
		err := <-done
		if refused, ok := errors.AsType[*zerobus.RefusedError](err); !isStale(err) || ok {
			t.Errorf("Write: %v, refused %v; want only a *StaleError", err, refused)
		}
	})
}
