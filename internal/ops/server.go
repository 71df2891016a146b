package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops/access"
)

// DefaultAddress is where the server listens when Config.Address is empty.
const DefaultAddress = "127.0.0.1:" + defaultPort

const defaultPort = "9400"

// Config of the Server.
type Config struct {
	// Settings of which Address and Pprof count here; an empty Address is DefaultAddress.
	Settings

	// Access authenticates requests to /status and checks the Host of those and of
	// /metrics. Default nil: everyone, any Host.
	Access *access.Control

	// Group answers /status?scope=group. Default nil: that scope is refused.
	Group GroupSource

	// Live serves everything under LivePath. Default nil: no data for pages.
	Live Live

	// Console serves browsers that ask for /, and all paths that are not of this server.
	// Default nil: no console.
	Console http.Handler
}

// LivePath is the path of the page of live events.
const LivePath = "/live/"

// Live is a page of live events.
type Live interface {
	http.Handler
	// Stop ends all streams and prevents new ones.
	Stop()
}

// Bounds of the server. Requests have no bodies and responses are small, so a peer that
// needs longer is broken or hostile.
const (
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	probeTimeout   = 5 * time.Second  // to read the response to a probe
	idleTimeout    = 45 * time.Second // so that a scrape each 30 s reuses its connection
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10
)

// Server serves the ops endpoints. Start it once, Close it once.
type Server struct {
	address string
	log     *zap.Logger
	http    *http.Server
	live    Live // may be nil

	listener *listener          // set by Start
	cancel   context.CancelFunc // ends the contexts of all requests
	done     chan struct{}      // closed when Serve has returned
	conns    sync.WaitGroup     // connections whose goroutine is running
}

// New returns a server. It does no I/O and starts no goroutine. /metrics shows
// metrics, the probes and /status what source returns.
func New(cfg Config, metrics *Metrics, source Source, log *zap.Logger) *Server {
	if cfg.Address == "" {
		cfg.Address = DefaultAddress
	}
	if cfg.Access == nil {
		cfg.Access = access.New(nil, false)
	}
	s := &Server{address: cfg.Address, log: log, live: cfg.Live, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           newHandler(cfg, metrics, source, log),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       withConn,
		ConnState:         s.observeConn,
	}
	if errorLog, err := zap.NewStdLogAt(log, zap.WarnLevel); err == nil { // err is about the level alone
		s.http.ErrorLog = errorLog
	}
	return s
}

// Start listens and serves until Close. ctx bounds the lookup of the address;
// its end does not stop the server, since probes and metrics are needed while the
// bridge drains.
func (s *Server) Start(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.address)
	if err != nil {
		return listenError(s.address, err)
	}
	s.serve(ctx, l)
	return nil
}

// listenError explains why the server cannot listen, and what to change.
func listenError(address string, err error) error {
	var addrErr *net.AddrError
	var dnsErr *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listening on ops.address %s: another process has it: %w; stop that process or set ops.address to a free port", address, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("listening on ops.address %s: %w; set ops.address to a port of 1024 or above", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listening on ops.address %s: no interface of this machine has it: %w; set ops.address to one that has, or to :port for all", address, err)
	case errors.As(err, &addrErr), errors.As(err, &dnsErr):
		return fmt.Errorf("listening on ops.address %q: %w; set ops.address to host:port, for example %s", address, err, DefaultAddress)
	default:
		return fmt.Errorf("listening on ops.address %s: %w; set ops.address to an address this machine can listen on", address, err)
	}
}

func (s *Server) serve(ctx context.Context, l net.Listener) {
	s.listener = newListener(l, s.log)
	var requests context.Context
	requests, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("ops endpoints are unavailable until the next start", zap.String("address", s.Addr()), zap.Error(err))
		}
	}()
}

// Addr returns the address the server listens on, with the real port; before
// Start the configured one.
func (s *Server) Addr() string {
	if s.listener == nil {
		return s.address
	}
	return s.listener.Addr().String()
}

// Close stops listening, lets requests in flight finish until ctx ends, then
// cuts them off. It returns once nothing of the server is running; the error
// is ctx's when requests were cut off.
func (s *Server) Close(ctx context.Context) error {
	if s.listener == nil {
		return nil
	}
	defer s.cancel()
	if s.live != nil {
		s.live.Stop()
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.cancel() // a running profile ends with its request's context
		_ = s.http.Close()
		err = fmt.Errorf("closing ops server %s: requests in flight were cut off: %w", s.Addr(), err)
	}
	<-s.done
	s.conns.Wait()
	return err
}

// observeConn records for the listener which connections are busy, and lets Close wait
// for their goroutines. net/http reports StateNew before Serve can return, and
// StateClosed last in the goroutine.
func (s *Server) observeConn(c net.Conn, state http.ConnState) {
	if c, ok := c.(*conn); ok {
		c.setState(state)
	}
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}
