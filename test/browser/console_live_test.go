package browser_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/zerobus"
)

// exhibit is the console of a bridge that is made up, for states that are hard to bring
// about.
type exhibit struct {
	events *live.EventLog
	page   *live.Page
	server *httptest.Server

	mu      sync.Mutex // guards the fields below
	all     *ops.Histories
	process ops.Status
	of      []ops.IntegrationStatus
}

// set changes the state.
func (e *exhibit) set(change func(s *ops.Status, i *ops.IntegrationStatus)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.process, &e.of[0])
}

func (e *exhibit) status() ops.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	of := slices.Clone(e.of)
	for n := range of {
		of[n].Partitions = slices.Clone(of[n].Partitions) // set changes them while this is read
	}
	return ops.NewStatus(e.process, of)
}

func (e *exhibit) judged() ops.Status {
	s := e.status()
	e.mu.Lock()
	all := e.all
	e.mu.Unlock()
	all.Judge(&s)
	return s
}

// past lets steps of 5 seconds pass that ended just now, with a change before each.
func (e *exhibit) past(steps int, change func(i *ops.IntegrationStatus)) {
	from, all := time.Now().Add(-time.Duration(steps)*5*time.Second), ops.NewHistories()
	for n := range steps {
		e.set(func(_ *ops.Status, i *ops.IntegrationStatus) { change(i) })
		s := e.status()
		s.Time = from.Add(time.Duration(n+1) * 5 * time.Second)
		all.Sample(s)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = all
}

// newExhibit serves the console, for who if it is given.
func newExhibit(t *testing.T, cfg live.Config, control ...*access.Control) (*exhibit, *page) {
	t.Helper()
	ctx := chromium(t)
	e := &exhibit{
		all:     ops.NewHistories(),
		process: ops.Status{Version: "v1", Deployment: "prod-eu", Started: time.Now(), BufferedLimit: 64 << 20, Reload: ops.ReloadStatus{State: ops.ReloadOK}},
		of: []ops.IntegrationStatus{{
			Integration: "default", Group: "g", State: ops.StateRunning, Table: tableName, MemberID: "m-1", Sink: zerobus.State{Name: zerobus.Ready, Table: tableName},
			Config: map[string]any{"kafka": map[string]any{"group": "g"}}, Partitions: []consumer.PartitionStatus{{Topic: "t", State: consumer.StateWaiting}},
		}},
	}
	who := append(control, access.New(nil, true))[0]
	e.page = live.New(cfg, e.judged, zaptest.NewLogger(t))
	e.events = e.page.Events("default")
	pages := console.New(console.Config{Access: who, Facts: func() console.Facts {
		return console.Facts{Deployment: "prod-eu", Version: "v1", Mode: cfg.Mode}
	}})
	data := e.page.Handler(who)
	e.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/live/") {
			data.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	}))
	t.Cleanup(e.server.Close)
	t.Cleanup(e.page.Stop)
	p := &page{t: t, ctx: ctx, s: &stage{t: t, address: strings.TrimPrefix(e.server.URL, "http://")}}
	p.watched()
	return e, p
}

func (e *exhibit) add(name string) {
	e.events.Passed(1)
	e.events.Add(live.Event{Outcome: live.Outcome{Status: live.Delivered, Ack: consumer.Seconds(254 * time.Millisecond)}, Name: name, Type: "track", MessageID: "id-" + name, Topic: "t", Offset: int64(len(name)), Mapped: time.Now()}, 0, nil)
}

// delivers is a change that delivers rows and rejects events.
func delivers(rows, rejected, lag int64) func(*ops.IntegrationStatus) {
	return func(i *ops.IntegrationStatus) {
		i.Totals.RowsDelivered += rows
		i.Totals.EventsRejected += rejected
		i.Partitions[0].Lag += lag
	}
}

