package browser_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/zerobus"
)

// exhibit is the page of a bridge that is made up, for states that are hard to
// bring about.
type exhibit struct {
	events *live.EventLog
	page   *live.Page

	mu      sync.Mutex // guards the fields below
	process ops.Status
	all     []ops.IntegrationStatus
}

// set changes the state.
func (e *exhibit) set(change func(s *ops.Status, i *ops.IntegrationStatus)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.process, &e.all[0])
}

func newExhibit(t *testing.T, cfg live.Config) (*exhibit, *page) {
	t.Helper()
	ctx := chromium(t)
	e := &exhibit{
		process: ops.Status{Version: "v1", Started: time.Now(), BufferedLimit: 64 << 20, Reload: ops.ReloadStatus{State: ops.ReloadOK}},
		all: []ops.IntegrationStatus{{
			Integration: "default", Group: "g", State: ops.StateRunning, Sink: zerobus.State{Name: zerobus.Ready, Table: tableName},
			Config: map[string]any{"kafka": map[string]any{"group": "g"}}, Partitions: []consumer.PartitionStatus{{Topic: "t", State: consumer.StateWaiting}},
		}},
	}
	source := func() ops.Status {
		e.mu.Lock()
		defer e.mu.Unlock()
		return ops.NewStatus(e.process, e.all)
	}
	e.page = live.New(cfg, source, zaptest.NewLogger(t))
	e.events = e.page.Events("default")
	server := httptest.NewServer(e.page)
	t.Cleanup(server.Close)
	t.Cleanup(e.page.Stop)
	return e, &page{t: t, ctx: ctx, s: &stage{t: t, address: strings.TrimPrefix(server.URL, "http://")}}
}

func (e *exhibit) add(name string) {
	e.events.Add(live.Event{Outcome: live.Outcome{Status: live.Delivered}, Name: name, Topic: "t", Mapped: time.Now()}, 0, nil)
}

// The page does not call well what is not.
func TestPageSaysWhatIsWrong(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	p.open()
	p.text("#health-line", "Everything in the topics is delivered")
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) {
		i.Partitions = []consumer.PartitionStatus{{Topic: "t", State: consumer.StateWriting, Lag: 2_000_000}}
		s.Reload = ops.ReloadStatus{State: ops.ReloadFailed, Error: "blueprint.yaml:3: no such key", PendingRestart: []string{"kafka.topics"}}
	})
	p.text("#health-line", "2,000,000 events behind, and not catching up")
	p.text("#reload", "blueprint.yaml:3: no such key")
	p.text("#reload", "after a restart: kafka.topics")
	p.text("#announcement", "The configuration on disk is refused")
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) {
		s.Reload = ops.ReloadStatus{State: ops.ReloadOK}
		i.Config = map[string]any{"kafka": map[string]any{"group": "another"}}
	})
	p.until("document.querySelector('#reload').hidden")
	// The configuration is read each time that it is opened.
	p.click("#tab-config")
	p.text("#config-body", "another")
	p.click("#tab-events")
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) {
		i.Config = map[string]any{"kafka": map[string]any{"group": "a third"}}
	})
	p.click("#tab-config")
	p.text("#config-body", "a third")
}

// With several integrations the page shows one, and the URL has which.
func TestOneOfSeveralIntegrationsIsShown(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.add("OfDefault")
	p.open()
	p.text("#events-table", "OfDefault")
	if !js[bool](p, "document.querySelector('#integrations').hidden") {
		t.Error("the only integration can be chosen")
	}
	e.mu.Lock()
	e.all = append(e.all, ops.IntegrationStatus{Integration: "orders", Group: "g-orders", State: ops.StateRunning, Sink: zerobus.State{Name: zerobus.Ready, Table: tableName},
		NotReady: []consumer.NotReady{{Code: "topic_missing", Text: "no topic orders"}}, Config: map[string]any{"kafka": map[string]any{"group": "of orders"}}})
	e.mu.Unlock()
	e.page.Events("orders").Add(live.Event{Outcome: live.Outcome{Status: live.Delivered}, Name: "OfOrders", Topic: "t", Mapped: time.Now()}, 0, nil)
	p.until("!document.querySelector('#integrations').hidden && document.querySelector('#integration').value === 'default'")
	p.text("#integration", "orders (not delivering)")
	p.look(400, 860, "light")
	if wide := js[[]float64](p, "[document.documentElement.scrollWidth, window.innerWidth]"); wide[0] > wide[1] {
		t.Errorf("got a page %v wide in a window of %v", wide[0], wide[1])
	}
	p.choose("#integration", "orders")
	p.until("location.search === '?integration=orders' && document.querySelector('#integration').value === 'orders'")
	p.text("#route", "group g-orders")
	p.text("#reasons", "no topic orders")
	p.text("#events-table", "OfOrders")
	p.until("!document.querySelector('#events-table').textContent.includes('OfDefault')")
	p.openRow("OfOrders")
	p.click("#drawer-close")
	p.click("#tab-config")
	p.text("#config-body", "of orders")
}

