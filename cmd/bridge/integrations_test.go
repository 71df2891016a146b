package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// deployment writes a configuration of two integrations, without default.
func deployment(t *testing.T, extra string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := `kafka: {brokers: ["127.0.0.1:1"]}
zerobus: {workspace_url: "https://dbc-a1b2c3d4-e5f6.cloud.databricks.com", workspace_id: "1", client_id: id, client_secret: s3cr3t}
integrations:
  orders:
    kafka: {topics: [shop]}
    zerobus: {table: datafly.shop.orders}
  refunds:
    enabled: false
    kafka: {topics: [shop, returns]}
    zerobus: {table: datafly.shop.refunds}
    rejects: {policy: skip}
` + extra
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestIntegrationsList(t *testing.T) {
	file := deployment(t, "")
	got := command("integrations", "list", "--config", file)
	want := `INTEGRATION  ENABLED  TOPICS        GROUP                   TABLE                 DEAD-LETTER TOPICS  SOURCE
orders       yes      shop          zerobus-bridge-orders   datafly.shop.orders   shop-dlq-orders     config.yaml:4
refunds      no       shop,returns  zerobus-bridge-refunds  datafly.shop.refunds  -                   config.yaml:7
`
	if text := strings.ReplaceAll(got.stdout, file, "config.yaml"); got.code != exitFine || text != want {
		t.Errorf("got exit code %d, %s and\n%s\nwant\n%s", got.code, got.stderr, text, want)
	}
	got = command("integrations", "list", "--config", file, "--output", "json")
	var answer struct{ Integrations []listedIntegration }
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || len(answer.Integrations) != 2 {
		t.Fatalf("got %s, %v", got.stdout, err)
	}
	if one, two := answer.Integrations[0], answer.Integrations[1]; !one.Enabled || two.Enabled || one.DeadLetters[0] != "shop-dlq-orders" || two.DeadLetters == nil {
		t.Errorf("got %+v", answer.Integrations)
	}
}

func TestIntegrationsShow(t *testing.T) {
	file := deployment(t, "")
	got := command("integrations", "show", "orders", "--config", file, "--set", "log.level=warn")
	text := strings.ReplaceAll(got.stdout, file, "config.yaml")
	for _, want := range []string{
		"topics: [shop] # config.yaml:5\n", "table: orders # config.yaml:6\n", "client_secret: '[redacted]' # config.yaml:2\n",
		"level: warn # --set\n", "    group: zerobus-bridge-orders\n", "    start: earliest\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got %s and\n%s\nwant %q in it", got.stderr, text, want)
		}
	}
	if strings.Contains(text, "s3cr3t") {
		t.Errorf("got a secret in\n%s", text)
	}
	got = command("integrations", "show", "order", "--config", file)
	if want := "there is no integration order; there is orders, refunds"; got.code != exitUsage || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "try: bridge integrations list --config ") {
		t.Errorf("got exit code %d and %s, want %d and %q", got.code, got.stderr, exitUsage, want)
	}
}

func TestIntegrationsValidate(t *testing.T) {
	if got := command("integrations", "validate", "--config", deployment(t, ""), "--set", "zerobus.transport=workspace"); got.code != exitFine || !strings.HasPrefix(got.stdout, "2 integrations, valid\nwarning: zerobus.workspace_id has no effect ") {
		t.Errorf("got exit code %d, %q and %s", got.code, got.stdout, got.stderr)
	}
	if got := command("integrations", "validate", "--config", deployment(t, ""), "--set", "kafka.group=g"); got.code != exitFine || !strings.Contains(got.stdout, "warning: kafka.group has no effect ") {
		t.Errorf("got exit code %d, %q and %s", got.code, got.stdout, got.stderr)
	}
	got := command("integrations", "validate", "--config", deployment(t, "  returns:\n    kafka: {topic: x, start: never}\n    ops: {address: x}\n"))
	for _, want := range []string{"config.yaml:12", "config.yaml:13", "kafka.start", "ops", "zerobus.table", "try: bridge help config"} {
		if got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("got exit code %d and\n%s\nwant %d and %q", got.code, got.stderr, exitUsage, want)
		}
	}
}

