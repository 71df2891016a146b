package browser_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/datafly/bridge/internal/ops/access"
)

// managed answers for one installed integration, web, as the API does.
type managed struct {
	mu          sync.Mutex // guards the fields below
	integration map[string]any
	sent        []string       // method, path and body of the changes
	theirs      map[string]any // what somebody else saves before the next change
}

const apiOfWeb = "/v1/admin/integrations/web"

func newManaged(t *testing.T) (*managed, map[string]any) {
	t.Helper()
	m := &managed{integration: map[string]any{
		"id": "int_abcdefghijkl", "slug": "web", "name": "Web", "vendor": "databricks_zerobus", "variant": "default", "enabled": true, "revision": 3, "managed_by": "store", "shadowed": false,
		"config":    map[string]any{"workspace_url": "https://abc-12345.cloud.databricks.com", "client_id": "id", "client_secret": map[string]any{"set": true, "fingerprint": "ab12cd34"}, "catalog": "datafly", "schema": "events", "table": "stream", "gzip": true},
		"source":    map[string]any{"topics": []string{"signal.events"}},
		"blueprint": "version: 2\nextends: default\n", "delivery_mode": "server_side", "group": "bridge-web", "dead_letter_topics": []string{"signal.events-dlq-web"}, "table": "datafly.events.stream",
		"meta": map[string]any{"updated_at": "2026-03-01T11:00:00Z", "by": "ann", "reason": "first"}, "observed": map[string]any{"state": "delivering"},
	}}
	answers := catalogAnswers(t)
	answers["/live/summary"] = several()
	answers["GET "+apiOfWeb] = func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		writeJSON(w, m.integration)
	}
	for _, call := range []string{"PATCH " + apiOfWeb, "DELETE " + apiOfWeb, "POST " + apiOfWeb + "/enable", "POST " + apiOfWeb + "/disable"} {
		answers[call] = m.change
	}
	answers["POST "+apiOfWeb+"/replay"] = m.replay
	answers["POST "+apiOfWeb+"/check"] = (&installer{}).check
	answers["POST /v1/admin/blueprint/validate"] = validated
	answers["POST /v1/admin/blueprint/try"] = tried
	answers[apiOfWeb+"/recent-events"] = map[string]any{"has_more": false, "next_cursor": nil, "data": []any{
		map[string]any{"topic": "signal.events", "partition": 1, "offset": 41, "time": "2026-03-01T11:59:00Z", "event": map[string]any{"type": "page", "note": "<img src=x onerror=alert(1)>"}},
		map[string]any{"topic": "signal.events", "partition": 0, "offset": 7, "time": "2026-03-01T11:58:00Z", "event": "no json"},
	}}
	entry := func(revision int, blueprint, reason string) map[string]any {
		return map[string]any{"id": "log_" + reason, "action": "integration.updated", "user_id": "ann", "resource_type": "integration", "resource_id": "int_abcdefghijkl", "slug": "web", "revision": revision,
			"changes": map[string]any{"blueprint": map[string]any{"old": nil, "new": blueprint}}, "reason": reason, "request_id": "req_1", "timestamp": "2026-03-01T11:00:00Z", "record": map[string]any{"blueprint": blueprint}}
	}
	answers[apiOfWeb+"/revisions"] = map[string]any{"has_more": false, "next_cursor": nil, "data": []any{entry(3, "version: 2\nextends: default\n", "latest"), entry(2, "version: 2\nextends: retail\n", "retail")}}
	return m, answers
}

func (m *managed) note(r *http.Request) map[string]any {
	text, _ := io.ReadAll(r.Body)
	m.sent = append(m.sent, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("If-Match")+" "+string(text)))
	body := map[string]any{}
	_ = json.Unmarshal(text, &body) // without a body it stays empty
	return body
}

func refuse(w http.ResponseWriter, status int, code, message string, fields ...map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}, "remedy": "read it again, and repeat the change", "fields": fields})
}

