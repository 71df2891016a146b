package setup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/setup"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	target = "shop.raw.orders"
	secret = "s3cret-of-the-principal"
)

// workspace is an emulated workspace whose requests a test can watch, answer and count.
type workspace struct {
	*emulator.Emulator
	url string
	dir string

	mu       sync.Mutex
	requests []string                                          // "METHOD path"
	answer   func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newWorkspace(t *testing.T, change ...func(*emulator.Config)) *workspace {
	t.Helper()
	cfg := emulator.Config{ClientSecret: secret}
	for _, f := range change {
		f(&cfg)
	}
	e, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &workspace{Emulator: e, dir: t.TempDir()}
	server := httptest.NewServer(w)
	w.url = server.URL
	t.Cleanup(func() {
		server.Close()
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *workspace) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests = append(w.requests, r.Method+" "+r.URL.Path)
	answer := w.answer
	w.mu.Unlock()
	if answer == nil || !answer(out, r) {
		w.Handler().ServeHTTP(out, r)
	}
}

// seen returns the requests since the last call.
func (w *workspace) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.requests
	w.requests = nil
	return seen
}

func (w *workspace) file(name string) string { return filepath.Join(w.dir, name) }

// options are the six values and a file to write.
func (w *workspace) options(change ...func(*setup.Options)) setup.Options {
	o := setup.Options{File: w.file("config.yaml"), Home: w.dir, Timeout: await.Patience, Version: "test", Log: zap.NewNop(), Execute: true}
	o.Load = config.Options{File: w.file("config.yaml"), Env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + secret},
		Flags: map[string]string{"workspace-url": w.url, "client-id": emulator.DefaultClientID, "table": target}}
	for _, f := range change {
		f(&o)
	}
	return o
}

// without takes a value away that the options have.
func without(name string) func(*setup.Options) {
	return func(o *setup.Options) { delete(o.Load.Flags, name) }
}

func with(name, value string) func(*setup.Options) {
	return func(o *setup.Options) { o.Load.Flags[name] = value }
}

func env(entries ...string) func(*setup.Options) {
	return func(o *setup.Options) { o.Load.Env = append(o.Load.Env, entries...) }
}

func plan(o *setup.Options) { o.Execute = false }

// run sets up and returns what it reported as JSON, without the address of the workspace.
func (w *workspace) run(t *testing.T, change ...func(*setup.Options)) (*setup.Report, error) {
	t.Helper()
	report, err := setup.Run(t.Context(), w.options(change...))
	said := fmt.Sprint(err)
	if report != nil {
		var text strings.Builder
		report.WritePlan(&text)
		report.WriteRows(&text)
		data, jerr := json.Marshal(report)
		if jerr != nil {
			t.Fatal(jerr)
		}
		said += text.String() + string(data)
	}
	for _, hidden := range []string{secret, emulator.DefaultAdminToken, "eyJ"} {
		if strings.Contains(said, hidden) {
			t.Errorf("%q is repeated in %s", hidden, said)
		}
	}
	return report, err
}

// probes counts the probe rows of the table.
func (w *workspace) probes(t *testing.T) int {
	t.Helper()
	table := w.Table(target)
	if table == nil {
		t.Fatalf("there is no table %s", target)
	}
	return len(table.Rows(func(row emulator.Row) bool {
		id, _ := row.Value("message_id")
		return id == setup.ProbeID
	}))
}

func states(r *setup.Report) string {
	var all []string
	for _, i := range r.Plan {
		all = append(all, i.State)
	}
	return strings.Join(all, ", ")
}

func step(r *setup.Report, name string) string {
	for _, s := range r.Steps {
		if s.Step == name {
			return strings.Join([]string{s.Status, s.Detail, s.Warning, s.Error}, " ")
		}
	}
	return "no step " + name
}

