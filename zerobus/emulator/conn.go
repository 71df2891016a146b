package emulator

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// conn is a connection of the Zerobus listener that faults can reach. It is
// found again from a stream's peer address.
type conn struct {
	net.Conn
	raw    net.Conn // below TLS
	head   []byte   // read ahead to tell the protocols apart
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
