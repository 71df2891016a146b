package emulator

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// endpointServer serves the Zerobus endpoint: gRPC and REST on one port. The
// first bytes of a connection decide which.
type endpointServer struct {
	url      string
	ln       net.Listener
	tls      *tls.Config // nil for plain text
	grpc     *grpc.Server
	rest     *http.Server
	accepted func() // called for each gRPC connection
	grpcIn   *connQueue
	restIn   *connQueue
	served   sync.WaitGroup // accept loops, and connections whose protocol is not known yet
	streams  sync.WaitGroup // readers of streams
	idle     connSet        // connections without a request yet
	frozen   connSet
	http2    connSet // connections that speak HTTP/2
	http2Off *atomic.Bool
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
// one port. With Config.TLS a client that offers HTTP/1.1 in ALPN gets it, and
// HTTP/2 is gRPC. Without TLS, HTTP/2 with prior knowledge is gRPC. Call it
// once. A listener in memory lets tests run in virtual time.
func (e *Emulator) ServeZerobus(ln net.Listener) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.zerobus.Load() != nil {
		return errors.New("emulator: the Zerobus endpoint is started already")
	}
	if err := e.Open(); err != nil {
		return err
	}
	s := &endpointServer{
		ln: ln, url: "http://" + reachable(ln), rest: e.newHTTP(e.restRoutes()),
		accepted: func() { e.stats.count(func(s *Stats) { s.Connections++ }) },
		grpcIn:   newConnQueue(ln), restIn: newConnQueue(ln), http2Off: &e.http2Off,
	}
	if e.tls != nil {
		s.url, s.tls = "https://"+reachable(ln), e.tls.endpointConfig(&e.http2Off)
	}
	s.grpc = e.newGRPC(s)
	e.zerobus.Store(s)
	for protocol, serve := range map[string]func() error{
		"the Zerobus endpoint": s.accept,
		"gRPC":                 func() error { return s.grpc.Serve(s.grpcIn) },
		"REST":                 func() error { return s.rest.Serve(s.restIn) },
	} {
		s.served.Go(func() { // close waits
			err := serve()
			if err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				e.log.Error("emulator stopped serving "+protocol, zap.Error(err))
			}
		})
	}
	return nil
}

func (e *Emulator) newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: zap.NewStdLog(e.log)}
}

// reachable is an address of ln that a client on this machine can connect to.
func reachable(ln net.Listener) string {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return ln.Addr().String()
}

// ZerobusURL is the Zerobus endpoint to configure, such as
// http://127.0.0.1:41235; "" before StartZerobus.
func (e *Emulator) ZerobusURL() string {
	if s := e.zerobus.Load(); s != nil {
		return s.url
	}
	return ""
}

// accept passes each connection to gRPC or to REST until the listener is closed.
func (s *endpointServer) accept() error {
	for {
		raw, err := s.ln.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener has been closed
		}
		c := &conn{Conn: raw, raw: raw, closed: make(chan struct{})}
		c.onEnd = sync.OnceFunc(func() {
			close(c.closed)
			s.idle.remove(c)
			s.http2.remove(c)
		})
		if !s.idle.add(c) {
			_ = c.Close() // there was no request on it
			return nil
		}
		s.served.Go(func() {
			to, err := s.detect(c)
			if err != nil || !to.give(c) {
				_ = c.Close() // there was no request on it
			}
		})
	}
}

// detectTimeout bounds TLS handshake and first bytes of a connection.
const detectTimeout = 10 * time.Second

