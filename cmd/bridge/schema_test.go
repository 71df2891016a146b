package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// What the schemas accept is tested in test/docs.

var updateSchemas = flag.Bool("update", false, "write docs/schema")

func TestSchemasInDocsAreCurrent(t *testing.T) {
	for _, name := range schemaNames {
		want, err := schemaText(name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("..", "..", "docs", "schema", name+".schema.json")
		if *updateSchemas {
			if err := os.WriteFile(file, want, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what bridge schema %s prints (%v); run go test ./cmd/bridge -run Schemas -update", file, name, err)
		}
	}
}

// Every key of the configuration is there with what it means and its default.
func TestConfigSchemaDescribesEveryKey(t *testing.T) {
	example, err := document("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	root, err := config.JSONSchema(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range config.Keys() {
		at := root
		for _, name := range strings.Split(k.Path, ".") {
			properties, _ := at["properties"].(map[string]any)
			at, _ = properties[name].(map[string]any)
		}
		about, _ := at["description"].(string)
		if len(about) < 40 || !strings.Contains(about, k.Env) {
			t.Errorf("%s: got %q, want what the key means and its variable", k.Path, about)
		}
		if _, has := at["default"]; has == k.Required && k.Type != "secret" {
			t.Errorf("%s: got default %v, want one unless the key is required", k.Path, at["default"])
		}
	}
}
