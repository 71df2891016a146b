package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/webhook"
	"github.com/datafly/bridge/zerobus/emulator"
)

// site is a deployment whose integrations are installed.
type site struct {
	*stage
	key, file string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{stage: newStage(t), key: filepath.Join(t.TempDir(), "store.key"), file: filepath.Join(t.TempDir(), "config.yaml")}
	s.write(s.key, strings.Repeat("k", store.KeyBytes))
	return s
}

func (s *site) write(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// load loads the deployment: it has a store and, without sets, no integration.
func (s *site) load(sets ...string) *config.Deployment {
	s.t.Helper()
	d, err := config.LoadDeployment(config.Options{File: s.file, Sets: append([]string{"kafka.brokers=" + strings.Join(s.kafka.Addrs(), ","),
		"store.enabled=true", "store.keys=" + s.key, "deployment=" + s.topic, "delivery.drain=2s", "ops.address=127.0.0.1:0", "kafka.protocol=consumer"}, sets...)})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// member starts a member; stop stops it.
func (s *site) member(sets ...string) (a *App, logs *observer.ObservedLogs, stop func()) {
	s.t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	a, end := s.start(Options{Deployment: s.load(sets...), Log: zap.New(core), Version: "test"})
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			end()
		}
	}
	s.t.Cleanup(stop)
	return a, logs, stop
}

// request installs an integration from the topic of a lane to its table.
func (l *lane) request() manage.Request {
	_, table, _ := strings.Cut(l.table, ".events.")
	return manage.Request{Name: l.name, Variant: "default", DeliveryMode: "server_side", Source: store.Values{"topics": []any{l.topic}, "group": l.topic},
		Config: store.Values{"workspace_url": l.ws.URL(), "client_id": emulator.DefaultClientID, "client_secret": emulator.DefaultClientSecret, "catalog": "datafly", "schema": "events", "table": table}}
}

var requests int

func who() manage.Who {
	requests++
	return manage.Who{By: "ann", RequestID: fmt.Sprint("req_", requests), Reason: "as asked"}
}

// install installs the integration of a lane through a member.
func (s *site) install(a *App, l *lane) manage.Integration {
	s.t.Helper()
	result, err := a.installed.manager.Install(s.t.Context(), l.request(), who(), false)
	if err != nil {
		s.t.Fatal(explained(err))
	}
	return result.Integration
}

// update changes an integration through a member.
func (s *site) update(a *App, slug string, p manage.Patch) {
	s.t.Helper()
	if _, err := a.installed.manager.Update(s.t.Context(), slug, p, 0, who(), false); err != nil {
		s.t.Fatal(explained(err))
	}
}

// explained adds what is wrong with the fields of a request.
func explained(err error) error {
	if e, ok := err.(*manage.Error); ok { //nolint:errorlint // of this call
		return fmt.Errorf("%w %v %s", err, e.Fields, e.Remedy)
	}
	return err
}

func (s *site) all(what string, apps []*App, holds func(*App) bool) {
	s.t.Helper()
	s.eventually(what, func() bool { return !slices.ContainsFunc(apps, func(a *App) bool { return !holds(a) }) })
}

func ready(slug string) func(*App) bool { return func(a *App) bool { return a.of(slug).Ready } }

func runs(slug, state string) func(*App) bool {
	return func(a *App) bool { return a.of(slug).State == state }
}

