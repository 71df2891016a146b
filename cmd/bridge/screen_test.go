package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/terminal"
)

// hostileText is what JSON may hold as it is and a terminal would obey, hostileRaw
// what only names and bytes may hold besides.
const (
	hostileText = "\x7f\u0085\u009b31m\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff\u200b\u00ad\U000e0041\U000e0100"
	hostileRaw  = "\x1b[2J\x1b[31m\r\a\x9b31m\xff" + hostileText
)

var ourColours = regexp.MustCompile("\x1b\\[(0|1|31|32|33)m")

// obeyed finds what a terminal or a log viewer obeys, by ranges of its own.
func obeyed(text string) (what rune, found bool) {
	if !utf8.ValidString(text) {
		return utf8.RuneError, true
	}
	for _, r := range text {
		switch {
		case r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r <= 0x9f, r == 0xad, r == 0x61c, r >= 0x200b && r <= 0x200f,
			r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff, r >= 0xe0000 && r <= 0xe01ef:
			return r, true
		}
	}
	return 0, false
}

// wantsHarmless runs a command in a pipe and with colours, and returns what it said
// in the pipe.
func wantsHarmless(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	var first said
	for i, color := range []string{"never", "always"} {
		var stdout, stderr bytes.Buffer
		code := execute(append([]string{"--color", color}, args...), strings.NewReader(stdin), &stdout, &stderr)
		if i == 0 {
			first = said{code, stdout.String(), stderr.String()}
		}
		for _, out := range []string{stdout.String(), stderr.String()} {
			if color == "always" {
				out = ourColours.ReplaceAllString(out, "")
			}
			if r, found := obeyed(out); found {
				t.Errorf("bridge %+q --color %s: got %U in %+.2000q", args, color, r, out)
			}
			if color == "always" && strings.Contains(out, "\x1b") {
				t.Errorf("bridge %+q: got a sequence in %+.2000q that is none of ours", args, out)
			}
		}
	}
	return first
}

// holdsJSON checks that the output is JSON values with the hostile text in them.
func holdsJSON(t *testing.T, what, out string) {
	t.Helper()
	if !strings.Contains(out, `\u202e`) {
		t.Errorf("%s: got %s, want the hostile text in it, escaped", what, out)
	}
	for values := json.NewDecoder(strings.NewReader(out)); ; {
		var value any
		if err := values.Decode(&value); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: got %v in %q, want JSON", what, err, out)
		}
	}
}

// hostileEvents become a row and two rejects.
const hostileEvents = `{"type":"track","event":"buy","message_id":"m-` + hostileText + `","timestamp":"2026-03-04T09:15:27Z"}` + "\n" +
	`{"type":"track","event":"buy","message_id":"m-2","timestamp":"` + hostileText + `"}` + "\n" +
	`{"` + hostileRaw + `"` + "\n"