func (m *managed) change(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body := m.note(r)
	if config, _ := body["config"].(map[string]any); config["table"] == "no table" {
		refuse(w, http.StatusUnprocessableEntity, "VALIDATION_FAILED", "config.table is wrong", map[string]any{"field": "config.table", "message": "must be a name", "remedy": "name the table"})
		return
	}
	dry := r.URL.Query().Get("dry_run") == "true"
	if m.theirs != nil && !dry {
		m.integration = maps.Clone(m.integration)
		maps.Copy(m.integration, m.theirs)
		m.integration["revision"], m.integration["meta"], m.theirs = m.integration["revision"].(int)+1, map[string]any{"updated_at": "2026-03-01T11:59:00Z", "by": "bob", "reason": "theirs"}, nil
		refuse(w, http.StatusPreconditionFailed, "REVISION_MISMATCH", "integration web is at another revision")
		return
	}
	changes, next := map[string]any{}, maps.Clone(m.integration)
	for field, value := range body {
		changes[field] = map[string]any{"old": next[field], "new": value}
		if field != "config" && field != "source" {
			next[field] = value
		}
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/enable"):
		next["enabled"] = true
	case strings.HasSuffix(r.URL.Path, "/disable"):
		next["enabled"] = false
	}
	next["revision"] = next["revision"].(int) + 1
	if !dry {
		m.integration = next
	}
	writeJSON(w, map[string]any{"integration": next, "dry_run": dry, "changes": changes, "action": "replace", "notes": []string{"consumer group bridge-web keeps its committed offsets"}})
}

// meanwhile has somebody else save a change before the next one.
func (m *managed) meanwhile(change map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.theirs = change
}

func (m *managed) replay(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body := m.note(r)
	if body["to"] == "-5" {
		refuse(w, http.StatusUnprocessableEntity, "VALIDATION_FAILED", "to is wrong", map[string]any{"field": "to", "message": "\"-5\" is not a position", "remedy": "use an offset of 0 or more"})
		return
	}
	execute := r.URL.Query().Get("dry_run") == "false"
	writeJSON(w, map[string]any{"at": "2026-03-01T12:00:00Z", "by": "ann", "group": "bridge-web", "to": body["to"], "executed": execute, "members": []any{},
		"totals": map[string]any{"partitions": 2, "changed": 2, "to_read": 1200, "delivered_again": 1100, "skipped": 40},
		"partitions": []any{
			map[string]any{"topic": "signal.events", "partition": 0, "committed": 600, "target": 0, "log_start": 0, "log_end": 700, "to_read": 700, "delivered_again": 600, "skipped": 0},
			map[string]any{"topic": "signal.events", "partition": 1, "committed": nil, "target": 40, "log_start": 0, "log_end": 500, "to_read": 500, "delivered_again": 500, "skipped": 40, "note": "is new"},
		}})
}

func (m *managed) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.sent, "\n")
}

// validated refuses documents with the word wrong, in its line.
func validated(w http.ResponseWriter, r *http.Request) {
	var body struct{ Blueprint string }
	_ = json.NewDecoder(r.Body).Decode(&body) // the page sends JSON
	problems := []any{}
	for n, line := range strings.Split(body.Blueprint, "\n") {
		if at := strings.Index(line, "wrong"); at >= 0 {
			problems = append(problems, map[string]any{"line": n + 1, "column": at + 1, "message": "wrong is no key", "remedy": "did you mean global?"})
		}
	}
	ddl := ""
	if strings.Contains(body.Blueprint, "discount") {
		ddl = "ALTER TABLE datafly.events.stream ADD COLUMN discount STRING;"
	}
	writeJSON(w, map[string]any{"valid": len(problems) == 0, "problems": problems, "warnings": []string{}, "ddl": ddl})
}

