package emulator

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// sniffTime bounds TLS handshake and first bytes of a connection.
const sniffTime = 10 * time.Second

// endpointServer serves the Zerobus endpoint: gRPC and REST on one port, by
// how a connection begins.
type endpointServer struct {
	url     string
	ln      net.Listener
	tls     *tls.Config // nil for plain text
	grpc    *grpc.Server
	rest    *http.Server
	opened  func() // a gRPC connection
	grpcIn  *handover
	restIn  *handover
	served  sync.WaitGroup // accept loops, and connections whose protocol is not known yet
	streams sync.WaitGroup // readers of streams

	mu     sync.Mutex
	fresh  map[*conn]struct{} // connections that have not asked for anything yet
	frozen []*conn            // would never drain
	closed bool
}

// StartZerobus listens on addr (host:port; port 0 takes a free one) and serves
// the Zerobus endpoint there, as ServeZerobus does.
func (e *Emulator) StartZerobus(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("emulator: zerobus endpoint: %w; give a free address", err)
	}
	if err := e.ServeZerobus(ln); err != nil {
		_ = ln.Close() // nobody was served
		return err
	}
	return nil
}

// ServeZerobus serves the Zerobus endpoint on ln until Close:
// databricks.zerobus.Zerobus/EphemeralStream by gRPC and the REST insert, on
// one port. With Config.TLS a client that offers HTTP/1.1 in ALPN gets it, so
// that a connection over HTTP/2 is gRPC; without, HTTP/2 with prior knowledge
// is gRPC. It may be called once. A listener in memory lets tests run in
// virtual time.
func (e *Emulator) ServeZerobus(ln net.Listener) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.zerobus != nil {
		return errors.New("emulator: the Zerobus endpoint is started already")
	}
	if err := e.Open(); err != nil {
		return err
	}
	s := &endpointServer{
		ln: ln, url: "http://" + reachable(ln), fresh: map[*conn]struct{}{},
		opened: func() { e.stats.count(func(s *Stats) { s.Connections++ }) },
		grpcIn: newHandover(ln.Addr()), restIn: newHandover(ln.Addr()),
		rest: &http.Server{
			Handler: e.restRoutes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
			ErrorLog: zap.NewStdLog(e.log),
		},
	}
	if e.tls != nil {
		s.url, s.tls = "https://"+reachable(ln), e.tls.endpointConfig()
	}
	s.grpc = e.newGRPC(s)
	e.zerobus = s
	run := func(protocol string, serve func() error) { // close waits
		s.served.Go(func() {
			err := serve()
			if err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				e.log.Error("emulator stopped serving "+protocol, zap.Error(err))
			}
		})
	}
	run("the Zerobus endpoint", s.accept)
	run("gRPC", func() error { return s.grpc.Serve(s.grpcIn) })
	run("REST", func() error { return s.rest.Serve(s.restIn) })
	return nil
}

// ZerobusURL is the Zerobus endpoint to configure, such as
// http://127.0.0.1:41235; "" before StartZerobus.
func (e *Emulator) ZerobusURL() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.zerobus == nil {
		return ""
	}
	return e.zerobus.url
}

// freeze makes a connection half-open until the endpoint is closed.
func (s *endpointServer) freeze(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = append(s.frozen, c)
	c.freeze()
	if s.closed {
		c.cut()
	}
}

// accept hands each connection to gRPC or to REST until the listener is closed.
func (s *endpointServer) accept() error {
	for {
		raw, err := s.ln.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener has been closed
		}
		c := newConn(raw)
		c.gone = func() { s.known(c) }
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = c.Close() // nothing was asked on it
			return nil
		}
		s.fresh[c] = struct{}{}
		s.served.Go(func() {
			to, err := s.sniff(c)
			if err != nil || !to.give(c) {
				_ = c.Close() // it never was a request
			}
		})
		s.mu.Unlock()
	}
}

// known notes that a connection has asked for something, or is gone: it ends
// in an orderly way from now on.
func (s *endpointServer) known(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fresh, c)
}

