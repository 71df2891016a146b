//go:build linux || darwin || freebsd

package zerobus

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// rawOf returns the socket behind conn; nil: it is none.
func rawOf(conn net.Conn) syscall.RawConn {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readRaw is Read in which the kernel's bytes are taken and counted in one.
func (g *guarded) readRaw(p []byte) (n int, err error) {
	waited := g.raw.Read(func(fd uintptr) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		for {
			n, err = syscall.Read(int(fd), p)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				return false
			}
			n = max(n, 0) // -1 beside an error
			g.in += int64(n)
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

// unread reports whether bytes wait in the kernel to be read. Called with mu
// held.
func (g *guarded) unread() bool {
	if g.raw == nil {
		return false
	}
	n := 0
	var one [1]byte
	err := g.raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // an error is Read's to report
	})
	return err == nil && n > 0
}
