package kafkatest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

// helperEnv selects the helper that the test binary runs when a test starts it
// again.
const helperEnv = "KAFKATEST_HELPER"

// TestHelper is not a test: it is what the other processes run.
func TestHelper(t *testing.T) {
	switch os.Getenv(helperEnv) {
	case "":
		t.Skip("runs only in the processes other tests start")
	case "start":
		kafkatest.Start(t, kafkatest.Options{})
	case "scram":
		kafkatest.Start(t, kafkatest.Options{SASL: kafkatest.ScramSHA256})
	case "run":
		_, err := kafkatest.Run(t.Context(), t.TempDir(), kafkatest.Options{})
		fmt.Println("unavailable:", errors.Is(err, kafkatest.ErrUnavailable))
		fmt.Println(err)
	case "hang":
		c := kafkatest.Start(t, kafkatest.Options{})
		fmt.Println("broker", c.Brokers()[0])
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent kills us
	}
}

// helper prepares another process of this binary. Later entries of env win.
func helper(t *testing.T, part string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestHelper$", "-test.v", "-test.count=1", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), helperEnv+"="+part, "KAFKATEST_COUNT_FILE=")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func TestMissingJavaSkipsUnlessRequired(t *testing.T) {
	none := []string{"PATH=" + t.TempDir(), "JAVA_HOME="}

	out, err := helper(t, "start", append(none, "REQUIRE_APACHE_KAFKA=")...).CombinedOutput()
	if err != nil {
		t.Fatalf("without Java the helper should skip and pass: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- SKIP: TestHelper") || !strings.Contains(string(out), "install Java 17") {
		t.Errorf("got no skip that names the remedy:\n%s", out)
	}

	out, err = helper(t, "start", append(none, "REQUIRE_APACHE_KAFKA=1")...).CombinedOutput()
	if err == nil {
		t.Errorf("REQUIRE_APACHE_KAFKA=1 without Java passed:\n%s", out)
	}
	if !strings.Contains(string(out), "--- FAIL: TestHelper") {
		t.Errorf("got no failure:\n%s", out)
	}
}

// A release that lacks what a test needs skips it, and the reason names both.
func TestWhatAReleaseLacksIsSkipped(t *testing.T) {
	for release, want := range map[string]string{
		"3.3.2": "--- SKIP: TestHelper", "3.10.0": "--- FAIL: TestHelper", "4.0": "--- FAIL: TestHelper", // for want of Java
	} {
		out, _ := helper(t, "scram", "PATH="+t.TempDir(), "JAVA_HOME=", "REQUIRE_APACHE_KAFKA=1", "KAFKATEST_VERSION="+release).CombinedOutput()
		reason := "Apache Kafka " + release + " lacks SCRAM in KRaft mode (KIP-900), new in 3.5"
		if text := string(out); !strings.Contains(text, want) || strings.Contains(text, reason) != strings.Contains(want, "SKIP") {
			t.Errorf("%s: got no %q and its reason in\n%s", release, want, text)
		}
	}
}

func TestOldJavaIsRefused(t *testing.T) {
	bin := t.TempDir()
	script(t, bin, "java", `echo 'openjdk version "1.8.0_402"' >&2`)
	out := runHelper(t, "PATH="+bin+":/usr/bin:/bin", "JAVA_HOME=")
	if !strings.Contains(out, "unavailable: true") || !strings.Contains(out, "is Java 8 and Kafka") {
		t.Errorf("got %s", out)
	}
}

func TestMavenFailureIsShown(t *testing.T) {
	bin := t.TempDir()
	script(t, bin, "java", `echo 'openjdk version "21.0.2"' >&2`)
	script(t, bin, "mvn", "echo '[ERROR] no route to the repository'; exit 1")
	cache := t.TempDir()
	out := runHelper(t, "PATH="+bin+":/usr/bin:/bin", "JAVA_HOME=", "KAFKATEST_CACHE="+cache)
	for _, want := range []string{"unavailable: true", "[ERROR] no route to the repository", "settings.xml"} {
		if !strings.Contains(out, want) {
			t.Errorf("got no %q in\n%s", want, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache, "*-partial-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the cache: %v %v", left, err)
	}
}

// Test binaries of several packages start at once: one downloads, all use it.
func TestJarsAreFetchedOnce(t *testing.T) {
	bin, cache, calls := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "calls")
	script(t, bin, "java", `case "$1" in -version) echo 'openjdk version "21.0.2"' >&2 ;; *) echo 'no storage today'; exit 3 ;; esac`)
	script(t, bin, "mvn", "echo called >> "+calls+"; sleep 0.3")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			out := runHelper(t, "PATH="+bin+":/usr/bin:/bin", "JAVA_HOME=", "KAFKATEST_CACHE="+cache)
			if !strings.Contains(out, "unavailable: false") || !strings.Contains(out, "no storage today") {
				t.Errorf("the helper did not come past the jars:\n%s", out)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "called\n" {
		t.Errorf("mvn ran %d times, want once", strings.Count(string(got), "\n"))
	}
	if _, err := os.Stat(filepath.Join(cache, kafkatest.Version, "pom.xml")); err != nil {
		t.Error(err)
	}
}

func TestBrokerDiesWithTheTestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child whose parent was killed")
	}
	kafkatest.Start(t, kafkatest.Options{}) // skips, or fails, where the helper would
	cmd := helper(t, "hang", "TMPDIR="+t.TempDir())
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())

	var addr string
	ok := false
	for lines := bufio.NewScanner(stdout); !ok && lines.Scan(); {
		addr, ok = strings.CutPrefix(lines.Text(), "broker ")
	}
	if !ok {
		_ = cmd.Wait()
		t.Fatal("the helper started no broker")
	}
	must(t, dial(addr))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"

	timeout := time.After(await.Limit(t))
	for dial(addr) == nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-timeout:
			t.Fatalf("the broker at %s outlived its test process", addr)
		}
	}
}

func dial(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// runHelper runs the helper "run", which always passes.
func runHelper(t *testing.T, env ...string) string {
	out, err := helper(t, "run", env...).CombinedOutput()
	if err != nil {
		t.Errorf("the helper failed: %v\n%s", err, out)
	}
	return string(out)
}

// script writes a shell script into a folder for PATH.
func script(t *testing.T, dir, name, body string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755))
}

func TestTestsOnApacheAreCounted(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	t.Setenv("KAFKATEST_COUNT_FILE", count)
	ran := false
	kafkatest.Each(t, kafkatest.Options{}, func(_ *testing.T, b kafkatest.Broker) { ran = ran || b.Apache() })
	if !ran {
		t.Skip("no Apache Kafka here")
	}
	got, err := os.ReadFile(count)
	must(t, err)
	if want := kafkatest.Version + " " + t.Name() + "/apache\n"; string(got) != want {
		t.Errorf("count file: got %q, want %q", got, want)
	}
}
