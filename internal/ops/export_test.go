package ops

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Handler is what the server answers with, for requests of peers there are none
// of in a test.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Serve is Start with a listener of the test.
func (s *Server) Serve(ctx context.Context, l net.Listener) { s.serve(ctx, l) }

// Open returns the number of connections that count.
func (s *Server) Open() int {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	return len(s.listener.conns)
}

// The server's bounds.
const (
	MaxConns        = maxConns
	MaxConnsPerPeer = maxConnsPerPeer
	MaxReserve      = maxReserve

	HeaderTimeout  = headerTimeout
	IdleTimeout    = idleTimeout
	ProbeTimeout   = probeTimeout
	ReserveTimeout = reserveTimeout
	ScrapeInterval = 30 * time.Second // whose connection is used again
)
