package e2e_test

import (
	"strings"
	"testing"
)

// Where the workspace does not serve the page's path, the bridge finds the endpoint and the
// transport with the six keys, and reports them.
func TestTheTransportIsFound(t *testing.T) {
	t.Parallel()
	for transport, http2 := range map[string]bool{"grpc": true, "rest": false} {
		t.Run(transport, func(t *testing.T) {
			eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
				must(t, s.ws.StartZerobus("127.0.0.1:0"))
				s.ws.SetIngestAPI(false)
				s.ws.SetHTTP2(http2)
				s.zerobus("transport: auto")
				s.p.events(500)
				m := s.beginReady()
				s.complete(m)
				if by := s.ws.arrivedBy(); by[transport] != 500 || len(by) != 1 {
					t.Errorf("rows came by %v, want 500 by %s", by, transport)
				}
				sink := m.integration().Sink
				if sink.Transport != transport || sink.Endpoint != s.ws.ZerobusURL() || !strings.Contains(sink.TransportReason, "does not serve") {
					t.Errorf("/status: %+v, want %s to %s and the reason", sink, transport, s.ws.ZerobusURL())
				}
				if got := m.logged("transport decided"); got != 1 {
					t.Errorf("%d lines name the transport, want 1", got)
				}
			})
		})
	}
}

// The workspace stops serving the page's path in mid-delivery: what is left arrives over gRPC.
func TestTheTransportIsReplacedInMidDelivery(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		must(t, s.ws.StartZerobus("127.0.0.1:0"))
		s.zerobus("transport: auto")
		s.p.events(500)
		m := s.beginReady()
		s.complete(m)
		s.ws.SetIngestAPI(false)
		s.p.events(500)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Errorf("got %d duplicates, want none: every request was answered", duplicates)
		}
		if by := s.ws.arrivedBy(); by["workspace"] != 500 || by["grpc"] != 500 {
			t.Errorf("rows came by %v, want 500 by each", by)
		}
		if got := m.logged("transport changed; rows are encoded for it from the next batch on"); got != 1 {
			t.Errorf("%d lines report the change, want 1", got)
		}
	})
}
