package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
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

func TestHooksSeeStreamsAndInserts(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	var seen []emulator.IngestRequest
	z.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		seen = append(seen, emulator.IngestRequest{Endpoint: r.Endpoint, Number: r.Number, Table: r.Table, StreamID: r.StreamID, Offset: r.Offset})
		if len(r.Rows) != 1 || string(r.Rows[0]) != `{"event_name":"x"}` {
			t.Errorf("rows: got %q", r.Rows)
		}
		if len(seen) == 3 {
			return &emulator.Fault{Effect: "status", GRPCCode: "ABORTED"}
		}
		return nil
	})
	p := z.open(protoCreate(t, stream, pageDescriptor()))
	row := encode(t, resolve(t, pageDescriptor()), `{"event_name":"x"}`)
	p.send(protoBatch(0, row))
	p.ack(0)
	if r := z.insert(stream, `[{"event_name":"x"}]`); r.status != 200 {
		t.Errorf("insert: got %d %s", r.status, r.body)
	}
	p.send(protoBatch(1, row))
	wantStatus(t, "the hook's fault", p.end(), codes.Aborted, "scripted")
	want := []emulator.IngestRequest{
		{Endpoint: "stream", Number: 1, Table: stream, StreamID: p.id}, {Endpoint: "insert", Number: 1, Table: stream},
		{Endpoint: "stream", Number: 2, Table: stream, StreamID: p.id, Offset: 1},
	}
	for i, r := range seen {
		if r.Endpoint != want[i].Endpoint || r.Number != want[i].Number || r.Table != want[i].Table || r.StreamID != want[i].StreamID || r.Offset != want[i].Offset {
			t.Errorf("request %d: got %+v, want %+v", i, r, want[i])
		}
	}
}