// The page does not call well what is not.
func TestConsoleVerdicts(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	tone := func(want, state, text string) {
		t.Helper()
		p.until(fmt.Sprintf("document.querySelector('#verdict')?.dataset.tone === %s && document.querySelector('#verdict .pill').innerText === %s && document.querySelector('#verdict').innerText.includes(%s)", quote(want), quote(state), quote(text)))
	}
	e.past(60, delivers(2000, 0, 0))
	p.look(1440, 900, "light")
	p.visit("/integrations/default")
	tone("ok", "delivering", "everything in the topics is delivered")
	p.until("document.querySelectorAll('#figures .chart').length === 5")
	p.do("scrollTo(0, 0)")
	p.hover("#figures .chart:nth-child(1) svg") // the values at a time, in the middle of the axis
	middle := time.Now().Add(-150 * time.Second)
	p.until("document.querySelector('#figures .chart .readout time') && document.querySelector('#figures .chart .readout').innerText.endsWith(' 400')")
	if at := js[string](p, "document.querySelector('#figures .chart .readout time').dateTime"); at < middle.Add(-time.Minute).UTC().Format(time.RFC3339) || at > middle.Add(time.Minute).UTC().Format(time.RFC3339) {
		t.Errorf("got the values of %s under the pointer, want those of about %s", at, middle.UTC().Format(time.RFC3339))
	}
	if cut := js[[]string](p, "[...document.querySelectorAll('#figures .plot span')].filter(e => e.clientHeight > 14 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 || e.offsetHeight > 14).map(e => e.outerHTML)"); len(cut) > 0 {
		t.Errorf("got labels of axes that cover others or are cut: %q", cut)
	}
	p.hover("h1")
	p.text("#ledger", "all accounted for")
	// The lag grows for a minute; the oldest event waits; a part is rejected.
	e.past(120, delivers(2000, 0, 500))
	tone("warn", "falling behind", "the lag has grown for a minute")
	p.picture("console-falling-behind")
	e.set(func(_ *ops.Status, i *ops.IntegrationStatus) {
		i.Partitions[0].Lag, i.Partitions[0].Oldest = 0, consumer.Seconds(75*time.Second)
	})
	tone("warn", "falling behind", "waits for 1m15s")
	e.set(func(_ *ops.Status, i *ops.IntegrationStatus) { i.Partitions[0].Oldest = 0 })
	e.past(240, delivers(1960, 40, 0))
	tone("warn", "delivering", "2.0 % of the events")
	// Delivery stands.
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) {
		i.Sink = zerobus.State{Name: zerobus.Blocked, Table: tableName, Since: time.Now().Add(-4 * time.Minute)}
		i.NotReady = []consumer.NotReady{{Code: "sink_blocked", Text: "the service principal is missing MODIFY", Remedy: "GRANT MODIFY ON TABLE x"}}
		s.Reload = ops.ReloadStatus{State: ops.ReloadFailed, Error: "blueprint.yaml:3: no such key", PendingRestart: []string{"kafka.topics"}}
	})
	tone("bad", "blocked", "GRANT MODIFY ON TABLE x")
	p.text("#verdict", "for 4 min")
	p.text("#reload", "blueprint.yaml:3: no such key")
	p.text("#reload", "after a restart: kafka.topics")
	p.picture("console-blocked")
	// The configuration in force is one click away.
	p.do("[...document.querySelectorAll('.tabs a')].find(a => a.innerText === 'Configuration').click()")
	p.text("main", `"group": "g"`)
	p.until("location.pathname === '/integrations/default/configuration'")
	p.quiet("/integrations/default")
}

// A page that lost its connection shows that, and nothing green stays lit.
func TestConsoleDisconnected(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.past(60, delivers(2000, 0, 0))
	e.add("One")
	p.visit("/integrations/default")
	p.text("#verdict", "delivering")
	p.text("#events", "successful")
	colour := func() string {
		return js[string](p, "getComputedStyle(document.querySelector('#verdict .pill')).color")
	}
	lit := colour()
	e.page.Stop()
	e.server.CloseClientConnections()
	e.server.Config.SetKeepAlivesEnabled(false)
	e.server.Listener.Close()
	p.text("#lost", "No connection to the bridge since")
	p.until("document.title.startsWith('○')")
	if now := colour(); now == lit {
		t.Errorf("got the verdict in %s, as when it was connected", now)
	}
	green := js[[]string](p, `[...document.querySelectorAll('main *')].filter(e => { const s = getComputedStyle(e), is = (c) => { const m = c.match(/\d+/g); return m && m.length < 4 && +m[1] > 1.25 * +m[0] && +m[1] > 1.25 * +m[2]; }; return is(s.color) || is(s.backgroundColor) || is(s.borderLeftColor); }).map(e => e.outerHTML.slice(0, 100))`)
	if len(green) > 0 {
		t.Errorf("got green on a page that is not connected: %q", green)
	}
}

// The row under the pointer stays where it is, however many events come; so does the one
// that has the focus.
func TestConsoleRowsStayUnderThePointer(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.add("Mine")
	p.visit("/integrations/default/events")
	p.text("#events", "Mine")
	at := "document.querySelector('#events tr[data-row]')"
	p.do("document.querySelector('#events tbody').dispatchEvent(new PointerEvent('pointerenter'))")
	p.hover("#events tr[data-row] a.row")
	for i := range 20 {
		e.add(fmt.Sprintf("Other %d", i))
	}
	p.text("#events .held", "hold still")
	if got := js[string](p, at+".innerText"); !strings.Contains(got, "Mine") {
		t.Errorf("got %q under the pointer, want Mine", got)
	}
	p.hover("h1")
	p.until(at + ".innerText.includes('Other 19')")
}

// An integration that was just installed waits for its first event, and shows how to send
// one.
func TestConsoleWaitsForTheFirstEvent(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	p.visit("/integrations/default")
	p.text("#main", "Waiting for the first event")
	p.text("#main", "kafka-console-producer.sh --bootstrap-server BROKER:9092 --topic t")
	e.add("First")
	p.text("#events", "successful")
	p.text("#sample", "All 1 events since the start are here")
	p.visit("/integrations/gone")
	p.text("#main", "No integration of this name")
	p.quiet("waiting")
}

