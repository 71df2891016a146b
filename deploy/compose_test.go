package deploy_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
)

const root = ".."

// compose reads docker-compose.yml as docker compose does: against the schema,
// with every reference between services resolved.
func compose(t *testing.T) *types.Project {
	t.Helper()
	file := filepath.Join(root, "docker-compose.yml")
	details := types.ConfigDetails{WorkingDir: root, ConfigFiles: []types.ConfigFile{{Filename: file}}}
	project, err := loader.LoadWithContext(t.Context(), details)
	if err != nil {
		t.Fatalf("reading docker-compose.yml: %v", err)
	}
	return project
}

func TestComposeHasTheWholePath(t *testing.T) {
	p := compose(t)
	want := []string{"bridge", "emulator", "kafka", "producer", "topic"}
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services: got %v, want %v", got, want)
	}
	for _, name := range []string{"kafka", "bridge"} {
		if p.Services[name].HealthCheck == nil {
			t.Errorf("service %s has no health check", name)
		}
	}
	for name, s := range p.Services {
		// Without a policy docker would look for the image in a registry.
		if want := map[bool]string{true: "build", false: "never"}[s.Build != nil]; s.Image == "bridge" && s.PullPolicy != want {
			t.Errorf("pull_policy of service %s: got %q, want %s", name, s.PullPolicy, want)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %s on %q; nothing here asks for a password, publish on 127.0.0.1", name, port.Published, port.HostIP)
			}
		}
	}
}

// The tests and the compose file speak of the same Kafka.
func TestComposeRunsTheKafkaThatIsTested(t *testing.T) {
	p := compose(t)
	for _, name := range []string{"kafka", "topic"} {
		if got, want := p.Services[name].Image, "apache/kafka:"+kafkatest.Version; got != want {
			t.Errorf("image of service %s: got %s, want %s", name, got, want)
		}
	}
}

// Unknown and misspelt variables are errors of the configuration.
func TestComposeConfiguresTheBridge(t *testing.T) {
	p := compose(t)
	var env []string
	for name, value := range p.Services["bridge"].Environment {
		if value == nil {
			t.Errorf("%s has no value", name)
			continue
		}
		env = append(env, name+"="+*value)
	}
	cfg, err := config.Load(config.Options{File: os.DevNull, Env: env})
	if err != nil {
		t.Fatalf("the bridge refuses its environment:\n%v", err)
	}
	for _, topic := range cfg.Kafka.Topics {
		if !slices.Contains(p.Services["topic"].Entrypoint, "--topic="+topic) {
			t.Errorf("the bridge reads topic %s, which service topic does not create", topic)
		}
		if !slices.Contains(p.Services["producer"].Command, topic) {
			t.Errorf("the bridge reads topic %s, to which service producer does not write", topic)
		}
	}
	drain := cfg.Delivery.Drain
	if grace := p.Services["bridge"].StopGracePeriod; grace == nil || time.Duration(*grace) <= drain {
		t.Errorf("stop_grace_period is %v; docker would kill the bridge within delivery.drain, %v", grace, drain)
	}
}

// Every command line is tried on the command itself: with --help a known command
// with known flags prints its help and a wrong one fails.
func TestComposeCommandsExist(t *testing.T) {
	bridge := build(t)
	p := compose(t)
	lines := map[string][]string{
		"emulator": p.Services["emulator"].Command,
		"bridge":   p.Services["bridge"].Command,
		"producer": p.Services["producer"].Command,
	}
	if test := p.Services["bridge"].HealthCheck.Test; len(test) > 2 && test[0] == "CMD" && test[1] == "/bridge" {
		lines["health check"] = types.ShellCommand(test[2:])
	} else {
		t.Errorf("the bridge's health check is %q; run /bridge status", test)
	}
	for name, args := range lines {
		out, err := run(t, bridge, args...)
		if err != nil {
			t.Errorf("%s: bridge %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		if !strings.Contains(out, "bridge "+args[0]+" ") {
			t.Errorf("%s: bridge has no command %s", name, args[0])
		}
	}
	if out, err := run(t, bridge, "run", "--no-such-flag"); err == nil {
		t.Errorf("an unknown flag passes, so this test proves nothing:\n%s", out)
	}
}

func run(t *testing.T, bridge string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bridge, append(slices.Clone(args), "--help")...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// build compiles the command without the race detector; the cache makes the
// second time cheap.
func build(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bin := filepath.Join(t.TempDir(), "bridge")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/datafly/bridge/cmd/bridge").CombinedOutput()
	if err != nil {
		t.Fatalf("building the bridge: %v\n%s", err, bytes.TrimSpace(out))
	}
	return bin
}
