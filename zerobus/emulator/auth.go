package emulator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
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

// tokens holds the client's credentials and checks the tokens issued for
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
// service's clock does: they end earlier than their holders expect.
func (e *Emulator) AgeTokens(d time.Duration) {
	e.tokens.mu.Lock()
	defer e.tokens.mu.Unlock()
	e.tokens.aged += d
}

// token serves the OAuth 2.0 client credentials grant (RFC 6749, section
// 4.4); the client may identify itself by HTTP Basic or in the form.
func (e *Emulator) token(c *call) answer {
	form, g, refused := e.readTokenRequest(c)
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
	e.stats.count(func(s *Stats) { s.Tokens++ })
	a := jsonAnswer(http.StatusOK, body)
	a.header.Set("Cache-Control", "no-store")
	return a
}

// readTokenRequest returns the form and what the token is to be good for.
func (e *Emulator) readTokenRequest(c *call) (form url.Values, g grant, _ *apiError) {
	refuse := func(code, message string) (url.Values, grant, *apiError) {
		return nil, grant{}, &apiError{status: http.StatusBadRequest, code: code, message: message}
	}
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return refuse("invalid_request", "Content-Type must be application/x-www-form-urlencoded")
	}
	if form, err = url.ParseQuery(string(c.body)); err != nil {
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
	switch {
	case !e.tokens.valid(id, secret):
		return nil, grant{}, &apiError{status: http.StatusUnauthorized, code: "invalid_client", message: "Client authentication failed"}
	case form.Get("grant_type") != "client_credentials":
		return refuse("unsupported_grant_type", "grant_type must be client_credentials")
	case !slices.Contains(strings.Fields(form.Get("scope")), scopeAll):
		return refuse("invalid_scope", "scope must be "+scopeAll)
	}
	g, refused := e.grantOf(form)
	return form, g, refused
}

// formDecoded resolves the form encoding that RFC 6749, section 2.3.1, wants
// for HTTP Basic. Text that is no valid encoding stands for itself.
func formDecoded(text string) string {
	if out, err := url.QueryUnescape(text); err == nil {
		return out
	}
	return text
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

// authorize checks the bearer token of a call to the workspace's own APIs.
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

// AuthMode is what the Zerobus endpoint asks of a token.
type AuthMode int

const (
	// AuthStrict takes tokens of the emulator's own token endpoint that were
	// asked for this endpoint and this table, and are not expired.
	AuthStrict AuthMode = iota
	// AuthPresence takes any bearer token.
	AuthPresence
	// AuthOff asks for none.
	AuthOff
)

var authModes = [...]string{"strict", "presence", "off"}

// String is the text that ParseAuthMode reads.
func (m AuthMode) String() string { return authModes[m] }

// ParseAuthMode reads strict, presence or off.
func ParseAuthMode(text string) (AuthMode, error) {
	return AuthMode(max(slices.Index(authModes[:], text), 0)), oneOf("auth mode", text, authModes[:])
}

const (
	badAudience       = "Invalid token audience"
	endpointTokenSize = 4000 // characters of a token for the Zerobus endpoint: as large as they were seen to be
)

// Resource is what a token request for the Zerobus endpoint must name.
func (e *Emulator) Resource() string {
	return "api://databricks/workspaces/" + e.cfg.WorkspaceID + "/zerobusDirectWriteApi"
}

// detail is one element of authorization_details (RFC 9396).
type detail struct {
	Type       string   `json:"type"`
	Privileges []string `json:"privileges"`
	ObjectType string   `json:"object_type"`
	Path       string   `json:"object_full_path"`
	Operations []string `json:"operations"`
}

// grantOf reads what a token request asks for beyond the workspace's APIs.
// Grants that are missing and objects that do not exist get the same answer.
func (e *Emulator) grantOf(form url.Values) (grant, *apiError) {
	resource, details := form.Get("resource"), form.Get("authorization_details")
	if resource == "" && details == "" {
		return grant{}, nil
	}
	bad := func(code, format string, args ...any) (grant, *apiError) {
		return grant{}, &apiError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
	}
	if resource != e.Resource() {
		return bad("invalid_target", "resource is %q and must be %q", printable(resource), e.Resource())
	}
	var asked []detail
	if err := json.Unmarshal([]byte(details), &asked); err != nil || len(asked) == 0 {
		return bad("invalid_authorization_details", "authorization_details must be a JSON array of objects")
	}
	g := grant{Audience: resource}
	writable, readable := map[string]bool{}, map[string]bool{}
	for _, d := range asked {
		parts := map[string]int{"CATALOG": 1, "SCHEMA": 2, "TABLE": 3}[d.ObjectType]
		if d.Type != "unity_catalog_privileges" || parts == 0 || strings.Count(d.Path, ".") != parts-1 || len(d.Privileges) == 0 {
			return bad("invalid_authorization_details", "authorization_details holds an object that is no unity_catalog_privileges of a CATALOG, SCHEMA or TABLE")
		}
		path := strings.ToLower(d.Path)
		for _, p := range d.Privileges {
			if !e.holds(p, path) {
				return grant{}, &apiError{
					status: http.StatusUnauthorized, code: "invalid_authorization_details",
					message: "User is not authorized to the requested authorizations",
				}
			}
			if d.ObjectType == "TABLE" {
				writable[path] = writable[path] || p == PrivilegeModify
				readable[path] = readable[path] || p == PrivilegeSelect
			}
		}
	}
	for table := range writable {
		if writable[table] && readable[table] {
			g.Tables = append(g.Tables, table)
		}
	}
	return g, nil
}

// holds reports whether an object exists and the principal has a privilege on
// it.
func (e *Emulator) holds(privilege, path string) bool {
	key, err := privilegeKey(privilege, path)
	if err != nil {
		return false
	}
	exists := slices.ContainsFunc(e.Tables(), func(name string) bool {
		return name == path || strings.HasPrefix(name, path+".")
	})
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	return exists && !e.privileges.revoked[key]
}

// authorizeEndpoint judges the Authorization header of a call to the Zerobus
// endpoint that writes to table.
func (e *Emulator) authorizeEndpoint(authorization, table string) *apiError {
	if e.cfg.Auth == AuthOff {
		return nil
	}
	token := bearer(authorization)
	if token == "" {
		return unauthenticated("Missing bearer token")
	}
	if e.cfg.Auth == AuthPresence {
		return nil
	}
	g, ok := e.tokens.find(token)
	switch {
	case !ok:
		return unauthenticated("Invalid token")
	case g.Audience != e.Resource():
		return unauthenticated(badAudience)
	case !slices.Contains(g.Tables, strings.ToLower(table)):
		return missingPrivilege(PrivilegeModify, table)
	}
	return nil
}

func missingPrivilege(privilege, table string) *apiError {
	return &apiError{
		status: http.StatusForbidden, code: "PERMISSION_DENIED",
		message: numbered("Authorization token is missing "+privilege+" privilege for a table "+printable(table)+".", codePrivilege, 0),
	}
}

// permitEndpoint checks what a principal needs to write by the Zerobus
// endpoint, now: a grant can be taken back while a token lives. The table has to
// be of a kind that takes rows, too.
func (e *Emulator) permitEndpoint(t *Table) *apiError {
	for _, p := range []string{PrivilegeModify, PrivilegeSelect} {
		if err := e.permit(t.name, p); err != nil {
			return missingPrivilege(p, t.name)
		}
	}
	return t.takesRows()
}

func tableNotFound(table string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "NOT_FOUND", message: `Table "` + printable(table) + `" cannot be found.`}
}

