package browser_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/internal/ops/access"
)

// rejectsOf is what /live/ answers of an integration with dead letters.
func rejectsOf() map[string]any {
	entry := map[string]any{"topic": "events-dlq", "partition": 0, "offset": 3, "source": "events/1/7", "source_partition": 1, "events": "0", "code": "bad_value", "column": "price",
		"failed_at": "2026-03-01T11:59:00Z", "name": "Order Completed", "type": "track", "message_id": "m-1", "size": 90}
	return map[string]any{
		"/live/summary": several(),
		"/live/history": map[string]any{"scope": "group", "history": map[string]any{"rows_per_second": []int{}}, "ledger": map[string]int{}},
		"/live/dead-letters": map[string]any{"mode": "metadata", "read": 1000, "complete": false, "matched": 1, "more_groups": 0, "dead_letters": []any{entry},
			"groups": []any{map[string]any{"code": "bad_value", "column": "price", "meaning": "the value does not fit", "count": 1, "last": "2026-03-01T11:59:00Z", "example": entry}}},
	}
}

// A redrive for real needs a reason, selects what the page selects, and shows its
// outcome.
func TestConsoleRedrive(t *testing.T) {
	answers := rejectsOf()
	var mu sync.Mutex // guards the fields below
	var query string
	var body map[string]any
	answers["POST /v1/admin/integrations/web/dead-letters/redrive"] = func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		query = r.URL.RawQuery
		_ = json.NewDecoder(r.Body).Decode(&body) // compared below
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"matched":3,"delivered":2,"rows":2,"rejected":1,"not_delivered":[{"code":"bad_value","column":"price","dead_letters":1}]}`))
	}
	_, p := newFixture(t, access.Identity{Name: "ann", Role: "editor"}, true, answers)
	p.watched()
	p.visit("/integrations/web/dead-letters?code=bad_value&column=price&partition=1")
	p.text("#total", "Of the newest 1,000 unresolved dead letters read; there may be older ones, 1 match")
	p.do("[...document.querySelectorAll('button')].find(b => b.innerText === 'Redrive …').click()")
	p.text("dialog", "with code bad_value, column price, partition 1")
	if !p.is("document.querySelector('#redrive').disabled") {
		t.Error("a redrive without a reason is offered")
	}
	p.do("(() => { const i = document.querySelector('dialog input'); i.value = 'the column is wider now'; i.dispatchEvent(new Event('input', { bubbles: true })); })()")
	p.until("!document.querySelector('#redrive').disabled")
	p.still("redrive")
	p.click("#redrive")
	p.text("#redrive-result", "2 of 3 dead letters were delivered as 2 rows, 1 were rejected again")
	p.text("dialog", "bad_value")
	p.quiet("redrive")
	mu.Lock()
	defer mu.Unlock()
	if got, _ := json.Marshal(body); query != "dry_run=false" || string(got) != `{"codes":["bad_value"],"column":"price","partitions":[1],"reason":"the column is wider now"}` {
		t.Errorf("got %s with %s, want the selection and the reason", query, got)
	}
}

// Who may not redrive sees why.
func TestConsoleRedriveNeedsARole(t *testing.T) {
	for who, want := range map[access.Identity]string{{Name: "bob", Role: "viewer"}: "Redriving needs the role editor; yours is viewer", {}: "Redriving is done on the admin listener"} {
		t.Run(who.Name, func(t *testing.T) {
			f, p := newFixture(t, who, who.Name != "", rejectsOf())
			p.visit("/integrations/web/dead-letters")
			p.text("#main", want)
			if p.is("[...document.querySelectorAll('button')].some(b => b.innerText === 'Redrive …')") {
				t.Error("the redrive is offered")
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, asked := range f.asked {
				if strings.Contains(asked, "/v1/") {
					t.Errorf("the page asked for %s", asked)
				}
			}
		})
	}
}
