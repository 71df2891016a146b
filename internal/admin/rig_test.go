package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret   = "YOUR_CLIENT_SECRET"
	pageHost = "abc-12345.cloud.databricks.com"
)

// pageBody is the body of the page's call.
const pageBody = `{
"name": "Databricks (Zerobus Ingest)",
"variant": "default",
"config": {
"workspace_url": "https://abc-12345.cloud.databricks.com",
"client_id": "00000000-0000-0000-0000-000000000000",
"client_secret": "YOUR_CLIENT_SECRET",
"catalog": "datafly",
"schema": "events",
"table": "stream"
},
"delivery_mode": "server_side"
}`

const installPath = Prefix + "/integration-catalog/databricks_zerobus/install"

// rig is an API with its parts. The workspace is the page's, and any table may be named.
type rig struct {
	*API
	manager *manage.Manager
	ops     *fakeOperations
	logs    *observer.ObservedLogs
	log     *zap.Logger
}

var theDocument = sync.OnceValue(func() *documentOf { return newDocument(&testing.T{}) })

// newRig returns an API. change may alter its configuration.
func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{ops: &fakeOperations{}, logs: logs, log: zap.New(core)}
	r.manager = newManager(t, r.log)
	t.Cleanup(func() {
		for _, entry := range logs.All() {
			if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, secret) || strings.Contains(text, "YOUR_TOKEN") {
				t.Errorf("a log line holds a secret: %s", text)
			}
		}
	})
	open, err := NewAccess(access.Files{}, true, r.log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Manager: r.manager, Operations: r.ops, Access: open, Log: r.log, RateLimit: 1_000_000, Group: func(context.Context) ops.GroupStatus {
		return ops.GroupStatus{Scope: ops.ScopeGroup, Deployment: "bridge", Peers: []ops.Peer{}, Integrations: []ops.GroupIntegration{{Integration: "web", Members: []ops.GroupMember{}, Partitions: []ops.GroupPartition{}}, {Integration: "other"}}}
	}}
	for _, f := range change {
		f(&cfg)
	}
	r.API = New(cfg)
	t.Cleanup(r.Stop)
	return r
}

