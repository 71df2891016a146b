package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

func (w *workspace) add(f emulator.Fault) emulator.Fault {
	w.t.Helper()
	f, err := w.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func ptr(s string) *string { return &s }

func TestStatusFaults(t *testing.T) {
	w := start(t, emulator.Config{})
	row := envelope(`{"message_id":"a"}`)
	for _, c := range []struct {
		fault  emulator.Fault
		status int
		body   string
		header map[string]string
	}{
		{emulator.Fault{Status: 429, RetryAfter: 7}, 429, `{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"scripted fault: Too Many Requests"}`, map[string]string{"Retry-After": "7"}},
		{emulator.Fault{Status: 503, ErrorCode: "X", Message: "m"}, 503, `{"error_code":"X","message":"m"}`, map[string]string{"Retry-After": ""}},
		{emulator.Fault{Status: 403, NumericCode: 403, Message: "denied"}, 403, `{"error_code":403,"message":"denied"}`, map[string]string{"X-Databricks-Reason-Phrase": "denied"}},
		{emulator.Fault{Status: 500, Body: ptr("")}, 500, ``, map[string]string{"Content-Type": ""}},
		{emulator.Fault{Status: 502, Body: ptr("<html>")}, 502, `<html>`, nil},
		{emulator.Fault{Status: 200, Body: ptr(`{"records_ingested":9}`)}, 200, `{"records_ingested":9}`, nil},
		{emulator.Fault{Status: 204, Body: ptr("")}, 204, ``, nil},
		{emulator.Fault{Status: 413, Body: ptr("<h1>no</h1>"), ContentType: "text/html"}, 413, `<h1>no</h1>`, map[string]string{"Content-Type": "text/html"}},
		{emulator.Fault{Status: 422, Body: ptr(""), ContentType: "text/plain"}, 422, ``, map[string]string{"Content-Type": "text/plain"}},
	} {
		c.fault.Endpoint, c.fault.Effect, c.fault.Count = "ingest", "status", 1
		w.add(c.fault)
		r := w.ingest(row)
		if r.status != c.status || r.body != c.body {
			t.Errorf("fault %+v: got %d %s, want %d %s", c.fault, r.status, r.body, c.status, c.body)
		}
		for k, v := range c.header {
			if got := r.header.Get(k); got != v {
				t.Errorf("fault %+v: header %s: got %q, want %q", c.fault, k, got, v)
			}
		}
	}
	if got := w.Table(stream).Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none", got)
	}
	w.add(emulator.Fault{Effect: "status", Status: 504, Keep: true, Count: 1})
	w.ingest(row).wantError(t, 504, "DEADLINE_EXCEEDED", "")
	if got := w.Table(stream).Count(); got != 1 {
		t.Errorf("rows kept with keep: got %d, want 1", got)
	}
	if r := w.ingest(row); r.status != 200 {
		t.Errorf("after its count: got %d %s, want 200", r.status, r.body)
	}
}

func TestAnswerIsCutWithinItsBody(t *testing.T) {
	w := start(t, emulator.Config{})
	w.bearer()
	body, five, many := `{"records_ingested":1}`, 5, 100
	for name, c := range map[string]struct {
		after *int
		got   string
	}{"within": {&five, body[:5]}, "beyond its end": {&many, body}} {
		w.add(emulator.Fault{Endpoint: "ingest", Effect: "status", Status: 200, Body: &body, CutAfter: c.after, Count: 1})
		// An answer that is complete by its length is whole, cut or not.
		if r, err := w.tryIngest(envelope(`{}`)); (err == nil) != (c.got == body) || err == nil && r.body != c.got {
			t.Errorf("%s: got %d %s (%v), want %q and then the end of the connection", name, r.status, r.body, err, c.got)
		}
		w.client.CloseIdleConnections() // the emulator ends it, and a request must not meet that
	}
	if got := w.Table(stream).Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none", got)
	}
	if r := w.ingest(envelope(`{}`)); r.status != 200 || r.body != body {
		t.Errorf("afterwards: got %d %s, want the usual answer", r.status, r.body)
	}
}

func TestRetryAfterAsDate(t *testing.T) {
	w := start(t, emulator.Config{})
	w.add(emulator.Fault{Effect: "status", Status: 429, RetryAfter: 3600, AsDate: true, Endpoint: "ingest"})
	at, err := http.ParseTime(w.ingest(envelope()).header.Get("Retry-After"))
	if d := time.Until(at); err != nil || d < 59*time.Minute || d > time.Hour {
		t.Errorf("got %v from now (%v), want an hour", d, err)
	}
}