func TestIntegrationsDiff(t *testing.T) {
	was := deployment(t, "  gone: {kafka: {topics: [g]}, zerobus: {table: a.b.gone}}\n  same: {kafka: {topics: [s]}, zerobus: {table: a.b.same}}\n")
	next := deployment(t, "  added: {kafka: {topics: [a]}, zerobus: {table: a.b.added}}\n  same: {kafka: {topics: [s]}, zerobus: {table: a.b.same}}\n")
	text, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("[shop]", "[shop, web]", "datafly.shop.orders}", "datafly.shop.orders, rate_limit: 500}", "enabled: false", "enabled: true", "integrations:", "ops: {address: ':1'}\nlog: {level: warn}\nintegrations:").Replace(string(text))
	if err := os.WriteFile(next, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	got := command("integrations", "diff", "--config", next, "--against", was)
	want := `INTEGRATION  ACTION   KEYS
added        start    -
gone         stop     -
orders       replace  zerobus.rate_limit,kafka.topics
refunds      start    enabled
same         nothing  -
the process takes these over at once: log.level
the process needs a restart for: ops.address
`
	if got.code != exitFine || got.stdout != want {
		t.Errorf("got exit code %d, %s and\n%s\nwant\n%s", got.code, got.stderr, got.stdout, want)
	}
	got = command("integrations", "diff", "--config", was, "--against", was, "--set", "zerobus.rate_limit=5", "--output", "json")
	if want := `{"process":{"live":[],"restart":[]},"integrations":[{"integration":"gone","action":"nothing","keys":[]},`; got.code != exitFine || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("got exit code %d, %s and %s, want %s", got.code, got.stderr, got.stdout, want)
	}
	if got := command("integrations", "diff", "--config", was); got.code != exitUsage || !strings.Contains(got.stderr, "--against is required") {
		t.Errorf("got exit code %d and %s", got.code, got.stderr)
	}
}

// A command for one integration names those that there are.
func TestIntegrationIsChosen(t *testing.T) {
	file := deployment(t, "")
	for _, args := range [][]string{{"ddl"}, {"map"}, {"replay", "--to", "earliest"}, {"dlq", "redrive"}, {"dlq", "show", "0/0"}, {"run", "--until", "now", "--group", "g"}} {
		got := command(append(args, "--config", file)...)
		if want := "orders and refunds"; got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%v: got exit code %d and %s, want %d and %q", args, got.code, got.stderr, exitUsage, want)
		}
		got = command(append(args, "--config", file, "--integration", "order")...)
		if want := "did you mean orders?"; got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%v: got exit code %d and %s, want %d and %q", args, got.code, got.stderr, exitUsage, want)
		}
		if want := "try: bridge integrations list --config " + file + "\n"; !strings.HasSuffix(got.stderr, want) {
			t.Errorf("%v: got %s, want %q at its end", args, got.stderr, want)
		}
	}
	for _, args := range [][]string{{"dlq", "list"}, {"check"}} {
		if got := command(append(args, "--config", file, "--group", "old")...); !strings.Contains(got.stdout+got.stderr, "--group is of one integration; add --integration") {
			t.Errorf("%v: got exit code %d, %s and %s", args, got.code, got.stdout, got.stderr)
		}
	}
	set := "integrations.orders.kafka.start=latest"
	if got := command("ddl", "--config", file, "--integration", "order", "--set", set); !strings.HasSuffix(got.stderr, "try: bridge integrations list --config "+file+" --set "+set+"\n") {
		t.Errorf("got %s, want the key of an integration repeated", got.stderr)
	}
	got := command("ddl", "--config", file, "--integration", "refunds")
	if want := "CREATE TABLE IF NOT EXISTS `datafly`.`shop`.`refunds`"; got.code != exitFine || !strings.Contains(got.stdout, want) {
		t.Errorf("got exit code %d, %s and\n%s\nwant %q", got.code, got.stderr, got.stdout, want)
	}
	if got := command("run", "--config", file, "--integration", "orders"); got.code != exitUsage || !strings.Contains(got.stderr, "--integration") {
		t.Errorf("got exit code %d and %s, want --integration refused without --until", got.code, got.stderr)
	}
	for _, args := range [][]string{{"ddl", "--integration", ""}, {"integrations", "show", ""}, {"check", "--integration", ""}} {
		got := command(append([]string{"__complete"}, append([]string{args[0], "--config", file}, args[1:]...)...)...)
		if !strings.Contains(got.stdout, "orders\tshop -> orders\nrefunds\tshop,returns -> refunds\n") {
			t.Errorf("%v: got %q, want the names completed", args, got.stdout)
		}
	}
}

