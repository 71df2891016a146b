package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
)

// runFine runs a command line that must succeed.
func runFine(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := execute(args, strings.NewReader(""), &stdout, &stderr); code != exitFine {
		t.Fatalf("bridge %s: got exit code %d and %q, want %d", strings.Join(args, " "), code, stderr.String(), exitFine)
	}
	return stdout.String()
}

// A flag has its default from its definition; a text with one of its own shows two.
func TestHelpShowsOneDefaultPerFlag(t *testing.T) {
	for _, name := range []string{"blueprint test", "check", "ddl", "demo", "dlq list", "emulator", "map", "replay", "run", "status"} {
		for line := range strings.Lines(runFine(t, append(strings.Fields(name), "--help")...)) {
			if strings.Count(line, "(default ") > 1 {
				t.Errorf("bridge %s --help: got %q, want one default", name, line)
			}
		}
	}
}

func TestTopicsAreListedAndHaveText(t *testing.T) {
	list := runFine(t, "help", "topics")
	for _, topic := range topics {
		if !strings.Contains(list, topic.name+" ") {
			t.Errorf("got %q, want %s in it", list, topic.name)
		}
		page := runFine(t, "help", topic.name)
		if len(page) < 400 {
			t.Errorf("%s: got %q, want a page", topic.name, page)
		}
		for line := range strings.Lines(page) {
			if bare := strings.TrimLeft(line, " "); strings.HasPrefix(bare, "|") && strings.HasSuffix(bare, "|\n") || strings.HasPrefix(line, "## ") {
				t.Errorf("%s: got %q, want no marks of Markdown", topic.name, line)
			}
		}
	}
}

func TestTopicsSayWhatTheirSourcesSay(t *testing.T) {
	page := runFine(t, "help", "config")
	example, err := os.ReadFile(filepath.Join("..", "..", "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	comments, err := config.Comments(string(example))
	if err != nil {
		t.Fatal(err)
	}
	environment := runFine(t, "help", "environment")
	for _, k := range config.Keys() {
		if !strings.Contains(page, "\n"+k.Path+"\n\n`"+k.Env+"`, ") {
			t.Errorf("help config: %s is missing", k.Path)
		}
		if strings.TrimSpace(comments[k.Path]) == "" {
			t.Errorf("help config: %s has no meaning", k.Path)
		}
		if !strings.Contains(environment, k.Env+"\n") {
			t.Errorf("help environment: %s is missing", k.Env)
		}
	}
	if text := runFine(t, "help", "config", "integrations"); !strings.Contains(text, strings.Split(comments["integrations"], "\n")[0]) {
		t.Errorf("help config integrations: got %s, want what config.example.yaml has", text)
	}
	// What follows a section is not part of it.
	if text := runFine(t, "help", "config", "zerobus.token_exchange"); !strings.Contains(text, "zerobus.token_exchange.policy\n") || strings.Contains(text, "zerobus.catalog\n") {
		t.Errorf("help config zerobus.token_exchange: got %s", text)
	}
	for name := range config.Borrowed() {
		if !strings.Contains(environment, name+"\n") {
			t.Errorf("help environment: %s is missing", name)
		}
	}

	// The words of every document, wherever the lines are broken.
	for name, file := range map[string]string{"metrics": "metrics.md", "blueprint": "blueprint.md", "terminal": "terminal.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		if page, err := topicNamed(name).page(); err != nil || page != string(text) {
			t.Errorf("help %s is not docs/%s (%v)", name, file, err)
		}
		if got, want := len(regexp.MustCompile(`\w+`).FindAllString(runFine(t, "help", name), -1)), len(regexp.MustCompile(`\w+`).FindAllString(string(text), -1)); got < want*9/10 {
			t.Errorf("help %s: got %d words, want nearly all of %d", name, got, want)
		}
	}
}

func TestTroubleshootingKnowsEveryCode(t *testing.T) {
	operations, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	blueprints, err := os.ReadFile(filepath.Join("..", "..", "docs", "blueprint.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range troubledOperations {
		if !strings.Contains(string(operations), "\n## "+head+"\n") {
			t.Errorf("docs/operations.md has no section %q", head)
		}
	}
	for _, head := range troubledBlueprint {
		if !strings.Contains(string(blueprints), "\n## "+head+"\n") {
			t.Errorf("docs/blueprint.md has no section %q", head)
		}
	}
	codes := map[string]bool{}
	spelt := regexp.MustCompile(`(?:reason[A-Z]\w*\s*=\s*|dependency\(|consumer\.NotReady\{Code: )"([a-z_]+)"`)
	for _, pattern := range []string{"../../consumer/*.go", "../../internal/app/*.go", "../../internal/ops/*.go", "../../internal/pipeline/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range spelt.FindAllStringSubmatch(string(text), -1) {
				codes[m[1]] = !strings.HasSuffix(file, "_test.go") || codes[m[1]]
			}
		}
	}
	if len(codes) < 9 || !codes["sink_blocked"] || !codes["kafka_unreachable"] || !codes["partition_stuck"] {
		t.Fatalf("got codes %v of the sources, want them all", codes)
	}
	for code, real := range codes {
		if real && !strings.Contains(runFine(t, "help", "troubleshooting", code), code) {
			t.Errorf("help troubleshooting does not explain %s", code)
		}
	}
	page := runFine(t, "help", "troubleshooting")
	for _, code := range pipeline.KnownLabels(&config.Config{}).RejectCodes {
		if !strings.Contains(page, code) {
			t.Errorf("help troubleshooting does not explain the reject code %s", code)
		}
	}
}

