//go:build !linux && !darwin && !freebsd

package zerobus

import (
	"net"
	"syscall"
)

// rawOf returns nil: on this system only what Read has returned is known.
func rawOf(net.Conn) syscall.RawConn { return nil }

func (c *trackedConn) readRaw(p []byte) (int, error) { return c.Conn.Read(p) }

func (c *trackedConn) unread() bool { return false }
