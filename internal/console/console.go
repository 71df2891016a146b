// Package console serves the console: the pages in which people watch, install, change
// and remove integrations. The pages are static files. Scripts in them read the data
// from /live/, and on the admin listener change it through /v1/admin/.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/ops/access"
)

// Config of a console. Access and Facts are required.
type Config struct {
	// Access authenticates people. Use that of the listener, so that wrong tokens are
	// counted together.
	Access *access.Control
	// Admin is true on a listener with the API. Without it, pages only show.
	Admin bool
	// Facts returns what each page shows of the process. It is called with each request.
	Facts func() Facts
}

// Facts are what each page shows of the process that serves it.
type Facts struct {
	Deployment string `json:"deployment"`
	Version    string `json:"version"`
	Mode       string `json:"mode"` // of live events: off, metadata or full
}

// Session is the JSON of /console/session.
type Session struct {
	access.Identity
	Admin bool `json:"admin"` // this listener has the API
	Login bool `json:"login"` // requests need a token, so one can sign out
	Facts
}

// pages are the patterns that answer with index.html, where a script draws the page.
var pages = []string{
	"/{$}", "/library", "/library/{key}/install", "/integrations/{slug}", "/integrations/{slug}/{view...}", "/members", "/audit",
}

type console struct {
	cfg Config
	mux *http.ServeMux
}

// New returns the handler of the pages, of their assets below /console/, and of /login
// and /logout. It does no I/O and starts no goroutine.
func New(cfg Config) http.Handler {
	c := &console{cfg: cfg, mux: http.NewServeMux()}
	c.mux.HandleFunc("GET /console/session", c.session)
	c.mux.HandleFunc("GET /console/{name}", func(w http.ResponseWriter, r *http.Request) { writeAsset(w, r, r.PathValue("name")) })
	c.mux.HandleFunc("GET /login", c.loginPage)
	c.mux.HandleFunc("POST /login", c.login)
	c.mux.HandleFunc("POST /logout", c.logout)
	c.mux.Handle("GET /integrations", http.RedirectHandler("/", http.StatusSeeOther))
	for _, page := range pages {
		c.mux.HandleFunc("GET "+page, c.page)
	}
	return headers(http.NewCrossOriginProtection().Handler(c))
}

// headers sets what browsers enforce: only files of this server, in no frame.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "same-origin") // with less, the login form would come from the origin "null"
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP implements http.Handler.
func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !c.cfg.Access.Enabled() && !c.cfg.Access.AllowsHost(r) {
		fail(w, http.StatusMisdirectedRequest, "WRONG_HOST", "the console answers to localhost or an address only; configure a token to reach it by name")
		return
	}
	c.mux.ServeHTTP(w, r)
}

// page answers with the page, or sends a person who is not signed in to the login form.
func (c *console) page(w http.ResponseWriter, r *http.Request) {
	v := c.cfg.Access.Authenticate(r)
	if v != access.Granted {
		toLogin(w, r, v, r.URL.RequestURI())
		return
	}
	writeAsset(w, r, "index.html")
}

// toLogin sends a person to the login form, which shows why if it is not for want of a token.
func toLogin(w http.ResponseWriter, r *http.Request, v access.Verdict, after string) {
	query := url.Values{"next": {next(after)}}
	if why := reasons[v]; why != "" {
		query.Set("why", why)
	}
	http.Redirect(w, r, "/login?"+query.Encode(), http.StatusSeeOther)
}

// reasons are the parameter why of the login form. A right token is too long for a session.
var reasons = map[access.Verdict]string{access.Granted: "long", access.WrongToken: "wrong", access.Expired: "expired", access.NoRole: "role", access.TooMany: "wait",
	access.Unreadable: "broken"}

func (c *console) session(w http.ResponseWriter, r *http.Request) {
	who, v := c.cfg.Access.Identify(r)
	if v != access.Granted {
		status, why := v.Refusal(w.Header())
		if status == http.StatusUnauthorized {
			why += ", or sign in at /login"
		}
		fail(w, status, "UNAUTHENTICATED", why)
		return
	}
	writeJSON(w, http.StatusOK, Session{Identity: who, Admin: c.cfg.Admin, Login: c.cfg.Access.Enabled(), Facts: c.cfg.Facts()})
}

func (c *console) loginPage(w http.ResponseWriter, r *http.Request) {
	if c.cfg.Access.Authenticate(r) == access.Granted {
		http.Redirect(w, r, next(r.URL.Query().Get("next")), http.StatusSeeOther)
		return
	}
	writeAsset(w, r, "login.html")
}

func (c *console) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	token := strings.TrimSpace(r.PostFormValue("token"))
	_, v := c.cfg.Access.Login(r, token)
	if v == access.Granted && c.cfg.Access.StartSession(w, r, "/", token) {
		http.Redirect(w, r, next(r.PostFormValue("next")), http.StatusSeeOther)
		return
	}
	toLogin(w, r, v, r.PostFormValue("next"))
}

func (c *console) logout(w http.ResponseWriter, r *http.Request) {
	c.cfg.Access.EndSession(w, r, "/")
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// next returns the page to go to after the login: a path of this server, or the first
// page.
func next(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	return path
}

//go:embed assets
var assets embed.FS

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// writeAsset serves a file, for which no token is needed: it holds nothing of this
// deployment. Browsers keep it and ask each time whether it changed.
func writeAsset(w http.ResponseWriter, r *http.Request, name string) {
	content, err := assets.ReadFile("assets/" + name)
	if err != nil {
		fail(w, http.StatusNotFound, "NOT_FOUND", "there is no such file")
		return
	}
	w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
	if path.Ext(name) != ".html" {
		sum := sha256.Sum256(content)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}

func fail(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, _ := json.Marshal(v) // strings and booleans can always be encoded
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // fails if the peer has disconnected
}
