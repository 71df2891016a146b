package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "YOUR_CLIENT_SECRET"

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

// rig is an API with its parts.
type rig struct {
	*API
	manager Manager
	ops     *fakeOperations
	logs    *observer.ObservedLogs
	log     *zap.Logger
}

var theDocument = sync.OnceValue(func() *documentOf { return newDocument(&testing.T{}) })

// newRig returns an API. change may alter its configuration.
func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{manager: newFakeManager(), ops: &fakeOperations{}, logs: logs, log: zap.New(core)}
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

// install installs an integration and returns it.
func (r *rig) install(t testing.TB, name string) manage.Integration {
	t.Helper()
	w := r.send(t, "POST", installPath, strings.Replace(pageBody, "Databricks (Zerobus Ingest)", name, 1))
	var got manage.Result
	if decode(t, w, &got); w.Code != http.StatusCreated {
		t.Fatalf("installing %s: got %d %s", name, w.Code, w.Body)
	}
	return got.Integration
}

// fakeManager keeps integrations in memory.
type fakeManager struct {
	mu    sync.Mutex
	all   map[string]manage.Integration // by slug
	done  map[string]manage.Result      // by request id
	audit []store.Entry                 // oldest first
}

func newFakeManager() *fakeManager {
	return &fakeManager{all: map[string]manage.Integration{}, done: map[string]manage.Result{}}
}

func (m *fakeManager) Catalog() ([]catalog.Vendor, error) { return catalog.Vendors("") }

func (m *fakeManager) List(context.Context) ([]manage.Integration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.all)), nil
}

func (m *fakeManager) Get(_ context.Context, id string) (manage.Integration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(id)
}

func (m *fakeManager) get(id string) (manage.Integration, error) {
	for _, i := range m.all {
		if i.ID == id || i.Slug == id {
			return i, nil
		}
	}
	return manage.Integration{}, &manage.Error{Code: manage.NotFound, Message: "there is no integration " + id, Remedy: "list them"}
}

func (m *fakeManager) Install(_ context.Context, r manage.Request, w manage.Who, dryRun bool) (manage.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if again, ok := m.done[w.RequestID]; ok {
		return again, nil
	}
	if r.Name == "" {
		return manage.Result{}, &manage.Error{Code: manage.ValidationFailed, Message: "name is missing", Fields: []manage.FieldError{{Field: "name", Message: "is missing"}}}
	}
	slug := strings.Trim(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return '-'
	}, strings.ToLower(r.Name)), "-")
	if _, taken := m.all[slug]; taken {
		return manage.Result{}, &manage.Error{Code: manage.NameTaken, Message: "the name is taken"}
	}
	i := manage.Integration{ID: fmt.Sprintf("int_%012d", len(m.all)+1), Slug: slug, Name: r.Name, Vendor: catalog.Key, Variant: r.Variant, Enabled: true, Revision: 1, ManagedBy: "store", DeliveryMode: "server_side",
		Config: map[string]any{}, Source: store.Values{}, Meta: store.Meta{By: w.By, RequestID: w.RequestID, Reason: w.Reason}}
	maps.Copy(i.Config, r.Config)
	i.Config["client_secret"] = map[string]any{"set": true, "fingerprint": "ab12cd34"}
	return m.keep(i, "integration.installed", w, dryRun), nil
}

func (m *fakeManager) keep(i manage.Integration, action string, w manage.Who, dryRun bool) manage.Result {
	result := manage.Result{Integration: i, DryRun: dryRun, Changes: map[string]store.Changed{"name": {New: i.Name}}, Action: "start"}
	if !dryRun {
		m.all[i.Slug], m.done[w.RequestID] = i, result
		m.audit = append(m.audit, store.Entry{ID: fmt.Sprintf("log_%012d", len(m.audit)+1), Action: action, By: w.By, ResourceType: "integration", ResourceID: i.ID, Revision: i.Revision, Changes: result.Changes, RequestID: w.RequestID, Reason: w.Reason})
	}
	return result
}

func (m *fakeManager) Update(_ context.Context, id string, p manage.Patch, revision int64, w manage.Who, dryRun bool) (manage.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.get(id)
	if err != nil {
		return manage.Result{}, err
	}
	if revision > 0 && revision != i.Revision {
		return manage.Result{}, &manage.Error{Code: manage.RevisionMismatch, Message: "the integration has another revision"}
	}
	if p.Name != nil {
		i.Name = *p.Name
	}
	if p.Enabled != nil {
		i.Enabled = *p.Enabled
	}
	i.Revision++
	return m.keep(i, "integration.updated", w, dryRun), nil
}

func (m *fakeManager) Remove(_ context.Context, id string, revision int64, w manage.Who, dryRun bool) (manage.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.get(id)
	if err != nil {
		return manage.Result{}, err
	}
	if revision > 0 && revision != i.Revision {
		return manage.Result{}, &manage.Error{Code: manage.RevisionMismatch, Message: "the integration has another revision"}
	}
	r := m.keep(i, "integration.removed", w, dryRun)
	if !dryRun {
		delete(m.all, i.Slug)
	}
	return r, nil
}

func (m *fakeManager) Check(ctx context.Context, id string, _ *manage.Patch, step func(pipeline.CheckStep)) error {
	if _, err := m.Get(ctx, id); err != nil {
		return err
	}
	step(pipeline.CheckStep{Step: "kafka", Status: pipeline.StepOK, Detail: "cluster <b>x</b>"})
	step(pipeline.CheckStep{Step: "table", Status: pipeline.StepFailed, Error: "no such table"})
	return ctx.Err()
}

func (m *fakeManager) CheckRequest(ctx context.Context, _ manage.Request, step func(pipeline.CheckStep)) error {
	step(pipeline.CheckStep{Step: "kafka", Status: pipeline.StepOK})
	return ctx.Err()
}

func (m *fakeManager) Revisions(ctx context.Context, id string) ([]store.Entry, error) {
	i, err := m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	all, err := m.Audit(ctx, "", 1000)
	return slices.DeleteFunc(all, func(e store.Entry) bool { return e.ResourceID != i.ID }), err
}

func (m *fakeManager) Audit(_ context.Context, before string, limit int) ([]store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.audit)
	slices.Reverse(all)
	all = slices.DeleteFunc(all, func(e store.Entry) bool { return before != "" && e.ID >= before })
	return all[:min(limit, len(all))], nil
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
	if limit == 1 {
		return nil, errors.New("no broker answers; start one")
	}
	return []pipeline.RecentEvent{{Topic: "t", Event: json.RawMessage(`{"type":"page"}`)}}, o.err
}
