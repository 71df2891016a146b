package charttest_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// built compiles the command once.
var built = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	bin := filepath.Join(scratch, "bridge")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/bridge")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(bytes.TrimSpace(out)))
	}
	return bin, nil
})

var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "charttest-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

// bridge runs one command and returns its output and its exit code: 2 is a wrong
// command line or configuration.
func bridge(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatalf("building the bridge: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env = t.TempDir(), append([]string{}, env...) // none of this process
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("bridge %s: %v", strings.Join(args, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// configured has the bridge read its rendered configuration, with what the pods
// mount laid out in a folder, and compares it with the pods.
func configured(t *testing.T, m manifest) {
	t.Helper()
	mounted := t.TempDir()
	files := map[string]string{"zerobus/client-secret": "x", "zerobus/orders": "x", "zerobus/clicks": "x", "zerobus/token": "x", "zerobus-token/token": "x", "kafka/password": "x", "ops/token": "0123456789abcdef",
		"kafka-tls/ca.crt": "x", "kafka-tls/tls.crt": "x", "kafka-tls/tls.key": "x", "proxy-ca/ca.crt": authority,
		"admin/tokens": "ada admin sha256:" + strings.Repeat("0", 64), "admin/jwks.json": `{"keys": []}`, "admin-tls/tls.crt": "x", "admin-tls/tls.key": "x"}
	for _, key := range []string{"store.key", "new", "old"} {
		files["store/"+key] = strings.Repeat(key[:1], 32)
	}
	for name, content := range files {
		write(t, filepath.Join(mounted, name), content)
	}
	text := ""
	for name, o := range m.objects {
		c, ok := o.(*core.ConfigMap)
		if !ok {
			continue
		}
		folder := "config"
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			folder = name[i+1:]
		}
		for file, content := range c.Data {
			if file == "config.yaml" {
				text = content
			}
			mount(t, filepath.Join(mounted, folder), file, strings.ReplaceAll(content, "/etc/bridge/", mounted+"/"))
		}
	}
	if err := os.MkdirAll(filepath.Join(mounted, "integrations"), 0o700); err != nil { // an empty ConfigMap
		t.Fatal(err)
	}
	file := filepath.Join(mounted, "config/config.yaml")
	validate := []string{"integrations", "validate", "--config", file}
	if out, code := bridge(t, nil, validate...); code != 0 {
		t.Errorf("the bridge refuses the rendered configuration: exit code %d\n%s\n%s", code, out, text)
	}
	if _, code := bridge(t, nil, append(validate, "--set", "zerobus.tabel=x")...); code != 2 {
		t.Errorf("an unknown key: got exit code %d, want 2, or this test proves nothing", code)
	}

	cfg := struct {
		Ops      struct{ Address string }
		Delivery struct{ Drain string }
	}{}
	cfg.Delivery.Drain = defaultDrain(t)
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Ops.Address != ":9400" {
		t.Errorf("ops.address: got %q, want :9400, where the probes ask", cfg.Ops.Address)
	}
	drain, err := time.ParseDuration(cfg.Delivery.Drain)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range m.objects {
		template, _, ok := pod(o)
		if grace := template.Spec.TerminationGracePeriodSeconds; ok && grace != nil && time.Duration(*grace)*time.Second <= drain {
			t.Errorf("%s: got a grace period of %d s, want more than delivery.drain, %s", name, *grace, drain)
		}
	}
}

// mount lays a file out as the kubelet does with a ConfigMap: behind two links.
func mount(t *testing.T, folder, name, content string) {
	t.Helper()
	write(t, filepath.Join(folder, "..2026_11_30", name), content)
	if err := os.Symlink("..2026_11_30", filepath.Join(folder, "..data")); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// authority is a certificate of nobody.
var authority = func() string {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}()

// defaultDrain is delivery.drain of config.example.yaml, which holds the defaults.
func defaultDrain(t *testing.T) string {
	t.Helper()
	var example struct{ Delivery struct{ Drain string } }
	if err := yaml.Unmarshal([]byte(read(t, "config.example.yaml")), &example); err != nil {
		t.Fatal(err)
	}
	return example.Delivery.Drain
}

// Every command line of the manifests is tried on the command itself: with --help
// a known command with known flags prints its help and a wrong one fails.
func TestCommandsExist(t *testing.T) {
	if _, code := bridge(t, nil, "run", "--no-such-flag", "--help"); code != 2 {
		t.Fatalf("an unknown flag: got exit code %d, want 2, or this test proves nothing", code)
	}
	tried := 0
	for _, text := range []string{
		joined(mustRender(t, values(t, minimal, everything))),
		read(t, "deploy/kubernetes/bridge.yaml"),
		read(t, "deploy/kubernetes/replay-job.yaml"),
	} {
		for name, object := range parse(t, text).objects {
			template, _, ok := pod(object)
			if !ok {
				continue
			}
			for _, c := range template.Spec.Containers {
				out, code := bridge(t, nil, append(slices.Clone(c.Args), "--help")...)
				if code != 0 || !strings.Contains(out, "bridge "+c.Args[0]+" ") {
					t.Errorf("%s: bridge %s: exit code %d\n%s", name, strings.Join(c.Args, " "), code, out)
				}
				tried++
			}
		}
	}
	if want := 5; tried != want {
		t.Errorf("tried %d command lines, want %d: two deployments, two replays, the check", tried, want)
	}
}
