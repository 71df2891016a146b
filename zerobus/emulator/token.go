package emulator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
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

// tokens knows the client's credentials and judges the tokens handed out for
// them. None is kept: a token holds what it is good for, signed with a key that
// follows from the credentials the emulator was started with, so that tokens
// outlive the process as the service's do.
type tokens struct {
	lifetime time.Duration
	clientID string
	key      []byte
	process  string // marks the tokens of this process

	mu      sync.Mutex
	secret  string
	revoked int           // calls of RevokeTokens
	aged    time.Duration // sum of AgeTokens
}

func newTokens(cfg Config) tokens {
	mac := hmac.New(sha256.New, []byte(cfg.ClientSecret))
	fmt.Fprintf(mac, "zerobus emulator token key\n%s", cfg.ClientID)
	return tokens{lifetime: cfg.TokenLifetime, clientID: cfg.ClientID, secret: cfg.ClientSecret, key: mac.Sum(nil), process: rand.Text()}
}

// grant is what a token is good for.
type grant struct {
	Audience string   `json:"audience,omitempty"` // "" for the workspace's own APIs
	Tables   []string `json:"tables,omitempty"`   // lower case, that it may write; of tokens for the Zerobus endpoint
}

// claims is the signed part of a token.
type claims struct {
	grant
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Process string    `json:"process"`
	Revoked int       `json:"revoked,omitempty"` // tokens.revoked and tokens.aged when it was minted
	Aged    int64     `json:"aged,omitempty"`
}

func (t *tokens) valid(id, secret string) bool {
	t.mu.Lock()
	want := t.secret
	t.mu.Unlock()
	return subtle.ConstantTimeCompare([]byte(id), []byte(t.clientID))&subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

// mint hands out a token of at least size characters: the claims, filling and
// the signature of both.
func (t *tokens) mint(g grant, size int) string {
	c := claims{grant: g, ID: rand.Text(), Expires: time.Now().Add(t.lifetime), Process: t.process}
	t.mu.Lock()
	c.Revoked, c.Aged = t.revoked, int64(t.aged)
	t.mu.Unlock()
	text, _ := json.Marshal(c) // strings, numbers and a time: never fails
	token := base64.RawURLEncoding.EncodeToString(text) + "."
	for len(token) < size {
		token += rand.Text()
	}
	return token + "." + t.sign(token)
}

func (t *tokens) sign(token string) string {
	mac := hmac.New(sha256.New, t.key)
	mac.Write([]byte(token))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// find returns what a token is good for; ok is false when it is not good.
func (t *tokens) find(token string) (g grant, ok bool) {
	end := strings.LastIndexByte(token, '.')
	if end < 0 || !hmac.Equal([]byte(t.sign(token[:end])), []byte(token[end+1:])) {
		return grant{}, false
	}
	part, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(part)
	var c claims
	if err != nil || json.Unmarshal(text, &c) != nil {
		return grant{}, false
	}
	if c.Process != t.process { // older than all that happened here
		c.Revoked, c.Aged = 0, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.grant, c.Revoked == t.revoked && time.Now().Before(c.Expires.Add(time.Duration(c.Aged)-t.aged))
}

// RotateSecret makes secret the only one that mints tokens. Tokens minted
// before stay good until they expire, as with the service.
func (e *Emulator) RotateSecret(secret string) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.secret = secret
}

// RevokeTokens makes every token handed out so far invalid, those of an
// emulator with the same credentials before this one included. The next
// emulator does not know of it.
func (e *Emulator) RevokeTokens() {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.revoked++
}

// AgeTokens makes every token handed out so far d older, as a jump of the
// service's clock does: they end earlier than their holders were told.
func (e *Emulator) AgeTokens(d time.Duration) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.aged += d
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
	if g.Audience != "" {
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
	case g.Audience != "":
		return unauthenticated(badAudience)
	}
	return nil
}
