package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

// localeFrom is a blueprint that feeds the column locale from source.
func localeFrom(source string) string {
	return "version: 2\nextends: default\nglobal:\n  mappings:\n    - {source: " + source + ", target: locale}\n"
}

// What event writes into the fields that locale is fed from here.
const fromUser, fromAnonymous = "u-1", "a-1"

// replace puts text in place of a file, at once.
func replace(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path+".next", []byte(text), 0o600))
	must(t, os.Rename(path+".next", path))
}

// amend adds lines to a section of the configuration that is there already, or
// a section of its own.
func (s *stage) amend(section string, lines ...string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	must(s.t, err)
	added := section + ":\n  " + strings.Join(lines, "\n  ") + "\n"
	if head := section + ":\n"; strings.Contains(string(text), head) {
		replace(s.t, s.config, strings.Replace(string(text), head, added, 1))
		return
	}
	replace(s.t, s.config, string(text)+added)
}

// reload waits for a state of the configuration.
func (m *member) reload(what string, holds func(r ops.ReloadStatus) bool) (r ops.ReloadStatus) {
	m.t.Helper()
	eventually(m.t, patience, what, func() bool {
		m.alive()
		r = m.snapshot().Reload
		return holds(r)
	}, func() string { return fmt.Sprintf("got %+v", r) })
	return r
}

func (m *member) generation(n int) ops.ReloadStatus {
	m.t.Helper()
	return m.reload(fmt.Sprintf("generation %d of the configuration", n), func(r ops.ReloadStatus) bool { return r.State == ops.ReloadOK && r.Generation == n })
}

// refusal waits for a reload that failed with these words.
func (m *member) refusal(words ...string) ops.ReloadStatus {
	m.t.Helper()
	return m.reload("a reload refused for "+strings.Join(words, ", "), func(r ops.ReloadStatus) bool {
		return r.State == ops.ReloadFailed && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(r.Error, w) })
	})
}

// metric wants a line of /metrics.
func (m *member) metric(line string) {
	m.t.Helper()
	if _, body := m.get("/metrics", ""); !strings.Contains(body, "\n"+line+"\n") {
		m.t.Errorf("/metrics has no line %q", line)
	}
}

// stays returns a check that the member has kept its place in the group.
func (m *member) stays() (check func()) {
	m.t.Helper()
	was := m.integration()
	return func() {
		m.t.Helper()
		is := m.integration()
		if is.MemberID != was.MemberID || is.Totals.Rebalances != was.Totals.Rebalances {
			m.t.Errorf("got member %s and %d rebalances, want it to have stayed in its group as %s with %d",
				is.MemberID, is.Totals.Rebalances, was.MemberID, was.Totals.Rebalances)
		}
		if is.Totals.EventsRejected != 0 {
			m.t.Errorf("got %d events rejected, want none", is.Totals.EventsRejected)
		}
	}
}

// locales counts the rows by their locale.
func (s *stage) locales() map[string]int {
	by := map[string]int{}
	for _, row := range s.ws.table().Rows(nil) {
		locale, _ := row.Value("locale")
		by[locale]++
	}
	return by
}

// filled produces until a row has the locale; then all that is produced has it.
func (s *stage) filled(m *member, locale string) {
	s.t.Helper()
	before := s.locales()[locale]
	eventually(s.t, patience, "rows with locale "+locale, func() bool {
		s.p.events(3)
		s.rows(m, s.p.total())
		return s.locales()[locale] > before
	})
	before = s.locales()[locale]
	s.p.events(30)
	s.rows(m, s.p.total())
	if got := s.locales()[locale] - before; got != 30 {
		s.t.Errorf("got %d of 30 rows with locale %s once the first was there, want all", got, locale)
	}
}

// A blueprint is replaced under load; one that is wrong is refused, and the one
// before continues until it is resolved.
func TestReloadBlueprint(t *testing.T) {
	t.Parallel()
	t.Run("workspace", func(t *testing.T) { eachReload(t, func(*stage) {}) })
	t.Run("protobuf", func(t *testing.T) {
		eachReload(t, func(s *stage) { s.native("grpc", "record_format: protobuf") })
	})
}