func tried(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Event any
	}
	_ = json.NewDecoder(r.Body).Decode(&body) // the page sends JSON
	result := map[string]any{"outcome": "row", "row": map[string]any{"event_type": "page"}, "columns": []any{
		map[string]any{"name": "event_type", "type": "STRING", "value": `"page"`, "source": "type"},
		map[string]any{"name": "user_id", "type": "STRING", "why": "no source present: user_id"},
	}}
	if _, text := body.Event.(string); text {
		result = map[string]any{"outcome": "reject", "code": "not_json", "reason": "the record is not JSON", "columns": []any{}}
	}
	writeJSON(w, map[string]any{"problems": []any{}, "results": []any{result}})
}

func TestConsoleBlueprint(t *testing.T) {
	m, answers := newManaged(t)
	_, p := newFixture(t, admin(), true, answers)
	p.watched()
	const valid = "[...document.querySelectorAll('.pill')].some(e => e.textContent === 'valid')"
	p.inspect("/integrations/web/blueprint", valid+" && document.querySelector('main table tr[data-row]')", func(look string) {
		p.replaceText("#document", "wrong: 1\n")
		p.text("main", "1 problem")
		p.act("#recent")
		p.choose("Recent events", "signal.events/1/41")
		p.text("#tried", "no source present")
		p.picture("console-blueprint-" + look)
	})

	p.look(1440, 900, "light")
	p.visit("/integrations/web/blueprint")
	p.until(valid)
	if got := js[int](p, "document.querySelectorAll('.gutter span').length"); got != 3 {
		t.Errorf("got %d line numbers, want 3", got)
	}
	p.replaceText("#document", "version: 2\nextends: default\n\nwrong: 1\n")
	p.text(".problems", "did you mean global?")
	p.click(".problems button")
	if got := js[int](p, "document.activeElement.id === 'document' ? document.activeElement.selectionStart : -1"); got != 29 {
		t.Errorf("got the caret at %d, want it at the mistake", got)
	}
	p.until("document.querySelector('#save').disabled && document.querySelector('.gutter .del').textContent.trim() === '4'")

	// A pasted event, and a recent one with markup in it.
	p.replaceText("#event", "no json")
	p.text("#tried", "rejected not_json the record is not JSON")
	p.act("#recent")
	p.choose("Recent events", "signal.events/1/41")
	p.text("#tried", "a row")
	p.text("#tried", "no source present: user_id")

	p.replaceText("#document", "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.discount, target: discount}\n")
	p.text("main", "ADD COLUMN discount")
	p.text(".textdiff", "+     - {source: properties.discount, target: discount}")
	p.fill("reason", "discounts")
	m.meanwhile(map[string]any{"blueprint": "version: 2\nextends: retail\n"})
	p.act("#save")
	// Somebody else was faster: what was typed stays, compared with theirs.
	p.text("#conflict", "bob has changed it meanwhile; it is at revision 4 now: theirs. What you typed is still here.")
	p.text(".textdiff", "- extends: retail")
	p.text(".textdiff", "+     - {source: properties.discount, target: discount}")
	p.act("#save")
	p.text("#outcome", "Saved as revision 5. It drains and starts again with the change.")
	if got := m.all(); !strings.Contains(got, `PATCH `+apiOfWeb+`?reason=discounts "4" {"blueprint":"version: 2\nextends: default\nglobal:`) {
		t.Errorf("got %s, want the document with the revision and the reason", got)
	}

	// Undo: the document of an earlier revision, by its address.
	p.visit("/integrations/web/blueprint?revision=2")
	p.text("#revision", "extends: retail")
	p.click("#use")
	p.until("document.querySelector('#document').value === 'version: 2\\nextends: retail\\n'")
	p.text("main", "Changes to revision 5")

	// A link elsewhere asks first.
	p.do("window.confirm = (text) => { window.asked = text; return false; }")
	p.do("[...document.querySelectorAll('.tabs a')].find(a => a.textContent === 'Replay').click()")
	p.until("window.asked")
	p.until("location.pathname.endsWith('/blueprint')")
	p.press("Discard")
	p.until("document.querySelector('#document').value.includes('discount')")
	p.quiet("blueprint")
}

