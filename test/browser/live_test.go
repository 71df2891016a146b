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
		p.row("Delivered", "Order Completed", id)
		fastest = min(fastest, time.Since(began))
	}
	t.Logf("seen %v after the row was in the table", fastest.Round(time.Millisecond))
	if fastest > 10*time.Second {
		t.Errorf("got the status %v after the delivery at best, want 2s, and 10s on a busy machine", fastest)
	}
	p.text("#health", "Delivering")
	p.text("#ledger", "5 delivered")
	p.text("#ledger", "all accounted for")
	p.text("#partitions", "waiting")
	p.text("#sink", tableName)
	p.text("#sink", "workspace to "+s.ws.URL()+": zerobus.transport is set")
	p.until("document.querySelector('#fig-in .line').getAttribute('d')")
}

func TestBlockedSinkShowsItsRemedy(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	p.text("#health", "Delivering")
	if err := s.ws.Revoke(emulator.PrivilegeModify, tableName); err != nil {
		t.Fatal(err)
	}
	s.event(track("Order Completed", "stuck"))
	p.text("#health-word", "Not delivering")
	p.text("#reasons", "sink_blocked")
	p.text("#reasons", "GRANT")
	p.text("#announcement", "Not delivering")
	p.row("Retrying", "stuck")
	if !p.is("document.title.startsWith('■')") {
		t.Error("got a title that does not show the problem")
	}
	if err := s.ws.Grant(emulator.PrivilegeModify, tableName); err != nil {
		t.Fatal(err)
	}
	p.text("#health-word", "Delivering")
	p.row("Delivered", "stuck")
	p.until("!document.querySelector('#reasons li')")
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
		p.until(fmt.Sprintf("document.querySelectorAll('#events-table tbody tr').length === %d", i+1))
	}
	p.row("Rejected", "not_json")
	p.row("Filtered", "tombstone")
	p.row("Delivered", "id-a")

	want := func(what string, names ...string) {
		t.Helper()
		if got := p.listed(); !slices.Equal(got, names) {
			t.Errorf("%s: got %q, want %q", what, got, names)
		}
	}
	want("all", "(no name)", "(no name)", "Home", "Beta", "Alpha")
	p.click(`#chips [data-status="rejected"]`)
	want("rejected", "(no name)")
	p.click(`#chips [data-status="delivered"]`)
	want("rejected or delivered", "(no name)", "Home", "Beta", "Alpha")
	p.click(`#chips [data-status="rejected"]`)
	p.click(`#chips [data-status="delivered"]`)
	p.choose("#by-type", "track")
	want("tracks", "Beta", "Alpha")
	p.choose("#by-name", "Beta")
	want("tracks named Beta", "Beta")
	p.choose("#by-name", "")
	p.choose("#by-type", "")
	p.choose("#by-partition", s.topic+"/2")
	want("of partition 2", "Home")
	p.choose("#by-partition", "")
	p.keys("/")
	if !p.is("document.activeElement.id === 'q'") {
		t.Error("/ did not go to the search")
	}
	if got := js[string](p, "document.querySelector('#q').value"); got != "" {
		t.Errorf("/ was typed into the search: %q", got)
	}
	p.keys("ID-B")
	want("found by id", "Beta")
	p.text("#announcement", "1 event matches")
	p.keys("zzz")
	p.text("#events-empty", "No event matches")
	p.do("document.querySelector('#q').value = '', document.querySelector('#q').dispatchEvent(new Event('input'))")
	p.keys(escape)

	p.keys("jjj")
	if !p.is("document.activeElement.innerText.includes('Home')") {
		t.Errorf("jjj: got the focus on %q, want Home", js[string](p, "document.activeElement.innerText"))
	}
	p.keys("k")
	p.keys("\r")
	p.text("#drawer", "not_json")
	if !p.is("document.querySelector('#drawer').contains(document.activeElement)") {
		t.Error("the focus is not in the details that were opened")
	}
	p.keys(escape)
	if !p.is("document.querySelector('#drawer').hidden && document.activeElement.closest('tr')") {
		t.Error("Esc did not close the details and give the focus back")
	}

	p.keys(" ")
	p.text("#pause", "Resume")
	s.event(track("Gamma", "id-g"))
	p.text("#pause", "1 new")
	if slices.Contains(p.listed(), "Gamma") {
		t.Error("an event came up while the list was paused")
	}
	p.keys(" ")
	p.row("Gamma")
	p.keys("?")
	p.until("document.querySelector('#keys').open")
}

