package live_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/zerobus"
)

const patience = await.Patience

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func integration(slug string) ops.IntegrationStatus {
	return ops.IntegrationStatus{
		Integration: slug, Group: "g", State: ops.StateRunning,
		Sink: zerobus.State{Name: zerobus.Ready, Table: "a.b.c"}, Config: map[string]any{"kafka": map[string]any{"group": "g"}},
		Partitions: []consumer.PartitionStatus{{Topic: "t", Partition: 0, State: consumer.StateWaiting, Lag: 3}, {Topic: "t", Partition: 1, State: consumer.StateBlocked, Lag: 4}},
	}
}

func process(all ...ops.IntegrationStatus) ops.Status {
	return ops.NewStatus(ops.Status{Version: "v1", BufferedLimit: 100}, all)
}

func healthy() ops.Status { return process(integration("default")) }

// site is a page on a server of its own.
type site struct {
	*httptest.Server
	t      *testing.T
	page   *live.Page
	events *live.EventLog // of default
	client *http.Client
}

// start serves the data, for who if it is given.
func start(t *testing.T, cfg live.Config, source ops.Source, who ...*access.Control) *site {
	t.Helper()
	s := &site{t: t, page: live.New(cfg, source, zaptest.NewLogger(t))}
	s.events = s.page.Events("default")
	s.Server = httptest.NewServer(s.page.Handler(append(who, access.New(nil, false))[0]))
	transport := &http.Transport{}
	s.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		s.page.Stop()
		transport.CloseIdleConnections()
		s.Close()
	})
	return s
}

func (s *site) ask(method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(text)
}

func (s *site) want(status int, method, path string, headers ...string) string {
	s.t.Helper()
	resp, body := s.ask(method, path, "", headers...)
	if resp.StatusCode != status {
		s.t.Errorf("%s %s %v: got %d %s, want %d", method, path, headers, resp.StatusCode, body, status)
	}
	return body
}

// watching reads messages of a stream.
type watching struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Scanner
	id    string
}

// watch opens a stream; headers are name, value pairs, and the name integration is the
// parameter.
func (s *site) watch(headers ...string) *watching {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/live/stream", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "integration" {
			req.URL.RawQuery = "integration=" + headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	w := &watching{t: s.t, resp: resp, lines: bufio.NewScanner(resp.Body)}
	w.lines.Buffer(nil, 1<<20)
	return w
}

// next returns the data of the next message of that name.
func (w *watching) next(name string) string {
	w.t.Helper()
	event := ""
	for w.lines.Scan() {
		line := w.lines.Text()
		if rest, ok := strings.CutPrefix(line, "id: "); ok {
			w.id = rest
		}
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			event = rest
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok && event == name {
			return rest
		}
	}
	w.t.Fatalf("the stream ended before a message %s: %v", name, w.lines.Err())
	return ""
}

func (w *watching) events() (ids []uint64, status []string) {
	w.t.Helper()
	var m struct{ Events []live.Event }
	if err := json.Unmarshal([]byte(w.next("events")), &m); err != nil {
		w.t.Fatal(err)
	}
	for _, e := range m.Events {
		ids, status = append(ids, e.ID), append(status, e.Status)
	}
	return ids, status
}

func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	await.That(s.t, what, done)
}

func event(status, name string) live.Event {
	return live.Event{Outcome: live.Outcome{Status: status}, Name: name, Type: "track", Topic: "t", Partition: 1, Offset: 42, MessageID: "m-" + name}
}