// TestLatencies measures the waits with a virtual clock.
func TestLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.New(emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(ctx context.Context, method, path string) time.Duration {
			began := time.Now()
			req := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader("{}"))
			func() {
				defer func() { _ = recover() }() // the server's way to cut a connection
				e.Handler().ServeHTTP(httptest.NewRecorder(), req)
			}()
			return time.Since(began)
		}
		bg := t.Context()
		if got := ask(bg, "POST", emulator.IngestPath); got != 20*time.Millisecond {
			t.Errorf("ingest: got %v, want 20ms", got)
		}
		if got := ask(bg, "POST", emulator.TokenPath); got != 0 {
			t.Errorf("token: got %v, want none", got)
		}
		if _, err := e.AddFault(emulator.Fault{ID: "fixed", Endpoint: "token", Effect: "latency", Latency: emulator.Latency{P50: time.Second}}); err != nil {
			t.Fatal(err)
		}
		if got := ask(bg, "POST", emulator.TokenPath); got != time.Second {
			t.Errorf("token with a latency: got %v, want 1s", got)
		}
		if !e.RemoveFault("fixed") || e.RemoveFault("fixed") {
			t.Error("RemoveFault: want true, then false")
		}
		if _, err := e.AddFault(emulator.Fault{Effect: "latency", Seed: 1, Latency: emulator.Latency{P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
		var over50, over95 int
		for range 2000 {
			d := ask(bg, "POST", emulator.TokenPath)
			if d > 150*time.Millisecond {
				over50++
			}
			if d > 500*time.Millisecond {
				over95++
			}
			if d > 5*time.Second {
				t.Fatalf("got %v, want at most ten times p95", d)
			}
		}
		if over50 < 900 || over50 > 1100 || over95 < 60 || over95 > 140 {
			t.Errorf("of 2000: %d above p50 and %d above p95, want about 1000 and 100", over50, over95)
		}
		ctx, cancel := context.WithTimeout(bg, 10*time.Millisecond)
		defer cancel()
		e.ClearFaults()
		if got := ask(ctx, "POST", emulator.IngestPath); got != 10*time.Millisecond {
			t.Errorf("client that leaves after 10ms: got %v", got)
		}
		if err := e.Close(bg); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestCloseEndsADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.New(emulator.Config{Latency: emulator.Latency{P50: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		rec, done := httptest.NewRecorder(), make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			e.Handler().ServeHTTP(rec, httptest.NewRequest("POST", emulator.IngestPath, nil))
		}()
		synctest.Wait()
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		<-done
		if took := time.Since(began); took != 0 || rec.Code != 401 {
			t.Errorf("got %d after %v, want the answer at once", rec.Code, took)
		}
	})
}

func TestParseLatency(t *testing.T) {
	for text, want := range map[string]emulator.Latency{
		"": {}, "20ms": {P50: 20 * time.Millisecond}, "p50=1s": {P50: time.Second},
		"p50=150ms,p95=500ms": {P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}, "p95=2s, p50=1s": {P50: time.Second, P95: 2 * time.Second},
	} {
		got, err := emulator.ParseLatency(text)
		if err != nil || got != want {
			t.Errorf("ParseLatency(%q): got %v, %v, want %v", text, got, err, want)
		}
		if again, err := emulator.ParseLatency(got.String()); err != nil || again != got {
			t.Errorf("ParseLatency(%q): got %v, %v, want %v back", got.String(), again, err, got)
		}
	}
	for _, text := range []string{"x", "20", "p99=1s", "p50=1s,p50=2s", "p95=1s", "p50=2s,p95=1s", "-1s", "1s,2s", "p50=2h", "1s,"} {
		if l, err := emulator.ParseLatency(text); err == nil {
			t.Errorf("ParseLatency(%q): got %v, want an error", text, l)
		}
	}
}

// window is how many batches a writer has in flight.
const window = 16

// write sends batches of one row until each is acknowledged, as simply as a
// writer can: after a stream's end, all that was not acknowledged goes again.
func (z *endpoint) write(ctx context.Context, client pb.ZerobusClient, auth, prefix string, batches int) error {
	acked := 0
	for acked < batches {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rpc, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", auth, emulator.TableHeader, stream))
		s, err := client.EphemeralStream(rpc)
		if err == nil {
			err = s.Send(createRequest(jsonCreate(stream)))
		}
		if err == nil {
			_, err = s.Recv()
		}
		first, sent := acked, acked
		for err == nil && acked < batches {
			for ; sent < batches && sent-acked < window; sent++ {
				if s.Send(jsonBatch(int64(sent-first), fmt.Sprintf(`{"message_id":"%s-%d"}`, prefix, sent))) != nil {
					break // Recv knows why, behind the acks that still wait there
				}
			}
			var r *pb.EphemeralStreamResponse
			if r, err = s.Recv(); err == nil {
				if a := r.GetIngestRecordResponse(); a != nil && a.DurabilityAckUpToOffset != nil {
					acked = max(acked, first+int(a.GetDurabilityAckUpToOffset())+1)
				}
			}
		}
		cancel()
	}
	return nil
}

// TestNoLossWithFaults lets everything go wrong at once. What the
// emulator has acknowledged, it has; what it has twice, it can account for.
func TestNoLossWithFaults(t *testing.T) {
	faults := []emulator.Fault{
		{Endpoint: "create", Effect: "status", GRPCCode: "UNAVAILABLE", Probability: 0.1},
		{Endpoint: "create", Effect: "status", GRPCCode: "OK", Reason: "later", Probability: 0.05},
		{Endpoint: "stream", Effect: "status", GRPCCode: "INTERNAL", Probability: 0.01},
		{Endpoint: "stream", Effect: "status", GRPCCode: "ABORTED", Keep: true, Probability: 0.01},
		{Endpoint: "stream", Effect: "goaway", Probability: 0.01},
		{Endpoint: "stream", Effect: "unknown", Probability: 0.01},
		{Endpoint: "stream", Effect: "ack", AckBy: number(-3), Probability: 0.01},
		{Endpoint: "stream", Effect: "close_signal", Window: span(5 * time.Millisecond), Probability: 0.01},
		{Endpoint: "stream", Effect: "stall_acks", Latency: emulator.Latency{P50: 20 * time.Millisecond}, Probability: 0.01},
		{Endpoint: "stream", Effect: "latency", Latency: emulator.Latency{P50: time.Millisecond}, Probability: 0.02},
	}
	t.Run("streams", func(t *testing.T) { nothingIsLost(t, faults) })
	t.Run("connections", func(t *testing.T) {
		nothingIsLost(t, append([]emulator.Fault{
			{Endpoint: "stream", Effect: "lose_ack", Probability: 0.01}, {Endpoint: "stream", Effect: "cut", Probability: 0.01},
		}, faults...))
	})
}

func nothingIsLost(t *testing.T, faults []emulator.Fault) {
	const writers, batches = 6, 300
	z := startZerobus(t, emulator.Config{StreamMaxAge: 60 * time.Millisecond, CloseWindow: 10 * time.Millisecond, AckInterval: time.Millisecond})
	effects := map[string]bool{}
	for i, f := range faults {
		f.Seed = uint64(i + 1)
		z.add(f)
		effects[f.Effect] = true
	}
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	auth := z.grant(stream)
	var all sync.WaitGroup
	for w := range writers {
		client := z.client
		if w%2 == 1 { // half of them on one connection
			client = pb.NewZerobusClient(z.dial())
		}
		all.Go(func() {
			if err := z.write(ctx, client, auth, fmt.Sprint(w), batches); err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
		})
	}
	all.Wait()
	if err := z.WaitStreams(ctx, 0); err != nil {
		t.Fatal(err)
	}
	tab, stats := z.Table(stream), z.Stats()
	if got := tab.Distinct("message_id"); got != writers*batches {
		t.Errorf("rows: got %d distinct, want all %d", got, writers*batches)
	}
	// Acks that were sent are lost with a connection that is cut, which half
	// of the writers share.
	extra := int64(tab.Count() - writers*batches)
	swallowed := (stats.Faults["cut"] + stats.Faults["lose_ack"]) * window * writers / 2
	if extra > stats.UnackedRows+swallowed {
		t.Errorf("rows twice: got %d, want at most %d unacknowledged and %d whose ack was cut off", extra, stats.UnackedRows, swallowed)
	}
	for effect := range effects {
		if stats.Faults[effect] == 0 {
			t.Errorf("%s did not happen, so this proves little: %v", effect, stats.Faults)
		}
	}
	for _, s := range z.Streams() {
		last := int64(-1)
		for _, row := range tab.Stream(s.ID) {
			if row.Offset != last+1 {
				t.Fatalf("stream %s: got offset %d behind %d, want them in order", s.ID, row.Offset, last)
			}
			last = row.Offset
		}
	}
}