// The privileges the emulator knows.
const (
	PrivilegeUseCatalog = "USE CATALOG" // on a catalog
	PrivilegeUseSchema  = "USE SCHEMA"  // on catalog.schema
	PrivilegeSelect     = "SELECT"      // on catalog.schema.table
	PrivilegeModify     = "MODIFY"      // on catalog.schema.table
)

var (
	privilegeNames = []string{PrivilegeUseCatalog, PrivilegeUseSchema, PrivilegeSelect, PrivilegeModify}
	privilegeParts = map[string]int{PrivilegeUseCatalog: 1, PrivilegeUseSchema: 2, PrivilegeSelect: 3, PrivilegeModify: 3} // of the names they hold on
)

// privileges holds what the client may not do. It starts with every grant in
// place, as a workspace set up by the integration's page has them.
type privileges struct {
	mu      sync.Mutex
	revoked map[string]bool // "MODIFY on datafly.events.stream"
}

func privilegeKey(privilege, on string) (string, error) {
	privilege, on = strings.ToUpper(strings.TrimSpace(privilege)), strings.ToLower(strings.TrimSpace(on))
	parts := privilegeParts[privilege]
	if parts == 0 {
		return "", oneOf("privilege", privilege, privilegeNames)
	}
	if on == "" || strings.Count(on, ".") != parts-1 {
		return "", fmt.Errorf("privilege %s on %q: want a name of %d part(s)", privilege, on, parts)
	}
	return privilege + " on " + on, nil
}

// Grant gives back a privilege taken away by Revoke: USE CATALOG on a catalog,
// USE SCHEMA on catalog.schema, SELECT or MODIFY on a table.
func (e *Emulator) Grant(privilege, on string) error {
	return e.privileges.set("grant", privilege, on)
}

// Revoke takes a privilege away: requests that need it answer 403.
func (e *Emulator) Revoke(privilege, on string) error {
	return e.privileges.set("revoke", privilege, on)
}

func (p *privileges) set(verb, privilege, on string) error {
	key, err := privilegeKey(privilege, on)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.revoked, key)
	if verb == "revoke" {
		p.revoked[key] = true
	}
	return nil
}

// Revoked lists what has been taken away, as "MODIFY on datafly.events.stream".
func (e *Emulator) Revoked() []string {
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	return slices.Sorted(maps.Keys(e.privileges.revoked))
}

// permit checks the path down to a table and one privilege on it.
func (e *Emulator) permit(table, privilege string) *apiError {
	schema := table[:max(strings.LastIndexByte(table, '.'), 0)]
	catalog, _, _ := strings.Cut(table, ".")
	e.privileges.mu.Lock()
	defer e.privileges.mu.Unlock()
	for _, need := range [][3]string{{PrivilegeUseCatalog, "catalog", catalog}, {PrivilegeUseSchema, "schema", schema}, {privilege, "table", table}} {
		if e.privileges.revoked[need[0]+" on "+need[2]] {
			return &apiError{
				status: http.StatusForbidden, code: "PERMISSION_DENIED",
				message: fmt.Sprintf("The principal is missing the %s privilege on %s %s.", need[0], need[1], need[2]),
			}
		}
	}
	return nil
}
