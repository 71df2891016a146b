package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/reload"
)

// reloadable is an app that is connected to nothing.
func reloadable(t *testing.T) (a *App, cfg *config.Config, logs *observer.ObservedLogs) {
	t.Helper()
	c := config.Defaults()
	c.Kafka.Topics = []string{"events"}
	c.Kafka.SASL = kafka.SASL{Mechanism: "plain", Username: "bridge", Password: "p1"}
	z := &c.Zerobus
	z.WorkspaceURL, z.ClientID, z.ClientSecret, z.Catalog, z.Schema, z.Table = "http://127.0.0.1:1", "id", "s1", "c", "s", "t"
	core, logs := observer.New(zap.InfoLevel)
	level := zap.NewAtomicLevel()
	a, err := New(t.Context(), Options{Deployment: config.Single(&c), Log: zap.New(core), Level: &level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(context.WithoutCancel(t.Context())) })
	return a, &c, logs
}

// A refusal is logged once, and so is what resolves it.
func TestReloadsAreLoggedOnce(t *testing.T) {
	a, _, logs := reloadable(t)
	bad := errors.New("config.yaml:3: one\nconfig.yaml:4: two")
	for range 3 {
		a.reloadFailed(reload.Retry, bad, nil)
	}
	if got := logs.FilterMessageSnippet("was not reloaded").Len(); got != 1 {
		t.Errorf("got %d lines about one refusal, want 1", got)
	}
	if got := a.reloads.now(); got.State != ops.ReloadFailed || got.Error != "config.yaml:3: one | config.yaml:4: two" || got.Generation != 1 {
		t.Errorf("got %+v, want it failed for both", got)
	}
	a.reloadFailed(reload.File, errors.New(strings.Repeat("x\n", 400)), nil)
	if got := a.reloads.now().Error; got != "x | x | x | x | x | and 395 more; bridge check lists them all" {
		t.Errorf("got %q, want the first five", got)
	}
	for range 2 {
		a.reloaded(reload.Retry, nil, []string{"kafka.topics"})
	}
	if got := logs.FilterMessage("kafka.topics changed; takes effect after a restart").Len(); got != 1 {
		t.Errorf("got %d lines about what is pending, want 1", got)
	}
	if got := a.reloads.now(); got.State != ops.ReloadOK || got.Error != "" || got.Generation != 1 || len(got.PendingRestart) != 1 {
		t.Errorf("got %+v, want it resolved and one key pending", got)
	}
	a.reloaded(reload.File, []string{"log.level"}, nil)
	if got := a.reloads.now(); got.Generation != 2 || len(got.PendingRestart) != 0 {
		t.Errorf("got %+v, want generation 2 and nothing pending", got)
	}
}

