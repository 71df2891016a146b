package manage_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
)

// create creates topics.
func (s *site) create(topics ...string) {
	s.t.Helper()
	cl, err := kgo.NewClient(s.broker.ClientOpts()...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopics(s.within(), 1, 1, nil, topics...); err != nil {
		s.t.Fatal(err)
	}
}

var idForm = regexp.MustCompile(`^int_[a-z0-9]{12}$`)

func TestInstall(t *testing.T) {
	s := newSite(t)
	s.create("web")
	r := s.request("Databricks (Zerobus Ingest)")
	r.Source = store.Values{"topics": "web", "start": "LATEST"}
	r.Config["table"], r.Config["workspace_url"] = "datafly.events.stream", strings.TrimPrefix(s.ws.URL(), "https://")+"/?o=12"
	delete(r.Config, "catalog")
	delete(r.Config, "schema")
	for _, dryRun := range []bool{true, false} {
		got, err := s.Install(s.within(), r, who("first"), dryRun)
		if err != nil {
			t.Fatal(err)
		}
		i := got.Integration
		if !idForm.MatchString(i.ID) || i.Slug != "databricks-zerobus-ingest" || i.Revision != 1 || !i.Enabled || i.ManagedBy != "store" || i.Variant != "default" || i.DeliveryMode != "server_side" ||
			i.Group != "zerobus-bridge-databricks-zerobus-ingest" || i.Table != "datafly.events.stream" || !slices.Equal(i.DeadLetterTopics, []string{"web-dlq-databricks-zerobus-ingest"}) || i.Meta.By != "ann" {
			t.Errorf("dry run %t: got %+v", dryRun, i)
		}
		if text(t, i.Config) != fmt.Sprintf(`{"catalog":"datafly","client_id":"emulator","client_secret":{"fingerprint":%q,"set":true},"schema":"events","table":"stream","workspace_url":%q}`,
			i.Config["client_secret"].(map[string]any)["fingerprint"], s.ws.URL()) || text(t, i.Source) != `{"start":"latest","topics":["web"]}` {
			t.Errorf("dry run %t: got config %s, source %s, want them in normal form", dryRun, text(t, i.Config), text(t, i.Source))
		}
		if got.DryRun != dryRun || got.Action != "start" || !strings.Contains(got.DDL, "CREATE TABLE IF NOT EXISTS `datafly`.`events`.`stream`") || strings.Contains(got.DDL, "GRANT") || len(got.Grants) != 3 || !strings.Contains(got.Grants[2], "TO `emulator`") || len(got.Warnings) > 0 {
			t.Errorf("dry run %t: got %+v", dryRun, got)
		}
		for _, name := range []string{"kafka", "topic", "group", "token", "ingest", "columns"} {
			if found := step(got.Checks, name); found.Status != pipeline.StepOK {
				t.Errorf("dry run %t: step %s: got %+v", dryRun, name, found)
			}
		}
		if c := got.Changes["config.table"]; c.Old != nil || c.New != "stream" || got.Changes["source.topics"].New == nil {
			t.Errorf("dry run %t: got changes %s", dryRun, text(t, got.Changes))
		}
		if n := len(s.read().Records); n != map[bool]int{true: 0, false: 1}[dryRun] {
			t.Errorf("dry run %t: the store has %d records", dryRun, n)
		}
	}
	i := s.get("databricks-zerobus-ingest")
	if again := s.get(i.ID); text(t, again) != text(t, i) {
		t.Errorf("by id: got %s, want %s", text(t, again), text(t, i))
	}
	all, problems := s.Wanted(s.read())
	if len(all) != 1 || len(problems) > 0 || all[0].Config.Zerobus.ClientSecret.Reveal() != secret || all[0].Config.Zerobus.CAFile != "" {
		t.Errorf("got %d wanted, problems %v, want the integration with its secret", len(all), problems)
	}
	audit, err := s.Audit(s.within(), "", 10)
	if err != nil || len(audit) != 1 || audit[0].Action != manage.ActionInstalled || audit[0].By != "ann" || audit[0].Reason != "as asked" || audit[0].ResourceID != i.ID || audit[0].Record == nil || audit[0].Record.Secrets != nil {
		t.Errorf("got %s, %v", text(t, audit), err)
	}
}

// The topics of an installation are its own, or those of the deployment at that time.
func TestTopicsOfTheDeployment(t *testing.T) {
	s := newSite(t)
	s.create("one", "two", "one-dlq")
	r := s.request("Web")
	r.Source = nil
	_, err := s.Install(s.within(), r, who("a"), false)
	if e := refusal(err); !slices.Equal(fields(err), []string{"source.topics"}) || e.Fields[0].Remedy != "name the topics to read; the cluster has one, two" {
		t.Fatalf("got %s, want that topics are required, with those of the cluster", text(t, err))
	}
	s.configure("kafka.topics: [one]\n")
	got, err := s.Install(s.within(), r, who("b"), false)
	if err != nil || text(t, got.Integration.Source) != `{"topics":["one"]}` {
		t.Fatalf("got %s, %v, want the topic of the deployment", text(t, got.Integration.Source), err)
	}
	s.configure("kafka.topics: [two]\n")
	if i := s.get("web"); text(t, i.Source) != `{"topics":["one"]}` {
		t.Errorf("got %s, want the topic of the installation", text(t, i.Source))
	}
}

// Each request is refused with these fields, in this order, and leaves nothing behind.
func TestInvalidRequests(t *testing.T) {
	s := newSite(t)
	s.configure("integrations: {orders: {kafka: {topics: [orders], group: taken}, zerobus: {workspace_url: '" + s.ws.URL() + "', client_id: x, client_secret: y, table: datafly.events.orders}}}\n")
	vast := strings.Repeat("x", 5000)
	with := func(key string, value any) func(*manage.Request) {
		return func(r *manage.Request) { r.Config[key] = value }
	}
	for _, tc := range []struct {
		name   string
		change func(*manage.Request)
		want   []string
		words  string
	}{
		{"empty", func(r *manage.Request) { *r = manage.Request{} }, []string{"name"}, "is required"},
		{"no name", func(r *manage.Request) { r.Name = " " }, []string{"name"}, "is required"},
		{"long name", func(r *manage.Request) { r.Name = strings.Repeat("ä", 101) }, []string{"name"}, "101 characters"},
		{"control character", func(r *manage.Request) { r.Name = "a\x00b" }, []string{"name"}, "control characters"},
		{"name without a-z", func(r *manage.Request) { r.Name = "注文" }, []string{"slug"}, "cannot be derived from the name"},
		{"reserved name", func(r *manage.Request) { r.Name = "Default" }, []string{"name"}, "cannot be the name"},
		{"slug", func(r *manage.Request) { r.Slug = "../x" }, []string{"slug"}, "cannot be the name"},
		{"slug", func(r *manage.Request) { r.Slug = strings.Repeat("s", 41) }, []string{"slug"}, "cannot be the name"},
		{"delivery mode", func(r *manage.Request) { r.DeliveryMode = "client_side" }, []string{"delivery_mode"}, "does not pass through Kafka"},
		{"variant", func(r *manage.Request) { r.Variant = "retial" }, []string{"variant"}, "is not known"},
		{"no config", func(r *manage.Request) { r.Config = nil }, []string{"config.workspace_url", "config.client_id", "config.client_secret", "config.catalog", "config.schema", "config.table"}, "is required"},
		{"url", with("workspace_url", "ftp://x"), []string{"config.workspace_url"}, "must be an https URL"},
		{"plain http", with("workspace_url", "http://abc.cloud.databricks.com"), []string{"config.workspace_url"}, "must be https"},
		{"user info", with("workspace_url", "https://me:hunter2@abc.cloud.databricks.com"), []string{"config.workspace_url"}, "must not hold a user or password"},
		{"another host", with("workspace_url", "https://evil.example"), []string{"config.workspace_url"}, "is not a host of Databricks"},
		{"a host that ends alike", with("workspace_url", "https://evilcloud.databricks.com.example"), []string{"config.workspace_url"}, "is not a host of Databricks"},
		{"the domain itself", with("workspace_url", "https://cloud.databricks.com"), []string{"config.workspace_url"}, "is not a host of Databricks"},
		{"another endpoint", with("endpoint", "evil.example"), []string{"config.endpoint"}, "is not a host of Databricks"},
		{"another token endpoint", with("token_url", "https://evil.example/token"), []string{"config.token_url"}, "is not a host of Databricks"},
		{"number", with("client_id", float64(1)), []string{"config.client_id"}, "must be text"},
		{"object", with("schema", map[string]any{"a": "b"}), []string{"config.schema.a"}, "unknown key"},
		{"list", with("schema", []any{"a"}), []string{"config.schema"}, "must be a single value"},
		{"empty value", with("schema", ""), []string{"config.schema"}, "is required"},
		{"null", with("schema", nil), []string{"config.schema"}, "is required"},
		{"too long", with("client_id", vast), []string{"config.client_id"}, "has 5000 bytes"},
		{"control character", with("catalog", "a\nb"), []string{"config.catalog"}, "control characters"},
		{"not UTF-8", with("catalog", "a\xff"), []string{"config.catalog"}, "not UTF-8"},
		{"misspelt", with("tabel", "x"), []string{"config.tabel"}, "unknown key"},
		{"long key", with(vast, "x"), nil, ""},
		{"a mask", with("client_secret", "***"), []string{"config.client_secret"}, "is a mask"},
		{"blank secret", with("client_secret", " "), []string{"config.client_secret"}, "is empty"},
		{"no secret", with("client_secret", nil), []string{"config.client_secret"}, "cannot be taken away"},
		{"secret file", with("client_secret_file", "/etc/passwd"), []string{"config.client_secret_file"}, "names a file"},
		{"token file", with("token_exchange", map[string]any{"token_file": "/etc/passwd"}), []string{"config.token_exchange.token_file"}, "names a file"},
		{"token file, dotted", with("token_exchange.token_file", "/etc/passwd"), []string{"config.token_exchange.token_file"}, "names a file"},
		{"authorities", with("ca_file", "/etc/passwd"), []string{"config.ca_file"}, "names a file"},
		{"blueprint file", func(r *manage.Request) { r.Mapping = store.Values{"blueprint": "/etc/passwd"} }, []string{"mapping.blueprint"}, "names a file"},
		{"blueprint in mapping", func(r *manage.Request) { r.Mapping = store.Values{"blueprint_text": "x"} }, []string{"mapping.blueprint_text"}, "field of its own"},
		{"variant in mapping", func(r *manage.Request) { r.Mapping = store.Values{"variant": "retail"} }, []string{"mapping.variant"}, "field of its own"},
		{"blueprint", func(r *manage.Request) { r.Blueprint = "version: 2\nextends: default\nglobals: {}\n" }, []string{"blueprint"}, `3:1: unknown key "globals"`},
		{"blueprint that does not compile", func(r *manage.Request) {
			r.Blueprint = "version: 2\nglobal: {mappings: [{source: a, target: a, type: INT, default_value: x}]}\n"
		}, []string{"blueprint"}, "default_value"},
		{"large blueprint", func(r *manage.Request) { r.Blueprint = strings.Repeat("#", 129<<10) }, []string{"blueprint"}, "is more than 131072"},
		{"of the process", func(r *manage.Request) { r.Source["brokers"] = []any{"b"} }, []string{"source.brokers"}, "belongs to the base"},
		{"topics", func(r *manage.Request) { r.Source["topics"] = []any{"a b"} }, []string{"source.topics"}, "must consist of"},
		{"many topics", func(r *manage.Request) { r.Source["topics"] = slices.Repeat([]any{"t"}, 101) }, []string{"source.topics"}, "101 items"},
		{"rows", func(r *manage.Request) { r.Delivery = store.Values{"max_rows": float64(0)} }, []string{"delivery.max_rows"}, "between 1 and"},
		{"rejects", func(r *manage.Request) { r.Rejects = store.Values{"policy": "drop"} }, []string{"rejects.policy"}, "must be one of"},
		{"consent", func(r *manage.Request) {
			r.ConsentCategories, r.Mapping = []string{"a"}, store.Values{"require_consent": []any{"b"}}
		}, []string{"consent_categories"}, "contradict"},
		{"group of a file", func(r *manage.Request) { r.Source["group"] = "taken" }, []string{"source.group"}, "group of the integration orders"},
		{"topic of a file", func(r *manage.Request) { r.Source["topics"], r.Config["table"] = []any{"orders"}, "orders" }, []string{"source.topics"}, "in the table twice"},
		{"several", func(r *manage.Request) { r.Config["table"], r.Config["streams"], r.Variant = "a b", float64(99), "" }, []string{"config.streams", "config.table"}, "between 1 and 64"},
	} {
		for _, dryRun := range []bool{true, false} {
			r := s.request("web")
			tc.change(&r)
			_, err := s.Install(s.within(), r, who("x"), dryRun)
			if tc.name == "long key" {
				tc.want = []string{"config"}
			}
			if code(t, err) != manage.ValidationFailed || !slices.Equal(fields(err), tc.want) || !strings.Contains(text(t, refusal(err).Fields), tc.words[:min(len(tc.words), 12)]) {
				t.Errorf("%s, dry run %t: got %s, want %v with %q", tc.name, dryRun, text(t, err), tc.want, tc.words)
				continue
			}
			for _, f := range refusal(err).Fields {
				if f.Remedy == "" || len(f.Message) > 1000 || strings.Contains(text(t, f), secret) || strings.Contains(f.Message+f.Remedy, "zerobus.") || strings.Contains(f.Message, "hunter2") {
					t.Errorf("%s: got %+v, want a remedy in the words of the request", tc.name, f)
				}
			}
		}
	}
	if state := s.read(); len(state.Records) != 0 || state.StoreID != "" { // nothing was written
		t.Errorf("got %+v, want an empty store", state)
	}
}

// Odd names and values are data: they come back as they were given.
func TestOddNames(t *testing.T) {
	s := newSite(t)
	for n, name := range []string{`<script>alert("x")</script>`, `'; DROP TABLE x; --`, "Bücher & 注文", strings.Repeat("a ", 50), "{{.Secret}} ${x} %s", "\u202eevil"} {
		r := s.request("web")
		r.Name, r.Slug, r.Source, r.Config["client_id"] = name, fmt.Sprintf("n%d", n), store.Values{"topics": []any{fmt.Sprintf("t%d", n)}}, name+" `x`"
		got, err := s.Install(s.within(), r, who(fmt.Sprint("odd", n)), false)
		if err != nil || got.Integration.Name != name || s.get(r.Slug).Name != name || s.get(r.Slug).Config["client_id"] != strings.TrimSpace(name+" `x`") {
			t.Errorf("%q: got %q, %v", name, got.Integration.Name, err)
		}
	}
}

func TestSlugs(t *testing.T) {
	s := newSite(t)
	for name, want := range map[string]string{
		"Databricks (Zerobus Ingest)": "databricks-zerobus-ingest", "Web": "web", " a__b -- c ": "a-b-c", "Ärger 7": "rger-7", strings.Repeat("x", 39) + " y": strings.Repeat("x", 39),
	} {
		r := s.request(name)
		r.Source = store.Values{"topics": []any{"t"}}
		if got, err := s.Install(s.within(), r, who("x"), true); err != nil || got.Integration.Slug != want {
			t.Errorf("%q: got %q, %v, want %q", name, got.Integration.Slug, err, want)
		}
	}
}

// A request that is repeated is answered as before; another one of the same name is refused.
func TestInstallTwice(t *testing.T) {
	s := newSite(t)
	first := s.install("web")
	again := s.install("web")
	if text(t, again.Integration) != text(t, first.Integration) || text(t, again.Changes) != text(t, first.Changes) {
		t.Errorf("got %s, want %s", text(t, again), text(t, first))
	}
	for _, dryRun := range []bool{true, false} {
		if _, err := s.Install(s.within(), s.request("web"), who("other"), dryRun); code(t, err) != manage.NameTaken {
			t.Errorf("dry run %t: got %v, want %s", dryRun, err, manage.NameTaken)
		}
	}
	if _, err := s.Update(s.within(), "web", edit(t, `{"enabled": false}`), 0, who("off"), false); err != nil {
		t.Fatal(err)
	}
	if again := s.install("web"); again.Integration.ID != first.Integration.ID || again.Integration.Revision != 2 || text(t, again.Changes) != text(t, first.Changes) {
		t.Errorf("after a change: got %s, want the first answer with what it is now", text(t, again))
	}
	s.configure("integrations: {orders: {kafka.topics: [orders], zerobus: {workspace_url: '" + s.ws.URL() + "', client_id: x, client_secret: y, table: datafly.events.orders}}}\n")
	if _, err := s.Install(s.within(), s.request("orders"), who("file"), false); code(t, err) != manage.NameTaken {
		t.Errorf("the name of a file: got %v, want %s", err, manage.NameTaken)
	}
}

// The group of a removed integration has its offsets still: whoever installs one of the
// same slug sees it in the check.
func TestGroupWithOffsets(t *testing.T) {
	s := newSite(t)
	s.create("events-web")
	cl, err := kgo.NewClient(s.broker.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const text = "it has offsets, and continues from them"
	if got := step(s.install("web").Checks, "group"); got.Detail == "" || strings.Contains(got.Detail, text) {
		t.Errorf("a new group: got %+v", got)
	}
	if _, err := s.Remove(s.within(), "web", 0, who("gone"), false); err != nil {
		t.Fatal(err)
	}
	var at kadm.Offsets
	at.AddOffset("events-web", 0, 0, -1)
	if err := kadm.NewClient(cl).CommitAllOffsets(s.within(), "zerobus-bridge-web", at); err != nil {
		t.Fatal(err)
	}
	got, err := s.Install(s.within(), s.request("web"), who("again"), false)
	if err != nil || !strings.Contains(step(got.Checks, "group").Detail, text) {
		t.Errorf("got %+v, %v, want %q", step(got.Checks, "group"), err, text)
	}
}

// An id that is used again for something else is no repetition.
func TestOneIDForTwoInstalls(t *testing.T) {
	s := newSite(t)
	s.install("web")
	other := s.request("web")
	other.Config["table"] = "other"
	if _, err := s.Install(s.within(), other, who("install-web"), false); code(t, err) != manage.NameTaken {
		t.Errorf("another table: got %v, want %s", err, manage.NameTaken)
	}
	if _, err := s.Remove(s.within(), "web", 0, who("gone"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install(s.within(), s.request("web"), who("second"), false); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Install(s.within(), s.request("web"), who("install-web"), false); code(t, err) != manage.NameTaken {
		t.Errorf("what was installed is removed: got %s, %v, want %s", text(t, got), err, manage.NameTaken)
	}
}

// The topics of the store hold what is sealed, and decide what runs.
func TestTopicsOfTheStore(t *testing.T) {
	s := newSite(t)
	own := s.files.Load().Base.Store.Topic
	for _, topic := range []string{own, own + "-audit"} {
		source, rejects := s.request("web"), s.request("web")
		source.Source = store.Values{"topics": []any{"events", topic}}
		rejects.Rejects = store.Values{"topic": topic}
		for field, r := range map[string]manage.Request{"source.topics": source, "rejects.topic": rejects} {
			if _, err := s.Install(s.within(), r, who("x"), false); !slices.Equal(fields(err), []string{field}) {
				t.Errorf("%s in %s: got %v", topic, field, err)
			}
		}
	}
}

// Of many members that install one name at the same instant, one does.
func TestOneNameAtOneInstant(t *testing.T) {
	s := newSite(t)
	const members = 6
	var wg sync.WaitGroup
	errs := make([]error, members)
	for n := range members {
		m, _ := s.member(nil)
		wg.Go(func() {
			r := s.request("web")
			r.Config["workspace_url"] = "https://127.0.0.1:1" // nothing to wait for
			_, errs[n] = m.Install(s.within(), r, who(fmt.Sprint("member-", n)), false)
		})
	}
	wg.Wait()
	count := map[string]int{}
	for _, err := range errs {
		count[code(t, err)]++
	}
	if count[""] != 1 || count[manage.NameTaken]+count[manage.StoreUnavailable] != members-1 || len(s.read().Records) != 1 {
		t.Errorf("got %v and %d records, want one installed", count, len(s.read().Records))
	}
}

// Installations at the same time through two members are each whole: a record and its audit
// entry.
func TestManyAtOnce(t *testing.T) {
	s := newSite(t)
	const many = 60
	other, _ := s.member(nil)
	errs := make([]error, many)
	var wg sync.WaitGroup
	for n := range many {
		m := []*manage.Manager{s.Manager, other}[n%2]
		wg.Go(func() {
			r := s.request(fmt.Sprint("n", n))
			r.Config["workspace_url"] = "https://127.0.0.1:1" // nothing to wait for
			_, errs[n] = m.Install(s.within(), r, who(fmt.Sprint("install-", n)), false)
		})
	}
	wg.Wait()
	installed := 0
	for n, err := range errs {
		switch code(t, err) {
		case "":
			installed++
			if _, err := s.Get(s.within(), fmt.Sprint("n", n)); err != nil {
				t.Errorf("n%d: %v", n, err)
			}
		case manage.StoreUnavailable: // the other member was always faster
			if _, err := s.Get(s.within(), fmt.Sprint("n", n)); err == nil {
				t.Errorf("n%d is installed and was refused: %v", n, errs[n])
			}
		default:
			t.Errorf("n%d: %v", n, err)
		}
	}
	audit, err := s.Audit(s.within(), "", 2*many)
	if err != nil || len(audit) != installed || installed < many/2 || len(s.read().Records) != installed {
		t.Errorf("got %d installed, %d records and %d audit entries, %v", installed, len(s.read().Records), len(audit), err)
	}
}

func TestWithoutKeys(t *testing.T) {
	s := newSite(t)
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true}\n")
	s.load()
	for _, dryRun := range []bool{true, false} {
		_, err := s.Install(s.within(), s.request("web"), who("x"), dryRun)
		if !slices.Equal(fields(err), []string{"config.client_secret"}) || !strings.Contains(refusal(err).Fields[0].Remedy, "openssl rand -out store.key 32") {
			t.Errorf("dry run %t: got %s, want how to make a key", dryRun, text(t, err))
		}
	}
}

// A variant of a file is copied into the integration, which keeps it.
func TestVariantOfAFile(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(s.dir, "variants")
	s.mkdir(dir)
	file := filepath.Join(dir, "media.yaml")
	s.write(file, "version: 2\nextends: default\nglobal: {mappings: [{source: properties.position_s, target: position}]}\n")
	s.write(filepath.Join(dir, "bad.yaml"), "version: 3\n")
	s.configure("store.variants_dir: " + dir + "\n")
	r := s.request("web")
	r.Variant = "bad"
	if _, err := s.Install(s.within(), r, who("x"), false); !slices.Equal(fields(err), []string{"variant"}) {
		t.Errorf("got %v, want that the variant cannot be used", err)
	}
	r.Variant = "media"
	got, err := s.Install(s.within(), r, who("y"), false)
	if err != nil || got.Integration.Variant != "media" || !strings.Contains(got.Integration.Blueprint, "position_s") || !strings.Contains(got.DDL, "`position`") {
		t.Fatalf("got %s, %v", text(t, got), err)
	}
	s.write(file, "broken")
	if all, problems := s.Wanted(s.read()); len(all) != 1 || len(problems) > 0 {
		t.Errorf("got problems %v, want none", problems)
	}
	if _, err := s.Update(s.within(), "web", edit(t, `{"name": "Other"}`), 0, who("z"), false); err != nil {
		t.Errorf("got %v, want it to be renamed", err)
	}
	s.configure("store.variants_dir: " + dir + "-none\n")
	vendors, err := s.Catalog()
	if err != nil || !slices.ContainsFunc(vendors[0].Variants, func(v catalogVariant) bool { return strings.Contains(v.Problem, "store.variants_dir") }) {
		t.Errorf("got %s, %v, want the problem of the folder", text(t, vendors), err)
	}
}
