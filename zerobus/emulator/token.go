package emulator

import (
	"crypto/rand"
	"crypto/subtle"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// scopeAll is the scope that the workspace's APIs ask for.
const scopeAll = "all-apis"

// tokens knows the client's credentials and the tokens handed out for them.
type tokens struct {
	lifetime time.Duration
	clientID string

	mu      sync.Mutex
	secret  string
	expires map[string]time.Time // token -> end of life
}

func (t *tokens) valid(id, secret string) bool {
	t.mu.Lock()
	want := t.secret
	t.mu.Unlock()
	return subtle.ConstantTimeCompare([]byte(id), []byte(t.clientID))&subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

// mint hands out an opaque token. Tokens past their end are forgotten on the
// way, so that as many are held as live at a time.
func (t *tokens) mint() string {
	token := rand.Text() + rand.Text()
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, end := range t.expires {
		if !now.Before(end) {
			delete(t.expires, old)
		}
	}
	t.expires[token] = now.Add(t.lifetime)
	return token
}

func (t *tokens) alive(token string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	end, ok := t.expires[token]
	return ok && time.Now().Before(end)
}

// RotateSecret makes secret the only one that mints tokens. Tokens minted
// before stay good until they expire, as with the service.
func (e *Emulator) RotateSecret(secret string) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.secret = secret
}

// RevokeTokens makes every token handed out so far invalid.
func (e *Emulator) RevokeTokens() {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	clear(e.tokens.expires)
}

// token serves the OAuth 2.0 client credentials grant (RFC 6749, section
// 4.4); the client may identify itself by HTTP Basic or in the form.
func (e *Emulator) token(c *call) answer {
	refuse := func(status int, code, message string) answer {
		return (&apiError{status: status, code: code, message: message}).answer(EndpointToken)
	}
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return refuse(http.StatusBadRequest, "invalid_request", "Content-Type must be application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return refuse(http.StatusBadRequest, "invalid_request", "the body is not a valid form")
	}
	for name, values := range form {
		if len(values) > 1 {
			return refuse(http.StatusBadRequest, "invalid_request", "a form field occurs twice: "+printable(name))
		}
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, basic := basicAuth(c.header); basic {
		if secret != "" {
			return refuse(http.StatusBadRequest, "invalid_request", "credentials in both the Authorization header and the form; send them once")
		}
		id, secret = user, pass
	}
	if !e.tokens.valid(id, secret) {
		return refuse(http.StatusUnauthorized, "invalid_client", "Client authentication failed")
	}
	if got := form.Get("grant_type"); got != "client_credentials" {
		return refuse(http.StatusBadRequest, "unsupported_grant_type", "grant_type must be client_credentials")
	}
	if !slices.Contains(strings.Fields(form.Get("scope")), scopeAll) {
		return refuse(http.StatusBadRequest, "invalid_scope", "scope must be "+scopeAll)
	}
	if form.Has("resource") || form.Has("authorization_details") {
		return refuse(http.StatusBadRequest, "invalid_target", "this emulator mints plain workspace tokens; leave out resource and authorization_details")
	}
	e.stats.minted.Add(1)
	a := jsonAnswer(http.StatusOK, map[string]any{
		"access_token": e.tokens.mint(), "token_type": "Bearer", "scope": scopeAll,
		"expires_in": int64(e.tokens.lifetime / time.Second),
	})
	a.header.Set("Cache-Control", "no-store")
	return a
}

// basicAuth reads the header as RFC 6749, section 2.3.1, has it: both parts
// are form-encoded first. A part that is no valid encoding stands for itself.
func basicAuth(h http.Header) (id, secret string, ok bool) {
	id, secret, ok = (&http.Request{Header: h}).BasicAuth()
	if !ok {
		return "", "", false
	}
	if u, err := url.QueryUnescape(id); err == nil {
		id = u
	}
	if s, err := url.QueryUnescape(secret); err == nil {
		secret = s
	}
	return id, secret, true
}

// authorize holds the bearer token of a call against those handed out.
func (e *Emulator) authorize(c *call) *apiError {
	scheme, token, _ := strings.Cut(c.header.Get("Authorization"), " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(token) == "":
		return &apiError{status: http.StatusUnauthorized, code: "UNAUTHENTICATED", message: "Missing bearer token"}
	case !e.tokens.alive(strings.TrimSpace(token)):
		return &apiError{status: http.StatusUnauthorized, code: "UNAUTHENTICATED", message: "Invalid or expired token"}
	}
	return nil
}