// twoIntegrations is a configuration of two integrations between an in-process Kafka and
// an emulated workspace. The table of refunds does not exist.
func twoIntegrations(t *testing.T) (flags []string, brokers []string, workspace *emulator.Emulator) {
	t.Helper()
	flags, workspace = settingsAnd(t)
	file := flags[1]
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	base := strings.Replace(string(text), "  table: datafly.events.stream\n", "  catalog: datafly\n  schema: events\n", 1)
	if base == string(text) {
		t.Fatalf("got %s, want a table in it", text)
	}
	base += "rejects: {topic: rejects}\nintegrations:\n  orders: {zerobus: {table: stream}}\n  refunds: {zerobus: {table: missing}}\n  off: {enabled: false, kafka: {topics: [off]}, zerobus: {table: off}}\n"
	if err := os.WriteFile(file, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "brokers: [")
	list, _, _ = strings.Cut(list, "]")
	return flags, strings.Split(list, ","), workspace
}

// What the integrations have in common is checked once, and then each of them.
func TestCheckOfSeveralIntegrations(t *testing.T) {
	flags, _, _ := twoIntegrations(t)
	got := command(append([]string{"check"}, flags...)...)
	shared, rest, _ := strings.Cut(got.stdout, "\norders\n")
	orders, refunds, _ := strings.Cut(rest, "\nrefunds\n")
	steps := func(text string) (names []string) {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, " ") {
				names = append(names, strings.TrimSpace(line[:min(len(line), 28)]))
			}
		}
		return names
	}
	for _, tc := range []struct{ what, text, want string }{
		{"in common", shared, "configuration       ok, kafka               ok, memory              ok"},
		{"orders", orders, "topic               ok, group               ok, dead-letter topic   ok, token               ok, transport           ok, ingest              ok, " +
			"table               ok, grant USE CATALOG   ok, grant USE SCHEMA    ok, grant SELECT        ok, grant MODIFY        ok, columns             ok"},
		{"refunds", refunds, "topic               ok, group               ok, dead-letter topic   ok, token               ok, transport           failed, ingest              skipped, " +
			"table               failed, grant USE CATALOG   ok, grant USE SCHEMA    ok, grant SELECT        skipped, grant MODIFY        skipped, columns             skipped"},
	} {
		if got := strings.Join(steps(tc.text), ", "); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.what, got, tc.want)
		}
	}
	if want := "configuration       ok       2 integrations\n"; got.code != exitFailed || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("got exit code %d and\n%s%s\nwant %d and %q", got.code, got.stdout, got.stderr, exitFailed, want)
	}
	if !strings.Contains(got.stderr, "--integration refunds\n") {
		t.Errorf("got %q, want a command for refunds", got.stderr)
	}
	got = command(append([]string{"check", "--output", "json"}, flags...)...)
	var report struct {
		OK           bool
		Steps        []pipeline.CheckStep
		Integrations []checkedIntegration
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || report.OK || len(report.Steps) != 3 || len(report.Integrations) != 2 {
		t.Fatalf("got %s, %v", got.stdout, err)
	}
	if one, two := report.Integrations[0], report.Integrations[1]; !one.OK || one.Integration != "orders" || two.OK || len(two.Steps) != 12 {
		t.Errorf("got %+v", report.Integrations)
	}
	got = command(append([]string{"check", "--integration", "orders"}, flags...)...)
	if want := "configuration       ok       events -> datafly.events.stream\nkafka "; got.code != exitFine || !strings.HasPrefix(got.stdout, want) || strings.Contains(got.stdout, "refunds") {
		t.Errorf("got exit code %d and\n%s%s\nwant that of orders alone", got.code, got.stdout, got.stderr)
	}
}

