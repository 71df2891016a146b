//go:build linux || darwin || freebsd

package zerobus

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// rawOf returns the socket of conn; nil: it has none.
func rawOf(conn net.Conn) syscall.RawConn {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, _ := socket.SyscallConn() // nil beside an error
	return raw
}

// readRaw is Read that takes bytes from the kernel and counts them under one lock.
func (c *trackedConn) readRaw(p []byte) (n int, err error) {
	waited := c.raw.Read(func(fd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for {
			n, err = syscall.Read(int(fd), p)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				return false
			}
			n = max(n, 0) // -1 beside an error
			c.in += int64(n)
			return true
		}
	})
	switch {
	case waited != nil: // closed, or a deadline
		return 0, waited
	case err != nil:
		return n, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// unread reports whether unread bytes wait in the kernel. Called with mu held.
func (c *trackedConn) unread() bool {
	if c.raw == nil {
		return false
	}
	n := 0
	var one [1]byte
	err := c.raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // an error is Read's to report
	})
	return err == nil && n > 0
}
