package zerobus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/datafly/bridge/internal/plaintext"
)

// Connections are what the clients of one process share: HTTP connections of clients that
// trust the same authorities, and gRPC connections of those that also have the same
// endpoint. They share what Decide has found. Tokens, streams, blocked states and rate limits are each client's own. The last
// client that is closed closes the connections. Safe for concurrent use.
type Connections struct {
	network Network
	dial    dialer // under gRPC; nil: the network

	mu       sync.Mutex            // guards the fields below, and those of every httpConns, channels and conn
	http     map[string]*httpConns // by authorities.pem
	channels map[channelKey]*channels
	choices  map[choiceKey]*choice // of transport and endpoint
}

// Network replaces the system's for Connections to hosts that the system does not
// resolve or trust.
type Network struct {
	// Dial opens a connection to host:port, where host may be a name. No proxy is used
	// then. Nil: the system's, through the proxy of the environment.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// CA holds certificates in PEM form, trusted besides the system's and those of
	// zerobus.ca_file.
	CA []byte
}

// NewConnections returns Connections for Config. It does no I/O.
func NewConnections() *Connections { return Network{}.Connections() }

// Connections returns Connections of n for Config. It does no I/O.
func (n Network) Connections() *Connections {
	c := &Connections{network: n, http: map[string]*httpConns{}, channels: map[channelKey]*channels{}, choices: map[choiceKey]*choice{}}
	if n.Dial != nil {
		c.dial = func(ctx context.Context, address string) (net.Conn, error) { return n.Dial(ctx, "tcp", address) }
	}
	return c
}

// authorities are those trusted besides the system's.
type authorities struct {
	pem  string
	pool *x509.CertPool // with the system's; nil: only the system's
}

// authorities reads a file of authorities, "" is none, and adds those of the network.
func (c *Connections) authorities(caFile string) (authorities, error) {
	if caFile == "" && len(c.network.CA) == 0 {
		return authorities{}, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM(c.network.CA)
	if caFile == "" {
		return authorities{string(c.network.CA), pool}, nil
	}
	pem, err := plaintext.ReadPEM(caFile)
	if err != nil {
		return authorities{}, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return authorities{}, fmt.Errorf("%s holds no certificate in PEM form", caFile)
	}
	return authorities{string(pem), pool}, nil
}

// rootsError reports that the certificate authorities could not be read.
type rootsError struct{ error }

// headersMax bounds the headers of an answer, and the trailers of a stream.
const headersMax = 256 << 10

// newHTTPClient returns a client that follows no redirect: requests carry credentials.
func newHTTPClient(rt http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// httpConns are the transports of clients that trust the same authorities.
type httpConns struct {
	clients int
	shared  *http.Transport
	ownConn *http.Transport // makes a connection for each request
}

// HTTP/1.1: one connection per write in flight. A dead connection then costs one batch
// its timeout, and batches do not share flow control. A connection holds the two buffers.
func newHTTPConns(roots *x509.CertPool, dial func(ctx context.Context, network, address string) (net.Conn, error)) *httpConns {
	shared := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialTracked,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 1 << 20, // no more than there were writes in flight
		IdleConnTimeout:     90 * time.Second,
		WriteBufferSize:     32 << 10,
		ReadBufferSize:      4 << 10,

		MaxResponseHeaderBytes: headersMax,
	}
	if dial != nil {
		shared.Proxy = nil
		shared.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return track(conn), nil
		}
	}
	ownConn := shared.Clone()
	ownConn.DisableKeepAlives = true
	return &httpConns{shared: shared, ownConn: ownConn}
}

// roundTripper is one client's use of httpConns. It reads the authorities at the first
// request, so that New reads no file, and does not read them again.
type roundTripper struct {
	all    *Connections
	caFile string

	mu     sync.Mutex // guards the fields below
	key    string     // of conns
	conns  *httpConns // nil: there was no request yet
	closed bool
}

// RoundTrip sends a request that has Close set on a connection of its own.
func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	conns, err := r.connect()
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	if req.Close {
		return conns.ownConn.RoundTrip(req)
	}
	return conns.shared.RoundTrip(req)
}