// What is installed through one member runs on all of them, and follows each change:
// blueprint, table, disable, enable, remove. The loss of the topic changes nothing.
func TestInstalledIntegrationsRunOnEachMember(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	one, logs, _ := s.member("zerobus.columns_refresh=24h")
	two, _, stopTwo := s.member("zerobus.columns_refresh=24h")
	both := []*App{one, two}
	s.all("the store known", both, func(a *App) bool { return a.Status().Store.Known && a.Status().Store.Problem == nil })
	if got := one.Status(); !got.Ready || len(got.NotReady) != 1 || got.NotReady[0].Code != "no_integration" || !strings.Contains(got.NotReady[0].Remedy, "install") {
		t.Errorf("without integrations: got ready %v, %+v; want it ready, with the reason", got.Ready, got.NotReady)
	}
	installed := s.install(one, l)
	s.all("both run it", both, ready("web"))
	if got := one.of("web").Name; got != "web" {
		t.Errorf("got name %q", got)
	}
	l.produce(20)
	l.complete()
	s.eventually("the state of both", func() bool {
		i, err := two.installed.manager.Get(t.Context(), installed.ID)
		return err == nil && i.Observed.Members == 2 && (i.Observed.State == ops.VerdictDelivering || i.Observed.State == ops.VerdictIdle)
	})

	// The table gets the column just before: it is read again for the blueprint.
	moved := s.newTable("moved")
	for _, table := range []string{l.table, moved} {
		if err := s.ws.Table(table).AddColumn(emulator.Column{Name: "coupon", Type: "STRING"}); err != nil {
			t.Fatal(err)
		}
	}
	blueprint := "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: anonymous_id, target: locale}\n    - {source: properties.coupon, target: coupon}\n"
	s.eventually("the partitions divided", func() bool {
		first, second := len(one.of("web").Partitions), len(two.of("web").Partitions)
		return first > 0 && second > 0 && first+second == 3
	})
	before := s.groups(l)
	s.update(two, "web", manage.Patch{Blueprint: &blueprint})
	s.all("the blueprint", both, func(a *App) bool {
		return slices.ContainsFunc(a.integrations.Status(), func(i integrations.Status) bool { return settingsOf(i).Mapping.BlueprintText == blueprint })
	})
	l.produce(1)
	l.complete()
	if got, _ := s.ws.Table(l.table).Newest(1)[0].Value("locale"); got != "a" {
		t.Errorf("got locale %q, want that of the new blueprint", got)
	}
	s.unchanged("a blueprint was changed", before, l)

	s.update(one, "web", manage.Patch{Config: store.Values{"table": "moved"}})
	s.all("the other table", both, func(a *App) bool { return a.of("web").Table == moved && a.of("web").Ready })
	l.produce(20)
	l.complete(l.table, moved)

	off, on := false, true
	s.update(two, "web", manage.Patch{Enabled: &off})
	s.all("disabled", both, runs("web", ops.StateDisabled))
	l.produce(20)
	s.update(one, "web", manage.Patch{Enabled: &on})
	l.complete(l.table, moved)
	s.all("enabled", both, ready("web"))

	topic := one.Status().Store.Topic
	if _, err := kadm.NewClient(s.client).DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	s.all("the loss noticed", both, func(a *App) bool { p := a.Status().Store.Problem; return p != nil && p.Code == store.Missing })
	l.produce(20)
	l.complete(l.table, moved)
	s.all("it runs on", both, ready("web"))
	if !strings.Contains(s.get(one, "/metrics"), "\nbridge_store_ok 0\n") {
		t.Error("bridge_store_ok is not 0")
	}
	if _, err := one.installed.manager.Update(t.Context(), "web", manage.Patch{Enabled: &off}, 0, who(), false); err == nil {
		t.Error("a change was taken without a store")
	}
	stopTwo()
	l.produce(20)
	l.complete(l.table, moved)
	if got := logs.FilterMessage("integration removed; its group and its dead letters remain").Len(); got != 0 {
		t.Errorf("got %d removals, want none", got)
	}
}

// A member that starts finds what is installed. A removed integration drains, and nothing
// of it is left but its group.
func TestInstalledIntegrationsAreFoundAndRemoved(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	a, _, stop := s.member()
	s.install(a, l)
	s.eventually("it runs", func() bool { return a.of("web").Ready })
	l.produce(10)
	l.complete()
	stop()
	l.produce(10)

	a, logs, _ := s.member()
	l.complete()
	s.eventually("it runs again", func() bool { return a.of("web").Ready })
	if _, err := a.installed.manager.Remove(t.Context(), "web", 0, who(), false); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is gone", func() bool { return a.of("web").State == "" })
	if strings.Contains(s.get(a, "/metrics"), `integration="web"`) {
		t.Error("/metrics still has it")
	}
	s.eventually("a line about it", func() bool {
		return logs.FilterMessage("integration removed; its group and its dead letters remain").Len() == 1
	})
}

