package e2e_test

import (
	"bytes"
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/test/connectproxy"
	"github.com/datafly/bridge/zerobus/emulator"
)

// The bridge finds the endpoint's name, which only the proxy knows, and what passes there.
// It uses REST behind a proxy that ends TLS and speaks HTTP/1.1, or that swallows HTTP/2.
func TestProxies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, transport   string
		inspects, swallow bool
		because           []string
	}{
		{"CONNECT", "grpc", false, false, []string{"it answers over gRPC"}},
		{"HTTP 1.1 only", "rest", true, false, []string{"gRPC does not pass"}},
		{"HTTP 2 swallowed", "rest", true, true, []string{"gRPC does not pass"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachStage(t, setting{workspace: emulator.Config{TLS: true, NoIngestAPI: true, NoEndpointURL: true}}, func(t *testing.T, s *stage) {
				must(t, s.ws.StartZerobus("127.0.0.1:0"))
				to, err := url.Parse(s.ws.ZerobusURL())
				must(t, err)
				cfg, authorities := connectproxy.Config{To: to.Host}, [][]byte{s.ws.CAPEM()}
				if tt.inspects {
					cfg.Inspects, err = connectproxy.NewAuthority(s.ws.EndpointHost())
					must(t, err)
					cfg.Roots, cfg.SwallowsHTTP2 = x509.NewCertPool(), tt.swallow
					cfg.Roots.AppendCertsFromPEM(s.ws.CAPEM())
					authorities = [][]byte{cfg.Inspects.PEM} // that of the endpoint is seen by the proxy only
				}
				proxy, err := connectproxy.Start(t.Context(), cfg)
				must(t, err)
				t.Cleanup(proxy.Close)
				s.zerobus("transport: auto", "ca_file: "+file(t, "ca.pem", string(bytes.Join(authorities, nil))))

				address := kafkatest.FreeAddress(t)
				m := &member{s: s, address: address, process: start(t, s.e, command{args: append(s.args("run"), "--ops-address", address),
					env: []string{"HTTPS_PROXY=" + proxy.URL, "https_proxy=", "NO_PROXY=", "no_proxy="}})}
				m.ready()
				s.p.events(100)
				s.complete(m)
				got := m.integration().Sink
				if got.Transport != tt.transport || got.Endpoint != "https://"+s.ws.EndpointHost() {
					t.Errorf("got transport %s at %s, want %s at https://%s", got.Transport, got.Endpoint, tt.transport, s.ws.EndpointHost())
				}
				wants(t, got.TransportReason, tt.because...)
				if by := s.ws.arrivedBy(); len(by) != 1 || by[tt.transport] == 0 {
					t.Errorf("rows arrived by %v, want %s only", by, tt.transport)
				}
				if asked := proxy.Asked(); !slices.Equal(asked, []string{s.ws.EndpointHost() + ":443"}) {
					t.Errorf("the proxy was asked for %s, want the endpoint only", strings.Join(asked, ", "))
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}
