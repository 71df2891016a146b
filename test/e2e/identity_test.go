package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// serviceAccount returns a JWT as Kubernetes writes it for a pod, and keeps it out of
// every output.
func serviceAccount(t testing.TB, e *evidence, name string, expires time.Time) (jwt string, policy emulator.Federation) {
	t.Helper()
	policy = emulator.Federation{Issuer: "https://oidc.cluster.example/id", Audience: "databricks", Subject: "system:serviceaccount:datafly:" + name}
	claims, err := json.Marshal(map[string]any{"iss": policy.Issuer, "aud": []string{policy.Audience}, "sub": policy.Subject, "exp": expires.Unix()})
	must(t, err)
	jwt = "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2lnbmF0dXJlIG9mIHRoZSBjbHVzdGVy"
	e.secret("the token of "+name, jwt)
	return jwt, policy
}

// Without a client secret the bridge exchanges the token in a file, which the platform
// replaces while it runs.
func TestWorkloadIdentity(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"workspace", "grpc", "rest"} {
		t.Run(transport, func(t *testing.T) {
			eachStage(t, setting{workspace: emulator.Config{StreamMaxAge: 2 * time.Second}}, func(t *testing.T, s *stage) {
				text, err := os.ReadFile(s.config)
				must(t, err)
				secret, exchange := "client_secret_file: "+s.ws.file, "token_exchange: {token_file: "+s.ws.file+"}"
				if !strings.Contains(string(text), secret) {
					t.Fatalf("the configuration has no %q", secret)
				}
				must(t, os.WriteFile(s.config, []byte(strings.Replace(string(text), secret, exchange, 1)), 0o600))
				if transport != "workspace" {
					s.native(transport)
				}
				soon := time.Now().Add(time.Hour)
				first, policy := serviceAccount(t, s.e, "bridge", soon)
				s.ws.write(first)

				// Nothing trusts it yet. The error has the command that changes this.
				p, code := run(t, s.e, command{args: s.args("check")})
				if code != 1 {
					t.Errorf("check without a policy: exit code %d, want 1", code)
				}
				wants(t, p.stdout.String()+p.stderr.String(), "invalid_grant", "TOKEN_INVALID",
					`databricks account service-principal-federation-policy create ID --json '{"oidc_policy":{"issuer":"https://oidc.cluster.example/id","audiences":["databricks"],"subject":"system:serviceaccount:datafly:bridge"}}'`)
				must(t, s.ws.SetFederation(policy))
				if _, code := run(t, s.e, command{args: s.args("check")}); code != 0 {
					t.Errorf("check with the policy: exit code %d, want 0", code)
				}

				m := s.beginReady("log.level=debug")
				s.p.events(200)
				s.complete(m)
				// The platform replaces the file, then the first token is worth nothing.
				second, policy := serviceAccount(t, s.e, "bridge-2", soon)
				s.ws.write(second)
				must(t, s.ws.SetFederation(policy))
				minted := s.ws.minted()
				s.ws.RevokeTokens()
				eventually(t, patience, "a token for the second one", func() bool {
					s.p.events(20)
					s.rows(m, s.p.total())
					return s.ws.minted() > minted
				})
				if got := m.logged("writing to zerobus is blocked"); got != 0 {
					t.Errorf("got %d lines about being blocked, want none", got)
				}
				// The platform has stopped replacing it.
				expired, _ := serviceAccount(t, s.e, "bridge-2", time.Now().Add(-time.Minute))
				s.ws.write(expired)
				s.ws.RevokeTokens()
				eventually(t, patience, "the sink blocked", func() bool {
					s.p.events(1)
					return m.integration().Sink.Name == "blocked"
				})
				wants(t, m.blocked("sink_blocked", patience).Text, "the token in "+s.ws.file+" expired at")
				s.ws.write(second)
				s.complete(m)
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}

// setup asks for no secret and writes none: the configuration names the token's file.
func TestSetupWithWorkloadIdentity(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	jwt, policy := serviceAccount(t, e, "bridge", time.Now().Add(time.Hour))
	token, address := file(t, "token", jwt+"\n"), kafkatest.FreeAddress(t)
	start(t, e, command{args: []string{"emulator", "--listen", address, "--zerobus-listen", kafkatest.FreeAddress(t), "--no-ingest-api", "--federation", policy.String()}})
	eventually(t, patience, "the emulator", func() bool {
		resp, err := browser.Get("http://" + address + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	config := filepath.Join(t.TempDir(), "config.yaml")
	args := []string{"setup", "--workspace-url", "http://" + address, "--client-id", emulator.DefaultClientID, "--table", "datafly.web.clicks",
		"--set", "zerobus.token_exchange.token_file=" + token, "--write", config, "--execute"}
	p, code := run(t, e, command{args: args})
	if code != 0 {
		t.Fatalf("setup: exit code %d\n%s%s", code, p.stdout.String(), p.stderr.String())
	}
	wants(t, p.stdout.String(), "acknowledged, message_id bridge-setup-probe", "1 rows")
	text, err := os.ReadFile(config)
	must(t, err)
	if wants(t, string(text), "token_file: "+token); strings.Contains(string(text), "secret") {
		t.Errorf("the configuration has a secret:\n%s", text)
	}
	if beside, _ := filepath.Glob(filepath.Join(filepath.Dir(config), "*")); len(beside) != 1 {
		t.Errorf("setup wrote %q, want the configuration only", beside)
	}
	p, code = run(t, e, command{args: args})
	if wants(t, p.stdout.String(), "Nothing had to be changed."); code != 0 {
		t.Errorf("setup again: exit code %d", code)
	}
	must(t, os.WriteFile(token, []byte("no JWT"), 0o600))
	p, code = run(t, e, command{args: args})
	if wants(t, p.stdout.String()+p.stderr.String(), "holds no JWT", "zerobus.token_exchange.token_file"); code != 1 {
		t.Errorf("setup with another file: exit code %d, want 1", code)
	}
}