// Files run without the store, and win over it. An error of `default` does not end a
// process to which others can be added.
func TestFilesAndTheStore(t *testing.T) {
	s := newSite(t)
	web := s.lane("web")
	a, _, stop := s.member()
	s.install(a, web)
	s.eventually("it runs", func() bool { return a.of("web").Ready })
	stop()

	file := s.lane("of_a_file")
	ofFile := func(name, group string, l *lane) {
		s.write(s.file, fmt.Sprintf("zerobus: {workspace_url: %s, client_id: %s, client_secret: %s}\nintegrations:\n  %s: {kafka: {topics: [%s], group: %s}, zerobus: {table: %s}}\n",
			s.ws.URL(), emulator.DefaultClientID, emulator.DefaultClientSecret, name, l.topic, group, l.table))
	}
	reload := func() {
		t.Helper()
		if changed, _, err := a.reload(t.Context(), s.load(), true); err != nil || len(changed) == 0 {
			t.Fatalf("got %q, %v", changed, err)
		}
	}
	ofFile("web", file.topic, file)
	a, logs, stop := s.member()
	s.eventually("that of the file runs", func() bool { return a.of("web").Ready && a.Status().Store.Known })
	if got := a.Status(); got.Integrations[0].Table != file.table || len(got.Store.Shadowed) != 1 || got.Store.Shadowed[0].Integration != "web" || got.Store.Shadowed[0].ID == "" || got.Store.Shadowed[0].Table == file.table || got.Store.Integrations != 1 {
		t.Errorf("got %s and %+v, want that of the file, and the other shadowed", got.Integrations[0].Table, got.Store)
	}
	// The file is taken away: that of the store comes back.
	s.write(s.file, "")
	reload()
	s.eventually("that of the store runs", func() bool { return a.of("web").Table == web.table && a.of("web").Ready })
	// Another one of a file that writes the same topic to the same table stops it.
	ofFile("twin", web.topic+"-twin", web)
	reload()
	s.eventually("it is blocked", func() bool {
		i := a.of("web")
		return i.State == ops.StateBlocked && strings.Contains(i.Reason, "twin") && len(i.NotReady) == 1 && i.Verdict.State == ops.VerdictBlocked && a.of("twin").Ready
	})
	if metrics := s.get(a, "/metrics"); !strings.Contains(metrics, `bridge_integration_state{integration="web",state="blocked"} 1`) || !strings.Contains(metrics, `bridge_ready{integration="web"} 0`) {
		t.Error("/metrics does not have it blocked")
	}
	s.write(s.file, "")
	reload()
	s.eventually("it runs again", func() bool { return a.of("web").Ready })
	for _, line := range []string{"installed integration blocked", "installed integration no longer blocked"} {
		if got := logs.FilterMessage(line).Len(); got != 1 {
			t.Errorf("got %d lines %q, want 1", got, line)
		}
	}
	s.eventually("one removal, of the twin", func() bool {
		removed := logs.FilterMessage("integration removed; its group and its dead letters remain").All()
		return len(removed) == 1 && removed[0].ContextMap()["integration"] == "twin"
	})
	stop()

	// Without its key, and with `default` refused for good, the process continues.
	s.write(s.key, strings.Repeat("x", store.KeyBytes))
	a, _, _ = s.member("kafka.topics="+s.topic, "zerobus.workspace_url="+s.ws.URL(), "zerobus.client_id=x", "zerobus.client_secret=wrong", "zerobus.table="+tableName)
	s.eventually("both in trouble", func() bool {
		return a.of("default").State == ops.StateFailed && a.of("web").State == ops.StateBlocked && a.of("web").Table == web.table
	})
	if got := a.Status(); got.Ready || len(got.NotReady) != 2 || !strings.Contains(a.of("web").Reason, "key") {
		t.Errorf("got ready %v, %+v; want both named", got.Ready, got.NotReady)
	}
	s.write(s.key, strings.Repeat("k", store.KeyBytes))
	s.eventually("the key is back", func() bool { return a.of("web").Ready })
}

// Installed integrations take over what the base gives all integrations, as those of files.
func TestInstalledIntegrationsFollowTheBase(t *testing.T) {
	s := newSite(t)
	a, _, _ := s.member()
	s.install(a, s.lane("web"))
	s.eventually("it runs", func() bool { return a.of("web").Ready })
	s.write(s.file, "zerobus: {timeout: 7s}\n")
	if _, pending, err := a.reload(t.Context(), s.load(), true); err != nil || len(pending) > 0 {
		t.Fatalf("got %q pending, %v", pending, err)
	}
	s.eventually("it runs with the timeout of the base", func() bool {
		all := a.integrations.Status()
		return len(all) == 1 && settingsOf(all[0]).Zerobus.Timeout == 7*time.Second && a.of("web").Ready
	})
	before := a.deployment.Load().Base
	if _, _, err := a.reload(t.Context(), s.load(), true); err != nil || a.deployment.Load().Base != before {
		t.Errorf("got %v and another base, want the same after the same configuration", err)
	}
}

