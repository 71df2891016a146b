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
		if !loopback(peerOf(r.RemoteAddr)) || !loopback(strings.Trim(peerOf(r.Host), "[]")) {
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

// atOnce lets n requests at a time into a handler whose answer is large; the
// others wait for as long as they care to.
func atOnce(n int, next http.HandlerFunc) http.HandlerFunc {
	slots := make(chan struct{}, n)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		defer func() { <-slots }()
		next(w, r)
	}
}
