package manage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// preparation asks for a table that does not exist.
func (s *site) preparation(token string) manage.PrepareRequest {
	r := manage.PrepareRequest{Request: s.request("web"), Token: "", WarehouseID: ""}
	r.Config["catalog"], r.Config["schema"], r.Config["table"] = "shop", "raw", "orders"
	if err := json.Unmarshal([]byte(`{"token": `+text(s.t, token)+`}`), &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// prepared runs a preparation, and returns what was sent of each statement.
func (s *site) prepared(r manage.PrepareRequest, dryRun bool) (got manage.Prepared, steps []string, err error) {
	s.t.Helper()
	got, err = s.Prepare(s.within(), r, who("prepare"), dryRun, func(i setup.Item) {
		first, _, _ := strings.Cut(i.Statement, "\n")
		steps = append(steps, i.State+" "+first)
	})
	said := fmt.Sprintf("%s %+v %v %s %v %v", text(s.t, got), got, err, refusal(err).Remedy, refusal(err).Fields, steps)
	for _, hidden := range []string{secret, emulator.DefaultAdminToken, "wrong-token", "--", "DATABRICKS_TOKEN", "zerobus."} {
		if strings.Contains(said, hidden) {
			s.t.Errorf("%q is repeated in %s", hidden, said)
		}
	}
	return got, steps, err
}

// entries are those of preparations in the audit log.
func (s *site) entries() (all []store.Entry) {
	s.t.Helper()
	found, err := s.Audit(s.within(), "", 100)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range found {
		if said := text(s.t, e); strings.Contains(said, emulator.DefaultAdminToken) || strings.Contains(said, secret) {
			s.t.Errorf("the audit log holds a secret: %s", said)
		}
		if e.Action == manage.ActionPrepared {
			all = append(all, e)
		}
	}
	return all
}

func planned(p manage.Prepared) string {
	var all []string
	for _, i := range p.Plan {
		all = append(all, i.State)
	}
	return strings.Join(all, ", ")
}

func noCreate(c *emulator.Config) { c.NoCreate = true }

// The service principal may not create; with the token of an administrator the table is
// made, and the integration works.
func TestPrepare(t *testing.T) {
	s := newSite(t, noCreate)
	s.create("events-web")
	got, steps, err := s.prepared(s.preparation(""), true)
	if err != nil || !got.OK || !got.DryRun || got.Executed || len(steps) > 0 || planned(got) != "will run, will run, will run, will run, will run, will run" || got.Table != "shop.raw.orders" ||
		len(got.Warehouses) != 1 || got.Warehouses[0].Size != "2X-Small" || got.Warehouse.ID != got.Warehouses[0].ID {
		t.Fatalf("dry run: got %+v, %v, %v", got, steps, err)
	}
	if s.ws.Table("shop.raw.orders") != nil || len(s.entries()) > 0 {
		t.Error("the dry run changed something")
	}

	got, steps, err = s.prepared(s.preparation(""), false)
	if err != nil || got.OK || got.Changed || !slices.Equal(steps, []string{"started CREATE CATALOG IF NOT EXISTS `shop`;", "failed CREATE CATALOG IF NOT EXISTS `shop`;"}) ||
		!strings.Contains(got.Error, "lacks CREATE CATALOG on METASTORE") || !strings.Contains(got.Error, "give the token of a principal that may") || got.Plan[0].Error != got.Error {
		t.Fatalf("as the service principal: got %+v, %q, %v", got, steps, err)
	}

	got, steps, err = s.prepared(s.preparation(" "+emulator.DefaultAdminToken+" "), false)
	if err != nil || !got.OK || !got.Changed || got.Error != "" || planned(got) != "done, done, done, done, done, done" || len(steps) != 12 || got.RunBy != "the principal of the token" {
		t.Fatalf("with the token: got %+v, %q, %v", got, steps, err)
	}
	for n := 0; n < len(steps); n += 2 {
		_, first, _ := strings.Cut(steps[n], " ")
		if steps[n] != "started "+first || steps[n+1] != "done "+first {
			t.Errorf("got the steps %q, want each statement started and done", steps)
		}
	}
	all := s.entries()
	if len(all) != 2 || all[0].By != "ann" || all[0].ResourceType != "workspace" || all[0].ResourceID != "shop.raw.orders" || all[0].Changes["workspace_url"].New != s.ws.URL() ||
		!strings.Contains(text(t, all[0].Changes["statements"].New), "done: GRANT ") || !strings.Contains(text(t, all[1].Changes["statements"].New), "failed: CREATE CATALOG") {
		t.Errorf("got the audit entries %s", text(t, all))
	}

	result, err := s.Install(s.within(), s.preparation("").Request, who("install"), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Checks {
		if c.Status != pipeline.StepOK {
			t.Errorf("after the preparation: got %+v", c)
		}
	}
	got, steps, err = s.prepared(s.preparation(emulator.DefaultAdminToken), false)
	if err != nil || !got.OK || got.Changed || len(steps) > 0 || len(s.entries()) != 2 {
		t.Errorf("again: got %+v, %q, %v, want nothing changed", got, steps, err)
	}
}

// What is wrong with a request is named at its field.
func TestPrepareRefusals(t *testing.T) {
	s := newSite(t)
	stopped := []emulator.Warehouse{{ID: "a", Name: "Alpha", State: "STOPPED"}, {ID: "b", Name: "Beta", State: "STOPPED"}}
	running := []emulator.Warehouse{stopped[0], {ID: "c", Name: "Gamma"}}
	named := func(id string) manage.PrepareRequest {
		r := s.preparation("")
		r.WarehouseID = id
		return r
	}
	for name, tc := range map[string]struct {
		warehouses []emulator.Warehouse
		r          manage.PrepareRequest
		dryRun     bool
		field      string
		message    string // in it, or the name of the warehouse
	}{
		"wrong token":       {running, s.preparation("wrong-token"), true, "token", "create another"},
		"odd token":         {running, s.preparation("a\u0001b"), true, "token", "control characters"},
		"long token":        {running, s.preparation(strings.Repeat("x", 5000)), true, "token", "more than 4096"},
		"none runs":         {stopped, s.preparation(""), false, "warehouse_id", "choose one of a (Alpha, stopped, 2X-Small), b (Beta, stopped, 2X-Small)"},
		"none runs, a plan": {stopped, s.preparation(""), true, "", "choose one of a (Alpha"},
		"one runs":          {running, s.preparation(""), true, "", "Gamma"},
		"named":             {running, named("a"), true, "", "Alpha"},
		"unknown":           {running, named("z"), true, "warehouse_id", "warehouse_id z"},
		"odd id":            {running, named("a\nb"), true, "warehouse_id", "control characters"},
		"none":              {nil, s.preparation(""), true, "", "may use no SQL warehouse"},
	} {
		if err := s.ws.SetWarehouses(tc.warehouses...); err != nil {
			t.Fatal(err)
		}
		got, _, err := s.prepared(tc.r, tc.dryRun)
		said := got.NoWarehouse
		if got.Warehouse != nil {
			said += got.Warehouse.Name
		}
		if err != nil {
			said = refusal(err).Message
		}
		if tc.field != "" && !slices.Equal(fields(err), []string{tc.field}) || tc.field == "" && err != nil || !strings.Contains(said, tc.message) && !strings.Contains(refusal(err).Remedy, tc.message) {
			t.Errorf("%s: got %+v, %v, want %s %q", name, got, err, tc.field, tc.message)
		}
	}
	if s.ws.Table("shop.raw.orders") != nil || len(s.entries()) > 0 {
		t.Error("a refused request changed something")
	}
	if err := s.ws.SetWarehouses(); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.prepared(s.preparation(""), false); err != nil || got.OK || !strings.Contains(got.Error, "run the statements in the SQL editor, or set warehouse_id") {
		t.Errorf("without a warehouse: got %+v, %v", got, err)
	}
	bad := s.preparation("")
	bad.Config["client_secret"] = "old"
	if _, _, err := s.prepared(bad, true); code(t, err) != manage.ValidationFailed || !strings.Contains(err.Error(), "client secret is wrong") {
		t.Errorf("with an old secret: got %v", err)
	}
}

// front is a workspace in front of the emulator, which may answer on its own.
func (s *site) front(answer func(http.ResponseWriter, *http.Request) bool) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r) {
			s.ws.Handler().ServeHTTP(w, r)
		}
	}))
	s.t.Cleanup(server.Close)
	return server
}

