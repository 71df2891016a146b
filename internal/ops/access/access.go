// Package access authenticates requests to the ops server and the install API: by a
// token or a browser session, and by the Host header of a server on the loopback.
package access

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
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
	// sessionLife is how long a browser stays logged in.
	sessionLife = 12 * time.Hour
	// A peer may give failBurst wrong tokens at once and another each failEvery.
	failBurst = 10
	failEvery = 6 * time.Second
	maxPeers  = 1000 // with limiters
	// longToken is the length from which a token cannot be guessed. All clients of a proxy
	// have its address, so wrong tokens of one must not keep out the others.
	longToken = 32
	// maxCookie is the size of a cookie that browsers keep, with some room for its name.
	maxCookie = 4000
)

// Roles, each of which may do what those before it may.
const (
	Viewer = "viewer"
	Editor = "editor"
	Admin  = "admin"
)

var ranks = map[string]int{Viewer: 1, Editor: 2, Admin: 3}

// Identity is who sends a request.
type Identity struct {
	Name string `json:"name"` // of the token, or subject of the JWT
	Role string `json:"role"`
}

// May reports whether the identity may do what a role may.
func (i Identity) May(role string) bool { return ranks[role] > 0 && ranks[i.Role] >= ranks[role] }

// Tokens finds who a token belongs to. It is called for each request, so that tokens
// can be replaced. The error is ErrUnknown, ErrExpired, ErrNoRole, or why the tokens cannot
// be read, whichever token is given.
type Tokens func(token string) (Identity, error)

// Errors of Tokens.
var (
	ErrUnknown = errors.New("the token belongs to nobody")
	ErrExpired = errors.New("the token has expired")
	ErrNoRole  = errors.New("the token is valid, and has no role")
)

// One returns the Tokens of ops.token: one token, which belongs to a viewer. source
// returns it.
func One(source func() (string, error)) Tokens {
	return func(token string) (Identity, error) {
		want, err := source()
		switch {
		case err != nil:
			return Identity{}, err
		case want == "":
			return Identity{}, errors.New("the token is empty")
		case !equal(sha256.Sum256([]byte(token)), sha256.Sum256([]byte(want))):
			return Identity{}, ErrUnknown
		}
		return Identity{Name: "ops.token", Role: Viewer}, nil
	}
}

// Control authenticates requests that have a token as a bearer header or in the
// cookie that the login form sets. It is safe for concurrent use.
type Control struct {
	tokens   Tokens   // nil: no authentication
	open     Identity // of every request, if tokens is nil
	loopback bool     // the server listens on the loopback only
	chosen   bool     // a person may have chosen the token, so that it could be guessed
	seal     cipher.AEAD
	now      func() time.Time

	mu    sync.Mutex // guards peers
	peers map[string]*rate.Limiter
}

// New returns a Control of the ops server. token returns the expected token and is
// called for each request, so that the token can be replaced; nil turns authentication
// off. loopback is true if the server listens on the loopback only.
func New(token func() (string, error), loopback bool) *Control {
	if token == nil {
		return NewControl(nil, Identity{Name: "anyone", Role: Viewer}, loopback)
	}
	c := NewControl(One(token), Identity{}, loopback)
	c.chosen = true
	return c
}

// NewControl returns a Control with identities. Without tokens every request has the
// identity open.
func NewControl(tokens Tokens, open Identity, loopback bool) *Control {
	var secret [32]byte         // of this process
	_, _ = rand.Read(secret[:]) // never fails
	c := &Control{tokens: tokens, open: open, loopback: loopback, now: time.Now, peers: make(map[string]*rate.Limiter)}
	c.SealSessions(secret[:])
	return c
}

// SealSessions has the sessions sealed with a key that is derived from secret, instead
// of one of this process: members that share the secret accept each other's. Call it
// before the first request.
func (c *Control) SealSessions(secret []byte) {
	key, err := hkdf.Key(sha256.New, secret, nil, "bridge browser sessions", 32)
	if err != nil {
		panic(err) // the length is one that HKDF allows
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has the right size
	}
	if c.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		panic(err) // AES has the right block size
	}
}

// Verdict is the result of an authentication.
type Verdict int

// The verdicts.
const (
	Granted    Verdict = iota
	NoToken            // the request has no token
	WrongToken         // the request has another token
	Expired            // the token was valid once
	NoRole             // the token is valid, and may do nothing here
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
		return http.StatusServiceUnavailable, "the tokens cannot be read; check ops.token_file, or for the install API admin.token_file"
	case NoRole:
		return http.StatusForbidden, "the token has no role here; ask for the claim role of viewer, editor or admin"
	case Granted, NoToken, WrongToken, Expired:
	}
	h.Set("WWW-Authenticate", `Bearer realm="bridge"`)
	return http.StatusUnauthorized, "this needs the token of ops.token, or for the install API one of admin.token_file: send it as a bearer header"
}

