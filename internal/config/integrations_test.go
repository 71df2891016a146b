package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// base has what integrations share; it describes none itself.
const base = `
zerobus:
  workspace_url: https://abc.cloud.databricks.com
  client_id: app
  client_secret: hush
  catalog: c
  schema: s
`

const orders = "orders: {kafka: {topics: [orders]}, zerobus: {table: orders}}\n"

// below indents the text, as under integrations.
func below(text string) string {
	return "integrations:\n  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ") + "\n"
}

// folder returns a folder with the files, by name.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func deployment(t testing.TB, o config.Options) map[string]config.Integration {
	t.Helper()
	d, err := config.LoadDeployment(o)
	if err != nil {
		t.Fatalf("LoadDeployment: %v", err)
	}
	all := map[string]config.Integration{}
	for _, i := range d.Integrations {
		all[i.Name] = i
	}
	return all
}

// A file without integrations is the integration default, as it was before there were
// others.
func TestAFileOfOneIntegration(t *testing.T) {
	file := write(t, complete)
	d, err := config.LoadDeployment(config.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	one := load(t, config.Options{File: file})
	if len(d.Integrations) != 1 || d.Base != d.Integrations[0].Config || fmt.Sprintf("%+v", d.Base) != fmt.Sprintf("%+v", one) {
		t.Fatalf("got %+v, want what Load returns", d)
	}
	if i := d.Integrations[0]; i.Name != "default" || !i.Enabled || i.Config.Kafka.Group != "zerobus-bridge" || i.Source != file || i.Line != 10 {
		t.Errorf("got %+v, want default, from line 10 of %s", i, file)
	}
	if got := load(t, config.Options{File: file, Sets: []string{"deployment=eu"}}).Kafka.Group; got != "eu" {
		t.Errorf("group: got %q, want the name of the deployment", got)
	}
}

// Which value of a key an integration has. The overlay of x is a line of keys.
func TestOverlays(t *testing.T) {
	other := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(other, []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sets := func(sets ...string) config.Options { return config.Options{Sets: sets} }
	env := func(env ...string) config.Options { return config.Options{Env: env} }
	full := strings.Replace(base, "catalog: c\n  schema: s", "table: a.b.d", 1)
	for _, tc := range []struct {
		name, base, overlay string
		options             config.Options
		key, want           string // of the integration, as text
	}{
		{"of the base", "", "", sets(), "zerobus.client_id", "app"},
		{"group", "", "", sets(), "kafka.group", "zerobus-bridge-x"},
		{"group and deployment", "deployment: eu\n", "", sets(), "kafka.group", "eu-x"},
		{"group and deployment by flag", "deployment: eu\n", "", sets("deployment=us"), "kafka.group", "us-x"},
		{"group of the base", "kafka.group: b\n", "", sets(), "kafka.group", "zerobus-bridge-x"},
		{"group of the environment", "", "", env("KAFKA_CONSUMER_GROUP=b"), "kafka.group", "zerobus-bridge-x"},
		{"own group", "", "kafka.group: mine", sets(), "kafka.group", "mine"},
		{"over the file", "mapping.input: mapped\n", "mapping: {input: canonical}", sets(), "mapping.input", "canonical"},
		{"over the environment", "", "mapping: {input: canonical}", env("BRIDGE_MAPPING_INPUT=mapped"), "mapping.input", "canonical"},
		{"--set", "", "mapping: {input: canonical}", sets("integrations.x.mapping.input=mapped"), "mapping.input", "mapped"},
		{"the later --set", "", "", sets("integrations.x.mapping.input=canonical", " integrations.x.mapping.input =mapped"), "mapping.input", "mapped"},
		{"of the environment", "", "", env("BRIDGE_MAPPING_INPUT=mapped"), "mapping.input", "mapped"},
		{"a list", "mapping.require_consent: [a, b]\n", "mapping: {require_consent: [d]}", sets(), "mapping.require_consent", "d"},
		{"alias", "kafka.topics: [base]\n", "kafka: {topic: one}", sets(), "kafka.topics", "one"},
		{"alias by --set", "", "kafka.topics: [one]", sets("integrations.x.kafka.topic=two"), "kafka.topics", "two"},
		{"start", "kafka.start: latest\n", "kafka.start: Earliest", sets(), "kafka.start", "earliest"},
		{"rows", "", "delivery: {max_rows: 7}", sets(), "delivery.max_rows", "7"},
		{"bytes", "", "delivery.max_bytes: 1024KiB", sets(), "delivery.max_bytes", "1MiB"},
		{"rejects", "", "rejects: {policy: skip}", sets(), "rejects.policy", "skip"},
		{"normal form", "", "zerobus.workspace_url: 'x.example/?o=1'", sets(), "zerobus.workspace_url", "https://x.example"},
		{"full name", "", "zerobus.table: a.b.d", sets(), "zerobus.catalog", "a"},
		{"full name and schema", "", "zerobus: {table: a.b.d, schema: b}", sets(), "zerobus.schema", "b"},
		{"full name by --set", "", "zerobus: {catalog: z, table: t}", sets("integrations.x.zerobus.table=a.b.d"), "zerobus.catalog", "a"},
		{"table beside a full name", full, "zerobus.table: e", sets(), "zerobus.catalog", "a"},
		{"schema beside a full name", full, "zerobus.schema: e", sets(), "zerobus.schema", "e"},
		{"file for secret", "", "zerobus.client_secret_file: " + other, sets(), "zerobus.client_secret", ""},
		{"file for secret", "", "zerobus.client_secret_file: " + other, sets(), "zerobus.client_secret_file", other},
		{"secret for file", strings.Replace(base, "client_secret: hush", "client_secret_file: "+other, 1), "zerobus.client_secret: mine", sets(), "zerobus.client_secret_file", ""},
		{"file by --set", "", "zerobus.client_secret: mine", sets("integrations.x.zerobus.client_secret_file=" + other), "zerobus.client_secret", ""},
		{"token for secret", "", "zerobus.token_exchange.token_file: " + other, sets(), "zerobus.client_secret", ""},
		{"token for secret", "", "zerobus.token_exchange.token_file: " + other, sets(), "zerobus.token_exchange.token_file", other},
		{"file for token", strings.Replace(base, "client_secret: hush", "token_exchange: {token_file: "+other+"}", 1), "zerobus.client_secret_file: " + other, sets(), "zerobus.token_exchange.token_file", ""},
		{"secret beside an empty file", "", "zerobus: {client_secret: mine, client_secret_file: ''}", sets(), "zerobus.client_secret", "mine"},
		{"empty file", "", "zerobus.client_secret_file: ''", sets(), "zerobus.client_secret", "hush"},
		{"without a value", "mapping.input: mapped\n", "mapping: {input: }", sets(), "mapping.input", "mapped"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.base
			if !strings.Contains(text, "zerobus:") {
				text += base
			}
			text += "integrations:\n  x:\n    " + tc.overlay + "\n    rejects.create: true\n"
			if !strings.Contains(tc.overlay, "topic") {
				text += "    kafka.topics: [t]\n"
			}
			if !strings.Contains(tc.overlay, "table") {
				text += "    zerobus.table: t\n"
			}
			if tc.base == full {
				text += "kafka.topics: [of-default]\n"
				text = strings.Replace(text, "    zerobus.table: t\n", "", 1)
			}
			tc.options.File = write(t, text)
			all := deployment(t, tc.options)
			i, found := all["x"]
			if !found || len(all) != map[bool]int{true: 2, false: 1}[tc.base == full] {
				t.Fatalf("got %v, want x, and default where the base names a table", all)
			}
			if got := textOf(i.Config, tc.key); got != tc.want {
				t.Errorf("%s: got %q, want %q in\n%s", tc.key, got, tc.want, text)
			}
			if i.Config.Rejects.Integration != "x" {
				t.Errorf("got %q as the name in rejects", i.Config.Rejects.Integration)
			}
			tc.options.Integration = "x"
			if one := load(t, tc.options); fmt.Sprintf("%+v", one) != fmt.Sprintf("%+v", i.Config) {
				t.Errorf("Load: got %+v, want %+v", one, i.Config)
			}
		})
	}
}

// textOf returns the value of a key as text, secrets too.
func textOf(c *config.Config, path string) string {
	if path == "zerobus.client_secret" {
		return c.Zerobus.ClientSecret.Reveal()
	}
	for _, k := range config.Keys() {
		if k.Path == path {
			return k.Text(c)
		}
	}
	return "no such key"
}
