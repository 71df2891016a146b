//go:build engines

package compose_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/test/engine"
)

var docker *engine.Engine

func TestMain(m *testing.M) {
	os.Exit(engine.Main(m, func(e *engine.Engine) { docker = e }))
}

// commandLimit bounds a command of compose. up compiles the bridge on a busy machine.
const commandLimit = 30 * time.Minute

// stack is the services of docker-compose.yml, with the changes of override.yml.
type stack struct {
	ctx   context.Context
	root  string   // of the repository
	files []string // that differ from it on purpose
}

func newStack(t *testing.T) stack {
	t.Helper()
	root, err := buildtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return stack{ctx: t.Context(), root: root}
}

func (s stack) cache(name string) string { return filepath.Join(s.root, ".cache/compose", name) }

// images makes the images of docker-compose.yml that others publish, under their names.
func (s stack) images(t *testing.T) {
	t.Helper()
	if err := docker.GoImage(s.ctx, s.root); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for image, parts := range map[string]map[string]string{
		"apache/kafka":    {"java": "root", "kafka": "libs"},
		"prom/prometheus": {"prometheus": "."},
	} {
		_, version, _ := strings.Cut(string(text), "image: "+image+":")
		version, _, _ = strings.Cut(version, "\n")
		dir := t.TempDir()
		err := os.CopyFS(dir, os.DirFS(filepath.Join(s.root, "test/compose", filepath.Base(image))))
		for from, to := range parts {
			err = errors.Join(err, os.CopyFS(filepath.Join(dir, to), os.DirFS(s.cache(from))))
		}
		if err != nil {
			t.Fatalf("preparing image %s: %v; tools/compose.sh makes its parts", image, err)
		}
		if err := docker.Build(s.ctx, dir, image+":"+version, "--network", "none"); err != nil {
			t.Fatal(err)
		}
	}
}

// broken returns the stack with one more file, which breaks it.
func (s stack) broken(t *testing.T, text string) stack {
	t.Helper()
	file := filepath.Join(t.TempDir(), "broken.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.files = append(s.files[:len(s.files):len(s.files)], file)
	return s
}

// compose runs a command of docker compose and returns its standard output.
func (s stack) compose(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, commandLimit)
	defer cancel()
	var all []string
	for _, file := range append([]string{"docker-compose.yml", "test/compose/override.yml"}, s.files...) {
		all = append(all, "--file", file)
	}
	cmd := exec.CommandContext(ctx, s.cache("docker-compose"), append(all, args...)...)
	cmd.Dir, cmd.Env = s.root, docker.Environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("docker compose %s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// container is what docker compose ps shows of a service.
type container struct {
	Service, ID, State, Health string
	ExitCode                   int
}

func (s stack) containers() (map[string]container, error) {
	out, err := s.compose("ps", "--all", "--no-trunc", "--format", "json")
	if err != nil {
		return nil, err
	}
	all := map[string]container{}
	for lines := json.NewDecoder(strings.NewReader(out)); lines.More(); {
		var c container
		if err := lines.Decode(&c); err != nil {
			return nil, fmt.Errorf("docker compose ps: %w", err)
		}
		all[c.Service] = c
	}
	return all, nil
}

// get requests a path of the service that publishes port.
func (s stack) get(port, path string) (string, error) {
	return s.request(http.MethodGet, port, path, "")
}

func (s stack) request(method, port, path, body string) (string, error) {
	address, err := s.address(port)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s of port %s: %s: %s", method, path, port, response.Status, bytes.TrimSpace(text))
	}
	return string(text), err
}

// address is where the port of docker-compose.yml is published.
func (s stack) address(port string) (string, error) {
	service := map[string]string{"9092": "kafka", "9090": "prometheus"}[port]
	if service == "" {
		service = "emulator"
	}
	return s.compose("port", service, port)
}

// ask asks Prometheus and decodes the data of its answer.
func (s stack) ask(path string, parameters url.Values, data any) error {
	text, err := s.get("9090", "/api/v1/"+path+"?"+parameters.Encode())
	if err != nil {
		return err
	}
	answer := struct{ Data any }{data}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return fmt.Errorf("prometheus answers to %s: %w", path, err)
	}
	return nil
}

// soon repeats a check until it holds. The error is the last one.
func soon(check func() error) error {
	var err error
	await.Within(await.Patience, func() bool { err = check(); return err == nil })
	return err
}

// found repeats a check until it fails with want, as it must on a broken stack.
func found(want string, check func() error) func() (string, error) {
	return func() (string, error) {
		var err error
		await.Within(await.Patience, func() bool { err = check(); return err != nil && strings.Contains(err.Error(), want) })
		return "", err
	}
}
