package manage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
)

// forget deletes the topics of the store, and returns a member that never saw it.
func (s *site) forget() {
	s.t.Helper()
	cl, err := kgo.NewClient(s.broker.ClientOpts()...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).DeleteTopics(s.within(), s.files.Load().Base.Store.Topic); err != nil {
		s.t.Fatal(err)
	}
}

// The last export restores a store that was deleted, for members that knew it and for new
// ones, and its secrets open.
func TestExportAndRestore(t *testing.T) {
	s := newSite(t)
	s.install("web")
	r := s.request("shop")
	r.Blueprint, r.Variant, r.Delivery, r.Enabled = "version: 2\nextends: retail\n", "retail", store.Values{"max_rows": float64(7)}, new(bool)
	if _, err := s.Install(s.within(), r, who("shop"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(s.within(), "web", edit(t, `{"name": "Web \"1\": #x", "config": {"workspace_id": "0123"}}`), 0, who("rename"), false); err != nil {
		t.Fatal(err)
	}
	before := s.read()
	data, err := s.Export(s.within())
	if err != nil || strings.Contains(string(data), secret) || !strings.Contains(string(data), "store_id: "+before.StoreID) || !strings.Contains(string(data), "blueprint_text: |") {
		t.Fatalf("got %v\n%s", err, data)
	}
	// Into the same store, it changes nothing.
	if got, err := s.Import(s.within(), data, who("same"), false); err != nil || got.Restored || got.Actions["web"] != "unchanged" || got.Actions["shop"] != "unchanged" || len(got.Changes)+len(got.Warnings) > 0 || text(t, s.read().Records) != text(t, before.Records) {
		t.Fatalf("got %s, %v, want no change", text(t, got), err)
	}
	s.forget()
	if _, err := s.Install(s.within(), s.request("late"), who("late"), false); code(t, err) != manage.StoreUnavailable {
		t.Errorf("after the loss: got %v, want no change to be possible", err)
	}
	if names, _ := s.Wanted(s.store.State()); len(names) != 2 {
		t.Errorf("after the loss: got %d that run, want 2", len(names))
	}
	for _, dryRun := range []bool{true, false} {
		got, err := s.Import(s.within(), data, who("restore"), dryRun)
		if err != nil || !got.Restored || got.StoreID != before.StoreID || got.Actions["web"] != "added" || len(got.Warnings) > 0 || got.DryRun != dryRun {
			t.Fatalf("dry run %t: got %s, %v", dryRun, text(t, got), err)
		}
	}
	fresh, other := s.member(nil)
	for name, m := range map[string]*manage.Manager{"member that knew the store": s.Manager, "new member": fresh} {
		state, err := other.Read(s.within())
		all, problems := m.Wanted(state)
		if err != nil || len(all) != 2 || len(problems) > 0 || all[1].Config.Zerobus.ClientSecret.Reveal() != secret || all[0].Config.Delivery.MaxRows != 7 || all[0].Enabled {
			t.Errorf("%s: got %d, %v, %v", name, len(all), problems, err)
		}
	}
	web := s.get("web")
	if web.Name != `Web "1": #x` || web.Config["workspace_id"] != "0123" || web.Revision <= 2 || web.Meta.By != "ann" {
		t.Errorf("got %s", text(t, web))
	}
	if entries, err := s.Revisions(s.within(), "web"); err != nil || entries[0].Action != manage.ActionImported || entries[0].RequestID != "restore" {
		t.Errorf("got %s, %v", text(t, entries), err)
	}
	if _, err := s.Install(s.within(), s.request("late"), who("late"), false); err != nil {
		t.Errorf("after the restore: %v", err)
	}
}

// A restore leaves nothing out: what the configuration does not allow any more is blocked.
func TestRestoreOfWhatIsNotAllowed(t *testing.T) {
	s := newSite(t)
	s.install("web")
	if _, err := s.Update(s.within(), "web", edit(t, `{"config": {"workspace_url": "https://a.allowed.example", "client_secret": "x"}}`), 0, who("a"), false); err != nil {
		t.Fatal(err)
	}
	data, err := s.Export(s.within())
	if err != nil {
		t.Fatal(err)
	}
	s.forget()
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+s.key+"]}\n")
	s.load()
	got, err := s.Import(s.within(), data, who("b"), false)
	if err != nil || !got.Restored || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "is not a host of Databricks") {
		t.Errorf("got %s, %v, want a warning", text(t, got), err)
	}
	if names, problems := s.wanted(); names != "" || problems["web"] == nil || s.get("web").Revision != 3 {
		t.Errorf("got %s, %v, want it restored and blocked", names, problems)
	}
}

