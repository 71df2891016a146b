package zerobus

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"syscall"
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
	raw    syscall.RawConn // of Conn; nil: it is no socket, or cannot be looked into here
	begins atomic.Bool     // the next Write is the first of a request

	mu     sync.Mutex // held while bytes are taken from the kernel and counted: none is in between
	in     int64      // bytes read so far
	before int64      // of them, before the present request was written
}

func guard(conn net.Conn) *guarded { return &guarded{Conn: conn, raw: rawOf(conn)} }

func (g *guarded) Read(p []byte) (int, error) {
	if g.raw != nil && len(p) > 0 {
		return g.readRaw(p)
	}
	n, err := g.Conn.Read(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in += int64(n)
	return n, err
}

func (g *guarded) Write(p []byte) (int, error) {
	if g.begins.CompareAndSwap(true, false) {
		g.mu.Lock()
		waiting := g.unread()
		g.before = g.in
		g.mu.Unlock()
		if waiting {
			return 0, errUnsolicited
		}
	}
	return g.Conn.Write(p)
}

// answered reports whether anything was read since the request was written.
func (g *guarded) answered() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.in > g.before
}

// exchange is one request and its answer on a connection.
type exchange struct {
	on    atomic.Pointer[guarded] // the last, where net/http repeats the request; nil: not known
	early atomic.Bool             // the first byte of the answer had been read before the request was written
}

// watch returns ctx for the request of x.
func (x *exchange) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			on := guardOf(info.Conn)
			x.on.Store(on)
			x.early.Store(false)
			if on != nil {
				on.begins.Store(true)
			}
		},
		// Called by the goroutine that reads, before it can read on.
		GotFirstResponseByte: func() {
			if on := x.on.Load(); on != nil && !on.answered() {
				x.early.Store(true)
			}
		},
	})
}

// answered reports, once the answer is read, whether it can be one to the
// request.
func (x *exchange) answered() bool { return !x.early.Load() }

// drop closes the connection: the next answer on it may be the one to this
// request.
func (x *exchange) drop() {
	if on := x.on.Load(); on != nil {
		_ = on.Close() // nothing to be done about it
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
