package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// A configuration of several integrations is refused with these problems; F stands for
// the file and D for the folder of integrations.
func TestProblemsOfIntegrations(t *testing.T) {
	const clicks = "clicks: {kafka: {topics: [clicks]}, zerobus: {table: clicks}}\n"
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "n%d: {kafka.topics: [t%d], zerobus.table: t%d}\n", i, i, i)
		}
		return b.String()
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		text   string            // of the file
		folder map[string]string // nil: there is none
		sets   []string
		want   []string
	}{
		{"key of the base", base + below("x: {kafka: {topics: [t], brokers: [b]}, zerobus: {table: t}}"), nil, nil,
			[]string{"F:9: integration x: kafka.brokers belongs to the base, since all integrations share it; set it at the top of the configuration file instead"}},
		{"keys of the base", base + below(orders+"x:\n  kafka.topics: [t]\n  zerobus.table: t\n  ops: {address: ':1'}\n  log.level: debug\n  delivery: {drain: 1s}\n  deployment: d\n  kafka: {sasl: {username: u}}"), nil, nil,
			[]string{"F:13: integration x: ops.address belongs", "F:14: integration x: log.level belongs", "F:15: integration x: delivery.drain belongs", "F:16: integration x: deployment belongs", "F:17: integration x: kafka.sasl.username belongs"}},
		{"misspelt", base + below("x: {kafka: {topic: t}, zerobus: {tabel: t}}"), nil, nil, []string{"F:9: integration x: unknown key zerobus.tabel; did you mean zerobus.table?"}},
		{"misspelt enabled", base + below(orders+"x: {kafka: {topic: t}, zerobus.table: t, enabeld: false}"), nil, nil, []string{"F:10: integration x: unknown key enabeld; did you mean enabled?"}},
		{"no key of the section", base + below("x: {delivery: {speed: 1}, kafka.topics: [t], zerobus.table: t}"), nil, nil, []string{"integration x: unknown key delivery.speed; the keys of delivery are max_rows, max_bytes\n"}},
		{"enabled is no boolean", base + below("x: {enabled: maybe, kafka.topics: [t], zerobus.table: t}"), nil, nil, []string{`F:9: integration x: enabled "maybe" must be true or false`}},
		{"enabled in the base", base + "enabled: false\n" + below(orders), nil, nil, []string{"F:8: unknown key enabled"}},
		{"two spellings", base + below("x: {kafka: {topic: a, topics: [b]}, zerobus.table: t}"), nil, nil, []string{"F:9: integration x: kafka.topics is the same key as kafka.topic"}},
		{"twice", base + below("x:\n  kafka.topics: [a]\n  kafka: {topics: [b]}\n  zerobus.table: t"), nil, nil, []string{"F:11: integration x: kafka.topics is given twice, first on line 10"}},
		{"integrations is a list", base + "integrations: [a]\n", nil, nil, []string{"F:8: integrations must hold names"}},
		{"overlay is a word", base + below(orders+"x: hello"), nil, nil, []string{"F:10: integration x: must hold sections"}},
		{"name", base + below(orders+"Orders: {}\n-x: {}\n"+strings.Repeat("n", 41)+": {}"), nil, nil,
			[]string{"F:10: integrations.Orders must be 1 to 40", "F:11: integrations.-x must be 1 to 40", "F:12: integrations.nnnnn"}},
		{"reserved", base + below(orders+"default: {}"), nil, nil, []string{"F:10: integrations.default is reserved"}},
		{"name of a section", base + below(orders+"kafka: {topics: [t]}"), nil, nil, []string{"F:10: integrations.kafka is a key of the base, not the name of an integration; indent it below a name"}},
		{"twice in the file", base + below(orders+orders), nil, nil, []string{"F:10: integrations.orders is given twice, first in F:9"}},
		{"in a file and the folder", base + below(orders), map[string]string{"a.yaml": "\n" + orders}, nil, []string{"D/a.yaml:2: integrations.orders is given twice, first in F:9"}},
		{"in two files", base, map[string]string{"a.yaml": orders, "b.yml": clicks + orders}, nil, []string{"D/b.yml:2: integrations.orders is given twice, first in D/a.yaml:1"}},
		{"a file of the base", base, map[string]string{"a.yaml": "kafka:\n  topics: [t]\nzerobus.table: t\n"}, nil,
			[]string{"D/a.yaml:1: integrations.kafka is a key of the base", "D/a.yaml:3: integrations.zerobus.table is a key of the base"}},
		{"a file with integrations", base, map[string]string{"a.yaml": below(orders)}, nil, []string{"D/a.yaml:1: integrations.integrations must not hold integrations again; take this line out"}},
		{"a file of another kind", base, map[string]string{"a.yaml": "- a\n"}, nil, []string{"D/a.yaml:1: integrations must hold names"}},
		{"a file that is no YAML", base, map[string]string{"a.yaml": "a: [\n", "b.yaml": orders}, nil, []string{"D/a.yaml:1: not valid YAML"}},
		{"--set beside it", base, map[string]string{"a.yaml": "a: [\n"}, []string{"integrations.orders.kafka.start=latest"}, []string{"D/a.yaml:1: not valid YAML"}},
		{"two large files", base, map[string]string{"a.yaml": "#" + strings.Repeat("x", 1<<20), "b.yaml": "#" + strings.Repeat("x", 1<<20)}, nil,
			[]string{"D/a.yaml: cannot be read: it is larger", "D/b.yaml: cannot be read: it is larger"}},
		{"two documents", base, map[string]string{"a.yaml": orders + "---\n" + clicks}, nil, []string{"a second YAML document is not read"}},
		{"a large file", base, map[string]string{"a.yaml": "#" + strings.Repeat("x", 1<<20)}, nil, []string{"D/a.yaml: cannot be read: it is larger than 1048576 bytes"}},
		{"an empty folder", base, map[string]string{"a.txt": orders, ".a.yaml": orders}, nil, []string{`integrations_dir "D" holds no integration, and the configuration file describes none`}},
		{"too many", base + below(many(257)), nil, nil, []string{"F:265: integrations must not be more than 256"}},
		{"a problem of all, once", strings.Replace(base, "client_id: app", "client_id: ''", 1) + "kafka.start: soon\n" + below(orders+clicks), nil, nil,
			[]string{`F:8: kafka.start "soon" must be one of`, "zerobus.client_id is required; set it to the application id of the service principal, in the file or as BRIDGE_ZEROBUS_CLIENT_ID"}},
		{"a problem of all, with a value", strings.Replace(base, "https://abc", "http://abc", 1) + below(orders+clicks), nil, nil, []string{`F:3: zerobus.workspace_url "http://abc.cloud.databricks.com" must be https`}},
		{"a problem of the process, once", base + "delivery.drain: 5m\n" + below(orders+clicks), nil, nil, []string{`F:8: delivery.drain "5m" must be shorter than kafka.rebalance_timeout`}},
		{"a problem of some", strings.Replace(base, "  catalog: c\n", "", 1) + below("x: {kafka.topics: [x], zerobus.table: a.s.x}\n"+orders+clicks), nil, nil,
			[]string{"F:10: integrations clicks and orders: zerobus.catalog is required"}},
		{"a value of the base beside one of the integration", base + "delivery.max_bytes: 2MiB\n" + below(orders+"x: {kafka.topics: [x], zerobus: {table: x, max_request_bytes: 1MiB}}"), nil, nil,
			[]string{`F:8: integration x: delivery.max_bytes "2MiB" must not be larger than zerobus.max_request_bytes`}},
		{"no table", base + below("x: {kafka.topics: [x]}"), nil, nil, []string{"F:9: integration x: zerobus.table is required; set it in the integration to the table that receives the events"}},
		{"no file", base + below("x: {kafka.topics: [x], zerobus: {table: x, client_secret_file: /nowhere}, mapping: {blueprint: /nowhere}}"), nil, nil,
			[]string{"integration x: zerobus.client_secret_file \"/nowhere\" cannot be used: no such file", "integration x: mapping.blueprint \"/nowhere\" cannot be read: no such file"}},
		{"secret and file in the overlay", base + below("x: {kafka.topics: [x], zerobus: {table: x, client_secret: hunter2-hunter2, client_secret_file: "+secret+"}}"), nil, nil,
			[]string{"integration x: zerobus.client_secret_file \"" + secret + "\" must not be set together"}},
		{"neither table nor integration", base + "integrations: {}\n", nil, nil, []string{"kafka.topics is required", "zerobus.table is required; set it to the table that receives the events, in the file or as BRIDGE_ZEROBUS_TABLE"}},
		{"default beside others", complete[:strings.Index(complete, "  schema")] + "  table: t\n" + below("x: {kafka.topics: [x], zerobus.table: a.b.x}"), nil, nil,
			[]string{"integration default: zerobus.schema is required"}},
		{"the same group", base + below("a: {kafka: {topics: [a], group: zerobus-bridge-b}, zerobus.table: a}\nb: {kafka.topics: [b], zerobus.table: b}"), nil, nil,
			[]string{`F:10: integration b: kafka.group "zerobus-bridge-b" is the group of the integration a too, and each would receive only some of the events; leave it out`}},
		{"Signal's group", base + "deployment: event\n" + below("processor: {kafka.topics: [a], zerobus.table: a}"), nil, nil, []string{`F:8: integration processor: kafka.group "event-processor" is the group of Signal's own`}},
		{"a topic twice into a table", base + below(orders+"x: {kafka: {topics: [y, orders]}, zerobus: {table: C.S.Orders}}"), nil, nil,
			[]string{`F:10: integration x: kafka.topics "orders" is read by the integration orders too, into the same table C.S.Orders: every event would be in the table twice`}},
		{"a dead-letter topic is read", base + below(orders+"x: {kafka.topics: [orders-dlq-orders], zerobus.table: x}"), nil, nil,
			[]string{`F:9: integration orders: rejects.topic "orders-dlq-orders" is a source topic of the integration x, which would read the dead letters as events`}},
		{"a named dead-letter topic is read", complete + below("x: {kafka.topics: [x], zerobus.table: x, rejects.topic: events}"), nil, nil,
			[]string{`F:12: integration x: rejects.topic "events" is a source topic of the integration default`}},
		{"--set of no integration", base + below(orders+clicks), nil, []string{"integrations.order.kafka.start=latest", "integrations.q.kafka.start=latest", "integrations.default.kafka.start=latest", "integrations.orders=1", "integrations=1"},
			[]string{"--set: integrations.order.kafka.start is of no integration of the configuration; did you mean orders?", "--set: integrations.q.kafka.start is of no integration of the configuration; there is clicks and orders",
				"--set: integrations.default.kafka.start is not a key of an overlay; name the key of the base", "--set: integrations.orders is no key", "--set: integrations is no key"}},
		{"--set of no key", base + below(orders), nil, []string{"integrations.orders.kafka.brokers=b", "integrations.orders.kafka.topic_s=b", "integrations.orders.kafka=b", "integrations.orders.kafka.start=soon"},
			[]string{"--set: integration orders: kafka.brokers belongs to the base", "--set: integration orders: unknown key kafka.topic_s; did you mean kafka.topics?", "--set: integration orders: integrations.orders.kafka is a section", `--set: integration orders: kafka.start "soon" must be one of`}},
		{"dotted", base + below(orders) + "integrations.x.kafka.topics: [t]\n", nil, nil, []string{"F:10: integrations.x.kafka.topics must be indented below integrations:"}},
		{"deployment", base + "deployment: 'a b'\n" + below(orders+clicks), nil, nil, []string{`F:8: deployment "a b" must be 1 to 200 `}},
		{"empty deployment", base + "deployment: ''\n" + below(orders), nil, nil, []string{`F:8: deployment must be 1 to 200 `}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, text := "", tc.text
			if tc.folder != nil {
				dir = folder(t, tc.folder)
				text += "integrations_dir: " + dir + "\n"
			}
			file := write(t, text)
			d, err := config.LoadDeployment(config.Options{File: file, Sets: tc.sets})
			if d != nil || err == nil {
				t.Fatalf("got %+v, want problems", d)
			}
			var missing []string
			got := strings.Split(err.Error(), "\n")
			for _, want := range tc.want {
				want = strings.NewReplacer("F:", file+":", `"D"`, `"`+dir+`"`, "D/", dir+"/").Replace(want)
				if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line+"\n", want) }) {
					missing = append(missing, want)
				}
			}
			if strings.Contains(tc.name, "neither") {
				got = got[:len(tc.want)]
			}
			if len(missing) > 0 || len(got) != len(tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %d problems, want %d:\n%s\nmissing: %q", len(got), len(tc.want), err, missing)
			}
		})
	}
}

