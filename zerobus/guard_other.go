//go:build !linux && !darwin && !freebsd

package zerobus

import (
	"net"
	"syscall"
)

// rawOf returns nothing: the kernel cannot be looked into here, and what Read
// has returned is all that is known.
func rawOf(net.Conn) syscall.RawConn { return nil }

func (g *guarded) readRaw(p []byte) (int, error) { return g.Conn.Read(p) }

func (g *guarded) unread() bool { return false }
