package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/zerobus"
)

// status runs `bridge status` with args.
func status(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(append([]string{"status"}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// serveStatus runs the ops endpoints of a bridge in the state s and returns
// their address.
func serveStatus(t *testing.T, s ops.Status) string {
	t.Helper()
	return serveOps(t, ops.Config{}, func() ops.Status { return s })
}

// serveOps runs ops endpoints until the test ends and returns their address.
func serveOps(t *testing.T, c ops.Config, source ops.Source) string {
	t.Helper()
	c.Address = "127.0.0.1:0"
	server := ops.New(c, ops.NewMetrics("", nil, true), source, zaptest.NewLogger(t))
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Errorf("closing the ops server: %v", err)
		}
	})
	return server.Addr()
}

// working is an integration that delivers.
func working(slug string) ops.IntegrationStatus {
	return ops.IntegrationStatus{
		Integration: slug, State: ops.StateRunning, Group: "zerobus-bridge", Table: "datafly.events.stream",
		Sink:       zerobus.State{Name: zerobus.Ready, Table: "datafly.events.stream"},
		Partitions: []consumer.PartitionStatus{{Topic: "events", Partition: 3, State: consumer.StateWriting, Lag: 42}},
	}
}

// refused is an integration whose sink refuses its writes.
func refused(slug string) ops.IntegrationStatus {
	i := working(slug)
	i.NotReady = []consumer.NotReady{{Code: "sink_blocked", Text: "the table refuses writes", Remedy: "grant MODIFY"}}
	return i
}

func statusOf(all ...ops.IntegrationStatus) ops.Status {
	return ops.NewStatus(ops.Status{Version: "v0.1.0", Deployment: "zerobus-bridge"}, all)
}

func readyStatus() ops.Status { return statusOf(working("default")) }

func blockedStatus() ops.Status { return statusOf(refused("default")) }

func TestStatusOfAReadyBridge(t *testing.T) {
	address := serveStatus(t, readyStatus())
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{address, "http://" + address, "http://" + address + "/", "http://" + address + ops.LivePath, "0.0.0.0:" + port, ":" + port} {
		code, out, errs := status(t, "--address", form)
		if code != exitFine || errs != "" {
			t.Errorf("--address %s: got exit code %d and stderr %q, want %d and nothing", form, code, errs, exitFine)
		}
		if !strings.HasPrefix(out, "ready ") || !strings.Contains(out, "events/3") {
			t.Errorf("--address %s: got\n%s\nwant the health first and the partition", form, out)
		}
	}
}

func TestStatusOfABlockedBridge(t *testing.T) {
	code, out, errs := status(t, "--address", serveStatus(t, blockedStatus()))
	if code != exitFailed || errs != "try: bridge help troubleshooting sink_blocked\n" {
		t.Errorf("got exit code %d and stderr %q, want %d and where the reason is explained; stdout has the rest", code, errs, exitFailed)
	}
	want := []string{"NOT READY ", "sink_blocked: the table refuses writes", "remedy: grant MODIFY"}
	lines := strings.Split(out, "\n")
	for i, line := range want {
		if i >= len(lines) || !strings.HasPrefix(strings.TrimSpace(lines[i]), strings.TrimSpace(line)) {
			t.Fatalf("line %d: want it to begin with %q; got\n%s", i+1, line, out)
		}
	}
}

func TestStatusForMachines(t *testing.T) {
	for name, s := range map[string]ops.Status{"ready": readyStatus(), "blocked": blockedStatus()} {
		t.Run(name, func(t *testing.T) {
			code, out, _ := status(t, "--address", serveStatus(t, s), "--output", "json")
			if want := map[bool]int{true: exitFine, false: exitFailed}[s.Ready]; code != want {
				t.Errorf("exit code: got %d, want %d", code, want)
			}
			var got ops.Status
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("stdout is not one JSON value: %v\n%s", err, out)
			}
			if got.Ready != s.Ready || len(got.Integrations) != 1 || got.Integrations[0].Partitions[0].Lag != 42 {
				t.Errorf("got %+v, want what the bridge has", got)
			}
		})
	}
}

func TestStatusOfABridgeThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	code, out, errs := status(t, "--address", address)
	if code != exitFailed || !strings.Contains(errs, address) || !strings.Contains(errs, "--address") {
		t.Errorf("got exit code %d and stderr %q, want %d and %s with the flag to set", code, errs, exitFailed, address)
	}
	if out != "" {
		t.Errorf("stdout: got %q, want nothing", out)
	}
}

