package docs_test

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// sectionsOfThePage are those of Signal's integration page that an operator works through,
// each with what its commands in the README print when they work.
var sectionsOfThePage = []struct {
	title string
	print map[string]string // by command
}{
	{"Prerequisites", map[string]string{"bridge setup": "Nothing was changed."}},
	{"Create the Target Table", map[string]string{"bridge ddl": "CREATE TABLE IF NOT EXISTS", "bridge setup --execute": "done            CREATE TABLE"}},
	{"Create a Service Principal", map[string]string{"bridge check": "token               ok"}},
	{"Grant Permissions", map[string]string{"bridge setup --execute": "GRANT SELECT, MODIFY ON TABLE", "bridge check": "grant MODIFY        ok"}},
	{"Configuration", map[string]string{"bridge setup --execute": "config file     config.yaml, ", "bridge help config zerobus": "workspace_url"}},
	{"Testing", map[string]string{"bridge setup --execute": "bridge-setup-probe  2", "bridge check --write-probe": "write probe         ok"}},
	{"Troubleshooting", map[string]string{"bridge check": "ingest              ok", "bridge help troubleshooting": "sink_blocked"}},
}

// TestSectionsOfTheIntegrationPage runs the command of each section of Signal's integration
// page that the README names, in the order of the page. They have the six fields, a topic, and
// a workspace without the table.
func TestSectionsOfTheIntegrationPage(t *testing.T) {
	t.Parallel()
	_, table, found := strings.Cut(readPage(t, "README.md"), "\n| section | command |\n|---|---|\n")
	if !found {
		t.Fatal("README.md has no table of sections and commands")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if len(rows) != len(sectionsOfThePage) {
		t.Fatalf("got %d sections in README.md, want %d", len(rows), len(sectionsOfThePage))
	}
	run := withSixFields(t)
	printed := map[string]string{} // by command; what has been done is not done again
	for n, row := range rows {
		section := sectionsOfThePage[n]
		title, text, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		if title != section.title {
			t.Fatalf("got section %q, want %q", title, section.title)
		}
		var named []string
		for _, command := range (line{text: text}).spans() {
			if !strings.HasPrefix(command, "bridge ") {
				continue
			}
			named = append(named, command)
			if _, did := printed[command]; !did {
				printed[command] = run(t, command)
			}
			if want, known := section.print[command]; !known || !strings.Contains(printed[command], want) {
				t.Errorf("%s: %s did not print %q:\n%s", title, command, want, printed[command])
			}
		}
		if len(named) < len(section.print) {
			t.Errorf("%s: got the commands %q, want those of %v", title, named, section.print)
		}
	}
}

// withSixFields returns how to run a command in an empty folder, with the six fields and a
// topic in the environment. A command that fails fails the test.
func withSixFields(t *testing.T) func(t *testing.T, command string) string {
	t.Helper()
	workspace, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(workspace.Handler())
	t.Cleanup(func() {
		if err := workspace.Close(context.Background()); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	kafka := kafkatest.StartFake(t, kafkatest.Options{})
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	secret := filepath.Join(dir, "client-secret")
	if err := os.WriteFile(secret, []byte(emulator.DefaultClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "BRIDGE_") || strings.HasPrefix(v, "KAFKA_") || strings.HasPrefix(v, "DATABRICKS_")
	})
	env = append(env, "GORACE=atexit_sleep_ms=0", "HOME="+dir,
		"BRIDGE_ZEROBUS_WORKSPACE_URL="+server.URL, "BRIDGE_ZEROBUS_CLIENT_ID="+emulator.DefaultClientID, "BRIDGE_ZEROBUS_CLIENT_SECRET_FILE="+secret,
		"BRIDGE_ZEROBUS_CATALOG=fresh", "BRIDGE_ZEROBUS_SCHEMA=events", "BRIDGE_ZEROBUS_TABLE=stream",
		"KAFKA_BROKERS="+strings.Join(kafka.Addrs(), ","), "BRIDGE_KAFKA_TOPICS="+kafkatest.Topic(t, kafka, 1), "BRIDGE_REJECTS_REPLICATION_FACTOR=1")
	return func(t *testing.T, command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, strings.Fields(command)[1:]...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v, which printed\n%s", command, err, out)
		}
		return string(out)
	}
}
