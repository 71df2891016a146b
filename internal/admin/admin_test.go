package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/pipeline"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// bodies fit the calls that have one.
var bodies = map[string]string{
	"install": pageBody, "checkInstall": pageBody, "prepare": pageBody, "updateIntegration": `{"name":"Web of NEW"}`, "check": `{"config":{"table":"other"}}`, "replay": `{"to":"earliest"}`, "redrive": `{"limit":5}`,
	"validateBlueprint": `{"blueprint":"version: 1"}`, "tryBlueprint": `{"event":{"type":"page"}}`,
}

func pathOf(t *route) string {
	return Prefix + strings.NewReplacer("{key}", "databricks_zerobus", "{id}", "web", "{n}", "1").Replace(t.pattern)
}

// Every call answers as documented, for each role and without a token.
func TestRolesOnEveryCall(t *testing.T) {
	roles := []string{"", access.Viewer, access.Editor, access.Admin}
	r := newRig(t, withTokens(t), func(c *Config) { c.Live = lively{} })
	for _, x := range routes {
		for _, role := range roles {
			t.Run(x.id+"/"+role, func(t *testing.T) {
				web, err := r.manager.Get(t.Context(), "web")
				if err != nil {
					web = r.install(t, "web")
				}
				var headers []string
				if role != "" {
					headers = []string{"Authorization", "Bearer " + role}
				}
				body := bodies[x.id]
				if x.created {
					body = bodyOf("by-" + role)
				}
				before := r.logs.FilterLevelExact(zapcore.InfoLevel).FilterField(zap.String("by", role+"-1")).Len()
				w := r.send(t, x.method, pathOf(x), strings.Replace(body, "NEW", role, 1), headers...)
				want, who := http.StatusOK, access.Identity{Role: role}
				switch {
				case role == "":
					want = http.StatusUnauthorized
				case !who.May(x.role):
					want = http.StatusForbidden
				case x.created:
					want = http.StatusCreated
				}
				if w.Code != want {
					t.Errorf("got %d %s, want %d", w.Code, w.Body, want)
				}
				i, err := r.manager.Get(t.Context(), "web")
				if unchanged := err == nil && i.Revision == web.Revision; unchanged && want < 300 && x.id == "removeIntegration" || !unchanged && want >= 300 {
					t.Errorf("the integration is unchanged: %v", unchanged)
				}
				changes := slices.Contains([]string{"install", "prepare", "updateIntegration", "removeIntegration", "enable", "disable"}, x.id)
				n := r.logs.FilterLevelExact(zapcore.InfoLevel).FilterField(zap.String("by", role+"-1")).Len() - before
				if changes && want < 300 && n != 1 || !(changes && want < 300) && n != 0 {
					t.Errorf("got %d log lines of changes", n)
				}
			})
		}
	}
}

