package browser_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

// The status is on the page soon after the row's acknowledgement: within two seconds
// on a quiet machine. The fastest of five counts, with room for a busy one. A page
// that polls is slower than that.
func TestDeliveredIsSeenAtOnce(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	fastest := patience
	for i := range 5 {
		id := fmt.Sprintf("at-once-%d", i)
		s.event(track("Order Completed", id))
		s.eventually("the row", func() bool { return s.rows() > i })
		began := time.Now()
		p.row("successful", "Order Completed", id)
		fastest = min(fastest, time.Since(began))
	}
	t.Logf("seen %v after the row was in the table", fastest.Round(time.Millisecond))
	if fastest > 10*time.Second {
		t.Errorf("got the status %v after the delivery at best, want 2s, and 10s on a busy machine", fastest)
	}
	p.text("#sample", "All 5 events since the start")
	p.text("#ledger", "5 delivered")
	p.text("#ledger", "all accounted for")
	p.until("document.querySelectorAll('#figures .line').length === 6")
	p.tab("Configuration")
	p.text("#sink", tableName)
	p.text("#sink", "workspace to "+s.ws.URL()+": zerobus.transport is set")
}

// Red when delivery stands, with the remedy, and on again when it is resolved.
func TestBlockedSinkShowsItsRemedy(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	if err := s.ws.Revoke(emulator.PrivilegeModify, tableName); err != nil {
		t.Fatal(err)
	}
	s.event(track("Order Completed", "stuck"))
	p.text("#verdict .pill", "blocked")
	p.text("#verdict", "GRANT")
	p.until("document.querySelector('#verdict').dataset.tone === 'bad'")
	p.row("retrying", "stuck")
	if err := s.ws.Grant(emulator.PrivilegeModify, tableName); err != nil {
		t.Fatal(err)
	}
	p.until("document.querySelector('#verdict').dataset.tone === 'ok'")
	p.row("successful", "stuck")
}

// A service that does not answer turns the verdict amber, and after a minute red.
func TestStalledSinkTurnsTheVerdictRed(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	_, err := s.ws.AddFault(emulator.Fault{Endpoint: emulator.EndpointIngest, Effect: emulator.EffectHang})
	if err != nil {
		t.Fatal(err)
	}
	s.event(track("Order Completed", "stalled"))
	seen := map[string]bool{}
	s.eventually("the verdict to be red", func() bool {
		seen[js[string](p, "document.querySelector('#verdict').dataset.tone")] = true
		return seen["bad"]
	})
	p.text("#verdict", "none was delivered for a minute: 1 event waits")
	if !seen["warn"] {
		t.Errorf("got the colours %v, want amber before", seen)
	}
	s.ws.ClearFaults()
	p.until("document.querySelector('#verdict').dataset.tone === 'ok'")
	p.row("successful", "stalled")
}

// Amber when a part of the events is rejected.
func TestRejectsTurnTheVerdictAmber(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	s.eventually("a first sample", func() bool {
		_, body := s.get("/live/history")
		return strings.Contains(body, `"rows_per_second":[null`)
	})
	for i := range 20 {
		s.event(track("Order Completed", fmt.Sprint(i)))
	}
	s.event("not json")
	p.until("document.querySelector('#verdict').dataset.tone === 'warn'")
	p.text("#verdict", "of the events of the last 5 minutes were rejected (1 event)")
	p.text("#verdict", "see the dead letters")
	p.text("#figures", "Rejected")
}

