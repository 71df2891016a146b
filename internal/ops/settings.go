package ops

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/datafly/bridge/internal/setting"
)

// Settings are the HTTP endpoints for metrics, health and status.
type Settings struct {
	// Address to listen on, host:port; an empty host is every interface, port 0 any
	// free port. Whoever reaches it can read topic names, offsets and error texts.
	Address string `yaml:"address" default:"127.0.0.1:9400"`
	// Pprof serves Go profiles under /debug/pprof/, over the loopback only. A profile
	// costs a few per cent of CPU while it is taken, and names what the code handles.
	Pprof bool `yaml:"pprof"`
	// PartitionMetrics gives metrics the label partition. Trade-off of false: the series
	// of a topic show sums, so a single partition that lags is found at /status only;
	// of true: some 15 series for each partition of each integration.
	PartitionMetrics bool `yaml:"partition_metrics" default:"true"`
	// LiveEvents is what the console shows of events: off is no console, metadata
	// names, ids and states but no value of a field, full the events and their rows.
	// Trade-off of full: personal data on a page and up to 4 MiB of memory; Token is
	// required unless Address is on the loopback.
	LiveEvents string `yaml:"live_events" default:"metadata" choices:"off,metadata,full"`
	// Token is what the console and /status require, as a bearer header
	// and, for the page, in its login form. TokenFile names a file that holds it
	// instead, which is read again for each request. Without one they are open.
	Token     setting.Secret `yaml:"token"`
	TokenFile string         `yaml:"token_file"`
	// Peers are where the members of this deployment serve their ops endpoints, this
	// one included: host or host:port, 9400 where the port is left out. A name stands
	// for all its addresses. Each is asked for its status, with Token, when somebody
	// asks this member for the status of the group. Token is sent without encryption.
	Peers []string `yaml:"peers" unique:"true"`
}

// MaxPeers is the largest number of peers, and of their addresses.
const MaxPeers = 256

// PeerAddress returns the host and the port of an item of Settings.Peers.
func PeerAddress(peer string) (host, port string, ok bool) {
	if strings.Count(peer, ":") != 1 && !strings.HasPrefix(peer, "[") || strings.HasSuffix(peer, "]") {
		peer = net.JoinHostPort(strings.Trim(peer, "[]"), defaultPort)
	}
	host, port, err := net.SplitHostPort(peer)
	_, valid := setting.SplitAddress(peer, 1)
	if _, notIP := netip.ParseAddr(host); strings.Contains(host, ":") && notIP != nil {
		return "", "", false
	}
	return host, port, err == nil && valid && host != "" && !strings.ContainsAny(host, " /@?#[]")
}

func (s *Settings) checkPeers(c *setting.Check) {
	const key = "ops.peers"
	if len(s.Peers) > MaxPeers && c.OK(key) {
		c.FailValue(key, "", fmt.Sprintf("has %d items, which is more than %d", len(s.Peers), MaxPeers), "name a DNS name that resolves to all of them")
	}
	for _, peer := range s.Peers {
		if !c.OK(key) {
			return
		}
		if _, rest, hasScheme := strings.Cut(peer, "://"); hasScheme {
			c.FailValue(key, peer, "must be host or host:port without a scheme", "write "+rest)
		} else if _, _, ok := PeerAddress(peer); !ok {
			c.FailValue(key, peer, "must be host or host:port with a port from 1 to 65535", "write it as bridge.signal.svc:9400, or [2001:db8::1]:9400 for IPv6")
		}
	}
}

// TokenSource is where the token comes from; ok is false when there is none.
func (s Settings) TokenSource() (source setting.SecretSource, ok bool) {
	return setting.SecretSource{Key: "ops.token", Value: s.Token, File: s.TokenFile}, s.Token != "" || s.TokenFile != ""
}

// Loopback reports whether the address is one that only this machine reaches.
func (s Settings) Loopback() bool {
	host, ok := setting.SplitAddress(s.Address, 0)
	return ok && setting.Loopback(host)
}

// minToken is the least length of a token that guards events, in bytes: guesses
// are slowed down, not made impossible.
const minToken = 16

// Check implements the rules about the address, the token and the peers.
func (s *Settings) Check(c *setting.Check) {
	s.checkPeers(c)
	if _, ok := setting.SplitAddress(s.Address, 0); !ok && c.OK("ops.address") {
		c.Fail("ops.address", "must be host:port with a port from 0 to 65535", "write it as 127.0.0.1:9400, or :9400 for every interface")
	}
	if !c.OK("ops.address", "ops.live_events", "ops.token", "ops.token_file") {
		return
	}
	token, given := s.TokenSource()
	if s.LiveEvents == "full" && !given && !s.Loopback() {
		c.Fail("ops.live_events", "must not be full without ops.token while ops.address can be reached from other machines",
			"set ops.token_file to a file with a long random text, or ops.live_events to metadata, or ops.address to 127.0.0.1:9400")
	}
	if !given || !c.Files {
		return
	}
	if text, err := token.Read(); err == nil && len(text) < minToken {
		key := token.Key
		if token.File != "" {
			key += "_file"
		}
		c.FailValue(key, "", fmt.Sprintf("must be at least %d characters long, or it could be guessed", minToken),
			"generate one with: openssl rand -hex 24")
	}
}
