package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/ops/access"
)

// catalogAnswers are those of the catalog, from the catalog itself.
func catalogAnswers(t *testing.T) map[string]any {
	t.Helper()
	vendors, err := catalog.Vendors("")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"/live/summary":                                summary(),
		"/v1/admin/integration-catalog":                map[string]any{"data": vendors, "next_cursor": nil, "has_more": false},
		"/v1/admin/integration-catalog/" + catalog.Key: vendors[0],
		"/v1/admin/topics": map[string]any{"has_more": false, "next_cursor": nil, "data": []any{
			map[string]any{"name": "signal.events", "partitions": 12, "events_per_second": 377.2, "newest": "2026-03-01T12:00:00Z"},
			map[string]any{"name": "signal.orders", "partitions": 3, "events_per_second": nil, "newest": nil},
		}},
	}
}

// installer answers installs and checks, and keeps their bodies.
type installer struct {
	mu     sync.Mutex // guards bodies
	bodies []string
	ids    []string
	refuse map[string]string // message by field
}

func (i *installer) install(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	dry := r.URL.Query().Get("dry_run") == "true"
	i.mu.Lock()
	i.bodies = append(i.bodies, string(text))
	if !dry {
		i.ids = append(i.ids, r.Header.Get("Idempotency-Key"))
	}
	refuse := i.refuse
	i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if len(refuse) > 0 {
		var fields []map[string]string
		for field, message := range refuse {
			fields = append(fields, map[string]string{"field": field, "message": message, "remedy": "correct " + field})
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": "VALIDATION_FAILED", "message": "fields are wrong"}, "fields": fields})
		return
	}
	if !dry {
		w.WriteHeader(http.StatusCreated)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"integration": map[string]any{"id": "int_abcdefghijkl", "slug": "web", "name": "Web"}, "dry_run": dry, "action": "start",
		"changes": map[string]any{"name": map[string]any{"old": nil, "new": "Web"}, "target.client_secret": map[string]any{"old": nil, "new": map[string]any{"fingerprint": "ab12cd34", "set": true}}},
		"ddl":     "CREATE TABLE datafly.events.stream (\n  event_name STRING\n) USING DELTA", "grants": []string{"GRANT USE CATALOG ON CATALOG datafly TO `id`"},
	})
}

func (i *installer) check(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, step := range []map[string]string{
		{"step": "kafka", "status": "ok", "detail": "3 brokers"},
		{"step": "table", "status": "failed", "error": "the principal lacks MODIFY on datafly.events.stream; run GRANT MODIFY"},
		{"step": "columns", "status": "warning", "warning": "the column extra is never written"},
		{"step": "write", "status": "skipped", "detail": "not tried, since table failed"},
	} {
		text, _ := json.Marshal(step)
		fmt.Fprintf(w, "event: step\ndata: %s\n\n", text)
	}
	fmt.Fprint(w, "event: done\ndata: {\"ok\":false}\n\n")
}

// prepare answers with hostile texts.
func (i *installer) prepare(w http.ResponseWriter, r *http.Request) {
	const hostile = "<img src=x onerror=document.title='pwned'>"
	result := map[string]any{"ok": false, "dry_run": r.URL.Query().Get("dry_run") == "true", "executed": true, "error": hostile, "plan": []any{}, "warnings": []string{hostile},
		"warehouses": []any{map[string]string{"id": "a", "name": hostile, "state": "STOPPED", "cluster_size": "Small"}, map[string]string{"id": "b", "name": "Beta", "state": "RUNNING"}}}
	if r.Header.Get("Accept") != "text/event-stream" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(result)
		return
	}
	text, _ := io.ReadAll(r.Body)
	i.mu.Lock()
	i.bodies = append(i.bodies, string(text))
	i.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	for _, s := range []map[string]string{{"state": "started", "note": hostile}, {"state": "failed", "error": hostile}} {
		s["statement"] = "CREATE TABLE " + hostile
		text, _ := json.Marshal(s)
		fmt.Fprintf(w, "event: step\ndata: %s\n\n:\n\n", text)
	}
	done, _ := json.Marshal(result)
	fmt.Fprintf(w, "event: done\ndata: %s\n\n", done)
}