// The table of roles in the documentation is that of the routes.
func TestDocumentationListsTheCalls(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "admin-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range routes {
		if row := fmt.Sprintf("| %s %s | %s |", x.method, x.pattern, x.role); !strings.Contains(string(text), row) {
			t.Errorf("docs/admin-api.md lacks the row %s", row)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\| (GET|POST|PATCH|DELETE) /`).FindAll(text, -1)); n != len(routes) {
		t.Errorf("docs/admin-api.md has %d calls, want %d", n, len(routes))
	}
}

// The page's command, as docs/admin-api.md prints it, installs an integration.
func TestThePagesCommand(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "admin-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	command := `curl -X POST http://localhost:8084/v1/admin/integration-catalog/databricks_zerobus/install \
-H "Authorization: Bearer YOUR_TOKEN" \
-H "Content-Type: application/json" \
-d '` + pageBody + "'"
	if !strings.Contains(string(text), "\n"+command+"\n") {
		t.Errorf("docs/admin-api.md lacks the command\n%s", command)
	}
	r := newRig(t)
	w := r.send(t, "POST", "http://localhost:8084"+installPath, pageBody, "Authorization", "Bearer YOUR_TOKEN", "Content-Type", "application/json")
	var got manage.Result
	if decode(t, w, &got); w.Code != http.StatusCreated || got.Integration.Name != "Databricks (Zerobus Ingest)" || got.Integration.Revision != 1 ||
		w.Header().Get("Location") != Prefix+"/integrations/"+got.Integration.ID || w.Header().Get("ETag") != `"1"` {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	for _, step := range got.Checks {
		if step.Status == pipeline.StepFailed && step.Step != "topic" { // nobody has sent an event yet
			t.Errorf("the step %s failed: %s", step.Step, step.Error)
		}
	}
	if r.logs.FilterMessage("integration installed").Len() != 1 {
		t.Error("the change is not logged once")
	}
}

func TestRevisions(t *testing.T) {
	r := newRig(t)
	i := r.install(t, "web")
	at := Prefix + "/integrations/" + i.ID
	if w := r.send(t, "GET", at, ""); w.Header().Get("ETag") != `"1"` {
		t.Errorf("got the ETag %s", w.Header().Get("ETag"))
	}
	if w := r.send(t, "PATCH", at+"?dry_run=true", `{"name":"a"}`, "If-Match", `"1"`); w.Code != 200 || !strings.Contains(w.Body.String(), `"dry_run":true`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	r.expect(t, 200, "", "PATCH", at+"?reason=because", `{"name":"a"}`, "If-Match", `"1"`)
	r.expect(t, 412, "REVISION_MISMATCH", "PATCH", at, `{"name":"b"}`, "If-Match", `"1"`)
	r.expect(t, 412, "REVISION_MISMATCH", "POST", at+"/disable", "", "If-Match", `"1"`)
	r.expect(t, 412, "REVISION_MISMATCH", "DELETE", at, "", "If-Match", `"1"`)
	r.expect(t, 200, "", "POST", at+"/disable", "", "If-Match", "*")
	r.expect(t, 200, "", "POST", at+"/enable", "")
	var got struct {
		Data []struct {
			Revision int64
			Reason   string
		}
		NextCursor *string `json:"next_cursor"`
		HasMore    bool    `json:"has_more"`
	}
	decode(t, r.send(t, "GET", at+"/revisions?limit=3", ""), &got)
	if len(got.Data) != 3 || got.Data[0].Revision != 4 || !got.HasMore {
		t.Fatalf("got %+v", got)
	}
	decode(t, r.send(t, "GET", at+"/revisions?limit=3&cursor="+*got.NextCursor, ""), &got)
	if len(got.Data) != 1 || got.Data[0].Revision != 1 || got.HasMore {
		t.Errorf("got %+v", got)
	}
	if w := r.send(t, "GET", at+"/revisions/2/diff", ""); !strings.Contains(w.Body.String(), `"name":{"old":"web","new":"a"}`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	for _, n := range []string{"0", "5", "x", "-1", "02"} {
		r.expect(t, 404, "NOT_FOUND", "GET", at+"/revisions/"+n+"/diff", "")
	}
	r.expect(t, 200, "", "DELETE", at, "", "If-Match", `"4"`)
	r.expect(t, 404, "NOT_FOUND", "GET", at, "")
}

// many is a manager with 120 integrations.
type many struct{ Manager }

func (many) List(context.Context) (all []manage.Integration, err error) {
	for n := range 120 {
		all = append(all, manage.Integration{Slug: fmt.Sprintf("n%03d", n), ManagedBy: "store", Config: map[string]any{}, Source: map[string]any{}})
	}
	return all, nil
}

func TestPages(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Manager = many{c.Manager} })
	for n := range 5 {
		r.install(t, fmt.Sprintf("n%d", n))
	}
	for _, list := range []struct {
		path, query, key string
		want             int
	}{
		{"/integrations", "?", "slug", 120}, {"/integrations", "?limit=7&", "slug", 120}, {"/audit-log", "?limit=2&", "id", 5}, {"/topics", "?limit=1&", "name", 2}, {"/integration-catalog", "?", "key", 1},
		{"/integrations/n3/revisions", "?limit=1&", "id", 1},
	} {
		seen, cursor := map[string]bool{}, ""
		for range 30 {
			var got struct {
				Data       []map[string]any
				NextCursor *string `json:"next_cursor"`
				HasMore    bool    `json:"has_more"`
			}
			decode(t, r.send(t, "GET", Prefix+list.path+list.query+cursor, ""), &got)
			for _, x := range got.Data {
				name := x[list.key].(string)
				if seen[name] {
					t.Errorf("%s: %s is on two pages", list.path, name)
				}
				seen[name] = true
			}
			if (got.NextCursor != nil) != got.HasMore {
				t.Errorf("%s: got has_more %v and the cursor %v", list.path, got.HasMore, got.NextCursor)
			}
			if !got.HasMore {
				break
			}
			cursor = "cursor=" + *got.NextCursor
		}
		if len(seen) != list.want {
			t.Errorf("%s: got %d items, want %d", list.path, len(seen), list.want)
		}
	}
	r.expect(t, 404, "NOT_FOUND", "GET", Prefix+"/audit-log?cursor=6e6f6e65", "")
}

func TestRequestIDs(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct{ header, id, want string }{
		{"X-Request-Id", "abc-1", "abc-1"}, {"X-Request-Id", "a b", ""}, {"X-Request-Id", "a\tb", ""}, {"X-Request-Id", strings.Repeat("x", 129), ""}, {"Idempotency-Key", "k.1", "k.1"},
	} {
		got := r.send(t, "GET", Prefix+"/session", "", tt.header, tt.id).Header().Get("X-Request-Id")
		if tt.want != "" && got != tt.want || tt.want == "" && !strings.HasPrefix(got, "req_") {
			t.Errorf("%s: %q: got %q", tt.header, tt.id, got)
		}
	}
	for _, key := range []string{"a b", "", "k\x7f"} {
		r.expect(t, 400, "INVALID_HEADER", "POST", installPath, pageBody, "Idempotency-Key", key)
	}
	var first, again manage.Result
	decode(t, r.send(t, "POST", installPath, pageBody, "Idempotency-Key", "k"), &first)
	if w := r.send(t, "POST", installPath, pageBody, "Idempotency-Key", "k"); w.Code != 201 {
		t.Errorf("a repeated request: got %d %s", w.Code, w.Body)
	} else if decode(t, w, &again); again.Integration.ID != first.Integration.ID || again.Integration.Revision != 1 {
		t.Errorf("a repeated request: got %+v, want %+v", again.Integration, first.Integration)
	}
	r.expect(t, 409, "NAME_TAKEN", "POST", installPath, pageBody)
}

// One identity may send so many requests a minute.
func TestRateLimit(t *testing.T) {
	tokens, _ := withTokens(t), theDocument()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Log: zap.NewNop()}
		tokens(&cfg)
		r := &rig{API: New(cfg)}
		defer r.Stop()
		session := func(status int, role string) *httptest.ResponseRecorder {
			w := r.send(t, "GET", Prefix+"/session", "", "Authorization", "Bearer "+role)
			if w.Code != status {
				t.Fatalf("%s: got %d %s, want %d", role, w.Code, w.Body, status)
			}
			return w
		}
		for range DefaultRateLimit {
			session(200, access.Editor)
		}
		if w := session(429, access.Editor); w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "RATE_LIMITED") {
			t.Errorf("got %v %s", w.Header(), w.Body)
		}
		session(200, access.Viewer)
		time.Sleep(time.Second) //nolint:forbidigo // in virtual time
		session(200, access.Editor)
		session(429, access.Editor)
		for n := range 2 * maxIdentities {
			r.wait(fmt.Sprint(n))
		}
		if len(r.limits) > maxIdentities {
			t.Errorf("got %d limiters", len(r.limits))
		}
	})
}