// The plan changes nothing, the first run everything, the second nothing.
func TestSixFields(t *testing.T) {
	w := newWorkspace(t)
	report, err := w.run(t, plan)
	if err != nil || !report.OK || report.Changed || states(report) != "will run, will run, will run, will run, will run, will run" || report.Config.State != setup.FileMissing {
		t.Fatalf("plan: got %+v, %v", report, err)
	}
	if files, err := os.ReadDir(w.dir); err != nil || len(files) > 0 || w.Table(target) != nil {
		t.Fatalf("plan: got files %v, %v and table %v; want nothing changed", files, err, w.Table(target))
	}
	for _, request := range w.seen() {
		if method, path, _ := strings.Cut(request, " "); method != http.MethodGet && path != "/oidc/v1/token" {
			t.Errorf("the plan sent %s", request)
		}
	}
	report, err = w.run(t)
	if err != nil || !report.OK || !report.Changed || states(report) != "done, done, done, done, done, done" || report.Config.State != setup.FileWritten {
		t.Fatalf("first run: got %+v, %v", report, err)
	}
	if n := w.probes(t); n != 1 || len(report.Rows.Rows) != 1 || !slices.Contains(report.Rows.Columns, "message_id") {
		t.Errorf("got %d probe rows and the result %+v, want one", n, report.Rows)
	}
	for _, name := range []string{"token", "probe row", "visible row", "test query"} {
		if got := step(report, name); !strings.HasPrefix(got, "ok ") {
			t.Errorf("step %s: got %s", name, got)
		}
	}
	if got := step(report, "kafka"); !strings.HasPrefix(got, "skipped ") || !strings.Contains(report.Next, "kafka.brokers and kafka.topics") {
		t.Errorf("got kafka %q and next %q, want it skipped and both keys named", got, report.Next)
	}
	for _, name := range []string{"config.yaml", "config.client-secret"} {
		if info, err := os.Stat(w.file(name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", name, info, err)
		}
	}
	text, err := os.ReadFile(w.file("config.yaml"))
	if err != nil || strings.Contains(string(text), secret) || !strings.Contains(string(text), "topics:") {
		t.Errorf("got config %s, %v; want no secret, and the keys of Kafka as a comment", text, err)
	}
	if files, err := os.ReadDir(w.dir); err != nil || len(files) != 2 {
		t.Errorf("got files %v, %v, want two", files, err)
	}
	cfg, err := config.Load(config.Options{File: w.file("config.yaml"), FileRequired: true, Flags: map[string]string{"topics": "events"}})
	if err != nil || cfg.Zerobus.Table != "orders" || cfg.Zerobus.WorkspaceURL != w.url {
		t.Fatalf("the written file: got %+v, %v", cfg, err)
	}
	if got, err := cfg.Zerobus.CredentialSource().Read(); err != nil || got != secret {
		t.Errorf("the written secret: got %q, %v", got, err)
	}

	w.seen()
	// The file that was written has all of it.
	report, err = w.run(t, func(o *setup.Options) { o.Load.Env, o.Load.Flags = nil, nil })
	if err != nil || !report.OK || report.Changed || states(report) != "exists, exists, exists, exists, exists, exists" || report.Config.State != setup.FileSame {
		t.Fatalf("second run: got %+v, %v", report, err)
	}
	if n := w.probes(t); n != 1 || !strings.Contains(step(report, "probe row"), "has it already") {
		t.Errorf("second run: got %d probe rows, %s", n, step(report, "probe row"))
	}
}

// A set-up that is interrupted at any request continues where it was.
func TestInterruptedAtEachRequest(t *testing.T) {
	whole := newWorkspace(t)
	if report, err := whole.run(t); err != nil {
		t.Fatalf("got %+v, %v", report, err)
	}
	total := len(whole.seen())
	if total < 20 {
		t.Fatalf("got %d requests, want more", total)
	}
	for n := 1; n <= total; n++ {
		for _, after := range []bool{false, true} { // the request was served or not
			t.Run(fmt.Sprintf("%d of %d, served %v", n, total, after), func(t *testing.T) {
				t.Parallel()
				w := newWorkspace(t)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				served := 0
				w.answer = func(out http.ResponseWriter, r *http.Request) bool {
					w.mu.Lock()
					served++
					now := served == n
					w.mu.Unlock()
					if !now {
						return false
					}
					if after {
						w.Handler().ServeHTTP(httptest.NewRecorder(), r.WithContext(t.Context()))
					}
					stop()
					panic(http.ErrAbortHandler) // and the connection breaks
				}
				report, err := setup.Run(ctx, w.options())
				if served < n {
					t.Skipf("it took %d requests this time", served)
				}
				if err == nil {
					t.Fatalf("interrupted: got %+v, want an error", report)
				}
				if report != nil && !strings.Contains(report.Next, "the same command again") {
					t.Errorf("interrupted: got %q next, want how to continue", report.Next)
				}
				report, err = w.run(t)
				if err != nil || !report.OK {
					t.Fatalf("the next run: got %+v, %v", report, err)
				}
				if got := w.probes(t); got != 1 {
					t.Errorf("got %d probe rows, want 1", got)
				}
				if report, err = w.run(t); err != nil || report.Changed {
					t.Errorf("the third run: got %+v, %v, want nothing changed", report, err)
				}
			})
		}
	}
}

// Each wrong or missing field alone is named.
func TestWrongFields(t *testing.T) {
	noSecret := func(o *setup.Options) { o.Load.Env = nil }
	for name, tc := range map[string]struct {
		change []func(*setup.Options)
		usage  bool
		want   []string
	}{
		"nothing": {[]func(*setup.Options){noSecret, func(o *setup.Options) { o.Load.Flags = nil }}, true, []string{"zerobus.workspace_url is required", "zerobus.client_id is required",
			"zerobus.client_secret is required", "zerobus.catalog is required", "zerobus.schema is required", "zerobus.table is required"}},
		"no workspace":      {[]func(*setup.Options){without("workspace-url")}, true, []string{"zerobus.workspace_url is required"}},
		"no client id":      {[]func(*setup.Options){without("client-id")}, true, []string{"zerobus.client_id is required"}},
		"no secret":         {[]func(*setup.Options){noSecret}, true, []string{"zerobus.client_secret"}},
		"no catalog":        {[]func(*setup.Options){with("table", "orders"), with("schema", "raw")}, true, []string{"zerobus.catalog is required"}},
		"no schema":         {[]func(*setup.Options){with("table", "orders"), with("catalog", "shop")}, true, []string{"zerobus.schema is required"}},
		"no table":          {[]func(*setup.Options){without("table"), with("catalog", "shop"), with("schema", "raw")}, true, []string{"zerobus.table is required"}},
		"bad workspace":     {[]func(*setup.Options){with("workspace-url", "ftp://x")}, true, []string{"zerobus.workspace_url"}},
		"bad catalog":       {[]func(*setup.Options){with("table", "orders"), with("schema", "raw"), with("catalog", "my shop")}, true, []string{"zerobus.catalog", "my shop"}},
		"bad schema":        {[]func(*setup.Options){with("table", "orders"), with("schema", "a/b"), with("catalog", "shop")}, true, []string{"zerobus.schema"}},
		"bad table":         {[]func(*setup.Options){with("table", "a.b.c.d")}, true, []string{"zerobus.table"}},
		"no such host":      {[]func(*setup.Options){with("workspace-url", "https://nowhere.invalid")}, false, []string{"zerobus.workspace_url"}},
		"other client":      {[]func(*setup.Options){with("client-id", "somebody")}, false, []string{"the client id or the client secret is wrong", "somebody"}},
		"secret rotated":    {[]func(*setup.Options){noSecret, env("BRIDGE_ZEROBUS_CLIENT_SECRET=old")}, false, []string{"zerobus.client_secret"}},
		"no secret file":    {[]func(*setup.Options){noSecret, with("client-secret-file", "absent")}, true, []string{"zerobus.client_secret_file", "absent"}},
		"unknown warehouse": {[]func(*setup.Options){func(o *setup.Options) { o.WarehouseID = "none" }}, false, []string{"--warehouse-id none"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t)
			report, err := w.run(t, tc.change...)
			if err == nil || report != nil {
				t.Fatalf("got %+v, %v, want an error alone", report, err)
			}
			if _, usage := errors.AsType[*setup.UsageError](err); usage != tc.usage {
				t.Errorf("got usage error %v, want %v: %v", usage, tc.usage, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			if files, err := os.ReadDir(w.dir); err != nil || len(files) > 0 {
				t.Errorf("got files %v, %v, want none", files, err)
			}
		})
	}
}

// On a terminal, the fields that are missing are asked for, the secret without echo.
func TestAsksForWhatIsMissing(t *testing.T) {
	w := newWorkspace(t)
	answers := map[string]string{"Workspace URL": w.url, "Client id of the service principal": emulator.DefaultClientID, "Client secret (not shown)": secret,
		"Catalog": "shop", "Schema": " raw ", "Table": "orders"}
	var asked []string
	ask := func(_ context.Context, question string, hidden bool) (string, error) {
		if hidden != strings.Contains(question, "secret") {
			t.Errorf("%s: got hidden %v", question, hidden)
		}
		asked = append(asked, question)
		return answers[question], nil
	}
	report, err := w.run(t, plan, func(o *setup.Options) { o.Load.Env, o.Load.Flags, o.Ask = nil, nil, ask })
	if err != nil || report.Table != target || len(asked) != 6 {
		t.Fatalf("got %+v, %v after %q", report, err, asked)
	}
	asked = nil
	if _, err := w.run(t, plan, func(o *setup.Options) { o.Load.Env, o.Ask = nil, ask }); err != nil || !slices.Equal(asked, []string{"Client secret (not shown)"}) {
		t.Errorf("got %v after %q, want the secret asked for alone", err, asked)
	}
	asked = nil
	exchange := func(o *setup.Options) {
		o.Load.Env, o.Load.Sets, o.Ask = nil, []string{"zerobus.token_exchange.token_file=" + w.file("token")}, ask
	}
	if _, err := w.run(t, plan, exchange); err == nil || len(asked) > 0 {
		t.Errorf("got %v after %q, want no secret asked for beside a token exchange", err, asked)
	}
	gone := errors.New("interrupted")
	_, err = w.run(t, without("table"), func(o *setup.Options) {
		o.Ask = func(context.Context, string, bool) (string, error) { return "", gone }
	})
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want that of the question", err)
	}
}

// What exists is left, what is missing is done.
func TestPartialStates(t *testing.T) {
	const admin = "DATABRICKS_TOKEN=" + emulator.DefaultAdminToken
	few := "CREATE TABLE shop.raw.orders (event_name STRING, message_id STRING) USING DELTA;"
	for name, tc := range map[string]struct {
		ddl    string
		revoke map[string]string
		want   string // states of the plan
		after  string // after the run
	}{
		"another table of the schema": {ddl: "CREATE TABLE shop.raw.other (a STRING);", want: "exists, exists, will run, exists, exists, will run", after: "exists, exists, done, exists, exists, done"},
		"columns are missing":         {ddl: few, want: "exists, exists, exists, will run, exists, exists, exists", after: "exists, exists, exists, done, exists, exists, exists"},
		"grants half done":            {ddl: emulator.DefaultDDL, revoke: map[string]string{"USE SCHEMA": "shop.raw", "MODIFY": target}, want: "exists, exists, exists, exists, will run, will run", after: "exists, exists, exists, exists, done, done"},
		"columns are hidden":          {ddl: few, revoke: map[string]string{"USE CATALOG": "shop", "SELECT": target, "MODIFY": target}, want: "exists, exists, exists, will run, exists, will run", after: "exists, exists, exists, done, exists, done, done"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t, func(c *emulator.Config) { c.DDL = strings.ReplaceAll(tc.ddl, "datafly.events.stream", target) })
			for privilege, on := range tc.revoke {
				if err := w.Revoke(privilege, on); err != nil {
					t.Fatal(err)
				}
			}
			report, err := w.run(t, plan, env(admin))
			if err != nil || states(report) != tc.want {
				t.Fatalf("got %v, %v, want %s", report, err, tc.want)
			}
			report, err = w.run(t, env(admin))
			if err != nil || states(report) != tc.after || w.probes(t) != 1 {
				t.Fatalf("got %+v, %v, want %s", report, err, tc.after)
			}
			if report, err = w.run(t, env(admin)); err != nil || report.Changed {
				t.Errorf("again: got %+v, %v, want nothing changed", report, err)
			}
		})
	}
}

