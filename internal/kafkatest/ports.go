package kafkatest

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The range lies below the ephemeral ports of Linux and macOS, so no outgoing
// connection and no listener on port 0 takes a port while its broker is down.
const (
	firstPort = 20000
	lastPort  = 29999
)

// A port is a loopback TCP port this process has reserved among all processes
// that use this package, until it is released or the process ends.
type port struct {
	number int
	// claim holds the UDP port of the same number. TCP and UDP ports are
	// separate, so it marks the port as taken without being in the way.
	claim net.PacketConn
}

func (p port) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.number) }

func (p port) release() { p.claim.Close() }

// reservePort finds a TCP port nobody listens on and reserves it.
func reservePort() (port, error) {
	var last error
	for range 100 {
		p := port{number: firstPort + rand.IntN(lastPort-firstPort+1)}
		claim, err := net.ListenPacket("udp4", p.addr())
		if err != nil {
			last = err
			continue
		}
		free, err := net.Listen("tcp4", p.addr())
		if err != nil {
			claim.Close()
			last = err
			continue
		}
		free.Close()
		p.claim = claim
		return p, nil
	}
	return port{}, fmt.Errorf("reserving a loopback port between %d and %d: %w; free some of them",
		firstPort, lastPort, last)
}