func TestStreamTellsStateAndEvents(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	id := s.events.Add(event(live.InFlight, "a"), 0, nil)
	s.events.Passed(7)
	w := s.watch()
	if got := w.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("got content type %q", got)
	}
	if hello := w.next("hello"); !strings.Contains(hello, `"mode":"metadata"`) {
		t.Errorf("hello: got %s", hello)
	}
	var status struct {
		Partitions, Lag int
		Blocked         int `json:"blocked_partitions"`
		Sample          struct{ Seen, Kept int }
		Viewers         int
		Config          any
	}
	if err := json.Unmarshal([]byte(w.next("status")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Partitions != 2 || status.Lag != 7 || status.Blocked != 1 || status.Sample.Seen != 7 || status.Sample.Kept != 1 || status.Viewers != 1 || status.Config != nil {
		t.Errorf("status: got %+v, want 2 partitions, one of them blocked, lag 7, 1 of 7 events, 1 viewer, no config", status)
	}
	if parts := w.next("partitions"); !strings.Contains(parts, `"partition":1`) {
		t.Errorf("partitions: got %s", parts)
	}
	if ids, status := w.events(); len(ids) != 1 || ids[0] != id || status[0] != live.InFlight {
		t.Errorf("got events %v %v, want %d in flight", ids, status, id)
	}
	s.events.SetOutcome(id, live.Outcome{Status: live.Delivered})
	if ids, status := w.events(); len(ids) != 1 || ids[0] != id || status[0] != live.Delivered {
		t.Errorf("got events %v %v, want %d delivered", ids, status, id)
	}

	// A viewer that reconnects gets what it missed, and only that.
	seen := w.id
	w.resp.Body.Close()
	later := s.events.Add(event(live.Rejected, "b"), 0, nil)
	if ids, _ := s.watch("Last-Event-ID", seen).events(); len(ids) != 1 || ids[0] != later {
		t.Errorf("got events %v after %s, want %d alone", ids, seen, later)
	}
	if ids, _ := s.watch("Last-Event-ID", "other-99").events(); len(ids) != 2 {
		t.Errorf("got events %v after another process, want both", ids)
	}
}

// The page shows one integration: its events, state, configuration and dead letters,
// and the names of the others.
func TestEachIntegrationHasItsOwnView(t *testing.T) {
	var mu sync.Mutex // guards all
	orders := integration("orders")
	orders.Config = map[string]any{"kafka": map[string]any{"group": "of orders"}}
	orders.Partitions, orders.NotReady = orders.Partitions[:1], []consumer.NotReady{{Code: "sink_blocked", Text: "no grant"}}
	all := []ops.IntegrationStatus{integration("default"), orders, {Integration: "clicks", State: ops.StateFailed, Reason: "no such table"}}
	s := start(t, live.Config{Mode: live.ModeMetadata, DeadLetters: drawers}, func() ops.Status {
		mu.Lock()
		defer mu.Unlock()
		return process(all...)
	})
	s.events.Add(event(live.Delivered, "of-default"), 0, nil)
	s.page.Events("orders").Add(event(live.Delivered, "of-orders"), 0, nil)
	for query, want := range map[string]string{"": "of-default", "?integration=default": "of-default", "?integration=orders": "of-orders", "?integration=clicks": ""} {
		body := s.want(200, http.MethodGet, "/live/events"+query)
		if got := strings.Count(body, `"message_id"`); want != "" && (got != 1 || !strings.Contains(body, "m-"+want)) || want == "" && got != 0 {
			t.Errorf("/live/events%s: got %s, want the event %q alone", query, body, want)
		}
	}
	if body := s.want(200, http.MethodGet, "/live/config?integration=orders"); !strings.Contains(body, "of orders") {
		t.Errorf("/live/config?integration=orders: got %s", body)
	}
	s.want(200, http.MethodGet, "/live/dead-letters")
	s.want(404, http.MethodGet, "/live/dead-letters?integration=orders")
	s.want(200, http.MethodPost, "/live/dead-letters/dry-run?integration=default")
	for _, path := range []string{"stream", "events", "events/1", "config", "dead-letters"} {
		if body := s.want(404, http.MethodGet, "/live/"+path+"?integration=gone"); !strings.Contains(body, "no integration") {
			t.Errorf("/live/%s of an unknown integration: got %s", path, body)
		}
	}

	w := s.watch("integration", "orders")
	if hello := w.next("hello"); !strings.Contains(hello, `"dead_letters":false`) {
		t.Errorf("hello: got %s, want no dead letters of orders", hello)
	}
	var status struct {
		Integration  string
		Ready        bool
		Partitions   int
		NotReady     []consumer.NotReady `json:"not_ready"`
		Integrations []struct {
			Integration, State string
			Ready              bool
		}
	}
	if err := json.Unmarshal([]byte(w.next("status")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Integration != "orders" || status.Ready || status.Partitions != 1 || len(status.NotReady) != 1 || status.NotReady[0].Code != "sink_blocked" {
		t.Errorf("status: got %+v, want orders with one partition, blocked", status)
	}
	if got := fmt.Sprint(status.Integrations); got != "[{default running true} {orders running false} {clicks failed false}]" {
		t.Errorf("integrations: got %s", got)
	}
	if ids, _ := w.events(); len(ids) != 1 {
		t.Errorf("got events %v, want that of orders", ids)
	}

	// A removed integration ends its streams. Added again, it has none of its events.
	s.ask(http.MethodGet, "/live/events?integration=orders", "")
	mu.Lock()
	all = all[:1]
	mu.Unlock()
	s.page.Forget("orders")
	if resp, _ := s.ask(http.MethodGet, "/live/events?integration=orders", ""); resp.StatusCode != 404 {
		t.Errorf("got %d for one that was removed, want 404", resp.StatusCode)
	}
	for w.lines.Scan() { // ends, or the test runs into its context
	}
	if err := w.lines.Err(); err != nil {
		t.Errorf("the stream ended with %v, want its end", err)
	}
	mu.Lock()
	all = append(all[:1:1], orders)
	mu.Unlock()
	s.eventually("orders is back, without events", func() bool {
		resp, body := s.ask(http.MethodGet, "/live/events?integration=orders", "")
		return resp.StatusCode == 200 && !strings.Contains(body, "m-of-orders")
	})
	if ids, _ := s.watch("Last-Event-ID", w.id).events(); len(ids) != 1 {
		t.Errorf("got events %v of default after an id of orders, want all", ids)
	}
}

// What needs somebody in the process is shown with every integration.
func TestReasonsOfTheProcessAreShown(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		return ops.NewStatus(ops.Status{NotReady: []consumer.NotReady{{Code: "too_few_descriptors", Text: "250 of 256 are in use"}}},
			[]ops.IntegrationStatus{integration("default"), integration("orders")})
	})
	for _, name := range []string{"default", "orders"} {
		if text := s.watch("integration", name).next("status"); !strings.Contains(text, "too_few_descriptors") || !strings.Contains(text, `"ready":false`) {
			t.Errorf("%s: got %s, want the reason", name, text)
		}
	}
}

func TestTroubleTurnsInFlightIntoRetrying(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		blocked := integration("default")
		blocked.Sink.Name = zerobus.Blocked
		return process(blocked)
	})
	s.events.Add(event(live.InFlight, "a"), 0, nil)
	s.events.Add(event(live.Delivered, "b"), 0, nil)
	if body := s.want(200, http.MethodGet, "/live/events?status=retrying"); strings.Count(body, `"id"`) != 1 || !strings.Contains(body, "m-a") {
		t.Errorf("got %s, want the event that was in flight", body)
	}
}