// The error of a principal that may not create names privilege, object and statement, and the other way.
func TestPrincipals(t *testing.T) {
	noCreate := func(c *emulator.Config) { c.NoCreate = true }
	w := newWorkspace(t, noCreate)
	report, err := w.run(t)
	if err == nil || report == nil || report.OK {
		t.Fatalf("got %+v, %v, want a refusal", report, err)
	}
	for _, want := range []string{"CREATE CATALOG IF NOT EXISTS `shop`: ", "lacks CREATE CATALOG on METASTORE", "GRANT CREATE CATALOG ON METASTORE TO `emulator`;", "--profile", "DATABRICKS_TOKEN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	profiles := "[DEFAULT]\nhost = https://other.example\n; a comment\n[admin]\nhost  = " + w.url + "/\ntoken = " + emulator.DefaultAdminToken +
		"\n[service]\nhost = " + strings.TrimPrefix(w.url, "http://") + "\n[credentials]\nhost=" + w.url + "\nclient_id = emulator\nclient_secret = " + secret +
		"\n[rotated]\nhost=" + w.url + "\nclient_id=emulator\nclient_secret=old-one\n[empty]\nhost=" + w.url + "\n[expired]\nhost=" + w.url + "\ntoken = old\n"
	if err := os.WriteFile(w.file(".databrickscfg"), []byte(profiles), 0o600); err != nil {
		t.Fatal(err)
	}
	profile := func(name string) func(*setup.Options) {
		return func(o *setup.Options) { o.Profile = name }
	}
	for name, tc := range map[string]struct {
		change []func(*setup.Options)
		want   string // in the error, or who runs it
	}{
		"other host":             {[]func(*setup.Options){profile("DEFAULT")}, `profile DEFAULT in ` + w.file(".databrickscfg") + ` is for the host "https://other.example"`},
		"no such profile":        {[]func(*setup.Options){profile("nobody")}, "has no profile nobody"},
		"no credentials":         {[]func(*setup.Options){profile("empty")}, "has neither a token nor client_id and client_secret"},
		"no file":                {[]func(*setup.Options){profile("admin"), env("DATABRICKS_CONFIG_FILE=" + w.file("absent"))}, "reading profile admin"},
		"rotated":                {[]func(*setup.Options){profile("rotated")}, "a token for profile rotated was refused: HTTP 401 invalid_client; check client_id and client_secret"},
		"expired":                {[]func(*setup.Options){profile("expired")}, "the token of profile expired is wrong or expired"},
		"token of another":       {[]func(*setup.Options){env("DATABRICKS_TOKEN=x", "DATABRICKS_HOST=https://other.example")}, "DATABRICKS_TOKEN is for DATABRICKS_HOST"},
		"wrong token":            {[]func(*setup.Options){env("DATABRICKS_TOKEN=x")}, "the token of DATABRICKS_TOKEN is wrong or expired"},
		"token":                  {[]func(*setup.Options){env("DATABRICKS_TOKEN="+emulator.DefaultAdminToken, "DATABRICKS_HOST="+w.url)}, "the principal of DATABRICKS_TOKEN"},
		"token and a line break": {[]func(*setup.Options){env("DATABRICKS_TOKEN=" + emulator.DefaultAdminToken + "\r\n")}, "the principal of DATABRICKS_TOKEN"},
		"flag wins":              {[]func(*setup.Options){profile("admin"), env("DATABRICKS_TOKEN=x")}, "the principal of profile admin"},
		"profile of the env":     {[]func(*setup.Options){env("DATABRICKS_CONFIG_PROFILE=admin")}, "the principal of profile admin"},
		"client credentials":     {[]func(*setup.Options){profile("credentials")}, "the principal of profile credentials"},
		"token before profil":    {[]func(*setup.Options){env("DATABRICKS_CONFIG_PROFILE=nobody", "DATABRICKS_TOKEN="+emulator.DefaultAdminToken)}, "the principal of DATABRICKS_TOKEN"},
	} {
		report, err := w.run(t, append(tc.change, plan)...)
		if report != nil {
			err = errors.New(report.RunBy)
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	w.seen()
	_, err = w.run(t, profile("credentials"), plan)
	tokens := slices.DeleteFunc(w.seen(), func(request string) bool { return !strings.HasSuffix(request, " /oidc/v1/token") })
	if err != nil || len(tokens) != 2 {
		t.Errorf("got %d token requests, %v, want one for each principal", len(tokens), err)
	}
	report, err = w.run(t, profile("admin"))
	if err != nil || !report.OK || w.probes(t) != 1 {
		t.Fatalf("as admin: got %+v, %v", report, err)
	}
	text, err := os.ReadFile(w.file("config.yaml"))
	if err != nil || strings.Contains(string(text), emulator.DefaultAdminToken) {
		t.Errorf("got config %s, %v, want no token in it", text, err)
	}
}

// warehouses answers the list of warehouses.
func (w *workspace) warehouses(list string) {
	w.answer = func(out http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/2.0/sql/warehouses" {
			return false
		}
		fmt.Fprintf(out, `{"warehouses":[%s]}`, list)
		return true
	}
}

func TestWarehouses(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		w := newWorkspace(t)
		w.warehouses("")
		report, err := w.run(t)
		if err == nil || report == nil || !strings.Contains(err.Error(), "may use no SQL warehouse") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("got %+v, %v, want a refusal in one line", report, err)
		}
		for _, want := range []string{"CREATE CATALOG IF NOT EXISTS `shop`;", "CREATE TABLE IF NOT EXISTS `shop`.`raw`.`orders`", "GRANT SELECT, MODIFY ON TABLE `shop`.`raw`.`orders` TO `emulator`;"} {
			if !strings.Contains(report.Next, want) {
				t.Errorf("got next %q, want %q to paste", report.Next, want)
			}
		}
	})
	t.Run("none, and only grants are missing", func(t *testing.T) {
		w := newWorkspace(t, func(c *emulator.Config) {
			c.DDL = strings.ReplaceAll(emulator.DefaultDDL, "datafly.events.stream", target)
		})
		w.warehouses("")
		if err := w.Revoke("MODIFY", target); err != nil {
			t.Fatal(err)
		}
		report, err := w.run(t, env("DATABRICKS_TOKEN="+emulator.DefaultAdminToken))
		if err != nil || !report.OK || w.probes(t) != 1 || states(report) != "exists, exists, exists, exists, exists, done" {
			t.Fatalf("got %+v, %v", report, err)
		}
		if got := step(report, "test query"); !strings.Contains(got, report.Query) {
			t.Errorf("got %q, want the query to paste", got)
		}
		for _, request := range w.seen() {
			if strings.Contains(request, "/sql/statements") {
				t.Errorf("got %s without a warehouse", request)
			}
		}
	})
	t.Run("several", func(t *testing.T) {
		w := newWorkspace(t)
		w.warehouses(`{"id":"a1","name":"A","state":"RUNNING"},{"id":"b2","name":"B","state":"STOPPED"},{"id":"c3","name":"C","state":"DELETED"}`)
		const list = "a1 (A, running), b2 (B, stopped)"
		if report, err := w.run(t, plan); err != nil || !strings.HasSuffix(report.NoWarehouse, list) {
			t.Errorf("plan: got %+v, %v, want %s", report, err, list)
		}
		_, err := w.run(t)
		if usage, ok := errors.AsType[*setup.UsageError](err); !ok || !strings.HasSuffix(usage.Error(), list) {
			t.Errorf("got %v, want a usage error with %s", err, list)
		}
		for answer, want := range map[string]string{"b2": "b2", "c3": `there is no warehouse "c3"`} {
			report, err := w.run(t, func(o *setup.Options) {
				o.Ask = func(_ context.Context, question string, _ bool) (string, error) { return answer, nil }
				o.Timeout = time.Second
			})
			if report != nil {
				err = errors.New(report.Warehouse.ID)
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("answer %s: got %v, want %s", answer, err, want)
			}
		}
	})
}