// A token goes to the host of the workspace alone: another host is refused before anything
// is sent, and a redirect is not followed.
func TestPrepareSendsTheTokenToTheWorkspaceAlone(t *testing.T) {
	s := newSite(t)
	var dialed, reached atomic.Int32
	network := zerobus.Network{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	c := s.files.Load().Base
	st := store.New(store.Options{Topic: c.Store.Topic, Connection: (&consumer.Config{Kafka: c.Kafka}).Connection(), Log: zap.NewNop()})
	t.Cleanup(st.Close)
	s.Manager = manage.New(manage.Options{Store: st, Files: s.files.Load, Version: "test", Connections: network.Connections()})
	for _, url := range []string{"https://evil.example", "https://cloud.databricks.com.evil.example", "https://abc.cloud.databricks.com@evil.example", "http://evil.example"} {
		r := s.preparation(emulator.DefaultAdminToken)
		r.Config["workspace_url"] = url
		if _, _, err := s.prepared(r, false); !slices.Contains(fields(err), "config.workspace_url") || dialed.Load() != 0 {
			t.Errorf("%s: got %v after %d connections, want it refused before", url, err, dialed.Load())
		}
	}
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(other.Close)
	r := s.preparation(emulator.DefaultAdminToken)
	r.Config["workspace_url"] = s.front(func(w http.ResponseWriter, r *http.Request) bool {
		redirect := r.Header.Get("Authorization") == "Bearer "+emulator.DefaultAdminToken
		if redirect {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}
		return redirect
	}).URL
	if got, _, err := s.prepared(r, false); code(t, err) != manage.Unavailable || reached.Load() != 0 || dialed.Load() == 0 {
		t.Errorf("got %+v, %v and %d requests elsewhere, want none", got, err, reached.Load())
	}
}

// One preparation runs at a time. It ends with its client or after its time, is in the audit
// log, and the warehouse is asked to cancel the statement.
func TestPrepareEnds(t *testing.T) {
	for _, name := range []string{"client", "time"} {
		s := newSite(t, func(c *emulator.Config) {
			c.Warehouses = []emulator.Warehouse{{ID: "slow", State: "STOPPED", StartUp: emulator.Duration(time.Hour)}}
		})
		ctx, leave := context.WithCancel(s.within())
		defer leave()
		bound, expire := context.WithCancel(ctx)
		defer expire()
		manage.BoundPreparation(s.Manager, func(context.Context) (context.Context, context.CancelFunc) { return context.WithCancel(bound) })
		end := map[string]func(){"client": leave, "time": expire}[name]
		var canceled atomic.Int32
		r := s.preparation("")
		r.Config["workspace_url"] = s.front(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/cancel") {
				canceled.Add(1)
			} else if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, emulator.StatementsPath+"/") {
				end()
			}
			return false
		}).URL
		notes := ""
		got, err := s.Prepare(ctx, r, who("slow"), false, func(i setup.Item) {
			notes += i.State + " " + i.Note
			if _, _, err := s.prepared(s.preparation(""), false); code(t, err) != manage.Conflict {
				t.Errorf("beside another one: got %v, want %s", err, manage.Conflict)
			}
			if got, _, err := s.prepared(s.preparation(""), true); err != nil || !got.OK {
				t.Errorf("a dry run beside it: got %+v, %v", got, err)
			}
		})
		if name == "client" && !errors.Is(err, context.Canceled) || name == "time" && (err != nil || got.OK || !strings.Contains(got.Error, "not complete after")) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if all := s.entries(); len(all) != 1 || text(t, all[0].Changes["statements"].New) != "[\"started: CREATE CATALOG IF NOT EXISTS `shop`;\"]" || canceled.Load() != 1 || notes != "started warehouse slow starts, which takes minutes" {
			t.Errorf("%s: got %s, %d canceled and %q", name, text(t, s.entries()), canceled.Load(), notes)
		}
	}
}