// Sealed secrets are of no use in another store or without the key: these integrations are
// blocked, and the import reports them.
func TestImportElsewhere(t *testing.T) {
	one, two := newSite(t), newSite(t)
	one.install("web")
	two.install("other")
	data, err := one.Export(one.within())
	if err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []bool{true, false} {
		got, err := two.Import(two.within(), data, who("x"), dryRun)
		if err != nil || got.Restored || got.Actions["web"] != "added" || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "client_secret of integration web") {
			t.Fatalf("dry run %t: got %s, %v, want a warning about the secret", dryRun, text(t, got), err)
		}
		if n := len(two.read().Records); n != map[bool]int{true: 1, false: 2}[dryRun] {
			t.Errorf("dry run %t: got %d records", dryRun, n)
		}
	}
	if names, problems := two.wanted(); names != "other" || problems["web"] == nil {
		t.Errorf("got %s, %v, want web blocked", names, problems)
	}
	if _, err := two.Update(two.within(), "web", edit(t, `{"config": {"client_secret": "again"}}`), 0, who("y"), false); err != nil {
		t.Error(err)
	}
	if names, _ := two.wanted(); names != "other web" {
		t.Errorf("got %s, want both", names)
	}
}

// A file of overlays is imported too, with secrets in clear, and again.
func TestImportOverlays(t *testing.T) {
	s := newSite(t)
	s.install("web")
	overlay := func(more string) []byte {
		return fmt.Appendf(nil, "shop:\n  kafka: {topics: [shop]%s}\n  zerobus: {workspace_url: '%s', client_id: emulator, client_secret: %s, table: datafly.events.shop}\n", more, s.ws.URL(), secret)
	}
	got, err := s.Import(s.within(), overlay(""), who("a"), false)
	if err != nil || got.Actions["shop"] != "added" || strings.Contains(text(t, got), secret) {
		t.Fatalf("got %s, %v", text(t, got), err)
	}
	got, err = s.Import(s.within(), overlay(", start: latest"), who("b"), false)
	if err != nil || got.Actions["shop"] != "updated" || got.Changes["shop"]["source.start"].New != "latest" {
		t.Errorf("got %s, %v", text(t, got), err)
	}
	if i := s.get("shop"); i.Revision != 2 || i.Name != "shop" || s.get("web").Revision != 1 {
		t.Errorf("got %s", text(t, i))
	}
}

// Overlays make a new store, too. Their secrets are sealed for the form in which the
// record names the workspace.
func TestImportOverlaysIntoANewStore(t *testing.T) {
	s := newSite(t)
	overlay := fmt.Appendf(nil, "shop:\n  kafka: {topics: [shop]}\n  zerobus: {workspace_url: '%s/', client_id: emulator, client_secret: %s, table: datafly.events.shop}\n", s.ws.URL(), secret)
	got, err := s.Import(s.within(), overlay, who("a"), false)
	if err != nil || !got.Restored || len(got.Warnings) > 0 {
		t.Errorf("got %s, %v, want no warning", text(t, got), err)
	}
	if all, problems := s.Wanted(s.read()); len(problems) > 0 || all[0].Config.Zerobus.ClientSecret.Reveal() != secret {
		t.Errorf("got %v, want the secret", problems)
	}
}