// A record of a newer version keeps what was known of its integration, also after a
// downgrade and a restart, and cannot be changed by this one.
func TestRecordsOfANewerVersion(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	a, _, stop := s.member()
	s.install(a, l)
	s.eventually("it runs", func() bool { return a.of("web").Ready })
	topic := a.Status().Store.Topic
	newer := &kgo.Record{Topic: topic, Key: []byte("integration/web"), Value: []byte(`{"format":99,"slug":"web","id":"int_aaaaaaaaaaaa","name":"web","enabled":false,"revision":2,"shards":7}`)}
	if err := s.client.ProduceSync(t.Context(), newer).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.eventually("the record is ignored", func() bool { got := a.Status().Store; return got.Ignored == 1 && len(got.Notes) == 1 })
	l.produce(10)
	l.complete()
	if got := a.Status().Store; !a.of("web").Ready || got.Integrations != 1 || got.Problem != nil {
		t.Errorf("got %+v, want the integration to run as it was known", got)
	}
	stop()
	a, _, _ = s.member()
	s.eventually("the record is shown", func() bool { got := a.Status().Store; return got.Known && got.Ignored == 1 })
	s.eventually("it runs as the topic had it before", func() bool { return a.of("web").Ready })
	if _, err := a.installed.manager.Update(t.Context(), "web", manage.Patch{Enabled: new(false)}, 0, who(), false); err == nil || !strings.Contains(explained(err).Error(), "newer") {
		t.Errorf("got %v, want a change of the newer record refused", err)
	}
}

// While no broker answers, files have their turn, and the store is reported.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	s := newSite(t)
	nobody := freeAddress(t)
	a, _, stop := s.member("kafka.brokers=" + nobody)
	s.eventually("the store unreachable", func() bool { p := a.Status().Store.Problem; return p != nil && p.Code == store.Unreachable })
	if got := a.Status(); got.Ready || got.Store.Known || got.NotReady[0].Code != "store_not_read" {
		t.Errorf("got ready %v, %+v; want it not ready: nothing is known", got.Ready, got.NotReady)
	}
	stop()
	core, _ := observer.New(zap.InfoLevel)
	bounded := s.integration("default", s.topic, tableName, "store.enabled=true")
	if a, err := New(t.Context(), Options{Deployment: deployment(bounded), Log: zap.New(core), Version: "test", Range: pipeline.Range{Until: &kafka.Position{}}}); err != nil || a.Status().Store != nil || a.Close(context.WithoutCancel(t.Context())) != nil {
		t.Errorf("a bounded run: got %v and a store, want none", err)
	}
}