func TestStopEndsStreams(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	w := s.watch()
	w.next("status")
	s.page.Stop()
	for w.lines.Scan() { // ends, or the test runs into its context
	}
	if err := w.lines.Err(); err != nil {
		t.Errorf("the stream ended with %v, want its end", err)
	}
	s.want(503, http.MethodGet, "/live/stream")
}

func TestViewersAreBounded(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	for range 16 {
		s.watch().next("status")
	}
	if w := s.watch(); w.resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("viewer 17: got %d, want 503", w.resp.StatusCode)
	}
}

// What one viewer is sent is bounded, and what needs somebody is among it,
// however many partitions there are and whatever they say.
func TestManyPartitions(t *testing.T) {
	const many, worst = 3000, 2999
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		s := integration("default")
		s.Partitions = nil
		for i := range many {
			s.Partitions = append(s.Partitions, consumer.PartitionStatus{Topic: "t", Partition: int32(i), State: consumer.StateWriting, Lag: int64(i)})
			s.NotReady = append(s.NotReady, consumer.NotReady{Code: "partition_blocked", Text: fmt.Sprintf("reason %02d", i*30/many), Remedy: strings.Repeat("do ", 30)})
		}
		s.Partitions[worst] = consumer.PartitionStatus{Topic: "t", Partition: worst, State: consumer.StateBlocked}
		return process(s)
	})
	w := s.watch()
	var status struct {
		Partitions  int
		NotReady    []consumer.NotReady `json:"not_ready"`
		MoreReasons int                 `json:"more_reasons"`
	}
	text := w.next("status")
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatal(err)
	}
	if status.Partitions != many || len(status.NotReady) != 20 || status.MoreReasons != 10 || len(text) > 8<<10 {
		t.Errorf("got %d bytes of status with %d partitions, %d reasons and %d more, want %d, the 20 first of 30 different ones, within 8 KiB", len(text), status.Partitions, len(status.NotReady), status.MoreReasons, many)
	}
	var parts []consumer.PartitionStatus
	if err := json.Unmarshal([]byte(w.next("partitions")), &parts); err != nil {
		t.Fatal(err)
	}
	if len(parts) != 1000 || parts[0].Partition != worst || parts[1].Partition != worst-1 {
		t.Errorf("got %d partitions, the first of them %+v, want 1000 with the one that is blocked first, then the longest lag", len(parts), parts[0])
	}
}

