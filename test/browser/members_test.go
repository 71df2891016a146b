package browser_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/datafly/bridge/internal/ops/access"
)

func membersAnswer() map[string]any {
	return map[string]any{
		"time": "2026-03-01T12:00:00Z", "peers_configured": true, "kafka": map[string]any{"ok": true},
		"members": []any{
			map[string]any{"address": "10.0.0.1:9400", "self": true, "ok": true, "version": "v1.4.0", "state": "running", "started": "2026-03-01T09:00:00Z",
				"buffered_bytes": 5 << 20, "buffered_limit_bytes": 256 << 20, "memory": map[string]any{"bound_bytes": 600 << 20, "cgroup_bytes": 1 << 30},
				"integrations": []any{
					map[string]any{"integration": "web", "name": "Web", "state": "running", "ready": true, "partitions": 6},
					map[string]any{"integration": "orders-eu", "name": "Orders EU", "state": "failed", "partitions": 0},
				}},
			map[string]any{"address": "10.0.0.2:9400", "ok": false, "error": "connection refused; see whether the process runs", "since": "2026-03-01T11:56:00Z", "integrations": []any{}},
		},
		"unreported": []any{map[string]any{"integration": "web", "member_id": "bridge-1-77", "client_id": "bridge", "host": "10.0.0.2", "partitions": 6, "answering": false}},
	}
}

func TestConsoleMembers(t *testing.T) {
	_, p := newFixture(t, access.Identity{Name: "vic", Role: access.Viewer}, false, map[string]any{"/live/summary": summary(), "/live/members": membersAnswer()})
	p.watched()
	p.inspect("/members", "document.querySelector('main article')", func(look string) {
		p.text("main", "1 of 2 not answering")
		p.text("main article", "connection refused")
		p.text("main article", "(4 min)")
		p.text("main", "3 h")
		p.text("main", "5.0 MiB of 256 MiB")
		p.text("main", "bridge-1-77")
		p.picture("console-members-" + look)
	})
}

func entries(from, n int) []any {
	var all []any
	for i := from; i < from+n; i++ {
		all = append(all, map[string]any{
			"id": fmt.Sprintf("log_%012d", i), "action": "integration.updated", "user_id": "ann", "resource_id": "int_abcdefghijkl", "slug": "web", "revision": 200 - i, "reason": fmt.Sprintf("ticket %d", i),
			"request_id": "req_1", "timestamp": "2026-03-01T12:00:00Z", "changes": map[string]any{"target.table": map[string]any{"old": "stream", "new": "stream2"}},
		})
	}
	return all
}

func TestConsoleAudit(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		page := map[string]any{"data": entries(0, 50), "next_cursor": "bG9n", "has_more": true}
		if r.URL.Query().Get("cursor") == "bG9n" {
			page = map[string]any{"data": entries(50, 3), "next_cursor": nil, "has_more": false}
		}
		writeJSON(w, page)
	}
	_, p := newFixture(t, admin(), true, map[string]any{"/live/summary": summary(), "/v1/admin/audit-log": answer})
	p.watched()
	p.inspect("/audit", "document.querySelectorAll('.entry').length === 50", func(look string) {
		p.click(".entry button")
		p.text(".entry .diff", "stream2")
		p.picture("console-audit-" + look)
	})
	p.press("Older")
	p.until("document.querySelectorAll('.entry').length === 53 && ![...document.querySelectorAll('main button')].some((b) => b.textContent === 'Older')")
	p.text("main", "ticket 52")
	p.quiet("audit")
}