// newManager returns the manager of a deployment with a store, whose network has the
// page's workspace alone.
func newManager(t testing.TB, log *zap.Logger) *manage.Manager {
	t.Helper()
	broker := kafkatest.StartFake(t, kafkatest.Options{})
	ws, err := emulator.New(emulator.Config{ClientID: "00000000-0000-0000-0000-000000000000", ClientSecret: secret, TLS: true, Names: []string{pageHost}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close(context.Background()) })
	key, file := filepath.Join(t.TempDir(), "store.key"), filepath.Join(t.TempDir(), "config.yaml")
	for name, text := range map[string]string{key: strings.Repeat("k", store.KeyBytes),
		file: "kafka: {brokers: [" + strings.Join(broker.Addrs(), ", ") + "], topics: [events]}\nstore: {enabled: true, keys: [" + key + "]}\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := config.LoadDeployment(config.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	st := store.New(store.Options{Topic: d.Base.Store.Topic, Connection: (&consumer.Config{Kafka: d.Base.Kafka}).Connection(), Log: log, Keys: func() ([][]byte, error) { return d.Base.Store.ReadKeys() }})
	t.Cleanup(st.Close)
	network := zerobus.Network{CA: ws.CAPEM(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != pageHost+":443" {
			return nil, fmt.Errorf("there is no host %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(ws.URL(), "https://"))
	}}
	return manage.New(manage.Options{Store: st, Files: func() *config.Deployment { return d }, Connections: network.Connections(), Version: "test"})
}

// withTokens has the API require tokens: viewer, editor and admin.
func withTokens(t testing.TB) func(*Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	text := ""
	for _, role := range []string{access.Viewer, access.Editor, access.Admin} {
		text += fmt.Sprintf("%s-1 %s %s\n", role, role, hashOf(role))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		var err error
		if c.Access, err = NewAccess(access.Files{Tokens: path}, false, c.Log); err != nil {
			t.Fatal(err)
		}
	}
}

// send sends a request, and compares the answer with the document. Headers are pairs.
func (r *rig) send(t testing.TB, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	req.Host = "localhost:8084"
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	r.fits(t, req, w)
	return w
}

// fits compares an answer with the document.
func (r *rig) fits(t testing.TB, req *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Header().Get("X-Request-Id") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %s: got the headers %v, want a request id and nosniff", req.Method, req.URL, w.Header())
	}
	if strings.Contains(w.Body.String(), secret) && !strings.Contains(w.Body.String(), `"placeholder":"`+secret) {
		t.Errorf("%s %s: the answer holds the secret: %s", req.Method, req.URL, w.Body)
	}
	if w.Code == http.StatusServiceUnavailable || w.Code == http.StatusTooManyRequests {
		if w.Header().Get("Retry-After") == "" {
			t.Errorf("%s %s: %d without Retry-After", req.Method, req.URL, w.Code)
		}
	}
	_, pattern := r.mux.Handler(req)
	i := slices.IndexFunc(routes, func(x *route) bool { return x.method+" "+Prefix+x.pattern == pattern })
	var err error
	if i >= 0 && path.Clean(req.URL.Path) == req.URL.Path {
		err = theDocument().validate(routes[i], w.Code, w.Header().Get("Content-Type"), w.Body.Bytes())
	} else if w.Header().Get("Content-Type") == "application/json" || w.Code >= 400 {
		err = theDocument().fits(problem{}, w.Body.Bytes())
	}
	if err != nil {
		t.Errorf("%s %s: the answer %d %s is not that of the document: %v", req.Method, req.URL, w.Code, w.Body, err)
	}
}

// refused is an answer that is an error.
type refused struct {
	Error  struct{ Code, Message string }
	Fields []manage.FieldError
	Remedy string
}

// expect sends a request, and compares status and code of the answer.
func (r *rig) expect(t testing.TB, status int, code, method, target, body string, headers ...string) refused {
	t.Helper()
	w := r.send(t, method, target, body, headers...)
	var got refused
	if status >= 400 {
		decode(t, w, &got)
	}
	if w.Code != status || got.Error.Code != code {
		t.Errorf("%s %s %s: got %d %s, want %d %s", method, target, body, w.Code, w.Body, status, code)
	}
	return got
}

func decode(t testing.TB, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
}

// bodyOf is the page's body for an integration of this name with a table of its own.
func bodyOf(name string) string {
	return strings.NewReplacer("Databricks (Zerobus Ingest)", name, `"stream"`, `"t_`+name+`"`).Replace(pageBody)
}

// install installs an integration and returns it.
func (r *rig) install(t testing.TB, name string) manage.Integration {
	t.Helper()
	var request manage.Request
	if err := json.Unmarshal([]byte(bodyOf(name)), &request); err != nil {
		t.Fatal(err)
	}
	got, err := r.manager.Install(t.Context(), request, manage.Who{By: "test", RequestID: "install-" + name}, false)
	if err != nil {
		t.Fatal(err)
	}
	return got.Integration
}

// fakeOperations keeps what it was asked, and returns err.
type fakeOperations struct {
	mu      sync.Mutex
	replays []pipeline.ReplayRequest
	filter  pipeline.DeadLetterFilter
	redrive pipeline.RedriveRequest
	err     error
}

func (o *fakeOperations) Replay(_ context.Context, slug string, r pipeline.ReplayRequest) (pipeline.ReplayReport, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.replays = append(o.replays, r)
	return pipeline.ReplayReport{Group: slug, To: r.To, By: r.By, Executed: r.Execute, Reason: r.Reason}, o.err
}

func (o *fakeOperations) DeadLetters(_ context.Context, _ string, f pipeline.DeadLetterFilter) (pipeline.DeadLetterGroups, error) {
	o.filter = f
	return pipeline.DeadLetterGroups{Topics: []string{"t-dlq"}}, o.err
}

func (o *fakeOperations) Redrive(_ context.Context, slug string, r pipeline.RedriveRequest) (pipeline.RedriveReport, error) {
	o.redrive = r
	return pipeline.RedriveReport{Integration: slug, Executed: r.Execute, By: r.By}, o.err
}

func (o *fakeOperations) Topics(context.Context) ([]pipeline.Topic, error) {
	rate, now := 1.5, time.Unix(1_700_000_000, 0)
	return []pipeline.Topic{{Name: "b", Partitions: 3, Rate: &rate, Newest: &now}, {Name: "a", Partitions: 1}}, o.err
}

func (o *fakeOperations) ValidateBlueprint(_ context.Context, r pipeline.BlueprintRequest) (pipeline.BlueprintReport, error) {
	return pipeline.BlueprintReport{Valid: r.Blueprint != "", Problems: []pipeline.BlueprintProblem{{Line: 1, Message: "x"}}}, o.err
}

func (o *fakeOperations) TryBlueprint(_ context.Context, r pipeline.TryRequest) (pipeline.TryReport, error) {
	return pipeline.TryReport{Results: []pipeline.TryResult{{Outcome: "row", Row: r.Event, Columns: []pipeline.TryColumn{{Name: "a", Type: "STRING"}}}}}, o.err
}

func (o *fakeOperations) RecentEvents(_ context.Context, _ string, limit int) ([]pipeline.RecentEvent, error) {
	if limit == 77 {
		return nil, errors.New("no broker answers; start one")
	}
	return []pipeline.RecentEvent{{Topic: "t", Event: json.RawMessage(`{"type":"page"}`)}}, o.err
}