func TestEventsAreFiltered(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	s.events.Add(event(live.Delivered, "Alpha"), 0, nil)
	s.events.Add(event(live.Rejected, "Beta"), 0, nil)
	for query, want := range map[string]int{
		"": 2, "status=rejected": 1, "name=alpha": 1, "type=track": 2, "type=page": 0, "partition=1": 2, "partition=0": 0, "topic=t": 2, "q=M-BETA": 1, "q=42": 2, "limit=1": 1,
	} {
		if got := strings.Count(s.want(200, http.MethodGet, "/live/events?"+query), `"message_id"`); got != want {
			t.Errorf("%s: got %d events, want %d", query, got, want)
		}
	}
	s.want(400, http.MethodGet, "/live/events?limit=none")
	s.want(404, http.MethodGet, "/live/events/99")
	s.want(404, http.MethodGet, "/live/events/x")
	for path, want := range map[string]int{"1/42": 200, "1/42?topic=t": 200, "1/42?topic=u": 404, "1/42?index=1": 404, "1/43": 404, "0/42": 404, "x/42": 404, "1/x": 404, "1/42?index=x": 404} {
		if body := s.want(want, http.MethodGet, "/live/events/"+path); want == 200 && !strings.Contains(body, "Beta") {
			t.Errorf("/live/events/%s: got %s, want the newest event of that place", path, body)
		}
	}
	s.want(404, http.MethodGet, "/live/dead-letters")
	s.want(405, http.MethodPost, "/live/events")
}

// Content is kept and shown in full mode only.
func TestContentByMode(t *testing.T) {
	for _, mode := range []string{live.ModeMetadata, live.ModeFull} {
		s := start(t, live.Config{Mode: mode, DeadLetters: drawers}, healthy)
		e := event(live.Rejected, "a")
		e.Reason = "VALUE in the reason"
		id := s.events.Add(e, 10, func() live.Content { return live.Content{Value: "VALUE"} })
		second := s.events.Add(event(live.InFlight, "b"), 10, nil)
		s.events.SetOutcome(second, live.Outcome{Status: live.Rejected, Reason: "VALUE"})
		all := ""
		for _, path := range []string{"/live/events", fmt.Sprintf("/live/events/%d", id), fmt.Sprintf("/live/events/%d", second), "/live/dead-letters"} {
			all += s.want(200, http.MethodGet, path)
		}
		all += s.want(200, http.MethodPost, "/live/dead-letters/dry-run")
		if got, want := strings.Count(all, "VALUE"), map[string]int{live.ModeMetadata: 0, live.ModeFull: 9}[mode]; got != want {
			t.Errorf("%s: got %d values, want %d: %s", mode, got, want, all)
		}
	}
}

// However many ask, the contents of events are made one after the other.
func TestContentIsBuiltOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := live.New(live.Config{Mode: live.ModeFull}, healthy, zaptest.NewLogger(t))
		log := page.Events("default")
		defer page.Stop()
		var making atomic.Int32
		done := make(chan struct{})
		id := log.Add(event(live.Delivered, "a"), 10, func() live.Content {
			making.Add(1)
			<-done
			return live.Content{Value: "VALUE"}
		})
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				req := httptest.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("/live/events/%d", id), nil)
				page.Handler(access.New(nil, false)).ServeHTTP(httptest.NewRecorder(), req)
			})
		}
		synctest.Wait()
		if n := making.Load(); n != 1 {
			t.Errorf("got %d contents made at once, want 1", n)
		}
		leave() // who waits may go
		synctest.Wait()
		close(done)
		all.Wait()
		if n := making.Load(); n != 1 {
			t.Errorf("got %d contents made, want none for those who left", n)
		}
	})
}