func eachReload(t *testing.T, prepare func(s *stage)) {
	t.Helper()
	set := setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}}}
	eachStage(t, set, func(t *testing.T, s *stage) {
		prepare(s)
		blueprint := file(t, "blueprint.yaml", localeFrom("user_id"))
		s.amend("mapping", "blueprint: "+blueprint)
		m := s.beginReady("delivery.max_rows=50")
		s.p.events(300)
		s.complete(m)
		if got := s.locales(); got[fromUser] != 300 {
			t.Fatalf("got rows by locale %v, want 300 with %s", got, fromUser)
		}
		stayed := m.stays()

		s.p.events(6000)
		s.rows(m, 800)
		delivered := s.ws.table().Count()
		replace(t, blueprint, localeFrom("anonymous_id"))
		duplicates := s.complete(m)
		m.generation(2)
		s.filled(m, fromAnonymous)
		t.Logf("%d rows had delivered when the blueprint was replaced; rows by locale: %v", delivered, s.locales())
		if duplicates != 0 {
			t.Errorf("got %d duplicates, want none", duplicates)
		}
		new := make([]bool, 3)
		for _, row := range s.ws.table().Rows(nil) {
			id, _ := row.Value("message_id")
			partition, _ := parseID(t, id)
			switch locale, _ := row.Value("locale"); {
			case locale == fromAnonymous:
				new[partition] = true
			case locale != fromUser || new[partition]:
				t.Fatalf("row %s: got locale %q after rows by the new blueprint, want its", id, locale)
			}
		}

		replace(t, blueprint, strings.Replace(localeFrom("user_id"), "locale", "no_such_column", 1))
		r := m.refusal(blueprint+":5", "no_such_column")
		if r.Generation != 2 {
			t.Errorf("got generation %d, want 2 to be in force", r.Generation)
		}
		m.ready()
		m.metric("bridge_config_last_reload_successful 0")
		m.metric(`bridge_config_reloads_total{result="error"} 1`)
		if status, _ := run(t, s.e, command{args: []string{"status", "--address", m.address}}); !strings.Contains(status.stdout.String(), "NOT RELOADED") {
			t.Errorf("bridge status does not report it:\n%s", status.stdout.String())
		}
		s.filled(m, fromAnonymous)

		replace(t, blueprint, "version: 2\nextends: [\n")
		m.refusal(blueprint+":", "YAML")
		s.filled(m, fromAnonymous)
		replace(t, blueprint, localeFrom("user_id"))
		m.generation(3)
		m.metric("bridge_config_last_reload_successful 1")
		s.filled(m, fromUser)

		// A column that was added a moment ago is found, although the table is
		// read only every five minutes.
		must(t, s.ws.table().AddColumn(emulator.Column{Name: "note", Type: "STRING"}))
		replace(t, blueprint, localeFrom("user_id")+"    - {source: message_id, target: note}\n")
		m.generation(4)
		s.p.events(30)
		s.complete(m)
		if note, _ := s.ws.table().Newest(1)[0].Value("note"); note == "" {
			t.Error("got no note in the last row, want the new column filled")
		}
		if got := length(t, s.adm, s.topic+"-dlq"); got != 0 {
			t.Errorf("got %d dead letters, want none", got)
		}
		stayed()
		if got := m.logged("the configuration was not reloaded"); got != 2 {
			t.Errorf("got %d lines about refused blueprints, want 2", got)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

// Settings take effect at once where they can, and are named where they cannot.
func TestReloadSettings(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		s.p.events(20)
		s.complete(m)
		stayed := m.stays()
		as := func() string { text, err := os.ReadFile(s.config); must(t, err); return string(text) }
		plain := as()

		s.amend("log", "level: debug")
		m.generation(2)
		s.p.events(20)
		s.complete(m)
		if !strings.Contains(m.stderr.String(), `"level":"debug"`) {
			t.Error("got no line at debug level after log.level was changed")
		}

		s.zerobus("rate_limit: 5")
		m.generation(3)
		s.p.events(100) // 19 s
		lasts(t, 2*time.Second, "rows held back", func() bool { return s.ws.table().Count() < s.p.total() })
		replace(t, s.config, plain)
		m.generation(4)
		s.complete(m)
		quiet := strings.Count(m.stderr.String(), `"level":"debug"`)
		s.p.events(20)
		s.complete(m)
		if got := strings.Count(m.stderr.String(), `"level":"debug"`); got != quiet {
			t.Errorf("got %d lines at debug level after log.level was set back, want none", got-quiet)
		}

		s.amend("ops", "pprof: true")
		r := m.reload("a change that waits", func(r ops.ReloadStatus) bool { return len(r.PendingRestart) > 0 })
		if r.State != ops.ReloadOK || r.Generation != 4 || !slices.Equal(r.PendingRestart, []string{"ops.pprof"}) {
			t.Errorf("got %+v, want ops.pprof to wait for a restart and nothing else to change", r)
		}
		waits := func() int { return m.logged("ops.pprof changed; takes effect after a restart") }
		eventually(t, patience, "a line about it", func() bool { return waits() > 0 }) // lines are written beside the reload
		replace(t, s.config, strings.Replace(plain, "delivery:\n", "delivery:\n  max_row: 7\n", 1))
		m.refusal(s.config+":", "delivery.max_row", "did you mean delivery.max_rows?")
		m.ready()
		replace(t, s.config, plain)
		m.reload("all as it was", func(r ops.ReloadStatus) bool { return r.State == ops.ReloadOK && len(r.PendingRestart) == 0 })

		if got := waits(); got != 1 {
			t.Errorf("got %d lines about ops.pprof, want 1", got)
		}
		said := m.logged("configuration reloaded")
		m.signal(syscall.SIGHUP)
		eventually(t, patience, "SIGHUP answered", func() bool { return m.logged("configuration reloaded") == said+1 })
		s.p.events(20)
		s.complete(m)
		stayed()
		m.terminate(s.drain + time.Second + slack)
	})
}

// A mounted ConfigMap is changed by turning a link beside its files to another
// folder.
func TestReloadConfigMap(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		mount := t.TempDir()
		text, err := os.ReadFile(s.config)
		must(t, err)
		blueprint := filepath.Join(mount, "blueprint.yaml")
		s.config = filepath.Join(mount, "config.yaml")
		project := func(version, config, plan string) {
			t.Helper()
			folder := filepath.Join(mount, "..v"+version)
			must(t, os.Mkdir(folder, 0o700))
			must(t, os.WriteFile(filepath.Join(folder, "config.yaml"), []byte(config), 0o600))
			must(t, os.WriteFile(filepath.Join(folder, "blueprint.yaml"), []byte(plan), 0o600))
			old, _ := os.Readlink(filepath.Join(mount, "..data"))
			must(t, os.Symlink("..v"+version, filepath.Join(mount, "..data_tmp")))
			must(t, os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")))
			if old != "" {
				must(t, os.RemoveAll(filepath.Join(mount, old)))
			}
		}
		config := string(text) + "mapping:\n  blueprint: " + blueprint + "\n"
		project("1", config, localeFrom("user_id"))
		for _, name := range []string{"config.yaml", "blueprint.yaml"} {
			must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)))
		}
		m := s.beginReady()
		s.filled(m, fromUser)
		project("2", config, localeFrom("anonymous_id"))
		began := time.Now()
		m.generation(2)
		t.Logf("noticed %v after the first swap", time.Since(began).Round(time.Millisecond))
		s.filled(m, fromAnonymous)
		project("3", config+"log:\n  level: warn\n", localeFrom("user_id"))
		m.generation(3)
		s.filled(m, fromUser)
		if got := m.snapshot().Reload; got.Error != "" || len(got.PendingRestart) != 0 {
			t.Errorf("got %+v, want nothing amiss", got)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}