// Whatever comes from outside is escaped before it reaches a terminal: by each
// command, in text and in JSON, on standard output and standard error, in a pipe
// and with colours.
func TestNothingFromOutsideIsObeyed(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	hostileFile := "events-" + strings.ReplaceAll(hostileRaw, "/", "") + ".ndjson"
	writeFile(t, hostileFile, hostileEvents)
	writeFile(t, "bad"+hostileRaw+".yaml", "version: 2\nextends: default\n\"k"+`\x1b\x9b\u202e`+"\": 1\n")
	writeFile(t, "case.yaml", "version: 2\nextends: default\n")
	writeFile(t, "case.test.yaml", "tests:\n  - {name: \"n"+`\x1b\u202e\x9b`+"\", event: {type: track, message_id: \"m"+`\u202e\x9b`+"\"}, row: {message_id: \"other"+`\u202e`+"\"}}\n")

	got := wantsHarmless(t, hostileEvents, "map")
	holdsJSON(t, "map", got.stdout)
	var row struct {
		ID string `json:"message_id"`
	}
	if err := json.Unmarshal([]byte(strings.SplitN(got.stdout, "\n", 2)[0]), &row); err != nil || row.ID != "m-"+hostileText {
		t.Errorf("map: got %+q, %v, want the text as it was", row.ID, err)
	}
	if got.code != exitFailed || strings.Count(got.stderr, "rejected (") != 2 {
		t.Errorf("map: got exit code %d and %s, want two rejects", got.code, got.stderr)
	}
	holdsJSON(t, "map --explain", wantsHarmless(t, hostileEvents, "map", "--explain", "--output", "json").stdout)
	for _, args := range [][]string{
		{"map", "--explain"},
		{"map", hostileFile},
		{"map", "--explain", hostileFile},
		{"map", "absent" + hostileRaw},
		{"map", "--blueprint", "absent" + hostileRaw},
		{"map", "--blueprint", "bad" + hostileRaw + ".yaml"},
		{"ddl", "--blueprint", "absent" + hostileRaw},
		{"ddl", "--set", "zerobus.table=t" + hostileText, "--principal", hostileRaw},
		{"blueprint", "validate", "absent" + hostileRaw, "bad" + hostileRaw + ".yaml", "case.yaml"},
		{"blueprint", "validate", "--output", "json", "absent" + hostileText, "bad" + hostileRaw + ".yaml"},
		{"blueprint", "test", "case.yaml"},
		{"blueprint", "test", "case.yaml", "--output", "json"},
		{"blueprint", "test", "--run", hostileRaw},
		{"blueprint", "test", "absent" + hostileRaw},
		{"blueprint", "init", "absent" + hostileRaw + "/x.yaml"},
		{"blueprint", hostileRaw},
		{hostileRaw},
		{"run", "--" + hostileRaw},
		{"run", hostileRaw},
		{"run", "--config", "absent" + hostileRaw},
		{"run", "--set", hostileRaw + "=1"},
		{"run", "--set", "kafka.group=g", "--set", "kafka.topics=" + hostileRaw},
		{"check", "--set", "zerobus.workspace_url=" + hostileRaw},
		{"check", "--output", "json", "--set", "zerobus.workspace_url=" + hostileRaw},
		{"replay", "--to", hostileRaw},
		{"dlq", "show", hostileRaw},
		{"dlq", hostileRaw},
		{"emulator", "--ddl", "absent" + hostileRaw},
		{"emulator", "--latency", hostileRaw},
		{"status", "--address", hostileRaw + ":1"},
		{"help", hostileRaw},
		{"help", "config", hostileRaw},
		{"schema", hostileRaw},
		{"man", "case.yaml/" + hostileRaw},
		{"completion", hostileRaw},
		{"version", hostileRaw},
	} {
		if got := wantsHarmless(t, hostileEvents, args...); got.stdout+got.stderr == "" {
			t.Errorf("bridge %+q said nothing", args)
		}
	}
	t.Setenv("BRIDGE_KAFKA_"+strings.ReplaceAll(hostileRaw, "=", ""), "x")
	wantsHarmless(t, "", "check")
}