func TestTokenAndColumnsFaults(t *testing.T) {
	w := start(t, emulator.Config{})
	w.bearer()
	w.add(emulator.Fault{Endpoint: "token", Effect: "status", Status: 500})
	w.add(emulator.Fault{Endpoint: "columns", Effect: "status", Status: 403, Message: "no"})
	w.mint("emulator", "emulator-secret").wantError(t, 500, "temporarily_unavailable", "scripted")
	w.do("GET", emulator.ColumnsPath+stream, "", "", "Authorization", w.bearer()).wantError(t, 403, "PERMISSION_DENIED", "no")
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("ingest: got %d %s, want it untouched", r.status, r.body)
	}
	w.ClearFaults()
	if r := w.mint("emulator", "emulator-secret"); r.status != 200 {
		t.Errorf("token after ClearFaults: got %d %s, want 200", r.status, r.body)
	}
	w.add(emulator.Fault{Table: "a.b.c", Effect: "status", Status: 500})
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("fault for another table: got %d %s, want 200", r.status, r.body)
	}
	w.add(emulator.Fault{Table: "DATAFLY.events.stream", Effect: "status", Status: 500})
	w.ingest(envelope()).wantError(t, 500, "INTERNAL_ERROR", "")
}

func TestLostAckStoresRowsAndCutStoresNone(t *testing.T) {
	for _, tls := range []bool{false, true} {
		w := start(t, emulator.Config{TLS: tls})
		w.bearer()
		w.add(emulator.Fault{Effect: "cut", Count: 1})
		w.add(emulator.Fault{Effect: "lose_ack", Count: 2})
		row := envelope(`{"message_id":"a"}`)
		for i, want := range []int{0, 1} {
			if r, err := w.tryIngest(row); err == nil {
				t.Errorf("request %d: got %d %s, want a cut connection", i, r.status, r.body)
			}
			if got := w.Table(stream).Count(); got != want {
				t.Errorf("rows after request %d: got %d, want %d", i, got, want)
			}
		}
		w.ingest(envelope(`{"nope":1}`)).wantError(t, 400, "INVALID_PARAMETER_VALUE", "nope") // no ack to lose
		if r := w.ingest(row); r.status != 200 {
			t.Errorf("afterwards: got %d %s, want 200", r.status, r.body)
		}
		if got := fmt.Sprint(w.Table(stream).Duplicates("message_id")); got != "[{a 2}]" {
			t.Errorf("duplicates: got %s, want the row whose ack was lost", got)
		}
		if got := w.Stats().Faults; got["cut"] != 1 || got["lose_ack"] != 2 {
			t.Errorf("faults counted: got %v", got)
		}
	}
}

func TestRefuseNamesTheRow(t *testing.T) {
	w := start(t, emulator.Config{})
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "refuse", Rows: &emulator.RowMatch{Column: "event_name", Equals: ptr("poison")}})
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "refuse", Rows: &emulator.RowMatch{MessageIDs: []string{"x", "y"}}})
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "refuse", Rows: &emulator.RowMatch{Column: "page_url", Regexp: "^ftp:"}})
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "refuse", Rows: &emulator.RowMatch{Regexp: `"locale":"xx"`}})
	good := `{"message_id":"ok","event_name":"fine","page_url":"https://ftp:"}`
	for _, bad := range []string{`{"event_name":"pois\u006fn"}`, `{"message_id":"y"}`, `{"page_url":"ftp://x"}`, `{"locale":"xx"}`} {
		r := w.ingest(envelope(good, good, bad))
		r.wantError(t, 400, "INVALID_PARAMETER_VALUE", "row 2")
	}
	if got := w.Table(stream).Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none", got)
	}
	if r := w.ingest(envelope(good, `{"event_name":null}`, `{}`)); r.status != 200 {
		t.Errorf("rows that do not match: got %d %s, want 200", r.status, r.body)
	}
}

func TestProbabilityFollowsTheSeed(t *testing.T) {
	w := start(t, emulator.Config{})
	run := func(seed uint64) string {
		w.ClearFaults()
		w.add(emulator.Fault{Endpoint: "ingest", Effect: "status", Status: 500, Probability: 0.3, Seed: seed})
		var b strings.Builder
		for range 100 {
			b.WriteByte("02"[w.ingest(envelope()).status/500%2])
		}
		return b.String()
	}
	first := run(7)
	if n := strings.Count(first, "2"); n < 15 || n > 45 {
		t.Errorf("failures of 100 at 0.3: got %d", n)
	}
	if again := run(7); again != first {
		t.Errorf("the same seed: got %s, want %s", again, first)
	}
	if other := run(8); other == first {
		t.Error("another seed gives the same run")
	}
}