// drawers has one dead letter of the default integration.
func drawers(integration string) live.DeadLetters {
	if integration != "default" {
		return nil
	}
	return drawer{}
}

// drawer has one dead letter.
type drawer struct{}

func (drawer) Newest(_ context.Context, limit int) ([]live.DeadLetter, bool, error) {
	if limit < 1 {
		return nil, false, errors.New("no limit")
	}
	return []live.DeadLetter{{Code: "not_json", Reason: "VALUE", Value: "VALUE"}}, true, nil
}

func (drawer) DryRun(context.Context, int, live.DeadLetterFilter) (live.DryRun, error) {
	return live.DryRun{DeadLetters: 1}, nil
}

const token = "a-token-of-some-length"

func TestAuthentication(t *testing.T) {
	current := token
	who := access.New(func() (string, error) { return current, nil }, false)
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, who)
	s.want(303, http.MethodGet, "/live/")
	for _, path := range []string{"/live/stream", "/live/events", "/live/config", "/live/events/1", "/live/status"} {
		s.want(401, http.MethodGet, path)
	}
	s.want(401, http.MethodPost, "/live/dead-letters/dry-run")
	s.want(200, http.MethodGet, "/live/events", "Authorization", "Bearer "+token)
	s.want(401, http.MethodGet, "/live/events", "Authorization", "Bearer "+token+"x")
	s.want(401, http.MethodGet, "/live/events", "Cookie", "bridge_live=9999999999.AAAA")

	c := s.session(who)
	with := []string{"Cookie", c.Name + "=" + c.Value}
	s.want(200, http.MethodGet, "/live/events", with...)
	var state ops.Status
	if body := s.want(200, http.MethodGet, "/live/status", with...); json.Unmarshal([]byte(body), &state) != nil || state.Integrations[0].Group != "g" {
		t.Errorf("/live/status: got %s, want what /status answers", body)
	}
	s.want(401, http.MethodGet, "/live/events", "Cookie", c.Name+"="+c.Value[1:])
	current = "a-new-token-after-rotation"
	s.want(401, http.MethodGet, "/live/events", with...)
}

// session signs in.
func (s *site) session(who *access.Control) *http.Cookie {
	w := httptest.NewRecorder()
	who.StartSession(w, httptest.NewRequest(http.MethodPost, s.URL+"/login", nil), "/", token)
	return w.Result().Cookies()[0]
}

// A stream that was let in ends when the token is changed.
func TestStreamEndsWithItsToken(t *testing.T) {
	var current atomic.Value
	current.Store(token)
	who := access.New(func() (string, error) { return current.Load().(string), nil }, false)
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, who)
	c := s.session(who)
	for _, with := range [][]string{{"Authorization", "Bearer " + token}, {"Cookie", c.Name + "=" + c.Value}} {
		current.Store(token)
		w := s.watch(with...)
		w.next("status")
		w.next("status") // it continues while the token is the same
		current.Store("a-new-token-after-rotation")
		for w.lines.Scan() { // ends, or the test runs into its context
		}
		if err := w.lines.Err(); err != nil {
			t.Errorf("%s: the stream ended with %v, want its end", with[0], err)
		}
		s.want(401, http.MethodGet, "/live/stream", with...)
	}
}

