package ops

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// listenError says which key to change, and why.
func listenError(address string, err error) error {
	var addrErr *net.AddrError
	var dnsErr *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listening on ops.address %s: another process has it: %w; stop that process or set ops.address to a free port", address, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("listening on ops.address %s: %w; set ops.address to a port of 1024 or above", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listening on ops.address %s: no interface of this machine has it: %w; set ops.address to one that has, or to :port for all", address, err)
	case errors.As(err, &addrErr), errors.As(err, &dnsErr):
		return fmt.Errorf("listening on ops.address %q: %w; set ops.address to host:port, for example %s", address, err, DefaultAddress)
	default:
		return fmt.Errorf("listening on ops.address %s: %w; set ops.address to an address this machine can listen on", address, err)
	}
}