func TestConsoleSettings(t *testing.T) {
	m, answers := newManaged(t)
	_, p := newFixture(t, admin(), true, answers)
	p.watched()
	const ready = "document.querySelector('[data-field=workspace_url] input') && document.querySelector('#switch')"
	p.inspect("/integrations/web/settings", ready, func(look string) {
		p.fill("table", "other")
		p.act("#review")
		p.text("#outcome", "It drains and starts again with the change.")
		p.picture("console-settings-" + look)
	})

	p.look(1440, 900, "light")
	p.visit("/integrations/web/settings")
	p.until(ready)
	p.text(`[data-field="client_secret"]`, "set, fingerprint ab12cd34")
	if p.is("document.querySelector('#save')") {
		t.Error("got a button to save without a change")
	}
	p.fill("table", "no table")
	p.act("#save")
	p.text(`[data-field="table"] .error`, "must be a name name the table")
	p.fill("table", "orders")
	p.fill("topics", "signal.events, signal.orders")
	p.press("Replace Client secret")
	p.fill("client_secret", secretTyped)
	p.act("#test")
	p.text("main .steps", "run GRANT MODIFY")
	p.fill("reason", "orders too")
	// Somebody else changed another field meanwhile: theirs stays, what was typed as well.
	theirs := maps.Clone(m.integration["config"].(map[string]any))
	theirs["schema"] = "theirs"
	m.meanwhile(map[string]any{"config": theirs})
	p.act("#save")
	p.text("#conflict", "bob has changed it meanwhile")
	p.until("document.querySelector('[data-field=schema] input').value === 'theirs' && document.querySelector('[data-field=table] input').value === 'orders'")
	p.act("#save")
	p.text("#outcome", "Saved as revision 5.")
	want := `PATCH ` + apiOfWeb + `?reason=orders+too "4" {"source":{"topics":["signal.events","signal.orders"]},"config":{"client_secret":"` + secretTyped + `","table":"orders"}}`
	if got := m.all(); !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if text := p.all(); strings.Contains(text, secretTyped) {
		t.Error("got the secret on the page")
	}

	p.click("#switch")
	p.until("document.querySelector('dialog[open]')")
	p.fill("reason", "a replay")
	p.act("#switch-now")
	p.text("#switch", "Enable …")
	p.click("#remove")
	p.until("document.querySelector('dialog[open]')")
	p.until("document.querySelector('#remove-now').disabled")
	p.fill("typed", "Web")
	p.act("#remove-now")
	p.text("#removed", "consumer group bridge-web keeps its committed offsets")
	if got := m.all(); !strings.Contains(got, `POST `+apiOfWeb+`/disable?reason=a+replay "5"`) || !strings.Contains(got, `DELETE `+apiOfWeb+` "6"`) {
		t.Errorf("got %s, want a disable and a removal with the revisions", got)
	}
	p.quiet("settings")
}