// sniff reads ahead as far as it takes to know where the connection goes.
func (s *endpointServer) sniff(c *conn) (*handover, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sniffTime) //nolint:forbidigo // bounded; closing the connection ends it
	defer cancel()
	if err := c.SetDeadline(time.Now().Add(sniffTime)); err != nil {
		return nil, err
	}
	if s.tls != nil {
		secure := tls.Server(c.Conn, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		c.Conn = secure
	}
	r := bufio.NewReaderSize(c.Conn, 16)
	first, err := r.Peek(prefaceToSniff)
	if err != nil {
		return nil, err
	}
	c.head, _ = r.Peek(r.Buffered())
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if string(first) == http2Preface[:prefaceToSniff] {
		s.opened()
		return s.grpcIn, nil
	}
	s.known(c)
	return s.restIn, nil
}

// close ends everything of the endpoint; what is under way may take until ctx
// ends.
func (s *endpointServer) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	cut := append(slices.Collect(maps.Keys(s.fresh)), s.frozen...)
	s.mu.Unlock()
	for _, c := range cut {
		c.cut()
	}
	_ = s.ln.Close() // listening only
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	err := s.rest.Shutdown(ctx)
	select {
	case <-graceful:
	case <-ctx.Done():
		err = errors.Join(err, context.Cause(ctx))
		s.grpc.Stop()
		<-graceful
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("emulator: streams and requests cut off: %w", err), s.rest.Close())
	}
	_, _ = s.grpcIn.Close(), s.restIn.Close() // never fail
	s.streams.Wait()
	s.served.Wait()
	return err
}

// handover is a listener whose connections somebody else has accepted.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give reports false when nobody takes connections any more.
func (h *handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }

// conn is a connection of the Zerobus listener that faults can reach. It is
// found again from a stream's peer address.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS
	head   []byte   // read ahead to know the protocol
	frozen atomic.Bool
	closed chan struct{}
	once   sync.Once
	gone   func() // called when the connection is closed

	writing sync.Mutex // guards what follows; held while writing
	goAway  bool       // to be sent at the next end of a frame
	header  [frameHeader]byte
	have    int // bytes of header filled
	payload int // bytes left of the frame being written
}

const (
	frameHeader    = 9 // of an HTTP/2 frame: RFC 9113, section 4.1
	frameGoAway    = 7
	maxStreamID    = 1<<31 - 1
	http2Preface   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefaceToSniff = 4 // "PRI ", which is no HTTP/1.1 method
)

func newConn(c net.Conn) *conn {
	return &conn{Conn: c, raw: c, closed: make(chan struct{}), gone: func() {}}
}

// peerAddr is a connection's remote address that leads back to it.
type peerAddr struct {
	net.Addr
	conn *conn
}

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return peerAddr{c.Conn.RemoteAddr(), c} }

func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if c.frozen.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.frozen.Load() {
		return len(p), nil
	}
	for sent := 0; sent < len(p); {
		n := c.track(p[sent:])
		if _, err := c.Conn.Write(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
		if err := c.inject(); err != nil {
			return sent, err
		}
	}
	return len(p), nil
}

// track follows the frames being written and returns how much of p to write:
// all of it or, where something waits to be put in, up to the next end of a
// frame.
func (c *conn) track(p []byte) int {
	for i := 0; i < len(p); {
		if c.payload == 0 {
			n := copy(c.header[c.have:], p[i:])
			c.have += n
			i += n
			if c.have < frameHeader {
				return i
			}
			c.have = 0
			c.payload = int(binary.BigEndian.Uint32(c.header[:4]) >> 8)
		}
		n := min(c.payload, len(p)-i)
		c.payload -= n
		i += n
		if c.payload == 0 && c.goAway {
			return i
		}
	}
	return len(p)
}

func (c *conn) inject() error {
	if !c.goAway || c.payload > 0 || c.have > 0 {
		return nil
	}
	c.goAway = false
	frame := make([]byte, frameHeader+8)
	frame[2], frame[3] = 8, frameGoAway
	binary.BigEndian.PutUint32(frame[frameHeader:], maxStreamID) // error code 0: NO_ERROR
	_, err := c.Conn.Write(frame)
	return err
}

// sendGoAway tells the client to open its next streams elsewhere. Those that
// are open go on.
func (c *conn) sendGoAway() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.goAway = true
	_ = c.inject() // a connection that fails has gone away
}

// freeze makes the connection half-open: it stays, and nothing goes through
// it any more in either direction.
func (c *conn) freeze() { c.frozen.Store(true) }

// cut ends the connection without a word.
func (c *conn) cut() {
	c.end()
	_ = c.raw.Close() // it is to fail for the client, and does
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *conn) end() {
	c.once.Do(func() {
		close(c.closed)
		c.gone()
	})
}
