package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/datafly/bridge/internal/ops/access"
)

func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRolesIncludeThoseBefore(t *testing.T) {
	roles := []string{access.Viewer, access.Editor, access.Admin}
	for i, has := range roles {
		for j, needs := range roles {
			if got := (access.Identity{Role: has}).May(needs); got != (i >= j) {
				t.Errorf("%s may do what %s may: got %v", has, needs, got)
			}
		}
	}
	for _, role := range []string{"", "root", "Admin"} {
		if (access.Identity{Role: role}).May(access.Viewer) || (access.Identity{Role: access.Admin}).May(role) {
			t.Errorf("role %q is one", role)
		}
	}
}

func TestTokensOfAFile(t *testing.T) {
	path := write(t, "tokens", "# people\n\nanna admin "+hashed("a")+"\r\n  bo   editor\t"+hashed("b")+"\nci viewer "+hashed("c")+" \n")
	lookup := access.Files{Tokens: path}.Lookup()
	for token, want := range map[string]access.Identity{"a": {Name: "anna", Role: "admin"}, "b": {Name: "bo", Role: "editor"}, "c": {Name: "ci", Role: "viewer"}} {
		if got, err := lookup(token); err != nil || got != want {
			t.Errorf("%s: got %v %v, want %v", token, got, err, want)
		}
	}
	for _, token := range []string{"", "d", hashed("a"), "A"} {
		if _, err := lookup(token); !errors.Is(err, access.ErrUnknown) {
			t.Errorf("%q: got %v, want unknown", token, err)
		}
	}
	// A change counts at once.
	if err := os.WriteFile(path, []byte("anna viewer "+hashed("z")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lookup("a"); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("a token that was taken out: got %v", err)
	}
	if got, err := lookup("z"); err != nil || got.Role != access.Viewer {
		t.Errorf("a token that was added: got %v %v", got, err)
	}
	for name, text := range map[string]string{
		"another role": "anna owner " + hashed("a"), "no hash": "anna admin a", "short hash": "anna admin sha256:00", "a fourth word": "anna admin " + hashed("a") + " x",
		"a name twice": "anna admin " + hashed("a") + "\nanna viewer " + hashed("b"), "a name with a quote": `"anna" admin ` + hashed("a"),
	} {
		files := access.Files{Tokens: write(t, "tokens", text)}
		_, err := files.Lookup()("a")
		if err == nil || errors.Is(err, access.ErrUnknown) || !strings.Contains(err.Error(), files.Tokens+":") || strings.Contains(err.Error(), hashed("a")) {
			t.Errorf("%s: got %v, want the line named without its content", name, err)
		}
		if files.Check() == nil {
			t.Errorf("%s: Check found nothing", name)
		}
	}
	if _, err := (access.Files{Tokens: write(t, "tokens", "anna admin "+hashed(""))}).Lookup()(""); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("without a token: got %v, want that nobody is known by it", err)
	}
	missing := access.Files{Tokens: filepath.Join(t.TempDir(), "none")}
	if _, err := missing.Lookup()("a"); err == nil || errors.Is(err, access.ErrUnknown) {
		t.Errorf("without the file: got %v", err)
	}
	if (access.Files{}).Lookup() != nil {
		t.Error("without files there are tokens")
	}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJSONWebTokens(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	secret := strings.Repeat("s", 32)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: rsaKey.Public(), KeyID: "r", Algorithm: "RS256", Use: "sig"}, {Key: ecKey.Public(), KeyID: "e"}, {Key: []byte(secret), KeyID: "o", Algorithm: "HS256"},
		{Key: otherKey.Public(), KeyID: "x", Use: "enc"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	hs := access.Files{JWTSecret: write(t, "secret", secret+"\n"), Now: func() time.Time { return now }}
	ks := access.Files{JWKS: write(t, "jwks", string(set)), Now: hs.Now}
	both := access.Files{JWTSecret: hs.JWTSecret, JWKS: ks.JWKS, Now: hs.Now}
	console := access.Files{JWKS: ks.JWKS, Audience: "console", Now: hs.Now}
	good := map[string]any{"sub": "anna@example.org", "role": "editor", "exp": at(time.Minute)}
	with := func(name string, value any) map[string]any {
		c := map[string]any{}
		for k, v := range good {
			c[k] = v
		}
		if c[name] = value; value == nil {
			delete(c, name)
		}
		return c
	}
	public, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	ok, unknown, expired, noRole := error(nil), access.ErrUnknown, access.ErrExpired, access.ErrNoRole
	for _, tt := range []struct {
		name  string
		files access.Files
		token string
		want  error
	}{
		{"HS256", hs, sign(t, jose.HS256, []byte(secret), "", good), ok},
		{"RS256", ks, sign(t, jose.RS256, rsaKey, "r", good), ok},
		{"ES256", ks, sign(t, jose.ES256, ecKey, "e", good), ok},
		{"ES256 without a key id", ks, sign(t, jose.ES256, ecKey, "", good), ok},
		{"HS256 beside a key set", both, sign(t, jose.HS256, []byte(secret), "", good), ok},
		{"ES256 beside a secret", both, sign(t, jose.ES256, ecKey, "e", good), ok},
		{"an access token of Signal", hs, sign(t, jose.HS256, []byte(secret), "", with("type", "access")), ok},
		{"a refresh token of Signal", hs, sign(t, jose.HS256, []byte(secret), "", with("type", "refresh")), unknown},
		{"another secret", hs, sign(t, jose.HS256, []byte(strings.Repeat("t", 32)), "", good), unknown},
		{"another algorithm", hs, sign(t, jose.HS384, []byte(strings.Repeat("s", 48)), "", good), unknown},
		{"the key of another algorithm", ks, sign(t, jose.PS256, rsaKey, "r", good), unknown},
		{"the public key as a secret", both, sign(t, jose.HS256, pemKey, "r", good), unknown},
		{"a secret of the key set", ks, sign(t, jose.HS256, []byte(secret), "o", good), unknown},
		{"a key for encryption", ks, sign(t, jose.ES256, otherKey, "x", good), unknown},
		{"a unknown key under a known key id", ks, sign(t, jose.ES256, otherKey, "e", good), unknown},
		{"no algorithm", both, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwicm9sZSI6ImFkbWluIiwiZXhwIjo5OTk5OTk5OTk5fQ.", unknown},
		{"no expiry", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", nil)), unknown},
		{"expired", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", at(-31*time.Second))), expired},
		{"expired by less than the leeway", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", at(-29*time.Second))), ok},
		{"not yet valid", hs, sign(t, jose.HS256, []byte(secret), "", with("nbf", at(time.Minute))), unknown},
		{"valid soon", hs, sign(t, jose.HS256, []byte(secret), "", with("nbf", at(20*time.Second))), ok},
		{"no role", hs, sign(t, jose.HS256, []byte(secret), "", with("role", nil)), noRole},
		{"another role", hs, sign(t, jose.HS256, []byte(secret), "", with("role", "root")), noRole},
		{"roles", hs, sign(t, jose.HS256, []byte(secret), "", with("role", []string{"admin"})), unknown},
		{"no role and another secret", hs, sign(t, jose.HS256, []byte(strings.Repeat("t", 32)), "", with("role", nil)), unknown},
		{"no role and expired", hs, sign(t, jose.HS256, []byte(secret), "", map[string]any{"sub": "a", "exp": at(-time.Hour)}), expired},
		{"the audience", console, sign(t, jose.ES256, ecKey, "e", with("aud", "console")), ok},
		{"the audience among others", console, sign(t, jose.ES256, ecKey, "e", with("aud", []string{"a", "console"})), ok},
		{"no audience", console, sign(t, jose.ES256, ecKey, "e", good), unknown},
		{"another audience", console, sign(t, jose.ES256, ecKey, "e", with("aud", []string{"other", "console2"})), unknown},
		{"an audience that is no text", console, sign(t, jose.ES256, ecKey, "e", with("aud", []any{1})), unknown},
		{"an expiry beyond all numbers", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", json.Number("1e400"))), unknown},
		{"an expiry beyond 64 bits", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", json.Number("99999999999999999999"))), unknown},
		{"a start beyond 64 bits", hs, sign(t, jose.HS256, []byte(secret), "", with("nbf", json.Number("99999999999999999999"))), unknown},
		{"an expiry that is text", hs, sign(t, jose.HS256, []byte(secret), "", with("exp", "9999999999")), unknown},
		{"no subject", hs, sign(t, jose.HS256, []byte(secret), "", with("sub", nil)), unknown},
		{"a subject with a line break", hs, sign(t, jose.HS256, []byte(secret), "", with("sub", "a\nb")), unknown},
		{"a long subject", hs, sign(t, jose.HS256, []byte(secret), "", with("sub", strings.Repeat("a", 101))), unknown},
		{"a huge token", hs, sign(t, jose.HS256, []byte(secret), "", with("x", strings.Repeat("a", 10_000))), unknown},
		{"no token", hs, "", unknown},
		{"text", hs, "a.b.c", unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			who, err := tt.files.Lookup()(tt.token)
			if !errors.Is(err, tt.want) || err == nil && who != (access.Identity{Name: "anna@example.org", Role: "editor"}) {
				t.Errorf("got %v %v, want %v", who, err, tt.want)
			}
		})
	}
	if who, err := hs.Lookup()(sign(t, jose.HS256, []byte(secret), "", with("role", "owner"))); err != nil || who.Role != access.Admin {
		t.Errorf("an owner: got %v %v, want an admin", who, err)
	}
	for name, files := range map[string]access.Files{
		"a short secret": {JWTSecret: write(t, "s", strings.Repeat("s", 31)+"\n")}, "no key set": {JWKS: write(t, "k", "{")},
		"an empty key set": {JWKS: write(t, "k", `{"keys":[]}`)}, "no public key": {JWKS: write(t, "k", `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)},
	} {
		if err := files.Check(); err == nil || errors.Is(err, access.ErrUnknown) || strings.Contains(err.Error(), strings.Repeat("s", 31)) {
			t.Errorf("%s: got %v, want a reason without the secret", name, err)
		}
	}
}

// Members with one secret accept each other's sessions: a load balancer may send a
// browser to any of them.
func TestSessionsOfAllMembers(t *testing.T) {
	path := write(t, "tokens", "anna editor "+hashed("a"))
	var members [2]*access.Control
	for i := range members {
		members[i] = access.NewControl(access.Files{Tokens: path}.Lookup(), access.Identity{}, false)
		members[i].SealSessions([]byte("shared"))
	}
	w := httptest.NewRecorder()
	members[0].StartSession(w, httptest.NewRequest(http.MethodPost, "/login", nil), "/", "a")
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(w.Result().Cookies()[0])
	if who, v := members[1].Identify(r); v != access.Granted || who.Name != "anna" {
		t.Errorf("got %v %v, want the session of the other member", who, v)
	}
}

// A session ends after 12 hours.
func TestSessionsEnd(t *testing.T) {
	path := write(t, "tokens", "anna editor "+hashed("a"))
	synctest.Test(t, func(t *testing.T) {
		c := access.NewControl(access.Files{Tokens: path}.Lookup(), access.Identity{}, false)
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		c.StartSession(w, r, "/", "a")
		r.AddCookie(w.Result().Cookies()[0])
		for _, want := range []access.Verdict{access.Granted, access.NoToken} {
			if _, v := c.Identify(r); v != want {
				t.Errorf("got %v, want %v", v, want)
			}
			time.Sleep(12 * time.Hour) //nolint:forbidigo // in virtual time
		}
	})
}

// A session has the identity of its token, and ends with it.
func TestSessionsFollowTheirToken(t *testing.T) {
	path := write(t, "tokens", "anna editor "+hashed("a"))
	c := access.NewControl(access.Files{Tokens: path}.Lookup(), access.Identity{}, false)
	w := httptest.NewRecorder()
	login := httptest.NewRequest(http.MethodPost, "/login", nil)
	if who, v := c.Login(login, "a"); v != access.Granted || who.Name != "anna" {
		t.Fatalf("got %v %v", who, v)
	}
	c.StartSession(w, login, "/", "a")
	cookie := w.Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure {
		t.Errorf("got %v, want HttpOnly and SameSite=Strict", cookie)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(cookie)
	if who, v := c.Identify(r); v != access.Granted || who != (access.Identity{Name: "anna", Role: "editor"}) {
		t.Errorf("got %v %v", who, v)
	}
	elsewhere := access.NewControl(access.Files{Tokens: path}.Lookup(), access.Identity{}, false)
	if _, v := elsewhere.Identify(r); v != access.NoToken {
		t.Errorf("at another process: got %v", v)
	}
	elsewhere.SealSessions([]byte("shared"))
	if _, v := elsewhere.Identify(r); v != access.NoToken {
		t.Errorf("at a process with a secret that this one has not: got %v", v)
	}
	if err := os.WriteFile(path, []byte("anna viewer "+hashed("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	if who, _ := c.Identify(r); who.Role != access.Viewer {
		t.Errorf("after a change of the role: got %v", who)
	}
	if err := os.WriteFile(path, []byte("anna viewer "+hashed("b")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, v := c.Identify(r); v != access.NoToken || c.StillValid(r) {
		t.Errorf("after a change of the token: got %v", v)
	}
}

// All clients of a proxy have its address. Wrong tokens of one, or of somebody without a
// role, keep out nobody whose token cannot be guessed; for others they are counted.
func TestWrongTokensOfOthers(t *testing.T) {
	long, short, key := strings.Repeat("l", 32), strings.Repeat("s", 31), strings.Repeat("k", 32)
	files := access.Files{Tokens: write(t, "tokens", "anna editor "+hashed(long)+"\nbo viewer "+hashed(short)), JWTSecret: write(t, "secret", key)}
	claims := map[string]any{"sub": "joan", "exp": time.Now().Add(time.Hour).Unix()}
	noRole := sign(t, jose.HS256, []byte(key), "", claims)
	claims["role"] = "viewer"
	signed := sign(t, jose.HS256, []byte(key), "", claims)
	c := access.NewControl(files.Lookup(), access.Identity{}, false)
	try := func(token string) access.Verdict {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		_, v := c.Identify(r)
		return v
	}
	for range 20 {
		if got := try(noRole); got != access.NoRole {
			t.Fatalf("without a role: got %v", got)
		}
	}
	if got := try(short); got != access.Granted {
		t.Errorf("a short token, before: got %v", got)
	}
	for n := range 20 {
		want := access.WrongToken
		if n >= 10 {
			want = access.TooMany
		}
		if got := try(strings.Repeat("x", 40)); got != want {
			t.Errorf("wrong token %d: got %v, want %v", n, got, want)
		}
	}
	for token, want := range map[string]access.Verdict{long: access.Granted, signed: access.Granted, noRole: access.NoRole, short: access.TooMany, "": access.TooMany} {
		if got := try(token); got != want {
			t.Errorf("%.10s after wrong ones: got %v, want %v", token, got, want)
		}
	}
	c = access.New(func() (string, error) { return long, nil }, false)
	for range 10 {
		try("x")
	}
	if got := try(long); got != access.TooMany {
		t.Errorf("ops.token, which somebody may have made up: got %v, want that it waits", got)
	}
}

// A proxy in front may have verified one of two headers, and not the one that counts here.
func TestSeveralTokensAreRefused(t *testing.T) {
	c := access.NewControl(access.Files{Tokens: write(t, "tokens", "anna editor "+hashed("a"))}.Lookup(), access.Identity{}, false)
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	c.StartSession(w, r, "/", "a")
	r.AddCookie(w.Result().Cookies()[0])
	r.Header["Authorization"] = []string{"Bearer a", "Bearer a"}
	if _, v := c.Identify(r); v != access.WrongToken || c.StillValid(r) {
		t.Errorf("got %v, want a wrong token, despite the session", v)
	}
}

// Browsers drop a cookie above 4096 bytes without a word.
func TestTooLongForASession(t *testing.T) {
	c := access.NewControl(access.Files{Tokens: write(t, "tokens", "")}.Lookup(), access.Identity{}, false)
	for length, want := range map[int]bool{2900: true, 3100: false} {
		w := httptest.NewRecorder()
		ok := c.StartSession(w, httptest.NewRequest(http.MethodPost, "/login", nil), "/", strings.Repeat("a", length))
		if set := w.Header().Get("Set-Cookie"); ok != want || ok != (set != "") || len(set) > 4096 {
			t.Errorf("%d bytes: got %v and a cookie of %d bytes, want %v", length, ok, len(set), want)
		}
	}
}
