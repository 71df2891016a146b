package zerobus_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/zerobus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	principal = "00000000-1111-2222-3333-444444444444"
	secretOne = "dose-first-secret/+=&"
	secretTwo = "dose-second-secret"
)

// workspace speaks the wire of a Databricks workspace as far as the client
// needs it. Its hooks answer in place of the regular behaviour when they
// return true.
type workspace struct {
	mu       sync.Mutex // guards the fields below
	secret   string
	lifetime int // seconds; 0: the token answer has no expires_in
	tokens   map[string]bool
	minted   int
	columns  string
	rows     []string
	requests []request

	onToken   func(w http.ResponseWriter, r *http.Request) bool
	onIngest  func(w http.ResponseWriter, r *http.Request, rows []json.RawMessage) bool
	onColumns func(w http.ResponseWriter, r *http.Request) bool
}

// request is one arrival at the ingest path.
type request struct {
	at       time.Time
	id       string
	token    string
	header   http.Header
	rows     int
	received string
}

func newWorkspace() *workspace {
	return &workspace{secret: secretOne, lifetime: 3600, tokens: map[string]bool{},
		columns: `{"columns":[{"name":"message_id","position":0,"type_name":"STRING","type_text":"string"},{"name":"n","position":1,"type_name":"LONG","type_text":"bigint"}]}`}
}

var rowColumns = []zerobus.Column{{Name: "message_id", Type: "STRING"}, {Name: "n", Type: "BIGINT", Position: 1}}

func (s *workspace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/oidc/v1/token":
		s.serveToken(w, r)
	case r.URL.Path == "/api/2.0/streaming-ingestion/ingest":
		s.serveIngest(w, r)
	case strings.HasPrefix(r.URL.Path, "/api/2.1/unity-catalog/tables/"):
		s.serveColumns(w, r)
	default:
		fail(w, 404, "ENDPOINT_NOT_FOUND", "No API found for "+r.URL.Path)
	}
}

func fail(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error_code": code, "message": message})
	return true
}

func (s *workspace) serveToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	hook := s.onToken
	s.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	w.Header().Set("Content-Type", "application/json")
	if id != principal || secret != escaped(s.secret) || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "all-apis" {
		w.WriteHeader(401)
		io.WriteString(w, `{"error":"invalid_client","error_description":"Client authentication failed"}`)
		return
	}
	s.minted++
	token := fmt.Sprintf("token-%d-of-test", s.minted)
	s.tokens[token] = true
	if s.lifetime == 0 {
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer"}`, token)
		return
	}
	fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":%d,"scope":"all-apis"}`, token, s.lifetime)
}

// known reports whether the request carries a valid token.
func (s *workspace) known(r *http.Request) (string, bool) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	return token, s.tokens[token]
}

func (s *workspace) serveIngest(w http.ResponseWriter, r *http.Request) {
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(in)
		if err != nil {
			fail(w, 400, "INVALID_PARAMETER_VALUE", err.Error())
			return
		}
		in = unzip
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return
	}
	token, ok := s.known(r)
	var body struct {
		Table   string            `json:"table"`
		Records []json.RawMessage `json:"records"`
	}
	err = json.Unmarshal(text, &body)
	s.mu.Lock()
	s.requests = append(s.requests, request{time.Now(), r.Header.Get("X-Request-Id"), token, r.Header, len(body.Records), string(text)})
	hook := s.onIngest
	s.mu.Unlock()
	if hook != nil && hook(w, r, body.Records) {
		return
	}
	switch {
	case !ok:
		fail(w, 401, "UNAUTHENTICATED", "token "+token+" is not valid")
	case err != nil || body.Records == nil:
		fail(w, 400, "INVALID_PARAMETER_VALUE", fmt.Sprint("malformed body: ", err))
	case body.Table != "datafly.events.stream":
		fail(w, 404, "TABLE_DOES_NOT_EXIST", "Table "+body.Table+" cannot be found.")
	default:
		s.mu.Lock()
		for _, row := range body.Records {
			s.rows = append(s.rows, string(row))
		}
		s.mu.Unlock()
		fmt.Fprintf(w, `{"records_ingested":%d}`, len(body.Records))
	}
}

func (s *workspace) serveColumns(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.known(r); !ok {
		fail(w, 401, "UNAUTHENTICATED", "no such token")
		return
	}
	s.mu.Lock()
	hook, columns := s.onColumns, s.columns
	s.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	io.WriteString(w, columns)
}

