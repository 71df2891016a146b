package zerobus_test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// What a process run through a proxy reports.
const (
	proxiedTransport = "BRIDGE_TEST_PROXIED_TRANSPORT"
	proxiedWorkspace = "BRIDGE_TEST_PROXIED_WORKSPACE"
	proxiedCA        = "BRIDGE_TEST_PROXIED_CA"
)

// proxiedHost resolves nowhere but at the proxy, and the emulator's certificate
// is good for it.
const proxiedHost = emulator.DefaultWorkspaceID + ".zerobus.local.cloud.databricks.com"

// proxyScenarios run the client in a process of its own, since Go reads the
// proxy's address from the environment once. The workspace is on a loopback
// address, which no proxy is asked for; the endpoint is not.
func proxyScenarios(t *testing.T) {
	if transport := os.Getenv(proxiedTransport); transport != "" {
		t.Run(os.Getenv("BRIDGE_TEST_PROXIED_NAME"), func(t *testing.T) { reachOnce(t, transport) })
		return
	}
	em, err := emulator.New(emulator.Config{DDL: targetDDL, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, em) })
	if err := em.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := em.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, em.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(em.ZerobusURL())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, transport, exempt string
		asked                   []string
		rows                    int
	}{
		{"connect_used", zerobus.TransportGRPC, "", []string{proxiedHost + ":443"}, 3},
		{"connect_used_by_rest", zerobus.TransportREST, "", []string{proxiedHost + ":443"}, 3},
		{"no_proxy_honoured", zerobus.TransportGRPC, ".local.cloud.databricks.com", nil, 0},
		{"no_proxy_honoured_by_rest", zerobus.TransportREST, ".local.cloud.databricks.com", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := em.Reset(); err != nil {
				t.Fatal(err)
			}
			proxy := newProxy(t, to.Host)
			ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
			defer cancel()
			self := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOfficialScenarios$/^proxy$/^"+tt.name+"$")
			self.Env = append(os.Environ(), proxiedTransport+"="+tt.transport, proxiedWorkspace+"="+em.URL(), proxiedCA+"="+ca, "BRIDGE_TEST_PROXIED_NAME="+tt.name,
				"HTTPS_PROXY=http://"+proxy.address, "https_proxy=", "NO_PROXY="+tt.exempt, "no_proxy=")
			if out, err := self.CombinedOutput(); err != nil {
				t.Fatalf("the process behind the proxy: %v\n%s", err, out)
			}
			if got := slices.Compact(proxy.asked()); !slices.Equal(got, tt.asked) {
				t.Errorf("the proxy was asked for %q, want %q", got, tt.asked)
			}
			if got := em.Table(target).Count(); got != tt.rows {
				t.Errorf("%d rows stored, want %d", got, tt.rows)
			}
		})
	}
}

// reachOnce is what runs behind the proxy. Where the endpoint is exempt from it
// the name cannot be resolved, and that is all that is known here: whether
// the proxy was asked only the other process knows.
func reachOnce(t *testing.T, transport string) {
	c, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{
		WorkspaceURL: os.Getenv(proxiedWorkspace), ClientID: emulator.DefaultClientID,
		ClientSecret: emulator.DefaultClientSecret,
		Table:        target, Transport: transport, Endpoint: proxiedHost, CAFile: os.Getenv(proxiedCA),
	}}, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Reachable(t.Context())
	if os.Getenv("NO_PROXY") == "" {
		if err == nil {
			err = c.WriteLatest(t.Context(), rows(3))
		}
		if err != nil {
			t.Errorf("through the proxy: %v", err)
		}
		return
	}
	if err == nil || zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "resolve") && !strings.Contains(err.Error(), "connection failed") {
		t.Errorf("past the proxy: %v, want a name that cannot be resolved", err)
	}
}
