package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each of these ends with exit code 2 and a reason.
func TestBoundedRunsAreValidated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bridge.yaml")
	const text = `kafka: {brokers: ["127.0.0.1:1"], topics: [a, b], group: live}
zerobus: {workspace_url: "http://127.0.0.1:1", client_id: x, client_secret: y, catalog: c, schema: s, table: t}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, want string }{
		{"run --until now", "add --group with another name than live"},
		{"run --until now --group live", "add --group with another name than live"},
		{"run --until now --set kafka.group=live", "add --group with another name than live"},
		{"run --from -2h", "add --group with another name than live"},
		{"run --from -2h --group=live", "add --group with another name than live"},
		{"run --group other --until latest", `--until "latest" is not a position; use now,`},
		{"run --group other --from now", `--from "now" is not a position; use earliest,`},
		{"run --group other --from 7", "is not a position"},
		{"run --group other --until 2999-01-01T00:00:00Z", "is in the future"},
		{"run --group other --from -1h --until -2h", "exchange them"},
		{"run --group other --until now --set kafka.start=latest", "add --from"},
		{"replay", "--to is required"},
		{"replay --to yesterday", "earliest, latest, an RFC 3339 time"},
		{"replay --to -2h --partition x", "0,3-5"},
		{"replay --to -2h --topic c", "use a or b"},
		{"replay --to -2h --partition 1", "--partition needs one topic; add --topic a or --topic b"},
		{"replay --to -2h --frobnicate", "--frobnicate"},
	} {
		var out, errs bytes.Buffer
		args := strings.Fields(tc.args)
		args = append([]string{args[0], "--config", file}, args[1:]...)
		if code := execute(args, strings.NewReader(""), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), tc.want) {
			t.Errorf("bridge %s: got exit code %d and %q, want 2 and %q", tc.args, code, errs.String(), tc.want)
		}
		if out.Len() > 0 {
			t.Errorf("bridge %s: got %q on stdout, want nothing", tc.args, out.String())
		}
	}
}

func TestReplayNeedsTheKafkaSectionOnly(t *testing.T) {
	var out, errs bytes.Buffer
	code := execute([]string{"replay", "--to", "earliest", "--config", filepath.Join(t.TempDir(), "absent.yaml")}, strings.NewReader(""), &out, &errs)
	if code != exitUsage || !strings.Contains(errs.String(), "absent.yaml") {
		t.Errorf("got exit code %d and %q, want 2 and the file's name", code, errs.String())
	}
	t.Chdir(t.TempDir())
	errs.Reset()
	if code := execute([]string{"replay", "--to", "earliest"}, strings.NewReader(""), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "kafka.topics is required") || strings.Contains(errs.String(), "zerobus") {
		t.Errorf("got exit code %d and %q, want 2 and nothing but kafka.topics missing", code, errs.String())
	}
}