// Of many installs at once, none is half done.
func TestInstallsAtOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RateLimit = 50 })
	var group sync.WaitGroup
	var mu sync.Mutex
	count, installed := map[int]int{}, map[string]bool{}
	for n := range 200 {
		group.Go(func() {
			name := fmt.Sprintf("n%d", n)
			w := r.send(t, "POST", installPath, bodyOf(name))
			mu.Lock()
			defer mu.Unlock()
			count[w.Code]++
			installed[name] = w.Code == http.StatusCreated
		})
	}
	group.Wait()
	all, err := r.manager.List(t.Context())
	for _, i := range all {
		if !installed[i.Slug] {
			t.Errorf("%s exists, and its install was refused", i.Slug)
		}
	}
	if err != nil || count[201] < 50 || count[201]+count[429] != 200 || len(all) != count[201] {
		t.Errorf("got %v and %d integrations %v", count, len(all), err)
	}
}

func TestOtherSitesAndHosts(t *testing.T) {
	r := newRig(t)
	r.expect(t, 403, "CROSS_ORIGIN", "POST", installPath, pageBody, "Sec-Fetch-Site", "cross-site")
	r.expect(t, 403, "CROSS_ORIGIN", "POST", installPath, pageBody, "Origin", "https://evil.example")
	r.expect(t, 403, "CROSS_ORIGIN", "POST", "/login", "", "Sec-Fetch-Site", "same-site")
	r.expect(t, 201, "", "POST", installPath, pageBody, "Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:8084")
	r.expect(t, 421, "UNKNOWN_HOST", "GET", Prefix+"/integrations", "", "Host", "evil.example:8084")
	for _, host := range []string{"127.0.0.1:8084", "[::1]:8084", "localhost"} {
		r.expect(t, 200, "", "GET", Prefix+"/integrations", "", "Host", host)
	}
	for _, given := range []string{"Bearer YOUR_TOKEN", "Basic eDp5", "x"} {
		var who session
		if decode(t, r.send(t, "GET", Prefix+"/session", "", "Authorization", given), &who); who.Role != access.Admin || who.Tokens {
			t.Errorf("%s: got %+v", given, who)
		}
	}
	named := newRig(t, withTokens(t))
	named.expect(t, 200, "", "GET", Prefix+"/session", "", "Host", "bridge.example", "Authorization", "Bearer viewer")
}