// The file that exists decides: it is left as it is or an error, and never overwritten.
func TestConfigFile(t *testing.T) {
	write := func(t *testing.T, file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := func(w *workspace, more string) string {
		return "zerobus: {workspace_url: " + w.url + ", client_id: emulator, table: " + target + more + "}\n"
	}
	for name, tc := range map[string]struct {
		text   func(w *workspace) string
		change func(w *workspace) func(*setup.Options)
		state  string
		want   string // in the error of a run
	}{
		"same, secret in it":      {text: func(w *workspace) string { return own(w, ", client_secret: "+secret) }, state: setup.FileSame},
		"same, secret in the env": {text: func(w *workspace) string { return own(w, "") }, state: setup.FileSame},
		"another table": {text: func(w *workspace) string { return strings.Replace(own(w, ""), "orders", "others", 1) }, state: setup.FileOther,
			want: "exists with other values of zerobus.table, and is not overwritten"},
		"another secret": {text: func(w *workspace) string { return own(w, ", client_secret_file: "+w.file("other")) }, state: setup.FileOther,
			want: "exists with other values of zerobus.client_secret, and is not overwritten",
			change: func(w *workspace) func(*setup.Options) {
				return func(o *setup.Options) { o.Load.Env = nil; o.Load.Flags["client-secret-file"] = w.file("mine") }
			}},
		"no configuration": {text: func(*workspace) string { return "zerobus: 3\n" }, state: setup.FileOther, want: "exists and is not overwritten"},
		"elsewhere": {text: func(*workspace) string { return "zerobus: 3\n" }, state: setup.FileMissing,
			change: func(w *workspace) func(*setup.Options) {
				return func(o *setup.Options) { o.File = w.file("new.yaml") }
			}},
		"no such folder": {text: func(w *workspace) string { return own(w, "") }, state: setup.FileMissing, want: "with --write",
			change: func(w *workspace) func(*setup.Options) {
				return func(o *setup.Options) { o.File = w.file("none/new.yaml") }
			}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			write(t, w.file("there.yaml"), tc.text(w))
			write(t, w.file("other"), "another")
			write(t, w.file("mine"), secret)
			change := func(o *setup.Options) {
				o.File, o.Load.File = w.file("there.yaml"), w.file("absent.yaml")
				if tc.change != nil {
					tc.change(w)(o)
				}
			}
			report, err := w.run(t, plan, change)
			if err != nil || report.Config.State != tc.state {
				t.Fatalf("plan: got %+v, %v, want %s", report, err, tc.state)
			}
			report, err = w.run(t, change)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if text, err := os.ReadFile(w.file("there.yaml")); err != nil || string(text) != tc.text(w) {
				t.Errorf("got %s, %v, want it as it was", text, err)
			}
			if tc.want != "" && w.Table(target) != nil {
				t.Error("the table was created although the file is no good")
			}
			_ = report
		})
	}
	t.Run("another secret beside it", func(t *testing.T) {
		w := newWorkspace(t)
		write(t, w.file("config.client-secret"), "another")
		if _, err := w.run(t); err == nil || !strings.Contains(err.Error(), "config.client-secret exists and holds another secret") {
			t.Errorf("got %v", err)
		}
		write(t, w.file("config.client-secret"), secret+"\n") // as an interrupted run leaves it
		if report, err := w.run(t); err != nil || !report.OK {
			t.Errorf("got %+v, %v", report, err)
		}
	})
	t.Run("what is beside it", func(t *testing.T) {
		for name, tc := range map[string]struct {
			file string
			make func(w *workspace) error
			want string
		}{
			"a folder for the secret":     {"config.yaml", func(w *workspace) error { return os.Mkdir(w.file("config.client-secret"), 0o700) }, "the file of the secret exists and cannot be read"},
			"a link to no configuration":  {"config.yaml", func(w *workspace) error { return os.Symlink(w.file("none"), w.file("config.yaml")) }, "config.yaml is a link to a file that does not exist"},
			"a link to no secret":         {"config.yaml", func(w *workspace) error { return os.Symlink(w.file("none"), w.file("config.client-secret")) }, "config.client-secret exists meanwhile and is not overwritten"},
			"a link to the configuration": {"link.yaml", func(w *workspace) error { return os.Symlink(w.file("config.yaml"), w.file("link.yaml")) }, "link.yaml is a link to a file that does not exist"},
		} {
			w := newWorkspace(t)
			if err := tc.make(w); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(w.dir)
			report, err := w.run(t, func(o *setup.Options) { o.File = w.file(tc.file) })
			if err == nil || !strings.Contains(err.Error(), tc.want) || w.Table(target) != nil {
				t.Errorf("%s: got %+v, %v, want %q and no table", name, report, err, tc.want)
			}
			if after, err := os.ReadDir(w.dir); err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("%s: got files %v, %v, want %v", name, after, err, before)
			}
		}
	})
	// Each set-up has found no file when it made its plan.
	t.Run("two set-ups at once", func(t *testing.T) {
		w := newWorkspace(t)
		text := own(w, ", client_secret: "+secret)
		w.answer = func(out http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/api/2.0/sql/warehouses" { // the last request of the plan
				write(t, w.file("config.yaml"), text)
			}
			return false
		}
		report, err := w.run(t)
		if err == nil || !strings.Contains(err.Error(), "config.yaml exists meanwhile and is not overwritten") || report.Error != err.Error() {
			t.Errorf("got %+v, %v", report, err)
		}
		if got, err := os.ReadFile(w.file("config.yaml")); err != nil || string(got) != text {
			t.Errorf("got %s, %v, want the other one's file", got, err)
		}
	})
	t.Run("the secret is a file", func(t *testing.T) {
		w := newWorkspace(t)
		t.Chdir(w.dir)
		write(t, "mine", secret+"\n")
		relative := func(o *setup.Options) {
			o.Load.Env, o.Load.Flags["client-secret-file"], o.File = nil, "mine", w.file("config.yaml")
		}
		if report, err := w.run(t, relative); err != nil || !report.OK {
			t.Fatalf("got %+v, %v", report, err)
		}
		t.Chdir("/")
		if report, err := w.run(t, func(o *setup.Options) { o.Load.Env, o.Load.Flags = nil, nil }); err != nil || report.Changed {
			t.Errorf("from another folder: got %+v, %v", report, err)
		}
	})
	t.Run("the file has the extension of secrets", func(t *testing.T) {
		w := newWorkspace(t)
		odd := func(o *setup.Options) { o.File = w.file("x.client-secret") }
		report, err := w.run(t, odd)
		if err != nil || report.Config.SecretFile == report.Config.Path {
			t.Fatalf("got %+v, %v", report, err)
		}
		if report, err = w.run(t, odd); err != nil || report.Changed {
			t.Errorf("again: got %+v, %v", report, err)
		}
	})
	t.Run("what else is set", func(t *testing.T) {
		w := newWorkspace(t)
		report, err := w.run(t, plan, with("topics", "events"), with("brokers", "127.0.0.1:1"))
		if err != nil || report.Config.State != setup.FileMissing {
			t.Fatalf("got %+v, %v", report, err)
		}
		short := func(o *setup.Options) { o.Timeout = 5 * time.Second }
		report, err = w.run(t, with("topics", "events"), with("brokers", "127.0.0.1:1"), env("BRIDGE_KAFKA_SASL_MECHANISM=plain", "BRIDGE_KAFKA_SASL_USERNAME=u", "BRIDGE_KAFKA_SASL_PASSWORD=hidden-one"), short)
		if err == nil || !strings.HasPrefix(step(report, "kafka"), "failed ") || w.probes(t) != 1 {
			t.Errorf("got %v, %+v; want Kafka's step to fail, and the row proven", err, report)
		}
		text, err := os.ReadFile(w.file("config.yaml"))
		if err != nil || !strings.Contains(string(text), "topics: [events]") || !strings.Contains(string(text), "BRIDGE_KAFKA_SASL_PASSWORD") || strings.Contains(string(text), "hidden-one") {
			t.Errorf("got %s, %v", text, err)
		}
	})
	if _, err := os.Stat("config.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a test has written to the folder of the package")
	}
}