// Integrations come from the file and from the files of a folder, links among them, as a
// mounted ConfigMap has them.
func TestFolderOfIntegrations(t *testing.T) {
	mounted := folder(t, map[string]string{"skipped.txt": "no: yaml: at all", ".hidden.yaml": "kafka: {}", "b.yml": "", "c.yaml": "# nothing\n"})
	if err := os.Mkdir(filepath.Join(mounted, "..2026"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mounted, "..2026", "a.yaml"), []byte("\n"+orders+"off: {enabled: false, kafka.topics: [orders], zerobus.table: orders}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"..data": "..2026", "a.yaml": filepath.Join("..data", "a.yaml")} {
		if err := os.Symlink(to, filepath.Join(mounted, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(mounted, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := write(t, base+below("clicks: {kafka.topics: [clicks], zerobus.table: clicks}"))
	o := config.Options{File: file, Env: []string{"BRIDGE_INTEGRATIONS_DIR=" + mounted}, Sets: []string{"integrations.off.kafka.start=latest"}}
	d, err := config.LoadDeployment(o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range d.Integrations {
		got = append(got, fmt.Sprintf("%s %t %s:%d", i.Name, i.Enabled, i.Source, i.Line))
	}
	linked := filepath.Join(mounted, "a.yaml")
	if want := []string{"clicks true " + file + ":9", "off false " + linked + ":3", "orders true " + linked + ":2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if i := d.Integrations[1]; i.Config.Kafka.Start != "latest" {
		t.Errorf("got start %s, want that of --set", i.Config.Kafka.Start)
	}
	if b := d.Base; b.IntegrationsDir != mounted || b.Kafka.Group != "zerobus-bridge" || b.Zerobus.Table != "" {
		t.Errorf("base: got %+v", b)
	}
}

// A folder is read within bounds.
func TestBoundsOfTheFolder(t *testing.T) {
	full := t.TempDir()
	for i := range 1001 {
		if err := os.WriteFile(filepath.Join(full, fmt.Sprintf("f%d.yaml", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := write(t, base)
	wrong := "kafka: {}\nops: {}\n" // two problems for each file
	bad := map[string]string{}
	for i := range 100 {
		bad[fmt.Sprintf("f%02d.yaml", i)] = wrong
	}
	for _, tc := range []struct {
		dir, want string
		problems  int
	}{
		{full, "cannot be read: it holds more than 1000 such files", 1},
		{filepath.Join(full, "none"), "cannot be read: no such file or directory; name a folder", 1},
		{file, "cannot be read: ", 1},
		{folder(t, map[string]string{"a.yaml": "x: {a: 1}\n"}), "unknown key a", 3},
		{folder(t, bad), "is not read from here on, after 100 problems", 101},
	} {
		_, err := config.LoadDeployment(config.Options{File: file, Sets: []string{"integrations_dir=" + tc.dir}})
		if got := len(config.Problems(err)); got != tc.problems || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %d problems, want %d with %q: %.400v", tc.dir, got, tc.problems, tc.want, err)
		}
	}
	if err := os.Remove(filepath.Join(full, "f7.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := config.LoadDeployment(config.Options{File: write(t, complete), Sets: []string{"integrations_dir=" + full}}); err != nil {
		t.Errorf("a thousand empty files: %v", err)
	}
}

// Files that hang, as on a mount without its server, cost the time of one.
func TestAFolderThatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yaml"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := config.LoadDeployment(config.Options{File: write(t, complete), Sets: []string{"integrations_dir=" + dir}})
	if got := config.Problems(err); len(got) != 1 || !strings.Contains(err.Error(), filepath.Join(dir, "a.yaml")+": cannot be read: nobody has written") {
		t.Errorf("got %v, want the first file alone", err)
	}
}

// Load returns one integration. Mistakes of others do not concern it.
// A command for one integration refuses a pair of --set that is of the base and that
// the integration replaces; a whole deployment ignores it.
func TestSetsThatTheIntegrationReplaces(t *testing.T) {
	text := base + below(orders+"clicks: {kafka: {topics: [clicks]}, zerobus: {table: a.b.clicks}, rejects: {topic: bad}}")
	for _, tc := range []struct{ integration, set, want string }{
		{"orders", "zerobus.table=copy", "--set: integration orders: zerobus.table has no effect, since the integration wins over the base; write --set integrations.orders.zerobus.table=..."},
		{"orders", "kafka.topic=other", "kafka.topics has no effect"},
		{"orders", "kafka.group=other", "write --set integrations.orders.kafka.group=..."},
		{"orders", "rejects.topic=other", ""},
		{"orders", "kafka.client_id=other", ""},
		{"clicks", "rejects.topic=other", "rejects.topic has no effect"},
		{"clicks", "zerobus.schema=other", "zerobus.schema has no effect"},
		{"default", "zerobus.table=copy", "kafka.topics is required"},
	} {
		o := config.Options{File: write(t, text), Integration: tc.integration, Sets: []string{tc.set}}
		_, err := config.Load(o)
		if got := fmt.Sprint(err); err == nil != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s, %s: got %v, want %q", tc.integration, tc.set, err, tc.want)
		}
	}
	both := config.Options{File: write(t, text), Integration: "orders", Sets: []string{"zerobus.table=copy", "integrations.orders.zerobus.table=copy"}}
	if got := load(t, both).Zerobus.Table; got != "copy" {
		t.Errorf("got table %s, want that of --set", got)
	}
	if all := deployment(t, config.Options{File: write(t, text), Sets: []string{"rejects.topic=other"}}); all["clicks"].Config.Rejects.Topic != "bad" || all["orders"].Config.Rejects.Topic != "other" {
		t.Errorf("got %+v, want the topic of the integration, or that of --set", all)
	}
}

func TestLoadOneIntegration(t *testing.T) {
	two := base + below(orders+"clicks: {kafka: {topics: [clicks], start: latest}, zerobus: {table: clicks}}")
	broken := base + below(orders+"clicks: {kafka: {topics: [clicks], strat: latest}, zerobus: {table: 'a b'}}")
	for _, tc := range []struct {
		name, text, integration string
		flags                   map[string]string
		want                    string // topics, group and table, or the problem
	}{
		{"default", complete, "", nil, "[events] zerobus-bridge t"},
		{"default by name", complete, "default", nil, "[events] zerobus-bridge t"},
		{"default among others", complete + below(orders), "", nil, "[events] zerobus-bridge t"},
		{"the only one", base + below(orders), "", nil, "[orders] zerobus-bridge-orders orders"},
		{"by name", two, "clicks", nil, "[clicks] zerobus-bridge-clicks clicks"},
		{"none named", two, "", nil, "--integration must name one of the integrations; there is clicks and orders"},
		{"misspelt", two, "order", nil, `--integration "order" is no integration of the configuration; did you mean orders?`},
		{"no default", two, "default", nil, `--integration "default" is no integration of the configuration; there is clicks and orders`},
		{"beside a broken one", broken, "orders", nil, "[orders] zerobus-bridge-orders orders"},
		{"the broken one", broken, "clicks", nil, "integration clicks: unknown key kafka.strat"},
		{"the name of a broken one", base + below(orders+"A: {}"), "orders", nil, "integrations.A must be"},
		{"flags", two, "clicks", map[string]string{"topics": "other", "group": "mine"}, "[other] mine clicks"},
		{"flags of default", complete + below(orders), "", map[string]string{"topic": "other"}, "[other] zerobus-bridge t"},
		{"flags of the only one", base + below(orders), "", map[string]string{"group": "mine"}, "[orders] mine orders"},
		{"in no file", "", "orders", nil, `--integration "orders" is no integration of the configuration; there is default`},
	} {
		o := config.Options{File: write(t, tc.text), Integration: tc.integration, Flags: tc.flags}
		for _, partial := range []bool{false, true} {
			o.Partial = partial
			c, err := config.Load(o)
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprint(c.Kafka.Topics, " ", c.Kafka.Group, " ", c.Zerobus.Table)
			}
			if !strings.Contains(got, tc.want) || err != nil && len(config.Problems(err)) > 2 {
				t.Errorf("%s, partial %t: got %s, want %s", tc.name, partial, got, tc.want)
			}
		}
	}
}

// What would be read or written twice matters only while both run.
func TestDisabledIntegrationsDoNotOverlap(t *testing.T) {
	for _, second := range []string{
		"x: {enabled: false, kafka: {topics: [orders]}, zerobus: {table: orders}}",
		"x: {enabled: false, kafka: {topics: [x], group: zerobus-bridge-orders}, zerobus: {table: x}}",
		"x: {enabled: false, kafka: {topics: [orders-dlq-orders]}, zerobus: {table: x}}",
		"x: {enabled: false, kafka: {topics: [x]}, rejects: {topic: orders}, zerobus: {table: x}}",
		"x: {kafka: {topics: [orders]}, zerobus: {table: x}}",
		"x: {kafka: {topics: [x]}, zerobus: {table: orders}}",
		"x: {kafka: {topics: [orders]}, zerobus: {table: orders, workspace_url: 'https://b.cloud.databricks.com'}}",
		"x: {kafka: {topics: [x]}, rejects: {topic: orders, policy: skip}, zerobus: {table: x}}",
	} {
		if _, err := config.LoadDeployment(config.Options{File: write(t, base+below(orders+second))}); err != nil {
			t.Errorf("%s: %v", second, err)
		}
	}
	bad := base + below(orders+"x: {enabled: false, kafka: {topics: [x], start: soon}, zerobus: {table: x}}")
	if _, err := config.LoadDeployment(config.Options{File: write(t, bad)}); err == nil {
		t.Error("a disabled integration was not validated")
	}
}

// Integrations that read one topic have dead-letter topics of their own.
func TestDeadLetterTopicsDiffer(t *testing.T) {
	all := deployment(t, config.Options{File: write(t, complete+below("a: {zerobus.table: a}\nb: {zerobus.table: b}"))})
	seen := map[string]bool{}
	for _, i := range all {
		seen[i.Config.Rejects.TopicFor("events")] = true
	}
	if len(seen) != 3 {
		t.Errorf("got %v, want one for each", seen)
	}
}

func TestIgnoredOfADeployment(t *testing.T) {
	grpc := "kafka.topics: [g], zerobus: {table: g, transport: grpc}"
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"default", complete + "  streams: 2\n  transport: workspace\n", []string{"zerobus.streams has no effect with zerobus.transport workspace"}},
		{"group without default", base + "kafka.group: mine\n" + below(orders), []string{"kafka.group has no effect without zerobus.table in the base"}},
		{"used by one", base + "  endpoint: z.example\n  streams: 2\n  transport: rest\n" + below(orders+"g: {"+grpc+"}"), nil},
		{"used by none", base + "  streams: 2\n  transport: workspace\n" + below(orders+"x: {kafka.topics: [x], zerobus.table: x}"), []string{"zerobus.streams has no effect"}},
		{"of one", base + below(orders+"x: {kafka.topics: [x], zerobus: {table: x, streams: 2, transport: rest}}"), []string{"integration x: zerobus.streams has no effect"}},
		{"of the process", base + "tracing.max_per_second: 5\n" + below(orders+"x: {kafka.topics: [x], zerobus.table: x}"), []string{"tracing.max_per_second has no effect"}},
	} {
		d, err := config.LoadDeployment(config.Options{File: write(t, tc.text)})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var got []string
		for _, i := range d.Ignored() {
			got = append(got, i.String())
		}
		if !slices.EqualFunc(got, tc.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// The effective configuration names the source of each value, and no secret.
func TestYAMLNamesTheSourceOfEachValue(t *testing.T) {
	file := write(t, strings.Replace(base, "hush", hush, 1)+below("orders:\n  kafka: {topics: [a, b]}\n  zerobus: {table: orders}"))
	o := config.Options{File: file, Env: []string{"BRIDGE_LOG_LEVEL=warn"}, Sets: []string{"integrations.orders.kafka.start=latest"}}
	shown, err := deployment(t, o)["orders"].YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"topics: [a, b] # " + file + ":10\n", "table: orders # " + file + ":11\n", "client_secret: '[redacted]' # " + file + ":5\n",
		"level: warn # environment variable BRIDGE_LOG_LEVEL\n", "start: latest # --set\n", "group: zerobus-bridge-orders\n", "policy: dead_letter\n"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("got %s, want %q in it", shown, want)
		}
	}
	if strings.Contains(string(shown), hush) {
		t.Error("the secret is shown")
	}
}

// Another spelling of the same values changes nothing.
func TestSpellingIsNoChange(t *testing.T) {
	a := deployment(t, config.Options{File: write(t, base+"delivery: {drain: 60s, max_buffered: 64MiB}\nkafka.rebalance_timeout: 2m\n"+
		below("x: {kafka: {topics: [a], group: zerobus-bridge-x}, zerobus: {table: c.s.t, workspace_url: 'abc.cloud.databricks.com/?o=1', transport: REST, endpoint: z.example}}"))})["x"]
	b := deployment(t, config.Options{File: write(t, base+"kafka: {rebalance_timeout: 120s}\ndelivery: {max_buffered: 67108864, drain: 1m}\n"+
		below("x:\n  zerobus: {endpoint: 'https://z.example/', transport: rest, table: t}\n  kafka.topic: a"))})["x"]
	_, changed, pending := a.Config.Follow(b.Config)
	if len(changed)+len(pending) > 0 {
		t.Errorf("got %q changed and %q pending, want nothing", changed, pending)
	}
}

// While a process runs, its own keys stay, and the group that is named after it.
func TestWithProcess(t *testing.T) {
	load := func(text string) (*config.Config, config.Integration) {
		d, err := config.LoadDeployment(config.Options{File: write(t, base+text)})
		if err != nil {
			t.Fatal(err)
		}
		return d.Base, d.Integrations[0]
	}
	inForce, _ := load("deployment: old\nkafka.brokers: [a]\n" + below(orders))
	_, next := load("deployment: new\nkafka.brokers: [b]\nops.address: ':1'\n" + below("orders: {kafka: {topics: [other], start: latest}, zerobus.table: t, delivery.max_rows: 7}"))
	got := next.Config.WithProcess(inForce)
	if got.Kafka.Group != "old-orders" || got.Deployment != "old" || got.Kafka.Brokers[0] != "a" || got.Ops.Address != inForce.Ops.Address {
		t.Errorf("got %+v, want the keys of the process in force", got)
	}
	if got.Kafka.Topics[0] != "other" || got.Kafka.Start != "latest" || got.Zerobus.Table != "t" || got.Delivery.MaxRows != 7 || got.Rejects.Integration != "orders" {
		t.Errorf("got %+v, want the new keys of the integration", got)
	}
	_, named := load("deployment: new\n" + below("orders: {kafka: {topics: [other], group: mine}, zerobus.table: t}"))
	if got := named.Config.WithProcess(inForce).Kafka.Group; got != "mine" {
		t.Errorf("got group %q, want the one that is named", got)
	}
}

// A secret of an integration is refused on the command line, with its file and the
// other place where it may be.
func TestSecretsOfIntegrationsAreRefusedOnTheCommandLine(t *testing.T) {
	err := config.RefuseSecrets([]string{"integrations.x.zerobus.client_secret=" + hush, "integrations.x.kafka.topics=t", "integrations.x.zerobus.client_secret="})
	const want = "--set: integrations.x.zerobus.client_secret is a secret, and other users of this machine can read the command line; " +
		"name a file that holds it with --set integrations.x.zerobus.client_secret_file=FILE, or put it into the file that describes x"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
