package zerobus_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

func withCancel(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

func TestManyWritersMintOneToken(t *testing.T) {
	b := onSockets(t, newWorkspace(), nil)
	var all []<-chan error
	for range 100 {
		all = append(all, inBackground(t.Context(), b, rows(1)))
	}
	for _, done := range all {
		if err := <-done; err != nil {
			t.Errorf("Write: %v", err)
		}
	}
	if got := b.space.mints(); got != 1 {
		t.Errorf("%d tokens minted for 100 writers, want 1", got)
	}
}

func TestATokenIsRefreshedAheadOfItsExpiry(t *testing.T) {
	for _, tt := range []struct {
		lifetime, refresh time.Duration
	}{
		{time.Hour, 55 * time.Minute},
		{4 * time.Minute, 2 * time.Minute}, // no sooner than half its life
	} {
		t.Run(fmt.Sprint(tt.lifetime), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.space.lifetime = int(tt.lifetime / time.Second)
				start := time.Now()
				write(t, b, rows(1))
				if got := b.State(); !got.TokenMintedAt.Equal(start) || got.TokenExpiresAt.Sub(start) != tt.lifetime {
					t.Errorf("token from %v to %v, want %v for %v", got.TokenMintedAt, got.TokenExpiresAt, start, tt.lifetime)
				}
				after(tt.refresh - time.Second)
				write(t, b, rows(1))
				if got := b.space.mints(); got != 1 {
					t.Errorf("%d tokens just before the refresh is due, want 1", got)
				}
				after(time.Second)
				write(t, b, rows(1))
				if got := b.space.mints(); got != 2 {
					t.Errorf("%d tokens when the refresh is due, want 2", got)
				}
			})
		})
	}
}

func TestTheOldTokenServesWhileARefreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		write(t, b, rows(1))
		tries := 0
		b.space.set(func() {
			b.space.onToken = func(w http.ResponseWriter, _ *http.Request) bool {
				tries++
				return fail(w, 503, "TEMPORARILY_UNAVAILABLE", "later")
			}
		})
		after(56 * time.Minute)
		for range 30 {
			write(t, b, rows(1))
			after(time.Second)
		}
		if tries != 3 {
			t.Errorf("%d refreshes tried in 30 s, want 3", tries)
		}
		if got := strings.Count(text(t, b.logs), "refreshing the token failed"); got != 1 {
			t.Errorf("%d lines about the failing refresh, want 1", got)
		}
		if got := b.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q while the old token serves, want ready", got)
		}
		// Once it has expired, writing retries until the endpoint is back.
		after(5 * time.Minute)
		done := inBackground(t.Context(), b, rows(1))
		synctest.Wait()
		if got := b.State().Name; got != zerobus.Retrying {
			t.Errorf("state is %q without a token, want retrying", got)
		}
		b.space.set(func() { b.space.onToken = nil })
		if err := <-done; err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestAHangingRefreshHoldsUpOneWriterOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		write(t, b, rows(1))
		b.space.set(func() {
			b.space.onToken = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		})
		after(56 * time.Minute)
		start := time.Now()
		held := inBackground(t.Context(), b, rows(1))
		synctest.Wait()
		write(t, b, rows(1))
		if got := time.Since(start); got != 0 {
			t.Errorf("a second writer waited %v for the refresh, want 0", got)
		}
		if err := <-held; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("the refreshing writer waited %v, want 10s", got)
		}
	})
}

func TestAWaiterIsNotEndedByTheMintersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		first := true
		b.space.onToken = func(_ http.ResponseWriter, r *http.Request) bool {
			if !first {
				return false
			}
			first = false
			<-r.Context().Done()
			return true
		}
		ctx, cancel := withCancel(t)
		minter := inBackground(ctx, b, rows(1))
		synctest.Wait()
		waiter := inBackground(t.Context(), b, rows(1))
		impatient, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := b.Token(impatient); err == nil {
			t.Errorf("Token under a context of one second: nil, want its end")
		}
		cancel()
		if err := <-minter; err == nil {
			t.Errorf("Write of the cancelled minter: nil, want an error")
		}
		start := time.Now()
		if err := <-waiter; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("the waiter resumed after %v, want at once", got)
		}
	})
}

func TestTokenAnswers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		status    int
		body      string
		want      string // in the error; "" means that it works
		permanent bool
	}{
		{"numeric string", 200, `{"access_token":"good","expires_in":"3600"}`, "", false},
		{"a float", 200, `{"access_token":"good","expires_in":3599.0}`, "", false},
		{"a float in quotes", 200, `{"access_token":"good","expires_in":"3.599e3"}`, "", false},
		{"a line break", 200, `{"access_token":"good\r\n","expires_in":3600}`, "", false},
		{"no expires_in", 200, `{"access_token":"good"}`, "", false},
		{"embedded privileges, long", 200, `{"access_token":"good","x":"` + strings.Repeat("y", 900_000) + `"}`, "", false},
		{"over 1 MiB", 200, `{"access_token":"good","x":"` + strings.Repeat("y", 1<<20) + `"}`, "no token", false},
		{"header injection", 200, `{"access_token":"good\r\nX: y","expires_in":60}`, "characters no header may carry", false},
		{"not ASCII", 200, `{"access_token":"g\u00f6\u00f6d","expires_in":60}`, "characters no header may carry", false},
		{"no token", 200, `{"expires_in":60}`, "no token", false},
		{"html", 200, `<html>`, "no token", false},
		{"an OAuth error as 200", 200, `{"error":"invalid_client"}`, "invalid_client", true},
		{"wrong secret", 401, `{"error":"invalid_client","error_description":"no"}`, "generate a new OAuth secret for service principal " + principal, true},
		{"bad request", 400, `{"error":"invalid_request"}`, "generate a new OAuth secret", true},
		{"scope", 400, `{"error":"invalid_scope"}`, "set zerobus.scope to all-apis", true},
		{"audience", 400, `{"error":"invalid_target"}`, "set zerobus.workspace_id", true},
		{"grants", 401, `{"error":"invalid_authorization_details","error_description":"User is not authorized"}`, "GRANT USE SCHEMA ON SCHEMA `datafly`.`events`", true},
		{"outside the network", 403, `blocked`, "IP access lists", true},
		{"nothing there", 404, ``, "zerobus.token_url", true},
		{"elsewhere", 302, ``, "redirects", true},
		{"throttled", 429, `{}`, "HTTP 429", false},
		{"busy", 503, `{"error_code":"TEMPORARILY_UNAVAILABLE"}`, "HTTP 503 TEMPORARILY_UNAVAILABLE", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.space.tokens["good"] = true
				b.space.onToken = func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Location", "https://login.example/")
					w.WriteHeader(tt.status)
					io.WriteString(w, tt.body)
					return true
				}
				err := b.Reachable(t.Context())
				if tt.want == "" {
					if err != nil {
						t.Errorf("Reachable: %v, want nil", err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("Reachable: %v, want it to hold %q", err, tt.want)
				}
				if got := zerobus.IsPermanent(err); got != tt.permanent {
					t.Errorf("IsPermanent is %v, want %v: %v", got, tt.permanent, err)
				}
			})
		})
	}
}

func TestATokenWithoutExpiryIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.space.lifetime = 0
		for range 3 {
			write(t, b, rows(1))
		}
		if got := b.space.mints(); got != 3 {
			t.Errorf("%d tokens for 3 writes, want 3", got)
		}
	})
}