func TestHangEndsWhenTheClientLeaves(t *testing.T) {
	w := start(t, emulator.Config{})
	auth := w.bearer()
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "hang", Keep: true, Count: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	go func() { // ends with the test's wait for the row
		defer cancel(left)
		if err := w.Table(stream).Wait(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, "POST", w.URL()+emulator.IngestPath, strings.NewReader(envelope(`{}`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", auth)
	if _, err := w.client.Do(req); !errors.Is(err, left) {
		t.Errorf("got %v, want the request to end by the client's leave only", err)
	}
	if r := w.ingest(envelope(`{}`)); r.status != 200 {
		t.Errorf("after the hang: got %d %s, want 200", r.status, r.body)
	}
}

func TestSlowBodyArrivesWhole(t *testing.T) {
	w := start(t, emulator.Config{})
	w.add(emulator.Fault{Endpoint: "ingest", Effect: "slow_body", ByteEveryMS: 1})
	began := time.Now()
	if r := w.ingest(envelope(`{}`)); r.status != 200 || r.body != `{"records_ingested":1}` {
		t.Errorf("got %d %s, want the usual answer", r.status, r.body)
	}
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("took %v, want a millisecond per byte", took)
	}
}

func TestHookDecidesPerRequest(t *testing.T) {
	w := start(t, emulator.Config{})
	w.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		if r.Table != stream || r.RequestID != "" {
			t.Errorf("hook: got table %q, request id %q", r.Table, r.RequestID)
		}
		switch {
		case r.Number == 1:
			return &emulator.Fault{Effect: "status", Status: 503}
		case len(r.Rows) > 1 && string(r.Rows[1]) == `{"message_id":"b"}`:
			return &emulator.Fault{Effect: "refuse", Rows: &emulator.RowMatch{MessageIDs: []string{"b"}}}
		case r.Number == 3:
			return &emulator.Fault{Effect: "nonsense"}
		}
		return nil
	})
	w.ingest(envelope()).wantError(t, 503, "TEMPORARILY_UNAVAILABLE", "")
	w.ingest(envelope(`{"message_id":"a"}`, `{"message_id":"b"}`)).wantError(t, 400, "INVALID_PARAMETER_VALUE", "row 1")
	w.ingest(envelope()).wantError(t, 500, "INTERNAL_ERROR", "nonsense")
	if r := w.ingest(envelope(`{}`)); r.status != 200 {
		t.Errorf("no fault: got %d %s, want 200", r.status, r.body)
	}
	w.OnIngest(nil)
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	if r := w.ingest(envelope(`{}`)); r.status != 200 {
		t.Errorf("hook removed: got %d %s, want 200", r.status, r.body)
	}
}

func TestInvalidFaults(t *testing.T) {
	w := start(t, emulator.Config{})
	for want, f := range map[string]emulator.Fault{
		`effect ""`:                           {},
		`effect "explode"`:                    {Effect: "explode"},
		`endpoint "sql"`:                      {Effect: "cut", Endpoint: "sql"},
		`status 42`:                           {Effect: "status", Status: 42},
		`status only`:                         {Effect: "cut", Status: 500},
		`wants a latency`:                     {Effect: "latency"},
		`p95 at least`:                        {Effect: "latency", Latency: emulator.Latency{P50: 2, P95: 1}},
		`keep (lose_ack keeps without it) go`: {Effect: "cut", Keep: true},
		`count -1`:                            {Effect: "cut", Count: -1},
		`probability 2`:                       {Effect: "cut", Probability: 2},
		`want an endpoint of`:                 {Effect: "refuse"},
		`knows no tables`:                     {Effect: "cut", Endpoint: "token", Table: "a.b.c"},
		`want equals, regexp`:                 {Effect: "cut", Endpoint: "ingest", Rows: &emulator.RowMatch{}},
		`equals wants`:                        {Effect: "cut", Endpoint: "ingest", Rows: &emulator.RowMatch{Equals: ptr("")}},
		`column "a" wants`:                    {Effect: "cut", Endpoint: "ingest", Rows: &emulator.RowMatch{Column: "a", MessageIDs: []string{"b"}}},
		`regexp: `:                            {Effect: "cut", Endpoint: "ingest", Rows: &emulator.RowMatch{Regexp: "("}},
		`byte_every_ms -1`:                    {Effect: "slow_body", ByteEveryMS: -1},
		`content_type, cut`:                   {Effect: "cut", ContentType: "text/html"},
		`of HTTP answers`:                     {Effect: "status", Endpoint: "stream", GRPCCode: "INTERNAL", CutAfter: new(int)},
		`content_type: `:                      {Effect: "status", Status: 400, ContentType: "a\nb"},
		`cut_after: want 0`:                   {Effect: "status", Status: 400, CutAfter: func() *int { n := -1; return &n }()},
		`retry_after -1`:                      {Effect: "status", Status: 429, RetryAfter: -1},
	} {
		if _, err := w.AddFault(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("AddFault(%+v): got %v, want an error with %q", f, err, want)
		}
	}
	w.add(emulator.Fault{ID: "mine", Effect: "cut"})
	if _, err := w.AddFault(emulator.Fault{ID: "mine", Effect: "cut"}); err == nil {
		t.Error("the same ID twice: got no error")
	}
	if got := w.Faults(); len(got) != 1 {
		t.Errorf("faults: got %+v, want one", got)
	}
}

func TestCloseEndsHangsAndWaits(t *testing.T) {
	e, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err == nil {
		t.Error("second Start: got no error")
	}
	arrived, hung := make(chan struct{}), make(chan error)
	e.OnIngest(func(emulator.IngestRequest) *emulator.Fault {
		close(arrived)
		return &emulator.Fault{Effect: "hang"}
	})
	go func() {
		res, err := http.Post(e.URL()+emulator.IngestPath, "application/json", strings.NewReader("{}"))
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		hung <- err
	}()
	<-arrived
	if err := e.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-hung; err == nil {
		t.Error("the hung request: got an answer, want a cut connection")
	}
	if err := e.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}