// Integrations share a dead-letter topic. The list shows all, or those of one; a redrive
// is of one.
func TestDeadLettersOfSeveralIntegrations(t *testing.T) {
	flags, brokers, workspace := twoIntegrations(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "rejects"); err != nil {
		t.Fatal(err)
	}
	for offset, name := range []string{"orders", "refunds", "orders"} {
		rec := &kgo.Record{Topic: "rejects", Value: []byte(`{"type":"track","event":"e","message_id":"m` + strconv.Itoa(offset) + `","timestamp":"2026-03-04T09:00:00Z"}`)}
		for _, h := range [][2]string{{consumer.HeaderCode, "bad"}, {consumer.HeaderReason, "why"}, {consumer.HeaderEvents, "0"}, {consumer.HeaderTopic, "events"}, {consumer.HeaderPartition, "0"},
			{consumer.HeaderOffset, strconv.Itoa(offset)}, {consumer.HeaderTimestamp, "2026-03-04T09:00:00Z"}, {consumer.HeaderFailedAt, "2026-03-04T09:00:0" + strconv.Itoa(offset) + "Z"},
			{consumer.HeaderGroup, "zerobus-bridge-" + name}, {consumer.HeaderIntegration, name}} {
			rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	list := func(args ...string) string {
		t.Helper()
		got := command(append(append([]string{"dlq", "list"}, flags...), args...)...)
		if got.code != exitFine {
			t.Fatalf("%v: got exit code %d and %s", args, got.code, got.stderr)
		}
		return strings.Join(strings.Fields(got.stdout), " ")
	}
	all := list()
	for _, want := range []string{"3 dead letters in rejects", "INTEGRATION CODE COLUMN", "orders bad - 2 ", "refunds bad - 1 ", "INTEGRATION DEAD LETTER", "orders 0/2 events/0/2", "refunds 0/1 events/0/1"} {
		if !strings.Contains(all, want) {
			t.Errorf("got %s, want %q in it", all, want)
		}
	}
	one := list("--integration", "orders")
	if !strings.HasPrefix(one, "2 dead letters in rejects 1 dead letters of other topics, consumer groups or integrations are left out CODE") || strings.Contains(one, "INTEGRATION") {
		t.Errorf("got %s, want those of orders and the other counted", one)
	}
	got := command(append([]string{"dlq", "redrive", "--integration", "orders", "--execute", "--output", "json"}, flags...)...)
	if !strings.Contains(got.stdout, `"integration":"orders"`) || got.code != exitFine || !strings.Contains(got.stderr, `"integration":"orders"`) {
		t.Errorf("got exit code %d, %s and %s", got.code, got.stdout, got.stderr)
	}
	if rows := workspace.Table("datafly.events.stream").Count(); rows != 2 {
		t.Errorf("got %d rows, want the 2 of orders", rows)
	}
	if rest := list(); !strings.Contains(rest, "1 dead letters in") || !strings.Contains(rest, "2 more are resolved") || !strings.Contains(rest, "refunds bad - 1 ") {
		t.Errorf("got %s, want that of refunds", rest)
	}
	if got := command(append([]string{"dlq", "show", "0/1", "--integration", "refunds"}, flags...)...); got.code != exitFine || !strings.Contains(got.stdout, "integration refunds\n") {
		t.Errorf("got exit code %d, %s and %s", got.code, got.stdout, got.stderr)
	}
}

// A bounded run is of one integration, in a group beside its own.
func TestBoundedRunOfOneIntegration(t *testing.T) {
	flags, brokers, workspace := twoIntegrations(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "events", Value: []byte(`{"type":"track","event":"e","message_id":"m","timestamp":"2026-03-04T09:00:00Z"}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	bounded := append([]string{"run", "--until", "now", "--integration", "orders"}, flags...)
	got := command(append(bounded, "--group", "zerobus-bridge-orders")...)
	if want := "add --group with another name than zerobus-bridge-orders"; got.code != exitUsage || !strings.Contains(got.stderr, want) {
		t.Errorf("got exit code %d and %s, want %d and %q", got.code, got.stderr, exitUsage, want)
	}
	if got := command(append(bounded, "--group", "shadow")...); got.code != exitFine || workspace.Table("datafly.events.stream").Count() != 1 {
		t.Errorf("got exit code %d, %d rows and %s, want the event in the table of orders", got.code, workspace.Table("datafly.events.stream").Count(), got.stderr)
	}
}

// With a store, a check needs no integration of a file: its step is that of the store.
func TestCheckOfAStoreAlone(t *testing.T) {
	_, brokers, _ := twoIntegrations(t)
	base := []string{"check", "--config", os.DevNull, "--set", "store.enabled=true", "--set"}
	got := command(append(base, "kafka.brokers="+strings.Join(brokers, ","))...)
	if want := "store               ok       0 installed integrations in zerobus-bridge-integrations\n"; got.code != exitFine || !strings.HasSuffix(got.stdout, want) {
		t.Errorf("got exit code %d and\n%s%s\nwant %q", got.code, got.stdout, got.stderr, want)
	}
	got = command(append(base, "kafka.brokers=127.0.0.1:1", "--timeout", "5s")...)
	if got.code != exitFailed || !strings.Contains(got.stdout, "store               failed") || !strings.HasSuffix(got.stderr, "bridge help config store\n") {
		t.Errorf("without a broker: got exit code %d and\n%s%s", got.code, got.stdout, got.stderr)
	}
}
