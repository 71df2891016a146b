package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Flags of a target where nobody listens.
const (
	noKafka  = " --brokers 127.0.0.1:1 --topics shop"
	noTarget = " --set zerobus.table=a.b.c --set zerobus.workspace_url=http://127.0.0.1:1 --set zerobus.client_id=x" // the secret is in the environment
)

// Every failure has a remedy. Where a command of the bridge helps, the last line is
// that command, and it exists.
func TestFailuresEndWithTheNextCommand(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"slip.yaml":        "delivery: {max_row: 1}\n",
		"bad.yaml":         "delivery: {drain: soon}\n",
		"two.yaml":         "kafka:\n  sasl: {mechanism: rot13}\n  tls: {enabled: perhaps}\n",
		"a blueprint.yaml": "version: 1\nmappings: nonsense\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notBridge := httptest.NewServer(http.NotFoundHandler())
	defer notBridge.Close()
	t.Setenv("BRIDGE_KAFKA_SASL_USERNAME", "")
	t.Setenv("BRIDGE_ZEROBUS_CLIENT_SECRET", "hush-hush")

	for _, tc := range []struct {
		args  string
		stdin string
		code  int
		want  string // the command; empty where none helps
	}{
		// the command line
		{"rnu", "", 2, "bridge run --help"},
		{"frobnicate", "", 2, "bridge --help"},
		{"run --frobnicate", "", 2, "bridge run --help"},
		{"run --confgi x", "", 2, "bridge run --help"},
		{"run extra", "", 2, "bridge run --help"},
		{"run --color pink", "", 2, "bridge run --help"},
		{"dlq frobnicate", "", 2, "bridge dlq --help"},
		{"dlq list --limit -1", "", 2, "bridge dlq list --help"},
		{"dlq show", "", 2, "bridge dlq show --help"},
		{"dlq show 17", "", 2, "bridge dlq show --help"},
		{"replay", "", 2, "bridge replay --help"},
		{"replay --to never", "", 2, "bridge replay --help"},
		{"demo --events -1", "", 2, "bridge demo --help"},
		{"demo --produce-only", "", 2, "bridge demo --help"},
		{"emulator --latency soon", "", 2, "bridge emulator --help"},
		{"check --output xml", "", 2, "bridge check --help"},
		{"status --address nowhere", "", 2, "bridge config"},
		{"man", "", 2, "bridge man --help"},
		{"help frobnicate", "", 2, "bridge help topics"},
		{"help confi", "", 2, "bridge help config"},
		{"help config frobnicate", "", 2, "bridge help config"},
		// the configuration
		{"run", "", 2, "bridge help config"},
		{"run --config absent.yaml", "", 2, "bridge help config"},
		{"replay --to earliest --config slip.yaml", "", 2, "bridge help config"},
		{"replay --to earliest --config bad.yaml", "", 2, "bridge help config delivery.drain"},
		{"replay --to earliest --config two.yaml", "", 2, "bridge help config kafka"},
		{"ddl --set delivery.drain=soon", "", 2, "bridge help config delivery.drain"},
		{"check --config bad.yaml", "", 1, "bridge help config"},
		{"check --set zerobus.client_secret=hush-hush", "", 2, "bridge help config zerobus.client_secret"},
		{"demo --set kafka.sasl.password=hush-hush", "", 2, "bridge help config kafka.sasl.password"},
		{"run --until now" + noKafka + noTarget, "", 2, "bridge run --help"},
		{"replay --to earliest --topic other" + noKafka, "", 2, "bridge replay --help"},
		// the blueprint
		{"map --blueprint absent.yaml", "", 2, "bridge map --help"},
		{"map --explain", "{}\nnonsense\n", 1, "bridge help blueprint"},
		{"map --set mapping.blueprint_text=nonsense", "", 2, "bridge help blueprint"},
		{"map", "nonsense\n", 1, "bridge map --explain"},
		// connections
		{"check --timeout 30s" + noKafka + noTarget, "", 1, "bridge help config kafka"},
		{"replay --to earliest" + noKafka, "", 1, "bridge check" + noKafka},
		{"dlq list" + noKafka, "", 1, "bridge check" + noKafka},
		{"dlq redrive --config bad.yaml --set delivery.drain=9s" + noKafka, "", 2, "bridge help config"},
		{"ddl --alter" + noKafka + noTarget, "", 1, "bridge check" + noKafka + noTarget},
		{"status --address 127.0.0.1:1", "", 1, "bridge help config ops.address"},
		{"status --address " + notBridge.URL, "", 1, "bridge help config ops.address"},
		{"run --group g --until now --ops-address 192.0.2.1:1" + noKafka + noTarget, "", 1, "bridge help config ops.address"},
		{"emulator --listen 192.0.2.1:1", "", 1, ""},
		{"demo --events 1 --kafka 127.0.0.1:1", "", 1, ""},
	} {
		if tc.want == "bridge config" {
			tc.want = "bridge status --help"
		}
		var stdout, stderr bytes.Buffer
		code := execute(strings.Fields(tc.args), strings.NewReader(tc.stdin), &stdout, &stderr)
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		got, tries := strings.CutPrefix(lines[len(lines)-1], "try: ")
		if !tries {
			got = ""
			if !strings.ContainsAny(lines[len(lines)-1], ";:") {
				t.Errorf("bridge %s: got %q, want a remedy", tc.args, lines[len(lines)-1])
			}
		}
		if code != tc.code || got != tc.want {
			t.Errorf("bridge %s: got exit code %d and %q to try, want %d and %q; stderr:\n%s", tc.args, code, got, tc.code, tc.want, stderr.String())
		}
		if strings.Contains(stdout.String()+stderr.String(), "hush") {
			t.Errorf("bridge %s: got %q and %q, want no secret in it", tc.args, stdout.String(), stderr.String())
		}
		if tries {
			parses(t, got)
		}
	}
}

// parses fails unless the command line names a command and flags there are.
func parses(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)[1:]
	cmd, rest, err := newRoot().Find(words)
	if err != nil {
		t.Errorf("%q: %v", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil && !strings.Contains(err.Error(), "help requested") {
		t.Errorf("%q: %v", line, err)
	}
	if cmd.Name() == "help" && len(rest) > 0 {
		var out bytes.Buffer
		if code := execute(words, strings.NewReader(""), &out, &out); code != exitFine || out.Len() == 0 {
			t.Errorf("%q: got exit code %d and %q, want help", line, code, out.String())
		}
	}
}

func TestWordsAreQuotedForTheShell(t *testing.T) {
	for word, want := range map[string]string{
		"config.yaml": "config.yaml", "/etc/bridge/c.yaml": "/etc/bridge/c.yaml", "a b": "'a b'", "": "''", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a\x1bb": `'a\u001bb'`, "a;b": "'a;b'",
	} {
		if got := shellWord(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

// Programs read standard output, whatever stands on standard error.
func TestSuggestionsLeaveJSONAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"check", "--output", "json", "--color", "always"}, strings.NewReader(""), &stdout, &stderr); code != exitFailed {
		t.Errorf("got exit code %d, want %d", code, exitFailed)
	}
	if !json.Valid(stdout.Bytes()) || !strings.Contains(stderr.String(), "try: ") {
		t.Errorf("got %q and %q, want JSON alone on standard output", stdout.String(), stderr.String())
	}
}
