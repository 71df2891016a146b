package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// target is what a record holds at least, beside its topics.
func target(more map[string]any) map[string]any {
	all := map[string]any{"workspace_url": "https://own.cloud.databricks.com", "client_id": "own", "client_secret": "own-secret", "catalog": "c", "schema": "s", "table": "t"}
	for key, value := range more {
		all[key] = value
	}
	return all
}

func read(t *testing.T, text string, sets ...string) *config.Deployment {
	t.Helper()
	d, err := config.LoadDeployment(config.Options{File: write(t, text), Sets: sets})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A store takes the place of a table in the configuration.
func TestADeploymentWithAStoreOnly(t *testing.T) {
	for _, set := range []string{"store.enabled=true", "admin.enabled=true"} {
		d := read(t, "deployment: eu\n", set)
		if len(d.Integrations) != 0 || !d.Base.Store.Enabled || d.Base.Store.Topic != "eu-integrations" || d.Base.Rejects.Integration != "" {
			t.Errorf("%s: got %+v with %d integrations, want a store and none", set, d.Base.Store, len(d.Integrations))
		}
		dir := t.TempDir()
		if d := read(t, "integrations_dir: "+dir+"\n", set); len(d.Integrations) != 0 {
			t.Errorf("%s and an empty folder: got %d integrations, want none", set, len(d.Integrations))
		}
		o := config.Options{File: write(t, ""), Sets: []string{set}}
		if _, err := config.Load(o); err == nil || !strings.Contains(err.Error(), "describes no integration") {
			t.Errorf("%s: Load: got %v, want that there is no integration", set, err)
		}
		o.Partial = true
		if c, err := config.Load(o); err != nil || c.Kafka.Group != "zerobus-bridge" {
			t.Errorf("%s: partial Load: got %+v, %v, want the base", set, c, err)
		}
		o = config.Options{File: write(t, "ops: {address: x}\nkafka: {brokers: ['a b']}\n"), Sets: []string{set}}
		if _, err := config.LoadDeployment(o); len(config.Problems(err)) != 2 {
			t.Errorf("%s: got %v, want the problems of the base", set, err)
		}
	}
}

// Which of the three ways to name a blueprint is in force.
func TestBlueprintAlternatives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(file, []byte("version: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const text = "  version: 2\n  extends: default\n"
	of := func(c *config.Config) string { return c.Mapping.Blueprint + "|" + c.Mapping.BlueprintText }
	d := read(t, base+"mapping: {blueprint: "+file+"}\n"+below(orders+"x: {kafka.topics: [x], zerobus.table: x, mapping: {blueprint_text: v}}\ny: {kafka.topics: [y], zerobus.table: y, mapping: {variant: default}}"))
	for n, want := range []string{file + "|", "|v", "|"} {
		if got := of(d.Integrations[n].Config); got != want {
			t.Errorf("%s: got %q, want %q", d.Integrations[n].Name, got, want)
		}
	}
	c, err := config.Load(config.Options{File: write(t, complete+"mapping: {blueprint: "+file+"}\n"), Env: []string{"BRIDGE_MAPPING_BLUEPRINT_TEXT=" + text}})
	if err != nil || of(c) != "|"+text {
		t.Errorf("got %q, %v, want the text of the environment as it is", of(c), err)
	}
	c, err = config.Load(config.Options{File: write(t, complete), Env: []string{"BRIDGE_MAPPING_BLUEPRINT_TEXT=" + text}, Sets: []string{"mapping.blueprint=" + file}})
	if err != nil || of(c) != file+"|" {
		t.Errorf("got %q, %v, want the file of --set", of(c), err)
	}
	_, err = config.Load(config.Options{File: write(t, complete+"mapping: {blueprint: "+file+", blueprint_text: hush}\n")})
	if err == nil || !strings.Contains(err.Error(), "mapping.blueprint_text must not be set together with mapping.blueprint; keep one") {
		t.Errorf("got %v, want that both are given", err)
	}
}

func TestOverlay(t *testing.T) {
	const inherited = "deployment: eu\nkafka: {topics: [shared], group: of-default}\nrejects.policy: skip\n"
	d := read(t, complete+"delivery.max_rows: 9\n")
	i, err := d.Overlay("web", "store", map[string]any{
		"kafka": map[string]any{"topics": []any{"a", "b"}, "start": "latest"}, "zerobus": target(map[string]any{"rate_limit": 2.5, "gzip": true, "streams": float64(3)}),
		"mapping": map[string]any{"blueprint_text": " version: 2\n"}, "enabled": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := i.Config
	if i.Name != "web" || i.Enabled || i.Source != "store" || c.Rejects.Integration != "web" || c.Kafka.Group != "zerobus-bridge-web" || c.Kafka.Start != "latest" ||
		!slices.Equal(c.Kafka.Topics, []string{"a", "b"}) || c.Zerobus.ClientSecret.Reveal() != "own-secret" || c.Zerobus.RateLimit != 2.5 || !c.Zerobus.Gzip || c.Zerobus.Streams != 3 ||
		c.Mapping.BlueprintText != " version: 2\n" || c.Delivery.MaxRows != 9 || c.Zerobus.Table != "t" || c.Zerobus.WorkspaceURL != "https://own.cloud.databricks.com" {
		t.Errorf("got %+v %+v", i, c)
	}
	i, err = read(t, inherited, "store.enabled=true").Overlay("web", "store", map[string]any{"zerobus": target(nil)})
	if err != nil || !i.Enabled || i.Config.Kafka.Group != "eu-web" || !slices.Equal(i.Config.Kafka.Topics, []string{"shared"}) || i.Config.Rejects.Policy != "skip" {
		t.Errorf("got %+v, %v, want the topics and the policy of the base", i.Config, err)
	}
	if one, err := config.Single(load(t, config.Options{File: write(t, complete+"delivery.max_rows: 9\n")})).Overlay("web", "store", map[string]any{"zerobus": target(nil)}); err != nil || one.Config.Delivery.MaxRows != 9 {
		t.Errorf("of a single integration: got %+v, %v, want its values", one.Config, err)
	}
}

func TestProblemsOfRecords(t *testing.T) {
	d := read(t, complete)
	topics := map[string]any{"topics": []any{"a"}}
	for _, tc := range []struct {
		name, slug string
		values     map[string]any
		want       []string
	}{
		{"nothing is inherited", "web", map[string]any{"kafka": topics}, []string{"zerobus.workspace_url", "zerobus.client_id", "zerobus.client_secret", "zerobus.catalog", "zerobus.schema", "zerobus.table"}},
		{"unknown", "web", map[string]any{"kafka": topics, "zerobus": target(map[string]any{"tabel": "x"})}, []string{"zerobus.tabel"}},
		{"number for text", "web", map[string]any{"kafka": topics, "zerobus": target(map[string]any{"client_id": float64(5)})}, []string{"zerobus.client_id"}},
		{"number for secret", "web", map[string]any{"kafka": topics, "zerobus": target(map[string]any{"client_secret": float64(5)})}, []string{"zerobus.client_secret"}},
		{"numbers in a list", "web", map[string]any{"kafka": map[string]any{"topics": []any{float64(1)}}, "zerobus": target(nil)}, []string{"kafka.topics"}},
		{"object for text", "web", map[string]any{"kafka": topics, "zerobus": target(map[string]any{"schema": map[string]any{"a": "b"}})}, []string{"zerobus.schema"}},
		{"text for a section", "web", map[string]any{"kafka": topics, "zerobus": "x"}, []string{"zerobus"}},
		{"of the process", "web", map[string]any{"kafka": map[string]any{"topics": []any{"a"}, "brokers": []any{"b"}}, "zerobus": target(nil)}, []string{"kafka.brokers"}},
		{"name", "Web", map[string]any{}, []string{"name"}},
		{"reserved", "default", map[string]any{}, []string{"name"}},
		{"section", "store", map[string]any{}, []string{"name"}},
	} {
		_, err := d.Overlay(tc.slug, "store", tc.values)
		var got []string
		for _, p := range config.Problems(err) {
			got = append(got, p.Key)
			if p.Remedy == "" || p.Integration != tc.slug || strings.Contains(p.Error(), "BRIDGE_") || strings.Contains(p.Error(), "own-secret") {
				t.Errorf("%s: got %v, want a remedy for %s without a variable", tc.name, p, tc.slug)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got problems of %v, want %v: %v", tc.name, got, tc.want, err)
		}
	}
}

func TestBeside(t *testing.T) {
	d := read(t, complete)
	record := func(name string, enabled bool, kafka, more map[string]any) config.Integration {
		i, err := d.Overlay(name, "store", map[string]any{"kafka": kafka, "zerobus": target(more), "enabled": enabled})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	on := func(topics ...any) map[string]any { return map[string]any{"topics": topics} }
	for _, tc := range []struct {
		name string
		more []config.Integration
		want map[string][]string // words of the problem, by name
	}{
		{"none", []config.Integration{record("a", true, on("x"), nil), record("b", true, on("y"), nil)}, nil},
		{"table", []config.Integration{record("a", true, on("x"), nil), record("b", true, on("y", "x"), nil)}, map[string][]string{"b": {"integration a", "in the table twice"}}},
		{"other order", []config.Integration{record("b", true, on("y", "x"), nil), record("a", true, on("x"), nil)}, map[string][]string{"a": {"integration b"}}},
		{"other table", []config.Integration{record("a", true, on("x"), nil), record("b", true, on("x"), map[string]any{"table": "u"})}, nil},
		{"disabled", []config.Integration{record("a", true, on("x"), nil), record("b", false, on("x"), nil)}, nil},
		{"of a file", []config.Integration{record("a", true, on("events"), map[string]any{"workspace_url": "https://abc.cloud.databricks.com", "catalog": "c", "schema": "s", "table": "t"})},
			map[string][]string{"a": {"integration default", "in the table twice"}}},
		{"group", []config.Integration{record("a", true, map[string]any{"topics": []any{"x"}, "group": "zerobus-bridge"}, nil)}, map[string][]string{"a": {"group of the integration default"}}},
		{"reads dead letters", []config.Integration{record("a", true, on("events-dlq"), nil)}, map[string][]string{"a": {"kafka.topics", "dead letters of the integration default"}}},
		{"dead letters are read", []config.Integration{record("a", true, on("x-dlq-b"), nil), record("b", true, on("x"), nil)}, map[string][]string{"b": {"rejects.topic", "source topic of the integration a"}}},
		{"a refused one reserves nothing", []config.Integration{record("a", true, on("x"), nil), record("b", true, on("x", "y"), nil), record("c", true, on("y"), nil)}, map[string][]string{"b": {"integration a"}}},
	} {
		fit, problems := d.Beside(tc.more)
		if len(fit)+len(problems) != len(tc.more) || len(problems) != len(tc.want) {
			t.Errorf("%s: got %d that fit and problems %v", tc.name, len(fit), problems)
		}
		for name, words := range tc.want {
			for _, word := range append(words, "integration "+name) {
				if problems[name] == nil || !strings.Contains(problems[name].Error(), word) {
					t.Errorf("%s: got %v, want %q of %s", tc.name, problems[name], word, name)
				}
			}
		}
	}
	var many []config.Integration
	one := record("a", true, on("x"), nil)
	for n := range 257 {
		c := *one.Config
		c.Kafka.Topics, c.Kafka.Group = []string{strings.Repeat("t", n+1)}, strings.Repeat("g", n+1)
		many = append(many, config.Integration{Name: strings.Repeat("n", n+1), Enabled: true, Config: &c})
	}
	if fit, problems := d.Beside(many); len(fit) != 255 || len(problems) != 2 {
		t.Errorf("got %d that fit and %d problems, want 255 beside the one of the file", len(fit), len(problems))
	}
}