// With a thousand partitions those in trouble come first, and scrolling draws what is in
// view only.
func TestConsoleThousandPartitions(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.set(func(_ *ops.Status, i *ops.IntegrationStatus) {
		i.Partitions = nil
		for n := range 1000 {
			i.Partitions = append(i.Partitions, consumer.PartitionStatus{Topic: "delivery-int_xyz789", Partition: int32(n), State: consumer.StateWriting, Committed: 123_456_789, End: 123_456_999, Lag: int64(n)})
		}
		i.Partitions[999].State, i.Partitions[999].Reason = consumer.StateBlocked, strings.Repeat("the table refuses at least half of the last rows; ", 8)
		i.Partitions[500].Oldest = consumer.Seconds(61 * time.Second)
		i.Partitions[7].Ledger = consumer.LedgerStatus{Ledger: consumer.Ledger{Delivered: 90, DeadLettered: 10}}
	})
	p.look(1440, 900, "light")
	p.visit("/integrations/default/partitions")
	p.text("#partitions-line", "1,000 partitions")
	for n, want := range []string{"999", "500", "7", "0"} {
		p.text(fmt.Sprintf("#partitions tbody tr:nth-child(%d)", n+1), want)
	}
	p.text("#partitions tbody tr:nth-child(1)", "the table refuses")
	p.text("#partitions tbody tr:nth-child(2)", "stuck")
	p.text("#partitions tbody tr:nth-child(3)", "rejecting")
	if n := js[int](p, "document.querySelectorAll('#partitions tr[data-row]').length"); n > 200 {
		t.Errorf("got %d rows drawn of a thousand", n)
	}
	for _, width := range []int64{1440, 1024, 390} {
		p.look(width, 900, "light")
		p.fits(fmt.Sprintf("partitions at %d", width))
		p.picture(fmt.Sprintf("console-partitions-%d", width))
	}
	p.look(1440, 900, "light")
	p.do("scrollTo(0, document.body.scrollHeight)")
	p.until("[...document.querySelectorAll('#partitions tr[data-row]')].some(r => r.cells[0].innerText === '998')")
	p.do("scrollTo(0, 0)")
	p.visit("/integrations/default/partitions?show=trouble")
	p.until("document.querySelectorAll('#partitions tr[data-row]').length === 3")
	p.quiet("partitions")
}

// fits fails if the page is wider than the window.
func (p *page) fits(where string) {
	p.t.Helper()
	if wide := js[[]float64](p, "[document.documentElement.scrollWidth, window.innerWidth]"); wide[0] > wide[1] {
		p.t.Errorf("%s: got a page %v wide in a window of %v", where, wide[0], wide[1])
	}
}

// With several integrations each has its own page.
func TestConsoleOneOfSeveralIntegrations(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.add("OfDefault")
	e.mu.Lock()
	e.of = append(e.of, ops.IntegrationStatus{Integration: "orders", Name: "Orders EU", Group: "g-orders", State: ops.StateRunning, Sink: zerobus.State{Name: zerobus.Ready, Table: tableName},
		NotReady: []consumer.NotReady{{Code: "topic_missing", Text: "no topic orders"}}, Config: map[string]any{"kafka": map[string]any{"group": "of orders"}}})
	e.mu.Unlock()
	e.page.Events("orders").Add(live.Event{Outcome: live.Outcome{Status: live.Delivered}, Name: "OfOrders", Topic: "t", Mapped: time.Now()}, 0, nil)
	p.visit("/")
	p.text("#main", "1 of 2 not delivering")
	p.do("[...document.querySelectorAll('a.row')].find(a => a.innerText === 'Orders EU').click()")
	p.until("location.pathname === '/integrations/orders'")
	p.text("#verdict", "no topic orders")
	p.text("#events", "OfOrders")
	p.until("!document.querySelector('#events').textContent.includes('OfDefault')")
	p.tab("Configuration")
	p.text("#main pre", "of orders")
}

// A viewer above the bound sees why there are no events; the rest of the page works.
func TestConsoleViewersAreBounded(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.past(60, delivers(2000, 0, 0))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for range 16 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.s.address+"/live/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	p.visit("/integrations/default")
	p.text("#main", "16 viewers are connected already")
	p.text("#verdict", "delivering")
	leave()
	p.text("#main", "Waiting for the first event")
}

// A link from another site comes without the cookie; who is signed in is not asked again.
func TestLinkFromAnotherSite(t *testing.T) {
	const token = "open-sesame-0123456789"
	_, p := newExhibit(t, live.Config{Mode: live.ModeFull}, access.New(func() (string, error) { return token, nil }, false))
	p.visit("/integrations/default")
	p.text("main", "Sign in")
	p.login(token)
	p.text("#verdict", "idle")
	own := p.s.address
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!doctype html><main><a href="http://%s/integrations/default">the bridge</a></main>`, own)
	}))
	defer other.Close()
	p.s.address = strings.Replace(strings.TrimPrefix(other.URL, "http://"), "127.0.0.1", "localhost", 1)
	p.visit("/")
	p.do("setTimeout(() => document.querySelector('a').click())")
	p.s.address = own
	p.text("#verdict", "idle")
}