func TestConsoleReplay(t *testing.T) {
	m, answers := newManaged(t)
	_, p := newFixture(t, admin(), true, answers)
	p.watched()
	p.inspect("/integrations/web/replay", "document.querySelector('#dry-run')", func(look string) {
		p.act("#dry-run")
		p.text("#plan-total", "Up to 1,100 rows are written again")
		p.picture("console-replay-" + look)
	})

	p.look(1440, 900, "light")
	p.visit("/integrations/web/replay")
	p.text("#enabled", "disable it")
	p.click(`input[value="offset"]`)
	p.fill("offset", "-5")
	p.act("#dry-run")
	p.text(`[data-field="offset"] .error`, "use an offset of 0 or more")
	p.fill("offset", "40")
	p.fill("partitions", "x")
	p.text(`[data-field="partitions"] .error`, "Write it as 0,3-5.")
	p.fill("partitions", "0-1")
	p.act("#dry-run")
	p.text("#plan", "40 events that were never delivered are skipped")
	p.until("document.querySelector('#execute').disabled") // it is enabled
	m.mu.Lock()
	m.integration["enabled"] = false
	m.mu.Unlock()
	p.visit("/integrations/web/replay")
	p.act("#dry-run")
	p.act("#execute")
	p.until("document.querySelector('dialog[open]')")
	p.fill("reason", "a fixed blueprint")
	p.until("document.querySelector('#execute-now').disabled") // events would be skipped
	p.click("#skip")
	p.act("#execute-now")
	p.text("#plan", "Done, and read back")
	for _, want := range []string{`replay?dry_run=true  {"to":"40","partitions":[0,1]}`, `replay?dry_run=false  {"to":"earliest","reason":"a fixed blueprint","allow_skip":true}`} {
		if got := m.all(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	p.quiet("replay")
}

// Who may not change sees the settings and the document, and nothing that changes them.
func TestConsoleTabsOfAViewer(t *testing.T) {
	_, answers := newManaged(t)
	_, p := newFixture(t, access.Identity{Name: "vic", Role: access.Viewer}, true, answers)
	p.watched()
	for path, ready := range map[string]string{
		"/integrations/web/blueprint": "document.querySelector('#document').readOnly && document.querySelector('.needs')",
		"/integrations/web/settings":  "document.querySelector('[data-field=table] input').disabled && document.querySelectorAll('.needs').length === 3",
		"/integrations/web/replay":    "document.querySelector('.needs')",
	} {
		p.inspect(path, ready)
		if p.is("[...document.querySelectorAll('main button')].some(b => /^(Save|Disable|Remove|Dry run|Replay|Test)/.test(b.textContent) && !b.disabled)") {
			t.Errorf("%s: got buttons that change", path)
		}
	}
	_, p = newFixture(t, access.Identity{Name: "anyone", Role: access.Viewer}, false, answers)
	p.watched()
	for _, path := range []string{"/integrations/web/blueprint", "/integrations/web/settings", "/integrations/web/replay"} {
		p.visit(path)
		p.text("main", "admin.enabled: true")
		p.quiet(path)
	}
}

// replaceText replaces the text of a field.
func (p *page) replaceText(selector, text string) {
	p.t.Helper()
	p.until("document.querySelector(" + quote(selector) + ")")
	p.do("(() => { const f = document.querySelector(" + quote(selector) + "); f.value = " + quote(text) + `; f.dispatchEvent(new Event("input", { bubbles: true })); })()`)
}

// act clicks a button once it can be used, after what was typed has been drawn.
func (p *page) act(selector string) {
	p.t.Helper()
	p.do("window.drawn = false, requestAnimationFrame(() => setTimeout(() => { window.drawn = true; }))")
	p.until("window.drawn")
	p.until("document.querySelector(" + quote(selector) + ")?.disabled === false")
	p.click(selector)
}

// A session that ends while somebody types: the text stays, and is saved after a new login.
func TestConsoleSessionEndsWhileTyping(t *testing.T) {
	_, answers := newManaged(t)
	var ended atomic.Bool
	summary := answers["/live/summary"]
	answers["/live/summary"] = func(w http.ResponseWriter, _ *http.Request) {
		if ended.Load() {
			refuse(w, http.StatusUnauthorized, "UNAUTHENTICATED", "no session")
			return
		}
		writeJSON(w, summary)
	}
	_, p := newFixture(t, admin(), true, answers)
	p.look(1440, 900, "light")
	p.visit("/integrations/web/blueprint")
	p.until("document.querySelector('#document')")
	p.replaceText("#document", "version: 2\nextends: retail\n")
	p.text("main", "Changes to revision 3")
	ended.Store(true)
	p.text("#ended", "The session has ended.")
	p.picture("console-session-ended")
	if !p.is("location.pathname === '/integrations/web/blueprint' && document.querySelector('#document').value.includes('retail') && document.querySelector('#ended a').target === '_blank'") {
		t.Error("got another page, want what was typed and a link to sign in")
	}
	ended.Store(false)
	p.until("!document.querySelector('#ended') && document.querySelector('#document').value.includes('retail')")
	p.press("Discard")
	p.until("!('unsaved' in document.body.dataset)")
	p.do("window.before = true")
	ended.Store(true) // with nothing to lose, the page leads to the form
	p.until("!window.before")
	ended.Store(false)
}
