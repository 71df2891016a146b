package emulator

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
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

	mu     sync.Mutex
	secret string
	live   map[string]grant
}

// grant is what a token is good for.
type grant struct {
	expires  time.Time
	audience string   // "" for the workspace's own APIs
	tables   []string // lower case, that it may write; of tokens for the Zerobus endpoint
}

func (t *tokens) valid(id, secret string) bool {
	t.mu.Lock()
	want := t.secret
	t.mu.Unlock()
	return subtle.ConstantTimeCompare([]byte(id), []byte(t.clientID))&subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

// mint hands out an opaque token of at least size characters. Tokens past
// their end are forgotten on the way, so that as many are held as live at a
// time.
func (t *tokens) mint(g grant, size int) string {
	token := rand.Text() + rand.Text()
	for len(token) < size {
		token += rand.Text()
	}
	now := time.Now()
	g.expires = now.Add(t.lifetime)
	t.mu.Lock()
	defer t.mu.Unlock()
	for old, g := range t.live {
		if !now.Before(g.expires) {
			delete(t.live, old)
		}
	}
	t.live[token] = g
	return token
}

// find returns what a token is good for; ok is false when it is not good.
func (t *tokens) find(token string) (g grant, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok = t.live[token]
	return g, ok && time.Now().Before(g.expires)
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
	clear(e.tokens.live)
}

// AgeTokens makes every token handed out so far d older, as a jump of the
// service's clock does: they end earlier than their holders were told.
func (e *Emulator) AgeTokens(d time.Duration) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	for token, g := range e.tokens.live {
		g.expires = g.expires.Add(-d)
		e.tokens.live[token] = g
	}
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
	g, refused := e.grantOf(form)
	if refused != nil {
		return refused.answer(EndpointToken)
	}
	body := map[string]any{
		"token_type": "Bearer", "scope": scopeAll, "expires_in": int64(e.tokens.lifetime / time.Second),
	}
	size := 0
	if g.audience != "" {
		// The service's are as long, and repeat what was asked for: clients
		// must not expect an answer of a few hundred bytes.
		size = endpointTokenSize
		body["authorization_details"] = json.RawMessage(form.Get("authorization_details"))
	}
	body["access_token"] = e.tokens.mint(g, size)
	e.stats.minted.Add(1)
	a := jsonAnswer(http.StatusOK, body)
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

// bearer takes the token out of an Authorization header; "" when there is
// none.
func bearer(authorization string) string {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func unauthenticated(message string) *apiError {
	return &apiError{status: http.StatusUnauthorized, code: "UNAUTHENTICATED", message: message}
}

// authorize holds the bearer token of a call to the workspace's own APIs
// against those handed out.
func (e *Emulator) authorize(c *call) *apiError {
	token := bearer(c.header.Get("Authorization"))
	g, ok := e.tokens.find(token)
	switch {
	case token == "":
		return unauthenticated("Missing bearer token")
	case !ok:
		return unauthenticated("Invalid or expired token")
	case g.audience != "":
		return unauthenticated(badAudience)
	}
	return nil
}