func TestDedupeView(t *testing.T) {
	w := newWorkspace(t)
	view := func(o *setup.Options) { o.DedupeView = true }
	report, err := w.run(t, view)
	if err != nil || len(report.Plan) != 7 || report.Plan[6].State != setup.Done || !strings.HasPrefix(report.Plan[6].Statement, "CREATE OR REPLACE VIEW `shop`.`raw`.`orders_deduplicated` AS") {
		t.Fatalf("got %+v, %v", report, err)
	}
	if report, err = w.run(t, view); err != nil || report.Changed || report.Plan[6].State != setup.Exists {
		t.Errorf("again: got %+v, %v", report, err)
	}
	if err := os.WriteFile(w.file("blueprint.yaml"), []byte("version: 2\nglobal:\n  mappings:\n    - {source: event, target: event_name}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	few := func(o *setup.Options) { o.Load.Sets = []string{"mapping.blueprint=" + w.file("blueprint.yaml")} }
	if _, err := w.run(t, view, few, plan); err == nil || !strings.Contains(err.Error(), "--dedupe-view needs the columns message_id and event_timestamp") {
		t.Errorf("without message_id: got %v", err)
	}
	// What exists under the name of the view is left.
	for name, table := range map[string]string{"with its table": target, "without": "shop.raw.gone"} {
		statement := "CREATE TABLE " + table + "_deduplicated (id STRING)"
		w := newWorkspace(t, func(c *emulator.Config) {
			c.DDL = strings.ReplaceAll(emulator.DefaultDDL, "datafly.events.stream", target) + statement
		})
		_, err := w.run(t, view, with("table", table))
		if err == nil || !strings.Contains(err.Error(), table+"_deduplicated, the name of the view of --dedupe-view, is taken by a table (MANAGED)") {
			t.Errorf("%s: got %v", name, err)
		}
		if files, err := os.ReadDir(w.dir); err != nil || len(files) > 0 {
			t.Errorf("%s: got files %v, %v", name, files, err)
		}
	}
}

// Nothing is granted on what Zerobus does not write to, also where the service principal may not
// see it yet.
func TestTableThatIsAView(t *testing.T) {
	for _, by := range []string{"", "DATABRICKS_TOKEN=" + emulator.DefaultAdminToken} {
		w := newWorkspace(t, func(c *emulator.Config) { c.NoCreate = by != "" })
		if _, err := w.run(t, env(by), func(o *setup.Options) { o.DedupeView = true }); err != nil {
			t.Fatal(err)
		}
		report, err := w.run(t, env(by), with("table", target+"_deduplicated"), func(o *setup.Options) { o.File = w.file("view.yaml") })
		if _, ok := errors.AsType[*zerobus.UnwritableTable](err); !ok || report != nil || !strings.Contains(err.Error(), "is of the kind VIEW") {
			t.Errorf("%q: got %+v, %v", by, report, err)
		}
	}
}

// A blueprint that makes no row of the probe, or one that nobody would find, is no fault: nothing
// is written, and the test query runs.
func TestProbeThatTheBlueprintAlters(t *testing.T) {
	const names = "version: 2\nglobal:\n  mappings:\n    - {source: event, target: event_name}\n"
	for name, tc := range map[string]struct{ blueprint, set, want string }{
		"no message_id":      {blueprint: names, want: "fills no column message_id"},
		"a hash":             {blueprint: names + "    - {source: message_id, target: message_id, transform: hash_sha256}\n", want: "puts another value in message_id"},
		"other events alone": {blueprint: "version: 2\nextends: default\ndefaults: {action: drop}\n", want: "maps a plain track event to no row (filter"},
		"consent":            {blueprint: "version: 2\nextends: default\n", set: "mapping.require_consent=analytics", want: "maps a plain track event to no row (filter"},
		"a reject":           {blueprint: names + "    - {source: message_id, target: message_id, type: BIGINT}\n", want: "maps a plain track event to no row (reject"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorkspace(t)
			if err := os.WriteFile(w.file("blueprint.yaml"), []byte(tc.blueprint), 0o600); err != nil {
				t.Fatal(err)
			}
			for run := range 2 {
				report, err := w.run(t, func(o *setup.Options) {
					o.Load.Sets = []string{"mapping.blueprint=" + w.file("blueprint.yaml")}
					if tc.set != "" {
						o.Load.Sets = append(o.Load.Sets, tc.set, "mapping.on_missing_consent=drop")
					}
				})
				if err != nil || !report.OK || report.Changed != (run == 0) || w.Table(target).Count() != 0 {
					t.Fatalf("run %d: got %+v, %v", run, report, err)
				}
				if got := step(report, "probe row"); !strings.HasPrefix(got, "warning ") || !strings.Contains(got, tc.want) {
					t.Errorf("run %d: got %q, want a warning with %q", run, got, tc.want)
				}
				if got := step(report, "test query"); !strings.HasPrefix(got, "ok ") || step(report, "visible row") != "no step visible row" {
					t.Errorf("run %d: got %q and %q", run, got, step(report, "visible row"))
				}
			}
		})
	}
}

// A workspace that is busy is not a wrong address.
func TestBusyWorkspace(t *testing.T) {
	for _, request := range []string{"GET /api/2.1/unity-catalog/catalogs/shop", "POST /api/2.0/sql/statements"} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			w := newWorkspace(t)
			w.answer = func(out http.ResponseWriter, r *http.Request) bool {
				if r.Method+" "+r.URL.Path != request {
					return false
				}
				out.WriteHeader(status)
				return true
			}
			_, err := w.run(t)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("HTTP %d; the workspace is busy or not available, so run the same command again later", status)) {
				t.Errorf("%s, %d: got %v", request, status, err)
			}
		}
	}
}

