package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kfake"
)

// What is wrong with the command line is said in one line that names the value,
// and what the command takes.
func TestTheCommandLineIsRefusedInItsOwnWords(t *testing.T) {
	t.Chdir(t.TempDir())
	for args, want := range map[string]string{
		"run extra":                "bridge run takes no arguments; got \"extra\"",
		"man":                      "bridge man takes DIR; got nothing",
		"man a b":                  "bridge man takes DIR; got \"a\" and 1 more",
		"schema":                   "bridge schema takes blueprint|config; got nothing",
		"schema bleuprint":         "bridge schema takes blueprint|config; got \"bleuprint\"",
		"dlq show":                 "bridge dlq show takes [<dead-letter topic>/]<partition>/<offset>; got nothing",
		"blueprint validate":       "bridge blueprint validate takes FILE...; got nothing",
		"rnu":                      "unknown command \"rnu\" for bridge; did you mean run?",
		"dlq lst":                  "unknown command \"lst\" for bridge dlq; did you mean list?",
		"dlq frobnicate":           "unknown command \"frobnicate\" for bridge dlq; its commands are list, redrive, show",
		"completion nushell":       "unknown command \"nushell\" for bridge completion; its commands are bash, fish, powershell, zsh",
		"run --frobnicate":         "unknown flag: --frobnicate",
		"demo --duration -5s":      "--duration is -5s; use 0 or more",
		"demo --events -1":         "--events is -1; use 0 or more",
		"demo --log-level loud":    "--log-level: log.level \"loud\" must be one of debug, info, warn, error; choose one of them",
		"demo --ops-address a:b":   "--ops-address: ops.address \"a:b\" must be host:port with a port from 0 to 65535; write it as 127.0.0.1:9400, or :9400 for every interface",
		"check --timeout 0s":       "--timeout is 0s; use more than 0, such as 30s",
		"run --config absent.yaml": "absent.yaml: cannot be opened: no such file or directory; name an existing file with --config",
		"dlq list --topics a --since -1h --until -2h": "--until -2h is not after --since -1h; exchange them",
	} {
		var stdout, stderr bytes.Buffer
		code := execute(strings.Fields(args), strings.NewReader(""), &stdout, &stderr)
		first, rest, _ := strings.Cut(stderr.String(), "\n")
		if code != exitUsage || first != "bridge: "+want || stdout.Len() > 0 || strings.Count(rest, "\n") > 1 {
			t.Errorf("bridge %s: got exit code %d, %q and %q, want %d and the line %q", args, code, stdout.String(), stderr.String(), exitUsage, "bridge: "+want)
		}
	}
}

// A flag that a command takes and does not heed misleads.
func TestCommandsTakeTheFlagsTheyHeed(t *testing.T) {
	heeded := map[string]string{
		"bridge run":                "brokers topics topic group log-level ops-address integration",
		"bridge setup":              "brokers topics topic integration",
		"bridge check":              "brokers topics topic group integration",
		"bridge map":                "integration",
		"bridge ddl":                "brokers topics topic group log-level integration", // for --alter
		"bridge blueprint validate": "brokers topics topic group log-level integration", // for --table
		"bridge status":             "integration",
		"bridge integrations list":  "brokers", "bridge integrations show": "brokers", "bridge integrations validate": "", "bridge integrations diff": "",
		"bridge integrations install": "brokers", "bridge integrations set": "brokers", "bridge integrations enable": "brokers", "bridge integrations disable": "brokers",
		"bridge integrations remove": "brokers", "bridge integrations history": "brokers", "bridge integrations export": "brokers", "bridge integrations import": "brokers",
		"bridge integrations reseal": "brokers",
		"bridge replay":              "brokers topics topic group log-level integration",
		"bridge dlq list":            "brokers topics topic group log-level integration",
		"bridge dlq show":            "brokers topics topic group log-level integration",
		"bridge dlq redrive":         "brokers topics topic group log-level integration",
	}
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			look(sub)
		}
		want, known := heeded[cmd.CommandPath()]
		if cmd.Flag("config") == nil {
			return
		}
		if !known {
			t.Errorf("%s reads the configuration; say here which of its flags it heeds", cmd.CommandPath())
		}
		for _, name := range strings.Fields("brokers topics topic group log-level ops-address integration") {
			given := cmd.Flags().Lookup(name) != nil
			if heeds := strings.Contains(" "+want+" ", " "+name+" "); given != heeds {
				t.Errorf("%s --%s: got %v, want %v", cmd.CommandPath(), name, given, heeds)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: got no usage", cmd.CommandPath(), f.Name)
			}
		})
	}
	look(newRoot())
}

