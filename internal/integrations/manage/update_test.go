package manage_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
)

// What a change of an enabled integration does, which fields it changes, and whether the
// result has the SQL for the table. Each follows the one before.
func TestUpdate(t *testing.T) {
	s := newSite(t)
	s.install("web")
	for n, tc := range []struct {
		patch, action string
		entry         string // "": nothing changes
		changed       []string
		ddl           bool
	}{
		{`{}`, "none", "", nil, false},
		{`{"name": "web", "config": {"table": " stream", "client_id": "emulator"}, "source": {"topics": "events-web"}}`, "none", "", nil, false},
		{`{"name": "Web shop"}`, "none", manage.ActionUpdated, []string{"name"}, false},
		{`{"config": {"rate_limit": 5}}`, "live", manage.ActionUpdated, []string{"config.rate_limit"}, false},
		{`{"config": {"rate_limit": null}}`, "live", manage.ActionUpdated, []string{"config.rate_limit"}, false},
		{`{"blueprint": "version: 2\nextends: default\n"}`, "live", manage.ActionUpdated, []string{"blueprint"}, true},
		{`{"blueprint": ""}`, "live", manage.ActionUpdated, []string{"blueprint"}, true},
		{`{"variant": "retail"}`, "live", manage.ActionUpdated, []string{"variant"}, true},
		{`{"variant": ""}`, "live", manage.ActionUpdated, []string{"variant"}, true},
		{`{"config": {"table": "datafly.other.table"}}`, "replace", manage.ActionUpdated, []string{"config.schema", "config.table"}, true},
		{`{"source": {"topic": "a", "start": "latest"}}`, "replace", manage.ActionUpdated, []string{"source.start", "source.topics"}, false},
		{`{"config": {"client_secret": "another"}}`, "live", manage.ActionUpdated, []string{"config.client_secret"}, false},
		{`{"delivery": {"max_bytes": "1MiB"}, "rejects": {"policy": "skip"}, "mapping": {"require_consent": ["a"]}}`, "replace", manage.ActionUpdated, []string{"delivery.max_bytes", "mapping.require_consent", "rejects.policy"}, false},
		{`{"enabled": false}`, "stop", manage.ActionDisabled, []string{"enabled"}, false},
		{`{"config": {"timeout": "5s"}}`, "none", manage.ActionUpdated, []string{"config.timeout"}, false},
		{`{"enabled": true}`, "start", manage.ActionEnabled, []string{"enabled"}, false},
		{`{"enabled": false, "name": "x"}`, "stop", manage.ActionUpdated, []string{"enabled", "name"}, false},
	} {
		before := s.get("web")
		for _, dryRun := range []bool{true, false} {
			got, err := s.Update(s.within(), "web", edit(t, tc.patch), before.Revision, who(fmt.Sprint("update-", n)), dryRun)
			var names []string
			for name := range got.Changes {
				names = append(names, name)
			}
			slices.Sort(names)
			if err != nil || got.Action != tc.action || !slices.Equal(names, tc.changed) || (got.DDL != "") != tc.ddl || got.DryRun != dryRun {
				t.Fatalf("%s, dry run %t: got action %s of %v, DDL %q, %v", tc.patch, dryRun, got.Action, names, got.DDL, err)
			}
			revision := before.Revision
			if !dryRun && tc.entry != "" {
				revision++
			}
			if now := s.get("web"); now.Revision != revision || dryRun && text(t, now) != text(t, before) {
				t.Errorf("%s, dry run %t: got revision %d, want %d", tc.patch, dryRun, now.Revision, revision)
			}
		}
		if entry, err := s.Revisions(s.within(), "web"); err != nil || tc.entry != "" && (entry[0].Action != tc.entry || entry[0].Revision != before.Revision+1) {
			t.Errorf("%s: got entry %s, %v", tc.patch, text(t, entry[0]), err)
		}
	}
	i := s.get("web")
	if text(t, i.Mapping) != `{"require_consent":["a"]}` || text(t, i.ConsentCategories) != `["a"]` || len(i.DeadLetterTopics) != 0 || i.Config["schema"] != "other" || i.Config["rate_limit"] != nil {
		t.Errorf("got %s", text(t, i))
	}
	all, err := s.Revisions(s.within(), i.ID)
	if err != nil || int64(len(all)) != i.Revision || all[len(all)-1].Action != manage.ActionInstalled {
		t.Errorf("got %d revisions, %v, want %d", len(all), err, i.Revision)
	}
}