func (i *installer) last() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bodies[len(i.bodies)-1]
}

// fill types into the field of a form.
func (p *page) fill(field, text string) {
	p.t.Helper()
	selector := fmt.Sprintf("[data-field=%q] :is(input, textarea, select)", field)
	p.until(fmt.Sprintf("document.querySelector(%s)", quote(selector)))
	p.do(fmt.Sprintf("(() => { const f = document.querySelector(%s); f.focus(); f.select && f.select(); })()", quote(selector)))
	p.keys(text)
}

// press clicks the button or link with this text.
func (p *page) press(text string) {
	p.t.Helper()
	find := fmt.Sprintf("[...document.querySelectorAll('main button, main a, dialog button')].find(b => b.textContent.trim() === %s && !b.disabled)", quote(text))
	p.until(find)
	p.do("(" + find + ").click()")
}

const secretTyped = "s3cret-of-install"

func (p *page) fillInstall(workspace string) {
	p.t.Helper()
	for _, f := range [][2]string{{"workspace_url", workspace}, {"client_id", "00000000-0000-0000-0000-000000000000"}, {"client_secret", secretTyped}, {"catalog", "datafly"}, {"schema", "events"}, {"table", "stream"}} {
		p.fill(f[0], f[1])
	}
}

func TestConsoleLibrary(t *testing.T) {
	_, p := newFixture(t, admin(), true, catalogAnswers(t))
	p.watched()
	p.inspect("/library", "document.querySelector('main article')")
	p.look(1440, 900, "light")
	p.visit("/library")
	p.press("Warehouse 1")
	p.until("location.search === '?category=warehouse'")
	p.press("Install")
	p.until("location.pathname === '/library/databricks_zerobus/install'")
	p.text("main h1", "Databricks (Zerobus Ingest)")
	p.quiet("library")
}

// Without the API, and without the role, nothing that changes is offered.
func TestConsoleLibraryOnlyShows(t *testing.T) {
	for _, tc := range []struct {
		name string
		who  access.Identity
		api  bool
		want string
	}{
		{"no API", access.Identity{Name: "anyone", Role: access.Viewer}, false, "admin.enabled: true"},
		{"viewer", access.Identity{Name: "vic", Role: access.Viewer}, true, "needs the role editor; yours is viewer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, p := newFixture(t, tc.who, tc.api, catalogAnswers(t))
			p.watched()
			for _, path := range []string{"/", "/library", "/library/databricks_zerobus/install"} {
				p.inspect(path, "document.querySelector('main .empty, main article, main .needs')")
				if path != "/" {
					p.text("main", tc.want)
				}
				if p.is("[...document.querySelectorAll('main a, main button')].some(b => /^Install/.test(b.textContent))") {
					t.Errorf("%s offers to install", path)
				}
			}
			if tc.api {
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if all := strings.Join(f.asked, " "); strings.Contains(all, "/v1/") {
				t.Errorf("got requests %s, want none to an API that does not exist", all)
			}
		})
	}
}

