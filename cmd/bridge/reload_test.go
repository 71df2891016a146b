package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

// reloadable is a bridge that is connected to nothing.
func reloadable(t *testing.T) (b *bridge, cfg *config.Config, logs *observer.ObservedLogs) {
	t.Helper()
	c := config.Defaults()
	c.Kafka.Topics = []string{"events"}
	c.Kafka.SASL = config.SASL{Mechanism: "plain", Username: "bridge", Password: "p1"}
	z := &c.Zerobus
	z.WorkspaceURL, z.ClientID, z.ClientSecret, z.Catalog, z.Schema, z.Table = "http://127.0.0.1:1", "id", "s1", "c", "s", "t"
	core, logs := observer.New(zap.InfoLevel)
	b, err := newBridge(&c, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b, &c, logs
}

// tableWith is the table of the built-in blueprint with more columns.
func tableWith(t *testing.T, b *bridge, more ...string) []zerobus.Column {
	t.Helper()
	m, err := b.schema.CompileWithoutTable("")
	if err != nil {
		t.Fatal(err)
	}
	columns := pipeline.RowColumns(m)
	for _, name := range more {
		columns = append(columns, zerobus.Column{Name: name, Type: "STRING", Position: len(columns)})
	}
	return columns
}

func planFile(t *testing.T, target string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blueprint.yaml")
	text := "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: properties.x, target: " + target + "}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// carries tells whether a row made now has the column.
func carries(b *bridge, column string) bool {
	var out consumer.Batch
	event := `{"type":"page","message_id":"m","properties":{"x":"y"},"context":{"page":{"title":"t"}}}`
	out.Add(&kgo.Record{Topic: "events", Value: []byte(event)}, b.schema.NewMapper())
	return len(out.Rows()) == 1 && strings.Contains(string(out.Rows()[0]), `"`+column+`":`)
}

// Secrets are those in force when they are asked for, level and rate with them.
func TestReloadTakesSecretsAndSettings(t *testing.T) {
	b, cfg, _ := reloadable(t)
	asked, kafka := b.zerobusConfig().ClientSecret, b.consumerConfig().Kafka.SASL.Password
	next := new(*cfg)
	next.Zerobus.ClientSecret, next.Kafka.SASL.Password, next.Log.Level = "s2", "p2", "debug"
	next.Zerobus.Timeout++
	taken, waiting, err := b.reload(t.Context(), next, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(taken, waiting), "[kafka.sasl.password zerobus.client_secret log.level] [zerobus.timeout]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := asked(); got != "s2" || err != nil {
		t.Errorf("got secret %q, %v, want s2", got, err)
	}
	if got, err := kafka(); got != "p2" || err != nil {
		t.Errorf("got password %q, %v, want p2", got, err)
	}
	if got := b.level.Level(); got != zap.DebugLevel {
		t.Errorf("got level %v, want debug", got)
	}
	if got := fmt.Sprint(b.snapshot().Config); strings.Contains(got, "s2") || !strings.Contains(got, "level:debug") {
		t.Errorf("got configuration %s, want the level in force and no secret", got)
	}
}

// A blueprint that does not fit leaves everything as it was, settings included.
func TestReloadIsAllOrNothing(t *testing.T) {
	b, cfg, _ := reloadable(t)
	if _, err := b.schema.SetTable("cluster", tableWith(t, b, "extra")); err != nil {
		t.Fatal(err)
	}
	before, was := b.schema.Current(), b.digest()
	next := new(*cfg)
	next.Mapping.Blueprint, next.Zerobus.ClientSecret, next.Log.Level = planFile(t, "missing"), "s2", "debug"
	_, _, err := b.reload(t.Context(), next, false)
	if err == nil || !strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "blueprint.yaml:5:") {
		t.Errorf("got %v, want column and place named", err)
	}
	if b.schema.Current() != before || b.digest() != was || b.settings.Load() != cfg || b.level.Level() != zap.InfoLevel {
		t.Error("something of a refused configuration is in force")
	}
	next.Mapping.Blueprint = planFile(t, "extra")
	if _, _, err := b.reload(t.Context(), next, false); err != nil || !carries(b, "extra") || b.digest() == was {
		t.Errorf("got %v, want the blueprint that fits in force", err)
	}
}

// Before the table was read a new blueprint is what start-up will go by.
func TestReloadBeforeTheTableIsRead(t *testing.T) {
	b, cfg, _ := reloadable(t)
	columns := tableWith(t, b, "extra")
	next := new(*cfg)
	next.Mapping.Blueprint = planFile(t, "extra")
	if _, _, err := b.reload(t.Context(), next, true); err != nil {
		t.Fatal(err)
	}
	if b.schema.Current() != nil {
		t.Error("rules were made without a table")
	}
	if _, err := b.schema.SetTable("cluster", columns); err != nil || !carries(b, "extra") {
		t.Errorf("got %v, want rules by the new blueprint", err)
	}
}

// Columns and blueprint may change at once; the rules are made of both in the
// end, whichever was last.
func TestReloadAndDriftCannotPassEachOther(t *testing.T) {
	b, cfg, _ := reloadable(t)
	narrow := tableWith(t, b, "extra")
	wide := append(narrow[:len(narrow):len(narrow)], zerobus.Column{Name: "page_title", Type: "STRING", Position: len(narrow)})
	if _, err := b.schema.SetTable("cluster", narrow); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		one, two := new(*cfg), new(*cfg)
		one.Mapping.Blueprint, two.Mapping.Blueprint = planFile(t, "extra"), ""
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, next := range []*config.Config{one, two, one} {
				if _, _, err := b.reload(context.Background(), next, false); err != nil {
					t.Errorf("reload: %v", err)
				}
			}
		})
		wg.Go(func() {
			for _, columns := range [][]zerobus.Column{wide, narrow, wide} {
				b.schema.OnColumnsChanged(columns, nil)
			}
		})
		wg.Wait()
		if !carries(b, "extra") || !carries(b, "page_title") {
			t.Fatal("the rules lack a column that blueprint and table agree on")
		}
		if _, _, err := b.reload(context.Background(), two, false); err != nil || carries(b, "extra") || !carries(b, "page_title") {
			t.Fatalf("got %v, want the built-in blueprint on the wide table", err)
		}
		b.schema.OnColumnsChanged(narrow, nil)
	}
}

