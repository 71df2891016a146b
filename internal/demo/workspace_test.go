package demo

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

func workspace(t *testing.T) *emulator.Emulator {
	t.Helper()
	w, err := startWorkspace(emulator.Latency{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close(context.WithoutCancel(t.Context())) })
	return w
}

// The address and the credentials of the integration page lead to the emulator, by every
// transport, and to both tables.
func TestThePagesWorkspaceIsTheEmulator(t *testing.T) {
	w := workspace(t)
	for _, transport := range []string{zerobus.TransportAuto, zerobus.TransportWorkspace, zerobus.TransportGRPC, zerobus.TransportREST} {
		for _, table := range []string{Table, pageTable} {
			c, err := zerobus.New(zerobus.Config{Connections: networkOf(w).Connections(), Settings: zerobus.Settings{WorkspaceURL: "https://abc-12345.cloud.databricks.com",
				ClientID: "00000000-0000-0000-0000-000000000000", ClientSecret: "YOUR_CLIENT_SECRET", Table: table, Transport: transport}}, zap.NewNop(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Preflight(t.Context()); err != nil {
				t.Errorf("%s of %s: %v", transport, table, err)
			}
			c.Close()
		}
	}
}

// The demo looks no name up and dials no other machine.
func TestTheDemoDialsOnlyItself(t *testing.T) {
	dial := networkOf(workspace(t)).Dial
	for _, address := range []string{"abc-12345.cloud.databricks.com:80", "other.cloud.databricks.com:443", "203.0.113.7:443", "[2001:db8::1]:443", "abc-12345.cloud.databricks.com", "127.0.0.1.example:443"} {
		if conn, err := dial(t.Context(), "tcp", address); err == nil || !strings.Contains(err.Error(), "the demo has no workspace "+address) {
			t.Errorf("%s: got %v, %v, want a refusal that names it", address, conn, err)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1"} { // nothing listens there
		if _, err := dial(t.Context(), "tcp", address); err == nil || strings.Contains(err.Error(), "the demo has no workspace") {
			t.Errorf("%s: got %v, want the error of a connection", address, err)
		}
	}
}