func (s *workspace) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *workspace) arrivals() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

func (s *workspace) stored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.rows...)
}

func (s *workspace) mints() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.minted
}

// inMemory carries requests to a handler without sockets, so that time may be
// virtual.
type inMemory struct{ http.Handler }

func (m inMemory) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	var hung error
	in := req.Clone(req.Context())
	if req.Body != nil {
		defer req.Body.Close()
	} else {
		in.Body = http.NoBody
	}
	func() {
		defer func() {
			if r := recover(); r != nil {
				hung = errors.New("connection reset by peer") // as a server does on http.ErrAbortHandler
			}
		}()
		m.ServeHTTP(rec, in)
	}()
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if hung != nil {
		return nil, hung
	}
	return rec.Result(), nil
}

// observed is an Observer that counts.
type observed struct {
	mu       sync.Mutex // guards the fields below
	outcomes map[string]int
	retries  map[string]int
	mints    int
	failed   int
}

func (o *observed) Request(outcome string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.outcomes == nil {
		o.outcomes = map[string]int{}
	}
	o.outcomes[outcome]++
}

func (o *observed) Retried(reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.retries == nil {
		o.retries = map[string]int{}
	}
	o.retries[reason]++
}

func (*observed) StreamOpened()      {}
func (*observed) StreamEnded(string) {}

func (o *observed) TokenMinted(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mints++; err != nil {
		o.failed++
	}
}

func (o *observed) count(of map[string]int, label string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return of[label]
}

// bench is a client, the workspace behind it and what was logged.
type bench struct {
	*zerobus.Client
	space *workspace
	logs  *observer.ObservedLogs
	obs   *observed
}

func config(url string) zerobus.Config {
	return zerobus.Config{
		Settings: zerobus.Settings{WorkspaceURL: url, ClientID: principal, Catalog: "datafly", Schema: "events", Table: "stream",
			Transport: zerobus.TransportWorkspace},
		ReadCredential: func() (string, error) { return secretOne, nil },
	}
}

// virtual returns a client over an in-memory workspace, for use in a synctest
// bubble. change may be nil.
func virtual(t *testing.T, change func(*zerobus.Config)) bench {
	t.Helper()
	return virtualOver(t, change, func(space http.Handler) http.Handler { return space })
}

// virtualOver is virtual with something put between client and workspace.
func virtualOver(t *testing.T, change func(*zerobus.Config), between func(http.Handler) http.Handler) bench {
	t.Helper()
	space := newWorkspace()
	cfg := config("https://abc-12345.cloud.databricks.com")
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	obs := &observed{}
	c, err := zerobus.NewOver(cfg, zap.New(core), obs, inMemory{between(space)})
	if err != nil {
		t.Fatalf("NewOver: %v", err)
	}
	return bench{c, space, logs, obs}
}

// onSockets returns a client over loopback sockets.
func onSockets(t *testing.T, space http.Handler, change func(*zerobus.Config)) bench {
	t.Helper()
	server := httptest.NewServer(space)
	t.Cleanup(server.Close)
	cfg := config(server.URL)
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	obs := &observed{}
	c, err := zerobus.New(cfg, zap.New(core), obs)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(c.Close)
	own, _ := space.(*workspace)
	return bench{c, own, logs, obs}
}

func row(n int) []byte { return fmt.Appendf(nil, `{"message_id":"m-%d","n":%d}`, n, n) }

func rows(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = row(i)
	}
	return out
}

// text returns all that was logged, fields included.
func text(t *testing.T, logs *observer.ObservedLogs) string {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, e := range logs.All() {
		if err := enc.Encode([]any{e.Message, e.ContextMap()}); err != nil {
			t.Fatalf("encoding a log line: %v", err)
		}
	}
	return out.String()
}

func write(t *testing.T, b bench, batch [][]byte) {
	t.Helper()
	if err := b.WriteLatest(t.Context(), batch); err != nil {
		t.Fatalf("Write: %v", err)
	}
}

// inBackground runs Write and returns where its error will be found.
func inBackground(ctx context.Context, b bench, batch [][]byte) <-chan error {
	done := make(chan error, 1)
	go func() { done <- b.WriteLatest(ctx, batch) }()
	return done
}

func escaped(s string) string {
	return strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D", "&", "%26").Replace(s)
}
