// Oidc signs people in to the console through oauth2-proxy, as docs/console.md
// describes. An identity provider for tests, oauth2-proxy and the demo run on the
// loopback. tools/oidc-proxy.sh installs oauth2-proxy and runs it.
//
// The proxy sends the identity provider's token to the console as a bearer header. The
// console takes name and role from it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/oauth2-proxy/mockoidc"

	"github.com/datafly/bridge/internal/buildtest"
)

func main() {
	proxy := flag.String("proxy", "oauth2-proxy", "the oauth2-proxy to try")
	flag.Parse()
	if err := run(*proxy); err != nil {
		fmt.Fprintln(os.Stderr, "oidc:", err)
		os.Exit(1)
	}
}

func run(proxy string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "bridge-oidc-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	provider, err := mockoidc.Run()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, provider.Shutdown()) }()
	keys, err := fetch(ctx, plain, http.MethodGet, provider.JWKSEndpoint(), nil)
	if err != nil {
		return err
	}
	jwks := filepath.Join(dir, "jwks.json")
	if err := os.WriteFile(jwks, keys.body, 0o600); err != nil {
		return err
	}

	console, front := freeAddress(), freeAddress()
	bridge := filepath.Join(dir, "bridge")
	if err := buildtest.Build(ctx, bridge); err != nil {
		return err
	}
	stopBridge, err := start(ctx, bridge, "demo", "--events", "0", "--rate", "20", "--ops-address", "127.0.0.1:0", "--set", "admin.address="+console, "--set", "admin.jwks_file="+jwks, "--set", "admin.jwt_audience="+provider.ClientID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopBridge()) }()
	stopProxy, err := start(ctx, proxy, "--provider=oidc", "--oidc-issuer-url="+provider.Issuer(), "--client-id="+provider.ClientID, "--client-secret="+provider.ClientSecret,
		"--cookie-secret="+strings.Repeat("k", 32), "--cookie-secure=false", "--email-domain=*", "--insecure-oidc-allow-unverified-email=true", "--skip-provider-button=true",
		"--http-address="+front, "--redirect-url=http://"+front+"/oauth2/callback", "--upstream=http://"+console, "--pass-authorization-header=true")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopProxy()) }()
	for _, ready := range []string{"http://" + console + "/login", "http://" + front + "/ping"} {
		if err := answers(ctx, ready); err != nil {
			return err
		}
	}

	if a, err := fetch(ctx, plain, http.MethodGet, "http://"+console+"/v1/admin/integrations", nil); err != nil || a.status != http.StatusUnauthorized {
		return fmt.Errorf("without the proxy: %d %s %w, want 401", a.status, a.body, err)
	}
	for _, who := range []struct {
		person  person
		install int
	}{
		{person{"grace", "editor"}, http.StatusCreated},
		{person{"ada", "viewer"}, http.StatusForbidden},
		{person{"joan", ""}, http.StatusForbidden},
	} {
		if err := visit(ctx, provider, front, who.person, who.install); err != nil {
			return fmt.Errorf("%s, role %q: %w", who.person.name, who.person.role, err)
		}
	}
	return nil
}

// visit signs a person in and tries what the role allows.
func visit(ctx context.Context, provider *mockoidc.MockOIDC, front string, p person, install int) error {
	provider.QueueUser(p)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Jar: jar, Timeout: requestTimeout, CheckRedirect: func(next *http.Request, before []*http.Request) error {
		if len(before) > 10 || next.URL.Hostname() != "127.0.0.1" {
			return fmt.Errorf("redirected to %s after %d others", next.URL.Redacted(), len(before)-1)
		}
		return nil
	}}
	session, err := fetch(ctx, browser, http.MethodGet, "http://"+front+"/console/session", nil)
	if err != nil {
		return err
	}
	if p.role == "" {
		if session.status != install {
			return fmt.Errorf("the session answers %d %s, want %d", session.status, session.body, install)
		}
		fmt.Printf("%-6s has no role: %d\n", p.name, session.status)
		return nil
	}
	var seen struct{ Name, Role string }
	if err := json.Unmarshal(session.body, &seen); err != nil || seen.Name != p.name || seen.Role != p.role {
		return fmt.Errorf("the session is %d %s, want %+v", session.status, session.body, p)
	}
	body, err := json.Marshal(map[string]any{"name": "By " + p.name, "variant": "default", "delivery_mode": "server_side", "config": map[string]string{
		"workspace_url": "https://abc-12345.cloud.databricks.com", "client_id": "00000000-0000-0000-0000-000000000000", "client_secret": "YOUR_CLIENT_SECRET",
		"catalog": "datafly", "schema": "events", "table": "by_" + p.name}})
	if err != nil {
		return err
	}
	a, err := fetch(ctx, browser, http.MethodPost, "http://"+front+"/v1/admin/integration-catalog/databricks_zerobus/install", body)
	if err != nil {
		return err
	}
	if a.status != install {
		return fmt.Errorf("the install answers %d %s, want %d", a.status, a.body, install)
	}
	fmt.Printf("%-6s is %s: install %d\n", p.name, p.role, a.status)
	return nil
}

// person is a user of the identity provider, which states the role in a claim.
type person struct{ name, role string }

// ID implements mockoidc.User.
func (p person) ID() string { return p.name }

// Userinfo implements mockoidc.User.
func (p person) Userinfo([]string) ([]byte, error) {
	return json.Marshal(map[string]string{"sub": p.name, "email": p.name + "@example.com"})
}

// Claims implements mockoidc.User.
func (p person) Claims(_ []string, base *mockoidc.IDTokenClaims) (jwt.Claims, error) {
	return &claims{IDTokenClaims: base, Email: p.name + "@example.com", Role: p.role}, nil
}

type claims struct {
	*mockoidc.IDTokenClaims
	Email string `json:"email"`
	Role  string `json:"role,omitempty"`
}

const requestTimeout = 20 * time.Second

// plain is a client without a session.
var plain = &http.Client{Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

type answer struct {
	status int
	body   []byte
}

func fetch(ctx context.Context, client *http.Client, method, url string, body []byte) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.status = resp.StatusCode
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return a, err
}

// answers waits until something listens.
func answers(ctx context.Context, url string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := fetch(ctx, plain, http.MethodGet, url, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", url, err)
		case <-tick.C:
		}
	}
}

// start starts a program. stop interrupts it and waits; what it printed is shown when it
// fails.
func start(ctx context.Context, name string, args ...string) (stop func() error, err error) {
	var printed bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &printed, &printed
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = cmd.Process.Signal(syscall.SIGINT)
		err := cmd.Wait()
		if signalled, ok := errors.AsType[*exec.ExitError](err); ok && signalled.ExitCode() == -1 {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, printed.Bytes())
		}
		return nil
	}, nil
}

// freeAddress returns an address that nothing listens on now.
func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0" // and what listens there fails
	}
	defer l.Close()
	return l.Addr().String()
}