// What Kafka holds and what a workspace and a bridge answer.
func TestNothingAnsweredIsObeyed(t *testing.T) {
	flags, _ := settingsAnd(t)
	cfg, err := config.Load(config.Options{File: flags[1]})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, value := range strings.Split(strings.TrimSpace(hostileEvents), "\n") {
		rec := &kgo.Record{Topic: "events", Key: []byte(hostileRaw), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "h" + hostileText, Value: []byte(hostileRaw)}}}
		if err := cl.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if got := wantsHarmless(t, "", append([]string{"run", "--group", "zerobus-bridge-once", "--until", "now"}, flags...)...); got.code != exitFine {
		t.Fatalf("run: got exit code %d and %s, want %d", got.code, got.stderr, exitFine)
	}
	for _, args := range [][]string{
		{"dlq", "list"}, {"dlq", "list", "--output", "json"},
		{"dlq", "show", "0/0"}, {"dlq", "show", "0/1"}, {"dlq", "show", "0/0", "--output", "json"},
		{"dlq", "redrive"}, {"dlq", "redrive", "--output", "json"},
		{"replay", "--to", "earliest"}, {"replay", "--to", "earliest", "--output", "json"},
	} {
		want := exitFine
		if args[1] == "redrive" {
			want = exitFailed // the events are as bad as before
		}
		got := wantsHarmless(t, "", append(append(args, "--group", "zerobus-bridge-once"), flags...)...) // the group that wrote them
		if got.code != want || got.stdout == "" {
			t.Errorf("bridge %q: got exit code %d and %s, want %d", args, got.code, got.stderr, want)
		}
		if args[1] == "show" && len(args) > 3 {
			holdsJSON(t, strings.Join(args, " "), got.stdout)
		}
	}

	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "r\u202e\u2028")
		if strings.HasSuffix(r.URL.Path, "/token") {
			_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"error_code":"PERMISSION_DENIED","message":"no `+hostileText+`\u001b[2J"}`)
	}))
	defer workspace.Close()
	for _, args := range [][]string{
		{"check"}, {"check", "--output", "json"}, {"ddl", "--alter"},
		{"run"}, {"run", "--set", "log.format=console"}, {"run", "--set", "kafka.group=" + hostileRaw}, {"run", "--set", "log.format=console", "--set", "kafka.group=" + hostileRaw},
	} {
		got := wantsHarmless(t, "", append(append(args, "--set", "zerobus.workspace_url="+workspace.URL), flags...)...)
		if got.code != exitFailed || !strings.Contains(got.stdout+got.stderr, "PERMISSION_DENIED") {
			t.Errorf("bridge %q: got exit code %d, %s and %s, want the refusal", args, got.code, got.stdout, got.stderr)
		}
	}

	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{\"ready\":false,\r\n\"state\":\"running"+hostileText+"\",\"not_ready\":[{\"code\":\"c"+hostileText+"\",\"text\":\"t"+hostileText+"\xff\",\"remedy\":\"\\u001b[2J\"}]}")
	}))
	defer other.Close()
	wantsHarmless(t, "", "status", "--address", other.URL)
	holdsJSON(t, "status", wantsHarmless(t, "", "status", "--address", other.URL, "--output", "json").stdout)
}

// A log line stays one line, whatever is in it.
func TestLogLinesAreEscaped(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out bytes.Buffer
		log := newLogger(config.Log{Level: "info", Format: format}, zapcore.AddSync(&out))
		log.Warn("a message\n"+hostileRaw, zap.String("field"+hostileText, "\n"+hostileRaw), zap.Strings("list", []string{hostileRaw}), zap.Any("any", map[string]string{"k": hostileRaw}))
		if r, found := obeyed(out.String()); found || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: got %U in %+q, want one harmless line", format, r, out.String())
		}
		if format == "json" && !json.Valid(out.Bytes()) {
			t.Errorf("got %s, want JSON", out.String())
		}
	}
}

// However a text is cut into writes, what comes out is the same.
func TestAScreenKeepsCharactersWhole(t *testing.T) {
	text := "ünï " + hostileRaw + " 日本語 \xe2\x80"
	var whole bytes.Buffer
	s := terminal.NewScreen(&whole)
	_, _ = io.WriteString(s, text)
	s.End()
	for size := 1; size < 7; size++ {
		var pieces bytes.Buffer
		s := terminal.NewScreen(&pieces)
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			if n, err := io.WriteString(s, rest[:min(size, len(rest))]); err != nil || n != min(size, len(rest)) {
				t.Fatalf("got %d, %v", n, err)
			}
		}
		s.End()
		if pieces.String() != whole.String() {
			t.Errorf("%d bytes at a time: got %q, want %q", size, pieces.String(), whole.String())
		}
	}
	if r, found := obeyed(whole.String()); found || !strings.Contains(whole.String(), "ünï ") || !strings.Contains(whole.String(), "日本語") {
		t.Errorf("got %U in %+q", r, whole.String())
	}
}

// Files the commands write for others are no terminal.
func TestFilesKeepTheirText(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeFile(t, "b.yaml", "version: 2\nextends: default\n")
	writeFile(t, "b.test.yaml", "tests:\n  - {name: n, event: {type: track, message_id: ❤️}, row: {}}\n")
	command("blueprint", "test", "--update")
	text, err := os.ReadFile(filepath.Join(dir, "b.test.yaml"))
	if err != nil || !strings.Contains(string(text), "message_id: ❤️") {
		t.Errorf("got %q, %v", text, err)
	}
}
