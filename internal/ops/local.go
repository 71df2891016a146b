package ops

import (
	"net"
	"net/http"
	"strings"
)

// localOnly answers requests of this machine alone. They come over the loopback
// and name it: a page in a browser that has its own name resolve to 127.0.0.1
// is let in no more than a peer on the network. `kubectl port-forward` and ssh
// tunnels end on the loopback.
func localOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !loopback(hostOf(r.RemoteAddr)) || !loopback(strings.Trim(hostOf(r.Host), "[]")) {
			writeText(w, http.StatusForbidden, "profiles are for this machine only; ask 127.0.0.1, through kubectl port-forward or an ssh tunnel\n")
			return
		}
		next(w, r)
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// hostOf drops the port of an address.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
