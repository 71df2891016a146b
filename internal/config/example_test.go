package config_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/setting"
)

const exampleFile = "../../config.example.yaml"

// samples are the keys whose value in the example is not a default.
var samples = map[string]any{
	"kafka.topics":          []string{"datafly-events"},
	"zerobus.workspace_url": "https://abc-12345.cloud.databricks.com",
	"zerobus.client_id":     "00000000-0000-0000-0000-000000000000",
	"zerobus.client_secret": setting.Secret("YOUR_CLIENT_SECRET"),
	"zerobus.catalog":       "datafly",
	"zerobus.schema":        "events",
	"zerobus.table":         "stream",
}

func TestExampleFileHoldsTheDefaults(t *testing.T) {
	got, err := config.Load(config.Options{File: exampleFile, FileRequired: true})
	if err != nil {
		t.Fatal(err)
	}
	defaults := config.Defaults()
	wants := leaves(reflect.ValueOf(defaults), "")
	for path, value := range leaves(reflect.ValueOf(*got), "") {
		want, sample := samples[path]
		if !sample {
			want = wants[path]
		}
		if !reflect.DeepEqual(value, want) {
			t.Errorf("%s: got %#v, want %#v", path, value, want)
		}
		if path == "zerobus.client_secret" && value.(setting.Secret).Reveal() != "YOUR_CLIENT_SECRET" {
			t.Errorf("%s: not the sample value", path)
		}
	}
}

var tradeOff = regexp.MustCompile(`\b(Trade-off|Higher|Lower)\b`)

func TestExampleFileHoldsEveryKeyExplained(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	var walk func(n *yaml.Node, prefix string)
	walk = func(n *yaml.Node, prefix string) {
		comment := ""
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			path := strings.TrimPrefix(prefix+"."+key.Value, ".")
			if key.HeadComment != "" {
				comment = key.HeadComment
			} else if !strings.HasSuffix(key.Value, "_file") {
				t.Errorf("line %d: %s has no comment above it", key.Line, path)
			}
			if value.Kind == yaml.MappingNode {
				walk(value, path)
				continue
			}
			got[path] = true
			if !strings.Contains(comment, "Default: ") && !strings.Contains(comment, "Required") {
				t.Errorf("line %d: the comment above %s gives neither its default nor that it is required", key.Line, path)
			}
			if _, sample := samples[path]; !sample && !tradeOff.MatchString(comment) {
				t.Errorf("line %d: the comment above %s names no trade-off", key.Line, path)
			}
		}
	}
	walk(doc.Content[0], "")
	want := leaves(reflect.ValueOf(config.Config{}), "")
	for path := range want {
		if !got[path] {
			t.Errorf("%s is missing from config.example.yaml", path)
		}
	}
	delete(got, "integrations") // no key, but what holds keys
	if len(got) != len(want) {
		t.Errorf("got %d keys, want %d", len(got), len(want))
	}
}

// leaves returns the settings of a Config by dotted path.
func leaves(v reflect.Value, prefix string) map[string]any {
	all := map[string]any{}
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		path := prefix + name
		if name == "" || name == "-" {
			continue
		}
		if v.Field(i).Kind() == reflect.Struct {
			for p, value := range leaves(v.Field(i), path+".") {
				all[p] = value
			}
			continue
		}
		all[path] = v.Field(i).Interface()
	}
	return all
}
