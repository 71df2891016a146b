package zerobus_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// minted fails unless the emulator has handed out so many tokens.
func (s stage) minted(t *testing.T, want int64) {
	t.Helper()
	if got := s.em.Stats().Tokens; got != want {
		t.Errorf("%d tokens minted, want %d", got, want)
	}
}

// retried fails unless this is how often attempts were repeated for a token.
func (s stage) retried(t *testing.T, want int) {
	t.Helper()
	if got := s.obs.count(s.obs.retries, zerobus.RetryUnauthorized); got != want || len(s.obs.retries) > 1 {
		t.Errorf("retries are %v, want %d for tokens and no others", s.obs.retries, want)
	}
}

// endStream has the present stream announce its end with the next message.
func (s stage) endStream(t *testing.T) {
	t.Helper()
	s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectCloseSignal, Window: new(emulator.Duration(0)), Count: 1})
	write(t, s.bench, rows(1))
	synctest.Wait()
}

// authScenarios are about tokens. The emulator takes only those it minted for
// the endpoint and the table, and only until they expire or are revoked.
func authScenarios(t *testing.T) {
	refuseCreate := func(code string, count int) emulator.Fault {
		return emulator.Fault{Endpoint: emulator.EndpointCreate, Effect: emulator.EffectStatus, GRPCCode: code, Count: count}
	}
	scenario(t, "one_shot_retry_at_first_open", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.fault(t, refuseCreate("UNAUTHENTICATED", 1))
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, 0)
		s.minted(t, 2)
		s.retried(t, 1)
	})
	scenario(t, "one_shot_retry_at_first_open/then_blocked", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.fault(t, refuseCreate("UNAUTHENTICATED", 2))
		start := time.Now()
		done := s.begin(t.Context(), rows(1))
		if got := s.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Reason, "UNAUTHENTICATED") || got.Remedy == "" {
			t.Errorf("state is %+v, want blocked with a remedy", got)
		}
		s.minted(t, 2)
		succeed(t, done)
		took(t, start, zerobus.DefaultProbeEvery)
	})
	scenario(t, "invalidate_on_unauthenticated", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.endStream(t)
		s.em.RevokeTokens()
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, 0)
		s.minted(t, 2)
		s.retried(t, 1)
	})
	scenario(t, "invalidate_on_permission_denied", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.endStream(t)
		s.fault(t, refuseCreate("PERMISSION_DENIED", 1))
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, 0)
		s.minted(t, 2)
		s.retried(t, 1)
	})
	for _, code := range []string{"UNAUTHENTICATED", "PERMISSION_DENIED"} {
		scenario(t, "invalidate_in_mid_stream/"+code, func(t *testing.T) {
			s := staged(t, emulator.Config{}, nil)
			write(t, s.bench, rows(1))
			s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: code, Count: 1})
			start := time.Now()
			write(t, s.bench, rows(1))
			took(t, start, 0)
			s.minted(t, 2)
			s.retried(t, 1)
		})
	}
	// Tokens live for an hour and are renewed by whoever opens a stream in the
	// last five minutes of it.
	scenario(t, "refresh_in_buffer", func(t *testing.T) {
		s := staged(t, emulator.Config{StreamMaxAge: 30 * time.Second}, nil)
		start := time.Now()
		for _, step := range []struct {
			at     time.Duration
			tokens int64
		}{{0, 1}, {30 * time.Minute, 1}, {54 * time.Minute, 1}, {55 * time.Minute, 2}, {59 * time.Minute, 2}, {61 * time.Minute, 2}, {110 * time.Minute, 3}} {
			after(step.at - time.Since(start))
			write(t, s.bench, rows(1))
			s.minted(t, step.tokens)
		}
		s.quiet(t)
		if got := len(s.em.Streams()); got != 7 {
			t.Errorf("%d streams were opened, want one for each row", got)
		}
	})
	scenario(t, "serve_old_token_when_refresh_fails_transiently", func(t *testing.T) {
		s := staged(t, emulator.Config{StreamMaxAge: 30 * time.Second}, nil)
		write(t, s.bench, rows(1))
		away := s.fault(t, emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectStatus, Status: 503})
		after(56 * time.Minute)
		start := time.Now()
		write(t, s.bench, rows(1))
		took(t, start, 0)
		s.minted(t, 1)
		s.em.RemoveFault(away.ID)
		after(time.Minute)
		write(t, s.bench, rows(1))
		s.minted(t, 2)
		if len(s.obs.retries) != 0 || s.State().Name != zerobus.Ready {
			t.Errorf("retries are %v and the state %q, want none and ready", s.obs.retries, s.State().Name)
		}
	})
	scenario(t, "single_flight_mint", func(t *testing.T) {
		s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.Streams = 8 })
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectLatency, Latency: emulator.Latency{P50: time.Second}})
		var all []<-chan error
		for range 50 {
			all = append(all, inBackground(t.Context(), s.bench, rows(1)))
		}
		succeed(t, all...)
		s.minted(t, 1)
		if got := len(s.em.Streams()); got != 8 {
			t.Errorf("%d streams were opened, want 8", got)
		}
	})
	token := func(body string) emulator.Fault {
		return emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectStatus, Status: 200, Body: &body}
	}
	scenario(t, "no_expires_in_is_not_cached", func(t *testing.T) {
		s := staged(t, emulator.Config{Auth: emulator.AuthPresence, StreamMaxAge: 30 * time.Second}, nil)
		s.fault(t, token(`{"access_token":"once","token_type":"Bearer"}`))
		for range 3 {
			write(t, s.bench, rows(1))
			after(time.Minute) // the stream is gone
		}
		if got := s.em.Stats().Requests[emulator.EndpointToken]; got != 3 {
			t.Errorf("%d tokens were asked for, want one for each of 3 streams", got)
		}
	})
	for name, c := range map[string]struct {
		size int
		fits bool
	}{"bounded": {900_000, true}, "oversized": {1 << 20, false}} {
		scenario(t, name+"_token_body", func(t *testing.T) {
			s := staged(t, emulator.Config{Auth: emulator.AuthPresence}, nil)
			s.fault(t, token(`{"access_token":"long","expires_in":3600,"x":"`+strings.Repeat("y", c.size)+`"}`))
			err := s.Reachable(t.Context())
			if (err == nil) != c.fits || zerobus.IsPermanent(err) {
				t.Errorf("Reachable with an answer of %d bytes: %v, want it taken: %v, and never a permanent fault", c.size, err, c.fits)
			}
		})
	}
	scenario(t, "redirects_refused", func(t *testing.T) {
		em, dial := emulated(t, emulator.Config{})
		followed := 0
		space := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "elsewhere.example" {
				followed++
			}
			http.Redirect(w, r, "https://elsewhere.example/oidc/v1/token", http.StatusTemporaryRedirect)
		})
		s := client(t, em, inMemory{space}, dial, nil)
		err := s.Reachable(t.Context())
		if !zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "credentials do not follow redirects") || followed != 0 {
			t.Errorf("Reachable: %v, %d redirects followed, want a permanent fault and none", err, followed)
		}
	})
}