func TestTokens(t *testing.T) {
	r := newRig(t, withTokens(t))
	r.expect(t, 401, "UNAUTHORIZED", "GET", Prefix+"/session", "", "Authorization", "Basic "+access.Admin)
	for range 10 {
		r.expect(t, 401, "INVALID_TOKEN", "GET", Prefix+"/session", "", "Authorization", "Bearer guess")
	}
	r.expect(t, 429, "RATE_LIMITED", "GET", Prefix+"/session", "", "Authorization", "Bearer admin")
	if _, err := NewAccess(access.Files{}, false, r.log); err == nil || !strings.Contains(err.Error(), "admin.token_file") {
		t.Errorf("without tokens beyond the loopback: got %v", err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if _, err := NewAccess(access.Files{Tokens: path}, true, r.log); err == nil {
		t.Error("a file that does not exist is accepted")
	}
	if err := os.WriteFile(path, []byte("a viewer "+hashOf("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	later := newRig(t)
	control, err := NewAccess(access.Files{Tokens: path}, true, later.log)
	if err != nil {
		t.Fatal(err)
	}
	later.cfg.Access = control
	later.expect(t, 200, "", "GET", Prefix+"/session", "", "Authorization", "Bearer a")
	os.Remove(path)
	for range 3 {
		later.expect(t, 503, "TOKENS_UNREADABLE", "GET", Prefix+"/session", "", "Authorization", "Bearer a")
	}
	if n := later.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 1 {
		t.Errorf("got %d log lines, want one", n)
	}
}

// A session of a browser counts like its token.
func TestSessions(t *testing.T) {
	r := newRig(t, withTokens(t))
	w, login := httptest.NewRecorder(), httptest.NewRequest("POST", "/login", nil)
	login.Host = "localhost:8084"
	r.cfg.Access.StartSession(w, login, "/", access.Editor)
	cookie := w.Result().Cookies()[0]
	var who session
	if decode(t, r.send(t, "GET", Prefix+"/session", "", "Cookie", cookie.String()), &who); who.Name != "editor-1" || who.Role != access.Editor || !who.Tokens {
		t.Errorf("got %+v", who)
	}
	r.expect(t, 403, "CROSS_ORIGIN", "POST", installPath, pageBody, "Cookie", cookie.String(), "Sec-Fetch-Site", "cross-site")
	r.expect(t, 201, "", "POST", installPath, pageBody, "Cookie", cookie.String(), "Sec-Fetch-Site", "same-origin")
}

func TestHostileTextIsData(t *testing.T) {
	r := newRig(t)
	const name = `<script>alert(1)</script>` + "\u202e" + `&"'`
	text, err := json.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	w := r.send(t, "POST", installPath, strings.Replace(pageBody, `"Databricks (Zerobus Ingest)"`, string(text), 1))
	var got manage.Result
	if decode(t, w, &got); got.Integration.Name != name || strings.ContainsAny(w.Body.String(), "<>&\u202e") || w.Header().Get("Content-Security-Policy") != "default-src 'none'" {
		t.Errorf("got %s %v", w.Body, w.Header())
	}
	w = r.send(t, "GET", Prefix+"/integrations/"+`%3Cscript%3E%0a`, "")
	if w.Code != 404 || strings.ContainsAny(w.Body.String(), "<>") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestReplayOnlyWhileDisabled(t *testing.T) {
	r := newRig(t)
	i := r.install(t, "web")
	at := Prefix + "/integrations/" + i.Slug
	r.expect(t, 200, "", "POST", at+"/replay", `{"to":"earliest"}`)
	r.expect(t, 409, "STILL_ENABLED", "POST", at+"/replay?dry_run=false", `{"to":"earliest"}`)
	r.expect(t, 200, "", "POST", at+"/disable", "")
	r.expect(t, 200, "", "POST", at+"/replay?dry_run=false", `{"to":"earliest","reason":"because"}`, "Idempotency-Key", "r1")
	if got := r.ops.replays; len(got) != 2 || got[0].Execute || !got[1].Execute || got[1].By != "local" || got[1].RequestID != "r1" || got[1].Reason != "because" {
		t.Errorf("got %+v", got)
	}
	if n := r.logs.FilterMessage("integration replayed").Len(); n != 1 {
		t.Errorf("got %d log lines, want one", n)
	}
	r.expect(t, 200, "", "POST", at+"/dead-letters/redrive", `{"codes":["a"]}`)
	if got := r.ops.redrive; got.Execute || got.By != "local" || !slices.Equal(got.Codes, []string{"a"}) {
		t.Errorf("got %+v", got)
	}
	r.expect(t, 200, "", "POST", at+"/dead-letters/redrive?dry_run=false", `{}`)
	if !r.ops.redrive.Execute {
		t.Error("the redrive is a dry run")
	}
	r.expect(t, 422, "VALIDATION_FAILED", "POST", at+"/replay", `{"to":"earliest","reason":"a\u0084"}`)
	r.expect(t, 422, "VALIDATION_FAILED", "POST", at+"/dead-letters/redrive", `{"reason":"`+strings.Repeat("x", 501)+`"}`)
	r.expect(t, 422, "VALIDATION_FAILED", "POST", Prefix+"/blueprint/try", `{}`)
}

// hidden is a detail for the log alone.
const hidden = "a nil map in the manager"

// failing is a manager whose calls fail.
type failing struct {
	Manager
	err error
}

func (f failing) List(context.Context) ([]manage.Integration, error) {
	if f.err == nil {
		panic(hidden)
	}
	return nil, f.err
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   string
		logged int
	}{
		{&manage.Error{Code: manage.ValidationFailed, Message: "a", Remedy: "b", Fields: []manage.FieldError{{Field: "c", Message: "d"}}}, 422, "VALIDATION_FAILED", 0},
		{&manage.Error{Code: manage.ManagedByFile, Message: "a"}, 409, "MANAGED_BY_FILE", 0},
		{&manage.Error{Code: manage.StoreUnavailable, Message: "a", RetryAfter: 1500 * time.Millisecond}, 503, "STORE_UNAVAILABLE", 0},
		{fmt.Errorf("listing: %w", &manage.Error{Code: manage.StoreUnavailable, Message: "a"}), 503, "STORE_UNAVAILABLE", 0},
		{&manage.Error{Code: manage.OutcomeUnexpected, Message: hidden}, 500, "INTERNAL", 1},
		{errors.New(hidden), 500, "INTERNAL", 1},
		{nil, 500, "INTERNAL", 1},
		{context.DeadlineExceeded, 503, "TIMEOUT", 0},
		{&pipeline.Refused{Field: "to", Reason: "is no position", Remedy: "x"}, 422, "VALIDATION_FAILED", 0},
		{&pipeline.Refused{Reason: "the group has members"}, 409, "CONFLICT", 0},
	} {
		r := newRig(t, func(c *Config) { c.Manager = failing{c.Manager, tt.err} })
		req := httptest.NewRequest("GET", Prefix+"/integrations", nil)
		req.Host = "localhost"
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		var got refused
		if decode(t, w, &got); w.Code != tt.status || got.Error.Code != tt.code || strings.Contains(w.Body.String(), hidden) {
			t.Errorf("%v: got %d %s", tt.err, w.Code, w.Body)
		}
		logged := r.logs.FilterLevelExact(zapcore.ErrorLevel)
		if logged.Len() != tt.logged || tt.logged > 0 && logged.All()[0].ContextMap()["request_id"] != w.Header().Get("X-Request-Id") {
			t.Errorf("%v: got the log %v", tt.err, logged.All())
		}
		if refused, ok := errors.AsType[*manage.Error](tt.err); ok && refused.RetryAfter > 0 && w.Header().Get("Retry-After") != "2" {
			t.Errorf("got Retry-After: %s", w.Header().Get("Retry-After"))
		}
	}
	r := newRig(t)
	r.install(t, "web")
	for _, err := range []error{errors.New("no broker answers; start one"), &pipeline.Refused{Reason: "x"}, &pipeline.Refused{Field: "to", Reason: "x"}} {
		r.ops.err = err
		for _, x := range routes {
			if x.operation {
				r.send(t, x.method, pathOf(x), bodies[x.id]) // compares with the document
			}
		}
	}
	r.ops.err = nil
	if got := r.expect(t, 503, "UNAVAILABLE", "GET", Prefix+"/integrations/web/recent-events?limit=77", ""); got.Error.Message != "no broker answers; start one" {
		t.Errorf("got %+v", got)
	}
	r.Stop()
	r.expect(t, 503, "STOPPING", "POST", Prefix+"/integrations/web/check", "")
	r.expect(t, 503, "STOPPING", "GET", Prefix+"/session", "")
}