func (r *roundTripper) connect() (*httpConns, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.conns != nil:
		return r.conns, nil
	case r.closed:
		return nil, errClosed
	}
	ca, err := r.all.authorities(r.caFile)
	if err != nil {
		return nil, rootsError{err}
	}
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	conns := r.all.http[ca.pem]
	if conns == nil {
		conns = newHTTPConns(ca.pool, r.all.network.Dial)
		r.all.http[ca.pem] = conns
	}
	conns.clients++
	r.key, r.conns = ca.pem, conns
	return conns, nil
}

// CloseIdleConnections ends the client's use. It is what http.Client.CloseIdleConnections
// looks for. Connections stay open while other clients use them.
func (r *roundTripper) CloseIdleConnections() {
	r.mu.Lock()
	defer r.mu.Unlock()
	leaves := !r.closed && r.conns != nil
	r.closed = true
	if !leaves {
		return
	}
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	if r.conns.clients--; r.conns.clients == 0 {
		delete(r.all.http, r.key)
		r.conns.shared.CloseIdleConnections()
	}
}

// dialer replaces the network in tests.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// streamsPerConn is how many streams use a gRPC connection at once: a service has to allow
// so many, by RFC 9113. gRPC delays streams beyond the service's limit without an error.
const streamsPerConn = 100

// channelKey is what clients have in common that share gRPC connections.
type channelKey struct {
	target    string
	clear     bool
	pem       string // of the authorities
	userAgent string
	owner     *lease // that alone uses them; nil: all clients
}

// channels are the gRPC connections of one channelKey.
type channels struct {
	all     *Connections
	key     channelKey
	roots   *x509.CertPool
	clients int
	open    []*conn // that take new streams
	limit   int     // of streams per connection
}

// conn is one grpc.ClientConn and how many streams use it.
type conn struct {
	*grpc.ClientConn
	of       *channels
	creds    *watchedTLS
	streams  int  // open, or being opened
	admitted int  // of them: those within the service's limit
	retired  bool // takes no more streams, and is closed with its last one
}

// lease is one client's use of channels.
type lease struct {
	all *Connections
	set settings

	mu     sync.Mutex // guards the fields below; held before Connections.mu
	held   *channels  // nil: no stream was opened yet
	alone  bool       // a shared connection fell silent and no stream has worked since
	closed bool
}

// get returns the connection for a new stream, with own one that nothing else uses; put
// gives it back. It does not connect yet. It reads the certificate authorities before it
// makes a connection.
func (l *lease) get(own bool) (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if !own && l.held != nil && l.alone == (l.held.key.owner == l) {
		if c := l.held.free(); c != nil {
			return c, nil
		}
	}
	key := channelKey{target: l.set.native.target, clear: l.set.native.clear, userAgent: l.set.UserAgent}
	if l.alone {
		key.owner = l
	}
	var ca authorities
	if !key.clear {
		var err error
		if ca, err = l.all.authorities(l.set.CAFile); err != nil {
			return nil, rootsError{err}
		}
		key.pem = ca.pem
	}
	if l.held == nil || l.held.key != key {
		next := l.all.join(key, ca.pool)
		l.leave()
		l.held = next
	}
	return l.held.connect(own)
}

// retire keeps new streams off a connection that swallows what is sent: gRPC itself would
// use it until the kernel gives it up, after 15 minutes. Streams of other clients continue.
// Whether the connection or only this client's table is silent is not known, so the client
// has connections of its own until a stream works.
func (l *lease) retire(bad *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	bad.retired = true
	bad.of.remove(bad)
	l.alone = l.alone || bad.of.clients > 1
}

// works records that a stream was of use.
func (l *lease) works() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alone = false
}

// close ends the client's use. Its streams have ended, or end with their contexts.
func (l *lease) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.leave()
}

// leave gives held back. Called with l.mu held.
func (l *lease) leave() {
	if l.held == nil {
		return
	}
	for _, c := range l.all.leave(l.held) {
		_ = c.Close() // nothing to do about it
	}
	l.held = nil
}

