package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// setupTable does not exist before a set-up.
const setupTable = "shop.raw.orders"

// setupArgs are the six fields without the secret.
func (w *workspace) setupArgs(more ...string) []string {
	return append([]string{"setup", "--workspace-url", w.url, "--client-id", clientID, "--table", setupTable}, more...)
}

// setupReport is `bridge setup --output json`.
type setupReport struct {
	OK      bool `json:"ok"`
	Changed bool `json:"changed"`
	Config  struct {
		Path  string `json:"path"`
		State string `json:"state"`
	} `json:"config"`
	Plan []struct {
		Statement string `json:"statement"`
		State     string `json:"state"`
	} `json:"plan"`
	Steps  []checkStep `json:"steps"`
	Result struct {
		Rows [][]*string `json:"rows"`
	} `json:"result"`
	Next  string `json:"next"`
	Error string `json:"error"`
}

func report(t *testing.T, p *process) setupReport {
	t.Helper()
	var r setupReport
	if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil {
		t.Fatalf("%v in %q; stderr %q", err, p.stdout.String(), p.stderr.String())
	}
	return r
}

// The six values lead to a row in a table that did not exist, and the file that setup wrote
// runs.
func TestSetupFromSixFields(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		workspace emulator.Config
		change    func(ws *workspace)
		env       []string
	}{
		"as the page has it":       {},
		"the path is not served":   {change: func(ws *workspace) { ws.SetIngestAPI(false); must(ws.t, ws.StartZerobus("127.0.0.1:0")) }},
		"HTTP/2 does not pass":     {workspace: emulator.Config{NoHTTP2: true}, change: func(ws *workspace) { ws.SetIngestAPI(false); must(ws.t, ws.StartZerobus("127.0.0.1:0")) }},
		"an administrator creates": {workspace: emulator.Config{NoCreate: true}, env: []string{"DATABRICKS_TOKEN=" + emulator.DefaultAdminToken}},
		"the warehouse is stopped": {change: func(ws *workspace) {
			must(ws.t, ws.SetWarehouses(emulator.Warehouse{ID: "w1", State: emulator.WarehouseStopped, StartUp: emulator.Duration(300 * time.Millisecond)}))
		}},
		"half of it was done before": {workspace: emulator.Config{DDL: "CREATE TABLE shop.raw.orders (event_name STRING, message_id STRING) USING DELTA;"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, kafkatest.StartFake(t, kafkatest.Options{}), setting{workspace: tc.workspace})
			s.e.secret("the administrator's token", emulator.DefaultAdminToken)
			if tc.change != nil {
				tc.change(s.ws)
			}
			dir := t.TempDir()
			env := append([]string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + s.ws.secret}, tc.env...)
			args := s.ws.setupArgs("--brokers", strings.Join(s.broker.Addrs(), ","), "--topics", s.topic, "--output", "json")
			p, code := run(t, s.e, command{args: args, env: env, dir: dir})
			if files, err := os.ReadDir(dir); code != 0 || err != nil || len(files) > 0 || !report(t, p).OK {
				t.Fatalf("plan: got exit code %d, files %v, %v: %s", code, files, err, p.stdout.String())
			}
			p, code = run(t, s.e, command{args: append(args, "--execute"), env: env, dir: dir})
			if r := report(t, p); code != 0 || !r.OK || !r.Changed || len(r.Result.Rows) != 1 || r.Config.State != "written" {
				t.Fatalf("got exit code %d, %s", code, p.stdout.String())
			}
			if p, code = run(t, s.e, command{args: []string{"setup", "--execute", "--output", "json"}, env: tc.env, dir: dir}); code != 0 || report(t, p).Changed {
				t.Fatalf("again: got exit code %d, %s", code, p.stdout.String())
			}
			s.config = filepath.Join(dir, "config.yaml")
			s.beginReady()
			s.p.events(5)
			table := s.ws.Table(setupTable)
			eventually(t, patience, "five events beside the probe row", func() bool { return table.Count() == 6 })
		})
	}
}

