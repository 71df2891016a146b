package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

// settings is a configuration of a bridge between an in-process Kafka and an
// emulated workspace, as flags.
func settings(t *testing.T) []string {
	t.Helper()
	flags, _ := settingsAnd(t)
	return flags
}

// settingsAnd is settings with the workspace.
func settingsAnd(t *testing.T) ([]string, *emulator.Emulator) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	workspace, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := workspace.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = workspace.Close(context.WithoutCancel(t.Context())) })
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf("kafka:\n  brokers: [%s]\n  topics: [events]\nzerobus:\n  workspace_url: %s\n  client_id: %s\n  client_secret: %s\n  table: datafly.events.stream\nops:\n  address: 127.0.0.1:0\n",
		fake.ListenAddrs()[0], workspace.URL(), emulator.DefaultClientID, emulator.DefaultClientSecret)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file}, workspace
}

// said is what a command wrote and returned.
type said struct {
	code           int
	stdout, stderr string
}

func command(args ...string) said {
	var stdout, stderr bytes.Buffer
	code := execute(args, strings.NewReader(""), &stdout, &stderr)
	return said{code, stdout.String(), stderr.String()}
}

// A table that Zerobus does not write to has columns like any other. Every
// command that reads them names its kind, and a run ends before it joins.
func TestTheKindOfTheTableIsChecked(t *testing.T) {
	flags, workspace := settingsAnd(t)
	blueprint := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(blueprint, []byte("version: 2\nextends: default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ kind, format, named string }{
		{"VIEW", "", "VIEW"},
		{"MATERIALIZED_VIEW", "", "MATERIALIZED_VIEW"},
		{"EXTERNAL", "DELTA", "EXTERNAL"},
		{"FOREIGN", "", "FOREIGN"},
		{"MANAGED", "ICEBERG", "ICEBERG"},
	} {
		if err := workspace.Table("datafly.events.stream").SetKind(tc.kind, tc.format); err != nil {
			t.Fatal(err)
		}
		want := "datafly.events.stream is of the kind " + tc.named + ", and Zerobus does not write to it; set zerobus.table to a managed Delta table or a streaming table; bridge ddl prints the statements that create one"
		for _, args := range [][]string{
			append([]string{"check"}, flags...),
			append([]string{"run"}, flags...),
			append([]string{"ddl", "--alter"}, flags...),
			append([]string{"blueprint", "validate", blueprint, "--table"}, flags...),
		} {
			got := command(args...)
			if got.code != exitFailed || !strings.Contains(got.stdout+got.stderr, want) {
				t.Errorf("%s %s: bridge %s: got exit code %d, %q and %q, want %d and %q", tc.kind, tc.format, args[0], got.code, got.stdout, got.stderr, exitFailed, want)
			}
			if args[0] == "run" && strings.Contains(got.stderr, "joining the group") {
				t.Errorf("%s: got %q, want no member", tc.kind, got.stderr)
			}
		}
	}
	for _, kind := range []string{emulator.TableStreaming, emulator.TableManaged} {
		// Delta that Iceberg clients may read is Delta.
		for _, format := range []string{"DELTA", "DELTA_UNIFORM_ICEBERG", ""} {
			if err := workspace.Table("datafly.events.stream").SetKind(kind, format); err != nil {
				t.Fatal(err)
			}
			if got := command(append([]string{"check", "--write-probe"}, flags...)...); got.code != exitFine {
				t.Errorf("%s %s: got exit code %d and %s, want %d", kind, format, got.code, got.stdout, exitFine)
			}
		}
	}
}

// What cannot be compared is not ok, and no reason for exit code 1 either, since
// bridge run continues without.
func TestColumnsThatCannotBeReadAreAWarning(t *testing.T) {
	flags, workspace := settingsAnd(t)
	if err := workspace.Revoke(emulator.PrivilegeSelect, "datafly.events.stream"); err != nil {
		t.Fatal(err)
	}
	got := command(append([]string{"check"}, flags...)...)
	want := "columns             warning  the blueprint has 13 columns (without the optional page_title, search_query)\n" +
		strings.Repeat(" ", 29) + "the table's columns cannot be read, so the blueprint is not compared with them: "
	if got.code != exitFine || !strings.Contains(got.stdout, want) || !strings.Contains(got.stdout, "GRANT SELECT ON TABLE `datafly`.`events`.`stream`") {
		t.Errorf("got exit code %d and\n%s\nwant %d and %q with the grant", got.code, got.stdout, exitFine, want)
	}
	var report struct {
		OK    bool
		Steps []pipeline.CheckStep
	}
	got = command(append([]string{"check", "--output", "json"}, flags...)...)
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || !report.OK {
		t.Errorf("got %s, %v, want ok", got.stdout, err)
	}
	for _, s := range report.Steps {
		if warned := s.Warning != ""; warned != (s.Status == pipeline.StepWarning) || warned != slices.Contains([]string{"table", "grant SELECT", "columns"}, s.Step) {
			t.Errorf("got %+v, want a warning about the table, the grant and the columns", s)
		}
	}
}

// A setting that another one takes the effect from is a warning in every command
// that connects, and none elsewhere.
func TestSettingsWithoutEffectAreWarnings(t *testing.T) {
	flags, _ := settingsAnd(t)
	blueprint := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(blueprint, []byte("version: 2\nextends: default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags = append(flags, "--set", "zerobus.transport=workspace", "--set", "zerobus.streams=4", "--set", "rejects.policy=skip", "--set", "rejects.topic=bad")
	streams := "zerobus.streams has no effect with zerobus.transport workspace; take it out, or set zerobus.transport to auto or grpc\n"
	topic := "rejects.topic has no effect with rejects.policy skip; take it out, or set rejects.policy to dead_letter\n"
	got := command(append([]string{"check"}, flags...)...)
	indent := strings.Repeat(" ", 29)
	if want := "configuration       warning  events -> datafly.events.stream\n" + indent + streams + indent + topic; got.code != exitFine || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("check: got exit code %d and\n%s\nwant %d and\n%s", got.code, got.stdout, exitFine, want)
	}
	got = command(append([]string{"blueprint", "validate", blueprint, "--table"}, flags...)...)
	if want := "warning: " + streams + "warning: " + topic; got.code != exitFine || !strings.HasSuffix(got.stdout, want) {
		t.Errorf("validate: got exit code %d and\n%s\nwant %d and\n%s", got.code, got.stdout, exitFine, want)
	}
	got = command(append([]string{"run", "--group", "once", "--until", "now"}, flags...)...)
	if n := strings.Count(got.stderr, `"setting has no effect"`); got.code != exitFine || n != 2 || !strings.Contains(got.stderr, `"key":"zerobus.streams","because":"with zerobus.transport workspace","remedy":"take it out`) {
		t.Errorf("run: got exit code %d, %d lines and\n%s\nwant %d and a line each", got.code, n, got.stderr, exitFine)
	}
	traced := append([]string{"check", "--set", "tracing.max_per_second=5"}, flags...)
	if got := command(traced...); !strings.Contains(got.stdout, "tracing.max_per_second has no effect while tracing.enabled is false") {
		t.Errorf("traces off: got %s, want a warning", got.stdout)
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	if got := command(traced...); strings.Contains(got.stdout, "tracing.max_per_second") {
		t.Errorf("traces on by the environment: got %s, want no warning of them", got.stdout)
	}
	plain, _ := settingsAnd(t)
	if got := command(append([]string{"check"}, plain...)...); strings.Contains(got.stdout, "warning") || got.code != exitFine {
		t.Errorf("got %s, want no warning", got.stdout)
	}
}

// What bridge run refuses to start with fails the check, although the environment sets it.
func TestCheckReadsTheTraceVariables(t *testing.T) {
	flags, _ := settingsAnd(t)
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_TRACES_SAMPLER", "some")
	got := command(append([]string{"check"}, flags...)...)
	if want := "configuration       failed   tracing: OTEL_TRACES_SAMPLER is \"some\"; set it to"; got.code != exitFailed || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("got exit code %d and\n%s\nwant %d and %s", got.code, got.stdout, exitFailed, want)
	}
}

// Whatever is known of the table, the two commands count the same columns.
func TestCheckAndValidateCountTheSame(t *testing.T) {
	flags, workspace := settingsAnd(t)
	blueprint := filepath.Join(t.TempDir(), "blueprint.yaml")
	if err := os.WriteFile(blueprint, []byte("version: 2\nextends: default\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := append([]string{"check", "--set", "mapping.blueprint=" + blueprint}, flags...)
	offline, online := []string{"blueprint", "validate", blueprint}, append([]string{"blueprint", "validate", blueprint, "--table"}, flags...)
	same := func(when, want string, validate []string) {
		t.Helper()
		for _, args := range [][]string{check, validate} {
			if got := command(args...); got.code != exitFine || !strings.Contains(got.stdout, want) {
				t.Errorf("%s: bridge %s: got exit code %d and\n%s\nwant %d and %q", when, strings.Join(args[:2], " "), got.code, got.stdout, exitFine, want)
			}
		}
	}
	without := " 13 columns (without the optional page_title, search_query)"
	same("a table without optional columns", without, offline)
	same("a table without optional columns", without, online)
	if err := workspace.Table("datafly.events.stream").AddColumn(emulator.Column{Name: "page_title", Type: "STRING"}); err != nil {
		t.Fatal(err)
	}
	same("a table with one of them", " 14 columns (without the optional search_query)", online)
	if err := workspace.Revoke(emulator.PrivilegeSelect, "datafly.events.stream"); err != nil {
		t.Fatal(err)
	}
	same("a table that cannot be read", without, online)
	same("a table that cannot be read", without, offline)
}