// Without a store there is no audit log, and one that cannot be written is a warning.
func TestPrepareWithoutAudit(t *testing.T) {
	s := newSite(t)
	s.Manager = manage.New(manage.Options{Files: s.files.Load, Version: "test"})
	if got, _, err := s.prepared(s.preparation(""), false); err != nil || !got.OK || len(got.Warnings) > 0 {
		t.Errorf("without a store: got %+v, %v", got, err)
	}
	s = newSite(t)
	s.store.Close()
	if got, _, err := s.prepared(s.preparation(""), false); err != nil || !got.OK || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "the audit log has no entry") {
		t.Errorf("with a closed store: got %+v, %v", got, err)
	}
}

// Grants that the service principal may not read may exist already. A refusal is not the end,
// and the result is not OK.
func TestPrepareWhatIsHidden(t *testing.T) {
	s := newSite(t, noCreate)
	r := s.preparation("")
	r.Config["catalog"], r.Config["schema"], r.Config["table"] = "datafly", "events", "stream"
	r.Config["workspace_url"] = s.front(func(w http.ResponseWriter, r *http.Request) bool {
		hidden := strings.HasPrefix(r.URL.Path, "/api/2.1/unity-catalog/effective-permissions/")
		if hidden {
			w.WriteHeader(http.StatusForbidden)
		}
		return hidden
	}).URL
	got, steps, err := s.prepared(r, false)
	if err != nil || got.OK || got.Changed || got.Error != "" || planned(got) != "exists, exists, exists, refused, refused, refused" || !strings.Contains(got.Plan[3].Error, "give the token of a principal that may") {
		t.Errorf("got %s, %q, %v", text(t, got), steps, err)
	}
}
