package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

func TestSecretRotatedInMidRun(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		m := s.beginReady("log.level=debug")
		s.p.events(200)
		s.complete(m)
		// The file first, as a careful operator does; then the old one dies.
		next := newSecret()
		s.e.secret("the rotated client secret", next)
		s.ws.write(next)
		s.ws.RotateSecret(next)
		s.ws.RevokeTokens()
		s.p.events(200)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		if got := m.logged("writing to zerobus is blocked"); got != 0 {
			t.Errorf("got %d lines about being blocked, want none", got)
		}
		// The file last: blocked for a second or so.
		next = s.ws.rotate()
		s.ws.RevokeTokens()
		s.p.events(200)
		m.blocked("sink_blocked", patience)
		s.ws.write(next)
		began := time.Now()
		s.complete(m)
		t.Logf("the new secret was taken %v after it was written", time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > 30*time.Second { // most of it a busy machine's
			t.Errorf("got the new secret taken after %v, want it looked at each second", took)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

func TestTokensExpireInMidRun(t *testing.T) {
	eachStage(t, setting{workspace: emulator.Config{TokenLifetime: 2 * time.Second}}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		eventually(t, patience, "a third token", func() bool {
			s.p.events(20)
			s.rows(m, s.p.total())
			return s.ws.minted() >= 3
		})
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		if got := m.logged("writing to zerobus is blocked"); got != 0 {
			t.Errorf("got %d lines about being blocked, want none", got)
		}
	})
}

func TestTokenEndpointDown(t *testing.T) {
	eachStage(t, setting{workspace: emulator.Config{TokenLifetime: 2 * time.Second}}, func(t *testing.T, s *stage) {
		resolve := s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable})
		s.p.events(100)
		m := s.begin()
		reason := m.blocked("sink_unreachable", patience)
		wants(t, reason.Text, "503")
		resolve()
		m.ready()
		s.complete(m)

		resolve = s.ws.fault(emulator.Fault{Endpoint: emulator.EndpointToken, Effect: emulator.EffectCut})
		eventually(t, patience, "the sink retrying", func() bool { // the last token serves until it expires
			s.p.events(1)
			return m.integration().Sink.Name == "retrying"
		})
		if got := m.snapshot(); got.State != "running" || !got.Live {
			t.Errorf("got state %s, live %v without tokens, want running and live", got.State, got.Live)
		}
		resolve()
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
	})
}

// A secret given in the environment is nowhere to be seen either.
func TestSecretsOfTheEnvironmentStayHidden(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		address := kafkatest.FreeAddress(t)
		p := start(t, s.e, command{args: append(s.args("run", "log.level=debug", "ops.pprof=true", "zerobus.client_secret_file="), "--ops-address", address),
			env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + s.ws.secret}})
		m := &member{process: p, s: s, address: address}
		m.ready()
		s.p.events(100)
		s.complete(m)
		for _, path := range []string{"/", "/metrics", "/livez", "/readyz", "/status", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
			if status, _ := m.get(path, ""); status == 0 {
				t.Errorf("%s: got no answer", path)
			}
		}
		m.terminate(s.drain + time.Second + slack)
	})
}