// Event ids restart with the process, so what is open of the one
// before closes.
func TestRestartClosesWhatIsOpen(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.add("Before")
	p.open()
	p.openRow("Before")
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) { s.Started = s.Started.Add(time.Hour) })
	p.until("document.querySelector('#drawer').hidden && !document.querySelector('#events-table tbody tr')")
}

// A viewer who is refused sees why, and the state does not look live.
func TestPageThatIsNotLive(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
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
	p.visit("/live/")
	p.text("#health", "16 viewers are connected already")
	leave()
	p.text("#link", "live")
	p.text("#health-word", "Delivering")
	p.until("document.body.dataset.old === undefined")
	value := func() string {
		return js[string](p, "getComputedStyle(document.querySelector('#fig-lag .value')).color")
	}
	fresh := value()
	e.page.Stop()
	p.text("#health", "This state is from")
	if old := value(); old == fresh || !p.is("document.title.startsWith('○')") {
		t.Errorf("got figures in %s, as when they were live, under the title %s", old, js[string](p, "document.title"))
	}
}

// The row that has the focus stays, however many events come.
func TestFocusStaysInTheStream(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.add("Mine")
	p.open()
	p.row("Mine")
	p.keys("j")
	for i := range 490 {
		e.add(fmt.Sprintf("Other %d", i))
	}
	p.row("Other 489")
	if !p.is("document.activeElement.matches('#events-table button.open') && document.activeElement.innerText === 'Mine'") {
		t.Errorf("got the focus on %.80q, want it where it was", js[string](p, "document.activeElement.outerHTML"))
	}
	p.keys("j")
	p.keys("k")
	p.do("document.activeElement.blur()")
	e.add("Last")
	p.row("Last")
	p.until("document.querySelectorAll('#events-table tbody tr').length === 150")
}

// A screen reader speaks each new name of the button that has the focus.
func TestNamesAreNotChatty(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	p.open()
	p.click("#pause")
	e.add("One")
	p.text("#pause", "1 new")
	p.text("#chips", "Delivered")
	const spoken = "(e => [...e.childNodes].filter(n => n.ariaHidden !== 'true').map(n => n.textContent).join('').trim())"
	for selector, want := range map[string]string{"#pause": "Resume", "#chips button": "Delivered"} {
		if got := js[string](p, spoken+"(document.querySelector("+quote(selector)+"))"); got != want {
			t.Errorf("%s: got name %q, want %q without a number", selector, got, want)
		}
	}
}

// With a thousand partitions, one of them blocked for a long reason, the table
// shows that one first and its numbers beside it, and stays cheap to draw.
func TestManyPartitionsStayReadable(t *testing.T) {
	e, p := newExhibit(t, live.Config{Mode: live.ModeMetadata})
	e.set(func(s *ops.Status, i *ops.IntegrationStatus) {
		i.Partitions = nil
		for n := range 1000 {
			i.Partitions = append(i.Partitions, consumer.PartitionStatus{Topic: "delivery-int_xyz789", Partition: int32(n), State: consumer.StateWriting, Committed: 123_456_789, End: 123_456_999})
		}
		i.Partitions[999].State, i.Partitions[999].Reason = consumer.StateBlocked, strings.Repeat("the table refuses at least half of the last rows; ", 8)
	})
	p.look(1360, 860, "light")
	p.open()
	p.text("#partitions tbody tr:first-child", "the table refuses")
	p.text("#partitions-count", "1,000 assigned")
	if wide := js[[]float64](p, "[document.querySelector('#partitions').offsetWidth, document.querySelector('#partitions-scroll').clientWidth]"); wide[0] > wide[1] {
		t.Errorf("got a table %v wide in a window of %v: its numbers cannot be seen", wide[0], wide[1])
	}
	// What has not changed is left as it is, so that one can select and copy it.
	p.do("document.querySelector('#partitions tbody td').mine = document.querySelector('#sink dd').mine = 1")
	before := js[string](p, "document.querySelector('#sink').innerText + document.querySelector('#route').innerText")
	p.until("document.querySelector('#sink').innerText + document.querySelector('#route').innerText !== " + quote(before))
	if !p.is("document.querySelector('#sink dd').mine") {
		t.Error("the facts of the sink were created again")
	}
	p.click("#partitions-all")
	p.until("document.querySelectorAll('#partitions tbody tr').length === 1000")
	if !p.is("document.querySelector('#partitions tbody td').mine") {
		t.Error("the rows of the partitions were created again")
	}
}

// A link from another site comes without the cookie; who is logged in is not
// asked again.
func TestLinkFromAnotherSite(t *testing.T) {
	const token = "open-sesame-0123456789"
	_, p := newExhibit(t, live.Config{Mode: live.ModeFull, Access: access.New(func() (string, error) { return token, nil }, false)})
	p.visit("/live/")
	p.text("main", "Log in")
	p.login(token)
	p.text("#link", "live")
	own := p.s.address
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!doctype html><main><a href="http://%s/live/">the bridge</a></main>`, own)
	}))
	defer other.Close()
	p.s.address = strings.Replace(strings.TrimPrefix(other.URL, "http://"), "127.0.0.1", "localhost", 1)
	p.visit("/")
	p.do("setTimeout(() => document.querySelector('a').click())")
	p.s.address = own
	p.text("#link", "live")
}
