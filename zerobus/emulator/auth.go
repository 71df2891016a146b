package emulator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// scopeAll is the scope of the workspace's APIs.
const scopeAll = "all-apis"

// tokens holds the client's credentials and checks the tokens issued for them.
// It stores no tokens: a token contains what it permits, signed with a key
// derived from the initial credentials, so that tokens outlive the process.
type tokens struct {
	lifetime time.Duration
	clientID string
	key      []byte
	process  string // marks the tokens of this process

	mu         sync.Mutex
	secret     string
	federation Federation
	revoked    int           // calls of RevokeTokens
	aged       time.Duration // sum of AgeTokens
}

func newTokens(cfg Config) tokens {
	mac := hmac.New(sha256.New, []byte(cfg.ClientSecret))
	fmt.Fprintf(mac, "zerobus emulator token key\n%s", cfg.ClientID)
	return tokens{lifetime: cfg.TokenLifetime, clientID: cfg.ClientID, secret: cfg.ClientSecret, federation: cfg.Federation, key: mac.Sum(nil), process: rand.Text()}
}

// claims is the signed part of a token.
type claims struct {
	Audience string    `json:"audience,omitzero"` // "" for the workspace's own APIs
	Tables   []string  `json:"tables,omitempty"`  // lower case, that it may write; of tokens for the Zerobus endpoint
	ID       string    `json:"id"`
	Expires  time.Time `json:"expires"`
	Process  string    `json:"process"`
	Revoked  int       `json:"revoked,omitzero"` // tokens.revoked and tokens.aged when it was issued
	Aged     int64     `json:"aged,omitzero"`
}

func (t *tokens) valid(id, secret string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return subtle.ConstantTimeCompare([]byte(id), []byte(t.clientID))&subtle.ConstantTimeCompare([]byte(secret), []byte(t.secret)) == 1
}

// issue returns a token of at least size characters: the claims, padding and
// the signature of both.
func (t *tokens) issue(c claims, size int) string {
	t.mu.Lock()
	c.Revoked, c.Aged = t.revoked, int64(t.aged)
	t.mu.Unlock()
	c.ID, c.Expires, c.Process = rand.Text(), time.Now().Add(t.lifetime), t.process
	token := base64.RawURLEncoding.EncodeToString(marshal(c)) + "."
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

// check returns what a token permits; ok is false for an invalid token.
func (t *tokens) check(token string) (c claims, ok bool) {
	end := strings.LastIndexByte(token, '.')
	if end < 0 || !hmac.Equal([]byte(t.sign(token[:end])), []byte(token[end+1:])) {
		return claims{}, false
	}
	part, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claims{}, false
	}
	if c.Process != t.process { // issued before this process revoked or aged tokens
		c.Revoked, c.Aged = 0, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return c, c.Revoked == t.revoked && time.Now().Before(c.Expires.Add(time.Duration(c.Aged)-t.aged))
}

// RotateSecret replaces the client secret. Tokens issued before stay valid
// until they expire, as with the service.
func (e *Emulator) RotateSecret(secret string) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.secret = secret
}

// RevokeTokens invalidates all tokens issued so far, also those of an earlier
// emulator with the same credentials. The revocation ends with the process.
func (e *Emulator) RevokeTokens() {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.revoked++
}

// AgeTokens makes all tokens issued so far d older, like a jump of the
// service's clock: they expire earlier than their holders expect.
func (e *Emulator) AgeTokens(d time.Duration) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.aged += d
}

// token serves the OAuth 2.0 client credentials grant (RFC 6749, section 4.4), in which
// the client identifies itself by HTTP Basic or in the form, and the exchange of a JWT.
func (e *Emulator) token(c *call) (any, *apiError) {
	form, granted, err := e.readTokenRequest(c)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"token_type": "Bearer", "scope": scopeAll, "expires_in": int64(e.tokens.lifetime / time.Second)}
	size := 0
	if granted.Audience != "" { // the service's answers are as long and repeat the request
		size = endpointTokenSize
		body["authorization_details"] = jsontext.Value(form.Get("authorization_details"))
	}
	body["access_token"] = e.tokens.issue(granted, size)
	e.stats.count(func(s *Stats) { s.Tokens++ })
	return body, nil
}