// detect reads as much of a connection as it takes to know its protocol.
func (s *endpointServer) detect(c *conn) (*connQueue, error) {
	ctx, cancel := context.WithTimeout(context.Background(), detectTimeout) //nolint:forbidigo // bounded; closing the connection ends it
	defer cancel()
	if err := c.SetDeadline(time.Now().Add(detectTimeout)); err != nil {
		return nil, err
	}
	if s.tls != nil {
		secure := tls.Server(c.Conn, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		c.Conn = secure
	}
	const preface = "PRI " // of HTTP/2, no method of HTTP/1.1
	r := bufio.NewReaderSize(c.Conn, 16)
	first, err := r.Peek(len(preface))
	if err != nil {
		return nil, err
	}
	c.head, _ = r.Peek(r.Buffered())
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if string(first) == preface {
		s.http2.add(c) // before the switch is read: it cuts those it finds
		if !s.http2Off.Load() {
			s.accepted()
			return s.grpcIn, nil
		}
	}
	s.idle.remove(c)
	return s.restIn, nil
}

// freeze makes a connection half-open until the endpoint is closed: it stays,
// and nothing passes in either direction.
func (s *endpointServer) freeze(c *conn) {
	c.frozen.Store(true)
	if !s.frozen.add(c) {
		c.cut()
	}
}

// close ends the endpoint. Streams and requests have until ctx ends.
func (s *endpointServer) close(ctx context.Context) error {
	s.idle.close()
	s.frozen.close()
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

// connSet holds connections that would delay an orderly end of their server.
type connSet struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// add reports false if the set is closed.
func (s *connSet) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	if !s.closed {
		s.conns[c] = struct{}{}
	}
	return !s.closed
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// track is a ConnState hook that adds new connections and removes those with a
// request: Shutdown would wait up to five seconds for a new one.
func (s *connSet) track(c net.Conn, state http.ConnState) {
	if state != http.StateNew {
		s.remove(c)
	} else if !s.add(c) {
		_ = c.Close()
	}
}

// close cuts the connections, and refuses others.
func (s *connSet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cut()
}

func (s *connSet) cut() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		if c, ok := c.(*conn); ok {
			c.cut()
			continue
		}
		_ = c.Close() // it has no request
	}
}

// connQueue is a listener for connections that endpointServer has accepted.
type connQueue struct {
	net.Listener // for its address
	conns        chan net.Conn
	done         chan struct{}
	end          func()
}

func newConnQueue(ln net.Listener) *connQueue {
	q := &connQueue{Listener: ln, conns: make(chan net.Conn), done: make(chan struct{})}
	q.end = sync.OnceFunc(func() { close(q.done) })
	return q
}

// give reports false after Close.
func (q *connQueue) give(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

// Accept implements net.Listener.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *connQueue) Close() error {
	q.end()
	return nil
}

// conn is a connection of the Zerobus listener that faults can change. A
// stream finds it by its peer's address.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS
	head   []byte   // read ahead to detect the protocol
	frozen atomic.Bool
	closed chan struct{}
	onEnd  func()

	writing sync.Mutex // guards the fields below; held while writing
	goAway  bool       // to be sent at the next end of a frame
	header  [frameHeader]byte
	have    int // bytes of header filled
	payload int // bytes left of the frame being written
}

// RFC 9113, sections 4.1 and 6.8.
const (
	frameHeader = 9
	frameGoAway = 7
	maxStreamID = 1<<31 - 1
)

// peerAddr is a connection's remote address that refers to it.
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

// track follows the frames being written. It returns how much of p to write:
// all of it or, if GOAWAY waits, up to the next end of a frame.
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

// sendGoAway asks the client to open its next streams on another connection.
// Open streams continue.
func (c *conn) sendGoAway() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.goAway = true
	_ = c.inject() // on error the connection has ended, too
}

// cut ends the connection abruptly, below TLS and HTTP/2.
func (c *conn) cut() {
	c.onEnd()
	_ = c.raw.Close()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.onEnd()
	return c.Conn.Close()
}

// identity is a CA and the server certificate it has signed. Neither key is
// ever written to disk.
type identity struct {
	caPEM []byte
	leaf  tls.Certificate
}

// LocalDomain is the domain below which the server certificate covers any one
// label: clients take the first label of the Zerobus endpoint's host for the
// workspace's id.
const LocalDomain = "zerobus.local.cloud.databricks.com"

// identityLifetime suffices for an emulator that is left running.
const identityLifetime = 365 * 24 * time.Hour

func newIdentity(names []string) (*identity, error) {
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "Zerobus emulator CA"}, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey, err := issue(ca, ca, nil)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: append([]string{"localhost", "*." + LocalDomain}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, leafKey, err := issue(leaf, ca, caKey)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	return &identity{
		caPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf:  tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: leafKey},
	}, nil
}

// issue makes a key and a certificate for it, signed with parentKey or, if
// that is nil, with the key itself.
func issue(c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (der []byte, key *ecdsa.PrivateKey, err error) {
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	c.NotBefore, c.NotAfter, c.BasicConstraintsValid = now.Add(-time.Hour), now.Add(identityLifetime), true
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, cmp.Or(parentKey, key))
	return der, key, err
}

func (i *identity) config(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.leaf}, MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// endpointConfig is for the port that gRPC and REST share. A client that offers
// HTTP/1.1 is no gRPC client, and gets it.
func (i *identity) endpointConfig(http2Off *atomic.Bool) *tls.Config {
	both, h1, h2 := i.config(), i.config("http/1.1"), i.config("h2")
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if http2Off.Load() || len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, "http/1.1") {
			return h1, nil
		}
		return h2, nil
	}
	return both
}
