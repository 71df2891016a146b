// Package access authenticates requests to the ops server: by the token of
// ops.token or a browser session, and by the Host header of a server on the
// loopback.
package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	cookieName = "bridge_live"
	// sessionLife is how long a browser stays logged in.
	sessionLife = 12 * time.Hour
	// A peer may give failBurst wrong tokens at once and another each failEvery.
	failBurst = 10
	failEvery = 6 * time.Second
	maxPeers  = 1000 // with limiters
)

// Control authenticates requests that have the token as a bearer header or in the
// cookie that the login form sets. It is safe for concurrent use.
type Control struct {
	token    func() (string, error) // nil: no authentication
	loopback bool                   // the server listens on the loopback only
	key      [32]byte               // signs the cookies of this process
	now      func() time.Time

	mu    sync.Mutex // guards peers
	peers map[string]*rate.Limiter
}

// New returns a Control. token returns the expected token and is called for each
// request, so that the token can be replaced; nil turns authentication off.
// loopback is true if the server listens on the loopback only.
func New(token func() (string, error), loopback bool) *Control {
	c := &Control{token: token, loopback: loopback, now: time.Now, peers: make(map[string]*rate.Limiter)}
	_, _ = rand.Read(c.key[:]) // never fails
	return c
}

// Verdict is the result of an authentication.
type Verdict int

// The verdicts.
const (
	Granted    Verdict = iota
	NoToken            // the request has no token
	WrongToken         // the request has another token
	TooMany            // too many wrong tokens from this peer
	Unreadable         // the expected token cannot be read
)

// Refusal returns the status and the text of the response to a request that is not
// authenticated, and sets the headers that belong to them.
func (v Verdict) Refusal(h http.Header) (status int, why string) {
	switch v {
	case TooMany:
		h.Set("Retry-After", strconv.Itoa(int(failEvery.Seconds())))
		return http.StatusTooManyRequests, "too many wrong tokens; wait a minute"
	case Unreadable:
		return http.StatusServiceUnavailable, "the token cannot be read; check ops.token_file"
	case Granted, NoToken, WrongToken:
	}
	h.Set("WWW-Authenticate", `Bearer realm="bridge"`)
	return http.StatusUnauthorized, "this needs the token of ops.token: send it as a bearer header"
}

// Enabled reports whether requests need a token.
func (c *Control) Enabled() bool { return c.token != nil }

// expected returns the token that requests need, with the verdict on one without
// any.
func (c *Control) expected() (want string, v Verdict) {
	if c.token == nil {
		return "", Granted
	}
	want, err := c.token()
	if err != nil || want == "" {
		return "", Unreadable
	}
	return want, NoToken
}

// Authenticate checks a request. For a peer above the limit of wrong tokens it
// compares none, not even the right one.
func (c *Control) Authenticate(r *http.Request) Verdict {
	want, v := c.expected()
	if v != NoToken {
		return v
	}
	if given, ok := bearer(r); ok {
		return c.compare(r, given, want)
	}
	return c.session(r, want)
}

// Login checks a token from the login form.
func (c *Control) Login(r *http.Request, given string) Verdict {
	want, v := c.expected()
	if v != NoToken {
		return v
	}
	return c.compare(r, given, want)
}

// StillValid reports whether a request that was authenticated would be now. It
// does not count as an attempt.
func (c *Control) StillValid(r *http.Request) bool {
	want, v := c.expected()
	if v != NoToken {
		return v == Granted
	}
	if given, ok := bearer(r); ok {
		return equal(given, want)
	}
	return c.session(r, want) == Granted
}

func bearer(r *http.Request) (string, bool) {
	kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(kind, "bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

func (c *Control) compare(r *http.Request, given, want string) Verdict {
	limit := c.limiter(r)
	if limit.TokensAt(c.now()) < 1 {
		return TooMany
	}
	if equal(given, want) {
		return Granted
	}
	limit.AllowN(c.now(), 1)
	return WrongToken
}

// equal compares tokens in constant time.
func equal(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Peer returns the peer of a connection's address: an IPv4 address or an IPv6 /64
// network, since one machine may use all addresses of that.
func Peer(address string) string {
	host := HostOf(address)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// limiter returns the limiter of the peer a request comes from.
func (c *Control) limiter(r *http.Request) *rate.Limiter {
	host := Peer(r.RemoteAddr)
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.peers[host]
	if limit == nil {
		if len(c.peers) >= maxPeers {
			clear(c.peers)
		}
		limit = rate.NewLimiter(rate.Every(failEvery), failBurst)
		c.peers[host] = limit
	}
	return limit
}

// cookie returns the value of a cookie: when it expires, and a MAC of this process
// over that and the present token.
func (c *Control) cookie(ends time.Time, token string) string {
	end := strconv.FormatInt(ends.Unix(), 10)
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write([]byte(end + "\n" + token))
	return end + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// session checks the cookie of a request.
func (c *Control) session(r *http.Request, token string) Verdict {
	found, err := r.Cookie(cookieName)
	if err != nil {
		return NoToken
	}
	end, _, ok := strings.Cut(found.Value, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil || c.now().Unix() >= seconds ||
		!hmac.Equal([]byte(found.Value), []byte(c.cookie(time.Unix(seconds, 0), token))) {
		return NoToken
	}
	return Granted
}

// StartSession sets the cookie for the paths below path.
func (c *Control) StartSession(w http.ResponseWriter, r *http.Request, path string) {
	if want, v := c.expected(); v == NoToken {
		setCookie(w, r, path, c.cookie(c.now().Add(sessionLife), want), int(sessionLife.Seconds()))
	}
}

// EndSession removes the cookie.
func (c *Control) EndSession(w http.ResponseWriter, r *http.Request, path string) {
	setCookie(w, r, path, "", -1)
}

// setCookie omits Secure on plain HTTP, where browsers would not send the cookie
// back: use TLS on networks that are not yours.
func setCookie(w http.ResponseWriter, r *http.Request, path, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: path, MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	})
}

// AllowsHost reports whether a request names this server. On the loopback it must
// name an address or localhost, so that a page on the Internet cannot read the
// answers by resolving its own name to 127.0.0.1.
func (c *Control) AllowsHost(r *http.Request) bool {
	if !c.loopback {
		return true
	}
	host := HostOf(r.Host)
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

// HostOf returns the host of an address, without its port and brackets.
func HostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	return strings.Trim(address, "[]")
}
