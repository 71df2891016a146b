//go:build unix

package ops

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptable reports whether a connection is pending; true if unknown.
func acceptable(l net.Listener) (pending bool) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		pending = err == nil && n > 0
	})
	return err == nil && pending
}
