package console_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/ops/access"
)

func newConsole(token string, admin bool) http.Handler {
	var expected func() (string, error)
	if token != "" {
		expected = func() (string, error) { return token, nil }
	}
	return console.New(console.Config{
		Access: access.New(expected, token == ""), Admin: admin,
		Facts: func() console.Facts { return console.Facts{Deployment: "prod", Version: "v1", Mode: "metadata"} },
	})
}

// ask sends a request; headers are name, value pairs.
func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPagesAnswerWithTheShell(t *testing.T) {
	h := newConsole("", false)
	for _, path := range []string{"/", "/library", "/library/databricks_zerobus/install", "/integrations/web", "/integrations/web/events/0/2159", "/members", "/audit?before=log_1"} {
		w := ask(h, "GET", path, "")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `id="app"`) || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: got %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: got policy %q", path, csp)
		}
	}
	for _, path := range []string{"/nothing", "/library/x", "/console/none.js", "/console/"} {
		if w := ask(h, "GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, w.Code)
		}
	}
}

// Browsers keep assets, and get a new version when it differs.
func TestAssetsHaveTags(t *testing.T) {
	h := newConsole("secret", false)
	w := ask(h, "GET", "/console/app.js", "")
	tag := w.Header().Get("ETag")
	if w.Code != http.StatusOK || tag == "" || w.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Fatalf("got %d, tag %q, %s", w.Code, tag, w.Header().Get("Content-Type"))
	}
	if w := ask(h, "GET", "/console/app.js", "", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("with its tag: got %d and %d bytes, want 304 and none", w.Code, w.Body.Len())
	}
	if other := ask(h, "GET", "/console/style.css", "").Header().Get("ETag"); other == tag {
		t.Error("two files have one tag")
	}
}

// All that the pages refer to exists, and nothing in them is inline: the policy forbids
// that.
func TestAssetsReferToAssets(t *testing.T) {
	files, err := filepath.Glob("assets/*")
	if err != nil || len(files) < 20 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	h := newConsole("", false)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:from |import\()"\./([^"]+)"|(?:src|href)="/console/([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			if name := m[1] + m[2]; ask(h, "GET", "/console/"+name, "").Code != http.StatusOK {
				t.Errorf("%s refers to %s, which does not exist", file, name)
			}
		}
		if filepath.Base(file) == "preact.js" {
			continue
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySet", "document.write", " style=\"", "eval(", "http://", "javascript:"} {
			if at := strings.Index(string(text), bad); at >= 0 && !strings.HasPrefix(string(text)[at:], "http://www.w3.org/2000/svg") && !strings.HasSuffix(file, ".txt") {
				t.Errorf("%s contains %q", file, bad)
			}
		}
	}
}

func TestSession(t *testing.T) {
	for _, tc := range []struct {
		name, token, given string
		admin              bool
		status             int
		want               string
	}{
		{"no token needed", "", "", false, 200, `{"name":"anyone","role":"viewer","admin":false,"login":false,"deployment":"prod","version":"v1","mode":"metadata"}`},
		{"with the API", "", "", true, 200, `"admin":true`},
		{"token", "secret", "secret", false, 200, `{"name":"ops.token","role":"viewer","admin":false,"login":true`},
		{"no token", "secret", "", false, 401, `{"error":{"code":"UNAUTHENTICATED","message":`},
		{"wrong token", "secret", "other", false, 401, `UNAUTHENTICATED`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var headers []string
			if tc.given != "" {
				headers = []string{"Authorization", "Bearer " + tc.given}
			}
			w := ask(newConsole(tc.token, tc.admin), "GET", "/console/session", "", headers...)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.want) || !json.Valid(w.Body.Bytes()) {
				t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, tc.status, tc.want)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	h := newConsole("secret", false)
	if w := ask(h, "GET", "/members?x=1", ""); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login?next=%2Fmembers%3Fx%3D1" {
		t.Fatalf("got %d to %s, want the login form", w.Code, w.Header().Get("Location"))
	}
	if w := ask(h, "GET", "/login", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `type="password"`) {
		t.Fatalf("got %d, want the login form", w.Code)
	}
	login := func(token, next string, headers ...string) *httptest.ResponseRecorder {
		form := url.Values{"token": {token}, "next": {next}}
		return ask(h, "POST", "/login", form.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
	}
	if w := login("wrong", "/audit"); w.Header().Get("Location") != "/login?next=%2Faudit&why=wrong" || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("wrong token: got to %s, cookie %q", w.Header().Get("Location"), w.Header().Get("Set-Cookie"))
	}
	if w := login("secret", "/", "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden {
		t.Errorf("from another site: got %d, want 403", w.Code)
	}
	for next, want := range map[string]string{
		"/audit?x=1": "/audit?x=1", "": "/", "audit": "/", "//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "/\t/evil.example": "/",
	} {
		if got := login("secret", next).Header().Get("Location"); got != want {
			t.Errorf("next %q: got to %q, want %q", next, got, want)
		}
	}
	cookie := login("secret", "/").Result().Cookies()[0]
	if cookie.Path != "/" || !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("got cookie %v", cookie)
	}
	header := []string{"Cookie", cookie.Name + "=" + cookie.Value}
	if w := ask(h, "GET", "/members", "", header...); w.Code != http.StatusOK {
		t.Errorf("with the cookie: got %d, want 200", w.Code)
	}
	if w := ask(h, "GET", "/login?next=/audit", "", header...); w.Header().Get("Location") != "/audit" {
		t.Errorf("login form with the cookie: got to %q, want /audit", w.Header().Get("Location"))
	}
	if w := ask(h, "POST", "/logout", "", header...); w.Result().Cookies()[0].MaxAge >= 0 || w.Header().Get("Location") != "/login" {
		t.Errorf("logout: got %v", w.Header())
	}
}