func TestStatusOfSomethingElse(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"not found":  http.NotFound,
		"a page":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello</html>") },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"status":"ok"}`) },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, "{")
		},
		"without end":  func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, statusMaxBytes+2)) },
		"server error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			address := server.Listener.Addr().String()
			code, out, errs := status(t, "--address", address)
			if code != exitFailed || !strings.Contains(errs, address) {
				t.Errorf("got exit code %d and stderr %q, want %d and a line that names %s", code, errs, exitFailed, address)
			}
			if out != "" {
				t.Errorf("stdout: got %q, want nothing", out)
			}
		})
	}
}

func TestStatusRefusesWhatIsNoAddress(t *testing.T) {
	for _, address := range []string{"", "9400", "localhost", "ftp://localhost:9400", "http://", "me:hunter2@localhost:9400", "http://me:hunter2@local host:1/%zz"} {
		code, _, errs := status(t, "--address", address)
		if code != exitUsage || !strings.Contains(errs, "--address") {
			t.Errorf("--address %q: got exit code %d and stderr %q, want %d and a line that names the flag", address, code, errs, exitUsage)
		}
		if strings.Contains(errs, "hunter2") {
			t.Errorf("--address %q: stderr %q quotes the password", address, errs)
		}
	}
	if code, _, errs := status(t, "--output", "yaml"); code != exitUsage || !strings.Contains(errs, "text or json") {
		t.Errorf("--output yaml: got exit code %d and stderr %q, want %d and the forms there are", code, errs, exitUsage)
	}
}

// An address may hold a password, which goes to that address alone.
func TestStatusFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed with %v", r.Header)
	}))
	defer elsewhere.Close()
	bridge := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer bridge.Close()
	code, _, stderr := status(t, "--address", strings.Replace(bridge.URL, "//", "//operator:open-sesame@", 1))
	if code != 1 || !strings.Contains(stderr, "answered HTTP 307") || strings.Contains(stderr, "open-sesame") {
		t.Errorf("got code %d and %q, want 1, a message about the redirect, and no password", code, stderr)
	}
}

// serveAsking is serveStatus for a bridge that asks for a token.
func serveAsking(t *testing.T, s ops.Status, token string) string {
	t.Helper()
	server := ops.New(ops.Config{Settings: ops.Settings{Address: "127.0.0.1:0"}, Access: access.New(func() (string, error) { return token, nil }, true)},
		ops.NewMetrics("", nil, true), func() ops.Status { return s }, zaptest.NewLogger(t))
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Errorf("closing the ops server: %v", err)
		}
	})
	return server.Addr()
}

// The token comes from the configuration, is sent to a bridge that asks for it, and
// is not shown.
func TestStatusSendsTheToken(t *testing.T) {
	const token, other = "open-sesame-open-sesame", "another-token-of-some-length"
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	address := serveAsking(t, readyStatus(), token)
	for _, tt := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		says string // on stderr
	}{
		{"none", nil, nil, exitFailed, "ops.token_file=FILE"},
		{"in a file named by --set", nil, []string{"--set", "ops.token_file=" + file("token", token+"\n")}, exitFine, ""},
		{"in a configuration", nil, []string{"--config", file("config.yaml", "ops: {token: "+token+"}\n")}, exitFine, ""},
		{"in a file that a configuration names", nil, []string{"--config", file("config.yaml", "ops: {token_file: "+file("token", token)+"}\n")}, exitFine, ""},
		{"in a configuration of several integrations", nil, []string{"--config", file("config.yaml", "ops: {token: "+token+"}\nintegrations: {a: {enabled: false}, b: {enabled: false}}\n")}, exitFine, ""},
		{"in a variable", map[string]string{"BRIDGE_OPS_TOKEN": token}, nil, exitFine, ""},
		{"in a file that a variable names", map[string]string{"BRIDGE_OPS_TOKEN_FILE": file("token", token)}, nil, exitFine, ""},
		{"on the command line", nil, []string{"--set", "ops.token=" + token}, exitUsage, "ops.token_file=FILE"},
		{"another", map[string]string{"BRIDGE_OPS_TOKEN": other}, nil, exitFailed, "refuses the token"},
		{"in a file that is not there", map[string]string{"BRIDGE_OPS_TOKEN_FILE": "/nowhere/token"}, nil, exitFailed, "ops.token_file"},
		{"in a configuration that is wrong", nil, []string{"--config", file("config.yaml", "opps: {}\n")}, exitUsage, "opps"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"BRIDGE_OPS_TOKEN", "BRIDGE_OPS_TOKEN_FILE"} {
				t.Setenv(name, tt.env[name])
			}
			code, out, errs := status(t, append([]string{"--address", address}, tt.args...)...)
			if code != tt.code || !strings.Contains(errs, tt.says) || (code == exitFine) != strings.Contains(out, "events/3") {
				t.Errorf("got exit code %d, stdout %q and stderr %q; want %d, and %q in stderr", code, out, errs, tt.code, tt.says)
			}
			if strings.Contains(out+errs, token) || strings.Contains(out+errs, other) {
				t.Errorf("the token is shown:\n%s%s", out, errs)
			}
			// Whether it is ready is no secret.
			code, out, errs = status(t, append([]string{"--ready", "--address", address}, tt.args...)...)
			if tt.code != exitUsage && (code != exitFine || out != "ready      running\n" || errs != "") {
				t.Errorf("--ready: got exit code %d, stdout %q and stderr %q", code, out, errs)
			}
		})
	}
}

