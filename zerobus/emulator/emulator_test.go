package emulator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stream = "datafly.events.stream"

// workspace is a running emulator and a client for it.
type workspace struct {
	*emulator.Emulator
	t      testing.TB
	client *http.Client
	token  string
}

func start(t testing.TB, cfg emulator.Config) *workspace {
	t.Helper()
	e, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	if cfg.TLS {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(e.CAPEM()) {
			t.Fatal("CAPEM holds no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		transport.ForceAttemptHTTP2 = true
	}
	w := &workspace{Emulator: e, t: t, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return w
}

// response is a whole response.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	return v
}

func (w *workspace) try(method, path, contentType, body string, header ...string) (response, error) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := w.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(bytes.TrimSpace(b))}, err
}

func (w *workspace) do(method, path, contentType, body string, header ...string) response {
	w.t.Helper()
	r, err := w.try(method, path, contentType, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (w *workspace) admin(method, path, body string) response {
	w.t.Helper()
	return w.do(method, "/emulator/"+path, "application/json", body)
}

func (w *workspace) mint(id, secret string) response {
	w.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "client_id": {id}, "client_secret": {secret}}
	return w.do("POST", emulator.TokenPath, "application/x-www-form-urlencoded", form.Encode())
}

// bearer returns the Authorization header of a good token.
func (w *workspace) bearer() string {
	w.t.Helper()
	if w.token == "" {
		r := w.mint(emulator.DefaultClientID, emulator.DefaultClientSecret)
		token, _ := r.json(w.t)["access_token"].(string)
		if r.status != 200 || token == "" {
			w.t.Fatalf("token: got %d %s, want 200", r.status, r.body)
		}
		w.token = token
	}
	return "Bearer " + w.token
}

func envelope(rows ...string) string {
	return `{"table":"` + stream + `","records":[` + strings.Join(rows, ",") + `]}`
}

func (w *workspace) tryIngest(body string) (response, error) {
	w.t.Helper()
	return w.try("POST", emulator.IngestPath, "application/json", body, "Authorization", w.bearer())
}

func (w *workspace) ingest(body string) response {
	w.t.Helper()
	r, err := w.tryIngest(body)
	if err != nil {
		w.t.Fatalf("ingest: %v", err)
	}
	return r
}

// wantError compares a response with a status, an error code and a part of its
// message.
func (r response) wantError(t testing.TB, status int, code, message string) {
	t.Helper()
	got := r.json(t)
	name, text := "error_code", "message"
	if _, oauth := got["error"]; oauth {
		name, text = "error", "error_description"
	}
	if r.status != status || got[name] != code || !strings.Contains(got[text].(string), message) {
		t.Errorf("got %d %s, want %d %s with %q", r.status, r.body, status, code, message)
	}
}

func TestIngestStoresRowsAndReturnsTheirNumber(t *testing.T) {
	w := start(t, emulator.Config{})
	r := w.ingest(envelope(`{"message_id":"a","event_name":"page_viewed","event_timestamp":1760000000000000}`, `{"message_id":"b","user_id":null}`))
	if r.status != 200 || r.body != `{"records_ingested":2}` {
		t.Fatalf("got %d %s, want 200 with 2 records", r.status, r.body)
	}
	r = w.ingest(envelope(`{"message_id":"a"}`))
	if r.status != 200 {
		t.Fatalf("got %d %s, want 200", r.status, r.body)
	}
	tab := w.Table(stream)
	if got := [...]int{tab.Count(), tab.Distinct("message_id"), tab.Distinct("event_name")}; got != [...]int{3, 2, 1} {
		t.Errorf("count, distinct ids, distinct names: got %v, want 3 2 1", got)
	}
	if got := tab.Duplicates("message_id"); len(got) != 1 || got[0] != (emulator.Duplicate{Value: "a", Count: 2}) {
		t.Errorf("duplicates: got %v, want a twice", got)
	}
	newest := tab.Newest(2)
	if len(newest) != 2 || newest[0].Seq != 3 || string(newest[1].JSON) != `{"message_id":"b","user_id":null}` {
		t.Errorf("newest: got %+v", newest)
	}
	if got := w.ingest(envelope()); got.status != 200 || got.body != `{"records_ingested":0}` {
		t.Errorf("no records: got %d %s, want 200 with 0", got.status, got.body)
	}
}
