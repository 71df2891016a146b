//go:build linux || darwin || freebsd

package zerobus

import (
	"net"
	"syscall"
)

// unread reports whether bytes wait in the kernel to be read from conn.
func unread(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	var one [1]byte
	err = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // an error is Read's to report
	})
	return err == nil && n > 0
}