func TestFiltersPauseAndKeys(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	for i, value := range []string{
		track("Alpha", "id-a"), track("Beta", "id-b"), `{"type":"page","name":"Home","message_id":"id-c"}`, `not json`, ``,
	} {
		rec := &kgo.Record{Partition: int32(i % 3), Value: []byte(value)}
		if value == "" {
			rec.Value = nil
		}
		s.produce(rec)
		p.until(fmt.Sprintf("document.querySelectorAll('#events tr[data-row]').length === %d", i+1))
	}
	p.row("rejected", "not_json")
	p.row("filtered", "tombstone")
	p.row("successful", "id-a")

	want := func(what string, names ...string) {
		t.Helper()
		p.until(fmt.Sprintf("[...document.querySelectorAll('#events a.row')].length === %d", len(names)))
		if got := p.listed(); !slices.Equal(got, names) {
			t.Errorf("%s: got %q, want %q", what, got, names)
		}
	}
	chip := func(name string) {
		t.Helper()
		p.do(fmt.Sprintf("[...document.querySelectorAll('#events .chips button')].find(b => b.textContent.startsWith(%s)).click()", quote(name)))
	}
	want("all", "(no name)", "(no name)", "Home", "Beta", "Alpha")
	chip("rejected")
	want("rejected", "(no name)")
	p.until("location.search === '?status=rejected'")
	chip("All")
	p.choose("Type", "track")
	want("tracks", "Beta", "Alpha")
	p.choose("Event", "Beta")
	want("tracks named Beta", "Beta")
	p.choose("Event", "")
	p.choose("Type", "")
	p.choose("Partition", s.topic+"/2")
	want("of partition 2", "Home")
	p.choose("Partition", "")
	p.keys("/")
	if !p.is("document.activeElement.matches('[data-search]')") {
		t.Error("/ did not go to the search")
	}
	p.keys("ID-B")
	want("found by id", "Beta")
	p.text("#sample", "1 matches.")
	p.until("location.search === '?q=ID-B'")
	p.keys("zzz")
	p.text("#events", "No event matches")
	p.text("#events", "bridge dlq list")
	p.do("document.querySelector('#events .empty button').click()")
	p.keys(escape)
	// The address is the view.
	p.visit("/integrations/default/events?q=alpha")
	p.until("document.querySelectorAll('#events a.row').length === 1")
	p.visit("/integrations/default/events")
	p.until("document.querySelectorAll('#events a.row').length === 5")

	p.keys("jjj")
	if !p.is("document.activeElement.innerText === 'Home'") {
		t.Errorf("jjj: got the focus on %q, want Home", js[string](p, "document.activeElement.innerText"))
	}
	p.keys("k")
	p.keys("\r")
	p.text("#detail", "not_json")
	p.until("location.pathname === '/integrations/default/events/0/1'")
	if !p.is("document.querySelector('#detail').contains(document.activeElement)") {
		t.Error("the focus is not in the details that were opened")
	}
	p.keys(escape)
	p.until("!document.querySelector('#detail') && document.activeElement.closest('#events tr')")
	p.do("document.activeElement.blur()")

	p.click("#pause")
	p.text("#pause", "Resume")
	s.event(track("Gamma", "id-g"))
	p.text("#pause", "1 new")
	if slices.Contains(p.listed(), "Gamma") {
		t.Error("an event came up while the list was paused")
	}
	// A screen reader speaks each new name of the button that has the focus.
	if name := js[string](p, "[...document.querySelector('#pause').childNodes].filter(n => n.ariaHidden !== 'true').map(n => n.textContent).join('')"); name != "Resume" {
		t.Errorf("got the name %q, want it without a number", name)
	}
	p.click("#pause")
	p.row("Gamma")
}

// choose picks an option of the choice of that name, once it is there.
func (p *page) choose(label, value string) {
	p.t.Helper()
	at := fmt.Sprintf("document.querySelector('select[aria-label=%s]')", quote(label))
	p.until(fmt.Sprintf("[...%s.options].some(o => o.value === %s)", at, quote(value)))
	p.do(fmt.Sprintf("%s.value = %s, %s.dispatchEvent(new Event('input'))", at, quote(value), at))
}