// Enabled reports whether requests need a token.
func (c *Control) Enabled() bool { return c.tokens != nil }

// Authenticate checks a request. For a peer above the limit of wrong tokens it compares
// none, not even the right one, except those of [NewControl] that cannot be guessed.
func (c *Control) Authenticate(r *http.Request) Verdict {
	_, v := c.Identify(r)
	return v
}

// Identify is Authenticate, and returns who sends the request.
func (c *Control) Identify(r *http.Request) (Identity, Verdict) {
	if given, ok := bearer(r); ok {
		return c.Login(r, given)
	}
	who, v := c.verify(c.session(r))
	if v == WrongToken || v == Expired || v == NoRole {
		v = NoToken // the session has ended
	}
	return who, v
}

// Login checks a token from the login form.
func (c *Control) Login(r *http.Request, given string) (Identity, Verdict) {
	limit := c.limiter(r)
	exceeded := c.tokens != nil && limit.TokensAt(c.now()) < 1
	if exceeded && (c.chosen || len(given) < longToken) {
		return Identity{}, TooMany
	}
	who, v := c.verify(given)
	switch {
	case v != NoToken && v != WrongToken:
		return who, v
	case exceeded:
		return who, TooMany
	}
	limit.AllowN(c.now(), 1)
	return who, WrongToken
}

// StillValid reports whether a request that was authenticated would be now. It
// does not count as an attempt.
func (c *Control) StillValid(r *http.Request) bool {
	given, ok := bearer(r)
	if !ok {
		given = c.session(r)
	}
	_, v := c.verify(given)
	return v == Granted
}

// verify returns who a token belongs to.
func (c *Control) verify(token string) (Identity, Verdict) {
	if c.tokens == nil {
		return c.open, Granted
	}
	who, err := c.tokens(token)
	switch {
	case err == nil:
		return who, Granted
	case errors.Is(err, ErrExpired):
		return Identity{}, Expired
	case errors.Is(err, ErrNoRole):
		return Identity{}, NoRole
	case !errors.Is(err, ErrUnknown):
		return Identity{}, Unreadable
	case token == "":
		return Identity{}, NoToken
	}
	return Identity{}, WrongToken
}

// bearer returns the token of the header. With several headers, it is that of nobody: a
// proxy may have verified another one.
func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return "", true
	}
	kind, token, ok := strings.Cut(strings.Join(values, ""), " ")
	if !ok || !strings.EqualFold(kind, "bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// equal compares hashes of tokens in constant time.
func equal(a, b [sha256.Size]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

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

// session returns the token of the session that a request belongs to; empty: none.
func (c *Control) session(r *http.Request) string {
	found, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	sealed, err := base64.RawURLEncoding.DecodeString(found.Value)
	if err != nil {
		return ""
	}
	plain, err := c.seal.Open(nil, nil, sealed, nil)
	if err != nil {
		return ""
	}
	end, token, _ := strings.Cut(string(plain), " ")
	if seconds, err := strconv.ParseInt(end, 10, 64); err != nil || c.now().Unix() >= seconds {
		return ""
	}
	return token
}

// StartSession sets the cookie for the paths below path. It holds the token, encrypted:
// a token that is replaced or expires ends its sessions. ok is false if the token is too
// long for a cookie.
func (c *Control) StartSession(w http.ResponseWriter, r *http.Request, path, token string) (ok bool) {
	if c.tokens == nil {
		return true
	}
	plain := fmt.Appendf(nil, "%d %s", c.now().Add(sessionLife).Unix(), token)
	value := base64.RawURLEncoding.EncodeToString(c.seal.Seal(nil, nil, plain, nil))
	if len(value) > maxCookie {
		return false
	}
	setCookie(w, r, path, value, int(sessionLife.Seconds()))
	return true
}

// EndSession removes the cookie.
func (c *Control) EndSession(w http.ResponseWriter, r *http.Request, path string) {
	setCookie(w, r, path, "", -1)
}

// cookieName contains the port: browsers send a cookie to all ports of a host, and each
// listener has sessions of its own.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host) // without a port: that of the scheme
	return "bridge_session" + port
}

// setCookie omits Secure on plain HTTP, where browsers would not send the cookie
// back: use TLS on networks that are not yours.
func setCookie(w http.ResponseWriter, r *http.Request, path, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: value, Path: path, MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
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