func TestRefusedUpdates(t *testing.T) {
	s := newSite(t)
	s.install("web")
	s.install("other")
	s.configure("integrations: {orders: {kafka.topics: [orders], zerobus: {workspace_url: '" + s.ws.URL() + "', client_id: x, client_secret: y, table: datafly.events.orders}}}\n")
	const valid, revision = manage.ValidationFailed, manage.RevisionMismatch
	for _, tc := range []struct {
		id, patch string
		revision  int64
		code      string
		fields    []string
	}{
		{"nowhere", `{}`, 0, manage.NotFound, nil},
		{"orders", `{}`, 0, manage.ManagedByFile, nil},
		{"web", `{"name": "x"}`, 2, revision, nil},
		{"web", `{"name": ""}`, 1, valid, []string{"name"}},
		{"web", `{"variant": "none"}`, 0, valid, []string{"variant"}},
		{"web", `{"config": {"workspace_url": "https://abc.cloud.databricks.com"}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"client_id": "x"}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"endpoint": "https://z.allowed.example"}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"token_url": "https://z.allowed.example/t"}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"token_url": "https://z.other.example/t", "client_secret": "x"}}`, 0, valid, []string{"config.token_url"}},
		{"web", `{"config": {"client_secret": "***"}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"client_secret": ""}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"client_secret": null}}`, 0, valid, []string{"config.client_secret"}},
		{"web", `{"config": {"client_secret": {"set": true, "fingerprint": "ab12cd34"}}}`, 0, valid, []string{"config.client_secret.fingerprint", "config.client_secret.set"}},
		{"web", `{"config": {"table": null}}`, 0, valid, []string{"config.table"}},
		{"web", `{"source": {"topics": null}}`, 0, valid, []string{"source.topics"}},
		{"web", `{"source": {"topics": ["events-other"]}}`, 0, valid, []string{"source.topics"}},
		{"web", `{"source": {"topics": ["a"], "topic": "b"}}`, 0, valid, []string{"source.topics"}},
		{"web", `{"source": {"group": "zerobus-bridge-orders"}}`, 0, valid, []string{"source.group"}},
	} {
		for _, dryRun := range []bool{true, false} {
			_, err := s.Update(s.within(), tc.id, edit(t, tc.patch), tc.revision, who("x"), dryRun)
			if code(t, err) != tc.code || !slices.Equal(fields(err), tc.fields) || refusal(err).Remedy == "" {
				t.Errorf("%s %s, dry run %t: got %s, want %s of %v", tc.id, tc.patch, dryRun, text(t, err), tc.code, tc.fields)
			}
		}
	}
	if i := s.get("web"); i.Revision != 1 {
		t.Errorf("got revision %d, want 1", i.Revision)
	}
	// With the secret, the place may change.
	if _, err := s.Update(s.within(), "web", edit(t, `{"config": {"endpoint": "https://z.allowed.example", "client_secret": "for-z"}}`), 1, who("y"), false); err != nil {
		t.Error(err)
	}
	if all, problems := s.Wanted(s.read()); len(problems) > 0 || all[2].Config.Zerobus.ClientSecret.Reveal() != "for-z" {
		t.Errorf("got %v, want the new secret", problems)
	}
}

