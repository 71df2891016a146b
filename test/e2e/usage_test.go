package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wants fails unless said holds every part.
func wants(t testing.TB, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("got %q, want %q in it", tail(said), part)
		}
	}
}

func TestEmptyConfigNamesAllMissingKeysAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, code := run(t, newEvidence(t), command{args: []string{"run"}, dir: dir})
	if code != 2 {
		t.Errorf("got exit code %d, want 2", code)
	}
	for _, key := range []string{"kafka.topics", "zerobus.workspace_url", "zerobus.client_id", "zerobus.client_secret", "zerobus.catalog", "zerobus.schema", "zerobus.table"} {
		wants(t, p.stderr.String(), key+" is required; set")
	}
	if p.stdout.String() != "" {
		t.Errorf("got %q on stdout, want nothing", p.stdout.String())
	}
}

func TestConfigurationIsRefusedWithItsPlace(t *testing.T) {
	t.Parallel()
	const good = `kafka:
  topics: [events]
zerobus:
  workspace_url: https://abc-12345.cloud.databricks.com
  client_id: 00000000-0000-0000-0000-000000000000
  client_secret: hush-hush-0815
  catalog: datafly
  schema: events
  table: stream
`
	for _, tc := range []struct {
		name, add string
		env       []string
		args      []string
		want      []string
	}{
		{"misspelt key", "delivery:\n  max_row: 100\n", nil, nil, []string{"bridge.yaml:11", "delivery.max_row", "did you mean delivery.max_rows"}},
		{"wrong value", "delivery:\n  drain: soon\n", nil, nil, []string{"bridge.yaml:11", "delivery.drain", `"soon"`, "500ms"}},
		{"two at once", "kafak: {}\ndelivery:\n  max_rows: 0\n", nil, nil, []string{"bridge.yaml:10", "did you mean kafka", "bridge.yaml:12", "delivery.max_rows"}},
		{"not yaml", "delivery: [\n", nil, nil, []string{"bridge.yaml:1"}},
		{"variable", "", []string{"BRIDGE_DELIVERY_MAX_ROW=1"}, nil, []string{"BRIDGE_DELIVERY_MAX_ROW", "BRIDGE_DELIVERY_MAX_ROWS"}},
		{"flag", "", nil, []string{"--set", "rejects.policy=drop"}, []string{"rejects.policy", `"drop"`, "dead_letter"}},
		{"missing file", "", nil, []string{"--config", "absent.yaml"}, []string{"absent.yaml"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "bridge.yaml"), []byte(good+tc.add), 0o600); err != nil {
				t.Fatal(err)
			}
			e := newEvidence(t)
			e.secret("the client secret", "hush-hush-0815")
			p, code := run(t, e, command{args: append([]string{"run", "--config", "bridge.yaml"}, tc.args...), env: tc.env, dir: dir})
			if code != 2 {
				t.Errorf("got exit code %d, want 2", code)
			}
			wants(t, p.stderr.String(), tc.want...)
		})
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "run", "demo", "setup", "check", "map", "ddl", "replay", "emulator", "status", "version"} {
		p, code := run(t, newEvidence(t), command{args: append(strings.Fields(name), "--help")})
		if code != 0 {
			t.Errorf("bridge %s --help: got exit code %d, want 0", name, code)
		}
		wants(t, p.stdout.String(), "Examples:\n", "bridge "+name)
	}
}

func TestMisuseEndsWithTwo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args string
		want string
	}{
		{"rnu", `did you mean run?`},
		{"run --frobnicate", "--frobnicate"},
		{"run extra", "extra"},
		{"demo --events -1", "--events is -1"},
		{"demo --produce-only", "--kafka"},
		{"check --output xml", "text or json"},
		{"map --blueprint absent.yaml", "absent.yaml"},
		{"emulator --latency soon", "--latency"},
		{"status --address nowhere", "--address"},
	} {
		p, code := run(t, newEvidence(t), command{args: strings.Fields(tc.args)})
		if code != 2 {
			t.Errorf("bridge %s: got exit code %d, want 2", tc.args, code)
		}
		wants(t, p.stderr.String(), tc.want)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	p, code := run(t, newEvidence(t), command{args: []string{"version"}})
	if code != 0 || !strings.HasPrefix(p.stdout.String(), "bridge ") {
		t.Errorf("got %q and exit code %d, want the version and 0", p.stdout.String(), code)
	}
	p, code = run(t, newEvidence(t), command{args: []string{"version", "--output", "json"}})
	if code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	wants(t, p.stdout.String(), `"version":`, `"go":`)
}
