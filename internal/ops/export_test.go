package ops

import "net/http"

// Handler is what the server answers with, for requests of peers there are none
// of in a test.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// The bounds on connections.
const (
	MaxConns        = maxConns
	MaxConnsPerPeer = maxConnsPerPeer
)