// choose picks an option, once it is there.
func (p *page) choose(selector, value string) {
	p.t.Helper()
	at := fmt.Sprintf("document.querySelector(%s)", quote(selector))
	p.until(fmt.Sprintf("[...%s.options].some(o => o.value === %s)", at, quote(value)))
	p.do(fmt.Sprintf("%s.value = %s, %s.dispatchEvent(new Event('input'))", at, quote(value), at))
}

func TestDetailsExplainTheRow(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full")
	p.open()
	s.produce(&kgo.Record{Partition: 1, Key: []byte("k-7"), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("t-9")}},
		Value: []byte(`{"type":"track","event":"Order Completed","messageId":"m-1","userId":null,"context":{"ip":"192.0.2.7"},"properties":{"total":12345678901234567890}}`)})
	p.openRow("Delivered", "Order Completed")
	for _, want := range []string{"12345678901234567890", "context.ip", "192.0.2.7", "order_completed", "NULL", "explicit null at userId", "no source present", "k-7", "t-9", s.topic, "1 rows of 1 records", "Completed in"} {
		p.text("#drawer", want)
	}
	p.keys(escape)
	s.event(`{"type":"track","event":"Bad Time","message_id":"m-2","timestamp":"the day before"}`)
	p.openRow("Rejected", "Bad Time", "bad_timestamp")
	for _, want := range []string{"bad_timestamp", "event_timestamp", "the day before", "refused"} {
		p.text("#drawer", want)
	}
	p.keys(escape)

	p.click("#tab-dead-letters")
	p.text("#dead-letters-table", "Bad Time")
	p.click("#dead-letters-dry-run")
	p.text("#dry-run", "0 of 1 failed events would be rows now")
	p.text("#dry-run", "event_timestamp")
	p.click("#dead-letters-table tbody button")
	p.text("#drawer", "the day before")
	p.click("#drawer-close")
	p.click("#tab-config")
	p.text("#config-body", "client_secret")
	p.text("#config-body", "[redacted]")
	if strings.Contains(p.all(), emulator.DefaultClientSecret) {
		t.Error("the client secret is on the page")
	}
}

func TestTokenIsAskedFor(t *testing.T) {
	const token = "open-sesame-0123456789"
	s, p := newStage(t, emulator.Latency{}, "ops.live_events=full", "ops.token="+token)
	for _, path := range []string{"/live/stream", "/live/events", "/live/events/1", "/live/config", "/live/dead-letters"} {
		if status, body := s.get(path); status != 401 || !strings.Contains(body, "ops.token") {
			t.Errorf("%s without the token: got %d %s, want 401", path, status, body)
		}
	}
	if status, _ := s.get("/live/events", "Authorization", "Bearer "+token); status != 200 {
		t.Errorf("with the bearer header: got %d, want 200", status)
	}
	p.visit("/live/")
	p.text("main", "Log in")
	p.login("open-sesame-wrong")
	p.text("#wrong", "not the token")
	p.login(token)
	p.text("#link", "live")
	s.event(track("Order Completed", "m-1"))
	p.row("Delivered", "m-1")
	if cookie := js[string](p, "document.cookie"); cookie != "" {
		t.Errorf("got cookie %q within reach of scripts, want it HttpOnly", cookie)
	}
	p.click("#logout button")
	p.text("main", "Log in")
	p.visit("/live/")
	p.text("main", "Log in")
}

func (p *page) login(token string) {
	p.t.Helper()
	p.do(fmt.Sprintf("document.querySelector('#token').value = %s", quote(token)))
	p.do("setTimeout(() => document.querySelector('button.main').click())") // after the answer: it leaves this page
}
