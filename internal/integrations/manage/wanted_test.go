package manage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
)

// put writes a record by hand, past the Manager.
func (s *site) put(slug string, change func(*store.Record)) {
	s.t.Helper()
	r := &store.Record{ID: fmt.Sprintf("int_%.12s", slug+"0123456789ab"), Slug: slug, Name: slug, Vendor: "databricks_zerobus", Variant: "default", Enabled: true, DeliveryMode: "server_side",
		Source: store.Values{"topics": []string{slug}}, Target: store.Values{"workspace_url": s.ws.URL(), "client_id": "emulator", "catalog": "datafly", "schema": "events", "table": slug}}
	_, err := s.store.Update(s.within(), "put-"+slug, func(state store.State) ([]store.Write, error) {
		sealed, err := s.store.Seal(r, state.StoreID, "client_secret", secret)
		if err != nil {
			return nil, err
		}
		r.Secrets = map[string]store.Sealed{"client_secret": sealed}
		if change != nil {
			change(r)
		}
		return []store.Write{{Record: r, Entry: store.Entry{Action: "by hand"}}}, nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// wanted returns the names that run, and the problems.
func (s *site) wanted() (string, map[string]error) {
	all, problems := s.Wanted(s.read())
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, " "), problems
}

// A record that cannot run stops itself alone, whoever wrote it.
func TestRecordsByHand(t *testing.T) {
	s := newSite(t)
	s.configure("integrations: {filed: {kafka.topics: [filed], zerobus: {workspace_url: '" + s.ws.URL() + "', client_id: x, client_secret: y, table: datafly.events.filed}}}\n")
	s.put("good", nil)
	bad := map[string]struct {
		change func(*store.Record)
		words  string
	}{
		"host":      {func(r *store.Record) { r.Target["workspace_url"] = "https://evil.example" }, "does not open"},
		"endpoint":  {func(r *store.Record) { r.Target["endpoint"] = "evil.example" }, "does not open"},
		"file":      {func(r *store.Record) { r.Target["ca_file"] = "/etc/passwd" }, "config.ca_file names a file"},
		"token":     {func(r *store.Record) { r.Target["token_exchange"] = map[string]any{"token_file": "/etc/passwd"} }, "names a file"},
		"blueprint": {func(r *store.Record) { r.Mapping = store.Values{"blueprint": "/etc/passwd"} }, "mapping.blueprint names a file"},
		"vendor":    {func(r *store.Record) { r.Vendor = "snowflake" }, "is not known"},
		"mode":      {func(r *store.Record) { r.DeliveryMode = "client_side" }, "does not pass through Kafka"},
		"copied":    {func(r *store.Record) { r.Secrets = s.read().Records[0].Secrets }, "does not open"},
		"open":      {func(r *store.Record) { r.Secrets = nil }, "config.client_secret is required"},
		"clear":     {func(r *store.Record) { r.Target["client_secret"], r.Secrets = secret, nil }, "config.client_secret"},
		"garbage":   {func(r *store.Record) { r.Target["streams"] = map[string]any{"a": []any{1}} }, "config.streams"},
		"twice":     {func(r *store.Record) { r.Source["topics"], r.Target["table"] = []any{"good"}, "good" }, "is read by the integration good too"},
		"group":     {func(r *store.Record) { r.Source["group"] = "zerobus-bridge-filed" }, "group of the integration filed"},
	}
	for slug, b := range bad {
		s.put(slug, b.change)
	}
	s.put("filed", nil)
	s.put("off", func(r *store.Record) { r.Enabled, r.Secrets["client_secret"] = false, store.Sealed{Key: "gone"} })
	names, problems := s.wanted()
	if names != "filed good off" || len(problems) != len(bad) {
		t.Errorf("got %s, %d problems, want the others to run", names, len(problems))
	}
	for slug, b := range bad {
		if err := problems[slug]; err == nil || !strings.Contains(err.Error(), b.words) || !strings.Contains(err.Error(), "integration "+slug) && !strings.Contains(err.Error(), slug+"-") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want %q", slug, err, b.words)
		}
		if i := s.get(slug); i.Observed.State != "blocked" || i.Observed.Reason == "" {
			t.Errorf("%s: got %+v, want it blocked", slug, i.Observed)
		}
	}
	list, err := s.List(s.within())
	if err != nil || len(list) != len(bad)+4 || !slices.IsSortedFunc(list, func(a, b manage.Integration) int { return strings.Compare(a.Slug, b.Slug) }) {
		t.Fatalf("got %d integrations, %v", len(list), err)
	}
	at := slices.IndexFunc(list, func(i manage.Integration) bool { return i.Slug == "filed" })
	if file, shadowed := list[at], list[at+1]; file.ManagedBy != "file" || file.File == "" || file.ID != "filed" || file.Shadowed || !shadowed.Shadowed || shadowed.Observed.State != "shadowed" || file.Group != "zerobus-bridge-filed" {
		t.Errorf("got %+v and %+v, want that of the file before the shadowed one", file, shadowed)
	}
	if i := s.get("filed"); i.ManagedBy != "file" {
		t.Errorf("got %+v, want that of the file", i)
	}
	id := list[at+1].ID
	if got, err := s.Update(s.within(), id, edit(t, `{"enabled": false}`), 0, who("x"), false); err != nil || got.Action != "none" || len(got.Warnings) != 1 {
		t.Errorf("the shadowed one by its id: got %s, %v, want a warning", text(t, got), err)
	}
	if got, err := s.Remove(s.within(), id, 0, who("v"), true); err != nil || strings.Contains(strings.Join(got.Notes, "\n"), "--delete") {
		t.Errorf("removing the shadowed one: got %q, %v, want no command that deletes what that of the file uses", got.Notes, err)
	}
	if _, err := s.Update(s.within(), "filed", edit(t, `{"enabled": false}`), 0, who("y"), false); code(t, err) != manage.ManagedByFile {
		t.Errorf("got %v", err)
	}
	// The one that is not valid can be corrected, disabled and removed.
	if _, err := s.Update(s.within(), "host", edit(t, `{"config": {"workspace_url": "https://abc.cloud.databricks.com", "client_secret": "new"}}`), 0, who("z"), false); err != nil {
		t.Error(err)
	}
	if _, err := s.Remove(s.within(), "vendor", 0, who("w"), false); err != nil {
		t.Error(err)
	}
}

// Without the key, the integrations that need it are blocked. They run when it is back.
func TestKeysAreMissing(t *testing.T) {
	s := newSite(t)
	s.install("web")
	s.put("off", func(r *store.Record) { r.Enabled = false })
	s.write(s.key, strings.Repeat("x", store.KeyBytes))
	other, _ := s.member(nil) // which has not seen the secret
	all, problems := other.Wanted(s.read())
	if len(all) != 1 || problems["web"] == nil || !strings.Contains(problems["web"].Error(), "add the file of that key to store.keys") {
		t.Errorf("got %d, %v, want web blocked", len(all), problems)
	}
	if err := other.Check(s.within(), "web", nil, nil); !slices.Equal(fields(err), []string{"config.client_secret"}) {
		t.Errorf("got %v, want that the secret cannot be used", err)
	}
	if _, err := other.Update(s.within(), "web", edit(t, `{"enabled": false}`), 0, who("off"), false); err != nil {
		t.Errorf("disabling: %v", err)
	}
	if _, err := other.Update(s.within(), "web", edit(t, `{"enabled": true, "config": {"client_secret": "again"}}`), 0, who("on"), false); err != nil {
		t.Errorf("with another secret: %v", err)
	}
	if all, problems := other.Wanted(s.read()); len(all) != 2 || len(problems) > 0 || all[1].Config.Zerobus.ClientSecret.Reveal() != "again" {
		t.Errorf("got %v, want the new secret to be in use", problems)
	}
}

// Of two that cannot run beside each other, the later one does not, and it does not keep the
// earlier one from being changed.
func TestTheEarlierOneRuns(t *testing.T) {
	s := newSite(t)
	s.install("web")
	s.put("zone", func(r *store.Record) { r.Source["topics"], r.Target["table"] = []any{"events-web"}, "stream" })
	s.put("able", func(r *store.Record) {
		r.Source["topics"], r.Target["table"], r.Meta.CreatedAt = []any{"events-web"}, "stream", time.Now().Add(time.Hour)
	})
	s.put("area", func(r *store.Record) { r.Meta.CreatedAt = time.Now().Add(2 * time.Hour) })
	if names, problems := s.wanted(); names != "area zone" || !strings.Contains(fmt.Sprint(problems["web"]), "integration zone too") || !strings.Contains(fmt.Sprint(problems["able"]), "integration zone too") {
		t.Errorf("got %s, %v, want the record without a date first", names, problems)
	}
	if _, err := s.Update(s.within(), "zone", edit(t, `{"name": "first"}`), 0, who("a"), false); err != nil {
		t.Errorf("the one that runs: %v", err)
	}
	if _, err := s.Update(s.within(), "able", edit(t, `{"name": "last"}`), 0, who("b"), false); !slices.Equal(fields(err), []string{"source.topics"}) {
		t.Errorf("the one that does not: got %v, want why", err)
	}
	if _, err := s.Update(s.within(), "able", edit(t, `{"enabled": false}`), 0, who("c"), false); err != nil {
		t.Errorf("disabling it: %v", err)
	}
}

// A revision that the topic lost is given again, for something else.
func TestARevisionThatIsGivenAgain(t *testing.T) {
	s := newSite(t)
	s.install("web")
	state := s.read()
	if _, problems := s.Wanted(state); len(problems) > 0 {
		t.Fatal(problems)
	}
	state.Records = slices.Clone(state.Records)
	state.Records[0].Source = store.Values{"topics": []any{"elsewhere"}}
	if all, _ := s.Wanted(state); !slices.Equal(all[0].Config.Kafka.Topics, []string{"elsewhere"}) {
		t.Errorf("got the topics %v, want those of the record", all[0].Config.Kafka.Topics)
	}
}

// What an allowed host is follows the configuration.
func TestAllowedHostsFollowTheConfiguration(t *testing.T) {
	s := newSite(t)
	s.put("web", nil)
	if _, err := s.Update(s.within(), "web", edit(t, `{"config": {"workspace_url": "https://W.Allowed.Example", "client_secret": "x"}}`), 0, who("x"), false); err != nil {
		t.Fatal(err)
	}
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+s.key+"]}\n")
	s.load()
	if names, problems := s.wanted(); names != "" || !strings.Contains(fmt.Sprint(problems["web"]), "is not a host of Databricks") {
		t.Errorf("got %s, %v", names, problems)
	}
}