// A change that is repeated with its request id is answered as before.
func TestRepeatedChanges(t *testing.T) {
	s := newSite(t)
	s.install("web")
	rename := edit(t, `{"name": "Shop"}`)
	first, err := s.Update(s.within(), "web", rename, 1, who("rename"), false)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := s.Update(s.within(), "web", rename, 1, who("rename"), false)
		if err != nil || text(t, again.Changes) != text(t, first.Changes) || s.get("web").Revision > 3 {
			t.Errorf("got %s, %v, want %s", text(t, again), err, text(t, first))
		}
		if _, err := s.Update(s.within(), "web", edit(t, `{"enabled": false}`), 0, who("off"), false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Update(s.within(), "web", edit(t, `{"name": "Other"}`), 1, who("late"), false); code(t, err) != manage.RevisionMismatch {
		t.Errorf("another change at revision 1: got %v", err)
	}
	for range 2 {
		gone, err := s.Remove(s.within(), "web", 3, who("gone"), false)
		if err != nil || gone.Integration.Slug != "web" {
			t.Errorf("got %s, %v, want that it is removed", text(t, gone), err)
		}
	}
	if _, err := s.Remove(s.within(), "web", 0, who("other"), false); code(t, err) != manage.NotFound {
		t.Errorf("got %v, want that it is gone", err)
	}
}

// Another change with the id of an earlier one is made, or refused: an id of a request may
// be that of a whole deployment.
func TestOneIDForTwoChanges(t *testing.T) {
	s := newSite(t)
	s.install("web")
	for revision, patch := range []string{`{"enabled": false}`, `{"enabled": true}`, `{"config": {"client_secret": "second"}}`} {
		got, err := s.Update(s.within(), "web", edit(t, patch), int64(revision+1), who("deploy"), false)
		if err != nil || got.Integration.Revision != int64(revision+2) || len(got.Changes) != 1 {
			t.Errorf("%s: got %s, %v, want that it is made", patch, text(t, got), err)
		}
	}
	for _, patch := range []string{`{"name": "Shop"}`, `{"config": {"client_secret": "third"}}`} {
		if _, err := s.Update(s.within(), "web", edit(t, patch), 1, who("deploy"), false); code(t, err) != manage.RevisionMismatch {
			t.Errorf("%s at revision 1: got %v, want %s", patch, err, manage.RevisionMismatch)
		}
	}
	again, err := s.Update(s.within(), "web", edit(t, `{"config": {"client_secret": "second"}}`), 3, who("deploy"), false)
	if err != nil || again.Integration.Revision != 4 || len(again.Changes) != 1 {
		t.Errorf("repeated: got %s, %v, want the first answer", text(t, again), err)
	}
}

func TestRemove(t *testing.T) {
	s := newSite(t)
	i := s.install("web").Integration
	if _, err := s.Remove(s.within(), "web", 7, who("x"), false); code(t, err) != manage.RevisionMismatch {
		t.Errorf("got %v", err)
	}
	for _, dryRun := range []bool{true, false} {
		got, err := s.Remove(s.within(), i.ID, 1, who("gone"), dryRun)
		if err != nil || got.Action != "stop" || got.Changes["config.table"].New != nil || got.Changes["config.table"].Old != "stream" || len(got.Notes) != 3 ||
			!strings.Contains(got.Notes[0], "--delete --group zerobus-bridge-web") || !strings.Contains(got.Notes[1], "--delete --topic events-web-dlq-web") || !strings.Contains(got.Notes[2], "datafly.events.stream") {
			t.Errorf("dry run %t: got %s, %v", dryRun, text(t, got), err)
		}
		if _, err := s.Get(s.within(), "web"); (err == nil) != dryRun {
			t.Errorf("dry run %t: got %v", dryRun, err)
		}
	}
	if all, err := s.Revisions(s.within(), i.ID); err != nil || len(all) != 2 || all[0].Action != manage.ActionRemoved || all[0].Record != nil {
		t.Errorf("got %s, %v, want the revisions of a removed integration", text(t, all), err)
	}
	again := s.install("web").Integration // the request id is that of the removed one
	if again.ID == i.ID || again.Revision != 1 {
		t.Errorf("got %+v, want a new integration", again)
	}
}

func TestAuditPages(t *testing.T) {
	s := newSite(t)
	s.install("web")
	for n := range 6 {
		if err := s.Note(s.within(), "web", manage.ActionReplayed, map[string]store.Changed{"offset": {New: n}}, who(fmt.Sprint("n", n))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	before := ""
	for range 4 {
		page, err := s.Audit(s.within(), before, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got, before = append(got, e.RequestID), e.ID
			if e.By != "ann" || e.Slug != "web" || e.Changes == nil {
				t.Errorf("got %+v, want a whole entry", e)
			}
		}
	}
	if want := []string{"n5", "n4", "n3", "n2", "n1", "n0", "install-web"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := s.Audit(s.within(), "log_none", 3); code(t, err) != manage.NotFound {
		t.Errorf("got %v", err)
	}
	if all, err := s.History(s.within(), "web"); err != nil || len(all) != 7 {
		t.Errorf("got %d entries, %v, want 7", len(all), err)
	}
	if all, err := s.Revisions(s.within(), "web"); err != nil || len(all) != 1 {
		t.Errorf("got %d revisions, %v, want 1", len(all), err)
	}
}

// The steps come one by one, and a stored secret is sent nowhere else.
func TestCheck(t *testing.T) {
	s := newSite(t)
	s.create("events-web")
	s.install("web")
	var steps []pipeline.CheckStep
	each := func(c pipeline.CheckStep) { steps = append(steps, c) }
	if err := s.Check(s.within(), "web", nil, each); err != nil || step(steps, "columns").Status != pipeline.StepOK {
		t.Errorf("got %s, %v", text(t, steps), err)
	}
	steps = nil
	p := edit(t, `{"config": {"table": "none"}}`)
	if err := s.Check(s.within(), "web", &p, each); err != nil || step(steps, "table").Status != pipeline.StepFailed || s.get("web").Revision != 1 {
		t.Errorf("another table: got %s, %v", text(t, steps), err)
	}
	steps = nil
	p = edit(t, `{"config": {"workspace_url": "https://127.0.0.1:1"}}`)
	if err := s.Check(s.within(), "web", &p, each); !slices.Equal(fields(err), []string{"config.client_secret"}) || steps != nil {
		t.Errorf("another workspace: got %s, %v, want the secret to be asked for", text(t, steps), err)
	}
	steps = nil
	p = edit(t, `{"config": {"client_secret": "wrong-one"}}`)
	if err := s.Check(s.within(), "web", &p, each); err != nil || step(steps, "token").Status != pipeline.StepFailed || strings.Contains(text(t, steps), "wrong-one") {
		t.Errorf("another secret: got %s, %v", text(t, steps), err)
	}
	steps = nil
	r := s.request("new")
	if err := s.CheckRequest(s.within(), r, each); err != nil || step(steps, "topic").Status != pipeline.StepFailed || step(steps, "token").Status != pipeline.StepOK || len(s.read().Records) != 1 {
		t.Errorf("a request: got %s, %v", text(t, steps), err)
	}
	r.Config = nil
	if err := s.CheckRequest(s.within(), r, each); code(t, err) != manage.ValidationFailed {
		t.Errorf("a request without config: got %v", err)
	}
	if err := s.Check(s.within(), "none", nil, each); code(t, err) != manage.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestWithoutAStore(t *testing.T) {
	s := newSite(t)
	m := manage.New(manage.Options{Files: s.files.Load, Version: "test"})
	if _, err := m.Install(s.within(), s.request("web"), who("x"), true); code(t, err) != manage.StoreUnavailable {
		t.Errorf("got %v", err)
	}
	if all, err := m.List(s.within()); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
	if all, err := m.Audit(s.within(), "", 5); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
	for _, err := range []error{
		func() error { _, err := m.Export(s.within()); return err }(),
		func() error { _, err := m.Import(s.within(), nil, who("x"), false); return err }(),
		func() error { _, err := m.Reseal(s.within(), who("x"), false); return err }(),
	} {
		if code(t, err) != manage.StoreUnavailable {
			t.Errorf("got %v", err)
		}
	}
}