// readTokenRequest returns the form and what the token has to permit.
func (e *Emulator) readTokenRequest(c *call) (url.Values, claims, *apiError) {
	refuse := func(code, message string) (url.Values, claims, *apiError) {
		return nil, claims{}, &apiError{status: http.StatusBadRequest, code: code, message: message}
	}
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return refuse("invalid_request", "Content-Type must be application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return refuse("invalid_request", "the body is not a valid form")
	}
	for name, values := range form {
		if len(values) > 1 {
			return refuse("invalid_request", "a form field occurs twice: "+printable(name))
		}
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, basic := (&http.Request{Header: c.header}).BasicAuth(); basic {
		if secret != "" {
			return refuse("invalid_request", "credentials in both the Authorization header and the form; send them once")
		}
		id, secret = formDecoded(user), formDecoded(pass)
	}
	exchange := form.Get("grant_type") == grantExchange
	if exchange {
		if err := e.checkExchange(form); err != nil {
			return nil, claims{}, err
		}
	}
	switch {
	case !exchange && !e.tokens.valid(id, secret):
		return nil, claims{}, &apiError{status: http.StatusUnauthorized, code: "invalid_client", message: "Client authentication failed"}
	case !exchange && form.Get("grant_type") != "client_credentials":
		return refuse("unsupported_grant_type", "grant_type must be client_credentials or "+grantExchange)
	case !slices.Contains(strings.Fields(form.Get("scope")), scopeAll):
		return refuse("invalid_scope", "scope must be "+scopeAll)
	}
	granted, refused := e.grant(form)
	return form, granted, refused
}

// formDecoded resolves the form encoding that RFC 6749, section 2.3.1, asks for
// in HTTP Basic. Text that is not encoded so is taken literally.
func formDecoded(text string) string {
	if out, err := url.QueryUnescape(text); err == nil {
		return out
	}
	return text
}

// detail is one element of authorization_details (RFC 9396).
type detail struct {
	Type       string   `json:"type"`
	Privileges []string `json:"privileges"`
	ObjectType string   `json:"object_type"`
	Path       string   `json:"object_full_path"`
}

// grant reads what a token request asks for besides the workspace's APIs.
// Missing grants and missing objects get the same answer.
func (e *Emulator) grant(form url.Values) (claims, *apiError) {
	resource, details := form.Get("resource"), form.Get("authorization_details")
	if resource == "" && details == "" {
		return claims{}, nil
	}
	bad := func(code, message string) (claims, *apiError) {
		return claims{}, &apiError{status: http.StatusBadRequest, code: code, message: message}
	}
	if resource != e.Resource() {
		return bad("invalid_target", fmt.Sprintf("resource is %q and must be %q", printable(resource), e.Resource()))
	}
	var asked []detail
	if err := json.Unmarshal([]byte(details), &asked); err != nil || len(asked) == 0 {
		return bad("invalid_authorization_details", "authorization_details must be a JSON array of objects")
	}
	have := map[string]map[string]bool{PrivilegeModify: {}, PrivilegeSelect: {}} // privilege -> tables
	for _, d := range asked {
		parts := map[string]int{"CATALOG": 1, "SCHEMA": 2, "TABLE": 3}[d.ObjectType]
		if d.Type != "unity_catalog_privileges" || parts == 0 || strings.Count(d.Path, ".") != parts-1 || len(d.Privileges) == 0 {
			return bad("invalid_authorization_details", "authorization_details holds an object that is no unity_catalog_privileges of a CATALOG, SCHEMA or TABLE")
		}
		path := strings.ToLower(d.Path)
		for _, p := range d.Privileges {
			if !e.granted(e.cfg.ClientID, p, path) {
				return claims{}, &apiError{
					status: http.StatusUnauthorized, code: "invalid_authorization_details",
					message: "User is not authorized to the requested authorizations",
				}
			}
			if tables := have[p]; tables != nil {
				tables[path] = true
			}
		}
	}
	granted := claims{Audience: resource}
	for table := range have[PrivilegeModify] {
		if have[PrivilegeSelect][table] {
			granted.Tables = append(granted.Tables, table)
		}
	}
	return granted, nil
}

// bearer returns the token of an Authorization header, or "".
func bearer(authorization string) string {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// AdminPrincipal is the metastore's admin, and the owner of what Config.DDL and
// the admin API create. Its token is Config.AdminToken.
const AdminPrincipal = "metastore-admin"

// authorize checks the bearer token of a call to the workspace's own APIs, and
// sets the call's principal.
func (e *Emulator) authorize(c *call) *apiError {
	token := bearer(c.header.Get("Authorization"))
	if c.principal = e.cfg.ClientID; subtle.ConstantTimeCompare([]byte(token), []byte(e.cfg.AdminToken)) == 1 {
		c.principal = AdminPrincipal
		return nil
	}
	granted, ok := e.tokens.check(token)
	switch {
	case token == "":
		return refusal(http.StatusUnauthorized, "Missing bearer token")
	case !ok:
		return refusal(http.StatusUnauthorized, "Invalid or expired token")
	case granted.Audience != "":
		return refusal(http.StatusUnauthorized, badAudience)
	}
	return nil
}

// AuthMode is what the Zerobus endpoint asks of a token.
type AuthMode string

// AuthStrict takes tokens of the emulator's own token endpoint that were
// requested for this endpoint and this table and have not expired. AuthPresence
// takes any bearer token, AuthOff needs none.
const (
	AuthStrict   AuthMode = "strict"
	AuthPresence AuthMode = "presence"
	AuthOff      AuthMode = "off"
)

const (
	badAudience       = "Invalid token audience"
	endpointTokenSize = 4000 // characters of a token for the Zerobus endpoint, about as many as the service's
)

// Resource is what a token request for the Zerobus endpoint must name.
func (e *Emulator) Resource() string {
	return "api://databricks/workspaces/" + e.cfg.WorkspaceID + "/zerobusDirectWriteApi"
}

// authorizeEndpoint checks the Authorization header of a call to the Zerobus
// endpoint that writes to table.
func (e *Emulator) authorizeEndpoint(authorization, table string) *apiError {
	token := bearer(authorization)
	switch {
	case e.cfg.Auth == AuthOff:
		return nil
	case token == "":
		return refusal(http.StatusUnauthorized, "Missing bearer token")
	case e.cfg.Auth == AuthPresence:
		return nil
	}
	switch granted, ok := e.tokens.check(token); {
	case !ok:
		return refusal(http.StatusUnauthorized, "Invalid token")
	case granted.Audience != e.Resource():
		return refusal(http.StatusUnauthorized, badAudience)
	case !slices.Contains(granted.Tables, strings.ToLower(table)):
		return missingPrivilege(PrivilegeModify, table)
	}
	return nil
}

func missingPrivilege(privilege, table string) *apiError {
	return refusal(http.StatusForbidden, numbered("Authorization token is missing "+privilege+" privilege for a table "+printable(table)+".", codePrivilege, 0))
}

// permitEndpoint checks the current grants and the table's kind: a grant can
// be revoked while a token is valid.
func (e *Emulator) permitEndpoint(t *Table) *apiError {
	for _, p := range []string{PrivilegeModify, PrivilegeSelect} {
		if err := e.permit(e.cfg.ClientID, t.name, p); err != nil {
			return missingPrivilege(p, t.name)
		}
	}
	return t.takesRows()
}