// join returns the channels for a further client.
func (c *Connections) join(key channelKey, roots *x509.CertPool) *channels {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.channels[key]
	if s == nil {
		s = &channels{all: c, key: key, roots: roots, limit: streamsPerConn}
		c.channels[key] = s
	}
	s.clients++
	return s
}

// leave ends the use of one client and returns what is to be closed.
func (c *Connections) leave(s *channels) (unused []*conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.clients--; s.clients > 0 {
		return nil
	}
	delete(c.channels, s.key)
	for _, used := range s.open {
		if used.retired = true; used.streams == 0 {
			unused = append(unused, used)
		}
	}
	s.open = nil
	return unused
}

// free returns a connection that has room for a stream; nil: there is none.
func (s *channels) free() *conn {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	return s.take()
}

// take is free with Connections.mu held.
func (s *channels) take() *conn {
	i := slices.IndexFunc(s.open, func(c *conn) bool { return c.streams < s.limit })
	if i < 0 {
		return nil
	}
	s.open[i].streams++
	return s.open[i]
}

// connect returns a connection for a stream, a new one if there is no room or own asks.
func (s *channels) connect(own bool) (*conn, error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if !own {
		if c := s.take(); c != nil {
			return c, nil
		}
	}
	c, err := s.dial()
	if err != nil {
		return nil, err
	}
	if c.streams, c.retired = 1, own; !own {
		s.open = append(s.open, c)
	}
	return c, nil
}

// remove keeps new streams off c. Called with Connections.mu held.
func (s *channels) remove(c *conn) {
	s.open = slices.DeleteFunc(s.open, func(other *conn) bool { return other == c })
}

// admit records that the service has room for a stream that uses c.
func (c *conn) admit() {
	c.of.all.mu.Lock()
	defer c.of.all.mu.Unlock()
	c.admitted++
}

// full records that the service has no room for more streams than it admitted on c.
func (c *conn) full() {
	c.of.all.mu.Lock()
	defer c.of.all.mu.Unlock()
	c.of.limit = max(min(c.of.limit, c.admitted), 1)
}

// put gives the connection of a stream back. It closes one that is not needed.
func (c *conn) put(admitted bool) {
	s := c.of
	s.all.mu.Lock()
	if c.streams--; admitted {
		c.admitted--
	}
	unused := c.streams == 0 && (c.retired || len(s.open) > 1)
	if unused {
		s.remove(c)
	}
	s.all.mu.Unlock()
	if unused {
		_ = c.Close() // nothing to do about it
	}
}

// dial makes a connection, which connects with its first stream.
func (s *channels) dial() (*conn, error) {
	c := &conn{of: s}
	creds := insecure.NewCredentials()
	if !s.key.clear {
		c.creds = &watchedTLS{TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.roots})}
		creds = c.creds
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent(s.key.userAgent),
		// Answers are a few bytes, so the receive windows stay small and fixed: measuring
		// them would cost a ping per answer. The service sets the windows for sending.
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(1 << 20),
		grpc.WithWriteBufferSize(128 << 10),
		grpc.WithMaxHeaderListSize(headersMax),
		grpc.WithDisableRetry(), // the client retries; gRPC would keep copies of messages for it
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(answerMax), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
			Backoff: backoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
	}
	target := "dns:///" + s.key.target
	if s.all.dial != nil {
		target = "passthrough:///" + s.key.target // dial resolves the name
		options = append(options, grpc.WithContextDialer(s.all.dial))
	}
	var err error
	c.ClientConn, err = grpc.NewClient(target, options...)
	return c, err
}

// watchedTLS remembers how the last handshake failed: gRPC passes on its text only, and the
// remedy depends on the error.
type watchedTLS struct {
	credentials.TransportCredentials

	mu    sync.Mutex // guards the fields below
	fault error
	at    time.Time
}

func (w *watchedTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.at = err, time.Now()
	return secure, info, err
}

// handshakeLife is how long a failed handshake explains failures: gRPC tries again sooner.
const handshakeLife = 10 * time.Second

// last returns how the last handshake failed; nil: it did not, or long ago.
func (w *watchedTLS) last() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) > handshakeLife {
		return nil
	}
	return w.fault
}
