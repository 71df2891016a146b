package deploy_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/config"
)

// unit reads the settings of the service; a setting may stand more than once.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	settings := map[string][]string{}
	lines := bufio.NewScanner(strings.NewReader(read(t, "deploy/systemd/bridge.service")))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

func TestServiceRunsTheBridge(t *testing.T) {
	s := unit(t)
	start := strings.Fields(s["ExecStart"][0])
	if out, err := run(t, build(t), start[1:]...); err != nil {
		t.Errorf("%s: %v\n%s", s["ExecStart"], err, out)
	}
	drain := config.Defaults().Delivery.Drain
	if stop, err := time.ParseDuration(s["TimeoutStopSec"][0]); err != nil || stop <= drain {
		t.Errorf("TimeoutStopSec: got %s, %v; systemd would kill the bridge within delivery.drain, %s", s["TimeoutStopSec"], err, drain)
	}
	// 2 is the exit code of a wrong configuration.
	if got := s["RestartPreventExitStatus"]; !slices.Equal(got, []string{"2"}) {
		t.Errorf("RestartPreventExitStatus: got %v, want 2", got)
	}
	if got := regexp.MustCompile(`(?m)^u (\S+) `).FindStringSubmatch(read(t, "deploy/systemd/bridge.sysusers.conf")); got == nil || got[1] != s["User"][0] {
		t.Errorf("bridge.sysusers.conf makes %v, the service runs as %s", got, s["User"])
	}
}

// systemd itself reads the unit, and counts what the service could still do.
func TestServiceIsSoundAndHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here; install systemd to have the unit verified")
	}
	// The binary need not be installed where the test runs.
	file := filepath.Join(t.TempDir(), "bridge.service")
	text := strings.Replace(read(t, "deploy/systemd/bridge.service"), "ExecStart=/usr/local/bin/bridge", "ExecStart=/bin/true", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", file).CombinedOutput(); err != nil || strings.Contains(string(out), "bridge.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// 2.0 of 10: what is left is that it speaks TCP and reads files.
	if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