// Refusals are said once, and what mends them as well.
func TestReloadsAreToldOnce(t *testing.T) {
	b, _, logs := reloadable(t)
	bad := errors.New("config.yaml:3: one\nconfig.yaml:4: two")
	for range 3 {
		b.refused(byRetry, bad)
	}
	if got := logs.FilterMessageSnippet("was not reloaded").Len(); got != 1 {
		t.Errorf("got %d lines about one refusal, want 1", got)
	}
	if got := b.reloads.now(); got.State != ops.ReloadFailed || got.Error != "config.yaml:3: one | config.yaml:4: two" || got.Generation != 1 {
		t.Errorf("got %+v, want it failed for both", got)
	}
	b.refused(byFile, errors.New(strings.Repeat("x\n", 400)))
	if got := b.reloads.now().Error; got != "x | x | x | x | x | and 395 more; bridge check tells them all" {
		t.Errorf("got %q, want the first five", got)
	}
	for range 2 {
		b.reloaded(byRetry, nil, []string{"kafka.topics"})
	}
	if got := logs.FilterMessage("kafka.topics changed; takes effect after a restart").Len(); got != 1 {
		t.Errorf("got %d lines about what waits, want 1", got)
	}
	if got := b.reloads.now(); got.State != ops.ReloadOK || got.Error != "" || got.Generation != 1 || len(got.PendingRestart) != 1 {
		t.Errorf("got %+v, want it mended and one key waiting", got)
	}
	b.reloaded(byFile, []string{"log.level"}, nil)
	if got := b.reloads.now(); got.Generation != 2 || len(got.PendingRestart) != 0 {
		t.Errorf("got %+v, want generation 2 and nothing waiting", got)
	}
}
