package zerobus

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// errUnsolicited is what the writing of a request ends with when bytes had come
// that nothing had asked for. Nothing was written, so net/http takes another
// connection.
var errUnsolicited = errors.New("bytes came that no request had asked for")

// errEarlier is an answer of which nothing was read after its request began to
// be written.
var errEarlier = errors.New("the answer was there before the request")

// guarded is a connection that tells an answer from bytes that were there
// before the request. It lies below TLS. net/http closes a connection on which
// it reads while no request is outstanding; what it has not read by the time of
// the next request it would take for the answer to that one.
type guarded struct {
	net.Conn
	in     atomic.Int64 // bytes read so far
	before atomic.Int64 // of them, before the present request was written
	begins atomic.Bool  // the next Write is the first of a request
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.in.Add(int64(n))
	return n, err
}

func (g *guarded) Write(p []byte) (int, error) {
	if g.begins.CompareAndSwap(true, false) {
		if unread(g.Conn) {
			return 0, errUnsolicited
		}
		g.before.Store(g.in.Load())
	}
	return g.Conn.Write(p)
}

// answered reports whether anything was read since the request was written.
func (g *guarded) answered() bool { return g.in.Load() > g.before.Load() }

// exchange is one request and its answer on a connection.
type exchange struct {
	on *guarded // the last, where net/http repeats the request; nil: not known
}

// watch returns ctx for the request of x.
func (x *exchange) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if x.on = guardOf(info.Conn); x.on != nil {
			x.on.begins.Store(true)
		}
	}})
}

// answered reports, once the answer is read, whether it can be one to the
// request.
func (x *exchange) answered() bool { return x.on == nil || x.on.answered() }

// drop closes the connection: the next answer on it may be the one to this
// request.
func (x *exchange) drop() {
	if x.on != nil {
		_ = x.on.Close() // nothing to be done about it
	}
}

// guardOf finds the guard below TLS, if there is one.
func guardOf(conn net.Conn) *guarded {
	for {
		switch c := conn.(type) {
		case *guarded:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}