// The address comes from the configuration that is named.
func TestStatusAsksTheConfiguredAddress(t *testing.T) {
	address := serveStatus(t, readyStatus())
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("ops: {address: \""+address+"\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--config", file}, {"--set", "ops.address=" + address}, {"--set", "ops.address=127.0.0.1:1", "--address", address}} {
		if code, _, errs := status(t, args...); code != exitFine {
			t.Errorf("%q: got exit code %d and %q, want the status of the bridge at %s", args, code, errs, address)
		}
	}
	if code, _, errs := status(t, "--config", "/nowhere/config.yaml"); code != exitUsage || !strings.Contains(errs, "/nowhere/config.yaml") {
		t.Errorf("no such file: got exit code %d and %q", code, errs)
	}
}

// A bridge that asks for nothing is sent nothing, and no configuration is read.
func TestStatusSendsNoTokenUnasked(t *testing.T) {
	t.Setenv("BRIDGE_OPS_TOKEN", "open-sesame-open-sesame")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if given := r.Header.Get("Authorization"); given != "" || strings.Contains(r.URL.String(), "sesame") {
			t.Errorf("got %q at %s, want no token", given, r.URL)
		}
		_ = json.NewEncoder(w).Encode(readyStatus())
	}))
	defer server.Close()
	if code, _, errs := status(t, "--address", server.URL, "--set", "mapping.blueprint=/nowhere"); code != exitFine {
		t.Errorf("got exit code %d and %q, want 0", code, errs)
	}
}

func TestStatusThatIsRefused(t *testing.T) {
	for code, says := range map[int]string{
		http.StatusForbidden:          "port-forward",
		http.StatusMisdirectedRequest: "give --address as 127.0.0.1",
		http.StatusTooManyRequests:    "wait a minute",
		http.StatusServiceUnavailable: "try again",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		got, out, errs := status(t, "--address", server.URL)
		if got != exitFailed || out != "" || !strings.Contains(errs, says) || !strings.Contains(errs, server.Listener.Addr().String()) {
			t.Errorf("HTTP %d: got exit code %d, stdout %q and stderr %q, want %d and %q", code, got, out, errs, exitFailed, says)
		}
		server.Close()
	}
}

func TestStatusReady(t *testing.T) {
	address := serveStatus(t, blockedStatus())
	code, out, errs := status(t, "--ready", "--address", address)
	if code != exitFailed || errs != "try: bridge help troubleshooting sink_blocked\n" ||
		!strings.HasPrefix(out, "NOT READY  running\n") || !strings.Contains(out, "sink_blocked: the table refuses writes") || !strings.Contains(out, "remedy: grant MODIFY") {
		t.Errorf("got exit code %d, stdout %q and stderr %q", code, out, errs)
	}
	var got ops.Readiness
	if code, out, _ := status(t, "--ready", "--address", address, "--output", "json"); code != exitFailed ||
		json.Unmarshal([]byte(out), &got) != nil || got.Ready || len(got.Reasons) != 1 {
		t.Errorf("got exit code %d and %q", code, out)
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if code, _, errs := status(t, "--ready", "--address", server.URL); code != exitFailed || !strings.Contains(errs, "HTTP 404") {
		t.Errorf("something else: got exit code %d and %q", code, errs)
	}
}