// The install API is served where admin.enabled, with the console and the live data, and
// ends with the process.
func TestAdminListener(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	a, _, stop := s.member("admin.enabled=true", "admin.address=127.0.0.1:0")
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.AdminAddr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	s.eventually("the store", func() bool { return a.Status().Store.Known && a.Status().Store.Problem == nil })
	body := fmt.Sprintf(`{"name":"web","variant":"default","config":{"workspace_url":%q,"client_id":%q,"client_secret":%q,"catalog":"datafly","schema":"events","table":"web"},"delivery_mode":"server_side","source":{"topics":[%q]}}`,
		s.ws.URL(), emulator.DefaultClientID, emulator.DefaultClientSecret, l.topic)
	if status, text := call(http.MethodPost, "/v1/admin/integration-catalog/databricks_zerobus/install", body); status != http.StatusCreated {
		t.Fatalf("got %d: %s", status, text)
	}
	l.produce(5)
	l.complete()
	for path, want := range map[string]string{"/v1/admin/integrations/web": `"members":1`, "/": "<html", "/live/status": `"integrations"`, "/v1/admin/topics": l.topic} {
		s.eventually(path, func() bool {
			status, text := call(http.MethodGet, path, "")
			return status == http.StatusOK && strings.Contains(strings.ReplaceAll(text, `": `, `":`), want)
		})
	}
	address := a.AdminAddr()
	taken, err := New(t.Context(), Options{Deployment: s.load("admin.enabled=true", "admin.address="+address), Log: zap.NewNop(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "starting the install API: listening on admin.address "+address) {
		t.Errorf("got %v, want the address in use", err)
	}
	if err := taken.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	stop()
}

// A fault of the program in what is installed leaves what runs as it is.
func TestPanicOverTheStore(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	a, logs, stop := s.member()
	s.install(a, l)
	s.eventually("it runs", func() bool { return a.of("web").Ready })
	stop()
	a.installed.manager = nil
	a.follow(t.Context(), false)
	if got := logs.FilterMessage("installed integrations not followed").Len(); got != 1 {
		t.Errorf("got %d lines about the panic, want 1", got)
	}
	if _, _, err := a.reload(t.Context(), s.load(), true); err == nil || !strings.Contains(err.Error(), "what runs stays") {
		t.Errorf("a reload: got %v, want it refused", err)
	}
	if got := len(a.integrations.Status()); got != 1 {
		t.Errorf("got %d integrations, want the one of before", got)
	}
}

// A change of the state is reported by each member, and the state is that of the group.
func TestStatesOfInstalledIntegrations(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	messages := make(chan webhook.Message, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m webhook.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Header.Get(webhook.SignatureHeader) == "" {
			t.Errorf("got %v and signature %q", err, r.Header.Get(webhook.SignatureHeader))
		}
		messages <- m
	}))
	defer receiver.Close()
	url := filepath.Join(t.TempDir(), "url")
	s.write(url, receiver.URL)
	addresses := []string{freeAddress(t), freeAddress(t)}
	peers := "ops.peers=" + strings.Join(addresses, ",")
	one, logs, _ := s.member(peers, "ops.address="+addresses[0], "webhook.url_file="+url, "webhook.secret_file="+s.key)
	two, _, _ := s.member(peers, "ops.address="+addresses[1], "webhook.url_file="+url, "webhook.secret_file="+s.key)
	s.install(one, l)
	observed := func() manage.Observed { return managed{one}.Observed(t.Context(), "web") }
	s.eventually("both answer", func() bool { o := observed(); return o.Members == 2 && o.Answering == 2 && o.State == ops.VerdictIdle })
	if _, err := s.ws.AddFault(emulator.Fault{Endpoint: emulator.EndpointIngest, Table: l.table, Effect: emulator.EffectStatus, Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	l.produce(50)
	s.eventually("it is blocked", func() bool { o := observed(); return o.State == ops.VerdictBlocked && o.Remedy != "" })
	select {
	case m := <-messages:
		if m.Integration != "web" || m.State != ops.VerdictBlocked || m.Deployment != s.topic || m.Instance != one.instance && m.Instance != two.instance || m.Reason == "" || m.Remedy == "" {
			t.Errorf("got %+v", m)
		}
	case <-time.After(await.Limit(t)):
		t.Fatal("no message")
	}
	s.eventually("it is counted", func() bool { return one.Status().Webhook.Sent+two.Status().Webhook.Sent > 0 }) // by the member that has the events
	s.ws.ClearFaults()
	l.complete()
	s.update(one, "web", manage.Patch{Enabled: new(false)})
	s.eventually("disabled", func() bool { return observed().State == ops.VerdictDisabled })
	if got := observed(); got.Members != 0 {
		t.Errorf("got %+v, want no member", got)
	}
	if got := logs.FilterMessageSnippet("webhook").Len(); got != 0 {
		t.Errorf("got %d lines about the webhook, want none", got)
	}
}

// The step `store` of a check reports what is installed, what of it cannot run, and what
// is wrong with the topic.
func TestCheckOfTheStore(t *testing.T) {
	s := newSite(t)
	l := s.lane("web")
	step := func() pipeline.CheckStep {
		t.Helper()
		c := &pipeline.Check{Timeout: time.Minute}
		CheckStore(t.Context(), c, s.load(), true, "test", zap.NewNop())
		if len(c.Steps) != 1 || c.Steps[0].Step != "store" {
			t.Fatalf("got %+v, want the step store", c.Steps)
		}
		return c.Steps[0]
	}
	if got := step(); got.Status != pipeline.StepOK || !strings.HasPrefix(got.Detail, "0 installed integrations in "+s.topic) {
		t.Errorf("before the first: got %+v", got)
	}
	a, _, stop := s.member()
	s.install(a, l)
	stop()
	if got := step(); got.Status != pipeline.StepOK || !strings.HasPrefix(got.Detail, "1 installed integration in ") {
		t.Errorf("got %+v, want one integration", got)
	}
	s.write(s.key, strings.Repeat("x", store.KeyBytes))
	if got := step(); got.Status != pipeline.StepWarning || !strings.Contains(got.Warning, "integration web cannot run") {
		t.Errorf("with another key: got %+v, want the integration named", got)
	}
	policy := "delete"
	if _, err := kadm.NewClient(s.client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &policy}}, s.topic+"-integrations"); err != nil {
		t.Fatal(err)
	}
	if got := step(); got.Status != pipeline.StepFailed || !strings.Contains(got.Error, "cleanup.policy") {
		t.Errorf("with a policy: got %+v, want it refused", got)
	}
	c := &pipeline.Check{}
	if CheckStore(t.Context(), c, config.Single(l.spec().Config), true, "test", zap.NewNop()); len(c.Steps) != 0 {
		t.Errorf("without a store: got %+v, want no step", c.Steps)
	}
}