// runtime counts the changes that it hears of.
type runtime struct{ changed atomic.Int32 }

func (r *runtime) Observed(context.Context, string) manage.Observed {
	return manage.Observed{State: "delivering", Members: 2}
}
func (r *runtime) Changed() { r.changed.Add(1) }

// A thousand integrations are listed without a request: the store has no connection any more.
func TestManyIntegrations(t *testing.T) {
	s := newSite(t)
	const many = 1000
	var b strings.Builder
	b.WriteString("integrations:\n")
	for n := range many {
		fmt.Fprintf(&b, "  n%03d: {enabled: %t, kafka: {topics: [t%d]}, zerobus: {workspace_url: '%s', client_id: c, client_secret: s, catalog: c, schema: s, table: t}}\n", n, n < 300, n, s.ws.URL())
	}
	if got, err := s.Import(s.within(), []byte(b.String()), who("import"), false); err != nil || !got.Restored || len(got.Actions) != many || len(got.Warnings) > 0 {
		t.Fatalf("got %d actions, %v, %v", len(got.Actions), got.Warnings, err)
	}
	r := &runtime{}
	m, st := s.member(r)
	ctx, cancel := context.WithCancel(s.within())
	ran := make(chan struct{})
	known := make(chan struct{}, 1)
	go func() {
		defer close(ran)
		st.Run(ctx, func(state store.State) {
			if len(state.Records) == many {
				select {
				case known <- struct{}{}:
				default:
				}
			}
		})
	}()
	select {
	case <-known:
	case <-s.within().Done():
		t.Error("the store was not read")
	}
	cancel()
	<-ran
	st.Close()
	ctx = s.within()
	list, err := m.List(ctx)
	if err != nil || len(list) != many || list[7].Observed.Members != 2 || list[7].Group != "zerobus-bridge-n007" {
		t.Fatalf("got %d, %v", len(list), err)
	}
	all, problems := m.Wanted(st.State())
	running := slices.DeleteFunc(slices.Clone(all), func(i configIntegration) bool { return !i.Enabled })
	if len(running) != 256 || len(problems) != 44 || !strings.Contains(fmt.Sprint(problems["n299"]), "must not be true for more than 256 integrations") {
		t.Errorf("got %d that run and %d problems, want 256 and 44: %v", len(running), len(problems), problems["n299"])
	}
	if i, err := m.Get(ctx, list[999].ID); err != nil || i.Slug != "n999" {
		t.Errorf("got %+v, %v", i, err)
	}
}

// The process hears of each change, and of no dry run.
func TestRuntimeHearsOfChanges(t *testing.T) {
	s := newSite(t)
	r := &runtime{}
	m, _ := s.member(r)
	for n, dryRun := range []bool{true, false} {
		req := s.request("web")
		req.Enabled = new(bool)
		got, err := m.Install(s.within(), req, who("x"), dryRun)
		if err != nil || got.Action != "none" || r.changed.Load() != int32(n) {
			t.Errorf("dry run %t: got %d changes, action %s, %v", dryRun, r.changed.Load(), got.Action, err)
		}
	}
}
