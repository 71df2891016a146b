package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/zerobus/emulator"
)

// deploymentWithStore is a configuration with a store, in a Kafka and beside a workspace of
// the test.
type deploymentWithStore struct {
	t      *testing.T
	dir    string
	broker kafkatest.Broker
	url    string // of the workspace
}

const typedSecret = "s3cr3t-of-the-test"

func newStoreDeployment(t *testing.T) *deploymentWithStore {
	t.Helper()
	d := &deploymentWithStore{t: t, dir: t.TempDir(), broker: kafkatest.StartFake(t, kafkatest.Options{})}
	d.broker.CreateTopic(t, "orders", 1, nil)
	ws, err := emulator.New(emulator.Config{ClientSecret: typedSecret})
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close(context.WithoutCancel(t.Context())) })
	d.url = ws.URL()
	d.write("key-1", strings.Repeat("1", 32))
	d.write("secret", typedSecret+"\n")
	d.configure("key-1")
	return d
}

func (d *deploymentWithStore) write(name, text string) string {
	d.t.Helper()
	file := filepath.Join(d.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return file
}

// configure writes the configuration, with these sealing keys.
func (d *deploymentWithStore) configure(keys ...string) {
	d.t.Helper()
	for i, key := range keys {
		keys[i] = filepath.Join(d.dir, key)
	}
	d.write("config.yaml", "kafka: {brokers: ["+strings.Join(d.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+strings.Join(keys, ", ")+"]}\n"+
		"integrations: {web: {kafka: {topics: [web]}, zerobus: {table: a.b.web, client_id: i, client_secret: s, workspace_url: "+d.url+"}}}\n")
}

// run runs bridge integrations and wants the exit code.
func (d *deploymentWithStore) run(code int, args ...string) said {
	d.t.Helper()
	got := command(append([]string{"integrations", args[0], "--config", filepath.Join(d.dir, "config.yaml")}, args[1:]...)...)
	if got.code != code {
		d.t.Fatalf("bridge integrations %s: got exit code %d, want %d; stdout:\n%s\nstderr:\n%s", strings.Join(args, " "), got.code, code, got.stdout, got.stderr)
	}
	if strings.Contains(got.stdout+got.stderr, typedSecret) {
		d.t.Errorf("bridge integrations %s: the secret is in\n%s\n%s", strings.Join(args, " "), got.stdout, got.stderr)
	}
	return got
}

// install installs orders.
func (d *deploymentWithStore) install(args ...string) said {
	d.t.Helper()
	return d.run(exitFine, append([]string{"install", "name=Orders EU", "slug=orders", "workspace_url=" + d.url, "client_id=" + emulator.DefaultClientID, "catalog=datafly", "schema=events", "table=stream",
		"source.topics=orders", "--secret-file", filepath.Join(d.dir, "secret"), "--reason", "a first one"}, args...)...)
}

func contains(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s: got\n%s\nwant %q in it", what, text, want)
		}
	}
}

