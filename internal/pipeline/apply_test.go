package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

// unconnected is a pipeline that is connected to nothing.
func unconnected(t *testing.T) (p *Pipeline, cfg *config.Config) {
	t.Helper()
	c := config.Defaults()
	c.Kafka.Topics = []string{"events"}
	c.Kafka.SASL = kafka.SASL{Mechanism: "plain", Username: "bridge", Password: "p1"}
	z := &c.Zerobus
	z.WorkspaceURL, z.ClientID, z.ClientSecret, z.Catalog, z.Schema, z.Table = "http://127.0.0.1:1", "id", "s1", "c", "s", "t"
	p, err := New(Config{Settings: &c}, Deps{Log: zap.NewNop(), Metrics: ops.NewMetrics("", nil, true).Integration("default", KnownLabels(&c))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, &c
}

// tableWith is the table of the built-in blueprint with more columns.
func tableWith(t *testing.T, p *Pipeline, more ...string) []zerobus.Column {
	t.Helper()
	m, err := p.schema.CompileWithoutTable("")
	if err != nil {
		t.Fatal(err)
	}
	columns := RowColumns(m)
	for _, name := range more {
		columns = append(columns, zerobus.Column{Name: name, Type: "STRING", Position: len(columns)})
	}
	return columns
}

func blueprintFile(t *testing.T, target string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blueprint.yaml")
	text := "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.x, target: " + target + "}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// carries reports whether a row made now has the column.
func carries(p *Pipeline, column string) bool {
	var out consumer.Batch
	event := `{"type":"page","message_id":"m","properties":{"x":"y"},"context":{"page":{"title":"t"}}}`
	out.Add(&kgo.Record{Topic: "events", Value: []byte(event)}, p.schema.NewMapper())
	return len(out.Rows()) == 1 && strings.Contains(string(out.Rows()[0]), `"`+column+`":`)
}

// The ways to give a blueprint follow each other while the pipeline runs. One that is not
// valid changes nothing, and the error names its line.
func TestApplyBlueprints(t *testing.T) {
	p, cfg := unconnected(t)
	if _, err := p.schema.SetTable("", tableWith(t, p, "of_text", "of_file")); err != nil {
		t.Fatal(err)
	}
	const text = "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.x, target: of_text}\n"
	for _, tc := range []struct {
		set     func(*config.Config)
		changed string // "": an error
		carries string
		digest  bool
	}{
		{func(c *config.Config) { c.Mapping.BlueprintText = text }, "mapping.blueprint_text", "of_text", true},
		{func(c *config.Config) { c.Mapping.BlueprintText = text + "x: y\n" }, "", "of_text", true},
		{func(c *config.Config) { c.Mapping.Blueprint = blueprintFile(t, "of_file") }, "mapping.blueprint", "of_file", true},
		{func(c *config.Config) { c.Mapping.Variant = "nowhere" }, "", "of_file", true},
		{func(*config.Config) {}, "mapping.blueprint", "", false},
	} {
		next := new(*cfg)
		tc.set(next)
		changed, _, err := p.Apply(t.Context(), next, false)
		if (err == nil) != (tc.changed != "") || err == nil && !strings.Contains(strings.Join(changed, " "), tc.changed) {
			t.Errorf("%s: got %v, %v", tc.changed, changed, err)
		}
		if next.Mapping.BlueprintText != "" && err != nil && !strings.HasPrefix(err.Error(), "mapping.blueprint_text:6:1: ") {
			t.Errorf("got %v, want the line", err)
		}
		if carries(p, "of_text") != (tc.carries == "of_text") || carries(p, "of_file") != (tc.carries == "of_file") || (p.schema.Digest() != "") != tc.digest {
			t.Errorf("%s: got rows with %t %t, want %s", tc.changed, carries(p, "of_text"), carries(p, "of_file"), tc.carries)
		}
	}
	for _, optional := range []bool{false, true} {
		next := new(*cfg)
		next.Mapping.BlueprintText = text
		if m, err := CompileOffline(next, optional); err != nil || !slices.ContainsFunc(RowColumns(m), func(c zerobus.Column) bool { return c.Name == "of_text" }) {
			t.Errorf("CompileOffline: got %v, want the column of the text", err)
		}
	}
}

// Secrets are read from the settings in force when they are needed.
func TestApplyChangesSecretsAndSettings(t *testing.T) {
	p, cfg := unconnected(t)
	s := newSecrets(p.Settings, zap.NewNop())
	asked, kafka := s.client.Get, p.kafka.SASL.ReadPassword
	next := new(*cfg)
	next.Zerobus.ClientSecret, next.Kafka.SASL.Password, next.Log.Level = "s2", "p2", "debug"
	next.Zerobus.Timeout++
	changed, pending, err := p.Apply(t.Context(), next, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(changed, pending), "[kafka.sasl.password zerobus.client_secret log.level] [zerobus.timeout]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := asked(); got != "s2" || err != nil {
		t.Errorf("got secret %q, %v, want s2", got, err)
	}
	if got, err := kafka(); got != "p2" || err != nil {
		t.Errorf("got password %q, %v, want p2", got, err)
	}
}

// A blueprint that does not fit leaves everything as it was, settings included.
func TestApplyIsAllOrNothing(t *testing.T) {
	p, cfg := unconnected(t)
	if _, err := p.schema.SetTable("cluster", tableWith(t, p, "extra")); err != nil {
		t.Fatal(err)
	}
	before, digest := p.schema.Current(), p.BlueprintDigest()
	next := new(*cfg)
	next.Mapping.Blueprint, next.Zerobus.ClientSecret, next.Log.Level = blueprintFile(t, "missing"), "s2", "debug"
	_, _, err := p.Apply(t.Context(), next, false)
	if err == nil || !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "blueprint.yaml:5:") {
		t.Errorf("got %v, want column and place named", err)
	}
	if p.schema.Current() != before || p.BlueprintDigest() != digest || p.Settings() != cfg {
		t.Error("something of a refused configuration is in force")
	}
	next.Mapping.Blueprint = blueprintFile(t, "extra")
	if _, _, err := p.Apply(t.Context(), next, false); err != nil || !carries(p, "extra") || p.BlueprintDigest() == digest {
		t.Errorf("got %v, want the blueprint that fits in force", err)
	}
}

// Before the table is read, start-up uses the new blueprint.
func TestApplyBeforeTheTableIsRead(t *testing.T) {
	p, cfg := unconnected(t)
	columns := tableWith(t, p, "extra")
	next := new(*cfg)
	next.Mapping.Blueprint = blueprintFile(t, "extra")
	if _, _, err := p.Apply(t.Context(), next, true); err != nil {
		t.Fatal(err)
	}
	if p.schema.Current() != nil {
		t.Error("rules were made without a table")
	}
	if _, err := p.schema.SetTable("cluster", columns); err != nil || !carries(p, "extra") {
		t.Errorf("got %v, want rules by the new blueprint", err)
	}
}

// Columns and blueprint may change at once; the rules are made of both in the
// end, whichever was last.
func TestApplyAndChangedColumnsDoNotConflict(t *testing.T) {
	p, cfg := unconnected(t)
	narrow := tableWith(t, p, "extra")
	wide := append(narrow[:len(narrow):len(narrow)], zerobus.Column{Name: "page_title", Type: "STRING", Position: len(narrow)})
	if _, err := p.schema.SetTable("cluster", narrow); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		one, two := new(*cfg), new(*cfg)
		one.Mapping.Blueprint, two.Mapping.Blueprint = blueprintFile(t, "extra"), ""
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, next := range []*config.Config{one, two, one} {
				if _, _, err := p.Apply(t.Context(), next, false); err != nil {
					t.Errorf("reload: %v", err)
				}
			}
		})
		wg.Go(func() {
			for _, columns := range [][]zerobus.Column{wide, narrow, wide} {
				p.schema.OnColumnsChanged(columns, nil)
			}
		})
		wg.Wait()
		if !carries(p, "extra") || !carries(p, "page_title") {
			t.Fatal("the rules lack a column that blueprint and table agree on")
		}
		if _, _, err := p.Apply(t.Context(), two, false); err != nil || carries(p, "extra") || !carries(p, "page_title") {
			t.Fatalf("got %v, want the built-in blueprint on the wide table", err)
		}
		p.schema.OnColumnsChanged(narrow, nil)
	}
}