// While a file is being written, or after it was removed, the configuration must
// not fall back to flags and environment alone: to another blueprint, say.
func TestSourceRequiresItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	s := &source{inForce: func() []string { return nil },
		options: config.Options{File: path, Env: []string{"BRIDGE_KAFKA_TOPICS=events", "BRIDGE_ZEROBUS_WORKSPACE_URL=https://a.example",
			"BRIDGE_ZEROBUS_CLIENT_ID=id", "BRIDGE_ZEROBUS_CLIENT_SECRET=s", "BRIDGE_ZEROBUS_TABLE=c.s.t"}}}
	level := func(when, want, fault string) {
		t.Helper()
		got, err := s.load()
		switch {
		case fault == "" && (err != nil || got.Base.Log.Level != want):
			t.Errorf("%s: got %v, want level %s", when, err, want)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: got %v, want it refused, with %q", when, err, fault)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level("never there", "info", "")
	write("log: {level: debug}\n")
	level("there", "debug", "")
	write("")
	level("emptied", "", "is empty")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	level("removed", "", "cannot be opened")
	write("log: {level: warn}\n")
	level("back", "warn", "")
}

// A reload sets the level of the log, and /status shows it without secrets.
func TestReloadSetsTheLogLevel(t *testing.T) {
	a, cfg, _ := reloadable(t)
	before := a.digest()
	next := new(*cfg)
	next.Zerobus.ClientSecret, next.Log.Level = "s2", "debug"
	if _, _, err := a.reload(t.Context(), config.Single(next), false); err != nil {
		t.Fatal(err)
	}
	if got := a.o.Level.Level(); got != zap.DebugLevel {
		t.Errorf("got level %v, want debug", got)
	}
	if got := shown(t, a.Status().Integrations[0]); strings.Contains(got, "s2") || !strings.Contains(got, `"level":"debug"`) {
		t.Errorf("got configuration %s, want the level in force and no secret", got)
	}
	if a.digest() == before {
		t.Error("got the same hash for another log level, want another one")
	}
}

// What is refused of one integration leaves that one and the process as they are. The
// others change, with the keys of the process as they are in force.
func TestReloadThatIsRefusedInPart(t *testing.T) {
	s := newStage(t)
	one, two := s.lane("one"), s.lane("two")
	level := zap.NewAtomicLevel()
	a, stop := s.start(Options{Deployment: deployment(one.spec(), two.spec()), Log: zap.NewNop(), Level: &level, Version: "test"})
	defer stop()
	s.eventually("both ready", func() bool { return a.of("one").Ready && a.of("two").Ready })
	process := []string{"log.level=debug", "kafka.fetch_max_bytes=3MiB"}
	moved := s.newTable("moved")
	next := func(blueprint string) *config.Deployment {
		return deployment(one.spec(append(process, "mapping.blueprint="+blueprint)...), two.integration("two", two.topic, moved, append(process, "kafka.protocol=consumer")...))
	}
	bad := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(bad, []byte("version: 2\nextends: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, _, err := a.reload(t.Context(), next(bad), true)
	if err == nil || !strings.HasPrefix(err.Error(), "integration one: ") || len(changed) != 1 || changed[0] != "integrations.two.zerobus.table" {
		t.Errorf("got %v, and %q changed, want the first refused and the table of the second", err, changed)
	}
	if level.Level() != zap.InfoLevel {
		t.Errorf("got level %v, want it as it was", level.Level())
	}
	a.reloadFailed(reload.File, err, changed)
	if got := a.reloads.now(); got.State != ops.ReloadFailed || got.Generation != 2 {
		t.Errorf("got %+v, want it failed, and generation 2 of the second", got)
	}
	s.eventually("the second with the other table", func() bool { return a.of("two").Table == moved && a.of("two").Ready })
	changed, pending, err := a.reload(t.Context(), next(""), true)
	if err != nil || level.Level() != zap.DebugLevel || !slices.Equal(changed, []string{"log.level"}) || !slices.Equal(pending, []string{"kafka.fetch_max_bytes"}) {
		t.Errorf("got %v, level %v, %q changed, %q pending; want the level changed and one key pending", err, level.Level(), changed, pending)
	}
	for _, name := range []string{"one", "two"} {
		if got := shown(t, a.of(name)); strings.Contains(got, `"fetch_max_bytes":"3`) || !strings.Contains(got, `"fetch_max_bytes":`) {
			t.Errorf("%s: got %s, want the fetch size in force", name, got)
		}
	}
}

// The memory plan follows the integrations that are enabled.
func TestMemoryFollowsTheIntegrations(t *testing.T) {
	c := config.Defaults()
	all := []config.Integration{{Name: "a", Enabled: true, Config: &c}, {Name: "b", Enabled: true, Config: &c}, {Name: "c", Config: &c}}
	l := newMemoryLimit(zap.NewNop())
	bound := func() int64 { return l.keeper.State().Bound }
	l.plan(all[:1])
	one := bound()
	l.plan(all)
	two := bound()
	l.resize("b", 3, 40)
	resized := bound()
	l.resize("c", 3, 40) // it is disabled
	if one >= two || two >= resized || bound() != resized {
		t.Errorf("got bounds %d, %d, %d and %d, want each larger than the one before, and the last the same", one, two, resized, bound())
	}
	l.plan(all) // a reload keeps what is known
	if bound() != resized {
		t.Errorf("got bound %d after a reload, want %d", bound(), resized)
	}
	if got := l.descriptorsNeeded(); got <= ownDescriptors {
		t.Errorf("got %d descriptors needed, want those of the partitions too", got)
	}
	l.plan(all[:1])
	if bound() != one {
		t.Errorf("got bound %d after two were removed, want %d", bound(), one)
	}
}

// Integrations that start together have one line about memory, and those that leave none.
func TestMemoryPlanIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		l := newMemoryLimit(zap.New(core))
		c := config.Defaults()
		c.Delivery.MaxBuffered, c.Kafka.FetchMaxBytes = 1<<20, 1<<20
		var all []config.Integration
		for i := range 20 {
			all = append(all, config.Integration{Name: fmt.Sprintf("i%d", i), Enabled: true, Config: &c})
		}
		l.plan(all)
		resize := func(brokers, partitions int) {
			for _, i := range all {
				l.resize(i.Name, brokers, partitions)
				<-time.After(50 * time.Millisecond)
			}
			<-time.After(plannedAfter)
			synctest.Wait()
		}
		want := func(lines int, partitions int64) {
			t.Helper()
			got := logs.FilterMessage("memory planned").TakeAll()
			if len(got) != lines {
				t.Fatalf("got %d lines, want %d", len(got), lines)
			}
			if lines > 0 && got[0].ContextMap()["partitions"] != partitions {
				t.Errorf("got %v partitions, want %d", got[0].ContextMap()["partitions"], partitions)
			}
			logs.TakeAll()
		}
		resize(3, 2)
		want(1, 40)
		resize(3, 1)
		want(0, 0)
		resize(3, 4)
		want(1, 80)
		l.resize("i0", 3, 9)
		l.end()
		resize(3, 10)
		want(0, 0)
	})
}