func TestInstallByCommand(t *testing.T) {
	d := newStoreDeployment(t)
	got := d.install("--dry-run")
	contains(t, "dry run", got.stdout, "dry run, nothing is changed; would be: orders (int_", "action: start", "config.table", `"stream"`, "CREATE TABLE", "GRANT", "fingerprint", "token ")
	if n := strings.Count(got.stdout, "GRANT USE CATALOG"); n != 1 {
		t.Errorf("got\n%s\nwith %d grants of the catalog, want one", got.stdout, n)
	}
	if list := d.run(exitFine, "list").stdout; strings.Contains(list, "orders") || !strings.Contains(list, "web ") || strings.Contains(list, "warning") {
		t.Errorf("after a dry run: got\n%s\nwant web alone", list)
	}

	var result struct {
		Integration struct {
			ID, Slug, Name string
			Revision       int
			Config         map[string]any
		}
		DryRun bool `json:"dry_run"`
		Action string
		Checks []struct{ Step, Status string }
	}
	got = d.install("delivery.max_rows=123", "enabled=false", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || result.DryRun || result.Integration.Revision != 1 || result.Action != "none" || len(result.Checks) == 0 {
		t.Fatalf("got %v and %s", err, got.stdout)
	}
	if secret, ok := result.Integration.Config["client_secret"].(map[string]any); !ok || secret["set"] != true {
		t.Errorf("got secret %v, want that it is set", result.Integration.Config["client_secret"])
	}
	contains(t, "list", d.run(exitFine, "list").stdout, "orders       no       orders  zerobus-bridge-orders  datafly.events.stream", "orders-dlq-orders", "store, revision 1", "web          yes")
	contains(t, "show", d.run(exitFine, "show", "orders").stdout, "max_rows: 123 # the store, revision 1", "client_secret: '[redacted]'", "table: stream")
	contains(t, "an unknown one", d.run(exitUsage, "show", "order").stderr, "there is no integration order; there is orders, web")

	// The body of the API's call, with a pair that wins over it.
	body := d.write("install.json", `{"name":"Databricks (Zerobus Ingest)","variant":"retail","config":{"workspace_url":"`+d.url+`","client_id":"x","catalog":"datafly","schema":"events","table":"other"},"source":{"topics":["orders"]},"delivery_mode":"server_side"}`)
	t.Setenv("BRIDGE_ZEROBUS_CLIENT_SECRET", typedSecret)
	got = d.run(exitFine, "install", "--file", body, "name=From a file", "enabled=false", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || result.Integration.Slug != "from-a-file" || result.Integration.Config["table"] != "other" {
		t.Errorf("got %v and %s", err, got.stdout)
	}
	sealed := result.Integration.Config["client_secret"]

	// A file of its own for the secret wins over the body, too.
	body = d.write("secret.json", `{"name":"Other","config":{"workspace_url":"`+d.url+`","client_id":"x","client_secret":"another","catalog":"datafly","schema":"events","table":"more"},"source":{"topics":["orders"]},"enabled":false}`)
	got = d.run(exitFine, "install", "--file", body, "--secret-file", filepath.Join(d.dir, "secret"), "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || !reflect.DeepEqual(result.Integration.Config["client_secret"], sealed) {
		t.Errorf("got %v and %v, want the secret of the file, %v", err, result.Integration.Config["client_secret"], sealed)
	}
}

func TestInstallNamesWhatIsWrong(t *testing.T) {
	d := newStoreDeployment(t)
	got := d.run(exitUsage, "install", "name=Orders", "workspace_url=https://evil.example", "client_id=x", "catalog=a", "schema=b", "table=c", "source.topics=orders", "--secret-file", filepath.Join(d.dir, "secret"))
	contains(t, "a foreign host", got.stderr, "config.workspace_url", "store.allowed_hosts", "try: bridge integrations install --help")
	got = d.run(exitUsage, "install", "name=Orders", "client_id=x", "source.start=never")
	contains(t, "several", got.stderr, " problems\n", "config.workspace_url is required", "config.client_secret", "config.table is required", "source.start")
	got = d.run(exitUsage, "install", "client_secret="+typedSecret, "slug", "enabled=perhaps")
	contains(t, "pairs", got.stderr, "3 problems", "client_secret is a secret", "--secret-file", "slug is no KEY=VALUE", "enabled is neither true nor false")
	contains(t, "a file", d.run(exitUsage, "install", "--file", filepath.Join(d.dir, "absent")).stderr, "--file ", "name a file with the JSON of an install")
	contains(t, "a misspelt field", d.run(exitUsage, "install", "--file", d.write("misspelt.json", `{"name":"Orders","enabeld":false}`)).stderr, "enabeld")
	contains(t, "a secret", d.run(exitUsage, "install", "--secret-file", filepath.Join(d.dir, "absent")).stderr, "--secret-file: ")
	contains(t, "a file's integration", d.run(exitUsage, "set", "web", "table=x").stderr, "web is described by ", "change it there")
	contains(t, "an unknown one", d.run(exitUsage, "disable", "orders").stderr, "there is no integration", "try: bridge integrations list")

	none := deployment(t, "")
	if got := command("integrations", "export", "--config", none); got.code != exitUsage || !strings.Contains(got.stderr, "store.enabled: true") || !strings.Contains(got.stderr, "try: bridge help config store") {
		t.Errorf("without a store: got exit code %d and %s", got.code, got.stderr)
	}
}

func TestSetComparesAndShows(t *testing.T) {
	d := newStoreDeployment(t)
	d.install()
	contains(t, "dry run", d.run(exitFine, "set", "orders", "delivery.max_rows=77", "name=Orders", "--dry-run").stdout, "would be: orders (int_", "changed; revision 2; action: ", "KEY", "BEFORE", "AFTER", "delivery.max_rows", "77", `"Orders EU"`)
	contains(t, "no revision", d.run(exitUsage, "set", "orders", "table=x", "--revision", "-1").stderr, "--revision")
	contains(t, "another revision", d.run(exitFailed, "set", "orders", "table=x", "--revision", "7").stderr, "revision 1, not at 7")
	d.run(exitFine, "set", "orders", "delivery.max_rows=77", "source.topics=orders, refunds", "--revision", "1", "--reason", "more topics")
	contains(t, "show", d.run(exitFine, "show", "orders").stdout, "max_rows: 77", "topics: [orders, refunds]")
	d.run(exitFine, "set", "orders", "delivery.max_rows=")
	if shown := d.run(exitFine, "show", "orders").stdout; strings.Contains(shown, "max_rows: 77") {
		t.Errorf("got\n%s\nwant the default of max_rows", shown)
	}

	contains(t, "another destination", d.run(exitUsage, "set", "orders", "client_id=other").stderr, "config.client_secret must be given again")
	t.Setenv("BRIDGE_ZEROBUS_CLIENT_SECRET", "another")
	d.run(exitUsage, "set", "orders", "client_id=other") // only what is asked for is taken from the environment
	contains(t, "a new secret", d.run(exitFine, "set", "orders", "client_id=other", "--new-secret").stdout, "config.client_id", "config.client_secret")

	good := d.write("good.yaml", "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.x, target: x}\n")
	bad := d.write("bad.yaml", "version: 2\nglobal:\n  mappings:\n    - {source: a, target: b, type: NUMBERS}\n")
	contains(t, "a blueprint", d.run(exitFine, "set", "orders", "--blueprint", good).stdout, "blueprint")
	contains(t, "a bad blueprint", d.run(exitUsage, "set", "orders", "--blueprint", bad).stderr, "blueprint", "4:", "NUMBERS")

	d.run(exitFine, "disable", "orders", "--reason", "pause")
	contains(t, "disable", d.run(exitFine, "list").stdout, "orders       no ")
	contains(t, "enable", d.run(exitFine, "enable", "orders").stdout, "enabled; revision ", "action: start")
	history := d.run(exitFine, "history", "orders").stdout
	contains(t, "history", history, "REVISION", "integration.disabled", "integration.enabled", "a first one", "more topics", "pause", "source.topics")
	contains(t, "one revision", d.run(exitFine, "history", "orders", "--revision", "2").stdout, "more topics", `["orders"]`, `["orders","refunds"]`)
	d.run(exitUsage, "history", "orders", "--revision", "99")
	var answer struct{ Revisions []struct{ Revision int } }
	if err := json.Unmarshal([]byte(d.run(exitFine, "history", "orders", "--output", "json").stdout), &answer); err != nil || len(answer.Revisions) != strings.Count(history, "integration.") {
		t.Errorf("got %v and %+v", err, answer)
	}

	contains(t, "remove", d.run(exitFine, "remove", "orders", "--dry-run").stdout, "would be: orders (int_", "removed", "kafka-consumer-groups.sh")
	d.run(exitFine, "remove", "orders")
	contains(t, "again", d.run(exitUsage, "remove", "orders").stderr, "there is no integration")
}

func TestBackupAndRotation(t *testing.T) {
	d := newStoreDeployment(t)
	d.install()
	export := d.run(exitFine, "export").stdout
	contains(t, "export", export, "store_id: store_", "orders:", "table: stream")
	file := d.write("export.yaml", export)
	d.run(exitFine, "remove", "orders")
	contains(t, "dry run", d.run(exitFine, "import", file, "--dry-run").stdout, "would be", "orders: added")
	contains(t, "before", d.run(exitFine, "list").stdout, "web")
	d.run(exitFine, "import", file, "--reason", "a mistake")
	contains(t, "after", d.run(exitFine, "show", "orders").stdout, "table: stream")
	d.run(exitUsage, "import", d.write("no.yaml", "- x\n"))
	d.run(exitUsage, "import", filepath.Join(d.dir, "absent"))

	d.write("key-2", strings.Repeat("2", 32))
	d.configure("key-2", "key-1")
	contains(t, "dry run", d.run(exitFine, "reseal", "--dry-run").stdout, "would be: resealed: orders")
	contains(t, "reseal", d.run(exitFine, "reseal").stdout, "resealed: orders;")
	contains(t, "again", d.run(exitFine, "reseal").stdout, "resealed: -; sealed with the first key already, or without a secret: orders")
	d.configure("key-2")
	d.run(exitFine, "show", "orders")
	d.configure("key-1")
	contains(t, "the wrong key", d.run(exitFailed, "reseal").stdout, "orders: ")
	contains(t, "the wrong key", d.run(exitFine, "list").stdout, "blocked, ")
}

// --integration names installed integrations, too.
func TestCommandsOnAnInstalledIntegration(t *testing.T) {
	d := newStoreDeployment(t)
	d.install("enabled=false")
	at := []string{"--config", filepath.Join(d.dir, "config.yaml"), "--integration", "orders"}
	for _, tc := range []struct {
		code  int
		args  []string
		wants string
	}{
		{exitFine, []string{"replay", "--to", "earliest"}, "zerobus-bridge-orders"},
		{exitFine, []string{"dlq", "list"}, "orders-dlq-orders"},
		{exitFine, []string{"ddl"}, "`datafly`.`events`.`stream`"},
		{exitFine, []string{"check"}, "orders -> datafly.events.stream"},
		{exitUsage, []string{"replay", "--to", "earliest", "--group", "other"}, "--group is not for an integration of the store"},
		{exitUsage, []string{"replay", "--to", "earliest", "--integration", "order"}, "there is no integration order; there is orders, web"},
		{exitFailed, []string{"replay", "--to", "earliest", "--brokers", "127.0.0.1:1"}, "connecting to kafka"},
		{exitUsage, []string{"run", "--from", "earliest", "--until", "now", "--group", "other"}, `"orders" is no integration of the configuration`},
	} {
		words := 1
		if tc.args[0] == "dlq" {
			words = 2
		}
		got := command(slices.Insert(slices.Clone(tc.args), words, at...)...)
		if got.code != tc.code || !strings.Contains(got.stdout+got.stderr, tc.wants) {
			t.Errorf("bridge %s: got exit code %d, want %d, and\n%s%s\nwant %q in it", strings.Join(tc.args, " "), got.code, tc.code, got.stdout, got.stderr, tc.wants)
		}
	}
}

func TestListWithoutKafka(t *testing.T) {
	d := newStoreDeployment(t)
	got := d.run(exitFine, "list", "--brokers", "127.0.0.1:1")
	contains(t, "list", got.stdout, "web ", "warning: the installed integrations are missing here: ")
	var answer struct {
		Store struct {
			Read  bool
			Error string
		}
	}
	if err := json.Unmarshal([]byte(d.run(exitFine, "list", "--brokers", "127.0.0.1:1", "--output", "json").stdout), &answer); err != nil || answer.Store.Read || answer.Store.Error == "" {
		t.Errorf("got %v and %+v, want that the store was not read", err, answer)
	}
}

func TestNamesOfInstalledIntegrationsAreCompleted(t *testing.T) {
	d := newStoreDeployment(t)
	d.install()
	for _, sub := range []string{"set", "enable", "disable", "remove", "history"} {
		if got := complete(t, "integrations", sub, "--config", filepath.Join(d.dir, "config.yaml"), ""); !slices.Contains(got, "orders") || slices.Contains(got, "web") {
			t.Errorf("%s: got %q, want orders", sub, got)
		}
	}
	if got := complete(t, "integrations", "set", "--config", filepath.Join(d.dir, "absent.yaml"), ""); !slices.Equal(got, []string{":4"}) {
		t.Errorf("without a configuration: got %q, want nothing", got)
	}
}

// Values of changes are of whoever could write to the store.
func TestChangesAreEscaped(t *testing.T) {
	var b strings.Builder
	writeWarnings(&b, terminal.Style{}, []string{"a\x1b[2J\nb"})
	(&changeFlags{dryRun: true}).writeHead(&b, "x\x1b[2J")
	if text := b.String(); strings.Contains(text, "\x1b") || bytes.Count([]byte(text), []byte("\n")) != 2 {
		t.Errorf("got %q, want no control characters", text)
	}
}
