package zerobus

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func dialTracked(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return track(conn), nil
}

// innermost strips the method and URL that http.Client wraps around an error.
func innermost(err error) error {
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return sent.Err
	}
	return err
}

// errUnsolicited ends the writing of a request if bytes arrived that nothing had asked for.
// Nothing was written, so net/http takes another connection.
var errUnsolicited = errors.New("bytes came that no request had asked for")

// errEarlier is an answer that was read completely before its request was written.
var errEarlier = errors.New("the answer was there before the request")

// trackedConn distinguishes an answer from bytes that arrived before the request. It lies
// below TLS. net/http closes a connection on which it reads while no request is outstanding;
// what it reads later it would take for the answer to the next request.
type trackedConn struct {
	net.Conn
	raw    syscall.RawConn // of Conn; nil: it is no socket, or the system is not supported
	begins atomic.Bool     // the next Write is the first of a request

	mu     sync.Mutex // held while bytes are taken from the kernel and counted
	in     int64      // bytes read so far
	before int64      // of them, before the present request was written
}

func track(conn net.Conn) *trackedConn { return &trackedConn{Conn: conn, raw: rawOf(conn)} }

func (c *trackedConn) Read(p []byte) (int, error) {
	if c.raw != nil && len(p) > 0 {
		return c.readRaw(p)
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in += int64(n)
	return n, err
}

func (c *trackedConn) Write(p []byte) (int, error) {
	if c.begins.CompareAndSwap(true, false) {
		c.mu.Lock()
		waiting := c.unread()
		c.before = c.in
		c.mu.Unlock()
		if waiting {
			return 0, errUnsolicited
		}
	}
	return c.Conn.Write(p)
}

// answered reports whether anything was read since the request was written.
func (c *trackedConn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in > c.before
}

// exchange is one request and its answer on a connection.
type exchange struct {
	conn  atomic.Pointer[trackedConn] // the last, if net/http repeats the request; nil: not known
	early atomic.Bool                 // the answer began before the request was written
}

// trace returns ctx for the request of x.
func (x *exchange) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			conn := trackedOf(info.Conn)
			x.conn.Store(conn)
			x.early.Store(false)
			if conn != nil {
				conn.begins.Store(true)
			}
		},
		// Called by the goroutine that reads, before it reads on.
		GotFirstResponseByte: func() {
			if conn := x.conn.Load(); conn != nil && !conn.answered() {
				x.early.Store(true)
			}
		},
	})
}

// drop closes the connection: the next answer on it may be the one to this request.
func (x *exchange) drop() {
	if conn := x.conn.Load(); conn != nil {
		_ = conn.Close() // nothing to do about it
	}
}

// trackedOf finds the trackedConn below TLS, if there is one.
func trackedOf(conn net.Conn) *trackedConn {
	for {
		switch c := conn.(type) {
		case *trackedConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}