// SQL does not fix a connection, nor another secret a wrong address.
func TestCheckNamesTheKeyThatIsWrong(t *testing.T) {
	t.Setenv("BRIDGE_ZEROBUS_CLIENT_SECRET", "y")
	t.Chdir(t.TempDir())
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/oidc/v1/token":
			_, _ = w.Write([]byte(`{"access_token":"t","token_type":"Bearer","expires_in":3600}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error_code":"ENDPOINT_NOT_FOUND","message":"no API here"}`))
		}
	}))
	defer tokens.Close()
	rest := " --set zerobus.transport=rest --set zerobus.workspace_id=1 --set zerobus.endpoint=" + gone.URL
	for _, tc := range []struct{ name, workspace, flags, want string }{
		{"workspace refuses", gone.URL, "", "bridge help config zerobus.workspace_url"},
		{"no workspace there", elsewhere.URL, "", "bridge help config zerobus.workspace_url"},
		{"no such path", tokens.URL, "", "bridge help config zerobus.endpoint"},
		{"endpoint refuses", tokens.URL, rest, "bridge help config zerobus.endpoint"},
	} {
		// Kafka is fine here; it would be named first.
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop"))
		if err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		line := "check --timeout 30s --brokers " + fake.ListenAddrs()[0] + " --topics shop --set zerobus.client_id=x --set zerobus.table=a.b.c --set zerobus.workspace_url=" + tc.workspace + tc.flags
		var object, none bytes.Buffer
		execute(strings.Fields(line+" --output json"), strings.NewReader(""), &object, &none)
		if strings.Contains(object.String(), "takes batches") {
			t.Errorf("%s: got %s, want no word of success of a step that failed", tc.name, object.String())
		}
		code := execute(strings.Fields(line), strings.NewReader(""), &stdout, &stderr)
		fake.Close()
		if want := "try: " + tc.want + "\n"; code != exitFailed || !strings.HasSuffix(stderr.String(), want) {
			t.Errorf("%s: got exit code %d and %q, want %d and %q; stdout:\n%s", tc.name, code, stderr.String(), exitFailed, want, stdout.String())
		}
		if strings.Contains(stdout.String(), "token               failed") && !strings.Contains(stdout.String(), "ingest              skipped  not tried, since token failed\n") {
			t.Errorf("%s: got\n%s\nwant it said why ingest is skipped", tc.name, stdout.String())
		}
	}
}

// A token that cannot be exchanged is no fault of the workspace's address.
func TestCheckNamesTheKeysOfATokenExchange(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"text": "no token", "token": "e30.e30.e30"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"TOKEN_INVALID"}`))
	}))
	defer workspace.Close()
	for file, want := range map[string]string{"absent": "zerobus.token_exchange.token_file", "text": "zerobus.token_exchange.token_file", "token": "zerobus.token_exchange"} {
		var stdout, stderr bytes.Buffer
		code := execute(strings.Fields("setup --client-id x --table a.b.c --workspace-url "+workspace.URL+" --set zerobus.token_exchange.token_file="+file), strings.NewReader(""), &stdout, &stderr)
		if want = "\ntry: bridge help config " + want + "\n"; code != exitFailed || !strings.HasSuffix(stderr.String(), want) {
			t.Errorf("%s: got exit code %d and %q, want %q", file, code, stderr.String(), want)
		}
	}
}

// After Ctrl-C the message reports the interrupt and not a fault.
func TestAnInterruptIsNoFault(t *testing.T) {
	t.Setenv("BRIDGE_ZEROBUS_CLIENT_SECRET", "y")
	t.Chdir(t.TempDir())
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client has gone
		if err := self.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	}))
	defer service.Close()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // Kafka, as a firewall lets one see it
	if err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	var signalled atomic.Bool // once for each command: a second signal kills
	asking.Go(func() {        // ends with the listener
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			asking.Go(func() { // ends with the client's connection
				defer conn.Close()
				if n, _ := conn.Read(make([]byte, 1)); n > 0 && signalled.CompareAndSwap(false, true) {
					if err := self.Signal(os.Interrupt); err != nil {
						t.Error(err)
					}
				}
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	defer asking.Wait()
	defer silent.Close()
	unanswered := " --brokers " + silent.Addr().String() + " --topics shop --set zerobus.client_id=x --set zerobus.table=a.b.c --set zerobus.workspace_url=" + service.URL
	for _, tc := range []struct{ args, stdout, stderr string }{
		{"status --address " + service.URL, "", "bridge: interrupted: asking for the status"},
		{"check" + unanswered, "kafka               failed   interrupted\n", ""},
		{"replay --to earliest" + unanswered, "", "bridge: interrupted: connecting to kafka"},
		{"dlq list" + unanswered, "", "bridge: interrupted: connecting to kafka"},
		{"dlq redrive --execute" + unanswered, "", "bridge: interrupted: connecting to kafka"},
		{"check --brokers " + fake.ListenAddrs()[0] + " --topics shop --set zerobus.client_id=x --set zerobus.table=a.b.c --set zerobus.workspace_url=" + service.URL,
			"token               failed   interrupted\ntransport           skipped  not tried, since the check was interrupted\n", ""},
	} {
		signalled.Store(false)
		var stdout, stderr bytes.Buffer
		code := execute(strings.Fields(tc.args), strings.NewReader(""), &stdout, &stderr)
		if code != exitFailed || !strings.Contains(stdout.String(), tc.stdout) || !strings.HasPrefix(stderr.String(), tc.stderr) || strings.Contains(stderr.String(), "try:") {
			t.Errorf("bridge %s: got exit code %d, %q and %q, want %d, %q, %q and nothing to try", tc.args, code, stdout.String(), stderr.String(), exitFailed, tc.stdout, tc.stderr)
		}
	}
}