func TestAWordNarrowsATopic(t *testing.T) {
	for _, tc := range []struct{ args, with, without string }{
		{"config delivery.drain", "delivery.drain", "max_rows"},
		{"config kafka.sasl", "kafka.sasl.oauth.token_url", "kafka.brokers"},
		{"metrics LAG", "bridge_lag_events", "bridge_ready"},
		{"exit-codes 2", "nothing was started", "something went wrong"},
	} {
		page := runFine(t, append([]string{"help"}, strings.Fields(tc.args)...)...)
		if !strings.Contains(page, tc.with) || strings.Contains(page, "\n"+tc.without) {
			t.Errorf("help %s: got %q, want %q and no %q", tc.args, page, tc.with, tc.without)
		}
	}
}

// Every flag that takes a value has a completion, and closed sets are
// completed to their members.
func TestEveryValueIsCompleted(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if _, ok := cmd.GetFlagCompletionFunc(f.Name); !ok && f.NoOptDefVal == "" && !f.Hidden {
				t.Errorf("%s --%s has no completion", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	for _, k := range config.Keys() {
		got, _ := completeSet(nil, nil, k.Path+"=")
		for _, choice := range k.Choices {
			if !slices.Contains(got, k.Path+"="+choice) {
				t.Errorf("--set %s=: got %q, want %s in it", k.Path, got, choice)
			}
		}
		if k.Type == "secret" && slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, k.Path) }) {
			t.Errorf("--set %s=: got %q, want nothing of a secret", k.Path, got)
		}
	}
}

// complete returns what the shell would offer, without descriptions.
func complete(t *testing.T, args ...string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(runFine(t, append([]string{"__complete"}, args...)...)) {
		value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		out = append(out, value)
	}
	return out
}

func TestCompletion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("kafka: {topics: [shop, web]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"status --output ", []string{"text", "json", ":36"}},
		{"--color ", []string{"auto", "always", "never", ":36"}},
		{"demo --transport ", []string{"auto", "workspace", "grpc", "rest", ":36"}},
		{"run --log-level ", []string{"debug", "info", "warn", "error", ":36"}},
		{"run --set delivery.dr", []string{"delivery.drain=", ":6"}},
		{"run --set delivery.drain=", []string{"delivery.drain=20s", ":4"}},
		{"run --set zerobus.gzip=", []string{"zerobus.gzip=true", "zerobus.gzip=false", ":4"}},
		{"run --set rejects.policy=s", []string{"rejects.policy=dead_letter", "rejects.policy=skip", "rejects.policy=stop", ":4"}},
		{"run --config ", []string{"yaml", "yml", ":8"}},
		{"ddl --blueprint ", []string{"yaml", "yml", ":8"}},
		{"replay --to ", []string{"earliest", "latest", "-15m", "-1h", "-24h", "-7d", ":36"}},
		{"run --until ", []string{"now", "-15m", "-1h", "-24h", "-7d", ":36"}},
		{"dlq list --config " + file + " --topic ", []string{"shop", "web", ":4"}},
		{"replay --config absent.yaml --topic ", []string{":4"}},
		{"emulator --auth ", []string{"strict", "presence", "off", ":36"}},
		{"emulator --client-id ", []string{":4"}},
		{"help exit", []string{"exit-codes", ":4"}},
		{"help dlq re", []string{"redrive", ":4"}},
		{"help config delivery.l", []string{"delivery.linger", ":4"}},
		{"run ", []string{":4"}},
		{"man ", []string{":16"}},
	} {
		got := complete(t, strings.Split(tc.args, " ")...)
		if tc.args == "help exit" || strings.HasPrefix(tc.args, "help ") || strings.HasPrefix(tc.args, "run --set rejects") {
			got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(tc.want, s) }) // the shell narrows them
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("bridge %s: got %q, want %q", tc.args, got, tc.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script := runFine(t, "completion", shell); !strings.Contains(script, "__complete") {
			t.Errorf("completion %s: got %.100q, want a script", shell, script)
		}
	}
}

func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1772615727")
	first, second := t.TempDir(), t.TempDir()
	runFine(t, "man", first)
	runFine(t, "man", second)
	for _, page := range []string{"man1/bridge.1", "man1/bridge-run.1", "man1/bridge-dlq-redrive.1", "man7/bridge-config.7", "man7/bridge-exit-codes.7"} {
		a, err := os.ReadFile(filepath.Join(first, page))
		if err != nil {
			t.Error(err)
			continue
		}
		b, _ := os.ReadFile(filepath.Join(second, page))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the same build wrote other bytes", page)
		}
		if !bytes.Contains(a, []byte(".TH ")) || !bytes.Contains(a, []byte(".SH NAME")) {
			t.Errorf("%s: got %.200q, want a man page", page, a)
		}
	}
	for page, want := range map[string]string{ // < is not the beginning of HTML
		"man1/bridge-run.1":      "BRIDGE_<SECTION>_<KEY> variables",
		"man1/bridge-dlq-show.1": "[<dead-letter topic>/]<partition>/<offset>",
		"man1/bridge-demo.1":     "signal-demo-<time>",
		"man7/bridge-config.7":   "BRIDGE_<SECTION>_<KEY>, such as",
		"man7/bridge-terminal.7": "bridge help <command>",
	} {
		text, err := os.ReadFile(filepath.Join(first, page))
		if plain := strings.NewReplacer(`\_`, "_", `\-`, "-", `\[la]`, "<", `\[ra]`, ">", `\fB`, "", `\fP`, "", `\fR`, "").Replace(string(text)); err != nil || !strings.Contains(plain, want) {
			t.Errorf("%s: got %v and a page without %q", page, err, want)
		}
	}
}
