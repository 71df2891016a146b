//go:build unix

package ops

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pending reports whether a connection waits to be accepted.
func (s *spared) pending() bool {
	l, ok := s.Listener.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return true
	}
	waits := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, perr := unix.Poll(fds, 0)
		waits = perr == nil && n > 0
	})
	return err == nil && waits
}
