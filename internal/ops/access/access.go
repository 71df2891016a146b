// Package access says who may read what the ops server shows: it knows the
// token of ops.token, the sessions of browsers that have given it, and the names
// under which a server on the loopback answers.
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
	// A peer may fail to log in so often at once, and again every so often.
	failBurst = 10
	failEvery = 6 * time.Second
	maxPeers  = 1000 // whose failures are remembered
)

// Control lets in who knows the token: a bearer header for machines, a cookie that
// the login form sets for people. It is safe for concurrent use.
type Control struct {
	token    func() (string, error) // nil: nothing is asked
	loopback bool                   // only this machine can reach it
	key      [32]byte               // of this process's cookies
	now      func() time.Time

	mu    sync.Mutex // guards peers
	peers map[string]*rate.Limiter
}

// New makes a Control. token returns what a visitor must know, nil asks for
// nothing; it is called for each request, so that the token can be replaced.
// loopback says that the server listens on the loopback only.
func New(token func() (string, error), loopback bool) *Control {
	c := &Control{token: token, loopback: loopback, now: time.Now, peers: make(map[string]*rate.Limiter)}
	_, _ = rand.Read(c.key[:]) // never fails
	return c
}

// Verdict is what Judge and Login find.
type Verdict int

// The verdicts.
const (
	Granted    Verdict = iota
	NoToken            // none was given
	WrongToken         // another was given
	TooMany            // wrong ones, too often
	Unreadable         // the token itself cannot be read
)

// Refusal returns the status of the answer to a request that is not let in, and a
// sentence on what to do, and adds the headers that belong to them.
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

// Asks says whether there is a token to know.
func (c *Control) Asks() bool { return c.token != nil }

// Judge decides on a request. It never compares a token for a peer that has failed
// too often, not even the right one, or the limit would be none.
func (c *Control) Judge(r *http.Request) Verdict {
	if c.token == nil {
		return Granted
	}
	want, err := c.token()
	if err != nil || want == "" {
		return Unreadable
	}
	if given, ok := bearer(r); ok {
		return c.try(r, given, want)
	}
	if session, err := r.Cookie(cookieName); err == nil && c.valid(session.Value, want) {
		return Granted
	}
	return NoToken
}

func bearer(r *http.Request) (string, bool) {
	kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(kind, "bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// Login judges a token from the form.
func (c *Control) Login(r *http.Request, given string) Verdict {
	if c.token == nil {
		return Granted
	}
	want, err := c.token()
	if err != nil || want == "" {
		return Unreadable
	}
	return c.try(r, given, want)
}

func (c *Control) try(r *http.Request, given, want string) Verdict {
	limit := c.peer(r)
	if limit.TokensAt(c.now()) < 1 {
		return TooMany
	}
	if same(given, want) {
		return Granted
	}
	limit.AllowN(c.now(), 1)
	return WrongToken
}

// same compares tokens in a time that tells nothing of them.
func same(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Holds says whether what let a request in would do so still. It is no guess
// and counts as none.
func (c *Control) Holds(r *http.Request) bool {
	if c.token == nil {
		return true
	}
	want, err := c.token()
	if err != nil || want == "" {
		return false
	}
	if given, ok := bearer(r); ok {
		return same(given, want)
	}
	session, err := r.Cookie(cookieName)
	return err == nil && c.valid(session.Value, want)
}

// Peer is whom the address of a connection counts as: an IPv4 address, or all of
// an IPv6 network of 64 bits, since one machine has all addresses of that.
func Peer(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// peer returns the limiter of the address a request comes from.
func (c *Control) peer(r *http.Request) *rate.Limiter {
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

// session is the value of a cookie: when it ends, and proof that this process
// gave it to somebody who knew the present token.
func (c *Control) session(ends time.Time, token string) string {
	end := strconv.FormatInt(ends.Unix(), 10)
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write([]byte(end + "\n" + token))
	return end + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (c *Control) valid(cookie, token string) bool {
	end, _, ok := strings.Cut(cookie, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil || c.now().Unix() >= seconds {
		return false
	}
	return hmac.Equal([]byte(cookie), []byte(c.session(time.Unix(seconds, 0), token)))
}

// StartSession sets the cookie for the paths below path. Secure is left out on
// plain HTTP, where browsers would not send it back: put TLS in front where the
// network is not yours.
func (c *Control) StartSession(w http.ResponseWriter, r *http.Request, path string) {
	if c.token == nil {
		return
	}
	want, err := c.token()
	if err != nil {
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: c.session(c.now().Add(sessionLife), want), Path: path,
		MaxAge: int(sessionLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r),
	})
}

// EndSession takes the cookie back.
func (c *Control) EndSession(w http.ResponseWriter, r *http.Request, path string) {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: path, MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r)})
}

func overTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// OwnHost keeps pages of the Internet from reading a bridge on the loopback by
// having their own name resolve to it: there the request must name an address, or
// localhost.
func (c *Control) OwnHost(r *http.Request) bool {
	if !c.loopback {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