// Where the page's path is not served, each permission that discovery lacks is named.
func TestDiscoveryLacksAPermission(t *testing.T) {
	for path, want := range map[string]string{
		"/api/2.1/unity-catalog/metastore_summary":            "zerobus.endpoint",
		"/api/2.1/unity-catalog/current-metastore-assignment": "zerobus.endpoint",
	} {
		w := newWorkspace(t, func(c *emulator.Config) { c.NoWorkspaceHeader, c.NoEndpointURL = true, true })
		w.SetIngestAPI(false)
		w.answer = func(out http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != path {
				return false
			}
			out.WriteHeader(http.StatusForbidden)
			fmt.Fprint(out, `{"error_code":"PERMISSION_DENIED","message":"no"}`)
			return true
		}
		report, err := w.run(t)
		if err == nil || report == nil {
			t.Fatalf("%s: got %+v, %v", path, report, err)
		}
		var failed []string
		for _, s := range report.Steps {
			if s.Status == "failed" {
				failed = append(failed, s.Error)
			}
		}
		if len(failed) != 1 || !strings.Contains(failed[0], strings.TrimPrefix(path, "/api/2.1/unity-catalog/")) || !strings.Contains(failed[0], want) {
			t.Errorf("%s: got %q, want one step that names it and %s", path, failed, want)
		}
		if !strings.Contains(report.Next, "run the same command again") {
			t.Errorf("%s: got next %q", path, report.Next)
		}
	}
}