func TestDetailsExplainTheRow(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full")
	p.open()
	s.produce(&kgo.Record{Partition: 1, Key: []byte("k-7"), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("t-9")}},
		Value: []byte(`{"type":"track","event":"Order Completed","messageId":"m-1","userId":null,"context":{"ip":"192.0.2.7"},"properties":{"total":12345678901234567890}}`)})
	p.openRow("successful", "Order Completed")
	for _, want := range []string{"12345678901234567890", "context.ip", "192.0.2.7", "order_completed", "NULL", "explicit null at userId", "no source present", "k-7", "t-9", s.topic, "1 rows of 1 records", "Latency"} {
		p.text("#detail", want)
	}
	// The event has an address.
	p.visit(js[string](p, "location.pathname + location.search"))
	p.text("#detail", "context.ip")
	p.visit("/integrations/default/events/1/999")
	p.text("#detail", "not in the sample of this member")
	p.open()
	s.event(`{"type":"track","event":"Bad Time","message_id":"m-2","timestamp":"the day before"}`)
	p.openRow("rejected", "Bad Time", "bad_timestamp")
	for _, want := range []string{"bad_timestamp", "event_timestamp", "the day before", "refused"} {
		p.text("#detail", want)
	}

	p.tab("Dead letters")
	p.text("#total", "1 unresolved dead letter in all")
	p.text("#groups", "event_timestamp")
	p.text("#rejects", "Bad Time")
	p.click("#dry-run")
	p.text("#dry-run-result", "0 of 1 failed events would be rows now")
	p.text("#dry-run-result", "event_timestamp")
	p.click("#rejects a.row")
	p.text("#dead-letter", "the day before")
	p.keys(escape)
	p.until("!document.querySelector('#dead-letter')")
	p.click("#groups a.row")
	p.until("location.search.includes('code=bad_timestamp')")
	p.text("#total", "1 match")
	p.visit("/integrations/default/dead-letters?code=not_json&column=-")
	p.text("#main", "None matches")
	p.tab("Configuration")
	p.text("#main pre", "client_secret")
	p.text("#main pre", "[redacted]")
	if strings.Contains(p.all(), emulator.DefaultClientSecret) {
		t.Error("the client secret is on the page")
	}
}

func TestTokenIsAskedFor(t *testing.T) {
	const token = "open-sesame-0123456789"
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full", "ops.token="+token)
	for _, path := range []string{"/live/stream", "/live/events", "/live/events/1", "/live/config", "/live/dead-letters", "/live/summary", "/live/partitions", "/live/history"} {
		if status, body := s.get(path); status != 401 || !strings.Contains(body, "ops.token") {
			t.Errorf("%s without the token: got %d %s, want 401", path, status, body)
		}
	}
	if status, _ := s.get("/live/events", "Authorization", "Bearer "+token); status != 200 {
		t.Errorf("with the bearer header: got %d, want 200", status)
	}
	p.visit("/live/?integration=default") // where the page was
	p.text("main", "Sign in")
	p.login("open-sesame-wrong")
	p.text("#wrong", "not a valid token")
	p.login(token)
	p.text("#verdict", "deliver")
	if at := js[string](p, "location.pathname"); at != "/integrations/default" {
		t.Errorf("got to %s after the login, want where it led", at)
	}
	s.event(track("Order Completed", "m-1"))
	p.row("successful", "m-1")
	if cookie := js[string](p, "document.cookie"); cookie != "" {
		t.Errorf("got cookie %q within reach of scripts, want it HttpOnly", cookie)
	}
	p.do("setTimeout(() => [...document.querySelectorAll('button')].find(b => b.innerText === 'Sign out').click())")
	p.text("main", "Sign in")
	p.visit("/integrations/default")
	p.text("main", "Sign in")
}

func (p *page) login(token string) {
	p.t.Helper()
	p.do(fmt.Sprintf("document.querySelector('#token').value = %s", quote(token)))
	p.do("setTimeout(() => document.querySelector('button.main').click())") // after the answer: it leaves this page
}