func TestConsoleInstall(t *testing.T) {
	answers, api := catalogAnswers(t), &installer{}
	answers["POST /v1/admin/integration-catalog/"+catalog.Key+"/install"] = api.install
	answers["POST /v1/admin/integration-catalog/"+catalog.Key+"/check"] = api.check
	answers["POST /v1/admin/integration-catalog/"+catalog.Key+"/prepare"] = api.prepare
	_, p := newFixture(t, admin(), true, answers)
	p.watched()
	const path = "/library/databricks_zerobus/install"
	p.inspect(path, "document.querySelector('[data-field=table]') && document.querySelector('.topics')")
	p.look(1440, 900, "light")
	p.visit(path)

	// What the API refuses is shown at the fields.
	api.refuse = map[string]string{"config.workspace_url": "is not a host of Databricks", "source.topics": "no topic is given"}
	p.fillInstall("https://workspace.example")
	if !p.is("document.querySelector('[data-field=client_secret] input').type === 'password' && document.querySelector('[data-field=client_secret] input').autocomplete === 'new-password'") {
		t.Error("the secret is typed in the clear, or remembered")
	}
	p.press("Install Integration")
	p.text("[data-field=workspace_url] .error", "is not a host of Databricks")
	p.text("[data-field=workspace_url] .fix", "correct config.workspace_url")
	p.text("[data-field=topics] .error", "no topic is given")
	p.until("document.activeElement.name === 'topics' && document.activeElement.getAttribute('aria-describedby').split(' ').every((id) => document.getElementById(id))")
	p.still("refused")

	// The steps come one by one; then SQL to copy.
	api.mu.Lock()
	api.refuse = nil
	api.mu.Unlock()
	p.do("document.querySelector('.topics input').click()")
	p.press("Test connection")
	p.text("main", "1 step has failed.")
	p.text(".steps", "the principal lacks MODIFY")
	p.text(".steps", "the column extra is never written")
	p.text("main", "GRANT USE CATALOG ON CATALOG datafly TO `id`;")
	for _, look := range looks {
		p.look(look.width, 900, look.scheme)
		p.still(fmt.Sprintf("tested, %s, %d wide", look.scheme, look.width))
	}
	p.look(1440, 900, "light")

	// What the API returns of a workspace is text.
	p.until("document.querySelectorAll('[data-field=warehouse_id] option').length === 3")
	p.do("(() => { const s = document.querySelector('[data-field=warehouse_id] select'); s.value = 'b'; s.dispatchEvent(new Event('input', { bubbles: true })); })()")
	p.fill("token", secretTyped)
	p.press("Run with a warehouse")
	p.text("[aria-label=Statements]", "CREATE TABLE <img src=x")
	p.still("a statement has failed")
	if p.is("document.title === 'pwned' || document.querySelector('main img')") {
		t.Error("a text of the API became markup")
	}
	api.mu.Lock()
	sentOf := strings.Join(api.bodies, "\n")
	api.mu.Unlock()
	if !strings.Contains(sentOf, `"warehouse_id":"b","token":"`+secretTyped+`"`) {
		t.Errorf("got the bodies %s", sentOf)
	}
	p.press("Test connection") // after the one that follows the run

	// The same as a command: a shell sends what the page sends, without the secret.
	p.fill("name", "Web $(touch pwned) `id` \\ \"q\" $HOME")
	p.press("Show what will be created")
	p.text("main", "fingerprint")
	command := js[string](p, "[...document.querySelectorAll('figure')].find(f => f.innerText.includes('The same by API')).querySelector('pre').textContent")
	cmd := exec.CommandContext(context.Background(), "bash", "-c", "curl() { cat; }; CLIENT_SECRET="+secretTyped+"\n"+command)
	out, err := cmd.CombinedOutput()
	var sent, want any
	if err != nil || json.Unmarshal(out, &sent) != nil || json.Unmarshal([]byte(api.last()), &want) != nil {
		t.Fatalf("the command sends %s, %v", out, err)
	}
	if got, sends := fmt.Sprint(sent), fmt.Sprint(want); got != sends {
		t.Errorf("the command sends %s, and the page sends %s", got, sends)
	}
	if strings.Contains(command, secretTyped) || !strings.Contains(command, `"client_secret": "$CLIENT_SECRET"`) {
		t.Errorf("got the command %s, want a variable instead of the secret", command)
	}
	p.text("main", "client_secret_file: /run/secrets/web-client-secret")
	p.picture("console-install-review")
	if html := js[string](p, "document.documentElement.outerHTML + location.href"); strings.Contains(html, secretTyped) {
		t.Error("the secret is in the document or the address")
	}
	p.press("Install Integration")
	p.until("location.pathname === '/integrations/web/events'")
	if body := api.last(); !strings.Contains(body, `"topics":["signal.events"]`) || !strings.Contains(body, `"client_secret":"`+secretTyped+`"`) {
		t.Errorf("got body %s", body)
	}
	if len(api.ids) != 2 || api.ids[0] == "" || api.ids[0] == api.ids[1] {
		t.Errorf("got ids %q, want another one for another request", api.ids)
	}
	p.quiet("install")
}