// The form shows what it cannot help with: a token of an identity provider without a role,
// and one that no cookie holds.
func TestLoginThatDoesNotHelp(t *testing.T) {
	long := strings.Repeat("l", 4000)
	tokens := func(token string) (access.Identity, error) {
		switch token {
		case long:
			return access.Identity{Name: "anna", Role: access.Viewer}, nil
		case "joan":
			return access.Identity{}, access.ErrNoRole
		}
		return access.Identity{}, access.ErrUnknown
	}
	h := console.New(console.Config{Access: access.NewControl(tokens, access.Identity{}, false), Facts: func() console.Facts { return console.Facts{} }})
	if w := ask(h, "GET", "/audit", "", "Authorization", "Bearer joan"); w.Header().Get("Location") != "/login?next=%2Faudit&why=role" {
		t.Errorf("a page without a role: got %d to %s", w.Code, w.Header().Get("Location"))
	}
	if w := ask(h, "GET", "/console/session", "", "Authorization", "Bearer joan"); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "/login") {
		t.Errorf("the session without a role: got %d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/audit", "", "Authorization", "Bearer "+long); w.Code != http.StatusOK {
		t.Errorf("a long token as a header: got %d", w.Code)
	}
	for token, why := range map[string]string{"joan": "role", long: "long"} {
		w := ask(h, "POST", "/login", url.Values{"token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		if w.Header().Get("Location") != "/login?next=%2F&why="+why || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%.5s: got to %s, want why=%s", token, w.Header().Get("Location"), why)
		}
	}
	script := ask(h, "GET", "/console/login.js", "").Body.String()
	for _, why := range []string{"wrong", "expired", "role", "long", "wait", "broken"} {
		if !strings.Contains(script, "  "+why+": ") {
			t.Errorf("login.js has no text for %s", why)
		}
	}
}

// Without a token, a page on the Internet could resolve its own name to the loopback.
func TestForeignHostIsRefused(t *testing.T) {
	r := httptest.NewRequest("GET", "http://evil.example/", nil)
	w := httptest.NewRecorder()
	newConsole("", false).ServeHTTP(w, r)
	if w.Code != http.StatusMisdirectedRequest {
		t.Errorf("got %d, want 421", w.Code)
	}
}

// The vendored file is the published one, with its header and its licences.
func TestVendoredFile(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	header, published, _ := strings.Cut(read("preact.js"), "\n")
	if !strings.HasPrefix(header, "/*! htm 3.1.1, preact/standalone.module.js from npm: ") {
		t.Errorf("got header %q", header)
	}
	for name, c := range map[string]struct{ text, want string }{
		"preact.js below its header": {published, "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"},
		"licence of htm":             {read("preact.LICENSE-htm.txt"), "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f"},
		"licence of Preact":          {read("preact.LICENSE-preact.txt"), "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4"},
	} {
		if got := hash(c.text); got != c.want {
			t.Errorf("%s: got SHA-256 %s, want %s", name, got, c.want)
		}
	}
	for name, want := range map[string]string{"preact.LICENSE-htm.txt": "Apache License", "preact.LICENSE-preact.txt": "The MIT License (MIT)"} {
		if !strings.Contains(header, name) || !strings.Contains(read(name), want) {
			t.Errorf("%s: not named in the header, or without %q", name, want)
		}
	}
}
