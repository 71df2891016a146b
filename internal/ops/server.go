package ops

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
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

// ServerConfig of a Server.
type ServerConfig struct {
	Name    string // for messages, such as "ops endpoints"
	Key     string // of the configuration, with the address
	Address string
	Example string // an address that works, for remedies
	Handler http.Handler
	// Certificate returns the present certificate. Default nil: HTTP is served.
	Certificate func() (*tls.Certificate, error)
	// Stop is called by Close first: it ends streams. Default nil: nothing.
	Stop func()
}

// Server serves HTTP at one address, with bounds on connections, headers and times.
// Start it once, Close it once.
type Server struct {
	cfg  ServerConfig
	log  *zap.Logger
	http *http.Server

	listener *listener          // set by Start
	cancel   context.CancelFunc // ends the contexts of all requests
	done     chan struct{}      // closed when Serve has returned
	conns    sync.WaitGroup     // connections whose goroutine is running
}

// New returns the server of the ops endpoints. It does no I/O and starts no goroutine.
// /metrics shows metrics, the probes and /status what source returns.
func New(cfg Config, metrics *Metrics, source Source, log *zap.Logger) *Server {
	if cfg.Access == nil {
		cfg.Access = access.New(nil, false)
	}
	c := ServerConfig{Name: "ops endpoints", Key: "ops.address", Address: cmp.Or(cfg.Address, DefaultAddress), Example: DefaultAddress, Handler: newHandler(cfg, metrics, source, log)}
	if cfg.Live != nil {
		c.Stop = cfg.Live.Stop
	}
	return NewServer(c, log)
}

// NewServer returns a server. It does no I/O and starts no goroutine.
func NewServer(cfg ServerConfig, log *zap.Logger) *Server {
	s := &Server{cfg: cfg, log: log, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           refuseReserve(cfg.Handler),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       withConn,
		ConnState:         s.observeConn,
		ErrorLog:          stdlog.New(errorLog{log}, "", 0),
		Protocols:         new(http.Protocols), // the bounds are on connections of one request at a time
	}
	s.http.Protocols.SetHTTP1(true)
	if cfg.Certificate != nil {
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cfg.Certificate() }}
	}
	return s
}

// errorLog logs what net/http reports. Handshakes fail by what any peer sends.
type errorLog struct{ log *zap.Logger }

// Write implements io.Writer.
func (l errorLog) Write(line []byte) (int, error) {
	level := zap.WarnLevel
	if bytes.Contains(line, []byte("TLS handshake error")) {
		level = zap.DebugLevel
	}
	l.log.Log(level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

// Start listens and serves until Close. ctx bounds the lookup of the address;
// its end does not stop the server, since probes and metrics are needed while the
// bridge drains.
func (s *Server) Start(ctx context.Context) error {
	var lc net.ListenConfig
	if s.cfg.Certificate != nil {
		if _, err := s.cfg.Certificate(); err != nil {
			return err
		}
	}
	l, err := lc.Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return s.listenError(err)
	}
	s.serve(ctx, l)
	return nil
}

// listenError explains why the server cannot listen, and what to change.
func (s *Server) listenError(err error) error {
	var addrErr *net.AddrError
	var dnsErr *net.DNSError
	what, why, remedy := fmt.Sprintf("listening on %s %s", s.cfg.Key, s.cfg.Address), "", "an address this machine can listen on"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: another process has it: %w; stop that process or set %s to a free port", what, err, s.cfg.Key)
	case errors.Is(err, os.ErrPermission):
		remedy = "a port of 1024 or above"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		why, remedy = "no interface of this machine has it: ", "one that has, or to :port for all"
	case errors.As(err, &addrErr), errors.As(err, &dnsErr):
		remedy = "host:port, for example " + s.cfg.Example
	}
	return fmt.Errorf("%s: %s%w; set %s to %s", what, why, err, s.cfg.Key, remedy)
}

func (s *Server) serve(ctx context.Context, l net.Listener) {
	s.listener = newListener(l, s.cfg.Key, s.log)
	var requests context.Context
	requests, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	go func() {
		defer close(s.done)
		serve := s.http.Serve
		if s.cfg.Certificate != nil {
			serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
		}
		if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error(s.cfg.Name+" are unavailable until the next start", zap.String("address", s.Addr()), zap.Error(err))
		}
	}()
}

// Addr returns the address the server listens on, with the real port; before
// Start the configured one.
func (s *Server) Addr() string {
	if s.listener == nil {
		return s.cfg.Address
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
	if s.cfg.Stop != nil {
		s.cfg.Stop()
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.cancel() // a running profile ends with its request's context
		_ = s.http.Close()
		err = fmt.Errorf("closing the %s at %s: requests in flight were cut off: %w", s.cfg.Name, s.Addr(), err)
	}
	<-s.done
	s.conns.Wait()
	return err
}

// observeConn records for the listener which connections are busy, and lets Close wait
// for their goroutines. net/http reports StateNew before Serve can return, and
// StateClosed last in the goroutine.
func (s *Server) observeConn(c net.Conn, state http.ConnState) {
	if c := connOf(c); c != nil {
		c.setState(state)
	}
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}
