package ops_test

import (
	"net"
	"testing"

	"github.com/datafly/bridge/internal/ops"
)

func TestPeerAddress(t *testing.T) {
	for peer, want := range map[string]string{
		"bridge-peers.signal.svc":      "bridge-peers.signal.svc:9400",
		"bridge-peers.signal.svc:9401": "bridge-peers.signal.svc:9401",
		"10.0.0.1":                     "10.0.0.1:9400",
		"10.0.0.1:1":                   "10.0.0.1:1",
		"2001:db8::1":                  "[2001:db8::1]:9400",
		"[2001:db8::1]":                "[2001:db8::1]:9400",
		"[2001:db8::1]:9":              "[2001:db8::1]:9",
		"":                             "",
		":9400":                        "",
		"a:":                           "",
		"a:0":                          "",
		"a:65536":                      "",
		"a b":                          "",
		"a:b:c":                        "",
	} {
		host, port, ok := ops.PeerAddress(peer)
		if got := net.JoinHostPort(host, port); ok != (want != "") || ok && got != want {
			t.Errorf("%q: got %q, %v; want %q", peer, got, ok, want)
		}
	}
}