func TestRefusedImports(t *testing.T) {
	s := newSite(t)
	s.install("web")
	for _, tc := range []struct{ data, field, words string }{
		{"", "data", "has no integrations"},
		{"[1, 2]", "data", "is not valid YAML"},
		{"a: [", "data", "is not valid YAML"},
		{"1: {}\n", "integrations.1.config.workspace_url", "is required"},
		{"integrations: {a: {speed: 1}}", "data", `unknown field \"speed\"`},
		{"format: 99\nintegrations: {a: {}}", "data", "format 99"},
		{"a: &a [" + strings.Repeat("x,", 1000) + "]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c]\n", "data", ""},
		{strings.Repeat("#", 97<<20), "data", "is more than"},
		{"a: {}", "integrations.a.config.workspace_url", "is required"},
		{"a: {zerobus: {client_secret_file: /etc/passwd}}", "integrations.a.config.client_secret_file", "names a file"},
		{"A: {}", "integrations.A.name", "cannot be the name"},
		{"web: {kafka: {topics: [x]}, zerobus: {workspace_url: https://evil.example, client_id: a, client_secret: b, table: a.b.c}}", "integrations.web.config.workspace_url", "is not a host of Databricks"},
		{"web: {kafka: {topics: [x]}, zerobus: {workspace_url: https://a.allowed.example, client_id: a, table: a.b.c}}", "integrations.web.config.client_secret", "is required"},
	} {
		_, err := s.Import(s.within(), []byte(tc.data), who("x"), false)
		if code(t, err) != manage.ValidationFailed || !slices.Contains(fields(err), tc.field) || !strings.Contains(text(t, err), tc.words) {
			t.Errorf("%.60s: got %.300s, want %s with %q", tc.data, text(t, err), tc.field, tc.words)
		}
	}
	if i := s.get("web"); i.Revision != 1 || len(s.read().Records) != 1 {
		t.Errorf("got %s", text(t, i))
	}
}

// After a rotation of keys, secrets are sealed with the first one.
func TestReseal(t *testing.T) {
	s := newSite(t)
	s.install("web")
	s.put("lost", func(r *store.Record) {
		r.Secrets["client_secret"] = store.Sealed{Key: "0badc0de", Data: make([]byte, 40)}
	})
	newKey := s.key + "2"
	s.write(newKey, strings.Repeat("n", store.KeyBytes))
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+newKey+", "+s.key+"]}\n")
	s.load()
	before := s.get("web")
	for _, dryRun := range []bool{true, false} {
		got, err := s.Reseal(s.within(), who("reseal"), dryRun)
		if err != nil || !slices.Equal(got.Resealed, []string{"web"}) || len(got.Unchanged) > 0 || !strings.Contains(got.Failed["lost"], "0badc0de") {
			t.Errorf("dry run %t: got %s, %v", dryRun, text(t, got), err)
		}
		if i := s.get("web"); (i.Revision == 1) != dryRun {
			t.Errorf("dry run %t: got revision %d", dryRun, i.Revision)
		}
	}
	if got, err := s.Reseal(s.within(), who("again"), false); err != nil || len(got.Resealed) > 0 || !slices.Equal(got.Unchanged, []string{"web"}) {
		t.Errorf("again: got %s, %v", text(t, got), err)
	}
	entries, err := s.Revisions(s.within(), "web")
	if err != nil || entries[0].Action != manage.ActionResealed || text(t, entries[0].Changes["config.client_secret"].Old) != text(t, before.Config["client_secret"]) {
		t.Errorf("got %s, %v", text(t, entries), err)
	}
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+newKey+"]}\n")
	s.load()
	if all, problems := s.Wanted(s.read()); len(all) != 1 || problems["web"] != nil || all[0].Config.Zerobus.ClientSecret.Reveal() != secret {
		t.Errorf("without the old key: got %v", problems)
	}
}
