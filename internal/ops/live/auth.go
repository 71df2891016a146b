package live

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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

// door lets in who knows the token: a bearer header for machines, a cookie that
// the login form sets for people.
type door struct {
	token    func() (string, error) // nil: nothing is asked
	loopback bool                   // only this machine can reach it
	key      [32]byte               // of this process's cookies
	now      func() time.Time

	mu    sync.Mutex // guards peers
	peers map[string]*rate.Limiter
}

func newDoor(token func() (string, error), loopback bool) *door {
	d := &door{token: token, loopback: loopback, now: time.Now, peers: make(map[string]*rate.Limiter)}
	_, _ = rand.Read(d.key[:]) // never fails
	return d
}

// verdict on a request.
type verdict int

const (
	welcome verdict = iota
	stranger
	wrong   // a token that is not the token
	tooMany // wrong too often
	broken  // the token cannot be read
)

// judge never compares a token for a peer that has failed too often, not even
// the right one, or the limit would be none.
func (d *door) judge(r *http.Request) verdict {
	if d.token == nil {
		return welcome
	}
	want, err := d.token()
	if err != nil || want == "" {
		return broken
	}
	if given, ok := bearer(r); ok {
		return d.try(r, given, want)
	}
	if c, err := r.Cookie(cookieName); err == nil && d.valid(c.Value, want) {
		return welcome
	}
	return stranger
}

func bearer(r *http.Request) (string, bool) {
	kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(kind, "bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// login judges a token from the form.
func (d *door) login(r *http.Request, given string) verdict {
	if d.token == nil {
		return welcome
	}
	want, err := d.token()
	if err != nil || want == "" {
		return broken
	}
	return d.try(r, given, want)
}

func (d *door) try(r *http.Request, given, want string) verdict {
	limit := d.peer(r)
	if limit.TokensAt(d.now()) < 1 {
		return tooMany
	}
	if same(given, want) {
		return welcome
	}
	limit.AllowN(d.now(), 1)
	return wrong
}

// same compares tokens in a time that tells nothing of them.
func same(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// holds tells whether what let a request in would do so still. It is no guess
// and counts as none.
func (d *door) holds(r *http.Request) bool {
	if d.token == nil {
		return true
	}
	want, err := d.token()
	if err != nil || want == "" {
		return false
	}
	if given, ok := bearer(r); ok {
		return same(given, want)
	}
	c, err := r.Cookie(cookieName)
	return err == nil && d.valid(c.Value, want)
}

// peer returns the limiter of the address a request comes from; all of an IPv6
// network share one.
func (d *door) peer(r *http.Request) *rate.Limiter {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			host = p.String()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := d.peers[host]
	if limit == nil {
		if len(d.peers) >= maxPeers {
			clear(d.peers)
		}
		limit = rate.NewLimiter(rate.Every(failEvery), failBurst)
		d.peers[host] = limit
	}
	return limit
}

// session is the value of a cookie: when it ends, and proof that this process
// gave it to somebody who knew the present token.
func (d *door) session(ends time.Time, token string) string {
	end := strconv.FormatInt(ends.Unix(), 10)
	mac := hmac.New(sha256.New, d.key[:])
	mac.Write([]byte(end + "\n" + token))
	return end + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (d *door) valid(cookie, token string) bool {
	end, _, ok := strings.Cut(cookie, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil || d.now().Unix() >= seconds {
		return false
	}
	return hmac.Equal([]byte(cookie), []byte(d.session(time.Unix(seconds, 0), token)))
}

// letIn sets the cookie. Secure is left out on plain HTTP, where browsers would
// not send it back: put TLS in front where the network is not yours.
func (d *door) letIn(w http.ResponseWriter, r *http.Request) {
	want, err := d.token()
	if err != nil {
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: d.session(d.now().Add(sessionLife), want), Path: base,
		MaxAge: int(sessionLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r),
	})
}

func (d *door) letOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: base, MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r)})
}

func overTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// ownHost keeps pages of the Internet from reading a bridge on the loopback by
// having their own name resolve to it: there, without a token, the request must
// name an address, or localhost.
func (d *door) ownHost(r *http.Request) bool {
	if d.token != nil || !d.loopback {
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

// ownSite tells requests of this page, and of what is no page, from those that
// a page of another site makes: it could read none of the answers, but make the
// bridge work. All it may do is link here. Browsers say Sec-Fetch-Site over TLS
// and to localhost, and elsewhere an Origin with what is not a plain GET.
func ownSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		origin := r.Header.Get("Origin")
		from, err := url.Parse(origin)
		return origin == "" || err == nil && from.Host != "" && (from.Host == r.Host || from.Host == r.Header.Get("X-Forwarded-Host"))
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && (r.URL.Path == base || r.URL.Path == base+"login")
}
