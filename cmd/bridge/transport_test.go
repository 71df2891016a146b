package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Commands that map for the live table find the transport first. The form of the rows
// depends on it: rfc3339 fits JSON rows, and not protobuf.
func TestCommandsFindTheTransportFirst(t *testing.T) {
	const unfit = "timestamp_format"
	flags, workspace := settingsAnd(t)
	if err := workspace.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	blueprint := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(blueprint, []byte("version: 2\nextends: default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Options{File: flags[1]})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "events", Value: []byte("no event")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	once := append([]string{"--group", "once"}, flags...)
	if got := command(append([]string{"run", "--until", "now"}, once...)...); got.code != exitFine {
		t.Fatalf("run: got exit code %d and %s", got.code, got.stderr)
	}
	flags = append(flags, "--set", "zerobus.timestamp_format=rfc3339")
	once = append(once, "--set", "zerobus.timestamp_format=rfc3339")
	validate := append([]string{"blueprint", "validate", blueprint, "--table"}, flags...)
	show := append([]string{"dlq", "show", "0/0"}, once...)
	for _, tc := range []struct {
		name    string
		change  func()
		fits    bool
		ignored string
	}{
		{"gRPC", func() { workspace.SetIngestAPI(false) }, false, "zerobus.ingest_path has no effect with zerobus.transport grpc"},
		{"REST", func() { workspace.SetHTTP2(false) }, true, "zerobus.ingest_path has no effect with zerobus.transport rest"},
	} {
		tc.change()
		got := command(append(validate, "--set", "zerobus.ingest_path=/own")...)
		if fine := got.code == exitFine; fine != tc.fits || strings.Contains(got.stdout, unfit) == tc.fits || !strings.Contains(got.stdout, tc.ignored) {
			t.Errorf("%s: validate: got exit code %d and\n%s\nwant it to fit: %v, and a warning", tc.name, got.code, got.stdout, tc.fits)
		}
		got = command(show...)
		if got.code != exitFine || strings.Contains(got.stdout, "by the blueprint alone: ") == tc.fits || strings.Contains(got.stdout, unfit) == tc.fits {
			t.Errorf("%s: show: got exit code %d and\n%s\nwant it to fit: %v", tc.name, got.code, got.stdout, tc.fits)
		}
	}
	if err := workspace.Revoke(emulator.PrivilegeModify, "datafly.events.stream"); err != nil {
		t.Fatal(err)
	}
	workspace.SetIngestAPI(true)
	const assumed = "the form of the rows is not known, JSON is assumed: "
	for _, args := range [][]string{validate, show} {
		if got := command(args...); got.code != exitFine || strings.Count(got.stdout, assumed) != 1 || !strings.Contains(got.stdout, "GRANT") {
			t.Errorf("bridge %s %s: got exit code %d and\n%s\nwant %q with the grant", args[0], args[1], got.code, got.stdout, assumed)
		}
	}
	// What is offline stays so.
	away := []string{"--config", flags[1], "--set", "zerobus.workspace_url=http://127.0.0.1:1", "--set", "kafka.brokers=127.0.0.1:1"}
	for _, args := range [][]string{{"ddl"}, {"map", os.DevNull}, {"blueprint", "validate", blueprint}} {
		if got := command(append(args, away...)...); got.code != exitFine {
			t.Errorf("bridge %s without a network: got exit code %d, %s", args[0], got.code, got.stderr)
		}
	}
}
