package docs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/mapping"
)

// schemaOf compiles one of the schemas in docs/schema, which validates it against
// draft 2020-12. A test of cmd/bridge keeps the files current.
func schemaOf(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "docs", "schema", name+".schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkYAML validates a document against a schema, as editors do.
func checkYAML(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return err
	}
	asJSON, err := json.Marshal(v)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// The schema accepts what the reader accepts: every blueprint of the mapping's
// tests, the built-in one and the starter.
func TestBlueprintSchemaTakesWhatTheReaderTakes(t *testing.T) {
	schema := schemaOf(t, "blueprint")
	starter, err := os.ReadFile(filepath.Join(root, "cmd/bridge/starter/blueprint.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	blueprints := map[string][]byte{"starter": starter}
	for _, name := range mapping.Builtins() {
		blueprints[name+".yaml"], _ = mapping.Builtin(name)
	}
	cases, err := filepath.Glob(filepath.Join(root, "mapping/testdata/*.txtar"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases of the mapping: %v", err)
	}
	for _, name := range cases {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name == "blueprint.yaml" {
				blueprints[name] = f.Data
			}
		}
	}
	checked := 0
	for name, text := range blueprints {
		if _, err := mapping.Parse(name, text); err != nil {
			continue
		}
		checked++
		if err := checkYAML(t, schema, text); err != nil {
			t.Errorf("%s: the reader accepts it, the schema does not: %v", name, err)
		}
	}
	if checked < 20 {
		t.Errorf("got %d blueprints, want all those of the mapping's tests", checked)
	}
}

func TestBlueprintSchemaRefusesWhatTheReaderRefuses(t *testing.T) {
	schema := schemaOf(t, "blueprint")
	for _, text := range []string{
		"extends: default\n",
		"version: 1\nextends: default\n",
		"version: 2\nextends: other\n",
		"version: 2\nglobals: {}\n",
		"version: 2\nextends: default\nfilter: true\n",
		"version: 2\nextends: default\ndelivery_mode: client_side\n",
		"version: 2\nextends: default\ndefaults: {action: forwrad}\n",
		"version: 2\nextends: default\nevents: {a: {vendor_event_name: x}}\n",
		"version: 2\nextends: default\nglobal: {enrichments: [{a: b}]}\n",
		"version: 2\nglobal: {mappings: [{source: a}]}\n",
		"version: 2\nglobal: {mappings: [{sorce: a, target: a}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a.b}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a, transform: lowr}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a, transform: date_format, format: epoch}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, expression: a, target: a}]}\n",
		"version: 2\nglobal: {mappings: [{source: [], target: a}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a, default_value: [1]}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a, value_map: {}}]}\n",
		"version: 2\nglobal: {mappings: [{source: a, target: a, optional: maybe}]}\n",
		"version: 2\nglobal: {mappings: [{expression: 1, target: a}]}\n",
	} {
		if _, err := mapping.Parse("x.yaml", []byte(text)); err == nil {
			t.Errorf("%q: the reader accepts it", text)
		}
		if err := checkYAML(t, schema, []byte(text)); err == nil {
			t.Errorf("%q: the schema accepts it", text)
		}
	}
}

// The schema accepts a file that the loader accepts, and refuses one that the
// loader refuses for the type of a value.
func TestConfigSchemaAgreesWithTheLoader(t *testing.T) {
	schema := schemaOf(t, "config")
	example, err := os.ReadFile(filepath.Join(root, "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkYAML(t, schema, example); err != nil {
		t.Errorf("config.example.yaml: %v", err)
	}
	for _, tc := range []struct {
		text string
		fine bool
	}{
		{"kafka: {brokers: 'a:9092,b:9092', topic: t}\n", true},
		{"kafka: {bootstrap_servers: [a]}\n", true},
		{"kafka: {sasl: {mechanism: SCRAM_SHA_256, username: u, password: p}, tls: {enabled: 'TRUE'}}\n", true},
		{"kafka: {start: Latest, session_timeout: 45s, fetch_max_bytes: 4 mib}\n", true},
		{"delivery: {max_rows: '100', max_bytes: 4194304, drain: 0m20s, linger: 0}\n", true},
		{"zerobus: {rate_limit: 0.5, client_secret: 12345}\n", true},
		{"zerobus:\nmapping: {require_consent: [analytics], blueprint: }\n", true},
		{"deployment: eu\nintegrations_dir: ''\nintegrations:\n", true},
		{"integrations: {orders: {kafka: {topic: orders}, zerobus: {table: a.b.c, client_secret: s}, enabled: 'False'}}\n", true},
		{"integrations: {a: , b-2: {rejects: {policy: Skip}, mapping: , delivery: {max_rows: '7', max_bytes: 1MiB}, kafka: {topics: [t], group: g, start: latest}}}\n", true},
		{"integrations: [a]\n", false},
		{"integrations: {Orders: {}}\n", false},
		{"integrations: {default: {}}\n", false},
		{"integrations: {kafka: {}}\n", false},
		{"integrations: {orders: {kafka: {brokers: [b]}}}\n", false},
		{"integrations: {orders: {ops: {address: ':1'}}}\n", false},
		{"integrations: {orders: {delivery: {drain: 1s}}}\n", false},
		{"integrations: {orders: {kafka: {start: soon}}}\n", false},
		{"integrations: {orders: {enabled: maybe}}\n", false},
		{"integrations: {orders: {integrations: {}}}\n", false},
		{"enabled: true\n", false},
		{"kafka: {broker: a}\n", false},
		{"kafkas: {}\n", false},
		{"kafka: [a]\n", false},
		{"kafka: {start: soon}\n", false},
		{"kafka: {brokers: {a: b}}\n", false},
		{"kafka: {session_timeout: 45}\n", false},
		{"kafka: {session_timeout: 45 seconds}\n", false},
		{"kafka: {fetch_max_bytes: 4 megabytes}\n", false},
		{"kafka: {fetch_max_bytes: -1}\n", false},
		{"kafka: {tls: {enabled: maybe}}\n", false},
		{"delivery: {max_rows: many}\n", false},
		{"delivery: {max_rows: 1.5}\n", false},
		{"zerobus: {rate_limit: fast}\n", false},
		{"zerobus: {table: [a]}\n", false},
		{"log: {level: chatty}\n", false},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.LoadDeployment(config.Options{File: file, FileRequired: true, Partial: true})
		if (err == nil) != tc.fine {
			t.Errorf("%q: got %v of the loader, want fine: %t", tc.text, err, tc.fine)
		}
		if err := checkYAML(t, schema, []byte(tc.text)); (err == nil) != tc.fine {
			t.Errorf("%q: got %v of the schema, want fine: %t", tc.text, err, tc.fine)
		}
	}
}