// A page of another site can link to this one, and that is all.
func TestOtherSites(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata, DeadLetters: drawers}, healthy)
	own := strings.TrimPrefix(s.URL, "http://")
	for _, site := range []string{"cross-site", "same-site"} {
		s.want(303, http.MethodGet, "/live/", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate")
		for _, path := range []string{"/live/stream", "/live/dead-letters", "/live/events", "/live/config", "/live/summary"} {
			s.want(403, http.MethodGet, path, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "no-cors")
			s.want(403, http.MethodGet, path, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate")
		}
		s.want(403, http.MethodPost, "/live/dead-letters/dry-run", "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate")
	}
	// Over plain HTTP to a name browsers say less.
	for origin, want := range map[string]int{"http://" + own: 200, "https://bridge.example": 200, "http://evil.example": 403, "null": 403, "http://" + own + ".evil.example": 403} {
		s.want(want, http.MethodPost, "/live/dead-letters/dry-run", "Origin", origin, "X-Forwarded-Host", "bridge.example")
	}
	s.want(403, http.MethodGet, "/live/stream", "Origin", "http://evil.example")
	s.want(200, http.MethodPost, "/live/dead-letters/dry-run") // no browser
	s.want(200, http.MethodGet, "/live/events", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors")
	s.want(200, http.MethodGet, "/live/events", "Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate")
}

func TestWrongTokensAreSlowedDown(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, access.New(func() (string, error) { return token, nil }, false))
	for range 10 {
		s.want(401, http.MethodGet, "/live/events", "Authorization", "Bearer guess")
	}
	s.want(429, http.MethodGet, "/live/events", "Authorization", "Bearer guess")
	// Not even the right one, or guessing would continue.
	s.want(429, http.MethodGet, "/live/events", "Authorization", "Bearer "+token)
	// Who asks without a token is not guessing.
	s.want(401, http.MethodGet, "/live/events")
}

func TestTokenThatCannotBeRead(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, access.New(func() (string, error) { return "", errors.New("no such file: /secret/place") }, false))
	if body := s.want(503, http.MethodGet, "/live/events", "Authorization", "Bearer "); strings.Contains(body, "/secret/place") {
		t.Errorf("got %s, want nothing of the file", body)
	}
}

// A name that an attacker has resolve to the loopback opens nothing.
func TestRebinding(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, access.New(nil, true))
	for _, host := range []string{"localhost:9400", "127.0.0.1:9400", "[::1]:9400", "127.0.0.1"} {
		s.want(200, http.MethodGet, "/live/events", "Host", host)
	}
	s.want(421, http.MethodGet, "/live/events", "Host", "evil.example:9400")
	open := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	open.want(200, http.MethodGet, "/live/events", "Host", "bridge.monitoring.svc:9400")
}

// With live events off, the state is served and no event is kept or shown.
func TestLiveEventsOff(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeOff, DeadLetters: drawers}, healthy)
	if s.events != nil {
		t.Error("got a log of events")
	}
	for path, want := range map[string]int{"summary": 200, "history": 200, "partitions": 200, "config": 200, "status": 200, "members": 404, "events": 404, "events/1": 404, "events/0/1": 404, "stream": 404, "dead-letters": 404} {
		if body := s.want(want, http.MethodGet, "/live/"+path); want == 404 && path != "members" && !strings.Contains(body, "ops.live_events is off") || path == "members" && !strings.Contains(body, "does not look the group up") {
			t.Errorf("/live/%s: got %s, want the setting named", path, body)
		}
	}
	s.want(404, http.MethodPost, "/live/dead-letters/dry-run")
}

// The addresses of the page that was here lead to the console.
func TestOldAddresses(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, healthy)
	for path, want := range map[string]string{"/live/": "/", "/live/?integration=orders": "/integrations/orders", "/live/?integration=%2F%2Fevil.example": "/integrations/%2F%2Fevil.example"} {
		if resp, _ := s.ask(http.MethodGet, path, ""); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Errorf("%s: got %d to %s, want %s", path, resp.StatusCode, resp.Header.Get("Location"), want)
		}
	}
	if policy := s.answer("/live/events").Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("got policy %q of data", policy)
	}
}

func (s *site) answer(path string) *http.Response {
	s.t.Helper()
	resp, _ := s.ask(http.MethodGet, path, "")
	return resp
}

// A second listener serves the data to its own viewers, without the page.
func TestDataOnASecondListener(t *testing.T) {
	const first, second = "token-of-the-first", "token-of-the-second"
	token := func(text string) func() (string, error) { return func() (string, error) { return text, nil } }
	s := start(t, live.Config{Mode: live.ModeFull}, healthy, access.New(token(first), false))
	handler := s.page.Handler(access.New(token(second), false))
	for path, want := range map[string]int{"events": 200, "status": 200, "config": 200, "": 303, "login": 404, "assets/main.js": 404} {
		for given, want := range map[string]int{second: want, first: map[bool]int{true: 401, false: want}[want == 200]} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/live/"+path, nil)
			r.Header.Set("Authorization", "Bearer "+given)
			w := httptest.NewRecorder()
			if handler.ServeHTTP(w, r); w.Code != want {
				t.Errorf("/live/%s with %s: got %d %s, want %d", path, given, w.Code, w.Body, want)
			}
		}
	}
}
