package zerobus

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// dialer replaces the network in tests.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// conns keeps the one connection that all streams share. A connection that
// swallows what is sent is replaced: gRPC itself would go on using it until the
// kernel gives it up, a quarter of an hour later.
type conns struct {
	set  settings
	dial dialer

	mu     sync.Mutex // guards the fields below and those of every conn
	cur    *conn      // nil: the next stream makes one
	closed bool
}

// conn is one grpc.ClientConn and how many streams hold it.
type conn struct {
	*grpc.ClientConn
	creds   *watchedTLS
	streams int
	retired bool
}

// get returns the connection to open a stream on; put gives it back. It reads
// the certificate authorities, and connects to nothing yet. alone asks for one
// that nothing else travels on.
func (c *conns) get(alone bool) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if alone {
		made, err := c.connect()
		if err != nil {
			return nil, err
		}
		made.streams, made.retired = 1, true // closed with its only stream
		return made, nil
	}
	if c.cur == nil {
		made, err := c.connect()
		if err != nil {
			return nil, err
		}
		c.cur = made
	}
	c.cur.streams++
	return c.cur, nil
}

func (c *conns) put(used *conn) {
	c.mu.Lock()
	used.streams--
	last := used.retired && used.streams == 0
	c.mu.Unlock()
	if last {
		_ = used.Close() // nothing to be done about it
	}
}

// retire keeps new streams off the connection. It is closed when the last
// stream on it ends.
func (c *conns) retire(bad *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bad.retired = true
	if c.cur == bad {
		c.cur = nil
	}
}

// close ends all streams still open on the present connection.
func (c *conns) close() {
	c.mu.Lock()
	c.closed = true
	last := c.cur
	c.cur = nil
	c.mu.Unlock()
	if last != nil {
		_ = last.Close()
	}
}

func (c *conns) connect() (*conn, error) {
	made := &conn{}
	creds := insecure.NewCredentials()
	if !c.set.native.clear {
		roots, err := readRoots(c.set.CAFile)
		if err != nil {
			return nil, rootsError{err}
		}
		made.creds = &watchedTLS{TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})}
		creds = made.creds
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent(c.set.UserAgent),
		// Answers are a few bytes, so the windows for what we receive stay
		// small and fixed; measuring them would cost a ping per answer. What we
		// send goes by the windows of the service.
		grpc.WithStaticStreamWindowSize(64 << 10),
		grpc.WithStaticConnWindowSize(1 << 20),
		grpc.WithWriteBufferSize(128 << 10),
		grpc.WithMaxHeaderListSize(headersMax),
		grpc.WithDisableRetry(), // retrying is ours; gRPC would keep copies of messages for it
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(answerMax), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
			Backoff: backoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
	}
	if c.dial != nil {
		options = append(options, grpc.WithContextDialer(c.dial))
	}
	var err error
	made.ClientConn, err = grpc.NewClient("dns:///"+c.set.native.target, options...)
	return made, err
}

// watchedTLS remembers how the last handshake failed: gRPC only passes on its
// text, and the remedy depends on the error.
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

// handshakeLife is how long a failed handshake explains what fails: gRPC tries
// again sooner than that.
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