// What setup lacks is asked for on a terminal, and the secret is not shown.
func TestSetupAsksOnATerminal(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	ws := newWorkspace(t, e, emulator.Config{})
	w := openTerminal(t, 120)
	dir := t.TempDir()
	p := start(t, e, command{args: []string{"setup", "--execute"}, env: []string{"TERM=xterm"}, dir: dir, tty: w.tty})
	from := 0
	for _, field := range []struct{ question, answer string }{
		{"Workspace URL: ", ws.url}, {"Client id of the service principal: ", clientID}, {"Client secret (not shown): ", ws.secret},
		{"Catalog: ", "shop"}, {"Schema: ", "raw"}, {"Table: ", "orders"},
	} {
		w.wait(t, from, field.question, func(text string) bool { return strings.Contains(text, field.question) })
		from = len(w.String())
		if _, err := w.master.WriteString(field.answer + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	if code := p.wait(patience); code != 0 {
		t.Fatalf("got exit code %d: %s", code, w.close())
	}
	text := w.close()
	if strings.Contains(text, ws.secret) {
		t.Errorf("the secret is shown in %q", text)
	}
	wants(t, coloured.ReplaceAllString(text, ""), setupTable+" on "+ws.url, "GRANT SELECT, MODIFY ON TABLE `shop`.`raw`.`orders` TO `"+clientID+"`;", "probe row           ok", "EVENT_NAME", "bridge-setup-probe",
		"Set kafka.brokers and kafka.topics in config.yaml, then: bridge run --config config.yaml")
	if n := ws.Table(setupTable).Count(); n != 1 {
		t.Errorf("got %d rows, want the probe row", n)
	}
}

// Each flag has its effect.
func TestSetupFlags(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	ws := newWorkspace(t, e, emulator.Config{NoCreate: true})
	e.secret("the administrator's token", emulator.DefaultAdminToken)
	must(t, ws.SetWarehouses(emulator.Warehouse{ID: "w1"}, emulator.Warehouse{ID: "w2"}))
	dir := t.TempDir()
	profile := "[admin]\nhost = " + ws.url + "\ntoken = " + emulator.DefaultAdminToken + "\n"
	must(t, os.WriteFile(filepath.Join(dir, ".databrickscfg"), []byte(profile), 0o600))
	args := []string{"setup", "--workspace-url", ws.url, "--client-id", clientID, "--client-secret-file", ws.file, "--catalog", "shop", "--schema", "raw", "--table", "orders", "--execute"}
	p, code := run(t, e, command{args: args, dir: dir})
	if code != 2 {
		t.Errorf("two warehouses: got exit code %d, want 2", code)
	}
	wants(t, p.stderr.String(), "--warehouse-id with one of w1 (w1, running, 2X-Small), w2 (w2, running, 2X-Small)")
	args = append(args, "--profile", "admin", "--warehouse-id", "w2", "--dedupe-view", "--write", "other.yaml", "--timeout", "1m")
	p, code = run(t, e, command{args: args, env: []string{"HOME=" + dir}, dir: dir})
	if code != 0 {
		t.Fatalf("got exit code %d", code)
	}
	wants(t, p.stdout.String(), "run by          the principal of profile admin", "w2 (w2)", "done            CREATE OR REPLACE VIEW `shop`.`raw`.`orders_deduplicated` AS", "other.yaml, written", "then: bridge run --config other.yaml")
	if _, err := os.Stat(filepath.Join(dir, "config.yaml")); err == nil {
		t.Error("got a config.yaml beside --write other.yaml")
	}
	// The view that it made is no table to write to, and the advice is about the table.
	args = append(args, "--table", "orders_deduplicated", "--write", "view.yaml")
	if p, code = run(t, e, command{args: args, env: []string{"HOME=" + dir}, dir: dir}); code != 1 {
		t.Errorf("a view: got exit code %d", code)
	}
	wants(t, p.stderr.String(), "is of the kind VIEW", "try: bridge help config zerobus.table")
}

// An interrupt ends a statement that waits for its warehouse. The next run continues.
func TestSetupIsInterrupted(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	ws := newWorkspace(t, e, emulator.Config{})
	must(t, ws.SetWarehouses(emulator.Warehouse{ID: "w1", State: emulator.WarehouseStopped, StartUp: emulator.Duration(time.Hour)}))
	dir := t.TempDir()
	c := command{args: ws.setupArgs("--execute"), env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + ws.secret}, dir: dir}
	p := start(t, e, c)
	eventually(t, patience, "the start of the warehouse", func() bool { return ws.Warehouses()[0].State == emulator.WarehouseStarting })
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 1 {
		t.Fatalf("got exit code %d, want 1", code)
	}
	wants(t, p.stderr.String(), "w1 starts", "interrupted")
	if ws.Table(setupTable) != nil {
		t.Error("the table exists although its warehouse has not started")
	}
	must(t, ws.SetWarehouses(emulator.Warehouse{ID: "w1"}))
	if p, code := run(t, e, c); code != 0 || ws.Table(setupTable).Count() != 1 {
		t.Errorf("the next run: got exit code %d, %s", code, p.stdout.String())
	}
}

func TestSetupFails(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	ws := newWorkspace(t, e, emulator.Config{NoCreate: true})
	env := []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + ws.secret}
	wrong := newSecret()
	e.secret("a wrong secret", wrong)
	for _, tc := range []struct {
		args []string
		env  []string
		code int
		want []string
	}{
		{ws.setupArgs("--timeout", "0s"), env, 2, []string{"--timeout is 0s"}},
		{ws.setupArgs("--catalog", "other"), env, 2, []string{"zerobus.catalog", "try: bridge help config zerobus"}},
		{ws.setupArgs(), nil, 2, []string{"zerobus.client_secret", "--client-secret-file"}},
		{ws.setupArgs(), []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + wrong}, 1, []string{"invalid_client", "try: bridge help config zerobus.client"}},
		{ws.setupArgs("--execute", "--write", "absent/config.yaml"), env, 1, []string{"/absent/config.client-secret: ", "--write"}},
		{ws.setupArgs("--execute"), env, 1, []string{"GRANT CREATE CATALOG ON METASTORE TO `" + clientID + "`;", "--profile", "DATABRICKS_TOKEN"}},
	} {
		p, code := run(t, e, command{args: tc.args, env: tc.env})
		if code != tc.code {
			t.Errorf("%q: got exit code %d, want %d: %s", tc.args, code, tc.code, p.stderr.String())
		}
		wants(t, p.stderr.String(), tc.want...)
		if tc.args[len(tc.args)-1] == "0s" {
			continue // the command line is wrong, so there is no answer
		}
		p, code = run(t, e, command{args: append(tc.args, "--output", "json"), env: tc.env})
		if r := report(t, p); code != tc.code || r.OK || r.Error == "" || !strings.Contains(p.stderr.String(), strings.SplitN(r.Error, "\n", 2)[0]) {
			t.Errorf("%q with --output json: got exit code %d, %+v and %s", tc.args, code, r, p.stderr.String())
		}
	}
}
